//! Refused calls that are not stored yet. A call leaves its refusal here and goes on; nothing here waits for the database.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::RefusedCall;
use super::rules::{self, Identity};
use crate::clock::UnixMs;

/// Most different calls that wait to be stored: some 1 MB, and 5 MB if every text is as long as it may be.
pub(super) const QUEUE_MAX: usize = 2_000;
/// Most of them that come from one network, so that none keeps out the others.
const OF_NETWORK_MAX: usize = 500;
/// Most rows that are remembered, to which equal calls may still be added: some 1 MB.
const ROWS_MAX: usize = 20_000;
/// For how long equal calls are added to a row.
const MINUTE: Duration = Duration::from_mins(1);

/// Equal calls that are not stored yet.
#[derive(Clone, Debug)]
pub(super) struct PendingCall {
    /// The first of them.
    pub(super) call: RefusedCall,
    /// When the last one arrived.
    pub(super) last_at: UnixMs,
    /// How many there are.
    pub(super) calls: u32,
}

/// A row to which equal calls may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecentRow {
    pub(super) id: i64,
    /// When the first call of the row arrived.
    pub(super) at: UnixMs,
    pub(super) code: &'static str,
}

/// The refused calls that are not stored yet.
#[derive(Debug, Default)]
pub struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pending: HashMap<Identity, PendingCall>,
    /// How many of those come from each network.
    of_network: HashMap<String, usize>,
    recent: HashMap<Identity, RecentRow>,
    unrecorded: u64,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a refused call; only counts it if too many wait already.
    pub fn push(&self, call: RefusedCall) {
        let pending = PendingCall {
            last_at: call.at,
            call,
            calls: 1,
        };
        self.state().add(pending);
    }

    /// How many refused calls were not recorded since the start of the process.
    pub fn unrecorded(&self) -> u64 {
        self.state().unrecorded
    }

    /// Takes at most `max` calls, the oldest first.
    pub(super) fn take(&self, max: usize) -> Vec<PendingCall> {
        let mut state = self.state();
        let mut oldest: Vec<(UnixMs, Identity)> = state
            .pending
            .iter()
            .map(|(identity, pending)| (pending.call.at, *identity))
            .collect();
        oldest.sort_unstable();
        oldest.truncate(max);
        let taken = oldest.iter();
        taken
            .filter_map(|(_, identity)| state.remove(identity))
            .collect()
    }

    /// Returns calls that could not be stored.
    pub(super) fn give_back(&self, calls: &[PendingCall]) {
        let mut state = self.state();
        for pending in calls {
            state.add(pending.clone());
        }
    }

    /// Counts calls that are not recorded.
    pub(super) fn count_unrecorded(&self, calls: u32) {
        let mut state = self.state();
        state.unrecorded = state.unrecorded.saturating_add(calls.into());
    }

    /// The row of equal calls within the minute before `at`.
    pub(super) fn recent(&self, identity: &Identity, at: UnixMs) -> Option<RecentRow> {
        let state = self.state();
        let row = state.recent.get(identity).copied();
        row.filter(|row| at < row.at.plus(MINUTE))
    }

    /// Remembers the rows that were added, and forgets those that are too old.
    pub(super) fn remember(&self, added: HashMap<Identity, RecentRow>, now: UnixMs) {
        let mut state = self.state();
        state.recent.retain(|_, row| now < row.at.plus(MINUTE));
        for (identity, row) in added {
            if state.recent.len() < ROWS_MAX {
                state.recent.insert(identity, row);
            }
        }
    }
}

impl State {
    /// Adds calls to equal ones, or as new ones if there is room. While the disk takes no writes, equal ones are added to
    /// each other for longer than a minute.
    fn add(&mut self, new: PendingCall) {
        let identity = rules::identity(&new.call);
        if let Some(pending) = self.pending.get_mut(&identity) {
            pending.calls = pending.calls.saturating_add(new.calls);
            pending.last_at = pending.last_at.max(new.last_at);
            return;
        }
        let network = new.call.network();
        let of_network = self.of_network.get(&network).copied().unwrap_or(0);
        if self.pending.len() >= QUEUE_MAX || of_network >= OF_NETWORK_MAX {
            self.unrecorded = self.unrecorded.saturating_add(new.calls.into());
            return;
        }
        self.of_network.insert(network, of_network + 1);
        self.pending.insert(identity, new);
    }

    fn remove(&mut self, identity: &Identity) -> Option<PendingCall> {
        let pending = self.pending.remove(identity)?;
        let network = pending.call.network();
        let left = self.of_network.get(&network).map_or(0, |count| count - 1);
        if left == 0 {
            self.of_network.remove(&network);
        } else {
            self.of_network.insert(network, left);
        }
        Some(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProductId;
    use crate::refusals::Named;
    use crate::security::client_address::ClientAddress;

    fn call(device: usize, network: u8, at: i64) -> RefusedCall {
        RefusedCall {
            at: UnixMs(at),
            code: "session_active",
            call: "session/start".to_owned(),
            product: Some(ProductId::FIRST),
            named: Named {
                hardware_id: device.to_string(),
                ..Named::default()
            },
            address: ClientAddress::Direct([192, 0, 2, network].into()),
            detail: String::new(),
        }
    }

    #[test]
    fn equal_calls_wait_as_one_and_come_out_by_age() {
        let queue = Queue::default();
        for (device, at) in [(1, 5), (2, 3), (1, 9), (3, 1)] {
            queue.push(call(device, 1, at));
        }
        let taken = queue.take(2);
        let found: Vec<_> = taken
            .iter()
            .map(|pending| (pending.call.at.0, pending.last_at.0, pending.calls))
            .collect();
        assert_eq!(found, [(1, 1, 1), (3, 3, 1)]);
        queue.push(call(2, 1, 11));
        queue.give_back(&taken);
        let counts: Vec<u32> = queue.take(9).iter().map(|pending| pending.calls).collect();
        assert_eq!(counts, [1, 2, 2], "device 2 was refused again meanwhile");
        assert!(queue.take(9).is_empty() && queue.state().of_network.is_empty());
        assert_eq!(queue.unrecorded(), 0);
    }

    #[test]
    fn the_queue_is_bounded_and_counts_what_it_leaves_out() {
        let queue = Queue::default();
        for device in 0..OF_NETWORK_MAX + 7 {
            queue.push(call(device, 1, 1));
        }
        assert_eq!(
            queue.unrecorded(),
            7,
            "one network does not keep out others"
        );
        for network in 2..9 {
            for device in 0..OF_NETWORK_MAX {
                queue.push(call(device, network, 1));
            }
        }
        let left_out = OF_NETWORK_MAX * 8 - QUEUE_MAX + 7;
        assert_eq!(queue.unrecorded(), left_out as u64);
        // Equal ones are added nevertheless.
        queue.push(call(0, 1, 2));
        assert_eq!(queue.unrecorded(), left_out as u64);
        assert_eq!(queue.take(usize::MAX).len(), QUEUE_MAX);
    }

    #[test]
    fn a_row_takes_equal_calls_for_a_minute() {
        let (queue, identity) = (Queue::default(), [1; 16]);
        let row = RecentRow {
            id: 4,
            at: UnixMs(1000),
            code: "session_active",
        };
        queue.remember(HashMap::from([(identity, row)]), UnixMs(1500));
        assert_eq!(queue.recent(&identity, UnixMs(60_999)), Some(row));
        assert_eq!(queue.recent(&identity, UnixMs(61_000)), None);
        queue.remember(HashMap::new(), UnixMs(61_000));
        assert!(queue.state().recent.is_empty());
    }
}
