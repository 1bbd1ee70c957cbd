//! Handlers of the panel: the list of sites and the handshake log.

use rocket::{FromForm, Route, get, routes};
use serde_json::{Map, Value, json};

use super::{LogEntry, Outcome};
use crate::app::App;
use crate::domain::Domain;
use crate::domains::panel::{bound_license_json, domain_json};
use crate::domains::{self, BoundLicense, BoundQuery};
use crate::error::Result;
use crate::id::ProductId;
use crate::paging::{Cursor, Direction, PageRequest, SortPosition, Total};
use crate::panel::Support;
use crate::web::html::HtmlReply;
use crate::web::pager::{self, Extent, Heads, Pager, Shown};

/// Transfers in progress that are shown above the list.
const TRANSFERS_SHOWN: u32 = 20;
/// The log entries that are shown below the list.
const LATEST: PageRequest<SortPosition> = PageRequest::first(10);
/// The position of a license in the list is its domain and its id, since several licenses may be bound to one domain.
const SITES_PAGER: Pager<'_, 2> = Pager::sorted(LIST);
const LOG_PAGER: Pager<'_, 2> = Pager::sorted(LOG);
const LIST: &str = "/lizenzserver/sites";
const LOG: &str = "/lizenzserver/sites/handshakes";
/// The only column by which the list can be sorted.
const DOMAIN: &str = "domain";
/// The only column by which the log can be sorted, and how it is if no order is chosen.
const TIME: &str = "time";
const NEWEST_FIRST: &str = "-time";

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
        "license_id": finished.license,
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
    order: Option<&'r str>,
    rows: Option<&'r str>,
    row: Option<&'r str>,
    after: Option<&'r str>,
    after_id: Option<&'r str>,
    before: Option<&'r str>,
    before_id: Option<&'r str>,
}

impl SitesQuery<'_> {
    /// # Errors
    /// [`crate::error::Error::Invalid`] if the list cannot be sorted so.
    fn bound(&self, product: Option<ProductId>) -> Result<BoundQuery> {
        let order = pager::sorting(self.order, |word| (word == DOMAIN).then_some(()))?;
        Ok(BoundQuery {
            product,
            search: self.q.unwrap_or_default().trim().to_owned(),
            direction: order.map_or(Direction::Ascending, |((), direction)| direction),
        })
    }

    /// The search and the order as parameters.
    fn pairs(&self) -> [(&str, &str); 2] {
        let trimmed = |text: Option<_>| str::trim(text.unwrap_or_default());
        [("q", trimmed(self.q)), ("order", trimmed(self.order))]
    }
}

/// The position of a license in the list.
fn position(bound: &BoundLicense) -> SortPosition {
    let domain = bound.binding.domain.as_ref();
    SortPosition {
        value: domain.map_or_else(String::new, |domain| domain.as_str().to_owned()),
        id: bound.license.id.0,
    }
}

/// The column head that sorts the list.
fn heads(filter: &[(&str, &str)], order: &str) -> Map<String, Value> {
    let heads = Heads {
        path: LIST,
        filter,
        order,
        default: DOMAIN,
    };
    heads.of(&[DOMAIN])
}

/// The list of sites, with the transfers in progress and the latest handshakes.
#[get("/sites?<query..>")]
async fn list(request: Support<'_>, query: SitesQuery<'_>, app: &App) -> HtmlReply {
    let extent = Extent::parse(query.rows, query.row)?;
    let from = SITES_PAGER.sorted_cursor(
        (query.after, query.after_id),
        (query.before, query.before_id),
    )?;
    let product = request.chosen();
    let bound = query.bound(product)?;
    // Transfers and handshakes are shown on the first page only, and not with search results.
    let is_start_page = from == Cursor::First && bound.search.is_empty();
    let page_request = extent.request(from);
    let ((page, total), transfers, latest) = app
        .db
        .read(move |reader| {
            Ok((
                domains::bound_licenses(reader, &bound, &page_request)?,
                domains::transfers_in_progress(reader, product, TRANSFERS_SHOWN)?,
                super::log_entries(reader, (None, Direction::Descending), &LATEST)?.0,
            ))
        })
        .await?;
    let [search, order] = query.pairs();
    let filter = [search, order];
    let shown = Shown::new(&filter, extent, &page, total);
    let links = SITES_PAGER.sorted_links(&shown, position);
    let heads = heads(&[search], order.1);
    let row = |bound: &BoundLicense| bound_license_json(&request, bound);
    let transfers = transfers.iter().filter(|_| is_start_page);
    let latest = latest.rows.iter().filter(|_| is_start_page);
    let values = json!({
        "rows": page.rows.iter().map(row).collect::<Vec<_>>(),
        "transfers": transfers.map(row).collect::<Vec<_>>(),
        "latest": latest.map(log_entry_json).collect::<Vec<_>>(),
        "q": search.1,
        "order": order.1,
        "heads": heads,
        "pager": links,
    });
    request.page("handshake/list.html.tera", values).await
}

/// The query of the handshake log.
#[derive(FromForm)]
struct LogQuery<'r> {
    domain: Option<&'r str>,
    order: Option<&'r str>,
    rows: Option<&'r str>,
    row: Option<&'r str>,
    after: Option<&'r str>,
    after_id: Option<&'r str>,
    before: Option<&'r str>,
    before_id: Option<&'r str>,
}

/// The column head that sorts the log; `filter` is the domain and the order.
fn log_heads([domain, (_, order)]: &[(&str, &str); 2]) -> Map<String, Value> {
    let heads = Heads {
        path: LOG,
        filter: &[*domain],
        order,
        default: NEWEST_FIRST,
    };
    heads.of(&[TIME])
}

/// The handshake log, of one domain or of all.
#[get("/sites/handshakes?<query..>")]
async fn handshakes(request: Support<'_>, query: LogQuery<'_>, app: &App) -> HtmlReply {
    let extent = Extent::parse(query.rows, query.row)?;
    let from = LOG_PAGER.sorted_cursor(
        (query.after, query.after_id),
        (query.before, query.before_id),
    )?;
    let page_request = extent.request(from);
    let typed = query.domain.unwrap_or_default().trim().to_owned();
    let wanted = Domain::from_input(&typed);
    let is_malformed = wanted.is_none() && !typed.is_empty();
    let order = pager::sorting(query.order, |word| (word == TIME).then_some(()))?;
    let direction = order.map_or(Direction::Descending, |((), direction)| direction);
    let (page, total) = app
        .db
        .read(move |reader| {
            if is_malformed {
                return Ok((page_request.page(Vec::new()), Total::Exactly(0)));
            }
            super::log_entries(reader, (wanted.as_ref(), direction), &page_request)
        })
        .await?;
    let filter = [
        ("domain", typed.as_str()),
        ("order", query.order.unwrap_or_default().trim()),
    ];
    let shown = Shown::new(&filter, extent, &page, total);
    let position = |entry: &LogEntry| SortPosition::number(entry.id, entry.id);
    let links = LOG_PAGER.sorted_links(&shown, position);
    let values = json!({
        "rows": page.rows.iter().map(log_entry_json).collect::<Vec<_>>(),
        "domain": typed,
        "order": filter[1].1,
        "heads": log_heads(&filter),
        "pager": links,
    });
    request.page("handshake/log.html.tera", values).await
}

/// The routes of this module's pages.
pub fn routes() -> Vec<Route> {
    routes![list, handshakes]
}
