//! The SQL calls for the single row of `server_state`.

use rusqlite::named_params;

use super::{ProxyProblems, ServerState};
use crate::clock::UnixMs;
use crate::config::Language;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::sql;

pub(super) fn load(reader: &Reader<'_>) -> Result<ServerState> {
    reader.one(sql!("server_state/load"), [], |row| {
        Ok(ServerState {
            started_at: row.get("started_at_ms")?,
            high_water: row.get("high_water_ms")?,
        })
    })
}

pub(super) fn proxies(reader: &Reader<'_>) -> Result<ProxyProblems> {
    reader.one(sql!("server_state/proxies"), [], |row| {
        Ok(ProxyProblems {
            unnamed: row.get("unnamed_proxy")?,
            untrusted: row.get("untrusted_proxy")?,
        })
    })
}

pub(super) fn note_proxies(tx: &Tx<'_>, seen: &ProxyProblems) -> Result<()> {
    let params = named_params! { ":unnamed": seen.unnamed, ":untrusted": seen.untrusted };
    tx.run(sql!("server_state/note_proxies"), params).map(drop)
}

pub(super) fn begin(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    tx.run(sql!("server_state/begin"), named_params! { ":now_ms": now })
        .map(drop)
}

pub(super) fn advance(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    tx.run(
        sql!("server_state/advance"),
        named_params! { ":now_ms": now },
    )
    .map(drop)
}

pub(super) fn reset_clock(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    tx.run(
        sql!("server_state/reset_clock"),
        named_params! { ":now_ms": now },
    )
    .map(drop)
}

pub(super) fn default_language(reader: &Reader<'_>) -> Result<Option<Language>> {
    reader.one(sql!("server_state/default_language"), [], |row| {
        let tag: Option<String> = row.get("default_language")?;
        Ok(tag.as_deref().and_then(Language::from_tag))
    })
}

pub(super) fn set_default_language(tx: &Tx<'_>, language: Language) -> Result<()> {
    tx.run(
        sql!("server_state/set_default_language"),
        named_params! { ":language": language.tag() },
    )
    .map(drop)
}
