//! Idempotent requests: a program that may have lost a response repeats the request with the same `Idempotency-Key`,
//! and gets the response that was stored the first time.

mod store;

use std::time::Duration;

use crate::clock::UnixMs;
use crate::db::Tx;
use crate::error::Result;
use crate::id::{LicenseId, SessionId};

/// How long responses are stored; the response to the start of a session at least as long as the session runs.
pub const RETENTION: Duration = Duration::from_hours(24);

/// An operation whose response is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdempotentOperation {
    /// Activates a device.
    Activate,
    /// Starts a trial.
    Trial,
    /// Starts a session.
    Start,
}

/// What identifies a request: the same `Idempotency-Key` from another device, or for another license, is another
/// request.
#[derive(Clone, Copy, Debug)]
pub struct RequestKey<'a> {
    /// The license.
    pub license_id: LicenseId,
    /// The device's fingerprint.
    pub hardware_id: &'a str,
    /// The operation.
    pub operation: IdempotentOperation,
    /// The `Idempotency-Key`: 1 to 64 visible characters, chosen by the program.
    pub key: &'a str,
    /// When the request arrived; not part of its identity.
    pub at: UnixMs,
}

/// The response to a request, and the session that the request started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The JSON body.
    pub body: String,
    /// The session of a start; `None` for an activation or a trial.
    pub session_id: Option<SessionId>,
}

/// What [`run_once`] did.
#[derive(Clone, Debug)]
pub enum RunOnce<T> {
    /// It ran the operation, with this result.
    Ran(T),
    /// It found this response, which is stored from an earlier request.
    Repeated(StoredResponse),
}

/// Runs `operation` unless the response to an earlier request with the same key is stored and `still_applies`.
///
/// The operation returns its result and, if the request may be repeated, the response to store. That replaces a stored
/// response that no longer applies. Responses without a session no longer apply after [`RETENTION`]. Without a key, the
/// operation always runs and nothing is stored.
pub fn run_once<T>(
    tx: &Tx<'_>,
    request: Option<&RequestKey<'_>>,
    still_applies: impl FnOnce(&StoredResponse) -> bool,
    operation: impl FnOnce() -> Result<(T, Option<StoredResponse>)>,
) -> Result<RunOnce<T>> {
    let Some(request) = request else {
        let (result, _) = operation()?;
        return Ok(RunOnce::Ran(result));
    };
    let stored = store::find(tx, request, request.at.minus(RETENTION))?;
    if let Some(stored) = stored.filter(still_applies) {
        return Ok(RunOnce::Repeated(stored));
    }
    let (result, response) = operation()?;
    if let Some(response) = response {
        store::save(tx, request, &response)?;
    }
    Ok(RunOnce::Ran(result))
}

/// Deletes every response to requests for a license.
pub fn forget(tx: &Tx<'_>, license_id: LicenseId) -> Result<()> {
    store::forget(tx, license_id)
}

/// Deletes at most `limit` responses that are older than [`RETENTION`], except those to the start of a session that
/// still runs.
pub fn purge(tx: &Tx<'_>, now: UnixMs, limit: u32) -> Result<usize> {
    store::purge(tx, now.minus(RETENTION), limit)
}

impl IdempotentOperation {
    /// The word in the database.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Trial => "trial",
            Self::Start => "start",
        }
    }
}
