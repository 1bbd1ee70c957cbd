//! The panel in a real browser: Chromium, driven over WebDriver. Without Chromium the tests print that they are
//! skipped; in CI that is a failure. Each test has a server of its own and a window without cookies.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may stop the test run, and measures time itself"
)]

#[path = "../support/browser.rs"]
#[expect(dead_code, reason = "other test crates use the rest")]
mod browser;
#[expect(dead_code, reason = "not every helper is used yet")]
mod driver;
#[path = "../support/shop.rs"]
#[expect(dead_code, reason = "not every helper is used yet")]
mod shop;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "other test crates use the rest")]
mod support;

/// Set-up that several test modules share.
mod setup;

mod accounts;
mod axe;
mod budgets;
mod daily;
mod forms;
mod keyboard;
mod markup;
mod overview;
mod picture;
mod tables;
mod walks;
