//! Handlers for the admin panel: the list of refused calls.

use std::collections::HashMap;
use std::sync::Arc;

use rocket::http::Status;
use rocket::{Route, get, routes};
use serde_json::{Map, Value, json};

use super::{CODES, Filter, RecordedRefusal, RefusalColumn, Scope};
use crate::app::App;
use crate::db::Reader;
use crate::error::Error;
use crate::licenses;
use crate::licenses::LicenseKey;
use crate::paging::{Cursor, Direction, Page, PageRequest, SORTED_MAX, SortPosition, Total};
use crate::panel::{PanelRequest, Support};
use crate::products::Slugs;
use crate::terms::Terms;
use crate::web::csv::Csv;
use crate::web::html::{self, HtmlReply, path_with_query};
use crate::web::pager::{ListParams, ListUrl};
use crate::web::query::{self, trimmed};
use crate::web::span::{Choice, SpanParams};

/// The path of the list.
pub const REFUSALS: &str = "/lizenzserver/refusals";
const TEMPLATE: &str = "refusals/list.html.tera";
/// The order if none is chosen.
const LATEST_FIRST: &str = "-time";
/// Maximum rows of one CSV file.
const CSV_ROWS_MAX: u32 = 20_000;
/// Rows read at once for a CSV file.
const CSV_BATCH: u32 = 500;
/// Spans of the list until now: the first one if none is chosen.
const SPANS: &[Choice] = &[("1", Some(1)), ("7", Some(7)), ("all", None)];

/// A row, as a value for a template, with the name of its product if there are several.
pub fn refusal_json(request: &PanelRequest<'_>, refusal: &RecordedRefusal) -> Value {
    json!({
        "at": refusal.at,
        "last_at": refusal.last_at,
        "calls": refusal.calls,
        "code": refusal.code,
        "call": refusal.call,
        "product": refusal.product.and_then(|product| request.product_name(product)),
        "license_id": refusal.license,
        "key": refusal.license_key,
        "customer_id": refusal.customer_id,
        "customer": refusal.customer,
        "masked_key": refusal.masked_key,
        "hardware": refusal.hardware_id,
        "machine": refusal.machine_id,
        "version": refusal.version,
        "domain": refusal.domain,
        "address": refusal.address,
        "detail": refusal.detail,
    })
}

/// The list of the calls that were refused with this code on a day such as `2026-11-22`; with any if the code is empty.
pub fn path_of_day(code: &str, day: &str) -> String {
    path_with_query(REFUSALS, &[("code", code), ("from", day), ("to", day)])
}

/// The list of the calls that were refused with this code within so many days, or of all if the list has no such span;
/// with any code if it is empty.
pub fn path_of_days(code: &str, days: u32) -> String {
    let span = SPANS.iter().find(|(_, known)| *known == Some(days));
    let span = span.map_or("all", |(word, _)| word);
    path_with_query(REFUSALS, &[("code", code), ("span", span)])
}

/// The list of all refused calls of the license with this part of its key.
pub fn path_of_license(key_part: &str) -> String {
    path_with_query(REFUSALS, &[("license", key_part), ("span", "all")])
}

/// The query parameters of the list.
#[derive(Debug, rocket::FromForm)]
struct Params<'r> {
    code: Option<&'r str>,
    license: Option<&'r str>,
    customer: Option<&'r str>,
    device: Option<&'r str>,
    span: Option<&'r str>,
    from: Option<&'r str>,
    to: Option<&'r str>,
}

impl Params<'_> {
    /// The filter as the query parameters of another page.
    fn filter_params(&self) -> [(&'static str, &str); 7] {
        let [span, from, to] = self.span().params();
        [
            ("code", trimmed(self.code)),
            ("license", trimmed(self.license)),
            ("customer", trimmed(self.customer)),
            ("device", trimmed(self.device)),
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
    fn filter(&self, params: &ListParams<'_>, request: &PanelRequest<'_>) -> Result<Filter, Error> {
        let is_code = |word: &str| CODES.contains(&word).then_some(());
        query::parsed("code", self.code, is_code)?;
        let key = trimmed(self.license);
        if !key.is_empty() && licenses::key_part(key).is_empty() {
            return Err(Error::invalid("license", "must be a part of a license key"));
        }
        let (since, until) = self.span().bounds(request.shop_zone(), request.now.wall)?;
        let order = params.sorting(RefusalColumn::parse)?;
        Ok(Filter {
            code: trimmed(self.code).to_owned(),
            key: key.to_owned(),
            customer: Terms::parse(trimmed(self.customer)),
            device: Terms::parse(trimmed(self.device)),
            product: request.chosen(),
            since,
            until,
            order: order.unwrap_or(RefusalColumn::DEFAULT),
        })
    }
}

fn list_url<'a>(params: &'a ListParams<'a>, filter: &'a [(&'a str, &'a str)]) -> ListUrl<'a> {
    ListUrl {
        path: REFUSALS,
        params,
        filter,
        default_order: LATEST_FIRST,
    }
}

/// A page of the refused calls.
#[get("/refusals?<refused..>")]
async fn list(
    request: Support<'_>,
    params: ListParams<'_>,
    refused: Params<'_>,
    app: &App,
) -> HtmlReply {
    let pairs = refused.filter_params();
    let filter = match refused.filter(&params, &request) {
        Ok(filter) => filter,
        Err(Error::Invalid {
            field: field @ ("from" | "to"),
            ..
        }) => {
            let mut values = values_without_rows(&list_url(&params, &pairs), app);
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
    let mut values = values_without_rows(&url, app);
    values.extend(html::object_members(json!({
        "rows": page.rows.iter().map(|row| refusal_json(&request, row)).collect::<Vec<_>>(),
        "sorted_max": (order != chosen).then_some(SORTED_MAX),
        "pager": url.links(&page, total, |row| row.position(order.0))?,
        "csv_link": url.at(&format!("{REFUSALS}.csv")),
        "is_cut": total.may_exceed(CSV_ROWS_MAX),
    })));
    request.page(TEMPLATE, Value::Object(values)).await
}

/// A page of the list, how many rows the list has, and its order.
type ListPage = (Page<RecordedRefusal>, Total, (RefusalColumn, Direction));

/// Reads a page of the list. Its order is not the chosen one if the list has too many rows.
fn read_list(
    reader: &Reader<'_>,
    mut filter: Filter,
    page_request: PageRequest<SortPosition>,
) -> Result<ListPage, Error> {
    let asked = filter.order;
    let (scope, total) = prepare(reader, &mut filter)?;
    let page_request = page_request.in_order(asked, filter.order);
    let page = super::page(reader, (&filter, &scope), &page_request)?;
    Ok((page, total, filter.order))
}

/// What the filter leads to and how many rows match it; its order becomes one in which so many can be shown.
fn prepare(reader: &Reader<'_>, filter: &mut Filter) -> Result<(Scope, Total), Error> {
    let scope = super::scope(reader, filter)?;
    let total = super::count_matching(reader, filter, &scope)?;
    filter.order = total.order(filter.order, RefusalColumn::DEFAULT);
    Ok((scope, total))
}

/// The values for the template with the filter, but without rows.
fn values_without_rows(url: &ListUrl<'_>, app: &App) -> Map<String, Value> {
    html::object_members(json!({
        "filter": url.filter.iter().copied().collect::<HashMap<_, _>>(),
        "order": url.params.order,
        "heads": url.heads(&RefusalColumn::ALL.map(RefusalColumn::as_str)),
        "sorted_max": null,
        "codes": CODES,
        "spans": SPANS.iter().map(|(word, _)| *word).collect::<Vec<_>>(),
        "days": app.settings.privacy.refusal_days,
        "unrecorded": app.refusal_queue.unrecorded(),
        "csv_rows_max": CSV_ROWS_MAX,
        "rows": [], "pager": null, "csv_link": null, "is_cut": false, "invalid_day": null,
    }))
}

/// The columns of the CSV file, the last one only if there are several products.
const CSV_COLUMNS: [&str; 15] = [
    "at",
    "last_at",
    "calls",
    "code",
    "detail",
    "call",
    "license_key",
    "customer",
    "masked_key",
    "machine_id",
    "hardware_id",
    "version",
    "domain",
    "address",
    "product",
];

/// What each batch of a CSV file needs.
fn prepare_csv(
    reader: &Reader<'_>,
    mut filter: Filter,
) -> Result<(Slugs, Arc<Filter>, Arc<Scope>), Error> {
    let (scope, _) = prepare(reader, &mut filter)?;
    Ok((Slugs::read(reader)?, Arc::new(filter), Arc::new(scope)))
}

/// All refused calls that match the filter as a CSV file, read in batches so that they do not block other reads.
#[get("/refusals.csv?<refused..>")]
async fn list_csv(
    request: Support<'_>,
    params: ListParams<'_>,
    refused: Params<'_>,
    app: &App,
) -> HtmlReply {
    let filter = refused.filter(&params, &request)?;
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
        for row in &page.rows {
            let cells = csv_cells(row, &slugs);
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            fits = csv.row_up_to(CSV_ROWS_MAX as usize, slugs.table_head(&cells))?;
        }
        match page.next_edge().filter(|_| fits) {
            Some(last) => from = Cursor::After(last.position(filter.order.0)),
            None => break,
        }
    }
    Ok(csv.into_file("refusals")?)
}

fn csv_cells(row: &RecordedRefusal, slugs: &Slugs) -> [String; 15] {
    let key = row.license_key.as_ref().map(LicenseKey::formatted);
    let product = row.product.map(|product| slugs.of(product).to_owned());
    [
        row.at.rfc3339(),
        row.last_at.rfc3339(),
        row.calls.to_string(),
        row.code.clone(),
        row.detail.clone(),
        row.call.clone(),
        key.unwrap_or_default(),
        row.customer.clone(),
        row.masked_key.clone(),
        row.machine_id.clone(),
        row.hardware_id.clone(),
        row.version.clone(),
        row.domain.clone(),
        row.address.clone(),
        product.unwrap_or_default(),
    ]
}

/// The routes of this module in the panel.
pub fn routes() -> Vec<Route> {
    routes![list, list_csv]
}
