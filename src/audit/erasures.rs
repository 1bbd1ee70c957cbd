//! Whether the log accounts for its erased entries. Anyone who can write the database can empty an entry so that the chain
//! stays sound. But each erasure notes how many entries it erased, in an entry of the same time that is never erased.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::{Entry, Verified};
use crate::clock::UnixMs;
use crate::logging::counted;

/// The action of an erasure because of age.
pub(super) const BY_AGE: &str = "audit.expire";
/// The action of the erasure of a customer.
const WITH_CUSTOMER: &str = "customers.erase";
/// The member of `after` with the number of erased entries.
const COUNT: &str = "audit_entries";

/// Entries that were erased at one time, if the log does not account for all of them or says that it were more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unaccounted {
    /// When they were erased, as they say.
    pub at: UnixMs,
    /// How many they are.
    pub erased: usize,
    /// How many the log accounts for.
    pub accounted: usize,
}

impl fmt::Display for Unaccounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = |number| counted(number, "entry was", "entries were");
        let (erased, at) = (entries(self.erased), self.at.rfc3339());
        write!(
            f,
            "{erased} erased at {at}, and the log says {}",
            entries(self.accounted)
        )
    }
}

/// The erased entries of a log.
#[derive(Debug, Default)]
pub(super) struct Erasures {
    by_time: BTreeMap<UnixMs, Counts>,
}

/// Counts of entries that were erased at the same time.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    erased: usize,
    /// According to the erasures of customers.
    with_customers: usize,
    /// According to the erasures because of age.
    by_age: usize,
}

impl Erasures {
    /// Adds an entry that was not altered.
    pub(super) fn add(&mut self, entry: &Entry) {
        if let Some(at) = entry.erased_at {
            self.by_time.entry(at).or_default().erased += 1;
            return;
        }
        let is_by_age = entry.action == BY_AGE;
        if !is_by_age && entry.action != WITH_CUSTOMER {
            return;
        }
        // An erasure without a number accounts for no entry.
        let after: Value = serde_json::from_str(&entry.after).unwrap_or_default();
        let count = after.get(COUNT).and_then(Value::as_u64).unwrap_or(0);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let counts = self.by_time.entry(entry.at).or_default();
        let sum = if is_by_age {
            &mut counts.by_age
        } else {
            &mut counts.with_customers
        };
        // Several erasures have the same time if an older copy of the database was put in place.
        *sum = sum.saturating_add(count);
    }

    /// What the log proves; `first_altered` is the first entry that was not added.
    pub(super) fn verified(&self, first_altered: Option<i64>) -> Verified {
        let mut verified = Verified {
            first_altered,
            ..Verified::default()
        };
        for (at, counts) in &self.by_time {
            verified.erased = verified.erased.saturating_add(counts.with_customers);
            verified.expired = verified.expired.saturating_add(counts.by_age);
            let accounted = counts.with_customers.saturating_add(counts.by_age);
            if counts.erased != accounted && verified.unaccounted.is_none() {
                verified.unaccounted = Some(Unaccounted {
                    at: *at,
                    erased: counts.erased,
                    accounted,
                });
            }
        }
        verified
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erased(at: i64) -> Entry {
        Entry {
            erased_at: Some(UnixMs(at)),
            ..Entry::default()
        }
    }

    fn erasure(action: &str, at: i64, after: &str) -> Entry {
        Entry {
            at: UnixMs(at),
            action: action.to_owned(),
            after: after.to_owned(),
            ..Entry::default()
        }
    }

    fn unaccounted(entries: &[Entry]) -> Option<(i64, usize, usize)> {
        let mut erasures = Erasures::default();
        for entry in entries {
            erasures.add(entry);
        }
        let found = erasures.verified(None).unaccounted;
        found.map(|found| (found.at.0, found.erased, found.accounted))
    }

    #[test]
    fn each_group_of_erased_entries_must_be_as_large_as_its_erasures_say() {
        let two = r#"{"audit_entries":2}"#;
        let customer = |at| erasure("customers.erase", at, two);
        let age = |at| erasure("audit.expire", at, two);
        for (entries, expected) in [
            (vec![], None),
            (vec![erased(7), erased(7), customer(7)], None),
            (vec![erased(7), erased(7), age(7)], None),
            (
                vec![
                    erased(7),
                    erased(7),
                    customer(7),
                    erased(7),
                    erased(7),
                    customer(7),
                ],
                None,
            ),
            (vec![erasure("customers.erase", 7, "{}")], None),
            (vec![erased(7)], Some((7, 1, 0))),
            (
                vec![erased(7), erased(7), erased(7), customer(7)],
                Some((7, 3, 2)),
            ),
            (vec![erased(7), customer(7), erased(8)], Some((7, 1, 2))),
            (vec![erased(7), erased(7), customer(8)], Some((7, 2, 0))),
            // An erased erasure accounts for nothing.
            (vec![erased(7), erased(7), erased(9)], Some((7, 2, 0))),
            (
                vec![erased(7), erased(7), erasure("customers.add", 7, two)],
                Some((7, 2, 0)),
            ),
        ] {
            assert_eq!(unaccounted(&entries), expected, "{entries:?}");
        }
    }
}
