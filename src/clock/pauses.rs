//! Periods in which the process did not run: it was stopped by a signal, its container was paused, the machine was
//! suspended, or the disk did not answer. Heartbeats could not be received then, so such periods do not count
//! towards timeouts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Tick, UnixMs};

/// A gap of this length between two stamps of [`super::TrustedClock::detect_pauses`] is a pause. It is longer than a
/// thread waits on a busy machine, and not longer than the shortest session timeout.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The same for the writer thread, which may wait 3 s for a lock of another process; that is no stalled disk.
const STALL_MIN: Duration = Duration::from_secs(5);

/// A period in which the process did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// The last moment at which it ran for certain.
    pub began: Tick,
    /// The first moment at which it ran again.
    pub ended: Tick,
    /// The date of `ended`.
    pub ended_at: UnixMs,
    /// When the pause before this one ended.
    pub before: Tick,
    /// How long the process ran until the end of this pause, without all pauses.
    pub awake: Duration,
}

/// The latest pause, shared by the code that detects it and the code that times sessions out; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Arc<Mutex<Pause>>);

impl Pauses {
    /// The latest pause; of zero length at the start of the process if there was none.
    pub fn latest(&self) -> Pause {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the process did not run from `began` to `ended`; it ran for `awake` in all.
    pub(super) fn note(&self, began: Tick, ended: Tick, ended_at: UnixMs, awake: Duration) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = Pause {
            began,
            ended,
            ended_at,
            before: latest.ended,
            awake,
        };
    }

    /// Notes that the disk did not answer a request from `asked` until `now`; returns whether that is long enough
    /// to count as a pause.
    pub(super) fn note_stall(&self, asked: Tick, now: super::Now) -> bool {
        let began = asked.max(self.latest().ended);
        let stalled = now.tick.since(began) >= STALL_MIN;
        if stalled {
            self.note(began, now.tick, now.wall, now.awake);
        }
        stalled
    }
}
