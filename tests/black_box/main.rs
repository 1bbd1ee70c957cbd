//! The executable as its users meet it: a process, a port, HTTPS. Each test has a server of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test may stop the test run, and measures time itself"
)]

#[path = "../support/mod.rs"]
mod support;

mod sessions;
