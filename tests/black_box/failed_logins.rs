//! That somebody tries to get in is seen: in the log, on the overview, in numbers.

use crate::accounts::{BEHIND_A_PROXY, NO_LOGIN_LIMIT};
use crate::browser::Browser;
use crate::scene::started;
use crate::support::{PASSWORD, Server, eventually};

const WRONG: &str = "a wrong guess at it";

/// The lines of the log about failed logins, from the address on.
fn lines(server: &Server) -> Vec<String> {
    let log = server.log();
    let of_line = |line: &str| {
        let (before, after) = line.split_once("failed login from ")?;
        // What a filter like that of the README goes by: a moment, the level, nothing else.
        let words: Vec<&str> = before.split_whitespace().collect();
        assert_eq!((words.len(), words[1]), (2, "WARN"), "{line}");
        Some(after.to_owned())
    };
    log.lines().filter_map(of_line).collect()
}

/// A browser at this address.
fn browser_at(server: &Server, source: &str) -> Browser {
    let mut browser = server.browser();
    let from = ("X-Forwarded-For".to_owned(), source.to_owned());
    browser.headers.push(from);
    browser
}

fn guess(server: &Server, source: &str, name: &str, password: &str) -> u16 {
    browser_at(server, source).log_in(name, password).status
}

#[test]
fn failed_logins_stand_in_the_log_once_a_source_and_minute() {
    let server = started(&[BEHIND_A_PROXY], &[NO_LOGIN_LIMIT]);
    server.admin("ada", "owner");
    for (source, name, password) in [
        ("203.0.113.1", "ada", WRONG),
        ("203.0.113.1", "ada", WRONG),
        ("203.0.113.2", "eve", WRONG),
        // A password in the wrong field, and somebody who would like to write the log.
        ("203.0.113.3", PASSWORD, WRONG),
        ("203.0.113.4", "x\nfailed login from 192.0.2.1: ", WRONG),
        ("2001:db8::7", "ada", WRONG),
    ] {
        assert_eq!(guess(&server, source, name, password), 422, "{name}");
    }
    assert_eq!(guess(&server, "203.0.113.9", "ada", PASSWORD), 303);
    assert_eq!(
        lines(&server),
        [
            "203.0.113.1: wrong password for \"ada\"",
            "203.0.113.2: wrong password for an unknown name",
            "203.0.113.3: wrong password for an unknown name",
            "203.0.113.4: wrong password for an unknown name",
            "2001:db8::7: wrong password for \"ada\"",
        ]
    );
    let mut ada = browser_at(&server, "203.0.113.8");
    ada.log_in("ada", PASSWORD);
    let page = ada.get("").text;
    assert!(page.contains("tried to log in 6 times today"), "{page}");
    ada.headers
        .retain(|(name, _)| !name.eq_ignore_ascii_case("accept-language"));
    ada.headers
        .push(("Accept-Language".to_owned(), "de".to_owned()));
    let page = ada.get("").text;
    assert!(
        page.contains("6-mal vergeblich versucht, sich anzumelden"),
        "{page}"
    );
    assert!(!page.contains("login_failed"), "it is no refused program");
}

#[test]
fn slowed_down_logins_and_wrong_codes_are_seen_too() {
    let limit = ["limit", "set", "login", "--per-minute", "1", "--burst", "1"];
    let server = started(&[BEHIND_A_PROXY], &[&limit]);
    server.admin("ada", "owner");
    assert_eq!(guess(&server, "203.0.113.1", "ada", WRONG), 422);
    assert_eq!(guess(&server, "203.0.113.1", "ada", WRONG), 429);
    let mut ada = browser_at(&server, "203.0.113.8");
    ada.log_in("ada", PASSWORD);
    let told = ada.post("/prove", &[("old", WRONG)]);
    assert_eq!(told.status, 422, "{}", told.text);
    let told = lines(&server);
    assert_eq!(
        told,
        [
            "203.0.113.1: wrong password for \"ada\"",
            "203.0.113.8: wrong password for \"ada\"",
        ]
    );
    assert!(ada.get("").text.contains("tried to log in 3 times today"));
}

#[test]
fn another_api_key_and_another_signing_key_are_seen_in_log_and_audit_log() {
    let server = Server::start();
    assert!(!server.log().contains("key was changed"));
    server.json(&["config", "rotate-api-key"]);
    eventually("a line about the API key", || {
        server.log().contains("the API key was changed")
    });
    server.cli(&["config", "rotate-signing-key"]);
    eventually("a line about the signing key", || {
        server.log().contains("the signing key was changed")
    });
    let mut panel = server.panel("owner");
    let page = panel.get("/audit").text;
    assert!(page.contains("API key"), "{page}");
    assert!(page.contains("igning key"), "{page}");
}
