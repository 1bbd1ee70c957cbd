//! SQL calls for customers.

use rusqlite::{Row, named_params};

use super::{Customer, CustomerColumn, CustomerData};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx, id_list};
use crate::error::Result;
use crate::id::CustomerId;
use crate::paging::{Direction, SortPosition};
use crate::sql;
use crate::terms::{self, Matches, Pattern};
use crate::text;

pub(super) fn insert(tx: &Tx<'_>, new: &CustomerData, now: UnixMs) -> Result<CustomerId> {
    let params = named_params! {
        ":name": new.name, ":email": new.email, ":company": new.company, ":note": new.note, ":now_ms": now,
    };
    tx.insert(sql!("customers/insert"), params).map(CustomerId)
}

pub(super) fn count(reader: &Reader<'_>) -> Result<u32> {
    reader.one(sql!("customers/count"), [], |row| row.get(0))
}

/// The newest customers with these texts.
pub(super) fn with_text(
    reader: &Reader<'_>,
    pattern: &Pattern,
    limit: u32,
) -> Result<Vec<CustomerId>> {
    let params = named_params! {
        ":match": pattern.expression(), ":parts": pattern.parts(), ":limit": limit,
    };
    reader.list(sql!("customers/with_text"), params, |row| {
        row.get("customer_id")
    })
}

/// All customers, or those with the ids `found`.
pub(super) fn list(
    reader: &Reader<'_>,
    found: Option<&Matches<CustomerId>>,
    limit: u32,
) -> Result<Vec<Customer>> {
    let params =
        named_params! { ":found": found.map(|found| id_list(&found.ids)), ":limit": limit };
    reader.list(sql!("customers/list"), params, customer)
}

/// The order of a page, the position that its rows follow in it, and their maximum number.
pub(super) struct PageRange<'a> {
    pub(super) column: CustomerColumn,
    pub(super) direction: Direction,
    pub(super) from: Option<&'a SortPosition>,
    pub(super) limit: u32,
}

pub(super) fn page(
    reader: &Reader<'_>,
    found: Option<&Matches<CustomerId>>,
    range: &PageRange<'_>,
) -> Result<Vec<Customer>> {
    let ids = match found {
        Some(found) => id_list(&found.ids),
        None => id_list(&next(reader, range)?),
    };
    let params = named_params! {
        ":found": ids,
        ":column": range.column.as_str(),
        ":from_value": range.from.map(|from| from.value.as_str()),
        ":from_id": range.from.map(|from| from.id),
        ":limit": range.limit,
    };
    match range.direction {
        Direction::Ascending => reader.list(sql!("customers/page_ascending"), params, customer),
        Direction::Descending => reader.list(sql!("customers/page_descending"), params, customer),
    }
}

/// The ids of the customers that come next in the order of a list of all of them.
fn next(reader: &Reader<'_>, range: &PageRange<'_>) -> Result<Vec<CustomerId>> {
    let (least, greatest) = (("", i64::MIN), ("\u{10ffff}", i64::MAX));
    let (value, number) = match (range.from, range.direction) {
        (Some(from), _) => (from.value.as_str(), from.value.parse().unwrap_or(0)),
        (None, Direction::Ascending) => least,
        (None, Direction::Descending) => greatest,
    };
    let params = named_params! {
        ":column": range.column.as_str(),
        ":from_value": value,
        ":from_number": number,
        ":from_id": range.from.map_or(number, |from| from.id),
        ":limit": range.limit,
    };
    let id = |row: &Row<'_>| row.get(0);
    match range.direction {
        Direction::Ascending => reader.list(sql!("customers/next_ascending"), params, id),
        Direction::Descending => reader.list(sql!("customers/next_descending"), params, id),
    }
}

/// How many of the customers that a search found a list shows.
pub(super) fn count_found(reader: &Reader<'_>, found: &Matches<CustomerId>) -> Result<u32> {
    let params = named_params! { ":found": id_list(&found.ids) };
    reader.one(sql!("customers/count_matching"), params, |row| row.get(0))
}

pub(super) fn update(tx: &Tx<'_>, id: CustomerId, new: &CustomerData) -> Result<()> {
    let params = named_params! {
        ":customer_id": id,
        ":name": new.name,
        ":email": new.email,
        ":company": new.company,
        ":note": new.note,
    };
    tx.run(sql!("customers/update"), params).map(drop)
}

pub(super) fn latest(reader: &Reader<'_>, limit: u32) -> Result<Vec<Customer>> {
    let params = named_params! { ":limit": limit };
    reader.list(sql!("customers/latest"), params, customer)
}

/// Whether a license of the customer was given to another one.
pub(super) fn had_licenses(reader: &Reader<'_>, id: CustomerId) -> Result<bool> {
    let params = named_params! { ":customer_id": id };
    reader.one(sql!("customers/had_licenses"), params, |row| row.get(0))
}

pub(super) fn by_id(reader: &Reader<'_>, id: CustomerId) -> Result<Option<Customer>> {
    let params = named_params! { ":customer_id": id };
    reader.maybe(sql!("customers/by_id"), params, customer)
}

/// Up to ten customers with this name, ignoring case and spelling variants; an exact match comes first. Id and name.
pub(super) fn by_name(reader: &Reader<'_>, name: &str) -> Result<Vec<(CustomerId, String)>> {
    let params = named_params! {
        ":match": Pattern::exactly(name).expression(),
        ":name": text::clean_input(name),
        ":indexed": terms::indexed(name),
    };
    reader.list(sql!("customers/by_name"), params, |row| {
        Ok((row.get("customer_id")?, row.get("name")?))
    })
}

fn customer(row: &Row<'_>) -> rusqlite::Result<Customer> {
    Ok(Customer {
        id: row.get("customer_id")?,
        name: row.get("name")?,
        email: row.get("email")?,
        company: row.get("company")?,
        note: row.get("note")?,
        licenses: row.get("licenses")?,
        created_at: row.get("created_at_ms")?,
        erased_at: row.get("erased_at_ms")?,
    })
}
