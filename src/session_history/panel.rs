//! Handlers for the admin panel: the history of sessions.

use std::collections::HashMap;
use std::sync::Arc;

use rocket::http::Status;
use rocket::{Route, get, routes};
use serde_json::{Map, Value, json};

use super::{EndReason, EndedSession, HistoryFilter, Position, SessionDetails};
use crate::app::App;
use crate::clock::UnixMs;
use crate::error::Error;
use crate::id::SessionId;
use crate::licenses;
use crate::paging::{Cursor, Direction, PageRequest};
use crate::panel::{PanelRequest, Support};
use crate::products::Slugs;
use crate::web::csv::Csv;
use crate::web::html::{self, HtmlReply, path_with_query};
use crate::web::pager::{self, Extent, Heads, Pager, Shown};
use crate::web::query::{self, trimmed};
use crate::web::span::{Choice, SpanParams};

const HISTORY: &str = "/lizenzserver/sessions/history";
const PAGER: Pager<'_, 1> = Pager {
    path: HISTORY,
    next: ["after"],
    previous: ["before"],
};
/// The only column by which the list can be sorted, and how it is if no order is chosen.
const ENDED: &str = "ended";
const LATEST_FIRST: &str = "-ended";
/// Maximum rows of one CSV file: some 3 MB.
const CSV_ROWS_MAX: u32 = 20_000;
/// Rows read at once for a CSV file.
const CSV_BATCH: u32 = 500;
/// Spans of the history until now: the first one if none is chosen.
const SPANS: &[Choice] = &[
    ("1", Some(1)),
    ("7", Some(7)),
    ("30", Some(30)),
    ("all", None),
];

/// A session, as values for a template, with the name of its product if there are several.
pub fn session_json(request: &PanelRequest<'_>, session: &SessionDetails) -> Map<String, Value> {
    html::object_members(json!({
        "product": request.product_name(session.product),
        "id": session.id,
        "license_id": session.license_id,
        "key": session.license_key,
        "customer_id": session.customer_id,
        "customer": session.customer,
        "machine": session.machine_id,
        "hardware": session.hardware_id,
        "address": session.address,
        "version": session.version,
        "started_at": session.started_at,
        "last_heartbeat_at": session.last_heartbeat_at,
    }))
}

/// An ended session, as a value for a template.
pub fn ended_json(request: &PanelRequest<'_>, ended: &EndedSession) -> Value {
    let mut members = session_json(request, &ended.session);
    members.insert("ended_at".to_owned(), json!(ended.ended_at));
    members.insert("reason".to_owned(), json!(ended.reason));
    members.insert("sessions".to_owned(), json!(ended.session_count));
    Value::Object(members)
}

/// Parses the position of a row in the query parameter `name`, written as `<Unix ms>.<id>`; `None` if it is missing.
///
/// # Errors
/// [`Error::Invalid`] if it is not written so.
pub fn parse_position(name: &'static str, text: Option<&str>) -> Result<Option<Position>, Error> {
    query::parsed(name, text, |text| {
        let (at, id) = text.split_once('.')?;
        let (at, id) = (at.parse().ok()?, id.parse().ok()?);
        Some(Position {
            at: UnixMs(at),
            id: SessionId(id),
        })
    })
}

/// The text that [`parse_position`] parses.
pub fn position_text(position: Position) -> String {
    format!("{}.{}", position.at.0, position.id)
}

/// The query parameters of the history.
#[derive(Debug, rocket::FromForm)]
struct HistoryParams<'r> {
    license: Option<&'r str>,
    customer: Option<&'r str>,
    reason: Option<&'r str>,
    span: Option<&'r str>,
    from: Option<&'r str>,
    to: Option<&'r str>,
    order: Option<&'r str>,
    rows: Option<&'r str>,
    row: Option<&'r str>,
    after: Option<&'r str>,
    before: Option<&'r str>,
}

impl HistoryParams<'_> {
    /// The filter as the query parameters of another page.
    fn filter_params(&self) -> [(&'static str, &str); 6] {
        let [span, from, to] = self.span().params();
        [
            ("license", trimmed(self.license)),
            ("customer", trimmed(self.customer)),
            ("reason", trimmed(self.reason)),
            span,
            from,
            to,
        ]
    }

    fn span(&self) -> SpanParams<'_> {
        SpanParams {
            choices: SPANS,
            span: self.span,
            from: self.from,
            to: self.to,
        }
    }

    /// The filter of `request`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a value cannot be read, such as a day that does not exist.
    fn filter(&self, request: &PanelRequest<'_>) -> Result<HistoryFilter, Error> {
        let key = trimmed(self.license);
        if !key.is_empty() && licenses::key_part(key).is_empty() {
            return Err(Error::invalid("license", "must be a part of a license key"));
        }
        let (since, until) = self.span().bounds(request.shop_zone(), request.now.wall)?;
        let order = pager::sorting(self.order, |word| (word == ENDED).then_some(()))?;
        Ok(HistoryFilter {
            key: key.to_owned(),
            customer: trimmed(self.customer).to_owned(),
            product: request.chosen(),
            reason: query::parsed("reason", self.reason, EndReason::parse)?,
            since,
            until,
            direction: order.map_or(Direction::Descending, |((), direction)| direction),
        })
    }

    /// The filter and the order as the query parameters of another page.
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        let order = [("order", trimmed(self.order))];
        [self.filter_params().as_slice(), &order].concat()
    }

    /// The column head that sorts the list.
    fn heads(&self) -> Map<String, Value> {
        let heads = Heads {
            path: HISTORY,
            filter: &self.filter_params(),
            order: trimmed(self.order),
            default: LATEST_FIRST,
        };
        heads.of(&[ENDED])
    }
}

/// A page of the ended sessions.
#[get("/sessions/history?<params..>")]
async fn history(request: Support<'_>, params: HistoryParams<'_>, app: &App) -> HtmlReply {
    let mut values = values_without_rows(&params);
    let filter = match params.filter(&request) {
        Ok(filter) => filter,
        Err(Error::Invalid {
            field: field @ ("from" | "to"),
            ..
        }) => {
            values.insert("invalid_day".to_owned(), field.into());
            let (status, page) = (
                Status::UnprocessableEntity,
                "session_history/list.html.tera",
            );
            return request.page_with(status, page, Value::Object(values)).await;
        }
        Err(other) => return Err(other.into()),
    };
    let extent = Extent::parse(params.rows, params.row)?;
    let page_request = extent.request(PAGER.cursor(params.after, params.before, parse_position)?);
    let (page, total) = app
        .db
        .read(move |reader| {
            let scope = super::scope(reader, &filter)?;
            let page = super::page(reader, (&filter, &scope), &page_request)?;
            Ok((page, super::count_matching(reader, &filter, &scope)?))
        })
        .await?;
    let pairs = params.pairs();
    let shown = Shown::new(&pairs, extent, &page, total);
    let links = PAGER.links(&shown, |ended| [position_text(ended.position())]);
    let csv_link = path_with_query(&format!("{HISTORY}.csv"), &pairs);
    values.extend(html::object_members(json!({
        "rows": page.rows.iter().map(|ended| ended_json(&request, ended)).collect::<Vec<_>>(),
        "pager": links,
        "csv_link": csv_link,
        "is_cut": total.may_exceed(CSV_ROWS_MAX),
    })));
    request
        .page("session_history/list.html.tera", Value::Object(values))
        .await
}

/// The values for the template with the filter, but without sessions.
fn values_without_rows(params: &HistoryParams<'_>) -> Map<String, Value> {
    html::object_members(json!({
        "filter": params.filter_params().into_iter().collect::<HashMap<_, _>>(),
        "order": trimmed(params.order),
        "heads": params.heads(),
        "reasons": EndReason::ALL.map(EndReason::as_str),
        "spans": SPANS.iter().map(|(word, _)| *word).collect::<Vec<_>>(),
        "csv_rows_max": CSV_ROWS_MAX,
        "rows": [], "pager": null, "csv_link": null, "is_cut": false, "invalid_day": null,
    }))
}

/// The columns of the CSV file, the last one only if there are several products.
const CSV_COLUMNS: [&str; 13] = [
    "id",
    "license_key",
    "customer",
    "machine_id",
    "hardware_id",
    "address",
    "version",
    "started_at",
    "last_heartbeat_at",
    "ended_at",
    "end_reason",
    "sessions",
    "product",
];

/// All ended sessions that match the filter as a CSV file, read in batches so that a long history does not block other
/// reads.
#[get("/sessions/history.csv?<params..>")]
async fn history_csv(request: Support<'_>, params: HistoryParams<'_>, app: &App) -> HtmlReply {
    let filter = Arc::new(params.filter(&request)?);
    let wanted = filter.clone();
    let (slugs, scope) = app
        .db
        .read(move |reader| Ok((Slugs::read(reader)?, super::scope(reader, &wanted)?)))
        .await?;
    let scope = Arc::new(scope);
    let mut csv = Csv::new(slugs.table_head(&CSV_COLUMNS), request.language)?;
    let mut from = Cursor::First;
    loop {
        let (filter, scope) = (filter.clone(), scope.clone());
        let page_request = PageRequest {
            from,
            limit: CSV_BATCH,
        };
        let page = app
            .db
            .read(move |reader| super::page(reader, (&filter, &scope), &page_request))
            .await?;
        let mut fits = true;
        for ended in &page.rows {
            let cells = csv_cells(ended, &slugs);
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            fits = csv.row_up_to(CSV_ROWS_MAX as usize, slugs.table_head(&cells))?;
        }
        match page.next_edge().filter(|_| fits) {
            Some(last) => from = Cursor::After(last.position()),
            None => break,
        }
    }
    Ok(csv.into_file("sessions")?)
}

fn csv_cells(ended: &EndedSession, slugs: &Slugs) -> [String; 13] {
    let session = &ended.session;
    [
        session.id.to_string(),
        session.license_key.formatted(),
        session.customer.clone(),
        session.machine_id.clone(),
        session.hardware_id.clone(),
        session.address.clone(),
        session.version.to_string(),
        session.started_at.rfc3339(),
        session.last_heartbeat_at.rfc3339(),
        ended.ended_at.rfc3339(),
        ended.reason.as_str().to_owned(),
        ended.session_count.to_string(),
        slugs.of(session.product).to_owned(),
    ]
}

/// The routes of this module in the panel.
pub fn routes() -> Vec<Route> {
    routes![history, history_csv]
}
