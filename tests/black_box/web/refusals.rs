//! Every refusal of the client API: its status, code and members, and the order in which they are checked.

use serde_json::{Value, json};

use crate::database::{self, OtherProgram};
use crate::setup::{NO_SWEEP, ONE_A_MINUTE, UNKNOWN, started};
use crate::support::{Response, Server, eventually, heartbeat_body, identity};

/// Asserts that `answer` is the problem `code` with exactly these additional `members` (RFC 9457).
fn assert_problem(answer: &Response, status: u16, code: &str, members: &[&str]) {
    assert_eq!(answer.status_and_code(), (status, code), "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{code}"
    );
    let mut expected = vec!["type", "title", "status", "code", "detail"];
    expected.extend(members);
    let found: Vec<&String> = answer.body.as_object().unwrap().keys().collect();
    assert_eq!(found, expected, "{code}");
    assert_eq!(answer.body["type"], "about:blank");
    assert_eq!(answer.body["status"], status);
    for text in ["title", "detail"] {
        let text = answer.body[text].as_str().unwrap();
        assert!(
            text.len() > 10 && !text.contains(['{', '}']),
            "{code}: {text}"
        );
    }
    let retry = members
        .contains(&"retry_after")
        .then(|| answer.body["retry_after"].to_string());
    assert_eq!(answer.header("retry-after"), retry.as_deref(), "{code}");
}

fn with(mut body: Value, field: &str, value: impl Into<Value>) -> Value {
    body[field] = value.into();
    body
}

#[test]
fn a_request_that_breaks_several_rules_gets_the_first_refusal() {
    let server = started(&[NO_SWEEP], &[&["config", "set", "minimum_version=1.0.0"]]);
    let (activated, suspended) = (server.issue_license(1), server.issue_license(1));
    let client = server.client();
    client.session(&activated, "laptop");
    server.json(&["license", "suspend", &suspended]);
    let garbage = "{".repeat(20_000);
    let old = |key: &str| with(identity(key, "thief"), "version", "0.9.0").to_string();
    let new = |key: &str| identity(key, "thief").to_string();
    let (plain, json) = ("text/plain", "application/json");
    let wrong_fields = r#"{"license_key":"x","machine_id":7,"hardware_hash":"","version":"0.9"}"#;
    let malformed_header = ("Idempotency-Key", "a b");
    let valid_header = ("Idempotency-Key", "a-b");
    let unknown = (old(UNKNOWN), new(UNKNOWN));
    let (on_suspended, from_other_device, from_own_device) = (
        new(&suspended),
        new(&activated),
        identity(&activated, "laptop").to_string(),
    );
    for (api_key, media_type, body, header, expected) in [
        (
            "wrong",
            plain,
            garbage.as_str(),
            malformed_header,
            (401, "invalid_api_key"),
        ),
        (
            "",
            plain,
            &garbage,
            malformed_header,
            (401, "invalid_api_key"),
        ),
        (
            server.api_key(),
            plain,
            &garbage,
            malformed_header,
            (415, "unsupported_media_type"),
        ),
        (
            server.api_key(),
            "",
            &garbage,
            malformed_header,
            (415, "unsupported_media_type"),
        ),
        (
            server.api_key(),
            json,
            &garbage,
            malformed_header,
            (413, "payload_too_large"),
        ),
        (
            server.api_key(),
            json,
            "{",
            malformed_header,
            (400, "malformed_json"),
        ),
        (
            server.api_key(),
            json,
            wrong_fields,
            malformed_header,
            (422, "invalid_field"),
        ),
        (
            server.api_key(),
            json,
            &unknown.0,
            malformed_header,
            (422, "invalid_field"),
        ),
        (
            server.api_key(),
            json,
            &unknown.0,
            valid_header,
            (403, "version_too_old"),
        ),
        (
            server.api_key(),
            json,
            &unknown.1,
            valid_header,
            (404, "license_not_found"),
        ),
        (
            server.api_key(),
            json,
            &on_suspended,
            valid_header,
            (403, "license_suspended"),
        ),
        (
            server.api_key(),
            json,
            &from_other_device,
            valid_header,
            (403, "device_not_activated"),
        ),
        (
            server.api_key(),
            json,
            &from_own_device,
            valid_header,
            (409, "session_active"),
        ),
    ] {
        let headers = [("Content-Type", media_type), header];
        let answer = client
            .with_key(api_key)
            .send("session/start", body.as_bytes(), &headers);
        assert_eq!(
            answer.status_and_code(),
            expected,
            "{}",
            body.get(..80).unwrap_or(body)
        );
    }
    assert_eq!(database::count(&server, "active_sessions"), 1);
    // Rate limits are checked before everything else.
    server.json(ONE_A_MINUTE);
    eventually("the limit", || {
        let headers = [("Content-Type", plain), malformed_header];
        let answer = client
            .with_key("wrong")
            .send("session/start", garbage.as_bytes(), &headers);
        answer.status_and_code() == (429, "rate_limited")
    });
}

/// Status, code, additional members, endpoint and body.
type Row<'a> = (u16, &'a str, &'a [&'a str], &'a str, Value);

#[test]
fn every_code_has_its_status_its_members_and_texts_in_both_languages() {
    let release = &["release", "add", "1.0.0", "--notes", ""];
    let minimum = &["config", "set", "minimum_version=1.0.0"];
    let server = started(&[NO_SWEEP], &[release, minimum]);
    let keys = server.issue_licenses(1, 6);
    let client = server.client();
    let token = client.session(&keys[0], "laptop");
    let ended = client.session(&keys[1], "laptop");
    client.call("session/end", &json!({ "session_token": ended }));
    server.json(&["license", "suspend", &keys[2]]);
    let day = 86_400_000;
    let later = format!("valid_from_ms = valid_from_ms + {day}");
    database::set_license(&server, 4, &later);
    let earlier = format!("valid_from_ms = 0, valid_until_ms = valid_from_ms - {day}");
    database::set_license(&server, 5, &earlier);
    database::set_license(&server, 6, "updates_until_ms = valid_from_ms - 86400000");
    let old = with(identity(&keys[0], "laptop"), "version", "0.1.0");
    let large = with(identity(&keys[0], "laptop"), "note", "x".repeat(16 * 1024));
    let start = "session/start";
    let heartbeat = "session/heartbeat";
    let table: &[Row<'_>] = &[
        (400, "malformed_json", &[], start, json!([])),
        (
            403,
            "license_suspended",
            &[],
            start,
            identity(&keys[2], "laptop"),
        ),
        (
            403,
            "license_not_yet_valid",
            &["valid_from"],
            start,
            identity(&keys[3], "laptop"),
        ),
        (
            403,
            "license_expired",
            &["valid_until"],
            start,
            identity(&keys[4], "laptop"),
        ),
        (
            403,
            "version_not_covered",
            &["updates_until", "covered_version", "download_url"],
            start,
            identity(&keys[5], "laptop"),
        ),
        (
            403,
            "device_not_activated",
            &[],
            start,
            identity(&keys[0], "desktop"),
        ),
        (
            404,
            "license_not_found",
            &[],
            start,
            identity(UNKNOWN, "laptop"),
        ),
        (
            404,
            "session_not_found",
            &[],
            heartbeat,
            heartbeat_body(&keys[1], &token),
        ),
        (
            409,
            "device_limit_reached",
            &["device_limit"],
            "activate",
            identity(&keys[0], "desktop"),
        ),
        (
            409,
            "session_active",
            &[],
            start,
            identity(&keys[0], "laptop"),
        ),
        (
            410,
            "session_ended",
            &["end_reason"],
            heartbeat,
            heartbeat_body(&keys[1], &ended),
        ),
        (413, "payload_too_large", &[], start, large),
        (422, "invalid_field", &["field"], start, json!({})),
        (
            403,
            "version_too_old",
            &["minimum_version", "current_version", "download_url"],
            start,
            old,
        ),
    ];
    for (status, code, members, endpoint, body) in table {
        let answer = client.call(endpoint, body);
        assert_problem(&answer, *status, code, members);
        let english = client.call_with(endpoint, body, &[("Accept-Language", "en")]);
        assert_problem(&english, *status, code, members);
        assert_ne!(answer.body["detail"], english.body["detail"], "{code}");
        let tags = (
            answer.header("content-language"),
            english.header("content-language"),
        );
        assert_eq!(tags, (Some("de"), Some("en")), "{code}");
    }
    for api_key in [
        "",
        "wrong",
        &server.api_key()[1..],
        &server.api_key().to_uppercase(),
    ] {
        let answer = client
            .with_key(api_key)
            .call(start, &identity(&keys[0], "laptop"));
        assert_problem(&answer, 401, "invalid_api_key", &[]);
    }
    for media_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
    ] {
        let body = identity(&keys[0], "laptop").to_string();
        let answer = client.send(start, body.as_bytes(), &[("Content-Type", media_type)]);
        assert_problem(&answer, 415, "unsupported_media_type", &[]);
    }
    server.json(ONE_A_MINUTE);
    let mut limited = client.call("verify", &identity(&keys[0], "laptop"));
    eventually("the limit", || {
        limited = client.call("verify", &identity(&keys[0], "laptop"));
        limited.status == 429
    });
    assert_problem(&limited, 429, "rate_limited", &["retry_after"]);
}

#[test]
fn a_write_while_the_database_is_locked_is_refused_with_retry_after() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let other_program = OtherProgram::lock(&server);
    let refused = std::thread::scope(|scope| {
        let refused = scope.spawn(|| server.call("activate", &identity(&key, "desktop")));
        // Heartbeats and verification still work meanwhile.
        assert_eq!(
            client
                .call("session/heartbeat", &heartbeat_body(&key, &token))
                .status,
            200
        );
        assert_eq!(
            client.call("verify", &identity(&key, "laptop")).body["valid"],
            true
        );
        refused.join().unwrap()
    });
    assert_problem(&refused, 503, "unavailable", &["retry_after"]);
    other_program.release();
    assert_eq!(database::count(&server, "devices"), 1);
    let full = client.call("activate", &identity(&key, "desktop"));
    assert_eq!(
        full.status_and_code(),
        (409, "device_limit_reached"),
        "it works as before"
    );
}

#[test]
fn the_default_language_is_a_setting() {
    let server = started(&[("PANEL__DEFAULT_LANGUAGE", "en")], &[]);
    let client = server.client();
    let body = identity(UNKNOWN, "laptop");
    for (accept, expected) in [
        ("fr", "en"),
        ("", "en"),
        ("de", "de"),
        ("en;q=0.1, de;q=0.2", "de"),
    ] {
        let answer = client.call_with("activate", &body, &[("Accept-Language", accept)]);
        assert_eq!(
            answer.header("content-language"),
            Some(expected),
            "{accept}"
        );
    }
    assert_eq!(
        client.call("activate", &body).header("content-language"),
        Some("en")
    );
}

#[test]
fn a_rotated_api_key_is_valid_for_its_overlap_period() {
    let server = Server::start();
    let first = server.client();
    let status =
        |client: &crate::support::Client| client.get("/api/license/version?version=1.0.0").status;
    let rotate = |arguments: &[&str]| {
        let mut command = vec!["config", "rotate-api-key"];
        command.extend(arguments);
        first.with_key(server.json(&command)["api_key"].as_str().unwrap())
    };
    let second = rotate(&[]);
    eventually("the new key", || status(&second) == 200);
    assert_eq!(status(&first), 200, "for seven days");
    let noted = database::audit_log(&server).last().unwrap().at_ms;
    let overlap = database::retired_key_until_ms(&server) - noted;
    assert!(
        (overlap - 7 * 86_400_000).abs() < 86_400_000 / 100,
        "{overlap}"
    );
    database::end_retired_keys(&server);
    eventually("the end of the overlap", || status(&first) == 401);
    let third = rotate(&[]);
    eventually("a newer key", || status(&third) == 200);
    assert_eq!(status(&second), 200, "for seven days");
    let fourth = rotate(&["--overlap-days", "0"]);
    eventually("the newest key", || status(&fourth) == 200);
    assert_eq!([status(&third), status(&second)], [401, 401], "at once");
}
