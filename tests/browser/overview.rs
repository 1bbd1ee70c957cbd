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

#[test]
fn a_printed_page_has_its_whole_width_for_what_it_is_about() {
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let _shop = shop::add_sample_data(&server, "");
    chrome.open_page("/licenses/1");
    chrome.print();
    let width = chrome.eval("document.getElementById('main').offsetWidth");
    assert!(width.as_u64().unwrap() > 1200, "{width}");
    let buttons = "[...document.querySelectorAll('.btn, .rail, .bar')].filter((one) => one.checkVisibility()).length";
    assert_eq!(chrome.eval(buttons), 0);
}
