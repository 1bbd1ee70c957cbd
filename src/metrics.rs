//! Counts how often the server refused requests, by product and code.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::UnixMs;
use crate::id::ProductId;
use crate::zone::Zone;

/// Counts are stored by quarter of an hour, of which a day has a whole number in every time zone.
pub const QUARTER_MS: i64 = 900_000;

/// The code under which failed logins are counted, beside the codes of refused programs.
pub const LOGIN_FAILED: &str = "login_failed";

/// The number of refusals of one product with one code in a quarter of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// When the quarter begins.
    pub at: UnixMs,
    /// The product; `None` if it is not known.
    pub product: Option<ProductId>,
    /// The code.
    pub code: &'static str,
    /// The count.
    pub count: u32,
}

/// Days whose counts are kept in memory: today's, and another one while the clock is set.
const DAYS_MAX: usize = 2;

/// Counts refusals in memory. It stays small: one entry per code since the start, one per product and code on each of two
/// days, and one per product, code and quarter of an hour that is not stored yet.
#[derive(Debug, Default)]
pub struct RefusalCounter {
    zone: Zone,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    since_start: BTreeMap<&'static str, u64>,
    /// Whole days, also what is stored: adding up what is stored and what is not would miss what is just being stored.
    by_day: BTreeMap<i64, BTreeMap<CountedAs, u32>>,
    unsaved: BTreeMap<(UnixMs, Option<ProductId>, &'static str), u32>,
}

/// The product, if it is known, and the code.
pub type CountedAs = (Option<ProductId>, String);

impl Counts {
    fn add_to_day(&mut self, day: i64, counted_as: CountedAs, count: u32) {
        let of_day = self.by_day.entry(day).or_default();
        let known = of_day.entry(counted_as).or_default();
        *known = known.saturating_add(count);
        while self.by_day.len() > DAYS_MAX {
            self.by_day.pop_first();
        }
    }
}

/// The beginning of the quarter of an hour of a moment.
pub const fn quarter(at: UnixMs) -> UnixMs {
    UnixMs(at.0.saturating_sub(at.0.rem_euclid(QUARTER_MS)))
}

impl RefusalCounter {
    /// Counts nothing yet. Days are those of `zone`, the shop's.
    pub fn new(zone: Zone) -> Self {
        Self {
            zone,
            counts: Mutex::default(),
        }
    }

    /// The day of a moment, counted from 1970-01-01.
    pub fn day(&self, at: UnixMs) -> i64 {
        self.zone.day_number(at)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal for no known product.
    pub fn count(&self, code: &'static str, at: UnixMs) {
        self.count_of(None, code, at);
    }

    /// Counts a refusal.
    pub fn count_of(&self, product: Option<ProductId>, code: &'static str, at: UnixMs) {
        let day = self.day(at);
        let mut counts = self.counts();
        *counts.since_start.entry(code).or_default() += 1;
        counts.add_to_day(day, (product, code.to_owned()), 1);
        let unsaved = counts
            .unsaved
            .entry((quarter(at), product, code))
            .or_default();
        *unsaved = unsaved.saturating_add(1);
    }

    /// Counts refusals that were noted elsewhere.
    pub fn count_all(&self, refusals: impl IntoIterator<Item = Refusals>) {
        for Refusals {
            at,
            product,
            code,
            count,
        } in refusals
        {
            (0..count).for_each(|_| self.count_of(product, code, at));
        }
    }

    /// Takes the counts since the last call, to be stored in the database.
    pub fn take(&self) -> Vec<Refusals> {
        let taken = std::mem::take(&mut self.counts().unsaved);
        let refusals = taken.into_iter();
        refusals
            .map(|((at, product, code), count)| Refusals {
                at,
                product,
                code,
                count,
            })
            .collect()
    }

    /// Adds counts back that could not be stored.
    pub fn give_back(&self, refusals: &[Refusals]) {
        let mut counts = self.counts();
        for refusals in refusals {
            let Refusals {
                at, product, code, ..
            } = *refusals;
            let unsaved = counts.unsaved.entry((at, product, code)).or_default();
            *unsaved = unsaved.saturating_add(refusals.count);
        }
    }

    /// Adds what an earlier process counted on a day.
    pub fn add_earlier(&self, day: i64, earlier: Vec<(CountedAs, u32)>) {
        let mut counts = self.counts();
        for (counted_as, count) in earlier {
            counts.add_to_day(day, counted_as, count);
        }
    }

    /// The number of refusals by code on a day, today or yesterday. With a `product`, only those of its programs, and all
    /// failed logins.
    pub fn on(&self, day: i64, product: Option<ProductId>) -> BTreeMap<String, u32> {
        let mut by_code: BTreeMap<String, u32> = BTreeMap::new();
        let counts = self.counts();
        for ((of, code), count) in counts.by_day.get(&day).into_iter().flatten() {
            if product.is_none() || *of == product || code == LOGIN_FAILED {
                let sum = by_code.entry(code.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        by_code
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

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn counts_are_taken_once_and_can_be_given_back() {
        let counter = RefusalCounter::default();
        for at in [0, DAY_MS - 1, DAY_MS] {
            counter.count("license_expired", UnixMs(at));
        }
        counter.count("rate_limited", UnixMs(5));
        let refusals = |day, code, count| Refusals {
            at: UnixMs(day * DAY_MS),
            product: None,
            code,
            count,
        };
        let expected = vec![
            refusals(0, "license_expired", 1),
            refusals(0, "rate_limited", 1),
            Refusals {
                at: UnixMs(DAY_MS - QUARTER_MS),
                ..refusals(0, "license_expired", 1)
            },
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
        let on = |day, product| -> Vec<String> {
            let codes = counter.on(day, product).into_iter();
            codes.map(|(code, n)| format!("{code} {n}")).collect()
        };
        let expect = |day, expected: &[&str]| {
            assert_eq!(on(day, None), expected, "day {day}");
        };
        counter.add_earlier(
            0,
            vec![
                ((None, "old_code".to_owned()), 4),
                ((None, "rate_limited".to_owned()), 2),
            ],
        );
        counter.count("rate_limited", UnixMs(1));
        let taken = counter.take();
        expect(0, &["old_code 4", "rate_limited 3"]);
        counter.give_back(&taken);
        expect(0, &["old_code 4", "rate_limited 3"]);
        counter.count_of(Some(ProductId(7)), "rate_limited", UnixMs(DAY_MS));
        expect(0, &["old_code 4", "rate_limited 3"]);
        expect(1, &["rate_limited 1"]);
        counter.count(LOGIN_FAILED, UnixMs(DAY_MS));
        counter.count("rate_limited", UnixMs(DAY_MS));
        let (logins, of_product) = ("login_failed 1", "rate_limited 1");
        assert_eq!(on(1, Some(ProductId(7))), [logins, of_product]);
        assert_eq!(on(1, Some(ProductId(8))), [logins]);
        assert_eq!(on(1, None), [logins, "rate_limited 2"]);
        counter.count("rate_limited", UnixMs(2 * DAY_MS));
        expect(0, &[]);
        expect(1, &[logins, "rate_limited 2"]);
    }

    #[test]
    fn refusals_are_counted_on_the_day_of_the_zone() {
        let counter = RefusalCounter::new(Zone::shipped());
        let [before, after] = ["2026-11-22T22:59:59Z", "2026-11-22T23:00:00Z"];
        for at in [before, after] {
            counter.count("rate_limited", UnixMs::parse(at).unwrap());
        }
        for at in [before, after] {
            let day = counter.day(UnixMs::parse(at).unwrap());
            assert_eq!(counter.on(day, None)["rate_limited"], 1, "{at}");
        }
    }
}
