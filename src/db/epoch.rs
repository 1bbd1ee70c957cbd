//! Counts the changes that nobody in this process could have foreseen: by a command, by an administrator.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// What is remembered from the file is true for one epoch: when the number has changed, look again.
#[derive(Debug)]
pub(super) struct Generation {
    number: AtomicU64,
    changed: Notify,
}

impl Default for Generation {
    /// The first epoch has the number 1: 0 is free for what is to be believed in none.
    fn default() -> Self {
        Self {
            number: AtomicU64::new(1),
            changed: Notify::new(),
        }
    }
}

impl Generation {
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    pub(super) fn next(&self) {
        self.number.fetch_add(1, Ordering::SeqCst);
        // One that is not listening yet finds the notice when it does.
        self.changed.notify_one();
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
