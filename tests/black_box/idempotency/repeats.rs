//! `Idempotency-Key`: a program that lost a response repeats its request.

use std::time::Instant;

use serde_json::json;

use crate::setup::{AUTO_ACTIVATE, NO_SWEEP, SESSION_TIMEOUT, SHORT_TIMEOUT, started};
use crate::support::{Client, Response, Server, heartbeat_body, identity};
use crate::timing::{retry_while_too_slow, wait_until};
use crate::wire;

fn call_with_key(
    client: &Client,
    endpoint: &str,
    license: &str,
    device: &str,
    key: &str,
) -> Response {
    client.call_with(
        endpoint,
        &identity(license, device),
        &[("Idempotency-Key", key)],
    )
}

#[test]
fn a_repeated_start_gets_the_first_response_as_long_as_the_session_runs() {
    let mut server = started(&[AUTO_ACTIVATE], &[]);
    let key = server.issue_license(2);
    let other_license = server.issue_license(2);
    let client = server.client();
    let first = call_with_key(&client, "session/start", &key, "laptop", "a-1");
    assert_eq!(first.status, 201);
    let again = call_with_key(&client, "session/start", &key, "laptop", "a-1");
    assert_eq!((again.status, &again.text), (201, &first.text));
    for (device, header) in [("laptop", "a-2"), ("desktop", "a-1"), ("laptop", "A-1")] {
        let refused = call_with_key(&client, "session/start", &key, device, header);
        assert_eq!(
            refused.status_and_code(),
            (409, "session_active"),
            "{device} {header}"
        );
    }
    let plain = client.call("session/start", &identity(&key, "laptop"));
    assert_eq!(
        plain.status_and_code(),
        (409, "session_active"),
        "without the header it is a second start"
    );
    let elsewhere = call_with_key(&client, "session/start", &other_license, "laptop", "a-1");
    assert_eq!(elsewhere.status, 201, "another license");
    assert_ne!(elsewhere.token(), first.token());
    server.restart();
    let client = server.client();
    let again = call_with_key(&client, "session/start", &key, "laptop", "a-1");
    assert_eq!(
        (again.status, &again.text),
        (201, &first.text),
        "after a restart"
    );
    server.kill();
    server.run();
    let client = server.client();
    let again = call_with_key(&client, "session/start", &key, "laptop", "a-1");
    assert_eq!(
        (again.status, &again.text),
        (201, &first.text),
        "after kill -9"
    );
    assert_eq!(
        client
            .call("session/heartbeat", &heartbeat_body(&key, &first.token()))
            .status,
        200
    );
    client.call("session/end", &json!({ "session_token": first.token() }));
    let next = call_with_key(&client, "session/start", &key, "laptop", "a-1");
    assert_eq!(next.status, 201, "after the end it is a new session");
    assert_ne!(next.token(), first.token());
    let again = call_with_key(&client, "session/start", &key, "laptop", "a-1");
    assert_eq!(
        again.text, next.text,
        "and its response is the one repeated"
    );
}

#[test]
fn a_start_repeated_after_the_timeout_starts_a_new_session() {
    retry_while_too_slow(|| {
        let server = started(&[AUTO_ACTIVATE, NO_SWEEP], &[SHORT_TIMEOUT]);
        let key = server.issue_license(1);
        let client = server.client();
        let first = call_with_key(&client, "session/start", &key, "laptop", "a");
        wait_until(Instant::now(), SESSION_TIMEOUT);
        let second = call_with_key(&client, "session/start", &key, "laptop", "a");
        assert_eq!(second.status, 201);
        assert_ne!(second.token(), first.token());
        let old = client.call("session/heartbeat", &heartbeat_body(&key, &first.token()));
        assert_eq!(old.body["end_reason"], "timeout");
        Some(())
    });
}

#[test]
fn a_repeated_activation_gets_the_first_response() {
    let server = Server::start();
    let key = server.issue_license(2);
    let client = server.client();
    let first = call_with_key(&client, "activate", &key, "laptop", "a");
    assert_eq!(
        (first.status, &first.body["device_count"]),
        (201, &json!(1))
    );
    client.call("activate", &identity(&key, "desktop"));
    let again = call_with_key(&client, "activate", &key, "laptop", "a");
    assert_eq!((again.status, &again.text), (201, &first.text));
    for header in ["b", "A"] {
        let held = call_with_key(&client, "activate", &key, "laptop", header);
        assert_eq!(
            (held.status, &held.body["device_count"]),
            (200, &json!(2)),
            "{header}"
        );
    }
    let full = call_with_key(&client, "activate", &key, "tablet", "a");
    assert_eq!(
        full.status_and_code(),
        (409, "device_limit_reached"),
        "another device"
    );
    let deactivation = json!({ "license_key": key, "hardware_hash": "hash of laptop" });
    assert_eq!(client.call("deactivate", &deactivation).status, 200);
    client.call("activate", &identity(&key, "tablet"));
    let refused = call_with_key(&client, "activate", &key, "laptop", "a");
    assert_eq!(
        refused.status_and_code(),
        (409, "device_limit_reached"),
        "the device lost its slot"
    );
}

#[test]
fn an_idempotency_key_has_1_to_64_visible_characters() {
    let server = started(&[AUTO_ACTIVATE], &[]);
    let key = server.issue_license(1);
    let client = server.client();
    let long = "x".repeat(65);
    for endpoint in ["activate", "session/start"] {
        for wrong in ["", "a b", "a\tb", &long] {
            let refused = call_with_key(&client, endpoint, &key, "laptop", wrong);
            assert_eq!(
                refused.status_and_code(),
                (422, "invalid_field"),
                "{endpoint} {wrong:?}"
            );
            assert_eq!(refused.body["field"], "Idempotency-Key");
        }
        let body = identity(&key, "laptop").to_string();
        let mut request = wire::post(
            &server,
            &format!("/api/license/{endpoint}"),
            body.len(),
            &body,
        );
        let at = request
            .windows(5)
            .position(|window| window == b"host:")
            .unwrap();
        request.splice(at..at, "idempotency-key: schlüssel\r\n".bytes());
        let refused = wire::exchange(&mut wire::tls(&server), &request).unwrap();
        assert_eq!(refused.status, 422, "{endpoint}: {}", refused.body);
    }
    let visible = format!("!~{}", "z".repeat(62));
    assert_eq!(
        call_with_key(&client, "session/start", &key, "laptop", &visible).status,
        201
    );
    assert_eq!(
        call_with_key(&client, "session/start", &key, "laptop", &visible).status,
        201
    );
}
