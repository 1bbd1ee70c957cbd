//! The list of plans.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use super::{LIST, template_json};
use crate::app::App;
use crate::id::PlanId;
use crate::paging::{Cursor, PageRequest};
use crate::panel::Support;
use crate::plans::{self, PlanFilter, PlanRow};
use crate::web::html::{HtmlReply, object_members, path_with_query};
use crate::web::pager::Pager;
use crate::web::query;

/// Plans on one page.
const PAGE_SIZE: u32 = 50;
const PAGER: Pager<1> = Pager {
    path: LIST,
    next: ["after"],
    previous: [""],
};

/// A page of plans, the first one first.
#[get("/plans?<state>&<after>")]
async fn list(
    request: Support<'_>,
    state: Option<&str>,
    after: Option<&str>,
    app: &App,
) -> HtmlReply {
    let filter = query::parsed("state", state, PlanFilter::parse)?.unwrap_or_default();
    let page_request = PageRequest {
        from: Cursor::after(query::number("after", after)?.map(PlanId)),
        limit: PAGE_SIZE,
    };
    let product = request.product;
    let page = app
        .db
        .read(move |reader| plans::page(reader, product, filter, &page_request))
        .await?;
    let links = PAGER.links(&pairs(filter), &page, |row: &PlanRow| {
        [row.plan.id.to_string()]
    });
    let filters = PlanFilter::ALL.map(|one| {
        json!({
            "word": one.as_str(),
            "address": path_with_query(LIST, &pairs(one)),
            "chosen": one == filter,
        })
    });
    let values = json!({
        "plans": page.rows.iter().map(row).collect::<Vec<_>>(),
        "filters": filters,
        "filtered": filter != PlanFilter::All || after.is_some(),
        "older": links.older,
        "newer": links.newer,
    });
    request.page("plans/list.html.tera", values).await
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
