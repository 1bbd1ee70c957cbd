//! SQL calls: the handshake log, and known sources.

use rusqlite::named_params;

use super::{FinishedHandshake, LogEntry, Outcome};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx, unknown_value};
use crate::domain::Domain;
use crate::error::Result;
use crate::sql;

pub(super) fn last_handshake_at(reader: &Reader<'_>, domain: &Domain) -> Result<Option<UnixMs>> {
    let params = named_params! { ":domain": domain };
    reader.one(sql!("handshake/last_completed"), params, |row| row.get(0))
}

pub(super) fn insert_log_entry(tx: &Tx<'_>, finished: &FinishedHandshake) -> Result<i64> {
    let params = named_params! {
        ":at_ms": finished.at,
        ":domain": finished.domain,
        ":source": finished.source,
        ":license_id": finished.license,
        ":operation": finished.operation,
        ":outcome": finished.outcome.as_str(),
        ":reason": finished.reason,
    };
    tx.insert(sql!("handshake/insert_log_entry"), params)
}

pub(super) fn trim_log(tx: &Tx<'_>, up_to: i64) -> Result<()> {
    let params = named_params! { ":handshake_id": up_to };
    tx.run(sql!("handshake/trim_log"), params).map(drop)
}

pub(super) fn trim_log_of_domain(tx: &Tx<'_>, domain: &Domain, keep: u32) -> Result<()> {
    let params = named_params! { ":domain": domain, ":keep": keep };
    tx.run(sql!("handshake/trim_log_of_domain"), params)
        .map(drop)
}

pub(super) fn log_entries(
    reader: &Reader<'_>,
    domain: Option<&Domain>,
    limit: i64,
) -> Result<Vec<LogEntry>> {
    let params = named_params! { ":domain": domain, ":limit": limit };
    reader.list(sql!("handshake/log_entries"), params, |row| {
        let word: String = row.get("outcome")?;
        let outcome = Outcome::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == word);
        Ok(LogEntry {
            id: row.get("handshake_id")?,
            finished: FinishedHandshake {
                at: row.get("at_ms")?,
                domain: row.get("domain")?,
                source: row.get("source")?,
                license: row.get("license_id")?,
                operation: row.get("operation")?,
                outcome: outcome.ok_or_else(|| unknown_value("outcome of a handshake"))?,
                reason: row.get("reason")?,
            },
        })
    })
}

/// Whether `source` completed a handshake for `domain` at or after `since`.
pub(super) fn is_known_source(
    reader: &Reader<'_>,
    domain: &Domain,
    source: &str,
    since: UnixMs,
) -> Result<bool> {
    let params = named_params! { ":domain": domain, ":source": source, ":since_ms": since };
    reader.one(sql!("handshake/is_known_source"), params, |row| row.get(0))
}

pub(super) fn remember_source(
    tx: &Tx<'_>,
    domain: &Domain,
    source: &str,
    now: UnixMs,
) -> Result<()> {
    let params = named_params! { ":domain": domain, ":source": source, ":now_ms": now };
    tx.run(sql!("handshake/remember_source"), params).map(drop)
}

pub(super) fn trim_sources(tx: &Tx<'_>, domain: &Domain, keep: u32) -> Result<()> {
    let params = named_params! { ":domain": domain, ":keep": keep };
    tx.run(sql!("handshake/trim_sources"), params).map(drop)
}
