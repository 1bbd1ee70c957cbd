//! Every refusal of the contract: its status, its code, its members, and which one comes first.

use serde_json::{Value, json};

use crate::scene::{NO_SWEEP, ONE_A_MINUTE, UNKNOWN, change, started, value};
use crate::support::{Answer, Server, beat, claim, eventually};

/// Whether `answer` is the problem `code` as RFC 9457 and the contract have it, with just these `members`.
fn assert_problem(answer: &Answer, status: u16, code: &str, members: &[&str]) {
    assert_eq!(answer.told(), (status, code), "{answer:?}");
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
fn a_request_that_breaks_several_rules_hears_of_the_first() {
    let server = started(&[NO_SWEEP], &[&["config", "set", "minimum_version=1.0.0"]]);
    let (held, suspended) = (server.license(1), server.license(1));
    let client = server.client();
    client.session(&held, "laptop");
    server.json(&["license", "suspend", &suspended]);
    let garbage = "{".repeat(20_000);
    let old = |key: &str| with(claim(key, "thief"), "version", "0.9.0").to_string();
    let new = |key: &str| claim(key, "thief").to_string();
    let (plain, json) = ("text/plain", "application/json");
    let wrong_fields = r#"{"license_key":"x","machine_id":7,"hardware_hash":"","version":"0.9"}"#;
    let broken = ("Idempotency-Key", "a b");
    let whole = ("Idempotency-Key", "a-b");
    let unknown = (old(UNKNOWN), new(UNKNOWN));
    let (stopped, foreign, own) = (
        new(&suspended),
        new(&held),
        claim(&held, "laptop").to_string(),
    );
    for (api_key, media_type, body, header, told) in [
        (
            "wrong",
            plain,
            garbage.as_str(),
            broken,
            (401, "invalid_api_key"),
        ),
        ("", plain, &garbage, broken, (401, "invalid_api_key")),
        (
            server.api_key(),
            plain,
            &garbage,
            broken,
            (415, "unsupported_media_type"),
        ),
        (
            server.api_key(),
            "",
            &garbage,
            broken,
            (415, "unsupported_media_type"),
        ),
        (
            server.api_key(),
            json,
            &garbage,
            broken,
            (413, "payload_too_large"),
        ),
        (server.api_key(), json, "{", broken, (400, "malformed_json")),
        (
            server.api_key(),
            json,
            wrong_fields,
            broken,
            (422, "invalid_field"),
        ),
        (
            server.api_key(),
            json,
            &unknown.0,
            broken,
            (422, "invalid_field"),
        ),
        (
            server.api_key(),
            json,
            &unknown.0,
            whole,
            (403, "version_too_old"),
        ),
        (
            server.api_key(),
            json,
            &unknown.1,
            whole,
            (404, "license_not_found"),
        ),
        (
            server.api_key(),
            json,
            &stopped,
            whole,
            (403, "license_suspended"),
        ),
        (
            server.api_key(),
            json,
            &foreign,
            whole,
            (403, "device_not_activated"),
        ),
        (server.api_key(), json, &own, whole, (409, "session_active")),
    ] {
        let headers = [("Content-Type", media_type), header];
        let answer = client
            .with_key(api_key)
            .send("session/start", body.as_bytes(), &headers);
        assert_eq!(answer.told(), told, "{}", body.get(..80).unwrap_or(body));
    }
    assert_eq!(
        value::<u32>(&server, "select count(*) from active_sessions"),
        1
    );
    // Rate limits stand before everything else.
    server.json(ONE_A_MINUTE);
    eventually("the limit", || {
        let headers = [("Content-Type", plain), broken];
        let told = client
            .with_key("wrong")
            .send("session/start", garbage.as_bytes(), &headers);
        told.told() == (429, "rate_limited")
    });
}

/// Status, code, extra members, and who is asked what.
type Row<'a> = (u16, &'a str, &'a [&'a str], &'a str, Value);

#[test]
fn every_code_has_its_status_its_members_and_two_languages() {
    let server = started(&[NO_SWEEP], &[&["config", "set", "minimum_version=1.0.0"]]);
    let keys = server.licenses(1, 5);
    let client = server.client();
    let token = client.session(&keys[0], "laptop");
    let ended = client.session(&keys[1], "laptop");
    client.call("session/end", &json!({ "session_token": ended }));
    server.json(&["license", "suspend", &keys[2]]);
    let day = 86_400_000;
    change(&server, &format!("update licenses set valid_from_ms = valid_from_ms + {day} where license_id = 4;
        update licenses set valid_from_ms = 0, valid_until_ms = valid_from_ms - {day} where license_id = 5"));
    let old = with(claim(&keys[0], "laptop"), "version", "0.1.0");
    let large = with(claim(&keys[0], "laptop"), "note", "x".repeat(16 * 1024));
    let start = "session/start";
    let beaten = "session/heartbeat";
    let table: &[Row<'_>] = &[
        (400, "malformed_json", &[], start, json!([])),
        (
            403,
            "license_suspended",
            &[],
            start,
            claim(&keys[2], "laptop"),
        ),
        (
            403,
            "license_not_yet_valid",
            &["valid_from"],
            start,
            claim(&keys[3], "laptop"),
        ),
        (
            403,
            "license_expired",
            &["valid_until"],
            start,
            claim(&keys[4], "laptop"),
        ),
        (
            403,
            "device_not_activated",
            &[],
            start,
            claim(&keys[0], "desktop"),
        ),
        (
            404,
            "license_not_found",
            &[],
            start,
            claim(UNKNOWN, "laptop"),
        ),
        (
            404,
            "session_not_found",
            &[],
            beaten,
            beat(&keys[1], &token),
        ),
        (
            409,
            "device_limit_reached",
            &["device_limit"],
            "activate",
            claim(&keys[0], "desktop"),
        ),
        (409, "session_active", &[], start, claim(&keys[0], "laptop")),
        (
            410,
            "session_ended",
            &["end_reason"],
            beaten,
            beat(&keys[1], &ended),
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
    for (status, code, members, deed, body) in table {
        let answer = client.call(deed, body);
        assert_problem(&answer, *status, code, members);
        let english = client.call_with(deed, body, &[("Accept-Language", "en")]);
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
            .call(start, &claim(&keys[0], "laptop"));
        assert_problem(&answer, 401, "invalid_api_key", &[]);
    }
    for media_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
    ] {
        let body = claim(&keys[0], "laptop").to_string();
        let answer = client.send(start, body.as_bytes(), &[("Content-Type", media_type)]);
        assert_problem(&answer, 415, "unsupported_media_type", &[]);
    }
    server.json(ONE_A_MINUTE);
    let mut limited = client.call("verify", &claim(&keys[0], "laptop"));
    eventually("the limit", || {
        limited = client.call("verify", &claim(&keys[0], "laptop"));
        limited.status == 429
    });
    assert_problem(&limited, 429, "rate_limited", &["retry_after"]);
}

#[test]
fn a_write_that_the_file_cannot_take_is_told_to_come_back_and_is_not_done() {
    let server = Server::start();
    let key = server.license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let other = rusqlite::Connection::open(server.database()).unwrap();
    other
        .busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    other.execute_batch("begin immediate").unwrap();
    let refused = std::thread::scope(|scope| {
        let refused = scope.spawn(|| server.call("activate", &claim(&key, "desktop")));
        // Live sessions and questions go on meanwhile.
        assert_eq!(
            client.call("session/heartbeat", &beat(&key, &token)).status,
            200
        );
        assert_eq!(
            client.call("verify", &claim(&key, "laptop")).body["valid"],
            true
        );
        refused.join().unwrap()
    });
    assert_problem(&refused, 503, "unavailable", &["retry_after"]);
    other.execute_batch("rollback").unwrap();
    assert_eq!(value::<u32>(&server, "select count(*) from devices"), 1);
    let full = client.call("activate", &claim(&key, "desktop"));
    assert_eq!(
        full.told(),
        (409, "device_limit_reached"),
        "and it answers as before"
    );
}

#[test]
fn the_default_language_is_a_setting() {
    let server = started(&[("PANEL__DEFAULT_LANGUAGE", "en")], &[]);
    let client = server.client();
    let body = claim(UNKNOWN, "laptop");
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
fn an_api_key_that_was_rotated_out_is_good_for_its_overlap() {
    let server = Server::start();
    let first = server.client();
    let ask =
        |client: &crate::support::Client| client.get("/api/license/version?version=1.0.0").status;
    let rotated = |arguments: &[&str]| {
        let mut command = vec!["config", "rotate-api-key"];
        command.extend(arguments);
        first.with_key(server.json(&command)["api_key"].as_str().unwrap())
    };
    let second = rotated(&[]);
    eventually("the new key", || ask(&second) == 200);
    assert_eq!(ask(&first), 200, "for seven days");
    let days = "select (valid_until_ms - (select max(at_ms) from audit_log)) / 86400000.0 from retired_api_keys";
    assert!((value::<f64>(&server, days) - 7.0).abs() < 0.01);
    change(&server, "update retired_api_keys set valid_until_ms = 0");
    eventually("the end of the overlap", || ask(&first) == 401);
    let third = rotated(&[]);
    eventually("a newer key", || ask(&third) == 200);
    assert_eq!(ask(&second), 200, "for seven days");
    let fourth = rotated(&["--overlap-days", "0"]);
    eventually("the newest key", || ask(&fourth) == 200);
    assert_eq!([ask(&third), ask(&second)], [401, 401], "at once");
}
