//! SQL calls for the API key, and for the keys that were rotated out.

use rusqlite::named_params;

use super::{CurrentKey, RetiredKey};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::ProductId;
use crate::security::secret::Secret;
use crate::sql;

pub(super) fn current(reader: &Reader<'_>, product: ProductId) -> Result<Option<CurrentKey>> {
    let params = named_params! { ":product_id": product };
    reader.maybe(sql!("api_keys/current"), params, |row| {
        Ok(CurrentKey {
            client_name: row.get("client_name")?,
            key: Secret::new(row.get("api_key")?),
        })
    })
}

pub(super) fn set_current(
    tx: &Tx<'_>,
    product: ProductId,
    key: &Secret<String>,
    now: UnixMs,
) -> Result<()> {
    let params = named_params! { ":product_id": product, ":api_key": key.reveal(), ":now_ms": now };
    tx.run(sql!("api_keys/set_current"), params).map(drop)
}

pub(super) fn retired(reader: &Reader<'_>, product: ProductId) -> Result<Vec<RetiredKey>> {
    let params = named_params! { ":product_id": product };
    reader.list(sql!("api_keys/retired"), params, |row| {
        Ok(RetiredKey {
            key: Secret::new(row.get("api_key")?),
            valid_until: row.get("valid_until_ms")?,
        })
    })
}

pub(super) fn retire(tx: &Tx<'_>, product: ProductId, key: &RetiredKey) -> Result<()> {
    let params = named_params! {
        ":api_key": key.key.reveal(),
        ":product_id": product,
        ":valid_until_ms": key.valid_until,
    };
    tx.run(sql!("api_keys/retire"), params).map(drop)
}

pub(super) fn forget_retired(tx: &Tx<'_>, product: ProductId, now: UnixMs) -> Result<()> {
    let params = named_params! { ":product_id": product, ":now_ms": now };
    tx.run(sql!("api_keys/forget_retired"), params).map(drop)
}

/// A key that programs may present: its product, and until when it is accepted; `None` for the current one.
pub(super) type Accepted = (ProductId, Secret<String>, Option<UnixMs>);

pub(super) fn accepted(reader: &Reader<'_>) -> Result<Vec<Accepted>> {
    reader.list(sql!("api_keys/accepted"), [], |row| {
        Ok((
            row.get("product_id")?,
            Secret::new(row.get("api_key")?),
            row.get("valid_until_ms")?,
        ))
    })
}

/// The product that has a key, current or rotated out.
pub(super) fn owner(reader: &Reader<'_>, key: &Secret<String>) -> Result<Option<ProductId>> {
    let params = named_params! { ":api_key": key.reveal() };
    reader.maybe(sql!("api_keys/owner"), params, |row| row.get(0))
}
