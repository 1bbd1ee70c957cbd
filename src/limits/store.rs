//! SQL calls for rate limits.

use rusqlite::named_params;

use super::{Limit, Rate};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::sql;

pub(super) fn list(reader: &Reader<'_>) -> Result<Vec<Limit>> {
    reader.list(sql!("limits/list"), [], |row| {
        let rate = match row.get("per_hour")? {
            Some(trials) => Rate::PerHour { trials },
            None => Rate::PerMinute {
                calls: row.get("per_minute")?,
                burst: row.get("burst")?,
            },
        };
        Ok(Limit {
            name: row.get("name")?,
            rate,
        })
    })
}

pub(super) fn set(tx: &Tx<'_>, limit: &Limit, now: UnixMs) -> Result<()> {
    let (per_minute, burst, per_hour) = match limit.rate {
        Rate::PerMinute { calls, burst } => (Some(calls), Some(burst), None),
        Rate::PerHour { trials } => (None, None, Some(trials)),
    };
    let params = named_params! {
        ":name": limit.name,
        ":per_minute": per_minute,
        ":burst": burst,
        ":per_hour": per_hour,
        ":now_ms": now,
    };
    tx.run(sql!("limits/set"), params).map(drop)
}
