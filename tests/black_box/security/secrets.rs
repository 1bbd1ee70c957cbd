//! Keys and tokens never appear in log lines or responses.

use serde_json::json;

use crate::database;
use crate::inspect::spellings;
use crate::setup::{UNKNOWN, started};
use crate::support::{eventually, heartbeat_body, identity};
use crate::wire;

#[test]
fn trace_logs_and_responses_contain_no_key_and_no_token() {
    let mut server = started(&[("LOG__LEVEL", "trace")], &[]);
    let keys = server.issue_licenses(1, 3);
    let old_api_key = server.api_key().to_owned();
    let client = server.client();
    let token = client.session(&keys[0], "laptop");
    let other = client.session(&keys[1], "laptop");
    let mut mistyped = keys[2].clone();
    mistyped.replace_range(0..1, if mistyped.starts_with('7') { "8" } else { "7" });
    let mut responses = Vec::new();
    for key in [&keys[0], &keys[1], &mistyped, &UNKNOWN.to_owned()] {
        for endpoint in ["activate", "verify", "session/start", "deactivate"] {
            if endpoint != "deactivate" || key != &keys[0] {
                responses.push(client.call(endpoint, &identity(key, "desktop")).text);
            }
        }
        for token in [&token, &other] {
            responses.push(
                client
                    .call("session/heartbeat", &heartbeat_body(key, token))
                    .text,
            );
        }
        responses.push(
            client
                .send(
                    "activate",
                    format!("{{\"license_key\":\"{key}\"").as_bytes(),
                    &[],
                )
                .text,
        );
        responses.push(
            client
                .call(
                    "activate",
                    &json!({ "license_key": [key], "session_token": token }),
                )
                .text,
        );
        responses.push(
            client
                .get(&format!("/api/license/version?version={key}"))
                .text,
        );
        responses.push(client.get(&format!("/{key}/{token}")).text);
        responses.push(
            client
                .with_key(&format!("{old_api_key}x"))
                .call("activate", &identity(key, "x"))
                .text,
        );
    }
    // Requests that are not HTTP, with keys in them.
    for nonsense in [
        format!("{token} {old_api_key}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nx y: {}\r\n\r\n", keys[0]),
    ] {
        wire::exchange(&mut wire::tls(&server), nonsense.as_bytes());
    }
    server.json(&["license", "suspend", &keys[1]]);
    eventually("403", || {
        client
            .call("session/heartbeat", &heartbeat_body(&keys[1], &other))
            .status
            == 403
    });
    // An internal error, too: a table is missing.
    database::break_table(&server, "devices");
    let failed = client.call("activate", &identity(&keys[2], "laptop"));
    assert_eq!((failed.status, failed.code()), (500, "internal"));
    responses.push(failed.text);
    database::mend_table(&server, "devices");
    responses.push(
        client
            .call("session/end", &heartbeat_body(&keys[0], &token))
            .text,
    );
    let new_api_key = server.json(&["config", "rotate-api-key"])["api_key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(server.stop(), Some(0));
    let log = server.log();
    assert!(
        log.contains("TRACE") || log.contains("DEBUG"),
        "trace lines are missing: {log}"
    );
    assert!(
        log.contains("devices"),
        "the internal error is missing: {log}"
    );
    for secret in keys
        .iter()
        .chain([&token, &other, &mistyped, &old_api_key, &new_api_key])
    {
        for form in spellings(secret) {
            assert!(!log.contains(&form), "the log contains {form}");
            for text in &responses {
                assert!(!text.contains(&form), "a response contains {form}: {text}");
            }
        }
    }
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        responses
            .iter()
            .all(|text| !text.contains("sqlite") && !text.contains("src/")),
        "{responses:?}"
    );
}

#[test]
fn log_entries_stay_on_one_line_whatever_the_input() {
    let mut server = started(&[("LOG__LEVEL", "trace"), ("LOG__FORMAT", "json")], &[]);
    let key = server.issue_license(1);
    let client = server.client();
    let mut body = identity(&key, "laptop");
    body["machine_id"] = json!("a\u{85}b\u{2028}forged 2026 ERROR");
    body["hardware_hash"] = json!("\u{1f}");
    client.call("activate", &body);
    client.get("/%0aforged");
    server.stop();
    for line in server.log().lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "{line}"
        );
    }
}
