//! Customers: to whom licenses were sold.

pub mod cli;
mod rules;
mod store;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Deed};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Error, Result};
use crate::id::CustomerId;

/// What is known of a new customer.
#[derive(Clone, Debug, Default)]
pub struct NewCustomer {
    /// 1 to 200 characters; not unique, people share names.
    pub name: String,
    /// Where to write to; empty if unknown.
    pub email: String,
    /// Empty if none.
    pub company: String,
    /// For administrators only.
    pub note: String,
}

/// A customer.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Customer {
    /// The number.
    pub id: CustomerId,
    /// The name.
    pub name: String,
    /// Empty if unknown.
    pub email: String,
    /// Empty if none.
    pub company: String,
    /// For administrators only.
    pub note: String,
    /// How many licenses were sold to this one.
    pub licenses: u32,
    /// Since when.
    #[serde(skip)]
    pub created_at: UnixMs,
}

/// Adds a customer.
///
/// # Errors
/// [`Error::Invalid`] for a field that is not of its form.
pub fn add(tx: &Tx<'_>, new: &NewCustomer, actor: &Actor, now: UnixMs) -> Result<CustomerId> {
    rules::check(new)?;
    let id = store::insert(tx, new, now)?;
    let subject = id.to_string();
    let after =
        json!({ "name": new.name, "email": new.email, "company": new.company, "note": new.note });
    let deed = Deed {
        what: "customers.add",
        subject: &subject,
        before: Value::Null,
        after,
    };
    audit::note(tx, now, actor, &deed)?;
    Ok(id)
}

/// Every customer in whose words `search` occurs, by name; all of them for an empty `search`.
///
/// # Errors
/// When SQLite fails.
pub fn list(reader: &Reader<'_>, search: &str, limit: u32) -> Result<Vec<Customer>> {
    store::list(reader, search, limit)
}

/// The customer of this number.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn get(reader: &Reader<'_>, id: CustomerId) -> Result<Customer> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found("customer", id))
}

/// The one customer that `number_or_name` means.
///
/// # Errors
/// [`Error::NotFound`] when there is none, [`Error::Usage`] when several have that name.
pub fn find(reader: &Reader<'_>, number_or_name: &str) -> Result<CustomerId> {
    if let Ok(id) = number_or_name.parse::<CustomerId>()
        && store::by_id(reader, id)?.is_some()
    {
        return Ok(id);
    }
    let found = store::by_name(reader, number_or_name)?;
    match found.as_slice() {
        [] => Err(Error::not_found("customer", number_or_name)),
        [one] => Ok(*one),
        several => {
            let numbers: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Error::Usage(format!(
                "{} customers are called {number_or_name:?}: name one by number ({})",
                several.len(),
                numbers.join(", "),
            )))
        }
    }
}
