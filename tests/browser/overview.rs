//! The start page shows everything on one screen, what needs attention first.

use serde_json::json;

use crate::setup;
use crate::shop;
use crate::support::eventually;

/// The size of the window in which the page must not scroll.
const WINDOW: (u32, u32) = (1280, 900);

#[test]
fn the_overview_fits_one_screen_and_begins_with_what_needs_attention() {
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let _shop = shop::add_sample_data(&server, "");
    let mut panel = server.logged_in_browser("support");
    eventually("refusals", || {
        panel.get("").text.contains("id=\"refused\"")
            && panel.get("/refusals").text.contains("<tbody>")
    });
    for language in ["en", "de"] {
        chrome.cookie("lang", language);
        chrome.size(WINDOW.0, WINDOW.1);
        chrome.open_page("");
        let height = chrome.eval("document.documentElement.scrollHeight");
        assert!(
            height.as_u64().unwrap() <= u64::from(WINDOW.1),
            "{language}: {height}"
        );
        let first = chrome.script("return document.querySelector('main h2').id;", &json!([]));
        assert_eq!(first, "notices");
    }
}
