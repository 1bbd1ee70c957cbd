//! The form for new licenses, and the keys of an order.

use rocket::{Route, get, post, routes};
use serde_json::json;

use super::{CSV, DEVICES_FIELD, LIST, as_field, range, row_json, suggested_customers};
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::customers;
use crate::error::{Error, Resource, Result};
use crate::features::Features;
use crate::id::{CustomerId, ProductId};
use crate::licenses::{self, Buyer, Kind, License, LicenseQuery};
use crate::paging::PageRequest;
use crate::panel::{Admin, Support};
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

/// The sale in a form, without the customer. In a shop with plans, empty fields are as in the plan.
fn sale_of(form: &Fields, product: ProductId) -> Result<Sale> {
    let date = |name: &'static str| {
        let date = form.non_empty(name).map(UnixMs::parse).transpose();
        date.map_err(|problem| Error::invalid(name, problem))
    };
    let has_plans = form.has("plan");
    let is_given = |name| !has_plans || form.non_empty(name).is_some();
    Ok(Sale {
        product,
        plan: form.non_empty("plan").map(str::to_owned),
        kind: is_given("kind")
            .then(|| Kind::parse(form.text("kind")))
            .transpose()?,
        device_limit: is_given("devices")
            .then(|| form.number("devices"))
            .transpose()?,
        valid_until: date("valid_until")?,
        features: form
            .non_empty("features")
            .map(Features::from_input)
            .transpose()?,
        updates_until: date("updates_until")?,
        domain: form.non_empty("domain").map(str::to_owned),
        count: form.number("count")?,
        note: form.text("note").to_owned(),
    })
}

/// Issues licenses, to a new customer if the form says so.
#[post("/licenses/new", data = "<form>")]
pub(super) async fn issue(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    let (actor, now) = (request.actor(), request.now.wall);
    let customer = form.text("customer").to_owned();
    let buyer = if form.has("new_customer") {
        Buyer::new_named(customer)
    } else {
        Buyer::Named(customer)
    };
    let sold = match sale_of(&form, request.product) {
        Ok(sale) => {
            app.db
                .write("plans.sell", move |tx| {
                    plans::sell(&Act::new(tx, &actor, now), &buyer, &sale)
                })
                .await
        }
        Err(error) => Err(error),
    };
    let error = match sold {
        Ok(sold) => return Html::redirect(address_of_keys(&sold)),
        Err(error) => as_field(error).with_field_names(&[("name", "customer"), DEVICES_FIELD]),
    };
    let values = json!({
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
