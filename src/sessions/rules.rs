//! Decides when a session has timed out and whether a second start may replace it. No database, clock or HTTP.

use std::time::Duration;

use crate::clock::{Pause, Tick};
use crate::error::{Error, RefusalKind, Refused};
use crate::products::SessionPolicy;
use crate::session_history::EndReason;

/// Why a program's request about a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another session runs on the license.
    Active,
    /// The token is unknown or belongs to another license.
    NotFound,
    /// The session has ended.
    Ended(EndReason),
}

impl Refusal {
    /// The error code of the API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Active => "session_active",
            Self::NotFound => "session_not_found",
            Self::Ended(_) => "session_ended",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::Active => RefusalKind::Conflict,
            Self::NotFound => RefusalKind::NotFound,
            Self::Ended(_) => RefusalKind::Gone,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let plain = Self::new(refusal.kind(), refusal.code());
        match refusal {
            Refusal::Active | Refusal::NotFound => plain,
            Refusal::Ended(reason) => plain.with("end_reason", reason.word()),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// Whether a session whose last heartbeat was at `last` has timed out: exactly when the timeout has passed, not when
/// the sweep ends it.
pub(super) fn timed_out(last: Tick, timeout_s: u32, now: Tick) -> bool {
    now.since(last) >= Duration::from_secs(u64::from(timeout_s))
}

/// When the last heartbeat of a session arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeartbeatTime {
    pub(super) tick: Tick,
    /// How long the process had run by then, not counting pauses.
    pub(super) awake: Duration,
}

/// From when the timeout of a session counts after the process was suspended; `None` if still from its last
/// heartbeat.
///
/// A session that was running when `pause` began gets its whole timeout again when the process resumes. With repeated
/// pauses, it times out at the latest when the process has run for twice the timeout without a heartbeat.
pub(super) fn after_pause(last: HeartbeatTime, timeout_s: u32, pause: &Pause) -> Option<Tick> {
    let timeout = Duration::from_secs(u64::from(timeout_s));
    let had_timed_out = pause.began.since(last.tick.max(pause.before)) >= timeout;
    if last.tick >= pause.ended || had_timed_out {
        return None;
    }
    let without_heartbeat = pause.awake.saturating_sub(last.awake);
    let beyond = without_heartbeat.saturating_sub(timeout);
    Some(Tick(pause.ended.0.saturating_sub(beyond)).max(last.tick))
}

/// The session that runs on the license when another one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Existing {
    /// It has timed out, but was not swept yet.
    pub(super) timed_out: bool,
    /// It runs on the device that starts the other one.
    pub(super) same_device: bool,
}

/// How the existing session ends so that another one can start, if the policy allows that.
pub(super) fn takeover(policy: SessionPolicy, existing: Existing) -> Result<EndReason, Refusal> {
    if existing.timed_out {
        return Ok(EndReason::Timeout);
    }
    let may_replace = match policy {
        SessionPolicy::Reject => false,
        SessionPolicy::ReplaceSameDevice => existing.same_device,
        SessionPolicy::Replace => true,
    };
    if may_replace {
        Ok(EndReason::Replaced)
    } else {
        Err(Refusal::Active)
    }
}

/// Whether the heartbeat of a session is late: more than one and a half intervals have passed since the last one.
pub(super) fn late(last: Tick, heartbeat_interval: u32, now: Tick) -> bool {
    now.since(last) > Duration::from_secs(u64::from(heartbeat_interval)) * 3 / 2
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
            let counts_from = after_pause(last, 60, &pause);
            assert_eq!(counts_from, expected.map(at), "{pause:?}");
        }
    }

    #[test]
    fn a_session_is_late_half_an_interval_after_a_heartbeat_was_due() {
        let at = |s| Tick(Duration::from_secs(s));
        for (last, now, expected) in [
            (0, 90, false),
            (0, 91, true),
            (50, 91, false),
            (9, 3, false),
        ] {
            assert_eq!(late(at(last), 60, at(now)), expected, "{last} {now}");
        }
    }

    #[test]
    fn the_policy_decides_about_a_second_start_and_a_session_that_timed_out_never_blocks_one() {
        use SessionPolicy::{Reject, Replace, ReplaceSameDevice};
        let (replaced, refused) = (Ok(EndReason::Replaced), Err(Refusal::Active));
        for (policy, same_device, expected) in [
            (Reject, true, refused),
            (Reject, false, refused),
            (ReplaceSameDevice, true, replaced),
            (ReplaceSameDevice, false, refused),
            (Replace, true, replaced),
            (Replace, false, replaced),
        ] {
            let existing = |timed_out| Existing {
                timed_out,
                same_device,
            };
            assert_eq!(
                takeover(policy, existing(false)),
                expected,
                "{policy:?} {same_device}"
            );
            assert_eq!(takeover(policy, existing(true)), Ok(EndReason::Timeout));
        }
    }
}
