//! Counts how often the server refused requests, by code.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::UnixMs;

const DAY_MS: i64 = 86_400_000;

/// The code under which failed logins are counted, beside the codes of refused programs.
pub const LOGIN_FAILED: &str = "login_failed";

/// The number of refusals with one code on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// Days since 1970-01-01, UTC.
    pub day: i64,
    /// The code.
    pub code: &'static str,
    /// The count.
    pub count: u32,
}

/// Counts refusals in memory until they are stored. It stays small: one entry per code since the start, and one
/// per code and day that is not stored yet.
#[derive(Debug, Default)]
pub struct RefusalCounter(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    since_start: BTreeMap<&'static str, u64>,
    unsaved: BTreeMap<(i64, &'static str), u32>,
}

/// The day of a moment, in days since 1970-01-01, UTC.
pub const fn day(at: UnixMs) -> i64 {
    at.0.div_euclid(DAY_MS)
}

impl RefusalCounter {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one refusal.
    pub fn count(&self, code: &'static str, at: UnixMs) {
        let mut counts = self.counts();
        *counts.since_start.entry(code).or_default() += 1;
        let unsaved = counts.unsaved.entry((day(at), code)).or_default();
        *unsaved = unsaved.saturating_add(1);
    }

    /// Takes the counts since the last call, to be stored in the database.
    pub fn take(&self) -> Vec<Refusals> {
        let taken = std::mem::take(&mut self.counts().unsaved);
        let refusals = taken.into_iter();
        refusals
            .map(|((day, code), count)| Refusals { day, code, count })
            .collect()
    }

    /// Adds counts back that could not be stored.
    pub fn give_back(&self, refusals: &[Refusals]) {
        let mut counts = self.counts();
        for Refusals { day, code, count } in refusals {
            let unsaved = counts.unsaved.entry((*day, *code)).or_default();
            *unsaved = unsaved.saturating_add(*count);
        }
    }

    /// The counts of a day that are not stored yet.
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

    /// The number of refusals by code since the process started.
    pub fn since_start(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts();
        counts.since_start.iter().map(|(k, v)| (*k, *v)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once_and_can_be_given_back() {
        let counter = RefusalCounter::default();
        for at in [0, DAY_MS - 1, DAY_MS] {
            counter.count("license_expired", UnixMs(at));
        }
        counter.count("rate_limited", UnixMs(5));
        let refusals = |day, code, count| Refusals { day, code, count };
        let expected = vec![
            refusals(0, "license_expired", 2),
            refusals(0, "rate_limited", 1),
            refusals(1, "license_expired", 1),
        ];
        let taken = counter.take();
        assert_eq!(taken, expected);
        assert!(counter.take().is_empty());
        counter.count("rate_limited", UnixMs(7));
        counter.give_back(&taken);
        assert_eq!(
            counter.unsaved(0).last(),
            Some(&refusals(0, "rate_limited", 2))
        );
        let all = [("license_expired", 3), ("rate_limited", 2)];
        assert_eq!(counter.since_start(), all);
    }
}
