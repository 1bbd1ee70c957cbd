//! The list of plans.

use rocket::{FromForm, Route, get, routes};
use serde_json::{Map, Value, json};

use super::{LIST, template_json};
use crate::app::App;
use crate::panel::Support;
use crate::plans::{self, PlanColumn, PlanFilter, PlanQuery, PlanRow};
use crate::web::html::{HtmlReply, object_members, path_with_query};
use crate::web::pager::{self, Extent, Heads, Pager, Shown};
use crate::web::query;

const PAGER: Pager<'_, 2> = Pager::sorted(LIST);

/// The query parameters of the list.
#[derive(FromForm)]
struct ListParams<'r> {
    state: Option<&'r str>,
    order: Option<&'r str>,
    rows: Option<&'r str>,
    row: Option<&'r str>,
    after: Option<&'r str>,
    after_id: Option<&'r str>,
    before: Option<&'r str>,
    before_id: Option<&'r str>,
}

/// A page of plans.
#[get("/plans?<params..>")]
async fn list(request: Support<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let filter = query::parsed("state", params.state, PlanFilter::parse)?.unwrap_or_default();
    let order = pager::sorting(params.order, PlanColumn::parse)?.unwrap_or_default();
    let extent = Extent::parse(params.rows, params.row)?;
    let from = PAGER.sorted_cursor(
        (params.after, params.after_id),
        (params.before, params.before_id),
    )?;
    let page_request = extent.request(from);
    let query = PlanQuery {
        product: request.product,
        filter,
        order,
    };
    let (page, total) = app
        .db
        .read(move |reader| plans::page(reader, &query, &page_request))
        .await?;
    let [state] = pairs(filter);
    let order_pair = ("order", params.order.unwrap_or_default().trim());
    let pairs = [state, order_pair];
    let shown = Shown::new(&pairs, extent, &page, total);
    let links = PAGER.sorted_links(&shown, |row: &PlanRow| row.position(order.0));
    let values = json!({
        "plans": page.rows.iter().map(row).collect::<Vec<_>>(),
        "filters": filters(filter),
        "filtered": filter != PlanFilter::All || page.has_previous,
        "heads": heads(&[state], order_pair.1),
        "pager": links,
    });
    request.page("plans/list.html.tera", values).await
}

/// The column heads that sort the list.
fn heads(filter: &[(&str, &str)], order: &str) -> Map<String, Value> {
    let heads = Heads {
        path: LIST,
        filter,
        order,
        default: PlanColumn::default().as_str(),
    };
    heads.of(&PlanColumn::ALL.map(PlanColumn::as_str))
}

/// The filters of the list for the template.
fn filters(chosen: PlanFilter) -> [Value; 3] {
    PlanFilter::ALL.map(|filter| {
        json!({
            "word": filter.as_str(),
            "address": path_with_query(LIST, &pairs(filter)),
            "chosen": filter == chosen,
        })
    })
}

/// The query parameters of a filter.
fn pairs(filter: PlanFilter) -> [(&'static str, &'static str); 1] {
    match filter {
        PlanFilter::All => [("state", "")],
        _ => [("state", filter.as_str())],
    }
}

fn row(row: &PlanRow) -> Value {
    let mut values = object_members(template_json(&row.plan));
    values.insert("licenses".to_owned(), row.licenses.into());
    Value::Object(values)
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![list]
}
