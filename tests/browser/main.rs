//! The panel in a real browser: Chromium, driven over WebDriver. Where there is no Chromium the tests say
//! that they were skipped; in CI that is a failure. Each test has a server and a window of its own, without a cookie.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may stop the test run, and measures time itself"
)]

#[path = "../support/browser.rs"]
#[expect(dead_code, reason = "the harness serves other tests too")]
mod browser;
#[expect(dead_code, reason = "pages that need the rest are being built")]
mod driver;
#[path = "../support/shop.rs"]
#[expect(dead_code, reason = "pages that need the rest are being built")]
mod shop;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the harness serves other tests too")]
mod support;

/// What several subjects need: the pages of the panel, a shop with something in it.
mod scene;

mod accounts;
mod axe;
mod budgets;
mod keyboard;
mod markup;
mod picture;
mod walks;
