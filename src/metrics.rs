//! What the server counts of its own work: how often it refused a program, by code.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::UnixMs;

const DAY_MS: i64 = 86_400_000;

/// What a login that failed is counted as, beside the codes of refused programs.
pub const LOGIN_FAILED: &str = "login_failed";

/// Refusals of one kind on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// Days since 1970-01-01, UTC.
    pub day: i64,
    /// Their code.
    pub code: &'static str,
    /// How many.
    pub count: u32,
}

/// Refusals as they happen. Kept small: there are as many as codes, and days that the file does not have yet.
#[derive(Debug, Default)]
pub struct RefusalCounter(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    since_start: BTreeMap<&'static str, u64>,
    unsaved: BTreeMap<(i64, &'static str), u32>,
}

/// The day of a moment: days since 1970-01-01, UTC.
pub const fn day(at: UnixMs) -> i64 {
    at.0.div_euclid(DAY_MS)
}

impl RefusalCounter {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more refusal.
    pub fn count(&self, code: &'static str, at: UnixMs) {
        let mut counts = self.counts();
        *counts.since_start.entry(code).or_default() += 1;
        let unsaved = counts.unsaved.entry((day(at), code)).or_default();
        *unsaved = unsaved.saturating_add(1);
    }

    /// What was counted since the last time; the file is to have it.
    pub fn take(&self) -> Vec<Refusals> {
        let taken = std::mem::take(&mut self.counts().unsaved);
        let refusals = taken.into_iter();
        refusals
            .map(|((day, code), count)| Refusals { day, code, count })
            .collect()
    }

    /// The file did not take it.
    pub fn give_back(&self, refusals: &[Refusals]) {
        let mut counts = self.counts();
        for Refusals { day, code, count } in refusals {
            let unsaved = counts.unsaved.entry((*day, *code)).or_default();
            *unsaved = unsaved.saturating_add(*count);
        }
    }

    /// What the file does not have yet of a day.
    pub fn unsaved(&self, day: i64) -> Vec<Refusals> {
        let counts = self.counts();
        let of_day = counts.unsaved.iter().filter(|((on, _), _)| *on == day);
        of_day
            .map(|((day, code), count)| Refusals {
                day: *day,
                code,
                count: *count,
            })
            .collect()
    }

    /// How often each code was given since the process began.
    pub fn since_start(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts();
        counts.since_start.iter().map(|(k, v)| (*k, *v)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_taken_once_and_given_back_whole() {
        let tally = RefusalCounter::default();
        for at in [0, DAY_MS - 1, DAY_MS] {
            tally.count("license_expired", UnixMs(at));
        }
        tally.count("rate_limited", UnixMs(5));
        let refusals = |day, code, count| Refusals { day, code, count };
        let expected = vec![
            refusals(0, "license_expired", 2),
            refusals(0, "rate_limited", 1),
            refusals(1, "license_expired", 1),
        ];
        let taken = tally.take();
        assert_eq!(taken, expected);
        assert!(tally.take().is_empty());
        tally.count("rate_limited", UnixMs(7));
        tally.give_back(&taken);
        assert_eq!(
            tally.unsaved(0).last(),
            Some(&refusals(0, "rate_limited", 2))
        );
        let all = [("license_expired", 3), ("rate_limited", 2)];
        assert_eq!(tally.since_start(), all);
    }
}
