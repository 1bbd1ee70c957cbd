//! Handlers of the panel: the list of sites and the handshake log.

use rocket::{FromForm, Route, get, routes};
use serde_json::{Value, json};

use super::{LogEntry, Outcome};
use crate::app::App;
use crate::domain::Domain;
use crate::domains::panel::{bound_license_json, domain_json};
use crate::domains::{self, BoundLicense, BoundPosition};
use crate::error::Result;
use crate::id::LicenseId;
use crate::paging::{Cursor, PageRequest};
use crate::panel::Support;
use crate::web::html::HtmlReply;
use crate::web::pager::Pager;
use crate::web::query;

/// Licenses on one page of the list.
const PAGE_SIZE: u32 = 50;
/// Transfers in progress that are shown above the list.
const TRANSFERS_SHOWN: u32 = 20;
/// Log entries that are shown below the list.
const LOG_ENTRIES_SHOWN: u32 = 10;
/// Log entries on one page of the handshake log.
const LOG_PAGE_SIZE: u32 = 50;
/// The position of a license in the list is its domain and its id, since several licenses may be bound to one domain.
const SITES_PAGER: Pager<2> = Pager {
    path: "/lizenzserver/sites",
    next: ["after", "after_id"],
    previous: ["", ""],
};
const LOG_PAGER: Pager<1> = Pager {
    path: "/lizenzserver/sites/handshakes",
    next: ["before"],
    previous: [""],
};

/// A row of the handshake log, for templates.
fn log_entry_json(entry: &LogEntry) -> Value {
    let finished = &entry.finished;
    let tone = match finished.outcome {
        Outcome::Delivered => "ok",
        Outcome::Undelivered | Outcome::ChallengeFailed => "bad",
        Outcome::Refused => "warn",
        Outcome::Abandoned => "idle",
    };
    json!({
        "at": finished.at,
        "domain": domain_json(&finished.domain),
        "source": finished.source,
        "operation": finished.operation,
        "tone": tone,
        "outcome": finished.outcome.as_str(),
        "status": finished.reason.strip_prefix("status_"),
        "reason": finished.reason,
    })
}

/// The query of the list of sites.
#[derive(FromForm)]
struct SitesQuery<'r> {
    q: Option<&'r str>,
    after: Option<&'r str>,
    after_id: Option<&'r str>,
}

impl SitesQuery<'_> {
    /// The position that the page follows; `None` for the first page.
    fn after(&self) -> Result<Option<BoundPosition>> {
        let id = query::number("after_id", self.after_id)?;
        Ok(self.after.zip(id).map(|(domain, id)| BoundPosition {
            domain: domain.to_owned(),
            id: LicenseId(id),
        }))
    }
}

/// The list of sites, with the transfers in progress and the latest handshakes.
#[get("/sites?<query..>")]
async fn list(request: Support<'_>, query: SitesQuery<'_>, app: &App) -> HtmlReply {
    let search = query.q.unwrap_or_default().trim().to_owned();
    let from = query.after()?;
    // Transfers and handshakes are shown on the first page only, and not with search results.
    let is_start_page = from.is_none() && search.is_empty();
    let page_request = PageRequest {
        from: Cursor::after(from),
        limit: PAGE_SIZE,
    };
    let (term, product) = (search.clone(), request.chosen());
    let (page, transfers, latest) = app
        .db
        .read(move |reader| {
            Ok((
                domains::bound_licenses(reader, product, &term, &page_request)?,
                domains::transfers_in_progress(reader, product, TRANSFERS_SHOWN)?,
                super::log_entries(reader, None, &PageRequest::first(LOG_ENTRIES_SHOWN))?,
            ))
        })
        .await?;
    let links = SITES_PAGER.links(&[("q", &search)], &page, |bound: &BoundLicense| {
        let domain = bound.binding.domain.as_ref();
        let domain = domain.map_or("", |domain| domain.as_str());
        [domain.to_owned(), bound.license.id.to_string()]
    });
    let row = |bound: &BoundLicense| bound_license_json(&request, bound);
    let transfers = transfers.iter().filter(|_| is_start_page);
    let latest = latest.rows.iter().filter(|_| is_start_page);
    let values = json!({
        "rows": page.rows.iter().map(row).collect::<Vec<_>>(),
        "transfers": transfers.map(row).collect::<Vec<_>>(),
        "latest": latest.map(log_entry_json).collect::<Vec<_>>(),
        "q": search,
        "older": links.older,
        "newer": links.newer,
    });
    request.page("handshake/list.html.tera", values).await
}

/// The handshake log, of one domain or of all.
#[get("/sites/handshakes?<domain>&<before>")]
async fn handshakes(
    request: Support<'_>,
    domain: Option<&str>,
    before: Option<&str>,
    app: &App,
) -> HtmlReply {
    let page_request = PageRequest {
        from: Cursor::after(query::number("before", before)?),
        limit: LOG_PAGE_SIZE,
    };
    let typed = domain.unwrap_or_default().trim().to_owned();
    let wanted = Domain::from_input(&typed);
    let is_malformed = wanted.is_none() && !typed.is_empty();
    let page = app
        .db
        .read(move |reader| {
            if is_malformed {
                return Ok(page_request.page(Vec::new()));
            }
            super::log_entries(reader, wanted.as_ref(), &page_request)
        })
        .await?;
    let links = LOG_PAGER.links(&[("domain", &typed)], &page, |entry: &LogEntry| {
        [entry.id.to_string()]
    });
    let values = json!({
        "rows": page.rows.iter().map(log_entry_json).collect::<Vec<_>>(),
        "domain": typed,
        "older": links.older,
        "newer": links.newer,
    });
    request.page("handshake/log.html.tera", values).await
}

/// The routes of this module's pages.
pub fn routes() -> Vec<Route> {
    routes![list, handshakes]
}
