//! Sessions: one running copy of a licensed program, kept alive by heartbeats.

pub mod cli;
pub mod client;
mod heartbeat;
mod listing;
pub mod panel;
mod rules;
mod start;
mod store;
mod upkeep;

pub use crate::live_sessions::{Credentials, GivenKey};
pub use heartbeat::{HeartbeatAccepted, heartbeat, heartbeat_in_tx};
pub use listing::{
    ListQuery, ListRow, LivenessCutoff, Order, SessionSpan, count, live_count, page, running,
    running_by_id, running_on, spans,
};
pub use rules::Refusal;
pub use start::{StartRequest, Started, start, start_once};
pub use upkeep::{end_all, flush, sweep};

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Error, Result};
use crate::id::{DeviceId, LicenseId, SessionId, SessionToken};
use crate::licenses::{self, License};
use crate::live_sessions::{LastHeartbeat, LiveNow, LiveSession, StoredHeartbeat};
use crate::security::rate_limit::LookupResult;
use crate::session_history::{self, EndReason, HistoryEntry};
use crate::version::Version;

/// A row of `active_sessions`.
#[derive(Clone, Debug)]
pub(super) struct Row {
    id: SessionId,
    token: SessionToken,
    license_id: LicenseId,
    device_id: DeviceId,
    hardware_id: String,
    machine_id: String,
    version: Version,
    address: String,
    started_at: UnixMs,
    last_heartbeat_at: UnixMs,
    timeout_s: u32,
}

impl Row {
    /// Its row of the history if it ends after `last_heartbeat`.
    fn ended(
        &self,
        last_heartbeat: &LastHeartbeat,
        reason: EndReason,
        now: UnixMs,
    ) -> HistoryEntry<'_> {
        let ended_at = if reason == EndReason::Timeout {
            last_heartbeat.times_out_at()
        } else {
            now
        };
        HistoryEntry {
            last_heartbeat_at: last_heartbeat.last_at,
            ..self.history_entry(ended_at, reason)
        }
    }

    /// Its last heartbeat as far as the database knows.
    fn stored_heartbeat(&self) -> StoredHeartbeat {
        StoredHeartbeat {
            token: self.token,
            started_at: self.started_at,
            last_heartbeat_at: self.last_heartbeat_at,
            timeout_s: self.timeout_s,
        }
    }

    /// Its row of the history if it ends now, as far as the database knows.
    fn history_entry(&self, ended_at: UnixMs, reason: EndReason) -> HistoryEntry<'_> {
        HistoryEntry {
            id: self.id,
            token: self.token,
            license_id: self.license_id,
            hardware_id: &self.hardware_id,
            machine_id: &self.machine_id,
            version: self.version,
            address: &self.address,
            started_at: self.started_at,
            last_heartbeat_at: self.last_heartbeat_at,
            ended_at,
            reason,
        }
    }
}

fn live_session(
    reader: &Reader<'_>,
    session: &Row,
    license: &License,
    last_heartbeat: LastHeartbeat,
) -> LiveSession {
    LiveSession {
        session_id: session.id,
        license_key: license.key,
        valid_until: license.valid_until,
        version: session.version,
        last_heartbeat,
        generation: reader.generation(),
        unsaved: true,
    }
}

/// Accepts a heartbeat that was just checked against the database.
fn accept_heartbeat(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    token: SessionToken,
    live_session: LiveSession,
) {
    let live = live.sessions.clone();
    live.insert_unconfirmed(token, live_session.clone());
    tx.after_commit(move || live.insert(token, live_session));
}

/// Prepares the end of a session: from now on its heartbeats go through the database, and the commit removes it
/// from memory. Returns its last heartbeat.
fn remove_from_live(tx: &Tx<'_>, live: LiveNow<'_>, session: &Row) -> LastHeartbeat {
    let last_heartbeat = live.sessions.invalidate(&session.stored_heartbeat());
    let (live, token) = (live.sessions.clone(), session.token);
    tx.after_commit(move || live.forget(&token));
    last_heartbeat
}

/// Ends a session: moves it to the history and returns how it ended.
fn finish(tx: &Tx<'_>, live: LiveNow<'_>, session: &Row, reason: EndReason) -> Result<EndReason> {
    let last_heartbeat = remove_from_live(tx, live, session);
    let reason = if last_heartbeat.timed_out(live.now.tick) {
        EndReason::Timeout
    } else {
        reason
    };
    store::remove(tx, session.id)?;
    session_history::add(tx, &session.ended(&last_heartbeat, reason, live.now.wall))?;
    Ok(reason)
}

/// Looks up whether the token and key of a request are known, so that the request is served although its address is
/// over a limit. After a restore a session may be unknown; then a known license key counts.
pub fn look_up_caller(
    reader: &Reader<'_>,
    token: &SessionToken,
    key: &GivenKey,
) -> Result<LookupResult> {
    let license_id = match key {
        GivenKey::None => None,
        GivenKey::Sent(key) => {
            let license = key.as_ref().map(|key| licenses::by_key(reader, key));
            match license.transpose()?.flatten() {
                Some(license) => Some(license.id),
                None => return Ok(LookupResult::Unknown),
            }
        }
    };
    let matches = |of: LicenseId| license_id.is_none_or(|license_id| license_id == of);
    let running = store::by_token(reader, token)?;
    let runs = running.is_some_and(|session| matches(session.license_id));
    Ok(
        if runs || refusal_for_missing(reader, token, license_id)? != Refusal::NotFound {
            LookupResult::Own
        } else if license_id.is_some() {
            LookupResult::License
        } else {
            LookupResult::Unknown
        },
    )
}

/// The refusal for a token without a running session: ended or unknown.
fn refusal_for_missing(
    reader: &Reader<'_>,
    token: &SessionToken,
    license_id: Option<LicenseId>,
) -> Result<Refusal> {
    let ended = session_history::by_token(reader, token)?;
    let matching = ended.filter(|(of, _)| license_id.is_none_or(|license_id| license_id == *of));
    Ok(matching.map_or(Refusal::NotFound, |(_, reason)| Refusal::Ended(reason)))
}

/// Ends a session for its program. If it has ended already, returns how.
///
/// # Errors
/// [`licenses::Refusal::NotFound`] if the key is unknown, [`Refusal::NotFound`].
pub fn end(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    token: &SessionToken,
    key: &GivenKey,
) -> Result<EndReason> {
    let found = store::by_token(tx, token)?;
    let license_id = match key {
        GivenKey::None => None,
        GivenKey::Sent(key) => {
            let license = key
                .as_ref()
                .map(|key| licenses::by_key(tx, key))
                .transpose()?
                .flatten();
            Some(license.ok_or(licenses::Refusal::NotFound)?.id)
        }
    };
    match found.filter(|session| license_id.is_none_or(|id| id == session.license_id)) {
        Some(session) => finish(tx, live, &session, EndReason::Normal),
        None => match refusal_for_missing(tx, token, license_id)? {
            Refusal::Ended(reason) => Ok(reason),
            refusal => Err(refusal.into()),
        },
    }
}

/// Ends the session that runs on a device, if any.
pub fn end_on_device(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    device_id: DeviceId,
    reason: EndReason,
) -> Result<()> {
    if let Some(session) = store::by_device(tx, device_id)? {
        finish(tx, live, &session, reason)?;
    }
    Ok(())
}

/// The device of the session on a license; also of one that has timed out and awaits the sweep.
pub fn device_of_session(reader: &Reader<'_>, license_id: LicenseId) -> Result<Option<DeviceId>> {
    Ok(store::by_license(reader, license_id)?.map(|session| session.device_id))
}

/// Ends a session for an administrator and returns how it ended: as a timeout if it had timed out.
///
/// # Errors
/// [`Error::NotFound`] if it does not run.
pub fn terminate(act: &Act<'_>, live: LiveNow<'_>, id: SessionId) -> Result<EndReason> {
    let session = store::by_id(act.tx, id)?;
    let session = session.ok_or_else(|| Error::not_found("running session", id))?;
    let reason = finish(act.tx, live, &session, EndReason::Forced)?;
    let subject = id.to_string();
    let before = json!({ "license": session.license_id, "machine_id": session.machine_id });
    act.changed(&Change {
        action: "sessions.terminate",
        subject: &subject,
        before,
        after: Value::Null,
    })?;
    Ok(reason)
}

/// Whether a session runs on a license, on any device.
pub fn is_running_on(reader: &Reader<'_>, live: LiveNow<'_>, id: LicenseId) -> Result<bool> {
    let session = store::by_license(reader, id)?;
    let timed_out = |row: &Row| {
        let last_heartbeat = live.sessions.last_heartbeat(&row.stored_heartbeat());
        last_heartbeat.timed_out(live.now.tick)
    };
    Ok(session.is_some_and(|row| !timed_out(&row)))
}

/// When a session last sent a heartbeat or ended; `None` without any session.
pub fn latest(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    store::latest(reader)
}
