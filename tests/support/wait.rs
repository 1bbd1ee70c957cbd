//! Waiting for a condition.

use std::time::{Duration, Instant};

use super::TIMEOUT;

/// The shortest pause between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Polls until `condition` is true; fails after [`TIMEOUT`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    let mut asked = Instant::now();
    while !condition() {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        // A condition that starts a process each time is not to take the whole processor.
        std::thread::park_timeout(asked.elapsed().clamp(POLL, 10 * POLL));
        asked = Instant::now();
    }
}
