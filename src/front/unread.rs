//! Responses that wait for their clients: how much memory all of them may take. Anyone can ask for pages and read none. If
//! they take too much, the connections whose clients have read nothing for longest are cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Responses up to this length do not count. Those to programs are hardly longer.
const UNCOUNTED_LEN: u64 = 2 * 1024;
/// How much of a response TLS keeps encrypted, beside the response itself, in bytes.
pub(super) const ENCRYPTED_LEN_MAX: usize = 16 * 1024;

/// The responses of all connections.
pub(super) struct UnreadResponses {
    len_max: u64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// The counted bytes of all responses that have not been written completely.
    len: u64,
    last_serial: u64,
    /// Connections whose clients do not read, by the serial number since which they do not.
    stalled: BTreeMap<u64, Stalled>,
}

struct Stalled {
    len: u64,
    cut: Arc<Notify>,
}

/// The response of one connection, from when it is ready until it is written completely.
pub(super) struct UnreadResponse {
    all: Arc<UnreadResponses>,
    cut: Arc<Notify>,
    /// Its counted bytes; 0 without a response.
    len: AtomicU64,
    /// The serial number since which the client does not read; 0 while it reads.
    stalled_since: AtomicU64,
}

impl UnreadResponses {
    /// All of them may take about `len_max` bytes.
    pub(super) fn new(len_max: u64) -> Arc<Self> {
        Arc::new(Self {
            len_max,
            table: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnreadResponse {
    /// None yet, for a new connection.
    pub(super) fn new(all: Arc<UnreadResponses>) -> Self {
        Self {
            all,
            cut: Arc::default(),
            len: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
        }
    }

    /// A response with a body of `body_len` bytes is ready to be written. Cuts others if all take too much.
    pub(super) fn ready(&self, body_len: u64) {
        self.written();
        if body_len <= UNCOUNTED_LEN {
            return;
        }
        let len = body_len + body_len.min(ENCRYPTED_LEN_MAX as u64);
        self.len.store(len, Ordering::Relaxed);
        let mut table = self.all.lock();
        table.len += len;
        while table.len > self.all.len_max
            && let Some((_, stalled)) = table.stalled.pop_first()
        {
            table.len = table.len.saturating_sub(stalled.len);
            stalled.cut.notify_one();
        }
    }

    /// The client does not read at the moment.
    pub(super) fn stalled(&self) {
        let len = self.len.load(Ordering::Relaxed);
        if len == 0 || self.stalled_since.load(Ordering::Relaxed) != 0 {
            return;
        }
        let mut table = self.all.lock();
        table.last_serial += 1;
        let serial = table.last_serial;
        let cut = self.cut.clone();
        table.stalled.insert(serial, Stalled { len, cut });
        self.stalled_since.store(serial, Ordering::Relaxed);
    }

    /// The client has read some of it.
    pub(super) fn progressed(&self) {
        let serial = self.stalled_since.swap(0, Ordering::Relaxed);
        if serial != 0 && self.all.lock().stalled.remove(&serial).is_none() {
            // It is being cut, and does not count any more.
            self.len.store(0, Ordering::Relaxed);
        }
    }

    /// The response has been written completely, or never will be.
    pub(super) fn written(&self) {
        self.progressed();
        let len = self.len.swap(0, Ordering::Relaxed);
        if len > 0 {
            let mut table = self.all.lock();
            table.len = table.len.saturating_sub(len);
        }
    }

    /// Waits until the connection is cut.
    pub(super) async fn cut(&self) {
        self.cut.notified().await;
    }
}

impl Drop for UnreadResponse {
    fn drop(&mut self) {
        self.written();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn is_cut(response: &UnreadResponse) -> bool {
        let cut = std::pin::pin!(response.cut());
        cut.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_client_that_has_read_nothing_for_longest_loses_its_response() {
        let all = UnreadResponses::new(3 * 2 * 10_000);
        let connection = || UnreadResponse::new(all.clone());
        let [first, second, third, fourth] = [(); 4].map(|()| connection());
        for waiting in [&first, &second, &third] {
            waiting.ready(10_000);
            waiting.stalled();
        }
        first.progressed();
        first.stalled();
        fourth.ready(10_000);
        let cut = [&first, &second, &third, &fourth].map(is_cut);
        assert_eq!(cut, [false, true, false, false]);
        drop(second);
        third.written();
        let fifth = connection();
        fifth.ready(10_000);
        assert!(!is_cut(&first), "the third one has made room");
        fifth.ready(100);
        assert_eq!(all.lock().len, 2 * 2 * 10_000);
        drop((first, third, fourth, fifth));
        let table = all.lock();
        assert!(table.stalled.is_empty() && table.len == 0);
    }

    #[test]
    fn short_responses_and_those_that_are_read_are_never_cut() {
        let all = UnreadResponses::new(10_000);
        let connection = || UnreadResponse::new(all.clone());
        let short: Vec<_> = (0..100).map(|_| connection()).collect();
        for waiting in &short {
            waiting.ready(UNCOUNTED_LEN);
            waiting.stalled();
        }
        let long: Vec<_> = (0..10).map(|_| connection()).collect();
        for being_read in &long {
            being_read.ready(50_000);
        }
        assert!(!short.iter().chain(&long).any(is_cut));
    }
}
