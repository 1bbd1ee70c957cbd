//! Idempotent requests: a program that did not receive a response repeats the request with the same
//! `Idempotency-Key` and gets the stored first response.

mod store;

use std::time::Duration;

use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::{LicenseId, SessionId};

/// How long the response to an activation is stored.
pub const RETENTION: Duration = Duration::from_hours(24);

/// An operation whose response is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdempotentOperation {
    /// Activates a device.
    Activate,
    /// Starts a session.
    Start,
}

/// Identifies a request: the same key from another device, or for another license, is another request.
#[derive(Clone, Copy, Debug)]
pub struct RequestKey<'a> {
    /// The license.
    pub license_id: LicenseId,
    /// The device's hardware id.
    pub hardware_id: &'a str,
    /// The operation.
    pub operation: IdempotentOperation,
    /// The `Idempotency-Key`: 1 to 64 visible characters, chosen by the program.
    pub key: &'a str,
}

/// A response, and the session that it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The JSON body.
    pub answer: String,
    /// The session of a start; `None` for an activation.
    pub session_id: Option<SessionId>,
}

/// The stored response, if it is not older than [`RETENTION`] or belongs to a session. The caller checks that the
/// session is still active.
pub fn find(
    reader: &Reader<'_>,
    request: &RequestKey<'_>,
    now: UnixMs,
) -> Result<Option<StoredResponse>> {
    store::find(reader, request, now.minus(RETENTION))
}

/// Stores `response`; it replaces an outdated one with the same key.
pub fn save(
    tx: &Tx<'_>,
    request: &RequestKey<'_>,
    response: &StoredResponse,
    now: UnixMs,
) -> Result<()> {
    store::save(tx, request, response, now)
}

/// Deletes at most `limit` responses: of activations older than [`RETENTION`], and of sessions that have ended.
pub fn purge(tx: &Tx<'_>, now: UnixMs, limit: u32) -> Result<usize> {
    store::purge(tx, now.minus(RETENTION), limit)
}

impl IdempotentOperation {
    const fn word(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Start => "start",
        }
    }
}
