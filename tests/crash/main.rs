//! What is guaranteed when the server is killed, the disk is full or the database is locked: the real executable
//! runs under load, and a log of what it acknowledged is compared with its database.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    unreachable_pub,
    reason = "tests may panic, read the database directly and print results"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "other tests use more of these helpers")]
mod support;

mod ack_log;
mod disk;
mod erasure;
mod history;
#[path = "../support/linear.rs"]
#[expect(
    dead_code,
    reason = "these programs send nothing after they have ended"
)]
mod judge;
mod load;

mod backups;
mod bad_disk;
mod damage;
mod first_start;
mod foreign_lock;
mod full_disk;
mod kill;
mod litestream;
mod migration;
mod power_cut;
mod restore;
mod standby;
mod stop;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use disk::Disk;
use support::Server;

/// Waits while other threads work.
fn wait_for(span: Duration) {
    let deadline = Instant::now() + span;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// A random duration of at most `most`.
fn random_up_to(most: Duration) -> Duration {
    most.mul_f64(rand::random_range(0.0..1.0))
}

/// Waits, without pausing, for a state that may last only a moment.
fn spin_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_true() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::yield_now();
    }
}

/// Runs a command, and interrupts it when `wait` returns: by `kill -9`, or by cutting the power of its disk.
fn run_interrupted(server: &Server, args: &[&str], disk: Option<&Disk>, wait: impl FnOnce()) {
    let mut command = server.command(args);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let power = disk.map(Disk::power_switch);
    let mut child = command.spawn().unwrap();
    wait();
    if let Some(power) = power {
        power.cut();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if let Some(disk) = disk {
        disk.restore_power();
    }
}

/// Prints that a test was skipped because a tool is missing. In CI that is a failure.
fn skipped(missing: &str) {
    let in_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(!in_ci, "{missing}: .ci/run installs it");
    skipped_here(missing);
}

/// Prints that a test was skipped because this machine does not permit it.
fn skipped_here(reason: &str) {
    // Not `eprintln!`: the output of a test that passes is not shown.
    let said = format!("SKIPPED, a crash test: {reason}\n");
    std::io::stderr().write_all(said.as_bytes()).unwrap();
}
