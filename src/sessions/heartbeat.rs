//! Heartbeats: accepted from memory if possible, otherwise checked against the database.

use super::{
    Credentials, Refusal, Row, accept_heartbeat, finish, live_session, refusal_for_missing, store,
};
use crate::db::{Db, Reader, Tx};
use crate::error::{Error, Result};
use crate::licenses::{self, License};
use crate::live_sessions::{LastHeartbeat, LiveNow};
use crate::products::ProgramSettings;
use crate::session_history::EndReason;
use crate::version::Version;

/// What the response to a heartbeat is made from.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatAccepted {
    /// The program version that started the session.
    pub version: Version,
}

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
    if let Some(version) = from_memory {
        return Ok(HeartbeatAccepted { version });
    }
    let sessions = live.sessions.clone();
    let accepted = db.read_on_writer("sessions.recognise", move |reader| {
        accept_on_reader(reader, sessions.at(now), credentials, timeout_s)
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

/// The result of checking a heartbeat against the database, unless it is refused outright.
enum Validated {
    Valid(Row, License),
    /// The session still runs, but must be ended before the heartbeat is refused.
    MustEnd(Row, EndReason, Error),
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

/// Accepts a heartbeat after a read-only check. `None` if the session must be ended, which needs a transaction.
fn accept_on_reader(
    reader: &Reader<'_>,
    live: LiveNow<'_>,
    credentials: Credentials,
    timeout_s: u32,
) -> Result<Option<HeartbeatAccepted>> {
    match validate(reader, live, credentials)? {
        Validated::Valid(session, license) => {
            let version = session.version;
            let last_heartbeat = LastHeartbeat::now(live.now, timeout_s);
            let live_session = live_session(reader, &session, &license, last_heartbeat);
            live.sessions.insert(session.token, live_session);
            Ok(Some(HeartbeatAccepted { version }))
        }
        Validated::MustEnd(..) => Ok(None),
    }
}

/// Accepts a heartbeat in a transaction, or ends its session.
fn accept_or_end(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    credentials: Credentials,
    timeout_s: u32,
) -> Result<HeartbeatOutcome> {
    match validate(tx, live, credentials)? {
        Validated::Valid(session, license) => {
            let version = session.version;
            let last_heartbeat = LastHeartbeat::now(live.now, timeout_s);
            let live_session = live_session(tx, &session, &license, last_heartbeat);
            accept_heartbeat(tx, live, session.token, live_session);
            Ok(HeartbeatOutcome::Accepted(HeartbeatAccepted { version }))
        }
        Validated::MustEnd(session, reason, refusal) => {
            finish(tx, live, &session, reason)?;
            Ok(HeartbeatOutcome::Ended(refusal))
        }
    }
}

fn validate(reader: &Reader<'_>, live: LiveNow<'_>, credentials: Credentials) -> Result<Validated> {
    let Credentials { token, key } = credentials;
    let now = live.now;
    let found = store::by_token(reader, &token)?;
    let license = licenses::by_key(reader, &key)?.ok_or(licenses::Refusal::NotFound)?;
    let matching = found.filter(|session| session.license_id == license.id);
    let timed_out = |session: &Row| {
        let last_heartbeat = live.sessions.check(&session.stored_heartbeat(), now.tick);
        last_heartbeat.timed_out(now.tick)
    };
    match (licenses::check_usable(&license, now.wall), matching) {
        (Err(refusal), None) => Err(refusal.into()),
        (Err(refusal), Some(session)) => {
            let reason = EndReason::Forced;
            Ok(Validated::MustEnd(session, reason, refusal.into()))
        }
        (Ok(()), None) => Err(refusal_for_missing(reader, &token, Some(license.id))?.into()),
        (Ok(()), Some(session)) if timed_out(&session) => {
            let reason = EndReason::Timeout;
            Ok(Validated::MustEnd(
                session,
                reason,
                Refusal::Ended(reason).into(),
            ))
        }
        (Ok(()), Some(session)) => Ok(Validated::Valid(session, license)),
    }
}
