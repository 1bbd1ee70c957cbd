//! Rate limits of the client API per source address.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use license_server::licenses::LicenseKey;
use serde_json::json;

use crate::setup::{AUTO_ACTIVATE, MANY_STARTS, ONE_A_MINUTE, UNKNOWN, limit, started};
use crate::support::{Client, Server, eventually, heartbeat_body, identity, rounds};

const VERSION: &str = "/api/license/version?version=1.0.0";
const FAILURES_8: &[&str] = &limit("client_failures", "1", "8");

#[test]
fn after_a_burst_every_call_is_limited() {
    let server = started(&[], &[&limit("client", "2", "5")]);
    let client = server.client();
    for number in 0..5 {
        assert_eq!(client.get(VERSION).status, 200, "{number}");
    }
    let key = server.issue_license(1);
    for endpoint in [
        "activate",
        "verify",
        "session/start",
        "session/heartbeat",
        "session/end",
        "deactivate",
    ] {
        let limited = client.call(endpoint, &identity(&key, "laptop"));
        assert_eq!(
            limited.status_and_code(),
            (429, "rate_limited"),
            "{endpoint}"
        );
        let wait = limited.body["retry_after"].as_u64().unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
        assert_eq!(
            limited.header("retry-after"),
            Some(wait.to_string().as_str())
        );
    }
    assert_eq!(
        client.with_key("wrong").get(VERSION).status,
        429,
        "limits are checked before the API key"
    );
    assert_eq!(
        client.get("/unknown").status,
        503,
        "not served, whatever the limit"
    );
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    eventually("no limit", || {
        client.call("activate", &identity(UNKNOWN, "laptop")).status == 404
    });
    for _ in 0..50 {
        assert_eq!(client.get(VERSION).status, 200);
    }
    server.json(ONE_A_MINUTE);
    eventually("the limit again", || client.get(VERSION).status == 429);
}

#[test]
fn failed_attempts_are_limited_but_calls_for_an_existing_license_are_not() {
    let server = started(&[], &[FAILURES_8]);
    let key = server.issue_license(3);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let unknown_token = "0b0e7a54-9d0c-4e5f-8a6b-0123456789ab";
    // Each of these counts as a failed attempt, even with a 200.
    for round in 0..4 {
        assert_eq!(
            client.call("activate", &identity(UNKNOWN, "laptop")).status,
            404,
            "{round}"
        );
        assert_eq!(
            client
                .call("verify", &identity("mistyped", "laptop"))
                .code(),
            "license_not_found"
        );
    }
    for (endpoint, body) in [
        ("activate", identity(UNKNOWN, "laptop")),
        ("session/start", identity("mistyped", "laptop")),
        ("verify", identity(UNKNOWN, "laptop")),
        ("session/heartbeat", heartbeat_body(UNKNOWN, unknown_token)),
        ("session/heartbeat", heartbeat_body(UNKNOWN, &token)),
        ("session/end", json!({ "session_token": unknown_token })),
        ("verify", json!({})),
    ] {
        let response = client.call(endpoint, &body);
        assert_eq!(
            response.status_and_code(),
            (429, "rate_limited"),
            "{endpoint} {body}"
        );
        assert!(response.header("retry-after").is_some());
    }
    // Calls that name an existing license or session are not limited.
    for _ in 0..20 {
        let body = heartbeat_body(&key, &token);
        assert_eq!(client.call("session/heartbeat", &body).status, 200);
        assert_eq!(client.call("verify", &identity(&key, "laptop")).status, 200);
        assert_eq!(client.get(VERSION).status, 200);
    }
    for (endpoint, body, expected) in [
        (
            "session/start",
            identity(&key, "laptop"),
            (409, "session_active"),
        ),
        (
            "session/start",
            identity(&key, "desk"),
            (403, "device_not_activated"),
        ),
        ("activate", identity(&key, "desk"), (201, "")),
        (
            "session/heartbeat",
            heartbeat_body(&key, unknown_token),
            (404, "session_not_found"),
        ),
        ("session/end", heartbeat_body(&key, &token), (200, "")),
        ("session/end", heartbeat_body(&key, &token), (200, "")),
        (
            "session/heartbeat",
            heartbeat_body(&key, &token),
            (410, "session_ended"),
        ),
        ("session/start", identity(&key, "desk"), (201, "")),
        ("deactivate", identity(&key, "desk"), (200, "")),
    ] {
        let response = client.call(endpoint, &body);
        assert_eq!(response.status_and_code(), expected, "{endpoint} {body}");
    }
    server.json(&["limit", "set", "client_failures", "--per-minute", "0"]);
    eventually("no limit", || {
        client.call("activate", &identity(UNKNOWN, "laptop")).status == 404
    });
}

#[test]
fn wrong_keys_with_a_valid_session_count_as_failed_attempts() {
    let server = started(&[], &[FAILURES_8]);
    let (key, other) = (server.issue_license(1), server.issue_license(1));
    let client = server.client();
    let token = client.session(&key, "laptop");
    let guesses: Vec<u16> = (0..20)
        .map(|_| {
            client
                .call("session/heartbeat", &heartbeat_body(UNKNOWN, &token))
                .status
        })
        .collect();
    assert!(
        guesses[..8].iter().all(|status| *status == 404),
        "{guesses:?}"
    );
    assert!(
        guesses[8..].iter().all(|status| *status == 429),
        "{guesses:?}"
    );
    let response = client.call("session/end", &heartbeat_body(UNKNOWN, &token));
    assert_eq!(
        response.status, 429,
        "the same attempt with another endpoint"
    );
    // An existing key with the session of another license is looked up, but lookups are limited as well.
    let guesses: Vec<u16> = (0..40)
        .map(|_| {
            client
                .call("session/heartbeat", &heartbeat_body(&other, &token))
                .status
        })
        .collect();
    assert!(guesses.contains(&429), "{guesses:?}");
    for _ in 0..20 {
        let response = client.call("session/heartbeat", &heartbeat_body(&key, &token));
        assert_eq!(response.status, 200, "{response:?}");
    }
}

/// Asserts that a program can make all its usual calls, whatever others behind the same address do.
fn assert_works(client: &Client, key: &str, device: &str) {
    let body = identity(key, device);
    assert_eq!(client.call("activate", &body).status, 200, "{device}");
    assert_eq!(client.get(VERSION).status, 200, "{device}");
    let verification = client.call("verify", &body);
    assert_eq!(
        verification.body["valid"], true,
        "{device}: {verification:?}"
    );
    let started = client.call("session/start", &body);
    assert_eq!(started.status, 201, "{device}: {started:?}");
    let own = heartbeat_body(key, &started.token());
    assert_eq!(
        client.call("session/heartbeat", &own).status,
        200,
        "{device}"
    );
    assert_eq!(client.call("session/end", &own).status, 200, "{device}");
}

#[test]
fn one_broken_program_does_not_affect_others_behind_its_address() {
    let slow = ["limit", "set", "client_failures", "--per-minute", "1"];
    let slow = [&slow[..], &["--burst", "100"]].concat();
    let mut server = started(&[], &[&slow]);
    let keys = server.issue_licenses(2, 3);
    let client = server.client();
    for key in &keys {
        assert_eq!(
            client.call("activate", &identity(key, "laptop")).status,
            201
        );
    }
    let repeat_wrong_key = |client: &Client| {
        let statuses: Vec<u16> = (0..130)
            .map(|_| client.call("verify", &identity(UNKNOWN, "laptop")).status)
            .collect();
        assert!(
            statuses.contains(&429),
            "the program itself is limited: {statuses:?}"
        );
    };
    repeat_wrong_key(&client);
    for key in &keys {
        assert_works(&client, key, "laptop");
    }
    let first = client.call("activate", &identity(&keys[0], "first time"));
    assert_eq!(first.status, 201, "{first:?}");
    // After a restart, the server does not remember any device.
    server.restart();
    let client = server.client();
    repeat_wrong_key(&client);
    for key in &keys {
        assert_works(&client, key, "laptop");
    }
    // Different wrong keys count as failed attempts as well.
    for number in 0..50 {
        let made_up = LicenseKey::new().unwrap().formatted();
        let response = client.call("activate", &identity(&made_up, "laptop"));
        assert_eq!(response.status, 429, "{number}");
    }
    assert_works(&client, &keys[0], "first time");
}

#[test]
fn no_number_of_wrong_keys_behind_an_address_blocks_existing_licenses() {
    let mut server = started(&[], &[FAILURES_8]);
    let old = server.client();
    let rotated = server.json(&["config", "rotate-api-key", "--overlap-days", "0"]);
    let client = old.with_key(rotated["api_key"].as_str().unwrap());
    eventually("the new key", || client.get(VERSION).status == 200);
    let keys = server.issue_licenses(2, 3);
    for key in &keys {
        assert_eq!(
            client.call("activate", &identity(key, "laptop")).status,
            201
        );
    }
    // So few that the wrong keys would use up any shared quota.
    let few = limit("client", "1", "24");
    server.json(&few);
    server.restart();
    let api_key = rotated["api_key"].as_str().unwrap();
    let old = server.client();
    let client = old.with_key(api_key);
    let made_up = || LicenseKey::new().unwrap().formatted();
    let guess = |number: u32| {
        let token = format!("0b0e7a54-9d0c-4e5f-8a6b-{number:012}");
        for (endpoint, body) in [
            ("session/start", identity(&made_up(), "laptop")),
            ("verify", identity(UNKNOWN, "laptop")),
            ("session/heartbeat", heartbeat_body(&made_up(), &token)),
            ("session/end", json!({ "session_token": token })),
        ] {
            let status = client.call(endpoint, &body).status;
            assert!(
                number < 10 || status == 429,
                "{number} {endpoint}: {status}"
            );
        }
        let status = old.call("verify", &identity(&keys[0], "laptop")).status;
        assert!([401, 429].contains(&status), "{number}: {status}");
    };
    (0..40).for_each(guess);
    let first = client.call("activate", &identity(&keys[0], "first time"));
    assert_eq!(first.status, 201, "{first:?}");
    for key in &keys {
        (40..50).for_each(guess);
        assert_works(&client, key, "laptop");
    }
}

#[test]
fn calls_with_a_retired_api_key_do_not_limit_calls_with_the_new_one() {
    let server = Server::start();
    let key = server.issue_license(1);
    let old = server.client();
    assert_eq!(old.call("activate", &identity(&key, "laptop")).status, 201);
    let rotated = server.json(&["config", "rotate-api-key", "--overlap-days", "0"]);
    let new = old.with_key(rotated["api_key"].as_str().unwrap());
    eventually("the new key", || new.get(VERSION).status == 200);
    let statuses: Vec<u16> = (0..150)
        .map(|_| old.call("verify", &identity(&key, "laptop")).status)
        .collect();
    assert_eq!((statuses[0], statuses[149]), (401, 429), "{statuses:?}");
    assert_works(&new, &key, "laptop");
    let first = new.call("verify", &identity("mistyped", "laptop"));
    assert_eq!(
        first.code(),
        "license_not_found",
        "nor do they count as failed attempts"
    );
}

/// Calls `action` for each of `count` devices, six at a time.
fn for_each_device(server: &Server, count: usize, action: &(dyn Fn(&Client, usize) + Sync)) {
    std::thread::scope(|scope| {
        for part in 0..6 {
            let client = server.client();
            scope.spawn(move || (part..count).step_by(6).for_each(|n| action(&client, n)));
        }
    });
}

#[test]
fn after_a_restore_150_programs_behind_one_address_can_start_again() {
    let mut server = started(&[MANY_STARTS], &[]);
    let keys = server.issue_licenses(1, 150);
    let name = |number: usize| format!("device {number}");
    for_each_device(&server, keys.len(), &|client, n| {
        let response = client.call("activate", &identity(&keys[n], &name(n)));
        assert_eq!(response.status, 201);
    });
    server.json(&["backup", "copy.sqlite3"]);
    let tokens: Vec<_> = keys.iter().map(|_| Mutex::new(String::new())).collect();
    for_each_device(&server, keys.len(), &|client, n| {
        let started = client.call("session/start", &identity(&keys[n], &name(n)));
        *tokens[n].lock().unwrap() = started.token();
    });
    assert_eq!(server.stop(), Some(0));
    server.json(&["restore", "copy.sqlite3"]);
    server.run();
    // Among them, one program repeats a wrong key.
    let client = server.client();
    for _ in 0..130 {
        client.call("verify", &identity(UNKNOWN, "laptop"));
    }
    let started_at = Instant::now();
    for_each_device(&server, keys.len(), &|client, n| {
        let lost = client.call(
            "session/heartbeat",
            &heartbeat_body(&keys[n], &tokens[n].lock().unwrap()),
        );
        assert_eq!(lost.status_and_code(), (404, "session_not_found"), "{n}");
        let again = client.call("session/start", &identity(&keys[n], &name(n)));
        assert_eq!(again.status, 201, "{n}: {again:?}");
        let response = client.call(
            "session/heartbeat",
            &heartbeat_body(&keys[n], &again.token()),
        );
        assert_eq!(response.status, 200, "{n}: {response:?}");
    });
    assert!(
        started_at.elapsed() < Duration::from_mins(1),
        "{:?}",
        started_at.elapsed()
    );
}

#[test]
fn neither_unreadable_nor_valid_calls_of_one_program_affect_sessions_behind_the_same_address() {
    let few = limit("client", "1", "30");
    let server = started(&[], &[&few]);
    let keys = server.issue_licenses(1, 2);
    let client = server.client();
    let token = client.session(&keys[0], "laptop");
    let assert_alive = || {
        let response = client.call("session/heartbeat", &heartbeat_body(&keys[0], &token));
        assert_eq!(response.status, 200, "{response:?}");
    };
    // Unreadable requests use up no calls.
    for round in 0..30 {
        let text = [("Content-Type", "text/plain")];
        for (body, headers, status) in [
            (&b"{"[..], &[][..], 400),
            (b"{}", &text, 415),
            (b"{\"license_key\":7}", &[], 422),
        ] {
            let actual = client.send("verify", body, headers).status;
            assert!([status, 429].contains(&actual), "{round}: {actual}");
        }
        assert_alive();
    }
    let first = client.call("activate", &identity(&keys[1], "desk"));
    assert_eq!(first.status, 201, "{first:?}");
    // Valid calls do, but a device that holds a slot has a quota of its own.
    let statuses: Vec<u16> = (0..60)
        .map(|_| {
            client
                .call("session/start", &identity(&keys[0], "stranger"))
                .status
        })
        .collect();
    // Not the last of them: the quota refills while they are sent.
    let limited = |statuses: &[u16]| statuses.contains(&429);
    assert!(statuses[0] == 403 && limited(&statuses), "{statuses:?}");
    assert_alive();
    assert_works(&client, &keys[1], "desk");
    // This quota is limited, too.
    let statuses: Vec<u16> = (0..200)
        .map(|_| client.call("verify", &identity(&keys[1], "desk")).status)
        .collect();
    assert!(statuses[0] == 200 && limited(&statuses), "{statuses:?}");
    assert_alive();
}

#[test]
fn invalid_calls_from_a_whole_network_block_no_first_start() {
    let is_full_size = rounds(1) > 1;
    // At full size, with the default limits and 40 calls a second from each source. Otherwise with limits so low that
    // a few calls exceed them.
    let strict: &[&str] = &limit("client_failures", "1", "2");
    let limits: &[&[&str]] = if is_full_size { &[] } else { &[strict] };
    let proxied = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    let server = started(&[AUTO_ACTIVATE, proxied], limits);
    let keys = server.issue_licenses(1, 40);
    let v6 = (0..256).map(|number| format!("2001:db8:0:{number:x}::1"));
    let v4 = (0..25).map(|number| format!("198.51.100.{number}"));
    let sources: Vec<String> = v6.chain(v4).collect();
    let (attempts, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
    let attack = |part: usize| {
        let client = server.client();
        let without_api_key = client.with_key("");
        let of_part = sources.iter().skip(part).step_by(4).cycle();
        for (number, source) in of_part.enumerate() {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let from = [("X-Forwarded-For", source.as_str())];
            // Without an API key, and with one and unknown license keys.
            let caller = if number % 2 == 0 {
                &without_api_key
            } else {
                &client
            };
            let response = caller.call_with("session/start", &identity(UNKNOWN, "x"), &from);
            assert!([401, 404, 429].contains(&response.status), "{response:?}");
            attempts.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for part in 0..4 {
            let attack = &attack;
            scope.spawn(move || attack(part));
        }
        let least = if is_full_size { 25 * 40 * 30 } else { 400 };
        let client = server.client();
        for (number, key) in keys.iter().enumerate() {
            // Spread over the attack.
            let due = least * u32::try_from(number).unwrap() / 40;
            eventually("invalid calls", || attempts.load(Ordering::Relaxed) >= due);
            let source = format!("192.0.2.{number}");
            let from = [("X-Forwarded-For", source.as_str())];
            let response = client.call_with("session/start", &identity(key, "desk"), &from);
            assert_eq!(response.status, 201, "{number}: {response:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn other_refusals_do_not_count_as_failed_attempts() {
    let server = started(&[], &[&limit("client_failures", "1", "1")]);
    let key = server.issue_license(1);
    let client = server.client();
    client.session(&key, "laptop");
    for _ in 0..5 {
        for (endpoint, device, status) in [
            ("session/start", "laptop", 409),
            ("activate", "desktop", 409),
            ("session/start", "desktop", 403),
        ] {
            assert_eq!(
                client.call(endpoint, &identity(&key, device)).status,
                status
            );
        }
        assert_eq!(client.call("activate", &json!({})).status, 422);
    }
}

#[test]
fn addresses_do_not_share_a_limit() {
    let few: &[&str] = &limit("client", "1", "3");
    let server = started(&[("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]")], &[few]);
    let (client, key) = (server.client(), server.issue_license(1));
    let from = |address: &str| {
        client
            .call_with(
                "session/start",
                &identity(&key, "laptop"),
                &[("X-Forwarded-For", address)],
            )
            .status
    };
    for (address, expected) in [
        ("192.0.2.1", [403, 403, 403, 429]),
        ("192.0.2.2", [403, 403, 403, 429]),
        ("2001:db8:1:2::1", [403, 403, 403, 429]),
        ("2001:db8:1:2:ffff::9", [429; 4]), // the same network of 64 bits
        ("2001:db8:1:3::1", [403, 403, 403, 429]),
        ("::ffff:192.0.2.1", [429; 4]), // the first one, mapped to IPv6
        ("192.0.2.77, 192.0.2.1", [429; 4]), // the right-most counts
    ] {
        assert_eq!([(); 4].map(|()| from(address)), expected, "{address}");
    }
}

#[test]
fn the_default_limits_allow_1000_devices_behind_one_address() {
    let server = Server::start();
    let limits = server.json(&["limit", "list"])["limits"].clone();
    let names: Vec<&str> = limits
        .as_array()
        .unwrap()
        .iter()
        .map(|limit| limit["name"].as_str().unwrap())
        .collect();
    for name in ["client", "client_failures", "login", "site"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.contains(&"admin_api"), "nothing uses it");
    let client = limits
        .as_array()
        .unwrap()
        .iter()
        .find(|limit| limit["name"] == "client")
        .unwrap();
    // Each device verifies, activates and starts at once, then sends two heartbeats a minute.
    assert!(
        client["burst"].as_u64() >= Some(3000) && client["per_minute"].as_u64() >= Some(2000),
        "{client}"
    );
}

#[test]
fn invalid_calls_behind_an_address_do_not_use_up_the_calls_of_its_programs() {
    let few: &[&str] = &limit("client", "1", "10");
    let server = started(&[], &[few]);
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let without_api_key = client.with_key("wrong");
    for _ in 0..150 {
        let status = without_api_key
            .call("verify", &identity(&key, "laptop"))
            .status;
        assert!([401, 429].contains(&status), "{status}");
        let status = client.call("verify", &identity(UNKNOWN, "laptop")).status;
        assert!([200, 429].contains(&status), "{status}");
    }
    for _ in 0..5 {
        let response = client.call("session/heartbeat", &heartbeat_body(&key, &token));
        assert_eq!(response.status, 200, "{response:?}");
    }
}

#[test]
fn an_outdated_version_cannot_be_used_to_guess_keys() {
    let server = started(
        &[],
        &[&[
            "config",
            "set",
            "minimum_version=2.0.0",
            "current_version=2.0.0",
        ]],
    );
    let client = server.client();
    let begun = Instant::now();
    let statuses = (0..1000).map(|_| client.call("verify", &identity(UNKNOWN, "laptop")).status);
    let guesses = statuses.take_while(|status| *status == 200).count();
    // 100 at once and 100 a minute; a slow machine takes some seconds for them.
    let refilled = usize::try_from(begun.elapsed().as_secs() * 100 / 60).unwrap();
    assert!(
        (100..=120 + refilled).contains(&guesses),
        "{guesses} guesses, {refilled} of them by then"
    );
}
