//! What the server remembers of its own life: since when it runs, and the latest date it has seen.

mod store;

use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;

/// What is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// When the server that runs, or ran last, started.
    pub started_at: UnixMs,
    /// The latest date that the file has seen.
    pub high_water: UnixMs,
}

/// What a running server has seen of proxies that are not set up as they must be; their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// A trusted one that did not say whom it spoke for.
    pub unnamed: Option<String>,
    /// One nearby that is not trusted.
    pub untrusted: Option<String>,
}

/// What the server that runs, or ran last, has seen of proxies.
pub fn proxies(reader: &Reader<'_>) -> Result<Proxies> {
    store::proxies(reader)
}

/// Adds to what was seen of proxies since the start.
pub fn note_proxies(tx: &Tx<'_>, seen: &Proxies) -> Result<()> {
    store::note_proxies(tx, seen)
}

/// What the file remembers.
pub fn load(reader: &Reader<'_>) -> Result<ServerState> {
    store::load(reader)
}

/// A server starts at `now`.
pub fn begin(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    store::begin(tx, now)
}

/// The file has seen `now`.
pub fn advance(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    store::advance(tx, now)
}

/// Takes the machine's word that it is `now`, though the file has seen later: for an operator whose clock
/// was wrong and has been set right.
pub fn reset_clock(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    store::reset_clock(tx, now)
}
