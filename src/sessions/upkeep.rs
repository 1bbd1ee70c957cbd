//! What jobs and a restore do with sessions: write their heartbeats to the database, and end them without a request.

use std::sync::Arc;

use super::{move_to_history, store};
use crate::clock::{Now, UnixMs};
use crate::db::{Db, Tx};
use crate::devices;
use crate::error::Result;
use crate::id::SessionId;
use crate::live_sessions::{LiveNow, LiveSessions};
use crate::session_history::{self, EndReason};

/// Sessions that a sweep checks in one transaction; other writes wait meanwhile.
const SWEEP_BATCH: u32 = 500;
/// Heartbeats written in one transaction.
const FLUSH_BATCH: usize = 2000;

/// Writes to the database which heartbeats arrived and which devices were verified since the last flush.
///
/// # Errors
/// If the write fails; the next flush tries again.
pub async fn flush(db: &Db, live: &Arc<LiveSessions>) -> Result<()> {
    loop {
        let heartbeats = live.take_unsaved(FLUSH_BATCH);
        let devices_seen = live.take_devices_seen(FLUSH_BATCH);
        if heartbeats.is_empty() && devices_seen.is_empty() {
            return Ok(());
        }
        let (unwritten_heartbeats, unwritten_devices) = (heartbeats.clone(), devices_seen.clone());
        let written = db
            .write("sessions.flush", move |tx| {
                devices::mark_seen(tx, &devices_seen)?;
                heartbeats
                    .iter()
                    .try_for_each(|heartbeat| store::save_heartbeat(tx, heartbeat))
            })
            .await;
        if let Err(error) = written {
            live.put_back_unsaved(&unwritten_heartbeats);
            for (device, at) in unwritten_devices {
                live.mark_device_seen(device, at);
            }
            return Err(error);
        }
    }
}

/// Ends every session that has timed out or whose license is no longer usable. Returns how many.
///
/// # Errors
/// If a write fails; sessions that were already ended stay ended.
pub async fn sweep(db: &Db, live: &Arc<LiveSessions>, now: Now) -> Result<usize> {
    let mut ended = 0;
    loop {
        let live = live.clone();
        let end_batch = move |tx: &Tx<'_>| end_with_unusable_license(tx, live.at(now));
        let ended_in_batch = db.write("sessions.sweep", end_batch).await?;
        ended += ended_in_batch;
        if ended_in_batch < SWEEP_BATCH as usize {
            break;
        }
    }
    let mut next_after = Some(SessionId(0));
    while let Some(after) = next_after {
        let live = live.clone();
        let end_batch = move |tx: &Tx<'_>| end_timed_out(tx, live.at(now), after);
        let (last_checked, ended_in_batch) = db.write("sessions.sweep", end_batch).await?;
        ended += ended_in_batch;
        next_after = last_checked;
    }
    live.evict(now.tick);
    Ok(ended)
}

/// Ends a batch of sessions whose licenses are not usable. Returns how many.
fn end_with_unusable_license(tx: &Tx<'_>, live: LiveNow<'_>) -> Result<usize> {
    let sessions = store::with_unusable_license(tx, live.now.wall, SWEEP_BATCH)?;
    for session in &sessions {
        move_to_history(tx, live, session, EndReason::Forced)?;
    }
    Ok(sessions.len())
}

/// Ends those of a batch of sessions that have timed out. Returns the last session of the batch, if there may be more
/// batches, and how many ended.
fn end_timed_out(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    after: SessionId,
) -> Result<(Option<SessionId>, usize)> {
    let candidates = store::maybe_timed_out(tx, after, live.now.wall, SWEEP_BATCH)?;
    let mut ended = 0;
    for session in &candidates {
        // The query is only a first selection: the database may lag, and dates may be wrong. The monotonic clock
        // decides.
        let stored = session.stored_heartbeat();
        let last_heartbeat = live
            .sessions
            .last_heartbeat_and_invalidate_if_timed_out(&stored, live.now.tick);
        if last_heartbeat.timed_out(live.now.tick) {
            move_to_history(tx, live, session, EndReason::Timeout)?;
            ended += 1;
        }
    }
    let may_be_more = candidates.len() >= SWEEP_BATCH as usize;
    let last = candidates.last().filter(|_| may_be_more);
    Ok((last.map(|session| session.id), ended))
}

/// Ends every session of a restored database and returns how many. What became of them after the backup is unknown, and
/// their licenses may be in use elsewhere by now.
pub fn end_all(tx: &Tx<'_>, now: UnixMs) -> Result<usize> {
    let mut ended = 0;
    loop {
        let sessions = store::first(tx, SWEEP_BATCH)?;
        if sessions.is_empty() {
            return Ok(ended);
        }
        for session in &sessions {
            store::remove(tx, session.id)?;
            let ended_at = now.max(session.last_heartbeat_at);
            let entry = session.history_entry_as_stored(ended_at, EndReason::Forced);
            session_history::add(tx, &entry)?;
        }
        ended += sessions.len();
    }
}
