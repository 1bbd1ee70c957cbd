//! Properties of sessions that must hold in every situation, checked on a real database in this process, with
//! clocks that are set by hand.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests may panic, and read the database directly"
)]

mod dates;
mod folding;
mod in_process;
#[path = "../support/linear.rs"]
mod judge;
mod linear;
mod lists;
mod model;
mod parsers;
mod pauses;
mod preferences;
mod races;
mod sessions;
mod shop;
mod texts;

/// Rounds of a long test: `default`, or the value of `LICENSE_TEST_ROUNDS`.
fn rounds(default: u32) -> u32 {
    std::env::var("LICENSE_TEST_ROUNDS").map_or(default, |text| text.parse().unwrap())
}
