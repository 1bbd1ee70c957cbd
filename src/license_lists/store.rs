//! SQL calls for the orders of the list of licenses.

use rusqlite::{Row, named_params};

use super::rules::{customer_position, number_position};
use super::{LicenseFilter, Walk};
use crate::db::Reader;
use crate::error::Result;
use crate::id::LicenseId;
use crate::paging::Direction;
use crate::sql;

macro_rules! filtered {
    ($walk:ident $(, $name:literal: $value:expr)*) => {
        named_params! {
            $($name: $value,)*
            ":product_id": $walk.product,
            ":filter": $walk.filter.as_str(),
            ":now_ms": $walk.now,
            ":soon_ms": $walk.soon,
            ":limit": $walk.limit,
        }
    };
}

pub(super) fn by_age(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    let params = filtered!(walk, ":low": walk.range.0, ":high": walk.range.1);
    match walk.direction {
        Direction::Ascending => reader.list(sql!("license_lists/oldest"), params, id),
        Direction::Descending => reader.list(sql!("license_lists/newest"), params, id),
    }
}

pub(super) fn stopped(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    let params = named_params! {
        ":low": walk.range.0, ":high": walk.range.1, ":product_id": walk.product, ":limit": walk.limit,
    };
    match walk.direction {
        Direction::Ascending => reader.list(sql!("license_lists/stopped_oldest"), params, id),
        Direction::Descending => reader.list(sql!("license_lists/stopped_newest"), params, id),
    }
}

pub(super) fn unused(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    let params = named_params! {
        ":low": walk.range.0, ":high": walk.range.1, ":product_id": walk.product,
        ":now_ms": walk.now, ":limit": walk.limit,
    };
    match walk.direction {
        Direction::Ascending => reader.list(sql!("license_lists/unused_oldest"), params, id),
        Direction::Descending => reader.list(sql!("license_lists/unused_newest"), params, id),
    }
}

pub(super) fn ended(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    let ends = walk.filter.ends(walk.now, walk.soon);
    let params = named_params! {
        ":low": walk.range.0, ":high": walk.range.1, ":product_id": walk.product,
        ":bought": walk.filter == LicenseFilter::Expiring,
        ":from_ms": ends.from, ":until_ms": ends.until, ":limit": walk.limit,
    };
    match walk.direction {
        Direction::Ascending => reader.list(sql!("license_lists/ended_oldest"), params, id),
        Direction::Descending => reader.list(sql!("license_lists/ended_newest"), params, id),
    }
}

pub(super) fn by_key(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    let value = walk.from.map(|from| from.value.as_str());
    let value = value.unwrap_or(match walk.direction {
        Direction::Ascending => "",
        Direction::Descending => "\u{10ffff}",
    });
    let params = filtered!(walk, ":from_value": value);
    match walk.direction {
        Direction::Ascending => reader.list(sql!("license_lists/by_key_ascending"), params, id),
        Direction::Descending => reader.list(sql!("license_lists/by_key_descending"), params, id),
    }
}

pub(super) fn by_devices(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    let from = number_position(walk.from, walk.direction)?;
    let params = filtered!(walk, ":from_number": from.number, ":from_id": from.id);
    match walk.direction {
        Direction::Ascending => reader.list(sql!("license_lists/by_devices_ascending"), params, id),
        Direction::Descending => {
            reader.list(sql!("license_lists/by_devices_descending"), params, id)
        }
    }
}

pub(super) fn by_end(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    let ends = walk.filter.ends(walk.now, walk.soon);
    let from = number_position(walk.from, walk.direction)?;
    let params = filtered!(
        walk,
        ":from_number": from.number, ":from_id": from.id, ":open_id": from.open,
        ":from_ms": ends.from, ":until_ms": ends.until, ":with_open": ends.with_open
    );
    match walk.direction {
        Direction::Ascending => reader.list(sql!("license_lists/by_end_ascending"), params, id),
        Direction::Descending => reader.list(sql!("license_lists/by_end_descending"), params, id),
    }
}

pub(super) fn by_customer(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    let from = customer_position(walk.from, walk.direction)?;
    let params = filtered!(
        walk,
        ":from_name": from.name, ":from_customer": from.customer, ":from_id": from.id,
        ":unowned_id": from.unowned
    );
    match walk.direction {
        Direction::Ascending => {
            reader.list(sql!("license_lists/by_customer_ascending"), params, id)
        }
        Direction::Descending => {
            reader.list(sql!("license_lists/by_customer_descending"), params, id)
        }
    }
}

fn id(row: &Row<'_>) -> rusqlite::Result<LicenseId> {
    row.get(0)
}
