//! Decides when a session has timed out. No database, clock or HTTP.

use std::time::Duration;

use crate::clock::{Pause, Tick};

/// Whether a session whose last heartbeat was at `last` has timed out: exactly when the timeout has passed, not when
/// the sweep ends it.
pub(super) fn timed_out(last: Tick, timeout_s: u32, now: Tick) -> bool {
    now.since(last) >= Duration::from_secs(u64::from(timeout_s))
}

/// When the last heartbeat of a session arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeartbeatTime {
    /// On the monotonic clock.
    pub(super) tick: Tick,
    /// How long the process had run when it arrived, not counting pauses.
    pub(super) awake: Duration,
}

/// From when the timeout of a session counts after the process was suspended; `None` if still from its last
/// heartbeat.
///
/// A session that was running when `pause` began gets its whole timeout again when the process resumes. So that
/// repeated pauses do not keep it running forever, it times out at the latest when the process has run for twice the
/// timeout without a heartbeat of it.
pub(super) fn counts_from_after_pause(
    last: HeartbeatTime,
    timeout_s: u32,
    pause: &Pause,
) -> Option<Tick> {
    let timeout = Duration::from_secs(u64::from(timeout_s));
    let had_timed_out = pause.began.since(last.tick.max(pause.before)) >= timeout;
    if last.tick >= pause.ended || had_timed_out {
        return None;
    }
    let run_without_heartbeat = pause.awake.saturating_sub(last.awake);
    let beyond_timeout = run_without_heartbeat.saturating_sub(timeout);
    Some(Tick(pause.ended.0.saturating_sub(beyond_timeout)).max(last.tick))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;

    #[test]
    fn a_session_has_timed_out_exactly_when_its_timeout_has_passed() {
        let at = |ms| Tick(Duration::from_millis(ms));
        for (last, now, expected) in [
            (0, 59_999, false),
            (0, 60_000, true),
            (5_000, 64_999, false),
            (5_000, 65_000, true),
            (5_000, 4_000, false), // the heartbeat of a later request was handled first
        ] {
            assert_eq!(timed_out(at(last), 60, at(now)), expected, "{last} {now}");
        }
    }

    #[test]
    fn a_session_that_ran_when_the_process_was_suspended_gets_its_whole_timeout_afterwards() {
        let s = Duration::from_secs;
        let at = |seconds| Tick(s(seconds));
        // Last heartbeat at 100, timeout 60; the pause, and how long the process had run at its end.
        for (began, ended, before, awake, expected) in [
            (130, 1000, 0, 130, Some(1000)),
            (159, 1000, 0, 159, Some(1000)),
            (160, 1000, 0, 160, None), // had timed out before
            (90, 99, 0, 90, None),     // before the heartbeat
            (90, 100, 0, 90, None),
            (99, 110, 0, 99, Some(110)), // the heartbeat arrived before the pause
            // Had not timed out when the pause began: another pause ended shortly before.
            (1030, 2000, 1000, 160, Some(2000)),
            (1060, 2000, 1000, 190, None),
            // No heartbeat for 90 s while the process ran: 30 s of twice 60 are left.
            (1050, 2000, 1000, 190, Some(1970)),
            (1050, 2000, 1000, 280, Some(1880)), // none is left
        ] {
            let last = HeartbeatTime {
                tick: at(100),
                awake: s(100),
            };
            let pause = Pause {
                began: at(began),
                ended: at(ended),
                ended_at: UnixMs(0),
                before: at(before),
                awake: s(awake),
            };
            let counts_from = counts_from_after_pause(last, 60, &pause);
            assert_eq!(counts_from, expected.map(at), "{pause:?}");
        }
    }
}
