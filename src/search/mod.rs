//! One search for everything that a shop is asked about: whatever a customer names, by which it is found.

pub mod cli;
pub mod panel;
mod store;

use crate::clock::UnixMs;
use crate::customers::{self, Customer};
use crate::db::Reader;
use crate::devices::{self, Device};
use crate::error::{Error, Result};
use crate::id::{CustomerId, LicenseId, ProductId, SessionId, SessionToken};
use crate::license_key::{self, LicenseKey};
use crate::licenses::{self, License, LicenseText};
use crate::session_history::{self, EndReason, SessionDetails};
use crate::sessions;
use crate::terms::{Pattern, Terms};

/// From this length on, letters alone are looked up in license keys too; shorter ones are words, which many keys contain by
/// chance.
const KEY_LETTERS_MIN: usize = 5;

/// What to look for.
#[derive(Clone, Debug)]
pub struct Query {
    /// What was typed.
    pub terms: Terms,
    /// Of this product only; customers belong to none.
    pub product: Option<ProductId>,
    /// How many things of a kind, at most.
    pub limit: u32,
}

/// The things of one kind that were found.
#[derive(Clone, Debug)]
pub struct Group<T> {
    /// The best ones first, then the newest.
    pub rows: Vec<T>,
    /// Whether there are more.
    pub more: bool,
}

/// A device that was found.
#[derive(Clone, Debug)]
pub struct FoundDevice {
    /// The device.
    pub device: Device,
    /// The license whose slot it holds.
    pub license: License,
}

/// A device that was released, or whose license moved to another customer, as the audit log tells.
#[derive(Clone, Debug)]
pub struct ReleasedDevice {
    /// Its name.
    pub machine_id: String,
    /// Its fingerprint.
    pub hardware_id: String,
    /// When it was released.
    pub released_at: UnixMs,
}

/// A session that was found.
#[derive(Clone, Debug)]
pub struct FoundSession {
    /// The session.
    pub session: SessionDetails,
    /// How it ended; `None` if it has not.
    pub ended: Option<EndReason>,
}

/// What was found, by kind. A kind that is to come, such as orders, is one more group.
#[derive(Clone, Debug)]
pub struct Found {
    /// By name, company, mail address, note or number.
    pub customers: Group<Customer>,
    /// By key, note or domain, and those of the customers that were found.
    pub licenses: Group<License>,
    /// By name or fingerprint.
    pub devices: Group<FoundDevice>,
    /// By name or fingerprint, each with the license whose slot it held.
    pub released: Group<(ReleasedDevice, License)>,
    /// By the id that its program knows, or by its number.
    pub sessions: Group<FoundSession>,
}

/// The license whose whole key was typed, of whatever product.
pub fn license_with_key(reader: &Reader<'_>, terms: &Terms) -> Result<Option<License>> {
    if LicenseKey::parse(terms.typed()).is_none() {
        return Ok(None);
    }
    match licenses::by_typed_key(reader, terms.typed()) {
        Ok(license) => Ok(Some(license)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Looks for `query` among customers, licenses, devices and sessions.
pub fn everything(reader: &Reader<'_>, query: &Query) -> Result<Found> {
    let customers = find_customers(reader, query)?;
    let ids: Vec<CustomerId> = customers.rows.iter().map(|customer| customer.id).collect();
    Ok(Found {
        licenses: find_licenses(reader, query, &ids)?,
        devices: find_devices(reader, query)?,
        released: find_released(reader, query)?,
        sessions: find_sessions(reader, query)?,
        customers,
    })
}

fn find_customers(reader: &Reader<'_>, query: &Query) -> Result<Group<Customer>> {
    let limit = query.limit.saturating_add(1);
    let mut ids: Vec<CustomerId> = number(&query.terms).map(CustomerId).into_iter().collect();
    for pattern in by_rank(&query.terms) {
        if ids.len() <= query.limit as usize {
            append(&mut ids, customers::with_text(reader, &pattern, limit)?);
        }
    }
    let mut rows = Vec::new();
    for id in ids {
        match customers::get(reader, id) {
            // As in lists, an erased customer is shown because of its licenses only.
            Ok(customer) if customer.erased_at.is_none() || customer.licenses > 0 => {
                rows.push(customer);
            }
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(Group::cut(rows, query.limit))
}

fn find_licenses(
    reader: &Reader<'_>,
    query: &Query,
    customers: &[CustomerId],
) -> Result<Group<License>> {
    let (product, limit) = (query.product, query.limit.saturating_add(1));
    let mut ids: Vec<LicenseId> = license_with_key(reader, &query.terms)?
        .map(|license| license.id)
        .into_iter()
        .collect();
    for pattern in by_rank(&query.terms) {
        let text = LicenseText {
            pattern,
            key_part: None,
        };
        append(
            &mut ids,
            licenses::with_text(reader, &text, product, limit)?,
        );
    }
    append(
        &mut ids,
        licenses::of_customers(reader, customers, product, limit)?,
    );
    if let Some(part) = key_part(&query.terms) {
        let text = LicenseText {
            pattern: Pattern::of(None),
            key_part: Some(part),
        };
        append(
            &mut ids,
            licenses::with_text(reader, &text, product, limit)?,
        );
    }
    ids.truncate(limit as usize);
    let rows = ids.into_iter().map(|id| licenses::find(reader, id));
    Ok(Group::cut(rows.collect::<Result<_>>()?, query.limit))
}

fn find_devices(reader: &Reader<'_>, query: &Query) -> Result<Group<FoundDevice>> {
    let limit = query.limit.saturating_add(1);
    let mut found: Vec<(LicenseId, Device)> = Vec::new();
    for pattern in by_rank(&query.terms) {
        for row in devices::with_text(reader, &pattern, query.product, limit)? {
            if found.iter().all(|(_, known)| known.id != row.1.id) {
                found.push(row);
            }
        }
    }
    found.truncate(limit as usize);
    let rows = found.into_iter().map(|(license, device)| {
        let license = licenses::find(reader, license)?;
        Ok(FoundDevice { device, license })
    });
    Ok(Group::cut(rows.collect::<Result<_>>()?, query.limit))
}

fn find_released(reader: &Reader<'_>, query: &Query) -> Result<Group<(ReleasedDevice, License)>> {
    let limit = query.limit.saturating_add(1);
    let found = store::released(reader, &query.terms.words(), query.product, limit)?;
    let rows = found
        .into_iter()
        .map(|(license, device)| Ok((device, licenses::find(reader, license)?)));
    Ok(Group::cut(rows.collect::<Result<_>>()?, query.limit))
}

fn find_sessions(reader: &Reader<'_>, query: &Query) -> Result<Group<FoundSession>> {
    let by_token = SessionToken::parse(query.terms.typed());
    let by_token = by_token.map(|token| store::session_of_token(reader, &token));
    let id = by_token.transpose()?.flatten();
    let id = id.or_else(|| number(&query.terms).map(SessionId));
    let found = id.map(|id| session(reader, id)).transpose()?.flatten();
    let of_product = |found: &FoundSession| {
        query
            .product
            .is_none_or(|product| found.session.product == product)
    };
    let rows = found.into_iter().filter(of_product).collect();
    Ok(Group::cut(rows, query.limit))
}

/// A session that runs or has ended.
fn session(reader: &Reader<'_>, id: SessionId) -> Result<Option<FoundSession>> {
    if let Some(session) = sessions::running_by_id(reader, id)? {
        return Ok(Some(FoundSession {
            session,
            ended: None,
        }));
    }
    let ended = session_history::by_id(reader, id)?;
    Ok(ended.map(|ended| FoundSession {
        session: ended.session,
        ended: Some(ended.reason),
    }))
}

/// What to look for, the best first: a field that is what was typed, one that begins with it, and all words.
fn by_rank(terms: &Terms) -> [Pattern; 3] {
    [terms.whole_field(), terms.field_beginning(), terms.words()]
}

/// Appends the ids that are not in `ids` yet.
fn append<T: PartialEq>(ids: &mut Vec<T>, more: Vec<T>) {
    for id in more {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
}

/// The number that was typed: `12` or `#12`.
fn number(terms: &Terms) -> Option<i64> {
    let typed = terms.typed();
    let digits = typed.strip_prefix('#').unwrap_or(typed);
    let number: i64 = digits.parse().ok()?;
    (number > 0 && number.to_string() == digits).then_some(number)
}

/// What was typed as a part of a license key.
fn key_part(terms: &Terms) -> Option<String> {
    let part = license_key::searched_part(terms.typed())?;
    let has_digit = terms.typed().contains(|c: char| c.is_ascii_digit());
    let is_likely = part.len() >= KEY_LETTERS_MIN || has_digit;
    is_likely.then_some(part)
}

impl<T> Group<T> {
    fn cut(mut rows: Vec<T>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Self { rows, more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_without_leading_zeros() {
        for (typed, expected) in [
            ("12", Some(12)),
            ("#12", Some(12)),
            ("012", None),
            ("0", None),
            ("-1", None),
            ("+1", None),
            ("12a", None),
            ("", None),
        ] {
            assert_eq!(number(&Terms::parse(typed)), expected, "{typed}");
        }
    }

    #[test]
    fn letters_are_part_of_a_key_only_if_they_are_many() {
        for (typed, expected) in [
            ("ada", None),
            ("gmbh", None),
            ("abcde", Some("ABCDE")),
            ("a7k", Some("A7K")),
            ("7k2q - roil", Some("7K2QR011")),
            ("7k", None),
            ("m\u{fc}ller", None),
        ] {
            assert_eq!(
                key_part(&Terms::parse(typed)).as_deref(),
                expected,
                "{typed}"
            );
        }
    }
}
