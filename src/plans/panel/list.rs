//! The list of plans.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use super::{LIST, template_json};
use crate::app::App;
use crate::panel::Support;
use crate::plans::{self, PlanColumn, PlanFilter, PlanQuery, PlanRow};
use crate::web::html::{HtmlReply, object_members, path_with_query};
use crate::web::pager::{ListParams, ListUrl};
use crate::web::query;

/// A page of plans.
#[get("/plans?<state>")]
async fn list(
    request: Support<'_>,
    params: ListParams<'_>,
    state: Option<&str>,
    app: &App,
) -> HtmlReply {
    let filter = query::parsed("state", state, PlanFilter::parse)?.unwrap_or_default();
    let order = params.sorting(PlanColumn::parse)?.unwrap_or_default();
    let page_request = params.page()?;
    let query = PlanQuery {
        product: request.product,
        filter,
        order,
    };
    let (page, total) = app
        .db
        .read(move |reader| plans::page(reader, &query, &page_request))
        .await?;
    let url = ListUrl {
        path: LIST,
        params: &params,
        filter: &pairs(filter),
        default_order: PlanColumn::default().as_str(),
    };
    let values = json!({
        "plans": page.rows.iter().map(row).collect::<Vec<_>>(),
        "filters": filters(filter),
        "filtered": filter != PlanFilter::All || page.has_previous,
        "heads": url.heads(&PlanColumn::ALL.map(PlanColumn::as_str)),
        "pager": url.links(&page, total, |row: &PlanRow| row.position(order.0))?,
    });
    request.page("plans/list.html.tera", values).await
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
