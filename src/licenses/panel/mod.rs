//! Handlers for the admin panel: listing, issuing and changing licenses. The page of one license, with its devices
//! and sessions, is in `overview`.

mod badge;
mod edit;
mod issue;
mod list;
mod selected;
mod state;

use rocket::Route;
use serde_json::{Map, Value, json};

use super::{Buyer, License, LicenseRow};
use crate::clock::UnixMs;
use crate::customers;
use crate::db::Db;
use crate::error::{Error, Resource, Result};
use crate::id::LicenseId;
use crate::panel::PanelRequest;
use crate::web::form::Fields;

/// Licenses on the page of a customer or of an order.
pub const PAGE: u32 = 20;
/// Customers suggested in forms.
const SUGGESTED: u32 = 200;
const LIST: &str = "/lizenzserver/licenses";
const CSV: &str = "/lizenzserver/licenses.csv";

const fn range((first, last): (i64, i64)) -> (LicenseId, LicenseId) {
    (LicenseId(first), LicenseId(last))
}

/// A license as templates show it in a table, with the name of its product if there are several.
pub fn row_with_product(request: &PanelRequest<'_>, row: &LicenseRow) -> Value {
    let mut values = row_json(row, request.now.wall);
    if let Some(values) = values.as_object_mut() {
        let name = request.product_name(row.license.product);
        values.insert("product".to_owned(), json!(name));
    }
    values
}

/// A license as templates show it.
pub fn row_json(row: &LicenseRow, now: UnixMs) -> Value {
    let license = &row.license;
    json!({
        "id": license.id,
        "key": license.key,
        "customer_id": license.customer_id,
        "customer": license.customer,
        "company": row.company,
        "kind": license.kind,
        "pill": badge::badge(license, row.taken, now),
        "taken": row.taken,
        "limit": license.device_limit,
        "session": row.session,
        "valid_until": license.valid_until,
        "pending_days": license.pending_days,
        "plan": license.plan,
        "features": license.features,
        "updates_until": license.updates_until,
    })
}

/// A customer or plan that a form names and that does not exist, as an invalid field.
pub fn as_field(error: Error) -> Error {
    error.map_each(|error| match error {
        Error::NotFound {
            what: Resource::Customer,
            ..
        } => Error::invalid("customer", "is unknown"),
        Error::NotFound {
            what: Resource::Plan,
            ..
        } => Error::invalid("plan", "is unknown"),
        other => other,
    })
}

/// An error of the fields of a license, as its forms call them.
fn in_form(error: Error) -> Error {
    as_field(error).with_field_names(&[("name", "customer"), ("device_limit", "devices")])
}

/// The buyer that a form names, who is to be added if it says so.
pub fn buyer_of(form: &Fields) -> Buyer {
    let customer = form.text("customer").to_owned();
    if form.has("new_customer") {
        let same_name = customers::panel::same_name(form, &customer);
        Buyer::NewNamed(customer, same_name)
    } else {
        Buyer::Named(customer)
    }
}

/// The customers suggested in forms.
pub async fn suggested_customers(db: &Db) -> Result<Vec<String>> {
    let latest = db
        .read(move |reader| customers::latest(reader, SUGGESTED))
        .await?;
    Ok(latest.iter().map(customers::Customer::label).collect())
}

/// The name of the customer of `license`, for a sentence; without one, words that say so.
pub fn customer_name(request: &PanelRequest<'_>, license: &License) -> Result<String> {
    match license.customer_id {
        Some(_) => Ok(license.customer.clone()),
        None => request.text("trials.no_customer", &Map::new()),
    }
}

/// One license, for a page about it.
async fn load(db: &Db, id: i64, now: UnixMs) -> Result<LicenseRow> {
    db.read(move |reader| super::find_row(reader, LicenseId(id), now))
        .await
}

/// The routes of this module in the panel.
pub fn routes() -> Vec<Route> {
    let pages = [
        list::routes(),
        selected::routes(),
        issue::routes(),
        edit::routes(),
        state::routes(),
    ];
    pages.concat()
}
