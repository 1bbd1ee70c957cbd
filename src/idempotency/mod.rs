//! Idempotent requests: a program that did not receive a response repeats the request with the same
//! `Idempotency-Key` and gets the stored first response.

mod store;

use std::time::Duration;

use crate::clock::UnixMs;
use crate::db::Tx;
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
    /// When the request arrived.
    pub at: UnixMs,
}

/// A response, and the session that it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The JSON body.
    pub answer: String,
    /// The session of a start; `None` for an activation.
    pub session_id: Option<SessionId>,
}

/// The outcome of [`once`].
#[derive(Clone, Debug)]
pub enum Once<T> {
    /// The operation ran; its result.
    First(T),
    /// The same request was answered before, with this response.
    Repeated(StoredResponse),
}

/// Runs `operation` once for all requests with the same key. It returns its result, and the response to be stored, if
/// any. If a response is stored already and `applies`, the operation does not run; a response that does not apply any
/// more is replaced. Without a key, the operation always runs. Responses without a session apply for [`RETENTION`].
pub fn once<T>(
    tx: &Tx<'_>,
    request: Option<&RequestKey<'_>>,
    applies: impl FnOnce(&StoredResponse) -> bool,
    operation: impl FnOnce() -> Result<(T, Option<StoredResponse>)>,
) -> Result<Once<T>> {
    let Some(request) = request else {
        return Ok(Once::First(operation()?.0));
    };
    let stored = store::find(tx, request, request.at.minus(RETENTION))?;
    if let Some(stored) = stored.filter(applies) {
        return Ok(Once::Repeated(stored));
    }
    let (result, response) = operation()?;
    if let Some(response) = response {
        store::save(tx, request, &response)?;
    }
    Ok(Once::First(result))
}

/// Deletes at most `limit` responses: of activations older than [`RETENTION`], and of sessions that have ended.
pub fn purge(tx: &Tx<'_>, now: UnixMs, limit: u32) -> Result<usize> {
    store::purge(tx, now.minus(RETENTION), limit)
}

impl IdempotentOperation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Start => "start",
        }
    }
}
