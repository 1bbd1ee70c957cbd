//! What was promised, when the server dies, the disk is full or the file is locked: the real executable
//! under load, and a log of what it acknowledged, held against the file.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test may stop the test run, and looks into the file and tells by itself"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the harness serves other tests too")]
mod support;

mod book;
mod load;

mod backups;
mod first_start;
mod foreign_lock;
mod full_disk;
mod kill;
mod stop;

use std::time::{Duration, Instant};

/// Lets time pass while others work.
fn pass(span: Duration) {
    let deadline = Instant::now() + span;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Some span up to `most`, another one each time.
fn up_to(most: Duration) -> Duration {
    most.mul_f64(rand::random_range(0.0..1.0))
}
