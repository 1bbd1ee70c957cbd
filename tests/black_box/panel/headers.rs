//! Unusual headers of browsers, on every page and every form.

use std::fmt::Write as _;

use crate::panel::routes::ROWS;
use crate::shop;
use crate::support::{Response, Server};

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

#[test]
fn the_style_sheet_is_compressed_for_browsers_that_say_so() {
    let server = Server::start();
    let client = server.client();
    let path = "/lizenzserver/panel.css";
    let plain = client.get(path);
    assert_eq!(plain.header("content-encoding"), None);
    let gzip = client.get_with(path, &[("Accept-Encoding", "gzip, deflate, br")]);
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    for response in [&plain, &gzip] {
        assert_eq!(response.header("vary"), Some("Accept-Encoding"));
        assert_eq!(
            response.header("content-type"),
            plain.header("content-type")
        );
    }
    // Both have an entity tag of their own: a browser that has the file gets it once.
    let (plain_tag, gzip_tag) = (plain.header("etag").unwrap(), gzip.header("etag").unwrap());
    assert_ne!(plain_tag, gzip_tag);
    for (accepted, known, status) in [
        ("identity", plain_tag, 304),
        ("gzip", gzip_tag, 304),
        ("gzip", plain_tag, 200),
        ("gzip", "*", 304),
    ] {
        let headers = [("Accept-Encoding", accepted), ("If-None-Match", known)];
        let again = client.get_with(path, &headers);
        assert_eq!(again.status, status, "{accepted} {known}");
        assert_eq!(again.text.is_empty(), status == 304, "{accepted} {known}");
    }
    let length = |response: &Response| -> usize {
        let length = response.header("content-length").unwrap();
        length.parse().unwrap()
    };
    assert!(
        length(&gzip) < length(&plain) / 2,
        "{} of {}",
        length(&gzip),
        length(&plain)
    );
    let page = client.get_with("/lizenzserver/login", &[("Accept-Encoding", "gzip")]);
    assert_eq!(page.header("content-encoding"), None, "{page:?}");
}
