//! The log: which requests add lines, their levels and their formats.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::setup::{UNKNOWN, started};
use crate::support::{PASSWORD, Server, connect_tcp, eventually, identity, rounds};
use crate::wire;

/// The default log level.
const INFO: (&str, &str) = ("LOG__LEVEL", "info");
const TRUSTING: (&str, &str) = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");

#[test]
fn unauthenticated_requests_do_not_add_a_line_each() {
    let mut server = started(&[INFO, TRUSTING], &[]);
    server.logged_in_browser("owner");
    let client = server.client().with_key("wrong");
    let before = server.log().lines().count();
    let count = rounds(12);
    let paths = [
        "/health",
        "/metrics",
        "/",
        "/wp-login.php",
        "/lizenzserver",
        "/lizenzserver/licenses/abc",
        "/lizenzserver/setup?token=x",
        "/lizenzserver/sessions?before=x",
        "/api/license/version?version=x",
        "/api/license/version",
        "/versions.json",
    ];
    for round in 0..count {
        let from = format!("203.0.113.{}", round % 200);
        for line in [
            ("X-Forwarded-For", from.as_str()),
            ("X-Forwarded-For", "unknown"),
            ("Via", "x"),
        ] {
            for path in paths {
                client.get_with(path, &[line]);
            }
            client.call_with("activate", &identity(UNKNOWN, "x"), &[line]);
            client.send("session/start", b"{", &[line]);
        }
        let site = json!({ "domain": "nobody.example", "request_id": "0".repeat(64) }).to_string();
        let mut tls = wire::tls(&server);
        for request in [
            wire::post(&server, "/api/site/request", site.len(), &site),
            wire::post(&server, "/lizenzserver/login", 3, "a=b"),
            wire::post(&server, "/lizenzserver/licenses/1/revoke", 3, "a=b"),
            wire::get(&server, "/lizenzserver/licenses", "x-fragment: 1\r\n"),
        ] {
            assert!(wire::exchange(&mut tls, &request).is_some());
        }
        // Not TLS, and not HTTP.
        connect_tcp(server.port())
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .unwrap();
        wire::exchange(&mut wire::tls(&server), b"nonsense\r\n\r\n");
        drop(wire::tls(&server));
    }
    assert_eq!(server.stop(), Some(0));
    let log = server.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    // One line a minute for each kind of wrong call, with the address of one of them.
    let (wrong_calls, lines): (Vec<&str>, Vec<&str>) = lines
        .iter()
        .partition(|line| line.contains("a program's call"));
    assert!(wrong_calls.len() <= 3, "{count} rounds: {wrong_calls:#?}");
    // One line each for the proxy that forwards no address, the rejected form, and the stop.
    assert!(lines.len() <= 4, "{count} rounds: {lines:#?}");
    for word in ["Watcher", "guard", "forwarding", "203.0.113."] {
        assert!(!lines.concat().contains(word), "{word}: {log}");
    }
}

#[test]
fn lines_of_the_framework_appear_only_at_debug_level() {
    let server = started(&[("LOG__LEVEL", "debug"), TRUSTING], &[]);
    let outside = [("X-Forwarded-For", "203.0.113.9")];
    server.client().get_with("/metrics", &outside);
    server
        .client()
        .get_with("/lizenzserver/sessions/licensekey", &[]);
    eventually("a line of the framework", || {
        let log = server.log();
        log.lines()
            .any(|line| line.contains(" DEBUG Request guard `Watcher` is forwarding"))
    });
    assert!(
        !server.log().contains("WARN  Request guard"),
        "{}",
        server.log()
    );
}

#[test]
fn with_json_logs_every_line_of_a_start_is_an_object() {
    let server = Server::prepare(&[INFO, ("LOG__FORMAT", "json")]);
    for (arguments, whole) in [(&["serve"][..], false), (&["--json", "serve"], true)] {
        let mut child = server
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = lines.next().unwrap().unwrap();
        while whole && serde_json::from_str::<Value>(&text).is_err() {
            text += &lines.next().unwrap().unwrap();
        }
        let start: Value = serde_json::from_str(&text).unwrap();
        let url = start["url"].as_str().unwrap();
        assert!(url.ends_with(&server.port().to_string()), "{start}");
        assert!(
            start["setup"].as_str().unwrap().contains("/setup?token="),
            "{start}"
        );
        if !whole {
            assert_eq!(start["level"], "INFO");
            assert!(
                start["message"]
                    .as_str()
                    .unwrap()
                    .contains("listens on https://")
            );
        }
        // A second server on the same port reports why it stops, in the same format.
        let second = Server::prepare(&[]);
        let refused = second
            .command(&["serve"])
            .env("LICENSE_SERVER_LOG__FORMAT", "json")
            .env("LICENSE_SERVER_SERVER__PORT", server.port().to_string())
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let message = String::from_utf8(refused.stderr).unwrap();
        let last: Value = serde_json::from_str(message.lines().last().unwrap()).unwrap();
        assert!(
            last["message"]
                .as_str()
                .unwrap()
                .contains("cannot listen on"),
            "{message}"
        );
        assert!(refused.stdout.is_empty());
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill")
                .arg(&pid)
                .status()
                .unwrap()
                .success()
        );
        lines.for_each(|line| drop(line.unwrap()));
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success());
        for line in String::from_utf8(ended.stderr).unwrap().lines() {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
        }
    }
}

#[test]
fn a_form_that_is_refused_for_its_origin_is_logged_once_with_the_setting_that_fixes_it() {
    let public = ("SERVER__PUBLIC_URL", "https://licenses.example.org");
    let server = started(&[INFO, TRUSTING, public], &[]);
    let body = format!("name=owner&password={}", PASSWORD.replace(' ', "+"));
    server.logged_in_browser("owner");
    let post = |origin: &str, more: &str| {
        let head = format!(
            "POST /lizenzserver/login HTTP/1.1\r\nhost: 127.0.0.1:{}\r\norigin: {origin}\r\n{more}\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            server.port(),
            body.len()
        );
        wire::exchange(&mut wire::tls(&server), head.as_bytes())
            .unwrap()
            .status
    };
    for _ in 0..5 {
        assert_eq!(post("https://evil.example", ""), 403);
    }
    assert_eq!(
        post(
            "https://licenses.example.org",
            "sec-fetch-site: cross-site\r\n"
        ),
        403
    );
    assert_ne!(post("https://licenses.example.org", ""), 403);
    let log = server.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("a form was refused"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    for word in ["https://evil.example", "127.0.0.1", "[server] public_url"] {
        assert!(lines[0].contains(word), "{lines:?}");
    }
}
