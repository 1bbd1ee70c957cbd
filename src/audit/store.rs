//! The audit log in the database.

use rusqlite::{Row, named_params};

use super::chain::ChainedEntry;
use super::{Entry, EntryFilter};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::sql;

pub(super) fn insert(tx: &Tx<'_>, chained: &ChainedEntry) -> Result<()> {
    let entry = &chained.entry;
    let params = named_params! {
        ":audit_id": entry.id,
        ":at_ms": entry.at,
        ":action": entry.action,
        ":salt": chained.salt,
        ":actor": entry.actor,
        ":source": entry.source,
        ":subject": entry.subject,
        ":before": entry.before,
        ":after": entry.after,
        ":payload_hash": chained.payload_hash,
        ":hash": chained.hash,
    };
    tx.run(sql!("audit/insert"), params).map(drop)
}

/// Erases an entry; 0 if it is erased already.
pub(super) fn erase(tx: &Tx<'_>, id: i64, now: UnixMs) -> Result<usize> {
    let params = named_params! { ":audit_id": id, ":now_ms": now };
    tx.run(sql!("audit/erase"), params)
}

pub(super) fn erase_before(tx: &Tx<'_>, before: UnixMs, now: UnixMs, limit: u32) -> Result<usize> {
    let params = named_params! { ":before_ms": before, ":now_ms": now, ":limit": limit };
    tx.run(sql!("audit/erase_before"), params)
}

/// The id and the hash of the newest entry; 0 and zeroes if the log is empty.
pub(super) fn head(reader: &Reader<'_>) -> Result<(i64, [u8; 32])> {
    reader.one(sql!("audit/head"), [], |row| {
        Ok((row.get("audit_id")?, row.get("hash")?))
    })
}

pub(super) fn set_head(tx: &Tx<'_>, id: i64, hash: &[u8; 32]) -> Result<()> {
    let params = named_params! { ":audit_id": id, ":hash": hash };
    tx.run(sql!("audit/set_head"), params).map(drop)
}

pub(super) fn newest_entry_at(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    reader.maybe(sql!("audit/latest"), [], |row| row.get(0))
}

pub(super) fn after(reader: &Reader<'_>, id: i64, limit: u32) -> Result<Vec<ChainedEntry>> {
    let params = named_params! { ":audit_id": id, ":limit": limit };
    reader.list(sql!("audit/after"), params, |row| {
        Ok(ChainedEntry {
            entry: row.try_into()?,
            salt: row.get("salt")?,
            payload_hash: row.get("payload_hash")?,
            hash: row.get("hash")?,
        })
    })
}

pub(super) fn page_before(
    reader: &Reader<'_>,
    filter: &EntryFilter,
    id: i64,
    limit: u32,
) -> Result<Vec<Entry>> {
    let (from, to) = bounds(filter);
    let params = named_params! {
        ":actor": filter.actor,
        ":action_from": from,
        ":action_to": to,
        ":subject": filter.subject,
        ":since_ms": filter.since,
        ":audit_id": id,
        ":limit": limit,
    };
    reader.list(sql!("audit/page_before"), params, |row| row.try_into())
}

pub(super) fn page_after(
    reader: &Reader<'_>,
    filter: &EntryFilter,
    id: i64,
    limit: u32,
) -> Result<Vec<Entry>> {
    let (from, to) = bounds(filter);
    let params = named_params! {
        ":actor": filter.actor,
        ":action_from": from,
        ":action_to": to,
        ":subject": filter.subject,
        ":since_ms": filter.since,
        ":audit_id": id,
        ":limit": limit,
    };
    reader.list(sql!("audit/page_after"), params, |row| row.try_into())
}

/// How many entries match a filter; `limit` are counted at most.
pub(super) fn count_matching(reader: &Reader<'_>, filter: &EntryFilter, limit: u32) -> Result<u32> {
    let (from, to) = bounds(filter);
    let params = named_params! {
        ":actor": filter.actor,
        ":action_from": from,
        ":action_to": to,
        ":subject": filter.subject,
        ":since_ms": filter.since,
        ":limit": limit,
    };
    reader.one(sql!("audit/count_matching"), params, |row| row.get(0))
}

pub(super) fn entries_about(
    reader: &Reader<'_>,
    module: &str,
    subject: &str,
    limit: u32,
) -> Result<Vec<Entry>> {
    let params = named_params! {
        ":subject": subject,
        ":action_from": format!("{module}."),
        ":action_to": format!("{module}/"),
        ":limit": limit,
    };
    reader.list(sql!("audit/of_subject"), params, |row| row.try_into())
}

/// The range of the actions of the filter's module: `licenses.` to `licenses/`, since `/` follows the dot in ASCII.
fn bounds(filter: &EntryFilter) -> (Option<String>, Option<String>) {
    let bound = |end| {
        filter
            .module
            .as_ref()
            .map(|module| format!("{module}{end}"))
    };
    (bound('.'), bound('/'))
}

impl TryFrom<&Row<'_>> for Entry {
    type Error = rusqlite::Error;

    fn try_from(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("audit_id")?,
            at: row.get("at_ms")?,
            actor: row.get("actor")?,
            source: row.get("source")?,
            action: row.get("action")?,
            subject: row.get("subject")?,
            before: row.get("before")?,
            after: row.get("after")?,
            erased_at: row.get("erased_at_ms")?,
        })
    }
}
