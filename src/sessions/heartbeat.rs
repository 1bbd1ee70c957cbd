//! Heartbeats: accepted from memory if possible, otherwise checked against the database.

use std::sync::Arc;

use super::live::LastHeartbeat;
use super::{
    LiveSessions, Refusal, Row, accept_heartbeat, finish, live_session, refusal_for_missing, store,
};
use crate::clock::Now;
use crate::db::{Db, Reader, Tx};
use crate::error::{Error, Result};
use crate::id::SessionToken;
use crate::licenses::{self, License, LicenseKey};
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
    live: &Arc<LiveSessions>,
    settings: &ProgramSettings,
    credentials: (SessionToken, LicenseKey),
    now: Now,
) -> Result<HeartbeatAccepted> {
    let (token, key) = credentials;
    let timeout_s = settings.config.session_timeout;
    if let Some(version) = live.try_heartbeat(&token, &key, now, db.generation(), timeout_s) {
        return Ok(HeartbeatAccepted { version });
    }
    let last_heartbeat = LastHeartbeat::now(now, timeout_s);
    let live_for_read = live.clone();
    let accepted = db.read_on_writer("sessions.recognise", move |reader| {
        heartbeat_on_reader(reader, &live_for_read, credentials, last_heartbeat, now)
    });
    if let Some(accepted) = accepted.await? {
        return Ok(accepted);
    }
    let live = live.clone();
    db.write("sessions.heartbeat", move |tx| {
        heartbeat_or_end(tx, &live, credentials, last_heartbeat, now)
    })
    .await?
}

/// Accepts a heartbeat inside a transaction that does more.
///
/// # Errors
/// As [`heartbeat`].
pub fn heartbeat_in_tx(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    settings: &ProgramSettings,
    credentials: (SessionToken, LicenseKey),
    now: Now,
) -> Result<HeartbeatAccepted> {
    let last_heartbeat = LastHeartbeat::now(now, settings.config.session_timeout);
    heartbeat_or_end(tx, live, credentials, last_heartbeat, now)?
}

/// The result of checking a heartbeat against the database, unless it is refused outright.
enum Validated {
    Valid(Row, License),
    /// The session still runs, but must be ended before the heartbeat is refused.
    MustEnd(Row, EndReason, Error),
}

/// Accepts a heartbeat after a read-only check. `None` if the session must be ended, which needs a transaction.
fn heartbeat_on_reader(
    reader: &Reader<'_>,
    live: &Arc<LiveSessions>,
    credentials: (SessionToken, LicenseKey),
    last_heartbeat: LastHeartbeat,
    now: Now,
) -> Result<Option<HeartbeatAccepted>> {
    match validate(reader, live, credentials, now)? {
        Validated::Valid(session, license) => {
            let version = session.version;
            live.insert(
                session.token,
                live_session(reader, &session, &license, last_heartbeat),
            );
            Ok(Some(HeartbeatAccepted { version }))
        }
        Validated::MustEnd(..) => Ok(None),
    }
}

/// The same in a transaction, which may have to end the session. An outer error rolls back; an inner one is the
/// refusal after the end was written.
fn heartbeat_or_end(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    credentials: (SessionToken, LicenseKey),
    last_heartbeat: LastHeartbeat,
    now: Now,
) -> Result<Result<HeartbeatAccepted>> {
    match validate(tx, live, credentials, now)? {
        Validated::Valid(session, license) => {
            let version = session.version;
            accept_heartbeat(tx, live, &session, &license, last_heartbeat);
            Ok(Ok(HeartbeatAccepted { version }))
        }
        Validated::MustEnd(session, reason, refusal) => {
            finish(tx, live, &session, reason, now)?;
            Ok(Err(refusal))
        }
    }
}

fn validate(
    reader: &Reader<'_>,
    live: &LiveSessions,
    (token, key): (SessionToken, LicenseKey),
    now: Now,
) -> Result<Validated> {
    let found = store::by_token(reader, &token)?;
    let license = licenses::by_key(reader, &key)?.ok_or(licenses::Refusal::NotFound)?;
    let matching = found.filter(|session| session.license_id == license.id);
    match (licenses::check_usable(&license, now.wall), matching) {
        (Err(refusal), None) => Err(refusal.into()),
        (Err(refusal), Some(session)) => {
            let reason = EndReason::Forced;
            Ok(Validated::MustEnd(session, reason, refusal.into()))
        }
        (Ok(()), None) => Err(refusal_for_missing(reader, &token, Some(license.id))?.into()),
        (Ok(()), Some(session)) if live.check(&session, now.tick).timed_out(now.tick) => {
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
