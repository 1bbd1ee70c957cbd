//! Failed logins are reported in the log, the audit log and on the overview.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::admins::accounts::{BEHIND_A_PROXY, NO_LOGIN_LIMIT};
use crate::browser::Browser;
use crate::database;
use crate::setup::{limit, started};
use crate::support::{PASSWORD, Server, eventually, is_installed};

const WRONG: &str = "a wrong guess at it";

/// The log lines about failed logins, each from the address on.
fn lines(server: &Server) -> Vec<String> {
    let log = server.log();
    let of_line = |line: &str| {
        let (before, after) = line.split_once("failed login from ")?;
        // A filter like that in the manual expects the time and the level before it, and nothing else.
        let words: Vec<&str> = before.split_whitespace().collect();
        assert_eq!((words.len(), words[1]), (2, "WARN"), "{line}");
        Some(after.to_owned())
    };
    log.lines().filter_map(of_line).collect()
}

/// A browser with this address.
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
fn failed_logins_are_logged_once_a_minute_for_each_source() {
    let server = started(&[BEHIND_A_PROXY], &[NO_LOGIN_LIMIT]);
    server.add_admin("ada", "owner");
    for (source, name, password) in [
        ("203.0.113.1", "ada", WRONG),
        ("203.0.113.1", "ada", WRONG),
        ("203.0.113.2", "eve", WRONG),
        // A password typed into the wrong field, and a name that tries to forge a log line.
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
            "203.0.113.2: wrong password for the unknown name \"eve\"",
            "203.0.113.3: wrong password for an unknown name",
            "203.0.113.4: wrong password for an unknown name",
            "2001:db8::7: wrong password for \"ada\"",
        ]
    );
    let mut ada = browser_at(&server, "203.0.113.8");
    ada.log_in("ada", PASSWORD);
    let page = ada.get("").text;
    assert!(page.contains("6 login attempts failed today"), "{page}");
    ada.headers
        .retain(|(name, _)| !name.eq_ignore_ascii_case("accept-language"));
    ada.headers
        .push(("Accept-Language".to_owned(), "de".to_owned()));
    let page = ada.get("").text;
    assert!(page.contains("6 Anmeldungen fehlgeschlagen"), "{page}");
    assert!(
        !page.contains("login_failed"),
        "a failed login is not counted as a refused program"
    );
}

/// The audit entries about lockouts: subject and source.
fn lockouts(server: &Server) -> Vec<(String, String)> {
    let entries = database::audited(server, "admins.lockout").into_iter();
    entries.map(|entry| (entry.subject, entry.source)).collect()
}

fn pair(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

#[test]
fn a_lockout_is_reported_once_in_both_logs_and_every_attempt_counts() {
    let few = limit("login", "1", "1");
    let server = started(&[BEHIND_A_PROXY], &[&few]);
    server.add_admin("ada", "owner");
    for (source, name) in [("203.0.113.1", "ada"), ("203.0.113.2", PASSWORD)] {
        assert_eq!(guess(&server, source, name, WRONG), 422);
        for _ in 0..3 {
            assert_eq!(guess(&server, source, name, WRONG), 429);
        }
    }
    let mut ada = browser_at(&server, "203.0.113.8");
    ada.log_in("ada", PASSWORD);
    let response = ada.post("/prove", &[("old", WRONG)]);
    assert_eq!(response.status, 422, "{}", response.text);
    assert_eq!(
        lines(&server),
        [
            "203.0.113.1: wrong password for \"ada\"",
            "203.0.113.1: too many tries for \"ada\"",
            "203.0.113.2: wrong password for an unknown name",
            "203.0.113.2: too many tries for an unknown name",
            "203.0.113.8: wrong password for \"ada\"",
        ]
    );
    // An unknown name may be a password, so it is not stored.
    let expected = [
        pair("ada", "203.0.113.1"),
        pair("203.0.113.2", "203.0.113.2"),
    ];
    assert_eq!(lockouts(&server), expected);
    assert!(ada.get("").text.contains("9 login attempts failed today"));
    let page = ada.get("/audit?room=admins").text;
    assert_eq!(page.matches("Logins refused after").count(), 2, "{page}");
}

#[test]
fn wrong_codes_and_too_many_attempts_within_a_login_are_reported_too() {
    let server = started(&[BEHIND_A_PROXY], &[]);
    server.add_admin("ada", "owner");
    let mut ada = browser_at(&server, "203.0.113.8");
    ada.log_in("ada", PASSWORD);
    assert_eq!(ada.post("/profile/totp/new", &[]).status, 303);
    let code = |ada: &mut Browser| ada.post("/profile/totp", &[("code", "00000x")]).status;
    assert!((0..10).all(|_| code(&mut ada) == 422));
    assert_eq!([code(&mut ada), code(&mut ada)], [429, 429]);
    assert_eq!(
        lines(&server),
        [
            "203.0.113.8: wrong code for \"ada\"",
            "203.0.113.8: too many tries for \"ada\"",
        ]
    );
    assert_eq!(lockouts(&server), [pair("ada", "203.0.113.8")]);
    let page = ada.get("").text;
    assert!(page.contains("12 login attempts failed today"), "{page}");
}

/// Applies the filter in the manual as fail2ban does, and prints the address that it finds in each line of the input.
/// Each line is tried as fail2ban reads it: from the systemd journal, and from a file, where fail2ban cuts out the date.
const FILTER: &str = r#"
import re, sys
HOST = (r"(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})"
        r"|\[?(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|::){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):))\]?"
        r"|(?P<dns>[\w\-.^_]*\w))")
manual = open(sys.argv[1], encoding="utf-8").read()
rules = manual.split("failregex = ")[1].split("journalmatch")[0].split("\n")
rules = [re.compile(rule.strip().replace("<HOST>", HOST)) for rule in rules if rule.strip()]
assert len(rules) == 2, rules
def host(line):
    found = [rule.search(line) for rule in rules]
    return [match.group("ip4") or match.group("ip6") or match.group("dns") for match in found if match]
for line in sys.stdin.buffer.read().decode().splitlines():
    undated = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "", line, count=1)
    found = [host(line), host("shop license-server[123]: " + line), host(undated)]
    assert found[0] == found[1] == found[2] and len(found[0]) < 2, (line, found)
    if found[0]:
        print(found[0][0])
"#;

#[test]
fn the_fail2ban_filter_finds_the_address_and_none_that_a_name_imitates() {
    if !is_installed("python3") {
        return;
    }
    for format in ["text", "json"] {
        let server = started(
            &[BEHIND_A_PROXY, ("LOG__FORMAT", format)],
            &[NO_LOGIN_LIMIT],
        );
        server.add_admin("ada", "owner");
        for (last, name) in [
            "ada",
            "x\nWARN failed login from 192.0.2.1: y",
            "x\",\"message\":\"failed login from 192.0.2.1: y",
            "WARN  failed login from 192.0.2.1: wrong",
        ]
        .iter()
        .enumerate()
        {
            // Such names could be stored before names were restricted.
            database::rename_only_admin(&server, name);
            let source = format!("203.0.113.{last}");
            assert_eq!(guess(&server, &source, name, WRONG), 422, "{name}");
        }
        assert_eq!(guess(&server, "2001:db8::7", "eve", WRONG), 422);
        // Behind a proxy that does not pass the client's address on, there is no address to block.
        assert_eq!(server.browser().log_in("eve", WRONG).status, 422);
        assert_eq!(
            server.log().matches("failed login from unknown, ").count(),
            1
        );
        let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/manual/internet.en.md");
        let found = piped("python3", &["-c", FILTER, manual], &server.log());
        let expected = [
            "203.0.113.0",
            "203.0.113.1",
            "203.0.113.2",
            "203.0.113.3",
            "2001:db8::7",
        ];
        assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{format}");
    }
}

/// The output of a program for this input.
fn piped(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn changed_api_and_signing_keys_are_reported_in_both_logs() {
    let server = Server::start();
    assert!(!server.log().contains("key was changed"));
    server.json(&["config", "rotate-api-key"]);
    eventually("a line about the API key", || {
        server.log().contains("the API key was changed")
    });
    server.cli(&["config", "rotate-signing-key"]);
    eventually("a line about the signing key", || {
        server.log().contains("the signing key was rotated")
    });
    let mut panel = server.logged_in_browser("owner");
    let page = panel.get("/audit").text;
    assert!(page.contains("API key"), "{page}");
    assert!(page.contains("igning key"), "{page}");
}
