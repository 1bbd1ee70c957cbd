//! Starting, keeping alive, ending.

use std::time::Instant;

use license_server::clock::UnixMs;
use serde_json::{Value, json};

use crate::scene::{
    AUTO_ACTIVATE, HURRY, MANY_STARTS, NO_LIMIT, NO_SWEEP, SILENCE, UNKNOWN, WHOLE_HISTORY,
    end_reasons, ended, now_ms, running, started, together, unless_too_slow, value, wait_until,
};
use crate::support::{Server, beat, claim, eventually, rounds};

#[test]
fn a_session_starts_lives_and_ends_and_a_second_one_is_refused() {
    let server = Server::start();
    let key = server.license(2);
    let client = server.client();
    let token = client.session(&key, "laptop");
    client.call("activate", &claim(&key, "desktop"));
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
            let refused = client.call_with("session/start", &claim(&key, device), &headers);
            assert_eq!(refused.told(), (409, "session_active"), "{device}");
            assert_eq!(refused.body["detail"], sentence, "{language}");
        }
    }
    let alive = client.call("session/heartbeat", &beat(&key, &token));
    assert_eq!((alive.status, &alive.body["status"]), (200, &json!("ok")));
    let ended = client.call("session/end", &json!({ "session_token": token }));
    let normal = json!({ "status": "ended", "end_reason": "normal" });
    assert_eq!((ended.status, &ended.body), (200, &normal));
    let beaten = client.call("session/heartbeat", &beat(&key, &token));
    assert_eq!(beaten.told(), (410, "session_ended"));
    assert_eq!(beaten.body["end_reason"], "normal");
    let again = client.call("session/start", &claim(&key, "desktop"));
    assert_eq!(again.status, 201);
    assert_ne!(again.token(), token);
}

#[test]
fn start_and_heartbeat_answer_with_every_field_of_the_contract() {
    let rhythm: &[&str] = &[
        "config",
        "set",
        "heartbeat_interval=20",
        "session_timeout=50",
    ];
    let server = started(&[AUTO_ACTIVATE], &[rhythm]);
    let key = server.license(1);
    let client = server.client();
    let start = client.call("session/start", &claim(&key, "laptop"));
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
        "whats_new": null, "download_url": null, "feature_flags": {},
        "license": { "kind": "full", "valid_from": issued["valid_from"], "valid_until": null },
        "lease": null,
    });
    assert_eq!(start.body, expected);
    assert_moment(&start.body["started_at"]);
    let alive = client.call("session/heartbeat", &beat(&key, &token));
    let expected = json!({
        "status": "ok", "heartbeat_interval": 20, "session_timeout": 50, "update_available": false,
        "server_time": alive.body["server_time"],
    });
    assert_eq!(alive.body, expected);
    assert_moment(&alive.body["server_time"]);
    assert_eq!(alive.header("content-type"), Some("application/json"));
}

fn assert_moment(text: &Value) {
    let text = text.as_str().unwrap();
    let shape = text.len() == 20 && text.ends_with('Z') && &text[10..11] == "T";
    assert!(shape && UnixMs::parse(text).is_ok(), "{text}");
}

#[test]
fn of_64_clients_that_start_at_once_exactly_one_wins() {
    let server = started(&[AUTO_ACTIVATE, MANY_STARTS, WHOLE_HISTORY], &[NO_LIMIT]);
    let key = server.license(64);
    let clients: Vec<_> = (0..64).map(|_| server.client()).collect();
    let rounds = rounds(20);
    for round in 0..rounds {
        // Half of them are one device, the others one each.
        let answers = together(clients.len(), |number| {
            let device = if number % 2 == 0 {
                "same".to_owned()
            } else {
                format!("device {number}")
            };
            clients[number].call("session/start", &claim(&key, &device))
        });
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(won.len(), 1, "round {round}");
        assert!(
            lost.iter()
                .all(|answer| answer.told() == (409, "session_active")),
            "round {round}"
        );
        let end = json!({ "session_token": won[0].token(), "license_key": key });
        assert_eq!(clients[0].call("session/end", &end).status, 200);
    }
    assert_eq!(
        value::<u32>(&server, "select count(*) from session_history"),
        rounds
    );
    assert_eq!(
        value::<u32>(&server, "select count(*) from active_sessions"),
        0
    );
}

#[test]
fn a_silent_session_is_over_at_the_very_second_though_nobody_swept() {
    unless_too_slow(|| {
        let server = started(&[NO_SWEEP, AUTO_ACTIVATE], &[HURRY]);
        let keys = server.licenses(2, 2);
        let client = server.client();
        let tokens = [
            client.session(&keys[0], "laptop"),
            client.session(&keys[1], "laptop"),
        ];
        let sent = Instant::now();
        let mut beats = keys.iter().zip(&tokens);
        let last = beats
            .all(|(key, token)| client.call("session/heartbeat", &beat(key, token)).status == 200);
        let heard = Instant::now();
        wait_until(heard, SILENCE / 2);
        let early = client.call("session/start", &claim(&keys[0], "desktop"));
        if !last || sent.elapsed() >= SILENCE {
            return None;
        }
        assert_eq!(
            early.told(),
            (409, "session_active"),
            "not a second too soon"
        );
        wait_until(heard, SILENCE);
        // The first seat goes to another device, the other program finds out by itself.
        assert_eq!(
            client
                .call("session/start", &claim(&keys[0], "desktop"))
                .status,
            201
        );
        for (key, token) in keys.iter().zip(&tokens) {
            let late = client.call("session/heartbeat", &beat(key, token));
            assert_eq!(late.told(), (410, "session_ended"));
            assert_eq!(late.body["end_reason"], "timeout");
        }
        assert_eq!(
            client
                .call("session/start", &claim(&keys[1], "laptop"))
                .status,
            201
        );
        assert_eq!(end_reasons(&server), ["timeout", "timeout"]);
        let timely =
            "select count(*) from session_history where ended_at_ms = last_heartbeat_at_ms + 2000";
        assert_eq!(value::<u32>(&server, timely), 2, "{:?}", ended(&server));
        // Ending what is over says how it ended.
        let end = client.call("session/end", &json!({ "session_token": tokens[0] }));
        assert_eq!(
            (end.status, &end.body["end_reason"]),
            (200, &json!("timeout"))
        );
        Some(())
    });
}

#[test]
fn each_heartbeat_buys_a_whole_timeout_and_the_history_knows_the_last_one() {
    unless_too_slow(|| {
        let server = started(&[NO_SWEEP, AUTO_ACTIVATE], &[HURRY]);
        let key = server.license(2);
        let client = server.client();
        let mut sent = Instant::now();
        let token = client.session(&key, "laptop");
        let mut told = String::new();
        for _ in 0..3 {
            wait_until(sent, SILENCE * 3 / 4);
            let next = Instant::now();
            let alive = client.call("session/heartbeat", &beat(&key, &token));
            let refused = client.call("session/start", &claim(&key, "desktop"));
            if sent.elapsed() >= SILENCE {
                return None;
            }
            assert_eq!((alive.status, refused.status), (200, 409), "{alive:?}");
            told = alive.body["server_time"].as_str().unwrap().to_owned();
            sent = next;
        }
        wait_until(Instant::now(), SILENCE);
        assert_eq!(
            client.call("session/start", &claim(&key, "desktop")).status,
            201
        );
        let last = value::<i64>(&server, "select last_heartbeat_at_ms from session_history");
        assert_eq!(UnixMs(last).rfc3339(), told);
        Some(())
    });
}

#[test]
fn the_sweeper_writes_silent_sessions_to_the_history_by_itself() {
    let server = started(
        &[("SESSIONS__CLEANUP_INTERVAL", "1"), AUTO_ACTIVATE],
        &[HURRY],
    );
    let key = server.license(1);
    server.client().session(&key, "laptop");
    let history = "select count(*) from session_history where end_reason = 'timeout'";
    eventually("the sweep", || value::<u32>(&server, history) == 1);
    assert_eq!(
        value::<u32>(&server, "select count(*) from active_sessions"),
        0
    );
    let late = "select ended_at_ms - last_heartbeat_at_ms from session_history";
    assert_eq!(
        value::<i64>(&server, late),
        2000,
        "not the moment of the sweep"
    );
}

#[test]
fn an_end_is_judged_by_token_and_key_and_may_be_repeated() {
    let server = Server::start();
    let keys = server.licenses(1, 2);
    let client = server.client();
    let token = client.session(&keys[0], "laptop");
    let never = "0b0e7a54-9d0c-4e5f-8a6b-0123456789ab";
    for (body, told) in [
        (beat(&keys[1], &token), (404, "session_not_found")),
        (beat(UNKNOWN, &token), (404, "license_not_found")),
        (beat(&keys[0], never), (404, "session_not_found")),
        (
            json!({ "session_token": never }),
            (404, "session_not_found"),
        ),
        (json!({ "session_token": "x" }), (422, "invalid_field")),
    ] {
        for deed in ["session/end", "session/heartbeat"] {
            if deed == "session/end" || body.get("license_key").is_some() {
                assert_eq!(client.call(deed, &body).told(), told, "{deed} {body}");
            }
        }
    }
    let alive = client.call("session/heartbeat", &beat(&keys[0], &token));
    assert_eq!(alive.status, 200, "nothing of that ended it: {alive:?}");
    for body in [
        beat(&keys[0], &token),
        json!({ "session_token": token }),
        beat(&keys[0], &token),
    ] {
        let end = client.call("session/end", &body);
        assert_eq!(
            (end.status, &end.body["end_reason"]),
            (200, &json!("normal"))
        );
    }
    assert_eq!(
        client.call("session/end", &beat(&keys[1], &token)).told(),
        (404, "session_not_found")
    );
    let foreign = client.call("session/heartbeat", &beat(&keys[1], &token));
    assert_eq!(
        foreign.told(),
        (404, "session_not_found"),
        "ended, but another license's"
    );
    assert_eq!(end_reasons(&server), ["normal"]);
}

#[test]
fn a_heartbeat_that_was_answered_is_in_the_file_within_a_second() {
    let server = Server::start();
    let key = server.license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let mut waits = Vec::new();
    for _ in 0..3 {
        let sent_ms = now_ms();
        assert_eq!(
            client.call("session/heartbeat", &beat(&key, &token)).status,
            200
        );
        let answered = Instant::now();
        eventually("the heartbeat in the file", || {
            value::<i64>(&server, "select last_heartbeat_at_ms from active_sessions") >= sent_ms
        });
        waits.push(answered.elapsed());
    }
    // The best of three: this machine may be busy with other tests.
    assert!(
        waits.iter().any(|wait| wait.as_millis() < 1000),
        "{waits:?}"
    );
}

#[test]
fn an_administrator_ends_a_session_and_its_program_hears_of_it() {
    let server = Server::start();
    let key = server.license(2);
    let client = server.client();
    let token = client.session(&key, "laptop");
    client.call("activate", &claim(&key, "desktop"));
    let id = running(&server)[0]["id"].to_string();
    server.json(&["session", "end", &id]);
    assert_eq!(
        client.call("session/start", &claim(&key, "desktop")).status,
        201,
        "the seat is free"
    );
    eventually("410 for the old session", || {
        let told = client.call("session/heartbeat", &beat(&key, &token));
        assert!(
            told.status == 200 || told.body["end_reason"] == "forced",
            "{told:?}"
        );
        told.status == 410
    });
    assert_eq!(end_reasons(&server), ["forced"]);
    assert_eq!(running(&server)[0]["machine_id"], "desktop");
}

#[test]
fn a_command_sees_that_a_session_has_timed_out_though_no_sweep_has_run() {
    let server = started(&[NO_SWEEP], &[HURRY]);
    let key = server.license(1);
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
    eventually("the list shows no silent session", || list().is_empty());
    if let Some(id) = id {
        assert_eq!(
            server.json(&["session", "end", &id])["end_reason"],
            "timeout"
        );
    }
    let beaten = client.call("session/heartbeat", &beat(&key, &token));
    assert_eq!(beaten.body["end_reason"], "timeout", "{beaten:?}");
}
