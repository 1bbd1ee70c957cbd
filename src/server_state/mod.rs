//! The server's stored state: when it started, the latest date that it has seen, and problems with its proxies.

mod store;

use crate::clock::UnixMs;
use crate::config::Language;
use crate::db::{Reader, Tx};
use crate::error::Result;

/// Start and latest date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// When the running server, or the last one, started.
    pub started_at: UnixMs,
    /// The latest date that was stored in the database. The server's date never goes below it.
    pub high_water: UnixMs,
}

/// Addresses of misconfigured proxies that the running server has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyProblems {
    /// A trusted proxy that did not send the client's address.
    pub unnamed: Option<String>,
    /// A proxy in the same network that is not trusted.
    pub untrusted: Option<String>,
}

/// The proxy problems that the running server, or the last one, has seen.
pub fn proxies(reader: &Reader<'_>) -> Result<ProxyProblems> {
    store::proxies(reader)
}

/// Stores proxy problems; `None` leaves the stored address.
pub fn note_proxies(tx: &Tx<'_>, seen: &ProxyProblems) -> Result<()> {
    store::note_proxies(tx, seen)
}

/// Loads start and latest date.
pub fn load(reader: &Reader<'_>) -> Result<ServerState> {
    store::load(reader)
}

/// The language that was chosen at the set-up for callers whose own is neither German nor English.
pub fn default_language(reader: &Reader<'_>) -> Result<Option<Language>> {
    store::default_language(reader)
}

/// Stores that language.
pub fn set_default_language(tx: &Tx<'_>, language: Language) -> Result<()> {
    store::set_default_language(tx, language)
}

/// Stores that a server starts at `now`, and clears what the last one saw of proxies.
pub fn note_start(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    store::begin(tx, now)
}

/// Raises the latest date to `now`, if that is later.
pub fn advance(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    store::advance(tx, now)
}

/// Sets the latest date to `now`, even if it was later: for an operator who has corrected a system clock that was
/// ahead.
pub fn reset_clock(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    store::reset_clock(tx, now)
}
