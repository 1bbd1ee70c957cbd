//! Clocks, waiting, and threads that start at the same moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The system clock in Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Waits until `span` after `since` has passed.
pub fn wait_until(since: Instant, span: Duration) {
    while let Some(left) = span
        .checked_sub(since.elapsed())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}

/// Runs a test that needs a fast enough machine, and repeats it while it returns `None`.
pub fn retry_while_too_slow(test: impl Fn() -> Option<()>) {
    let completed = (0..10).any(|_| test().is_some());
    assert!(completed, "this machine is too slow for the test");
}

/// Runs `operation` in `count` threads that start at the same moment; returns their results.
pub fn run_together<T: Send>(count: usize, operation: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = std::sync::Barrier::new(count);
    let run = |number| {
        barrier.wait();
        operation(number)
    };
    let run = &run;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || run(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}
