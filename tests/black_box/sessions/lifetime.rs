//! Sessions through the API: start, heartbeat, end and timeout.

use std::time::Instant;

use license_server::clock::UnixMs;
use serde_json::{Value, json};

use crate::database;
use crate::inspect::{end_reasons, running};
use crate::setup::{
    AUTO_ACTIVATE, MANY_STARTS, NO_LIMIT, NO_SWEEP, SESSION_TIMEOUT, SHORT_TIMEOUT, UNKNOWN,
    WHOLE_HISTORY, started,
};
use crate::support::{Server, eventually, heartbeat_body, identity, rounds};
use crate::timing::{now_ms, retry_while_too_slow, run_together, wait_until};

#[test]
fn a_session_starts_gets_heartbeats_and_ends_and_a_second_one_is_refused() {
    let server = Server::start();
    let key = server.issue_license(2);
    let client = server.client();
    let token = client.session(&key, "laptop");
    client.call("activate", &identity(&key, "desktop"));
    let (german, english) = (
        "Es ist nur eine Sitzung erlaubt, stelle sicher, dass nirgendwo sonst das Programm läuft",
        "Only one session is allowed. Please make sure that the program is not running anywhere else.",
    );
    for device in ["desktop", "laptop"] {
        for (language, sentence) in [
            ("de-AT, en;q=0.5", german),
            ("en-GB, de;q=0.5", english),
            ("fr", german),
        ] {
            let headers = [("Accept-Language", language)];
            let refused = client.call_with("session/start", &identity(&key, device), &headers);
            assert_eq!(
                refused.status_and_code(),
                (409, "session_active"),
                "{device}"
            );
            assert_eq!(refused.body["detail"], sentence, "{language}");
        }
    }
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(
        (heartbeat.status, &heartbeat.body["status"]),
        (200, &json!("ok"))
    );
    let ended = client.call("session/end", &json!({ "session_token": token }));
    let normal = json!({ "status": "ended", "end_reason": "normal" });
    assert_eq!((ended.status, &ended.body), (200, &normal));
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.status_and_code(), (410, "session_ended"));
    assert_eq!(heartbeat.body["end_reason"], "normal");
    let again = client.call("session/start", &identity(&key, "desktop"));
    assert_eq!(again.status, 201);
    assert_ne!(again.token(), token);
}

#[test]
fn start_and_heartbeat_answer_with_every_field_of_the_contract() {
    let intervals: &[&str] = &[
        "config",
        "set",
        "heartbeat_interval=20",
        "session_timeout=50",
    ];
    let server = started(&[AUTO_ACTIVATE], &[intervals]);
    let key = server.issue_license(1);
    let client = server.client();
    let start = client.call("session/start", &identity(&key, "laptop"));
    let token = start.token();
    assert_eq!(
        (token.len(), &token[14..15]),
        (36, "4"),
        "a UUID of version 4"
    );
    let issued = server.json(&["license", "show", &key]);
    let expected = json!({
        "session_token": token, "started_at": start.body["started_at"],
        "heartbeat_interval": 20, "session_timeout": 50,
        "current_version": "1.0.0", "minimum_version": "0.0.0", "update_available": false,
        "whats_new": null, "download_url": null, "renewal_version": null, "feature_flags": {},
        "license": { "kind": "full", "valid_from": issued["valid_from"], "valid_until": null,
                     "plan": null, "features": [], "updates_until": null },
        "lease": null,
    });
    assert_eq!(start.body, expected);
    assert_timestamp(&start.body["started_at"]);
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    let expected = json!({
        "status": "ok", "heartbeat_interval": 20, "session_timeout": 50, "update_available": false,
        "server_time": heartbeat.body["server_time"],
    });
    assert_eq!(heartbeat.body, expected);
    assert_timestamp(&heartbeat.body["server_time"]);
    assert_eq!(heartbeat.header("content-type"), Some("application/json"));
}

fn assert_timestamp(text: &Value) {
    let text = text.as_str().unwrap();
    let has_shape = text.len() == 20 && text.ends_with('Z') && &text[10..11] == "T";
    assert!(has_shape && UnixMs::parse(text).is_ok(), "{text}");
}

#[test]
fn of_64_clients_that_start_at_once_exactly_one_gets_the_session() {
    let server = started(&[AUTO_ACTIVATE, MANY_STARTS, WHOLE_HISTORY], &[NO_LIMIT]);
    let key = server.issue_license(64);
    let clients: Vec<_> = (0..64).map(|_| server.client()).collect();
    let rounds = rounds(20);
    for round in 0..rounds {
        // Half of the clients are the same device, the others different ones.
        let answers = run_together(clients.len(), |number| {
            let device = if number % 2 == 0 {
                "same".to_owned()
            } else {
                format!("device {number}")
            };
            clients[number].call("session/start", &identity(&key, &device))
        });
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(won.len(), 1, "round {round}");
        assert!(
            lost.iter()
                .all(|answer| answer.status_and_code() == (409, "session_active")),
            "round {round}"
        );
        let end = json!({ "session_token": won[0].token(), "license_key": key });
        assert_eq!(clients[0].call("session/end", &end).status, 200);
    }
    assert_eq!(database::count(&server, "session_history"), rounds);
    assert_eq!(database::count(&server, "active_sessions"), 0);
}

#[test]
fn a_session_times_out_exactly_on_time_without_a_sweep() {
    retry_while_too_slow(|| {
        let server = started(&[NO_SWEEP, AUTO_ACTIVATE], &[SHORT_TIMEOUT]);
        let keys = server.issue_licenses(2, 2);
        let client = server.client();
        let tokens = [
            client.session(&keys[0], "laptop"),
            client.session(&keys[1], "laptop"),
        ];
        let sent = Instant::now();
        let mut sessions = keys.iter().zip(&tokens);
        let all_accepted = sessions.all(|(key, token)| {
            client
                .call("session/heartbeat", &heartbeat_body(key, token))
                .status
                == 200
        });
        let answered = Instant::now();
        wait_until(answered, SESSION_TIMEOUT / 2);
        let early = client.call("session/start", &identity(&keys[0], "desktop"));
        if !all_accepted || sent.elapsed() >= SESSION_TIMEOUT {
            return None;
        }
        assert_eq!(
            early.status_and_code(),
            (409, "session_active"),
            "not before the timeout"
        );
        wait_until(answered, SESSION_TIMEOUT);
        // The first license is started on another device; the program of the second one learns by itself.
        assert_eq!(
            client
                .call("session/start", &identity(&keys[0], "desktop"))
                .status,
            201
        );
        for (key, token) in keys.iter().zip(&tokens) {
            let late = client.call("session/heartbeat", &heartbeat_body(key, token));
            assert_eq!(late.status_and_code(), (410, "session_ended"));
            assert_eq!(late.body["end_reason"], "timeout");
        }
        assert_eq!(
            client
                .call("session/start", &identity(&keys[1], "laptop"))
                .status,
            201
        );
        assert_eq!(end_reasons(&server), ["timeout", "timeout"]);
        let ended = database::ended_sessions(&server);
        let on_time = ended.iter().filter(|ended| ended.silent_ms() == 2000);
        assert_eq!(on_time.count(), 2, "{ended:?}");
        // Ending a session that has ended returns how it ended.
        let end = client.call("session/end", &json!({ "session_token": tokens[0] }));
        assert_eq!(
            (end.status, &end.body["end_reason"]),
            (200, &json!("timeout"))
        );
        Some(())
    });
}

#[test]
fn each_heartbeat_restarts_the_timeout_and_the_history_has_the_last_one() {
    retry_while_too_slow(|| {
        let server = started(&[NO_SWEEP, AUTO_ACTIVATE], &[SHORT_TIMEOUT]);
        let key = server.issue_license(2);
        let client = server.client();
        let mut sent = Instant::now();
        let token = client.session(&key, "laptop");
        let mut last_answered = String::new();
        for _ in 0..3 {
            wait_until(sent, SESSION_TIMEOUT * 3 / 4);
            let next = Instant::now();
            let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
            let refused = client.call("session/start", &identity(&key, "desktop"));
            if sent.elapsed() >= SESSION_TIMEOUT {
                return None;
            }
            assert_eq!(
                (heartbeat.status, refused.status),
                (200, 409),
                "{heartbeat:?}"
            );
            last_answered = heartbeat.body["server_time"].as_str().unwrap().to_owned();
            sent = next;
        }
        wait_until(Instant::now(), SESSION_TIMEOUT);
        assert_eq!(
            client
                .call("session/start", &identity(&key, "desktop"))
                .status,
            201
        );
        let last = database::ended_sessions(&server)[0].last_heartbeat_at_ms;
        assert_eq!(UnixMs(last).rfc3339(), last_answered);
        Some(())
    });
}

#[test]
fn the_sweep_moves_timed_out_sessions_to_the_history() {
    let server = started(
        &[("SESSIONS__CLEANUP_INTERVAL", "1"), AUTO_ACTIVATE],
        &[SHORT_TIMEOUT],
    );
    let key = server.issue_license(1);
    server.client().session(&key, "laptop");
    eventually("the sweep", || database::timed_out_sessions(&server) == 1);
    assert_eq!(database::count(&server, "active_sessions"), 0);
    assert_eq!(
        database::ended_sessions(&server)[0].silent_ms(),
        2000,
        "the moment of the timeout, not of the sweep"
    );
}

#[test]
fn an_end_needs_the_right_token_and_key_and_may_be_repeated() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 2);
    let client = server.client();
    let token = client.session(&keys[0], "laptop");
    let unknown_token = "0b0e7a54-9d0c-4e5f-8a6b-0123456789ab";
    for (body, expected) in [
        (heartbeat_body(&keys[1], &token), (404, "session_not_found")),
        (heartbeat_body(UNKNOWN, &token), (404, "license_not_found")),
        (
            heartbeat_body(&keys[0], unknown_token),
            (404, "session_not_found"),
        ),
        (
            json!({ "session_token": unknown_token }),
            (404, "session_not_found"),
        ),
        (json!({ "session_token": "x" }), (422, "invalid_field")),
    ] {
        for endpoint in ["session/end", "session/heartbeat"] {
            if endpoint == "session/end" || body.get("license_key").is_some() {
                assert_eq!(
                    client.call(endpoint, &body).status_and_code(),
                    expected,
                    "{endpoint} {body}"
                );
            }
        }
    }
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&keys[0], &token));
    assert_eq!(
        heartbeat.status, 200,
        "none of these ended it: {heartbeat:?}"
    );
    for body in [
        heartbeat_body(&keys[0], &token),
        json!({ "session_token": token }),
        heartbeat_body(&keys[0], &token),
    ] {
        let end = client.call("session/end", &body);
        assert_eq!(
            (end.status, &end.body["end_reason"]),
            (200, &json!("normal"))
        );
    }
    assert_eq!(
        client
            .call("session/end", &heartbeat_body(&keys[1], &token))
            .status_and_code(),
        (404, "session_not_found")
    );
    let foreign = client.call("session/heartbeat", &heartbeat_body(&keys[1], &token));
    assert_eq!(
        foreign.status_and_code(),
        (404, "session_not_found"),
        "ended, but another license's"
    );
    assert_eq!(end_reasons(&server), ["normal"]);
}

#[test]
fn an_accepted_heartbeat_is_in_the_database_within_a_second() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let mut waits = Vec::new();
    for _ in 0..3 {
        let sent_ms = now_ms();
        assert_eq!(
            client
                .call("session/heartbeat", &heartbeat_body(&key, &token))
                .status,
            200
        );
        let answered = Instant::now();
        eventually("the heartbeat is in the database", || {
            database::latest_heartbeat_ms(&server.database()) >= sent_ms
        });
        waits.push(answered.elapsed());
    }
    // The best of three, because this machine may be busy with other tests.
    assert!(
        waits.iter().any(|wait| wait.as_millis() < 1000),
        "{waits:?}"
    );
}

#[test]
fn an_administrator_ends_a_session_and_its_program_learns_of_it() {
    let server = Server::start();
    let key = server.issue_license(2);
    let client = server.client();
    let token = client.session(&key, "laptop");
    client.call("activate", &identity(&key, "desktop"));
    let id = running(&server)[0]["id"].to_string();
    server.json(&["session", "end", &id]);
    assert_eq!(
        client
            .call("session/start", &identity(&key, "desktop"))
            .status,
        201,
        "the license is free"
    );
    eventually("410 for the old session", || {
        let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
        assert!(
            heartbeat.status == 200 || heartbeat.body["end_reason"] == "forced",
            "{heartbeat:?}"
        );
        heartbeat.status == 410
    });
    assert_eq!(end_reasons(&server), ["forced"]);
    assert_eq!(running(&server)[0]["machine_id"], "desktop");
}

#[test]
fn a_command_notices_a_timeout_before_any_sweep() {
    let server = started(&[NO_SWEEP], &[SHORT_TIMEOUT]);
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let list = || {
        server.json(&["session", "list"])["sessions"]
            .as_array()
            .unwrap()
            .clone()
    };
    let running = list();
    let id = running.first().map(|session| session["id"].to_string());
    eventually("the list is empty after the timeout", || list().is_empty());
    if let Some(id) = id {
        assert_eq!(
            server.json(&["session", "end", &id])["end_reason"],
            "timeout"
        );
    }
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.body["end_reason"], "timeout", "{heartbeat:?}");
}
