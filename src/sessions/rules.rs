//! Decides when a session has timed out and whether a second start may replace it. No database, clock or HTTP.

use std::time::Duration;

use crate::clock::{Pause, Tick, UnixMs};
use crate::error::{Error, Refused};
use crate::products::SessionPolicy;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// The program ended it, also by deactivating the device.
    Normal,
    /// Its heartbeats stopped.
    Timeout,
    /// An administrator, a suspended license or an expired one ended it.
    Forced,
    /// Another start replaced it.
    Replaced,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Timeout, Self::Forced, Self::Replaced];

    /// The word in the database and in responses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Timeout => "timeout",
            Self::Forced => "forced",
            Self::Replaced => "replaced",
        }
    }

    /// The reason for a word; `None` if unknown.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

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
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let plain = Self::plain(refusal.code());
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

/// How many sessions started and ended between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountChange {
    pub(super) started: u32,
    pub(super) ended: u32,
}

/// How many sessions ran before, between and after `changes`, which are in order of time: counted backwards from
/// `running`, the number after the last change.
pub(super) fn concurrent(running: u32, changes: &[CountChange]) -> Vec<u32> {
    let mut counts = vec![running];
    let mut count = running;
    for change in changes.iter().rev() {
        // Would be negative only if part of the history was purged.
        count = count
            .saturating_add(change.ended)
            .saturating_sub(change.started);
        counts.push(count);
    }
    counts.reverse();
    counts
}

/// A history row that counts several sessions of one license. They ran one after the other, for `ran_ms` in total.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded {
    pub(super) started_at: UnixMs,
    pub(super) ended_at: UnixMs,
    pub(super) ran_ms: i64,
}

impl Folded {
    /// The share of the time from first start to last end during which a session ran, in thousandths; 0 outside of
    /// it.
    fn share(&self, at: UnixMs) -> u64 {
        let span = self.ended_at.0.saturating_sub(self.started_at.0);
        if span <= 0 || !(self.started_at..self.ended_at).contains(&at) {
            return 0;
        }
        let share = self.ran_ms.saturating_mul(1000) / span;
        u64::try_from(share.min(1000)).unwrap_or(0)
    }
}

/// An estimate of how many of the folded sessions ran at `at`: the running time of each row is spread evenly over its
/// span.
pub(super) fn estimate_folded(rows: &[Folded], at: UnixMs) -> u32 {
    let thousandths: u64 = rows.iter().map(|row| row.share(at)).sum();
    u32::try_from((thousandths + 500) / 1000).unwrap_or(u32::MAX)
}

/// The moments of the samples for the last `days`: whole multiples of `step`, and `now`.
pub(super) fn sample_times(days: u32, step: Duration, now: UnixMs) -> Vec<UnixMs> {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let first = now.minus(Duration::from_hours(24) * days).0;
    let first = first.saturating_add(step - 1).div_euclid(step);
    let last = now.0.div_euclid(step);
    let mut times: Vec<UnixMs> = (first..=last).map(|n| UnixMs(n * step)).collect();
    if times.last() != Some(&now) {
        times.push(now);
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn concurrency_is_counted_back_from_now() {
        let change = |started, ended| CountChange { started, ended };
        for (running, changes, expected) in [
            (3, vec![], vec![3]),
            (3, vec![change(1, 0)], vec![2, 3]),
            (0, vec![change(2, 0), change(1, 3)], vec![0, 2, 0]),
            (5, vec![change(0, 2), change(10, 6)], vec![3, 1, 5]),
            // A start whose end was purged.
            (1, vec![change(4, 0)], vec![0, 1]),
        ] {
            assert_eq!(concurrent(running, &changes), expected, "{changes:?}");
        }
    }

    #[test]
    fn samples_are_taken_at_whole_steps_and_now() {
        const HOUR_MS: i64 = 3_600_000;
        let hour = Duration::from_hours(1);
        let times = sample_times(1, hour, UnixMs(48 * HOUR_MS + 7));
        assert_eq!(times.len(), 25);
        assert_eq!(times.first(), Some(&UnixMs(25 * HOUR_MS)));
        assert_eq!(times.last(), Some(&UnixMs(48 * HOUR_MS + 7)));
        assert_eq!(sample_times(1, hour, UnixMs(48 * HOUR_MS)).len(), 25);
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
