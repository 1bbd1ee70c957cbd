//! Decides whether a heartbeat is late and whether a second start may replace a session. No database, clock or HTTP.

use std::time::Duration;

use crate::clock::Tick;
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

    /// The kind, which determines the HTTP status.
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
        let refused = Self::new(refusal.kind(), refusal.code());
        match refusal {
            Refusal::Active | Refusal::NotFound => refused,
            Refusal::Ended(reason) => refused.with("end_reason", reason.as_str()),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// The session that is in the way when another one starts on the license.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExistingSession {
    /// It has timed out, but the sweep has not ended it yet.
    pub(super) timed_out: bool,
    /// It runs on the device that starts the new one.
    pub(super) same_device: bool,
}

/// How the existing session ends when another one takes its place.
///
/// # Errors
/// [`Refusal::Active`] if the policy does not allow that.
pub(super) fn takeover(
    policy: SessionPolicy,
    existing: ExistingSession,
) -> Result<EndReason, Refusal> {
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
pub(super) fn is_late(last: Tick, interval_s: u32, now: Tick) -> bool {
    now.since(last) > Duration::from_secs(u64::from(interval_s)) * 3 / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_late_half_an_interval_after_a_heartbeat_was_due() {
        let at = |s| Tick(Duration::from_secs(s));
        for (last, now, expected) in [
            (0, 90, false),
            (0, 91, true),
            (50, 91, false),
            (9, 3, false),
        ] {
            assert_eq!(is_late(at(last), 60, at(now)), expected, "{last} {now}");
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
            let existing = |timed_out| ExistingSession {
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
