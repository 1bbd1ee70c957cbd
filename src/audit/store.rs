//! The audit log in the database.

use rusqlite::named_params;

use super::{Actor, Entry};
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::sql;

pub(super) fn insert(tx: &Tx<'_>, entry: &Entry, hash: &[u8; 32]) -> Result<()> {
    let params = named_params! {
        ":audit_id": entry.id,
        ":at_ms": entry.at,
        ":actor": entry.actor.name,
        ":source": entry.actor.source,
        ":deed": entry.what,
        ":subject": entry.subject,
        ":before": entry.before,
        ":after": entry.after,
        ":hash": hash,
    };
    tx.run(sql!("audit/insert"), params).map(drop)
}

/// The number and the hash of the last line; 0 and zeroes before the first.
pub(super) fn head(reader: &Reader<'_>) -> Result<(i64, [u8; 32])> {
    reader.one(sql!("audit/head"), [], |row| {
        Ok((row.get("audit_id")?, row.get("hash")?))
    })
}

pub(super) fn set_head(tx: &Tx<'_>, id: i64, hash: &[u8; 32]) -> Result<()> {
    let params = named_params! { ":audit_id": id, ":hash": hash };
    tx.run(sql!("audit/set_head"), params).map(drop)
}

pub(super) fn after(reader: &Reader<'_>, id: i64, limit: u32) -> Result<Vec<(Entry, [u8; 32])>> {
    let params = named_params! { ":audit_id": id, ":limit": limit };
    reader.list(sql!("audit/after"), params, |row| {
        let entry = Entry {
            id: row.get("audit_id")?,
            at: row.get("at_ms")?,
            actor: Actor {
                name: row.get("actor")?,
                source: row.get("source")?,
            },
            what: row.get("deed")?,
            subject: row.get("subject")?,
            before: row.get("before")?,
            after: row.get("after")?,
        };
        Ok((entry, row.get("hash")?))
    })
}
