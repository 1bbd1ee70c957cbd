//! The form for new licenses, and the keys of an order.

use rocket::{Route, get, post, routes};
use serde_json::json;

use super::{CSV, DEVICES_FIELD, LIST, range, row_json};
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::customers;
use crate::db::Db;
use crate::error::{Error, Resource, Result};
use crate::id::{CustomerId, ProductId};
use crate::licenses::{self, Buyer, Kind, License, LicenseQuery, Order, Term};
use crate::paging::PageRequest;
use crate::panel::{Admin, Support};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, path_with_query};

/// Keys shown after an order.
const ISSUED_MAX: u32 = 100;
/// Customers suggested in the form.
const SUGGESTED: u32 = 200;
const ISSUE: &str = "licenses/issue.html.tera";

/// The customers suggested in the form.
async fn suggested_customers(db: &Db) -> Result<Vec<String>> {
    let latest = db
        .read(move |reader| customers::latest(reader, SUGGESTED))
        .await?;
    Ok(latest.iter().map(customers::Customer::label).collect())
}

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
    let values = json!({
        "customer": known.as_ref().map(customers::Customer::label),
        "kind": "full",
        "devices": 1,
        "count": 1,
    });
    let page =
        json!({ "offered": suggested_customers(&app.db).await?, "form": form::empty_form(values) });
    request.page(ISSUE, page).await
}

/// The order in a form, without the customer.
fn order_of(form: &Fields, product: ProductId) -> Result<Order> {
    let until = form.non_empty("valid_until").map(UnixMs::parse).transpose();
    let until = until.map_err(|problem| Error::invalid("valid_until", problem))?;
    Ok(Order {
        kind: Kind::parse(form.text("kind"))?,
        term: until.map_or(Term::Default, Term::Until),
        domain: form.non_empty("domain").map(str::to_owned),
        count: form.number("count")?,
        note: form.text("note").to_owned(),
        ..Order::one(product, form.number("devices")?)
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
    let sold = match order_of(&form, request.product) {
        Ok(order) => {
            app.db
                .write("licenses.sell", move |tx| {
                    licenses::sell(&Act::new(tx, &actor, now), &buyer, &order)
                })
                .await
        }
        Err(error) => Err(error),
    };
    let error = match sold {
        Ok(sold) => return Html::redirect(address_of_keys(&sold)),
        // Nothing else is looked up in a sale.
        Err(Error::NotFound { .. }) => Error::invalid("customer", "is unknown"),
        Err(error) => error.with_field_names(&[("name", "customer"), DEVICES_FIELD]),
    };
    let values = json!({ "offered": suggested_customers(&app.db).await? });
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
