//! What must hold of sessions whatever happens, tried on the real file in this process, with clocks that
//! are turned by hand.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may stop the test run, and looks into the file by itself"
)]

mod dates;
mod folding;
mod house;
#[path = "../support/linear.rs"]
mod judge;
mod linear;
mod model;
mod parsers;
mod pauses;
mod races;
mod sessions;
mod tastes;
mod texts;

/// Rounds of a long test: `default`, or as many as `LICENSE_TEST_ROUNDS` says.
fn rounds(default: u32) -> u32 {
    std::env::var("LICENSE_TEST_ROUNDS").map_or(default, |text| text.parse().unwrap())
}
