//! How long this machine held its processes up: time in which a server could not have kept a limit either.

use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// How often the watching thread wants to run.
const EVERY: Duration = Duration::from_millis(20);
/// From this delay on, it was held up.
const NOTED_FROM: Duration = Duration::from_millis(60);

/// The delays that the watching thread has noticed, and the last moment at which it ran.
struct Noticed {
    /// Beginning and end of each.
    stalls: Vec<(Instant, Instant)>,
    ran_at: Option<Instant>,
}

static NOTICED: Mutex<Noticed> = Mutex::new(Noticed {
    stalls: Vec::new(),
    ran_at: None,
});
static RAN: Condvar = Condvar::new();
static WATCH: Once = Once::new();

/// Notices from now on how long this process does not run.
pub fn watch() {
    WATCH.call_once(|| {
        std::thread::spawn(|| {
            let mut before = Instant::now();
            loop {
                std::thread::park_timeout(EVERY);
                let now = Instant::now();
                let mut noticed = NOTICED.lock().unwrap_or_else(PoisonError::into_inner);
                if now - before >= EVERY + NOTED_FROM {
                    noticed.stalls.push((before + EVERY, now));
                }
                noticed.ran_at = Some(now);
                drop(noticed);
                RAN.notify_all();
                before = now;
            }
        });
    });
}

/// The time between two moments in which this machine ran its processes.
pub fn awake_between(from: Instant, to: Instant) -> Duration {
    watch();
    let mut noticed = NOTICED.lock().unwrap_or_else(PoisonError::into_inner);
    // Whether it is held up at this moment is known when the thread has run.
    while noticed.ran_at.is_none_or(|ran_at| ran_at < to) {
        noticed = RAN.wait(noticed).unwrap_or_else(PoisonError::into_inner);
    }
    let held_up: Duration = noticed
        .stalls
        .iter()
        .map(|(began, ended)| {
            (*ended)
                .min(to)
                .saturating_duration_since((*began).max(from))
        })
        .sum();
    to.saturating_duration_since(from).saturating_sub(held_up)
}

/// The longest time since a moment in which it held them up.
pub fn longest_since(from: Instant) -> Duration {
    let to = Instant::now();
    // Every stall up to now is known then.
    awake_between(from, to);
    let noticed = NOTICED.lock().unwrap_or_else(PoisonError::into_inner);
    let within = noticed
        .stalls
        .iter()
        .map(|(began, ended)| ended.saturating_duration_since((*began).max(from)));
    within.max().unwrap_or_default()
}

/// The time since a moment in which this machine ran its processes.
pub fn awake_since(from: Instant) -> Duration {
    awake_between(from, Instant::now())
}
