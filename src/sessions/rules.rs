//! When a session is over, and who may start another. No database, no clock, no HTTP: only the decision.

use std::time::Duration;

use crate::client_config::Policy;
use crate::clock::{Pause, Tick, UnixMs};
use crate::error::{Error, Refused};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// The program, or its deactivation, ended it.
    Normal,
    /// It fell silent.
    Timeout,
    /// An administrator, a suspension or an expiry ended it.
    Forced,
    /// Another start took it over.
    Replaced,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Timeout, Self::Forced, Self::Replaced];

    /// The word in the file and on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Timeout => "timeout",
            Self::Forced => "forced",
            Self::Replaced => "replaced",
        }
    }

    /// The reason of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

/// Why a program's request about a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The license has a live session.
    Active,
    /// No such session was ever started, or it is another license's.
    NotFound,
    /// It is over.
    Ended(EndReason),
}

impl Refusal {
    /// The word programs match on.
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

/// Whether a session that was last heard at `last` is over: at the very second of its timeout, whether
/// or not anybody has noticed.
pub(super) fn timed_out(last: Tick, timeout_s: u32, now: Tick) -> bool {
    now.since(last) >= Duration::from_secs(u64::from(timeout_s))
}

/// When a session was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastHeard {
    pub(super) tick: Tick,
    /// How much the process had run by then.
    pub(super) awake: Duration,
}

/// From when the silence of a session counts that has not been heard since `pause`, where that is not from when it
/// was heard: a session that lived when the process stood still has its whole timeout from when it ran again.
/// However often that happens, in all it may be silent for twice its timeout while the process runs.
pub(super) fn after_pause(heard: LastHeard, timeout_s: u32, pause: &Pause) -> Option<Tick> {
    let timeout = Duration::from_secs(u64::from(timeout_s));
    let was_over = pause.began.since(heard.tick.max(pause.before)) >= timeout;
    if heard.tick >= pause.ended || was_over {
        return None;
    }
    let silent = pause.awake.saturating_sub(heard.awake);
    let beyond = silent.saturating_sub(timeout);
    Some(Tick(pause.ended.0.saturating_sub(beyond)).max(heard.tick))
}

/// What is in the way of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Existing {
    /// It has timed out.
    pub(super) over: bool,
    /// The device that wants to start holds it.
    pub(super) same_device: bool,
}

/// How the session that is in the way ends, if it may.
pub(super) fn takeover(policy: Policy, running: Existing) -> Result<EndReason, Refusal> {
    if running.over {
        return Ok(EndReason::Timeout);
    }
    let may = match policy {
        Policy::Reject => false,
        Policy::ReplaceSameDevice => running.same_device,
        Policy::Replace => true,
    };
    if may {
        Ok(EndReason::Replaced)
    } else {
        Err(Refusal::Active)
    }
}

/// Whether a session owes a heartbeat: half an interval more than one has passed without any.
pub(super) fn silent(last: Tick, heartbeat_interval: u32, now: Tick) -> bool {
    now.since(last) > Duration::from_secs(u64::from(heartbeat_interval)) * 3 / 2
}

/// What happened from one moment to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountChange {
    pub(super) started: u32,
    pub(super) ended: u32,
}

/// How many sessions ran at the edges of `changes`, which are in order of time: counted back from those that
/// run after the last one.
pub(super) fn concurrent(running: u32, changes: &[CountChange]) -> Vec<u32> {
    let mut levels = vec![running];
    let mut level = running;
    for change in changes.iter().rev() {
        // Below nothing only where the history is not whole: it may have been purged.
        level = level
            .saturating_add(change.ended)
            .saturating_sub(change.started);
        levels.push(level);
    }
    levels.reverse();
    levels
}

/// Several sessions of one license that are counted in one row: it ran one of them at a time, `ran_ms` in all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded {
    pub(super) started_at: UnixMs,
    pub(super) ended_at: UnixMs,
    pub(super) ran_ms: i64,
}

impl Folded {
    /// Which part of the time between its first start and its last end it ran, in thousandths; 0 outside of it.
    fn share(&self, at: UnixMs) -> u64 {
        let span = self.ended_at.0.saturating_sub(self.started_at.0);
        if span <= 0 || !(self.started_at..self.ended_at).contains(&at) {
            return 0;
        }
        let share = self.ran_ms.saturating_mul(1000) / span;
        u64::try_from(share.min(1000)).unwrap_or(0)
    }
}

/// How many of the sessions that are counted in `rows` ran at `at`, as far as that can be told: each row is spread
/// evenly over its time.
pub(super) fn spread(rows: &[Folded], at: UnixMs) -> u32 {
    let thousandths: u64 = rows.iter().map(|row| row.share(at)).sum();
    u32::try_from((thousandths + 500) / 1000).unwrap_or(u32::MAX)
}

/// The moments to look at in the last `days`: whole multiples of `step`, and `now`.
pub(super) fn bounds(days: u32, step: Duration, now: UnixMs) -> Vec<UnixMs> {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let first = now.minus(Duration::from_hours(24) * days).0;
    let first = first.saturating_add(step - 1).div_euclid(step);
    let last = now.0.div_euclid(step);
    let mut bounds: Vec<UnixMs> = (first..=last).map(|n| UnixMs(n * step)).collect();
    if bounds.last() != Some(&now) {
        bounds.push(now);
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_over_at_the_second_of_its_timeout() {
        let at = |ms| Tick(Duration::from_millis(ms));
        for (last, now, expected) in [
            (0, 59_999, false),
            (0, 60_000, true),
            (5_000, 64_999, false),
            (5_000, 65_000, true),
            (5_000, 4_000, false), // heard by a later request that was quicker
        ] {
            assert_eq!(timed_out(at(last), 60, at(now)), expected, "{last} {now}");
        }
    }

    #[test]
    fn a_session_that_lived_when_the_process_stood_still_has_its_whole_timeout_afterwards() {
        let s = Duration::from_secs;
        let at = |seconds| Tick(s(seconds));
        // Heard at 100, with a timeout of 60; the pause, and how long the process had run at its end.
        for (began, ended, before, awake, expected) in [
            (130, 1000, 0, 130, Some(1000)),
            (159, 1000, 0, 159, Some(1000)),
            (160, 1000, 0, 160, None), // it was over already
            (90, 99, 0, 90, None),     // before it was heard
            (90, 100, 0, 90, None),
            (99, 110, 0, 99, Some(110)), // heard by a request that arrived before the pause
            // Not over when the pause began, since that was soon after another.
            (1030, 2000, 1000, 160, Some(2000)),
            (1060, 2000, 1000, 190, None),
            // Silent for 90 s while the process ran: 30 s are left of twice 60.
            (1050, 2000, 1000, 190, Some(1970)),
            (1050, 2000, 1000, 280, Some(1880)), // none is left
        ] {
            let heard = LastHeard {
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
            let told = after_pause(heard, 60, &pause);
            assert_eq!(told, expected.map(at), "{pause:?}");
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
    fn the_last_day_is_looked_at_in_whole_steps_and_now() {
        const HOUR_MS: i64 = 3_600_000;
        let hour = Duration::from_hours(1);
        let looks = bounds(1, hour, UnixMs(48 * HOUR_MS + 7));
        assert_eq!(looks.len(), 25);
        assert_eq!(looks.first(), Some(&UnixMs(25 * HOUR_MS)));
        assert_eq!(looks.last(), Some(&UnixMs(48 * HOUR_MS + 7)));
        assert_eq!(bounds(1, hour, UnixMs(48 * HOUR_MS)).len(), 25);
    }

    #[test]
    fn a_session_is_silent_half_an_interval_after_a_heartbeat_was_due() {
        let at = |s| Tick(Duration::from_secs(s));
        for (last, now, expected) in [
            (0, 90, false),
            (0, 91, true),
            (50, 91, false),
            (9, 3, false),
        ] {
            assert_eq!(silent(at(last), 60, at(now)), expected, "{last} {now}");
        }
    }

    #[test]
    fn a_second_start_is_judged_by_the_policy_and_a_dead_session_is_never_in_the_way() {
        use Policy::{Reject, Replace, ReplaceSameDevice};
        let (taken, refused) = (Ok(EndReason::Replaced), Err(Refusal::Active));
        for (policy, same_device, expected) in [
            (Reject, true, refused),
            (Reject, false, refused),
            (ReplaceSameDevice, true, taken),
            (ReplaceSameDevice, false, refused),
            (Replace, true, taken),
            (Replace, false, taken),
        ] {
            let running = |over| Existing { over, same_device };
            assert_eq!(
                takeover(policy, running(false)),
                expected,
                "{policy:?} {same_device}"
            );
            assert_eq!(takeover(policy, running(true)), Ok(EndReason::Timeout));
        }
    }
}
