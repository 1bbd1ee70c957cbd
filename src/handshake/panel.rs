//! Handlers of the panel: the list of sites and the handshake log.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use super::{LogEntry, Outcome};
use crate::app::App;
use crate::db::Reader;
use crate::domain::Domain;
use crate::domains::panel::{bound_license_json, domain_json};
use crate::domains::{self, BoundColumn, BoundLicense, BoundPage, BoundQuery};
use crate::error::Result;
use crate::paging::{Cursor, Direction, Page, PageRequest, SORTED_MAX, SortPosition, Total};
use crate::panel::Support;
use crate::web::html::HtmlReply;
use crate::web::pager::{ListParams, ListUrl};
use crate::web::query;

/// The transfers in progress that are shown above the list.
const NEXT_TRANSFERS: PageRequest<SortPosition> = PageRequest::first(20);
const TRANSFERS: &str = "/lizenzserver/sites/transfers";
/// The log entries that are shown below the list.
const LATEST: PageRequest<SortPosition> = PageRequest::first(10);
const LIST: &str = "/lizenzserver/sites";
const LOG: &str = "/lizenzserver/sites/handshakes";
/// The order of the log if none is chosen.
const NEWEST_FIRST: &str = "-time";

/// A column by which the log can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogColumn {
    /// When the handshake ended.
    Time,
    /// The word of its outcome.
    Result,
    /// The operation.
    Operation,
    /// The address.
    Source,
}

impl LogColumn {
    /// Every column.
    const ALL: [Self; 4] = [Self::Time, Self::Result, Self::Operation, Self::Source];
    /// The order if none is chosen: the newest entry first.
    const DEFAULT: (Self, Direction) = (Self::Time, Direction::Descending);

    /// The word in URLs.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Result => "result",
            Self::Operation => "operation",
            Self::Source => "source",
        }
    }

    /// The column for a word; `None` if unknown.
    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }

    /// The position of an entry in a list that is sorted by this column.
    fn position(self, entry: &LogEntry) -> SortPosition {
        let (finished, id) = (&entry.finished, entry.id);
        match self {
            Self::Time => SortPosition::number(id, id),
            Self::Result => SortPosition::text(finished.outcome.as_str(), id),
            Self::Operation => {
                SortPosition::text(finished.operation.as_deref().unwrap_or_default(), id)
            }
            Self::Source => SortPosition::address(&finished.source, id),
        }
    }
}

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

/// What the list of sites shows.
struct Sites {
    listed: BoundPage,
    /// The next transfers to end, and how many are in progress.
    transfers: (Page<BoundLicense>, Total),
    latest: Vec<LogEntry>,
}

/// Reads a page. Transfers and handshakes are shown on the first page only, and not with search results.
fn read_sites(
    reader: &Reader<'_>,
    bound: &BoundQuery,
    page_request: PageRequest<SortPosition>,
) -> Result<Sites> {
    let (transfers, latest) = if page_request.from == Cursor::First && bound.search.is_empty() {
        let newest_first = (
            |entry: &LogEntry| LogColumn::Time.position(entry),
            Direction::Descending,
        );
        let (latest, _) = super::log_entries(reader, None, newest_first, &LATEST)?;
        let transfers = domains::transfers_in_progress(reader, bound.product, &NEXT_TRANSFERS)?;
        (transfers, latest.rows)
    } else {
        let none = NEXT_TRANSFERS.page(Vec::new());
        ((none, Total::Exactly(0)), Vec::new())
    };
    Ok(Sites {
        listed: domains::bound_licenses(reader, bound, page_request)?,
        transfers,
        latest,
    })
}

/// The list of sites, with the transfers in progress and the latest handshakes.
#[get("/sites")]
async fn list(request: Support<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let page_request = params.page()?;
    let chosen = params.sorting(BoundColumn::parse)?;
    let chosen = chosen.unwrap_or(BoundColumn::DEFAULT);
    let bound = BoundQuery {
        product: request.chosen(),
        search: params.search.to_owned(),
        order: chosen,
    };
    let sites = app
        .db
        .read(move |reader| read_sites(reader, &bound, page_request))
        .await?;
    let BoundPage { page, total, order } = sites.listed;
    let params = params.in_order(chosen, order);
    let url = ListUrl {
        path: LIST,
        params: &params,
        filter: &[("q", params.search)],
        default_order: BoundColumn::DEFAULT.0.as_str(),
    };
    let (transfers, in_progress) = sites.transfers;
    let row = |bound: &BoundLicense| bound_license_json(&request, bound);
    let values = json!({
        "rows": page.rows.iter().map(row).collect::<Vec<_>>(),
        "transfers": transfers.rows.iter().map(row).collect::<Vec<_>>(),
        "all_transfers": transfers.has_next.then(|| total_json(in_progress)),
        "latest": sites.latest.iter().map(log_entry_json).collect::<Vec<_>>(),
        "q": params.search,
        "order": params.order,
        "heads": url.heads(&BoundColumn::ALL.map(BoundColumn::as_str)),
        "sorted_max": (order != chosen).then_some(SORTED_MAX),
        "pager": url.links(&page, total, |bound| bound.position(order.0))?,
    });
    request.page("handshake/list.html.tera", values).await
}

/// A number of rows for a template: `total`, and whether there are more.
fn total_json(total: Total) -> Value {
    let (total, has_more) = match total {
        Total::Exactly(total) => (total, false),
        Total::MoreThan(total) => (total, true),
        Total::Unknown => (0, true),
    };
    json!({ "total": total, "has_more": has_more })
}

/// All transfers in progress.
#[get("/sites/transfers")]
async fn transfers(request: Support<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let (product, page_request) = (request.chosen(), params.page()?);
    let (page, total) = app
        .db
        .read(move |reader| domains::transfers_in_progress(reader, product, &page_request))
        .await?;
    let url = ListUrl {
        path: TRANSFERS,
        params: &params,
        filter: &[],
        default_order: "",
    };
    let row = |bound: &BoundLicense| bound_license_json(&request, bound);
    let values = json!({
        "transfers": page.rows.iter().map(row).collect::<Vec<_>>(),
        "pager": url.links(&page, total, BoundLicense::position_of_transfer)?,
    });
    request.page("handshake/transfers.html.tera", values).await
}

/// The handshake log, of one domain or of all.
#[get("/sites/handshakes?<domain>")]
async fn handshakes(
    request: Support<'_>,
    params: ListParams<'_>,
    domain: Option<&str>,
    app: &App,
) -> HtmlReply {
    let (typed, page_request) = (query::trimmed(domain), params.page()?);
    let wanted = Domain::from_input(typed);
    let is_malformed = wanted.is_none() && !typed.is_empty();
    let order = params.sorting(LogColumn::parse)?;
    let (column, direction) = order.unwrap_or(LogColumn::DEFAULT);
    let (page, total) = app
        .db
        .read(move |reader| {
            if is_malformed {
                return Ok((page_request.page(Vec::new()), Total::Exactly(0)));
            }
            super::log_entries(
                reader,
                wanted.as_ref(),
                (|entry: &LogEntry| column.position(entry), direction),
                &page_request,
            )
        })
        .await?;
    let url = ListUrl {
        path: LOG,
        params: &params,
        filter: &[("domain", typed)],
        default_order: NEWEST_FIRST,
    };
    let values = json!({
        "rows": page.rows.iter().map(log_entry_json).collect::<Vec<_>>(),
        "domain": typed,
        "order": params.order,
        "heads": url.heads(&LogColumn::ALL.map(LogColumn::as_str)),
        "pager": url.links(&page, total, |entry| column.position(entry))?,
    });
    request.page("handshake/log.html.tera", values).await
}

/// The routes of this module's pages.
pub fn routes() -> Vec<Route> {
    routes![list, transfers, handshakes]
}
