//! Which licenses this process has changed lately, so that what was read about one can be kept for as long as it is true.
//!
//! A program's call changes one license at a time: its session, its devices, its term. Everything else (administrators,
//! settings, other processes) begins a new generation instead, which ends all that was kept; see `db/generation.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::LicenseId;

/// Licenses share places: a change of one ends what was kept about the others at its place too. 1 MiB.
const PLACES: usize = 1 << 17;

/// The changes of this process: how many there were, and the number of the latest one at each place.
#[derive(Debug)]
pub(super) struct LicenseChanges {
    count: AtomicU64,
    latest: Box<[AtomicU64]>,
}

impl Default for LicenseChanges {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            latest: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl LicenseChanges {
    /// How many changes there have been. What is read from now on contains all of them.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Notes that `license` was changed. Called after the commit, before anybody is told of it.
    pub(super) fn note(&self, license: LicenseId) {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(latest) = self.latest.get(place(license)) {
            latest.store(number, Ordering::SeqCst);
        }
    }

    /// Whether `license` was changed after the first `count` changes.
    pub(super) fn changed_since(&self, license: LicenseId, count: u64) -> bool {
        let latest = self.latest.get(place(license));
        latest.is_none_or(|latest| latest.load(Ordering::SeqCst) > count)
    }
}

/// The place of a license: neighbors, which are often sold and used together, have different ones.
fn place(license: LicenseId) -> usize {
    usize::try_from(license.0).unwrap_or_default() % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_ends_what_was_read_before_it_and_nothing_else() {
        let changes = LicenseChanges::default();
        let (one, other) = (LicenseId(1), LicenseId(2));
        let before = changes.count();
        changes.note(one);
        assert!(changes.changed_since(one, before));
        assert!(!changes.changed_since(other, before));
        assert!(!changes.changed_since(one, changes.count()));
        let at_the_same_place = LicenseId(1 + i64::try_from(PLACES).unwrap());
        assert!(changes.changed_since(at_the_same_place, before));
    }
}
