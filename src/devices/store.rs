//! Devices in the database.

use rusqlite::named_params;

use super::{ClientIdentity, Device};
use crate::clock::UnixMs;
use crate::db::{Columns, FromColumns, Reader, Tx, from_row};
use crate::error::Result;
use crate::id::{DeviceId, LicenseId, ProductId};
use crate::sql;
use crate::terms::{self, Pattern};
use crate::version::Version;

/// Versions are counted by days in UTC, whatever the shop's time zone is.
const DAY_MS: i64 = 86_400_000;

pub(super) fn insert(
    tx: &Tx<'_>,
    license_id: LicenseId,
    client: &ClientIdentity,
    now: UnixMs,
) -> Result<DeviceId> {
    let params = named_params! {
        ":license_id": license_id,
        ":hardware_id": client.hardware_id,
        ":machine_id": client.machine_id,
        ":client_version": client.version,
        ":now_ms": now,
    };
    tx.changes_license(license_id);
    tx.insert(sql!("devices/insert"), params).map(DeviceId)
}

pub(super) fn find(
    reader: &Reader<'_>,
    license_id: LicenseId,
    hardware_id: &str,
) -> Result<Option<Device>> {
    let params = named_params! { ":license_id": license_id, ":hardware_id": hardware_id };
    reader.maybe(sql!("devices/find"), params, from_row)
}

pub(super) fn by_id(
    reader: &Reader<'_>,
    license_id: LicenseId,
    id: DeviceId,
) -> Result<Option<Device>> {
    let params = named_params! { ":license_id": license_id, ":device_id": id };
    reader.maybe(sql!("devices/by_id"), params, from_row)
}

/// The newest devices with these texts, each with its license.
pub(super) fn with_text(
    reader: &Reader<'_>,
    pattern: &Pattern,
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<(LicenseId, Device)>> {
    let params = named_params! {
        ":match": terms::either(pattern, &Pattern::of(None), product),
        ":parts": pattern.parts(),
        ":product_mark": product.map(terms::product_mark),
        ":limit": limit,
    };
    reader.list(sql!("devices/with_text"), params, |row| {
        let mut columns = Columns::of(row);
        let license = columns.take("license_id")?;
        Ok((license, Device::from_columns(&mut columns)?))
    })
}

pub(super) fn count(reader: &Reader<'_>, license_id: LicenseId) -> Result<u32> {
    let params = named_params! { ":license_id": license_id };
    reader.one(sql!("devices/count"), params, |row| row.get(0))
}

pub(super) fn is_bound_elsewhere(
    reader: &Reader<'_>,
    license_id: LicenseId,
    fingerprint_digest: &[u8; 32],
) -> Result<bool> {
    let params = named_params! {
        ":license_id": license_id,
        ":fingerprint_digest": fingerprint_digest,
    };
    reader.one(sql!("devices/bound_elsewhere"), params, |row| row.get(0))
}

pub(super) fn latest(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    reader.one(sql!("devices/latest"), [], |row| row.get(0))
}

pub(super) fn list(reader: &Reader<'_>, license_id: LicenseId) -> Result<Vec<Device>> {
    reader.list(
        sql!("devices/list"),
        named_params! { ":license_id": license_id },
        from_row,
    )
}

pub(super) fn versions(
    reader: &Reader<'_>,
    product: ProductId,
    since: UnixMs,
) -> Result<Vec<(Version, u32)>> {
    let params = named_params! { ":product_id": product, ":since_day": since.0.div_euclid(DAY_MS) };
    reader.list(sql!("devices/versions"), params, |row| {
        Ok((row.get("client_version")?, row.get("devices")?))
    })
}

pub(super) fn remove(tx: &Tx<'_>, id: DeviceId) -> Result<()> {
    let params = named_params! { ":device_id": id };
    let license: Option<LicenseId> = tx.maybe(sql!("devices/remove"), params, |row| row.get(0))?;
    if let Some(license) = license {
        tx.changes_license(license);
    }
    Ok(())
}

pub(super) fn refresh(
    tx: &Tx<'_>,
    id: DeviceId,
    client: &ClientIdentity,
    now: UnixMs,
) -> Result<()> {
    let params = named_params! {
        ":device_id": id,
        ":machine_id": client.machine_id,
        ":client_version": client.version,
        ":now_ms": now,
    };
    tx.run(sql!("devices/refresh"), params).map(drop)
}

pub(super) fn mark_seen(tx: &Tx<'_>, id: DeviceId, at: UnixMs) -> Result<()> {
    let params = named_params! { ":device_id": id, ":at_ms": at };
    tx.run(sql!("devices/seen"), params).map(drop)
}

impl FromColumns for Device {
    const COUNT: usize = 6;

    fn from_columns(columns: &mut Columns<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: columns.take("device_id")?,
            hardware_id: columns.take("hardware_id")?,
            machine_id: columns.take("machine_id")?,
            version: columns.take("client_version")?,
            activated_at: columns.take("activated_at_ms")?,
            last_seen_at: columns.take("last_seen_at_ms")?,
        })
    }
}
