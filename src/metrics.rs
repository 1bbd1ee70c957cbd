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

/// Days whose counts are kept in memory: today's, and another one while the clock is set.
const DAYS_MAX: usize = 2;

/// Counts refusals in memory. It stays small: one entry per code since the start, one per code on each of two days, and
/// one per code and day that is not stored yet.
#[derive(Debug, Default)]
pub struct RefusalCounter(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    since_start: BTreeMap<&'static str, u64>,
    /// Whole days, also what is stored: adding up what is stored and what is not would miss what is just being stored.
    by_day: BTreeMap<i64, BTreeMap<String, u32>>,
    unsaved: BTreeMap<(i64, &'static str), u32>,
}

impl Counts {
    fn add_to_day(&mut self, day: i64, code: &str, count: u32) {
        let of_day = self.by_day.entry(day).or_default();
        match of_day.get_mut(code) {
            Some(known) => *known = known.saturating_add(count),
            None => drop(of_day.insert(code.to_owned(), count)),
        }
        while self.by_day.len() > DAYS_MAX {
            self.by_day.pop_first();
        }
    }
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
        counts.add_to_day(day(at), code, 1);
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

    /// Adds what an earlier process counted on a day.
    pub fn add_earlier(&self, day: i64, by_code: Vec<(String, u32)>) {
        let mut counts = self.counts();
        for (code, count) in by_code {
            counts.add_to_day(day, &code, count);
        }
    }

    /// The number of refusals by code on a day, today or yesterday.
    pub fn on(&self, day: i64) -> Vec<(String, u32)> {
        let counts = self.counts();
        let of_day = counts.by_day.get(&day).into_iter().flatten();
        of_day.map(|(k, v)| (k.clone(), *v)).collect()
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
        let with_new = counter.take();
        assert!(with_new.contains(&refusals(0, "rate_limited", 2)));
        let all = [("license_expired", 3), ("rate_limited", 2)];
        assert_eq!(counter.since_start(), all);
    }

    #[test]
    fn the_counts_of_a_day_include_earlier_ones_and_those_being_stored() {
        let counter = RefusalCounter::default();
        let of_day = |day| {
            let codes = counter.on(day).into_iter();
            codes.map(|(code, n)| format!("{code} {n}")).collect()
        };
        let expect = |day, expected: &[&str]| {
            let found: Vec<String> = of_day(day);
            assert_eq!(found, expected, "day {day}");
        };
        counter.add_earlier(
            0,
            vec![("old_code".to_owned(), 4), ("rate_limited".to_owned(), 2)],
        );
        counter.count("rate_limited", UnixMs(1));
        let taken = counter.take();
        expect(0, &["old_code 4", "rate_limited 3"]);
        counter.give_back(&taken);
        expect(0, &["old_code 4", "rate_limited 3"]);
        counter.count("rate_limited", UnixMs(DAY_MS));
        expect(0, &["old_code 4", "rate_limited 3"]);
        expect(1, &["rate_limited 1"]);
        counter.count("rate_limited", UnixMs(2 * DAY_MS));
        expect(0, &[]);
        expect(1, &["rate_limited 1"]);
    }
}
