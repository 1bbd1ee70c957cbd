//! Accepts heartbeats: from memory if possible, otherwise after a check against the database.

use super::{
    Credentials, HeartbeatAccepted, Owner, Refusal, StoredSession, accept_heartbeat, live_session,
    move_to_history, refusal_if_not_running, store,
};
use crate::db::{Db, Reader, Tx};
use crate::error::{Error, Result};
use crate::licenses::{self, License};
use crate::live_sessions::{LastHeartbeat, LiveNow};
use crate::products::ProgramSettings;
use crate::session_history::EndReason;

/// Accepts a heartbeat: from memory if possible, otherwise after a check against the database.
///
/// # Errors
/// [`licenses::Refusal`], [`Refusal::NotFound`], [`Refusal::Ended`].
pub async fn heartbeat(
    db: &Db,
    live: LiveNow<'_>,
    settings: &ProgramSettings,
    credentials: Credentials,
) -> Result<HeartbeatAccepted> {
    let now = live.now;
    let timeout_s = settings.config.session_timeout;
    let from_memory = live
        .sessions
        .try_heartbeat(&credentials, now, db.generation(), timeout_s);
    if let Some(accepted) = from_memory {
        return Ok(accepted);
    }
    let sessions = live.sessions.clone();
    // Most heartbeats that memory does not accept are valid nevertheless. The check needs no transaction, so it works
    // even if the disk is full; only ending a session needs one.
    let accepted = db.read_on_writer("sessions.heartbeat_read_only", move |reader| {
        accept_read_only(reader, sessions.at(now), credentials, timeout_s)
    });
    if let Some(accepted) = accepted.await? {
        return Ok(accepted);
    }
    let sessions = live.sessions.clone();
    let outcome = db.write("sessions.heartbeat", move |tx| {
        accept_or_end(tx, sessions.at(now), credentials, timeout_s)
    });
    outcome.await?.into_result()
}

/// Accepts a heartbeat inside a transaction that does more.
///
/// # Errors
/// As [`heartbeat`].
pub fn heartbeat_in_tx(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    settings: &ProgramSettings,
    credentials: Credentials,
) -> Result<HeartbeatAccepted> {
    accept_or_end(tx, live, credentials, settings.config.session_timeout)?.into_result()
}

/// The result of checking a heartbeat against the database, unless it is refused without ending a session.
enum HeartbeatCheck {
    Valid(StoredSession, License),
    /// The session must be ended for this reason, and its heartbeat refused with this error.
    MustEnd(StoredSession, EndReason, Error),
}

/// The outcome of a transaction with a heartbeat.
enum HeartbeatOutcome {
    Accepted(HeartbeatAccepted),
    /// The heartbeat is refused with this error, and its session was ended, which must be committed.
    Ended(Error),
}

impl HeartbeatOutcome {
    fn into_result(self) -> Result<HeartbeatAccepted> {
        match self {
            Self::Accepted(accepted) => Ok(accepted),
            Self::Ended(refusal) => Err(refusal),
        }
    }
}

/// Accepts a heartbeat without writing. `None` if the session must be ended, which needs a transaction.
fn accept_read_only(
    reader: &Reader<'_>,
    live: LiveNow<'_>,
    credentials: Credentials,
    timeout_s: u32,
) -> Result<Option<HeartbeatAccepted>> {
    match check(reader, live, credentials)? {
        HeartbeatCheck::Valid(session, license) => {
            let last_heartbeat = LastHeartbeat::now(live.now, timeout_s);
            let live_session = live_session(reader, &session, &license, last_heartbeat);
            let accepted = live_session.accepted();
            live.sessions.insert(session.token, live_session);
            Ok(Some(accepted))
        }
        HeartbeatCheck::MustEnd(..) => Ok(None),
    }
}

/// Accepts a heartbeat in a transaction, or ends its session.
fn accept_or_end(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    credentials: Credentials,
    timeout_s: u32,
) -> Result<HeartbeatOutcome> {
    match check(tx, live, credentials)? {
        HeartbeatCheck::Valid(session, license) => {
            let last_heartbeat = LastHeartbeat::now(live.now, timeout_s);
            let live_session = live_session(tx, &session, &license, last_heartbeat);
            let accepted = live_session.accepted();
            accept_heartbeat(tx, live, session.token, live_session);
            Ok(HeartbeatOutcome::Accepted(accepted))
        }
        HeartbeatCheck::MustEnd(session, reason, refusal) => {
            move_to_history(tx, live, &session, reason)?;
            Ok(HeartbeatOutcome::Ended(refusal))
        }
    }
}

/// Checks a heartbeat against the database.
fn check(
    reader: &Reader<'_>,
    live: LiveNow<'_>,
    credentials: Credentials,
) -> Result<HeartbeatCheck> {
    let Credentials {
        product,
        token,
        key,
    } = credentials;
    let now = live.now;
    // The license is looked up first, so that the response takes as long for one of another product as for an unknown one.
    let license = licenses::by_key(reader, product, &key)?.ok_or(licenses::Refusal::NotFound)?;
    let found = store::by_token(reader, &token)?;
    let matching = found.filter(|session| session.license_id == license.id);
    let timed_out = |session: &StoredSession| {
        let last_heartbeat = live
            .sessions
            .last_heartbeat_and_invalidate_if_timed_out(&session.stored_heartbeat(), now.tick);
        last_heartbeat.timed_out(now.tick)
    };
    match (licenses::check_usable(&license, now.wall), matching) {
        (Err(refusal), None) => Err(refusal.into()),
        (Err(refusal), Some(session)) => {
            let reason = EndReason::Forced;
            Ok(HeartbeatCheck::MustEnd(session, reason, refusal.into()))
        }
        (Ok(()), None) => {
            Err(refusal_if_not_running(reader, &token, Owner::License(license.id))?.into())
        }
        (Ok(()), Some(session)) if timed_out(&session) => {
            let reason = EndReason::Timeout;
            Ok(HeartbeatCheck::MustEnd(
                session,
                reason,
                Refusal::Ended(reason).into(),
            ))
        }
        (Ok(()), Some(session)) => Ok(HeartbeatCheck::Valid(session, license)),
    }
}
