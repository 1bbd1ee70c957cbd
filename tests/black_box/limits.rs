//! Rate limits per source address.

use serde_json::json;

use crate::scene::{ONE_A_MINUTE, UNKNOWN, started};
use crate::support::{Server, beat, claim, eventually};

const VERSION: &str = "/api/license/version?version=1.0.0";

#[test]
fn a_burst_passes_and_then_everything_waits() {
    let server = started(
        &[],
        &[&[
            "limit",
            "set",
            "client",
            "--per-minute",
            "2",
            "--burst",
            "5",
        ]],
    );
    let client = server.client();
    for number in 0..5 {
        assert_eq!(client.get(VERSION).status, 200, "{number}");
    }
    let key = server.license(1);
    for deed in [
        "activate",
        "verify",
        "session/start",
        "session/heartbeat",
        "session/end",
        "deactivate",
    ] {
        let limited = client.call(deed, &claim(&key, "laptop"));
        assert_eq!(limited.told(), (429, "rate_limited"), "{deed}");
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
        "limits stand before the key"
    );
    assert_eq!(client.get("/unknown").status, 503, "the dark stays dark");
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    eventually("no limit", || client.get(VERSION).status == 200);
    for _ in 0..50 {
        assert_eq!(client.get(VERSION).status, 200);
    }
    server.json(ONE_A_MINUTE);
    eventually("the limit again", || client.get(VERSION).status == 429);
}

#[test]
fn whoever_guesses_is_shut_out_but_no_session_starves_for_it() {
    let server = started(
        &[],
        &[&[
            "limit",
            "set",
            "client_failures",
            "--per-minute",
            "1",
            "--burst",
            "8",
        ]],
    );
    let key = server.license(2);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let never = "0b0e7a54-9d0c-4e5f-8a6b-0123456789ab";
    // Each of these looks like guessing, whether or not it is answered 200.
    for round in 0..2 {
        assert_eq!(
            client.call("activate", &claim(UNKNOWN, "laptop")).status,
            404,
            "{round}"
        );
        assert_eq!(
            client.call("verify", &claim("mistyped", "laptop")).code(),
            "license_not_found"
        );
        assert_eq!(client.with_key("wrong").get(VERSION).status, 401);
        assert_eq!(
            client.call("session/heartbeat", &beat(&key, never)).status,
            404
        );
    }
    for (deed, body) in [
        ("activate", claim(UNKNOWN, "laptop")),
        ("session/start", claim(UNKNOWN, "laptop")),
        ("session/start", claim(&key, "laptop")),
        ("verify", claim(&key, "laptop")),
        ("session/heartbeat", beat(&key, never)),
        ("session/end", json!({ "session_token": never })),
    ] {
        let told = client.call(deed, &body);
        assert_eq!(told.told(), (429, "rate_limited"), "{deed} {body}");
        assert!(told.header("retry-after").is_some());
    }
    assert_eq!(
        client.with_key("wrong").get(VERSION).status,
        429,
        "no more guesses at the key either"
    );
    for _ in 0..20 {
        assert_eq!(
            client.call("session/heartbeat", &beat(&key, &token)).status,
            200
        );
    }
    assert_eq!(client.call("session/end", &beat(&key, &token)).status, 200);
    server.json(&["limit", "set", "client_failures", "--per-minute", "0"]);
    eventually("a start", || {
        client.call("session/start", &claim(&key, "laptop")).status == 201
    });
    for _ in 0..20 {
        assert_eq!(
            client.call("activate", &claim(UNKNOWN, "laptop")).status,
            404
        );
    }
}

#[test]
fn refusals_that_are_no_guesses_use_up_no_failures() {
    let server = started(
        &[],
        &[&[
            "limit",
            "set",
            "client_failures",
            "--per-minute",
            "1",
            "--burst",
            "1",
        ]],
    );
    let key = server.license(1);
    let client = server.client();
    client.session(&key, "laptop");
    for _ in 0..5 {
        for (deed, device, status) in [
            ("session/start", "laptop", 409),
            ("activate", "desktop", 409),
            ("session/start", "desktop", 403),
        ] {
            assert_eq!(client.call(deed, &claim(&key, device)).status, status);
        }
        assert_eq!(client.call("activate", &json!({})).status, 422);
    }
}

#[test]
fn addresses_do_not_share_a_limit() {
    let limit: &[&str] = &[
        "limit",
        "set",
        "client",
        "--per-minute",
        "1",
        "--burst",
        "3",
    ];
    let server = started(
        &[("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]")],
        &[limit],
    );
    let (client, key) = (server.client(), server.license(1));
    let from = |address: &str| {
        client
            .call_with(
                "session/start",
                &claim(&key, "laptop"),
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
        ("::ffff:192.0.2.1", [429; 4]), // the first one in other clothes
        ("192.0.2.77, 192.0.2.1", [429; 4]), // the right-most counts
    ] {
        assert_eq!([(); 4].map(|()| from(address)), expected, "{address}");
    }
}

#[test]
fn the_shipped_limits_let_a_company_of_1000_devices_start_its_day() {
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
    assert!(!names.contains(&"admin_api"), "nothing is held to it");
    let client = limits
        .as_array()
        .unwrap()
        .iter()
        .find(|limit| limit["name"] == "client")
        .unwrap();
    // Each verifies, activates and starts at once, then beats twice a minute.
    assert!(
        client["burst"].as_u64() >= Some(3000) && client["per_minute"].as_u64() >= Some(2000),
        "{client}"
    );
}

#[test]
fn strangers_behind_an_address_do_not_use_up_the_calls_of_its_programs() {
    let limit: &[&str] = &[
        "limit",
        "set",
        "client",
        "--per-minute",
        "1",
        "--burst",
        "10",
    ];
    let server = started(&[], &[limit]);
    let key = server.license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let stranger = client.with_key("wrong");
    for _ in 0..150 {
        let told = stranger.call("verify", &claim(&key, "laptop")).status;
        assert!([401, 429].contains(&told), "{told}");
        let told = client.call("verify", &claim(UNKNOWN, "laptop")).status;
        assert!([200, 429].contains(&told), "{told}");
    }
    for _ in 0..5 {
        let heard = client.call("session/heartbeat", &beat(&key, &token));
        assert_eq!(heard.status, 200, "{heard:?}");
    }
}

#[test]
fn an_old_program_is_no_way_to_look_for_keys() {
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
    let heard: Vec<u16> = (0..130)
        .map(|_| client.call("verify", &claim(UNKNOWN, "laptop")).status)
        .collect();
    assert!(
        heard.iter().take(100).all(|status| *status == 200),
        "{heard:?}"
    );
    assert!(
        heard.iter().skip(120).all(|status| *status == 429),
        "{heard:?}"
    );
}
