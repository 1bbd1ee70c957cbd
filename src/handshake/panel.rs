//! Handlers of the panel: the list of sites and the handshake log.

use rocket::{Route, State, get, routes};
use serde_json::{Value, json};

use super::{LogEntry, Outcome};
use crate::admins::panel::Support;
use crate::db::Db;
use crate::domain::Domain;
use crate::domains;
use crate::domains::panel::{name, row};
use crate::id::LicenseId;
use crate::web::html::{HtmlReply, path_with_query};
use crate::web::query;

/// Licenses on one page of the list.
const PAGE_SIZE: u32 = 50;
/// Transfers in progress that are shown above the list.
const TRANSFERS_SHOWN: u32 = 20;
/// Log entries that are shown below the list.
const LOG_ENTRIES_SHOWN: u32 = 10;
/// Log entries on one page of the handshake log.
const LOG_PAGE_SIZE: u32 = 50;
const SITES_PATH: &str = "/lizenzserver/sites";
const LOG_PATH: &str = "/lizenzserver/sites/handshakes";

fn log_row(entry: &LogEntry) -> Value {
    let finished = &entry.finished;
    let tone = match finished.outcome {
        Outcome::Delivered => "ok",
        Outcome::Undelivered | Outcome::Unanswered => "bad",
        Outcome::Refused => "warn",
        Outcome::Abandoned => "idle",
    };
    json!({
        "at": finished.at,
        "domain": name(&finished.domain),
        "source": finished.source,
        "operation": finished.operation,
        "tone": tone,
        "ending": finished.outcome.word(),
        "status": finished.reason.strip_prefix("status_"),
        "reason": finished.reason,
    })
}

/// The list of sites, with the transfers in progress and the latest handshakes.
#[get("/sites?<q>&<after>&<after_id>")]
async fn list(
    who: Support<'_>,
    q: Option<&str>,
    after: Option<&str>,
    after_id: Option<&str>,
    db: &State<Db>,
) -> HtmlReply {
    let search = q.unwrap_or_default().trim().to_owned();
    let after_id = query::number("after_id", after_id)?;
    let from = after.zip(after_id).map(|(name, id)| (name.to_owned(), id));
    let (is_first_page, search_text) = (from.is_none(), search.clone());
    let (mut rows, moving, latest) = db
        .read(move |reader| {
            let (name, id) = from.unwrap_or_default();
            let rows = domains::bound_licenses(
                reader,
                &search_text,
                (&name, LicenseId(id)),
                PAGE_SIZE + 1,
            )?;
            let latest = super::log_entries(reader, None, i64::MAX, LOG_ENTRIES_SHOWN)?;
            Ok((
                rows,
                domains::transfers_in_progress(reader, TRANSFERS_SHOWN)?,
                latest,
            ))
        })
        .await?;
    let more = rows.len() > PAGE_SIZE as usize;
    rows.truncate(PAGE_SIZE as usize);
    let now = who.now.wall;
    let last = rows.last().filter(|_| more);
    let older = last.and_then(|last| {
        let (domain, id) = (last.binding.domain.as_ref()?, last.license.id.to_string());
        let pairs = [
            ("q", search.as_str()),
            ("after", domain.as_str()),
            ("after_id", &id),
        ];
        Some(path_with_query(SITES_PATH, &pairs))
    });
    // Transfers and handshakes are on the first page only, and not beside search results.
    let is_start = is_first_page && search.is_empty();
    let moving = moving
        .iter()
        .filter(|_| is_start)
        .map(|bound| row(bound, now));
    let values = json!({
        "rows": rows.iter().map(|bound| row(bound, now)).collect::<Vec<_>>(),
        "moving": moving.collect::<Vec<_>>(),
        "latest": latest.iter().filter(|_| is_start).map(log_row).collect::<Vec<_>>(),
        "q": search,
        "older": older,
        "newer": (!is_first_page).then(|| path_with_query(SITES_PATH, &[("q", &search)])),
    });
    who.page("handshake/list.html.tera", values).await
}

/// The handshake log, of one domain or of all.
#[get("/sites/handshakes?<domain>&<before>")]
async fn handshakes(
    who: Support<'_>,
    domain: Option<&str>,
    before: Option<&str>,
    db: &State<Db>,
) -> HtmlReply {
    let before = query::number("before", before)?;
    let typed = domain.unwrap_or_default().trim().to_owned();
    let wanted = Domain::from_input(&typed);
    let is_malformed = wanted.is_none() && !typed.is_empty();
    let from = before.unwrap_or(i64::MAX);
    let mut rows = db
        .read(move |reader| {
            if is_malformed {
                return Ok(Vec::new());
            }
            super::log_entries(reader, wanted.as_ref(), from, LOG_PAGE_SIZE + 1)
        })
        .await?;
    let more = rows.len() > LOG_PAGE_SIZE as usize;
    rows.truncate(LOG_PAGE_SIZE as usize);
    let last = rows
        .last()
        .filter(|_| more)
        .map(|entry| entry.id.to_string());
    let at =
        |before: &str| path_with_query(LOG_PATH, &[("domain", typed.as_str()), ("before", before)]);
    let values = json!({
        "rows": rows.iter().map(log_row).collect::<Vec<_>>(),
        "domain": typed,
        "older": last.map(|id| at(&id)),
        "newer": before.map(|_| at("")),
    });
    who.page("handshake/past.html.tera", values).await
}

/// The routes of this module's pages.
pub fn routes() -> Vec<Route> {
    routes![list, handshakes]
}
