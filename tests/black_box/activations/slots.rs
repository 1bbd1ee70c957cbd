//! Device slots: activation, the limit, deactivation and release.

use serde_json::{Value, json};

use crate::database;
use crate::inspect::{end_reasons, running};
use crate::setup::{AUTO_ACTIVATE, UNKNOWN, started};
use crate::support::{Client, Response, Server, heartbeat_body, identity};
use crate::timing::run_together;

fn deactivate(client: &Client, key: &str, device: &str) -> Response {
    let body = json!({ "license_key": key, "hardware_hash": format!("hash of {device}") });
    client.call("deactivate", &body)
}

fn devices(server: &Server, key: &str) -> Vec<Value> {
    server.json(&["license", "show", key])["devices"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn an_activation_takes_a_slot_once_and_updates_it_afterwards() {
    let server = Server::start();
    let key = server.issue_license(2);
    let client = server.client();
    let first = client.call("activate", &identity(&key, "laptop"));
    let issued = server.json(&["license", "show", &key]);
    let expected = json!({
        "activated_at": first.body["activated_at"], "device_count": 1, "device_limit": 2,
        "license": { "kind": "full", "valid_from": issued["valid_from"], "valid_until": null,
                     "plan": null, "features": [], "updates_until": null },
    });
    assert_eq!((first.status, &first.body), (201, &expected));
    let again = client.call("activate", &identity(&key, "laptop"));
    assert_eq!((again.status, &again.body), (200, &expected));
    // The fingerprint alone identifies the device.
    let mut renamed = identity(&key, "laptop");
    renamed["machine_id"] = json!("Büro");
    renamed["version"] = json!("1.2.3");
    assert_eq!(client.call("activate", &renamed).status, 200);
    let held = devices(&server, &key);
    assert_eq!(held.len(), 1);
    let facts = (
        &held[0]["machine_id"],
        &held[0]["version"],
        &held[0]["activated_at"],
    );
    assert_eq!(
        facts,
        (&json!("Büro"), &json!("1.2.3"), &first.body["activated_at"])
    );
    let mut other_case = identity(&key, "laptop");
    other_case["hardware_hash"] = json!("HASH OF LAPTOP");
    let other = client.call("activate", &other_case);
    assert_eq!(
        (other.status, &other.body["device_count"]),
        (201, &json!(2))
    );
}

#[test]
fn one_device_too_many_is_refused_and_learns_nothing_about_the_others() {
    let server = Server::start();
    let key = server.issue_license(2);
    let client = server.client();
    for device in ["laptop", "desktop"] {
        client.call("activate", &identity(&key, device));
    }
    let refused = client.call("activate", &identity(&key, "tablet"));
    assert_eq!(refused.status_and_code(), (409, "device_limit_reached"));
    let members: Vec<&String> = refused.body.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        ["type", "title", "status", "code", "detail", "device_limit"]
    );
    assert_eq!(refused.body["device_limit"], 2);
    let token = client.session(&key, "laptop");
    let busy = client.call("session/start", &identity(&key, "desktop"));
    let members: Vec<&String> = busy.body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["type", "title", "status", "code", "detail"]);
    for text in [&refused.text, &busy.text] {
        assert!(
            !text.contains("laptop") && !text.contains("127.0.0.1"),
            "{text}"
        );
    }
    assert_eq!(
        client
            .call("session/heartbeat", &heartbeat_body(&key, &token))
            .status,
        200
    );
}

#[test]
fn a_deactivation_frees_the_slot_and_ends_the_session_of_the_device() {
    let server = Server::start();
    let key = server.issue_license(2);
    let client = server.client();
    client.call("activate", &identity(&key, "desktop"));
    let token = client.session(&key, "laptop");
    let freed = deactivate(&client, &key, "desktop");
    assert_eq!(
        (freed.status, &freed.body),
        (200, &json!({ "device_count": 1, "device_limit": 2 }))
    );
    let alive = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(alive.status, 200, "another device's session goes on");
    let freed = deactivate(&client, &key, "laptop");
    assert_eq!(
        (freed.status, &freed.body["device_count"]),
        (200, &json!(0))
    );
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.status_and_code(), (410, "session_ended"));
    assert_eq!(heartbeat.body["end_reason"], "normal");
    assert_eq!(end_reasons(&server), ["normal"]);
    assert_eq!(
        deactivate(&client, &key, "laptop").status_and_code(),
        (403, "device_not_activated")
    );
    assert_eq!(
        deactivate(&client, UNKNOWN, "laptop").status_and_code(),
        (404, "license_not_found")
    );
    let start = client.call("session/start", &identity(&key, "laptop"));
    assert_eq!(start.status_and_code(), (403, "device_not_activated"));
    assert_eq!(
        client.call("activate", &identity(&key, "laptop")).status,
        201
    );
}

#[test]
fn of_16_devices_that_activate_at_once_exactly_one_gets_the_last_slot() {
    let server = Server::start();
    let clients: Vec<_> = (0..16).map(|_| server.client()).collect();
    for round in 0..5 {
        let key = server.issue_license(3);
        for device in ["laptop", "desktop"] {
            clients[0].call("activate", &identity(&key, device));
        }
        let answers = run_together(clients.len(), |number| {
            clients[number].call("activate", &identity(&key, &format!("device {number}")))
        });
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(won[0].body["device_count"], 3);
        assert!(
            lost.iter()
                .all(|answer| answer.status_and_code() == (409, "device_limit_reached"))
        );
        assert_eq!(devices(&server, &key).len(), 3);
    }
}

#[test]
fn a_start_takes_a_free_slot_only_with_auto_activate() {
    let without = Server::start();
    let key = without.issue_license(1);
    let refused = without.call("session/start", &identity(&key, "laptop"));
    assert_eq!(refused.status_and_code(), (403, "device_not_activated"));
    assert!(devices(&without, &key).is_empty());
    let server = started(&[AUTO_ACTIVATE], &[]);
    let key = server.issue_license(1);
    let client = server.client();
    let token = client
        .call("session/start", &identity(&key, "laptop"))
        .token();
    let busy = client.call("session/start", &identity(&key, "desktop"));
    assert_eq!(
        busy.status_and_code(),
        (409, "device_limit_reached"),
        "the device is checked before the session"
    );
    client.call("session/end", &json!({ "session_token": token }));
    let full = client.call("session/start", &identity(&key, "desktop"));
    assert_eq!(
        full.status_and_code(),
        (409, "device_limit_reached"),
        "the first device holds the slot without a session, too"
    );
    assert_eq!(devices(&server, &key).len(), 1);
}

#[test]
fn a_refused_start_takes_no_slot() {
    let server = started(&[AUTO_ACTIVATE], &[]);
    let key = server.issue_license(2);
    let client = server.client();
    client.call("session/start", &identity(&key, "laptop"));
    let refused = client.call("session/start", &identity(&key, "desktop"));
    assert_eq!(refused.status_and_code(), (409, "session_active"));
    assert_eq!(database::count(&server, "devices"), 1);
}

#[test]
fn an_administrator_releases_a_device_and_its_session_ends() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    server.json(&["license", "release-device", &key, "hash of laptop"]);
    assert!(devices(&server, &key).is_empty() && running(&server).is_empty());
    assert_eq!(end_reasons(&server), ["forced"]);
    assert_eq!(
        client.call("activate", &identity(&key, "desktop")).status,
        201,
        "the slot is free"
    );
    let start = client.call("session/start", &identity(&key, "laptop"));
    assert_eq!(start.status_and_code(), (403, "device_not_activated"));
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(
        (heartbeat.status, &heartbeat.body["end_reason"]),
        (410, &json!("forced"))
    );
    let unknown = server.cli(&["license", "release-device", &key, "hash of laptop"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn a_verification_and_a_start_update_when_the_device_was_last_seen() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    client.call("activate", &identity(&key, "laptop"));
    for (call, status) in [("session/start", 201), ("verify", 200)] {
        database::forget_last_seen(&server);
        let answer = client.call(call, &identity(&key, "laptop"));
        assert_eq!(answer.status, status, "{call}");
        crate::support::eventually(&format!("{call}: last seen is in the database"), || {
            database::is_seen(&server)
        });
    }
}
