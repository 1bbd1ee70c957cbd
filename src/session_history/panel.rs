//! Handlers for the admin panel: the history of sessions.

use std::collections::HashMap;
use std::sync::Arc;

use rocket::http::Status;
use rocket::{Route, get, routes};
use serde_json::{Map, Value, json};

use super::{EndReason, EndedSession, HistoryColumn, HistoryFilter, Scope, SessionDetails};
use crate::app::App;
use crate::db::Reader;
use crate::error::Error;
use crate::licenses;
use crate::paging::{Cursor, Direction, Page, PageRequest, SORTED_MAX, SortPosition, Total};
use crate::panel::{PanelRequest, Support};
use crate::products::Slugs;
use crate::web::csv::Csv;
use crate::web::html::{self, HtmlReply};
use crate::web::pager::{ListParams, ListUrl};
use crate::web::query::{self, trimmed};
use crate::web::span::{Choice, SpanParams};

const HISTORY: &str = "/lizenzserver/sessions/history";
const TEMPLATE: &str = "session_history/list.html.tera";
/// The order if none is chosen.
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

/// The query parameters of the history.
#[derive(Debug, rocket::FromForm)]
struct HistoryParams<'r> {
    license: Option<&'r str>,
    customer: Option<&'r str>,
    reason: Option<&'r str>,
    span: Option<&'r str>,
    from: Option<&'r str>,
    to: Option<&'r str>,
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
    fn filter(
        &self,
        params: &ListParams<'_>,
        request: &PanelRequest<'_>,
    ) -> Result<HistoryFilter, Error> {
        let key = trimmed(self.license);
        if !key.is_empty() && licenses::key_part(key).is_empty() {
            return Err(Error::invalid("license", "must be a part of a license key"));
        }
        let (since, until) = self.span().bounds(request.shop_zone(), request.now.wall)?;
        let order = params.sorting(HistoryColumn::parse)?;
        Ok(HistoryFilter {
            key: key.to_owned(),
            customer: trimmed(self.customer).to_owned(),
            product: request.chosen(),
            reason: query::parsed("reason", self.reason, EndReason::parse)?,
            since,
            until,
            order: order.unwrap_or(HistoryColumn::DEFAULT),
        })
    }
}

fn list_url<'a>(params: &'a ListParams<'a>, filter: &'a [(&'a str, &'a str)]) -> ListUrl<'a> {
    ListUrl {
        path: HISTORY,
        params,
        filter,
        default_order: LATEST_FIRST,
    }
}

/// A page of the ended sessions.
#[get("/sessions/history?<history..>")]
async fn list(
    request: Support<'_>,
    params: ListParams<'_>,
    history: HistoryParams<'_>,
    app: &App,
) -> HtmlReply {
    let pairs = history.filter_params();
    let filter = match history.filter(&params, &request) {
        Ok(filter) => filter,
        Err(Error::Invalid {
            field: field @ ("from" | "to"),
            ..
        }) => {
            let mut values = values_without_rows(&list_url(&params, &pairs));
            values.insert("invalid_day".to_owned(), field.into());
            let (status, values) = (Status::UnprocessableEntity, Value::Object(values));
            return request.page_with(status, TEMPLATE, values).await;
        }
        Err(other) => return Err(other.into()),
    };
    let (chosen, page_request) = (filter.order, params.page()?);
    let (page, total, order) = app
        .db
        .read(move |reader| read_list(reader, filter, page_request))
        .await?;
    let shown = params.in_order(chosen, order);
    let url = list_url(&shown, &pairs);
    let mut values = values_without_rows(&url);
    values.extend(html::object_members(json!({
        "rows": page.rows.iter().map(|ended| ended_json(&request, ended)).collect::<Vec<_>>(),
        "sorted_max": (order != chosen).then_some(SORTED_MAX),
        "pager": url.links(&page, total, |ended| ended.position(order.0))?,
        "csv_link": url.at(&format!("{HISTORY}.csv")),
        "is_cut": total.may_exceed(CSV_ROWS_MAX),
    })));
    request.page(TEMPLATE, Value::Object(values)).await
}

/// A page of the list, how many rows the list has, and its order.
type ListPage = (Page<EndedSession>, Total, (HistoryColumn, Direction));

/// Reads a page of the list. Its order is not the chosen one if the list has too many rows.
fn read_list(
    reader: &Reader<'_>,
    mut filter: HistoryFilter,
    page_request: PageRequest<SortPosition>,
) -> Result<ListPage, Error> {
    let asked = filter.order;
    let (scope, total) = prepare(reader, &mut filter)?;
    let page_request = page_request.in_order(asked, filter.order);
    let page = super::page(reader, (&filter, &scope), &page_request)?;
    Ok((page, total, filter.order))
}

/// What the filter leads to and how many rows match it; its order becomes one in which so many can be shown.
fn prepare(reader: &Reader<'_>, filter: &mut HistoryFilter) -> Result<(Scope, Total), Error> {
    let scope = super::scope(reader, filter)?;
    let total = super::count_matching(reader, filter, &scope)?;
    filter.order = total.order(filter.order, HistoryColumn::DEFAULT);
    Ok((scope, total))
}

/// The values for the template with the filter, but without sessions.
fn values_without_rows(url: &ListUrl<'_>) -> Map<String, Value> {
    html::object_members(json!({
        "filter": url.filter.iter().copied().collect::<HashMap<_, _>>(),
        "order": url.params.order,
        "heads": url.heads(&HistoryColumn::ALL.map(HistoryColumn::as_str)),
        "sorted_max": null,
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

/// What each batch of a CSV file needs.
fn prepare_csv(
    reader: &Reader<'_>,
    mut filter: HistoryFilter,
) -> Result<(Slugs, Arc<HistoryFilter>, Arc<Scope>), Error> {
    let (scope, _) = prepare(reader, &mut filter)?;
    Ok((Slugs::read(reader)?, Arc::new(filter), Arc::new(scope)))
}

/// All ended sessions that match the filter as a CSV file, read in batches so that a long history does not block other
/// reads.
#[get("/sessions/history.csv?<history..>")]
async fn list_csv(
    request: Support<'_>,
    params: ListParams<'_>,
    history: HistoryParams<'_>,
    app: &App,
) -> HtmlReply {
    let filter = history.filter(&params, &request)?;
    let (slugs, filter, scope) = app
        .db
        .read(move |reader| prepare_csv(reader, filter))
        .await?;
    let mut csv = Csv::new(slugs.table_head(&CSV_COLUMNS), request.language)?;
    let mut from = Cursor::First;
    loop {
        let wanted = (filter.clone(), scope.clone());
        let page_request = PageRequest {
            from,
            limit: CSV_BATCH,
        };
        let page = app
            .db
            .read(move |reader| super::page(reader, (&wanted.0, &wanted.1), &page_request))
            .await?;
        let mut fits = true;
        for ended in &page.rows {
            let cells = csv_cells(ended, &slugs);
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            fits = csv.row_up_to(CSV_ROWS_MAX as usize, slugs.table_head(&cells))?;
        }
        match page.next_edge().filter(|_| fits) {
            Some(last) => from = Cursor::After(last.position(filter.order.0)),
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
    routes![list, list_csv]
}
