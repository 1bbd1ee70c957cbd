//! What a browser has to load, and that it shows a page without any script.

use serde_json::json;

use crate::browser::HOME;
use crate::scene::{self, pages};
use crate::shop;

/// CSS and JS together, compressed.
const LOOK_MAX: u64 = 12_000;

#[test]
fn the_look_and_the_script_are_small() {
    let Some((_server, chrome)) = scene::stage() else {
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
        sizes.iter().sum::<u64>() < LOOK_MAX && sizes.len() == 2,
        "{sizes:?}"
    );
}

#[test]
fn every_page_is_painted_without_script() {
    let Some((server, chrome)) = scene::owner() else {
        return;
    };
    let shop = shop::open(&server, "");
    let mut wrong = String::new();
    let paths = pages(&shop, &mut wrong);
    chrome.without_script();
    for path in paths {
        chrome.open_page(&path);
        // Says so only when something was drawn.
        chrome.until("performance.getEntriesByName('first-contentful-paint').length");
        let waits =
            chrome.eval("document.querySelectorAll('script:not([type=module]), noscript').length");
        assert_eq!(waits, 0, "{path}");
    }
    assert!(wrong.is_empty(), "{wrong}");
}
