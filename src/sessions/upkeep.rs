//! What jobs and a restore do with sessions: write their heartbeats to the database, and end them without a request.

use std::collections::VecDeque;
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
/// Heartbeats written in one transaction; other writes wait meanwhile.
const FLUSH_BATCH: usize = 2000;

/// Writes to the database which heartbeats arrived since the last flush, in the order of their rows: rows that share a
/// page are written together.
///
/// # Errors
/// If a write fails; the next flush tries again with what was not written.
pub async fn flush_heartbeats(db: &Db, live: &LiveSessions) -> Result<()> {
    let heartbeats = Unwritten {
        rest: live.take_unsaved().into(),
        put_back: |rest| live.put_back_unsaved(rest),
    };
    let heartbeats = heartbeats.write(db, |tx, batch| {
        batch
            .iter()
            .try_for_each(|heartbeat| store::save_heartbeat(tx, heartbeat))
    });
    heartbeats.await
}

/// Writes to the database which devices were seen since the last flush, in the order of their rows.
///
/// # Errors
/// If a write fails; the next flush tries again with what was not written.
pub async fn flush_devices_seen(db: &Db, live: &LiveSessions) -> Result<()> {
    let devices = Unwritten {
        rest: live.take_devices_seen().into(),
        put_back: |rest| live.put_back_devices_seen(rest),
    };
    devices.write(db, devices::mark_seen).await
}

/// What was taken from memory to be written. What is not written when this is dropped is put back: after a failed write,
/// and when the job is stopped, so that the last flush finds it.
struct Unwritten<T, P: Fn(&[T])> {
    rest: VecDeque<T>,
    put_back: P,
}

impl<T: Copy + Send + 'static, P: Fn(&[T])> Unwritten<T, P> {
    /// Writes all of it with `write`, [`FLUSH_BATCH`] in one transaction.
    async fn write(mut self, db: &Db, write: fn(&Tx<'_>, &[T]) -> Result<()>) -> Result<()> {
        while !self.rest.is_empty() {
            let batch: Vec<T> = self.rest.iter().take(FLUSH_BATCH).copied().collect();
            let count = batch.len();
            db.write("sessions.flush", move |tx| write(tx, &batch))
                .await?;
            self.rest.drain(..count);
        }
        Ok(())
    }
}

impl<T, P: Fn(&[T])> Drop for Unwritten<T, P> {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            (self.put_back)(self.rest.make_contiguous());
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
            store::remove(tx, session)?;
            let ended_at = now.max(session.last_heartbeat_at);
            let entry = session.history_entry_as_stored(ended_at, EndReason::Forced);
            session_history::add(tx, &entry)?;
        }
        ended += sessions.len();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;
    use crate::clock::{Pauses, Tick};
    use crate::db::Options;
    use crate::id::{DeviceId, ProductId, SessionToken};
    use crate::licenses::LicenseKey;
    use crate::live_sessions::{LastHeartbeat, LiveSession};
    use crate::version::Version;

    const NOON: UnixMs = UnixMs(1_800_000_000_000);
    /// More than two transactions take.
    const MANY: i64 = 5000;

    fn token(id: i64) -> SessionToken {
        SessionToken::from_bytes(i128::from(id).to_be_bytes())
    }

    fn with_unwritten() -> Arc<LiveSessions> {
        let live = Arc::new(LiveSessions::new(NOON, Pauses::default()));
        let key = LicenseKey::new().unwrap();
        let now = Now {
            wall: NOON,
            tick: Tick::START,
            awake: Duration::ZERO,
        };
        for id in (1..=MANY).rev() {
            let session = LiveSession {
                session_id: SessionId(id),
                product: ProductId::FIRST,
                license_key: key,
                valid_until: None,
                version: Version::new(1, 0, 0),
                updates_until: None,
                last_heartbeat: LastHeartbeat::now(now, 60),
                generation: 1,
                unsaved: true,
            };
            live.insert(token(id), session);
            live.at(now).mark_device_seen(DeviceId(id));
        }
        live
    }

    /// The numbers of the heartbeats and devices that are not written, in the order in which they would be.
    fn unwritten(live: &LiveSessions) -> (Vec<i64>, Vec<i64>) {
        let heartbeats = live.take_unsaved();
        let devices = live.take_devices_seen();
        live.put_back_unsaved(&heartbeats);
        live.put_back_devices_seen(&devices);
        (
            heartbeats
                .iter()
                .map(|heartbeat| heartbeat.session_id.0)
                .collect(),
            devices.iter().map(|(device, _)| device.0).collect(),
        )
    }

    #[test]
    fn a_flush_that_fails_or_is_stopped_leaves_the_rest_for_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::in_folder(dir.path());
        let db = Db::open_as_server(&options).unwrap();
        let all: Vec<i64> = (1..=MANY).collect();
        let live = with_unwritten();
        assert_eq!(unwritten(&live), (all.clone(), all.clone()));
        {
            let mut heartbeats = pin!(flush_heartbeats(&db, &live));
            let mut devices = pin!(flush_devices_seen(&db, &live));
            let mut context = Context::from_waker(Waker::noop());
            assert!(heartbeats.as_mut().poll(&mut context).is_pending());
            assert!(devices.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(unwritten(&live), (all.clone(), all.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(flush_heartbeats(&db, &live)).unwrap();
        runtime.block_on(flush_devices_seen(&db, &live)).unwrap();
        assert_eq!(unwritten(&live), (Vec::new(), Vec::new()));
        let live = with_unwritten();
        db.close(Duration::from_secs(10));
        runtime.block_on(flush_heartbeats(&db, &live)).unwrap_err();
        runtime
            .block_on(flush_devices_seen(&db, &live))
            .unwrap_err();
        assert_eq!(unwritten(&live), (all.clone(), all));
    }
}
