//! The size of what a browser has to load, and that pages render without scripts.

use serde_json::json;

use crate::browser::HOME;
use crate::setup::{self, pages};
use crate::shop;

/// CSS and JS together, compressed.
const ASSETS_MAX_BYTES: u64 = 12_000;

#[test]
fn style_sheet_and_script_are_small() {
    let Some((_server, chrome)) = setup::start() else {
        return;
    };
    chrome.open_page("/login");
    let packed = chrome.script(
        "const packed = async (path) => { \
           const body = (await fetch(path)).body.pipeThrough(new CompressionStream('gzip')); \
           return (await new Response(body).arrayBuffer()).byteLength; }; \
         return Promise.all(arguments[0].map(packed));",
        &json!([[format!("{HOME}/panel.css"), format!("{HOME}/panel.js")]]),
    );
    let sizes: Vec<u64> = packed
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap())
        .collect();
    assert!(
        sizes.iter().sum::<u64>() < ASSETS_MAX_BYTES && sizes.len() == 2,
        "{sizes:?}"
    );
}

#[test]
fn every_page_is_painted_without_script() {
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let shop = shop::add_sample_data(&server, "");
    let mut problems = String::new();
    let paths = pages(&shop, &mut problems);
    chrome.without_script();
    for path in paths {
        chrome.open_page(&path);
        // The entry exists once something is drawn.
        chrome.until("performance.getEntriesByName('first-contentful-paint').length");
        let blocking =
            chrome.eval("document.querySelectorAll('script:not([type=module]), noscript').length");
        assert_eq!(blocking, 0, "{path}");
        // What needs the script is not there without it.
        let dead = chrome.eval("[...document.querySelectorAll('button[type=button], [data-copy], [data-all]')].filter((one) => one.checkVisibility()).length");
        assert_eq!(dead, 0, "{path}");
    }
    assert!(problems.is_empty(), "{problems}");
}
