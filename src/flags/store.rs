//! SQL calls for feature flags.

use rusqlite::named_params;

use super::Flag;
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::sql;

pub(super) fn list(reader: &Reader<'_>) -> Result<Vec<Flag>> {
    reader.list(sql!("flags/list"), [], |row| {
        Ok(Flag {
            name: row.get("name")?,
            description: row.get("description")?,
            enabled: row.get("enabled")?,
            share_percent: row.get("share_percent")?,
        })
    })
}

pub(super) fn set(tx: &Tx<'_>, flag: &Flag, now: UnixMs) -> Result<()> {
    let params = named_params! {
        ":name": flag.name,
        ":description": flag.description,
        ":enabled": flag.enabled,
        ":share_percent": flag.share_percent,
        ":now_ms": now,
    };
    tx.run(sql!("flags/set"), params).map(drop)
}

pub(super) fn remove(tx: &Tx<'_>, name: &str) -> Result<()> {
    let params = named_params! { ":name": name };
    tx.run(sql!("flags/remove"), params).map(drop)
}
