//! A generation counter for changes that other parts of this process cannot know of: by commands, or by
//! administrators.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Data cached from the database is valid for one generation: when the number has changed, read again.
#[derive(Debug)]
pub(super) struct Generation {
    number: AtomicU64,
    changed: Notify,
}

impl Default for Generation {
    /// Starts at 1: 0 can mark data that is valid in no generation.
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
        // A listener that does not wait yet gets the notification when it does.
        self.changed.notify_one();
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
