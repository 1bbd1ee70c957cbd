//! SQL calls for trials.

use rusqlite::named_params;
use serde_json::json;

use super::TrialDay;
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::{LicenseId, ProductId};
use crate::licenses::License;
use crate::sql;
use crate::zone::Day;

/// The license of the trial that a device started.
pub(super) fn license_of_device(
    reader: &Reader<'_>,
    product: ProductId,
    fingerprint_digest: &[u8; 32],
) -> Result<Option<LicenseId>> {
    let params = named_params! {
        ":product_id": product,
        ":fingerprint_digest": fingerprint_digest,
    };
    reader.maybe(sql!("trials/of_device"), params, |row| row.get(0))
}

pub(super) fn insert(
    tx: &Tx<'_>,
    license: &License,
    fingerprint_digest: &[u8; 32],
    now: UnixMs,
) -> Result<()> {
    let params = named_params! {
        ":license_id": license.id,
        ":product_id": license.product,
        ":fingerprint_digest": fingerprint_digest,
        ":now_ms": now,
    };
    tx.run(sql!("trials/insert"), params).map(drop)
}

pub(super) fn by_day(
    reader: &Reader<'_>,
    product: ProductId,
    days: &[Day],
) -> Result<Vec<TrialDay>> {
    let days: Vec<_> = days.iter().map(|day| (day.start, day.end)).collect();
    let params = named_params! { ":product_id": product, ":days": json!(days).to_string() };
    reader.list(sql!("trials/by_day"), params, |row| {
        Ok(TrialDay {
            day: row.get("day_ms")?,
            started: row.get("started")?,
            bought: row.get("bought")?,
        })
    })
}

pub(super) fn any(reader: &Reader<'_>, product: ProductId) -> Result<bool> {
    let params = named_params! { ":product_id": product };
    reader.one(sql!("trials/any"), params, |row| row.get(0))
}
