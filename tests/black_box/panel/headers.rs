//! Unusual headers of browsers, on every page and every form.

use std::fmt::Write as _;

use crate::panel::routes::ROWS;
use crate::shop;
use crate::support::Server;

/// Unusual headers, and those that only the panel's script sends.
const UNUSUAL_HEADERS: &[&[(&str, &str)]] = &[
    &[("X-Fragment", "1")],
    &[
        ("X-Fragment", "0"),
        ("If-None-Match", "W/\"x\", *"),
        ("Range", "bytes=9-1"),
        ("Accept", "image/png"),
    ],
    &[
        ("X-Fragment", "1"),
        ("Accept-Language", ",;q=x,-,*;q=9"),
        ("Cookie", "lang=xx; theme=\"; done"),
        ("Referer", "::"),
        ("Origin", "null"),
        ("User-Agent", "\u{ff}"),
        ("Forwarded", "for=;by"),
        ("X-Forwarded-For", "unknown"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("If-Modified-Since", "yesterday"),
    ],
];

#[test]
fn no_header_breaks_a_page_or_a_form() {
    let server = Server::start();
    server.json(&["limit", "set", "login", "--per-minute", "0"]);
    let shop = shop::add_sample_data(&server, "");
    let mut browsers = [server.logged_in_browser("owner"), server.browser()];
    let mut failures = String::new();
    for (route, _, _) in ROWS.iter().filter(|(route, _, _)| *route != "POST /logout") {
        let path = shop.path(route.split(' ').nth(1).unwrap()).unwrap();
        for browser in &mut browsers {
            let csrf_token = browser.csrf_token();
            for unusual in UNUSUAL_HEADERS {
                let usual = browser.headers.clone();
                let pairs = unusual
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
                browser.headers.extend(pairs);
                let answer = if route.starts_with("GET") {
                    browser.get(&path)
                } else {
                    // Without fields, most forms are returned with errors.
                    browser.post_bare(&path, &[("csrf_token", &csrf_token)])
                };
                browser.headers = usual;
                if answer.status >= 500 && !answer.text.is_empty() {
                    writeln!(
                        failures,
                        "{route}, {unusual:?}: {} {}",
                        answer.status, answer.text
                    )
                    .unwrap();
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
