//! The form for new licenses, and the keys of an order.

use rocket::{Route, get, post, routes};
use serde_json::json;

use super::{CSV, LIST, buyer_of, in_form, range, row_json, suggested_customers};
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::customers;
use crate::error::{Error, Faults, Resource};
use crate::features::Features;
use crate::id::{CustomerId, ProductId};
use crate::licenses::{self, Kind, License, LicenseQuery};
use crate::paging::PageRequest;
use crate::panel::{Admin, PanelRequest, Support};
use crate::plans::{self, Sale};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, path_with_query};

/// Keys shown after an order.
const ISSUED_MAX: u32 = 100;
const ISSUE: &str = "licenses/issue.html.tera";

/// The form for new licenses.
#[get("/licenses/new?<customer>")]
async fn issue_form(request: Admin<'_>, customer: Option<i64>, app: &App) -> HtmlReply {
    let known = app
        .db
        .read(move |reader| {
            let id = customer.map(CustomerId);
            id.map(|id| customers::get(reader, id)).transpose()
        })
        .await?;
    let plans = plans::panel::offered(&app.db, request.product, None).await?;
    // With a plan, these fields only say what differs from it.
    let (kind, devices) = match plans.as_slice() {
        [] => (json!("full"), json!(1)),
        _ => (json!(""), json!("")),
    };
    let values = json!({
        "customer": known.as_ref().map(customers::Customer::label),
        "kind": kind,
        "devices": devices,
        "count": 1,
    });
    let page = json!({
        "offered": suggested_customers(&app.db).await?,
        "plans": plans,
        "product": request.product_name(request.product),
        "form": form::empty_form(values),
    });
    request.page(ISSUE, page).await
}

/// The sale in a form, without the customer, and the faults of the form. In a shop with plans, empty fields are as in
/// the plan.
fn sale_of(form: &Fields, product: ProductId) -> (Sale, Faults) {
    let mut faults = Faults::default();
    let date = |name: &'static str| {
        let date = UnixMs::parse(form.non_empty(name)?);
        Some(date.map_err(|problem| Error::invalid(name, problem)))
    };
    let has_plans = form.has("plan");
    let is_given = |name| !has_plans || form.non_empty(name).is_some();
    let kind = is_given("kind").then(|| Kind::parse(form.text("kind")));
    let devices = is_given("devices").then(|| form.number("devices"));
    let features = form.non_empty("features").map(Features::from_input);
    let sale = Sale {
        product,
        plan: form.non_empty("plan").map(str::to_owned),
        kind: kind.and_then(|kind| faults.keep(kind)),
        device_limit: devices.and_then(|devices| faults.keep(devices)),
        valid_until: date("valid_until").and_then(|date| faults.keep(date)),
        features: features.and_then(|features| faults.keep(features)),
        updates_until: date("updates_until").and_then(|date| faults.keep(date)),
        domain: form.non_empty("domain").map(str::to_owned),
        count: faults.keep(form.number("count")).unwrap_or(1),
        note: form.text("note").to_owned(),
    };
    (sale, faults)
}

/// Issues licenses, to a new customer if the form says so.
#[post("/licenses/new", data = "<form>")]
pub(super) async fn issue(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    request.once(&form, issue_once(&request, &form, app)).await
}

async fn issue_once(request: &PanelRequest<'_>, form: &Fields, app: &App) -> HtmlReply {
    let (actor, now) = (request.actor(), request.now.wall);
    let buyer = buyer_of(form);
    let (sale, faults) = sale_of(form, request.product);
    let sold = app
        .db
        .write("plans.sell", move |tx| {
            let sold = plans::sell(&Act::new(tx, &actor, now), &buyer, &sale);
            faults.with(sold.map_err(in_form))
        })
        .await;
    let error = match sold {
        Ok(sold) => return Html::redirect(address_of_keys(&sold)),
        Err(error) => error,
    };
    let known = customers::panel::namesakes(&app.db, form, form.text("customer"), &error);
    let values = json!({
        "namesakes": known.await?,
        "offered": suggested_customers(&app.db).await?,
        "plans": plans::panel::offered(&app.db, request.product, None).await?,
        "product": request.product_name(request.product),
    });
    request
        .render_with_errors(ISSUE, form.rejected("licenses", error), values)
        .await
}

/// The address of the page with the keys of `sold`.
fn address_of_keys(sold: &[License]) -> String {
    match (sold.first(), sold.last()) {
        (Some(first), Some(last)) => format!("{LIST}/issued/{}/{}", first.id, last.id),
        _ => LIST.to_owned(),
    }
}

/// The keys of an order.
#[get("/licenses/issued/<first>/<last>")]
async fn issued(request: Support<'_>, first: i64, last: i64, app: &App) -> HtmlReply {
    let now = request.now.wall;
    let query = LicenseQuery {
        range: Some(range((first, last))),
        ..LicenseQuery::default()
    };
    let page_request = PageRequest::first(ISSUED_MAX);
    let page = app
        .db
        .read(move |reader| licenses::page(reader, &query, &page_request, now))
        .await?;
    let rows = page.rows;
    let newest = rows.first();
    let newest = newest.ok_or_else(|| Error::not_found(Resource::License, first))?;
    let keys: Vec<String> = rows.iter().map(|row| row.license.key.formatted()).collect();
    let (first, last) = (first.to_string(), last.to_string());
    let values = json!({
        "rows": rows.iter().map(|row| row_json(row, now)).collect::<Vec<_>>(),
        "license": row_json(newest, now),
        "all_keys": keys.join("\n"),
        "more": keys.len() >= ISSUED_MAX as usize,
        "csv": path_with_query(CSV, &[("first", &first), ("last", &last)]),
    });
    request.page("licenses/issued.html.tera", values).await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![issue_form, issue, issued]
}
