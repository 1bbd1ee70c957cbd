//! Licenses in the database.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Row, named_params};

use super::{Kind, License, LicenseKey, Order, State};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::LicenseId;
use crate::sql;

pub(super) fn insert(
    tx: &Tx<'_>,
    key: &LicenseKey,
    order: &Order,
    domain: Option<&str>,
    valid_until: Option<UnixMs>,
    now: UnixMs,
) -> Result<LicenseId> {
    let params = named_params! {
        ":license_key": key.stored(),
        ":customer_id": order.customer_id,
        ":kind": order.kind.word(),
        ":device_limit": order.device_limit,
        ":valid_until_ms": valid_until,
        ":domain": domain,
        ":note": order.note,
        ":now_ms": now,
    };
    tx.insert(sql!("licenses/insert"), params).map(LicenseId)
}

pub(super) fn by_id(reader: &Reader<'_>, id: LicenseId) -> Result<Option<License>> {
    reader.maybe(
        sql!("licenses/by_id"),
        named_params! { ":license_id": id },
        license,
    )
}

pub(super) fn by_key(reader: &Reader<'_>, key: &LicenseKey) -> Result<Option<License>> {
    let params = named_params! { ":license_key": key.stored() };
    reader.maybe(sql!("licenses/by_key"), params, license)
}

pub(super) fn count(reader: &Reader<'_>) -> Result<u32> {
    reader.one(sql!("licenses/count"), [], |row| row.get(0))
}

pub(super) fn list(reader: &Reader<'_>, search: &str, limit: u32) -> Result<Vec<License>> {
    // A part of a key is searched as it is stored: people paste it with hyphens.
    let key_part = search.replace(['-', ' '], "").to_uppercase();
    let params = named_params! { ":search": search, ":key_part": key_part, ":limit": limit };
    reader.list(sql!("licenses/list"), params, license)
}

pub(super) fn set_state(tx: &Tx<'_>, id: LicenseId, state: State) -> Result<()> {
    let params = named_params! { ":license_id": id, ":state": state.word() };
    tx.run(sql!("licenses/set_state"), params).map(drop)
}

pub(super) fn set_valid_until(tx: &Tx<'_>, id: LicenseId, until: UnixMs) -> Result<()> {
    let params = named_params! { ":license_id": id, ":valid_until_ms": until };
    tx.run(sql!("licenses/set_valid_until"), params).map(drop)
}

fn license(row: &Row<'_>) -> rusqlite::Result<License> {
    let unknown = |what: &str| {
        let cause = FromSqlError::Other(format!("an unknown {what}").into());
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, cause.into())
    };
    let key = LicenseKey::from_stored(row.get_ref("license_key")?.as_str()?);
    Ok(License {
        id: row.get("license_id")?,
        key: key.ok_or_else(|| unknown("key"))?,
        customer_id: row.get("customer_id")?,
        customer: row.get("customer")?,
        kind: match row.get_ref("kind")?.as_str()? {
            "full" => Kind::Full,
            "trial" => Kind::Trial,
            _ => return Err(unknown("kind")),
        },
        state: match row.get_ref("state")?.as_str()? {
            "active" => State::Active,
            "suspended" => State::Suspended,
            "revoked" => State::Revoked,
            _ => return Err(unknown("state")),
        },
        device_limit: row.get("device_limit")?,
        valid_from: row.get("valid_from_ms")?,
        valid_until: row.get("valid_until_ms")?,
        domain: row.get("domain")?,
        note: row.get("note")?,
        created_at: row.get("created_at_ms")?,
    })
}
