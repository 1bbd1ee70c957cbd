//! The audit log in the database.

use rusqlite::{Row, named_params};

use super::chain::ChainedEntry;
use super::{Entry, EntryFilter, Narrowest};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::paging::Direction;
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

/// The parameters of a query with `$filter`.
macro_rules! filter_params {
    ($filter:ident $(, $name:literal: $value:expr)*) => {
        named_params! {
            ":actor": $filter.actor,
            ":module": $filter.module,
            ":subject": $filter.subject,
            ":since_ms": $filter.since,
            $($name: $value,)*
        }
    };
}

/// The entries that follow the one with the id `id` in this direction.
pub(super) fn page(
    reader: &Reader<'_>,
    filter: &EntryFilter,
    (id, direction): (i64, Direction),
    limit: u32,
) -> Result<Vec<Entry>> {
    use Direction::{Ascending, Descending};
    let query = match (filter.narrowest(), direction) {
        (Some(Narrowest::Subject), Ascending) => sql!("audit/page_of_subject_after"),
        (Some(Narrowest::Subject), Descending) => sql!("audit/page_of_subject_before"),
        (Some(Narrowest::Actor), Ascending) => sql!("audit/page_of_actor_after"),
        (Some(Narrowest::Actor), Descending) => sql!("audit/page_of_actor_before"),
        (Some(Narrowest::Module), Ascending) => sql!("audit/page_of_module_after"),
        (Some(Narrowest::Module), Descending) => sql!("audit/page_of_module_before"),
        (None, Ascending) => sql!("audit/page_after"),
        (None, Descending) => sql!("audit/page_before"),
    };
    let params = filter_params!(filter, ":audit_id": id, ":limit": limit);
    reader.list(query, params, |row| row.try_into())
}

/// How many entries match a filter; `limit` are counted at most.
pub(super) fn count_matching(reader: &Reader<'_>, filter: &EntryFilter, limit: u32) -> Result<u32> {
    let query = match filter.narrowest() {
        Some(Narrowest::Subject) => sql!("audit/count_of_subject"),
        Some(Narrowest::Actor) => sql!("audit/count_of_actor"),
        Some(Narrowest::Module) => sql!("audit/count_of_module"),
        None => sql!("audit/count_matching"),
    };
    let params = filter_params!(filter, ":limit": limit);
    reader.one(query, params, |row| row.get(0))
}

pub(super) fn entries_about(
    reader: &Reader<'_>,
    module: &str,
    subject: &str,
    limit: u32,
) -> Result<Vec<Entry>> {
    let params = named_params! {
        ":subject": subject,
        // `/` follows the dot in ASCII.
        ":action_from": format!("{module}."),
        ":action_to": format!("{module}/"),
        ":limit": limit,
    };
    reader.list(sql!("audit/of_subject"), params, |row| row.try_into())
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
