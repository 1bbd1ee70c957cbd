//! Spans in which the process did not run: stopped by a signal, a paused container, a suspended machine, a
//! disk that did not answer. Such a span is no time in which a program could have been heard.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Tick, UnixMs};

/// Between two stamps of [`super::TrustedClock::watch`] that are this far apart, the process stood still. Longer than
/// a busy machine makes a thread wait, and not longer than the shortest session timeout.
pub(super) const STILL: Duration = Duration::from_secs(2);
/// The same for the writer thread: a foreign lock makes it wait for 3 s at a time, which is no stalled disk.
const STALLED: Duration = Duration::from_secs(5);

/// A span in which the process did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// The last moment at which it certainly ran.
    pub began: Tick,
    /// The first moment at which it ran again.
    pub ended: Tick,
    /// The date of that.
    pub ended_at: UnixMs,
    /// When the pause before this one ended.
    pub before: Tick,
    /// How long the process has run until the end of this pause, without any pause.
    pub awake: Duration,
}

/// The latest pause, shared by what notices it and by what judges silence; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Arc<Mutex<Pause>>);

impl Pauses {
    /// The latest one; of no length at the start of the process, where there was none.
    pub fn latest(&self) -> Pause {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the process did not run from `began` to `ended`; it has run for `awake` in all.
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

    /// Notes that the disk did not answer what was asked at `asked` until `now`; whether that is long enough to
    /// count.
    pub(super) fn note_stall(&self, asked: Tick, now: super::Now) -> bool {
        let began = asked.max(self.latest().ended);
        let stalled = now.tick.since(began) >= STALLED;
        if stalled {
            self.note(began, now.tick, now.wall, now.awake);
        }
        stalled
    }
}
