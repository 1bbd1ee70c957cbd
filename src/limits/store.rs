//! SQL calls for rate limits.

use rusqlite::named_params;

use super::Limit;
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::sql;

pub(super) fn list(reader: &Reader<'_>) -> Result<Vec<Limit>> {
    reader.list(sql!("limits/list"), [], |row| {
        Ok(Limit {
            name: row.get("name")?,
            per_minute: row.get("per_minute")?,
            burst: row.get("burst")?,
        })
    })
}

pub(super) fn set(tx: &Tx<'_>, limit: &Limit, now: UnixMs) -> Result<()> {
    let params = named_params! {
        ":name": limit.name, ":per_minute": limit.per_minute, ":burst": limit.burst, ":now_ms": now,
    };
    tx.run(sql!("limits/set"), params).map(drop)
}
