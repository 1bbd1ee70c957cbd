//! SQL calls for feature flags.

use rusqlite::named_params;

use super::Flag;
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::ProductId;
use crate::sql;

pub(super) fn list(reader: &Reader<'_>, product: ProductId) -> Result<Vec<Flag>> {
    let params = named_params! { ":product_id": product };
    reader.list(sql!("flags/list"), params, |row| {
        Ok(Flag {
            name: row.get("name")?,
            description: row.get("description")?,
            enabled: row.get("enabled")?,
            share_percent: row.get("share_percent")?,
        })
    })
}

pub(super) fn set(tx: &Tx<'_>, product: ProductId, flag: &Flag, now: UnixMs) -> Result<()> {
    let params = named_params! {
        ":product_id": product,
        ":name": flag.name,
        ":description": flag.description,
        ":enabled": flag.enabled,
        ":share_percent": flag.share_percent,
        ":now_ms": now,
    };
    tx.run(sql!("flags/set"), params).map(drop)
}

pub(super) fn remove(tx: &Tx<'_>, product: ProductId, name: &str) -> Result<()> {
    let params = named_params! { ":product_id": product, ":name": name };
    tx.run(sql!("flags/remove"), params).map(drop)
}
