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
mod disk;
mod history;
#[path = "../support/linear.rs"]
#[expect(dead_code, reason = "programs here keep quiet once they have ended")]
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
mod stop;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use disk::Disk;
use support::Server;

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

/// Waits for a moment that passes quickly.
fn soon(what: &str, mut is_there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_there() {
        assert!(Instant::now() < deadline, "it never came: {what}");
        std::thread::yield_now();
    }
}

/// Runs a command, and ends it after a while: by `kill -9`, or with the power of its disk.
fn cut_off(server: &Server, order: &[&str], disk: Option<&Disk>, wait: impl FnOnce()) {
    let mut command = server.command(order);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let fuse = disk.map(Disk::fuse);
    let mut child = command.spawn().unwrap();
    wait();
    if let Some(fuse) = fuse {
        fuse.blow();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if let Some(disk) = disk {
        disk.back();
    }
}

/// Says aloud that a test did not run, for want of a tool. In CI that is a failure.
fn skipped(missing: &str) {
    let in_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(!in_ci, "{missing}: .ci/run installs it");
    not_here(missing);
}

/// Says aloud that this machine does not let a test run.
fn not_here(reason: &str) {
    // Not `eprintln!`: the output of a test that passes is not shown.
    let said = format!("SKIPPED, a crash test: {reason}\n");
    std::io::stderr().write_all(said.as_bytes()).unwrap();
}
