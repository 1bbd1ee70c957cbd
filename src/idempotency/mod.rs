//! First answers, given again: a program that lost one asks again with the same `Idempotency-Key`.

mod store;

use std::time::Duration;

use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::{LicenseId, SessionId};

/// How long the answer to an activation is kept.
pub const KEPT: Duration = Duration::from_hours(24);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdempotentOperation {
    /// A device slot.
    Activate,
    /// A session.
    Start,
}

/// Whose answer it is: the same key from another device, or for another license, is another one.
#[derive(Clone, Copy, Debug)]
pub struct RequestKey<'a> {
    /// The license.
    pub license_id: LicenseId,
    /// The device's fingerprint.
    pub hardware_id: &'a str,
    /// What was asked for.
    pub deed: IdempotentOperation,
    /// 1 to 64 visible characters, chosen by the program.
    pub key: &'a str,
}

/// The answer to a start, and the session that it is for; any session, for an activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// JSON.
    pub answer: String,
    /// The session of a start.
    pub session_id: Option<SessionId>,
}

/// The first answer, if there is one that is not older than [`KEPT`] or belongs to a session; whether
/// that still lives is for the asker to say.
pub fn find(
    reader: &Reader<'_>,
    asked: &RequestKey<'_>,
    now: UnixMs,
) -> Result<Option<StoredResponse>> {
    store::find(reader, asked, now.minus(KEPT))
}

/// Keeps `first` for later; it replaces one that is of no use any more.
pub fn keep(
    tx: &Tx<'_>,
    asked: &RequestKey<'_>,
    first: &StoredResponse,
    now: UnixMs,
) -> Result<()> {
    store::keep(tx, asked, first, now)
}

/// Forgets at most `limit` answers of activations that are old, and of sessions that are over.
pub fn forget(tx: &Tx<'_>, now: UnixMs, limit: u32) -> Result<usize> {
    store::forget(tx, now.minus(KEPT), limit)
}

impl IdempotentOperation {
    const fn word(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Start => "start",
        }
    }
}
