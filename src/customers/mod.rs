//! Customers: to whom licenses were sold.

pub mod cli;
pub mod panel;
mod rules;
mod store;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{CHANGED_MEANWHILE, Error, Refused, Result};
use crate::id::CustomerId;
use crate::security::secret;
use crate::text;

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
    let new = &new.composed();
    rules::check(new)?;
    let id = store::insert(tx, new, now)?;
    let subject = id.to_string();
    let deed = Change {
        what: "customers.add",
        subject: &subject,
        before: Value::Null,
        after: facts(new),
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

/// Where a page of customers begins: after this one.
#[derive(Clone, Debug)]
pub struct CustomerCursor {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: CustomerId,
}

/// A page of the customers in whose words `search` occurs, by name.
///
/// # Errors
/// When SQLite fails.
pub fn page(
    reader: &Reader<'_>,
    search: &str,
    after: Option<&CustomerCursor>,
    limit: u32,
) -> Result<Vec<Customer>> {
    store::page(reader, search, after, limit)
}

/// What a form for a customer was made from: another state has another digest.
pub fn state(customer: &Customer) -> String {
    secret::digest_of(&facts(&customer.data()))
}

/// Changes a customer, as long as nobody else has since `seen` was taken.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], and `changed_meanwhile`.
pub fn edit(
    tx: &Tx<'_>,
    id: CustomerId,
    new: &NewCustomer,
    seen: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let old = get(tx, id)?;
    if state(&old) != seen {
        return Err(Refused::plain(CHANGED_MEANWHILE).into());
    }
    let new = &new.composed();
    rules::check(new)?;
    store::update(tx, id, new)?;
    let deed = Change {
        what: "customers.edit",
        subject: &id.to_string(),
        before: facts(&old.data()),
        after: facts(new),
    };
    audit::note(tx, now, actor, &deed)?;
    tx.invalidate_caches();
    Ok(())
}

fn facts(data: &NewCustomer) -> Value {
    json!({ "name": data.name, "email": data.email, "company": data.company, "note": data.note })
}

impl Customer {
    /// Name and number, as people choose him from a list: `Ada Lovelace (#12)`.
    pub fn named(&self) -> String {
        format!("{} (#{})", self.name, self.id)
    }

    /// What can be changed about this one.
    pub fn data(&self) -> NewCustomer {
        NewCustomer {
            name: self.name.clone(),
            email: self.email.clone(),
            company: self.company.clone(),
            note: self.note.clone(),
        }
    }
}

/// How many there are.
///
/// # Errors
/// When SQLite fails.
pub fn count(reader: &Reader<'_>) -> Result<u32> {
    store::count(reader)
}

/// The customer of this number.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn get(reader: &Reader<'_>, id: CustomerId) -> Result<Customer> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found("customer", id))
}

impl NewCustomer {
    /// The same as it is stored, whatever it was typed or pasted from.
    fn composed(&self) -> Self {
        Self {
            name: text::typed(&self.name),
            email: text::typed(&self.email),
            company: text::typed(&self.company),
            note: text::typed(&self.note),
        }
    }
}

/// The one customer that is meant by a number (`12`, `#12`), a name, or both as [`Customer::named`] writes
/// them.
///
/// # Errors
/// [`Error::NotFound`] when there is none, `several_customers` when several have that name, and
/// `number_or_name` when it is the number of one customer and the name of another.
pub fn find(reader: &Reader<'_>, meant: &str) -> Result<CustomerId> {
    let meant = text::typed(meant);
    let numbered = numbered(reader, &meant)?;
    let named = store::by_name(reader, &meant)?;
    // Among names that only differ in case or spelling, the one that was typed is meant.
    let named: Vec<CustomerId> = match named.as_slice() {
        [(id, name), rest @ ..]
            if *name == meant && rest.iter().all(|(_, other)| *other != meant) =>
        {
            vec![*id]
        }
        all => all.iter().map(|(id, _)| *id).collect(),
    };
    let several = |code, numbers: &[String]| {
        let refused = Refused::plain(code).with("name", meant.as_str());
        Err(refused.with("numbers", numbers.join(", ")).into())
    };
    match (numbered, named.as_slice()) {
        (None, []) => Err(Error::not_found("customer", &meant)),
        (None, [one]) => Ok(*one),
        (Some(id), others) if others.iter().all(|other| *other == id) => Ok(id),
        (Some(id), others) => {
            let others = others.iter().copied().filter(|other| *other != id);
            let all = std::iter::once(id).chain(others);
            // In full: a number alone is what was not understood.
            let shown = all.map(|id| Ok(get(reader, id)?.named()));
            several("number_or_name", &shown.collect::<Result<Vec<_>>>()?)
        }
        (None, all) => {
            let numbers: Vec<String> = all.iter().map(ToString::to_string).collect();
            several("several_customers", &numbers)
        }
    }
}

/// The customer whose number is in `meant`; where a name stands before it, that has to be the customer's.
fn numbered(reader: &Reader<'_>, meant: &str) -> Result<Option<CustomerId>> {
    let Some((name, id)) = rules::number_in(meant) else {
        return Ok(None);
    };
    let customer = store::by_id(reader, id)?;
    let fits = |customer: &Customer| {
        name.is_none_or(|name| text::folded(&customer.name) == text::folded(name))
    };
    Ok(customer.filter(fits).map(|customer| customer.id))
}

/// The customers that were added last, to choose from.
///
/// # Errors
/// When SQLite fails.
pub fn latest(reader: &Reader<'_>, limit: u32) -> Result<Vec<Customer>> {
    store::latest(reader, limit)
}

/// The customer of this number, if he may be removed.
///
/// # Errors
/// [`Error::NotFound`], and `customer_has_licenses`.
pub fn removable(reader: &Reader<'_>, id: CustomerId) -> Result<Customer> {
    let customer = get(reader, id)?;
    if customer.licenses > 0 {
        let refused = Refused::plain("customer_has_licenses");
        return Err(refused.with("licenses", customer.licenses).into());
    }
    Ok(customer)
}

/// Removes a customer who has no license.
///
/// # Errors
/// [`Error::NotFound`], and `customer_has_licenses`.
pub fn remove(tx: &Tx<'_>, id: CustomerId, actor: &Actor, now: UnixMs) -> Result<()> {
    let old = removable(tx, id)?;
    store::remove(tx, id)?;
    let deed = Change {
        what: "customers.remove",
        subject: &id.to_string(),
        before: facts(&old.data()),
        after: Value::Null,
    };
    audit::note(tx, now, actor, &deed)?;
    tx.invalidate_caches();
    Ok(())
}
