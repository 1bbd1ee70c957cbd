//! Clocks, waiting, and threads that start at the same moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::stalls;

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

/// A server that is held up for longer than this may note a pause, after which every timeout starts again.
const STALL: Duration = Duration::from_secs(1);

/// Runs a test that needs a fast enough machine, and repeats it while it returns `None`, or if it fails and this machine
/// stalled meanwhile.
pub fn retry_while_too_slow(test: impl Fn() -> Option<()>) {
    let completed = (0..10).any(|_| {
        let begun = Instant::now();
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(&test)) {
            Ok(completed) => completed.is_some(),
            Err(_) if stalls::longest_since(begun) >= STALL => false,
            Err(failure) => std::panic::resume_unwind(failure),
        }
    });
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

/// The Mann-Whitney U test of two samples, in standard deviations.
#[expect(clippy::cast_precision_loss, reason = "the counts are a few thousand")]
pub fn rank_sum(left: &[Duration], right: &[Duration]) -> f64 {
    let mut all: Vec<(Duration, bool)> = left.iter().map(|time| (*time, true)).collect();
    all.extend(right.iter().map(|time| (*time, false)));
    all.sort();
    let ranks = all
        .iter()
        .enumerate()
        .filter(|(_, (_, left))| *left)
        .map(|(rank, _)| rank as f64 + 1.0);
    let (n, m) = (left.len() as f64, right.len() as f64);
    let u = ranks.sum::<f64>() - n * (n + 1.0) / 2.0;
    (u - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}
