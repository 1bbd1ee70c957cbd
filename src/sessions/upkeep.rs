//! The work of jobs and of a restore: writing heartbeats, and ending sessions without a request of their program.

use std::sync::Arc;

use super::{finish, store};
use crate::clock::{Now, UnixMs};
use crate::db::{Db, Tx};
use crate::devices;
use crate::error::Result;
use crate::id::SessionId;
use crate::live_sessions::{LiveNow, LiveSessions};
use crate::session_history::{self, EndReason};

/// Sessions that a sweep handles in one transaction; other writes wait meanwhile.
const SWEEP_PAGE: u32 = 500;
/// Heartbeats written in one transaction.
const FLUSH_PAGE: usize = 2000;
/// Writes the heartbeats and verifications since the last flush to the database.
///
/// # Errors
/// If the write fails; the next flush tries again.
pub async fn flush(db: &Db, live: &Arc<LiveSessions>) -> Result<()> {
    loop {
        let heartbeats = live.take_unsaved(FLUSH_PAGE);
        let devices_seen = live.take_devices_seen(FLUSH_PAGE);
        if heartbeats.is_empty() && devices_seen.is_empty() {
            return Ok(());
        }
        let (retry, devices_retry) = (heartbeats.clone(), devices_seen.clone());
        let written = db
            .write("sessions.flush", move |tx| {
                devices::mark_seen(tx, &devices_seen)?;
                heartbeats
                    .iter()
                    .try_for_each(|heartbeat| store::save_heartbeat(tx, heartbeat))
            })
            .await;
        if let Err(error) = written {
            live.put_back_unsaved(&retry);
            for (device, at) in devices_retry {
                live.mark_device_seen(device, at);
            }
            return Err(error);
        }
    }
}

/// Ends every session that has timed out, or whose license cannot be used any more. Returns how many.
///
/// # Errors
/// If a write fails; sessions that were already ended stay ended.
pub async fn sweep(db: &Db, live: &Arc<LiveSessions>, now: Now) -> Result<usize> {
    let mut ended = 0;
    loop {
        let live = live.clone();
        let end_page = move |tx: &Tx<'_>| end_out_of_use(tx, live.at(now));
        let ended_now = db.write("sessions.sweep", end_page).await?;
        ended += ended_now;
        if ended_now < SWEEP_PAGE as usize {
            break;
        }
    }
    let mut after = Some(SessionId(0));
    while let Some(from) = after {
        let live = live.clone();
        let end_page = move |tx: &Tx<'_>| end_timed_out(tx, live.at(now), from);
        let (last, ended_now) = db.write("sessions.sweep", end_page).await?;
        ended += ended_now;
        after = last;
    }
    live.evict(now.tick);
    Ok(ended)
}

/// Ends a page of sessions whose licenses cannot be used; returns how many.
fn end_out_of_use(tx: &Tx<'_>, live: LiveNow<'_>) -> Result<usize> {
    let sessions = store::out_of_use(tx, live.now.wall, SWEEP_PAGE)?;
    for session in &sessions {
        finish(tx, live, session, EndReason::Forced)?;
    }
    Ok(sessions.len())
}

/// Ends a page of sessions that have timed out. Returns the last session checked, if there may be more, and how many
/// ended.
fn end_timed_out(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    after: SessionId,
) -> Result<(Option<SessionId>, usize)> {
    let candidates = store::maybe_timed_out(tx, after, live.now.wall, SWEEP_PAGE)?;
    let mut ended = 0;
    for session in &candidates {
        // The database may lag, and wall-clock dates may be wrong: the monotonic clock decides.
        let stored = session.stored_heartbeat();
        let last_heartbeat = live.sessions.check(&stored, live.now.tick);
        if last_heartbeat.timed_out(live.now.tick) {
            finish(tx, live, session, EndReason::Timeout)?;
            ended += 1;
        }
    }
    let full = candidates.len() >= SWEEP_PAGE as usize;
    let last = candidates.last().filter(|_| full);
    Ok((last.map(|session| session.id), ended))
}

/// Ends every session of a restored database and returns how many: their state after the backup is unknown, and
/// their programs may run elsewhere by now.
pub fn end_all(tx: &Tx<'_>, now: UnixMs) -> Result<usize> {
    let mut ended = 0;
    loop {
        let sessions = store::first(tx, SWEEP_PAGE)?;
        if sessions.is_empty() {
            return Ok(ended);
        }
        for session in &sessions {
            let last_at = session.last_heartbeat_at;
            store::remove(tx, session.id)?;
            let entry = session.history_entry(now.max(last_at), EndReason::Forced);
            session_history::add(tx, &entry)?;
        }
        ended += sessions.len();
    }
}
