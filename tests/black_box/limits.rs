//! Rate limits per source address.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use license_server::licenses::LicenseKey;
use serde_json::json;

use crate::scene::{AUTO_ACTIVATE, MANY_STARTS, ONE_A_MINUTE, UNKNOWN, limit, started};
use crate::support::{Client, Server, beat, claim, eventually, rounds};

const VERSION: &str = "/api/license/version?version=1.0.0";
const FAILURES_8: &[&str] = &limit("client_failures", "1", "8");

#[test]
fn a_burst_passes_and_then_everything_waits() {
    let server = started(&[], &[&limit("client", "2", "5")]);
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
    eventually("no limit", || {
        client.call("activate", &claim(UNKNOWN, "laptop")).status == 404
    });
    for _ in 0..50 {
        assert_eq!(client.get(VERSION).status, 200);
    }
    server.json(ONE_A_MINUTE);
    eventually("the limit again", || client.get(VERSION).status == 429);
}

#[test]
fn whoever_guesses_is_shut_out_but_nobody_with_a_license_is() {
    let server = started(&[], &[FAILURES_8]);
    let key = server.license(3);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let never = "0b0e7a54-9d0c-4e5f-8a6b-0123456789ab";
    // Each of these looks like guessing, whether or not it is answered 200.
    for round in 0..4 {
        assert_eq!(
            client.call("activate", &claim(UNKNOWN, "laptop")).status,
            404,
            "{round}"
        );
        assert_eq!(
            client.call("verify", &claim("mistyped", "laptop")).code(),
            "license_not_found"
        );
    }
    for (deed, body) in [
        ("activate", claim(UNKNOWN, "laptop")),
        ("session/start", claim("mistyped", "laptop")),
        ("verify", claim(UNKNOWN, "laptop")),
        ("session/heartbeat", beat(UNKNOWN, never)),
        ("session/heartbeat", beat(UNKNOWN, &token)),
        ("session/end", json!({ "session_token": never })),
        ("verify", json!({})),
    ] {
        let told = client.call(deed, &body);
        assert_eq!(told.told(), (429, "rate_limited"), "{deed} {body}");
        assert!(told.header("retry-after").is_some());
    }
    // Whoever names what exists is no guesser.
    for _ in 0..20 {
        let body = beat(&key, &token);
        assert_eq!(client.call("session/heartbeat", &body).status, 200);
        assert_eq!(client.call("verify", &claim(&key, "laptop")).status, 200);
        assert_eq!(client.get(VERSION).status, 200);
    }
    for (deed, body, told) in [
        (
            "session/start",
            claim(&key, "laptop"),
            (409, "session_active"),
        ),
        (
            "session/start",
            claim(&key, "desk"),
            (403, "device_not_activated"),
        ),
        ("activate", claim(&key, "desk"), (201, "")),
        (
            "session/heartbeat",
            beat(&key, never),
            (404, "session_not_found"),
        ),
        ("session/end", beat(&key, &token), (200, "")),
        ("session/end", beat(&key, &token), (200, "")),
        (
            "session/heartbeat",
            beat(&key, &token),
            (410, "session_ended"),
        ),
        ("session/start", claim(&key, "desk"), (201, "")),
        ("deactivate", claim(&key, "desk"), (200, "")),
    ] {
        let heard = client.call(deed, &body);
        assert_eq!(heard.told(), told, "{deed} {body}");
    }
    server.json(&["limit", "set", "client_failures", "--per-minute", "0"]);
    eventually("no limit", || {
        client.call("activate", &claim(UNKNOWN, "laptop")).status == 404
    });
}

#[test]
fn guesses_through_a_session_of_ones_own_are_guesses() {
    let server = started(&[], &[FAILURES_8]);
    let (key, other) = (server.license(1), server.license(1));
    let client = server.client();
    let token = client.session(&key, "laptop");
    let guesses: Vec<u16> = (0..20)
        .map(|_| {
            client
                .call("session/heartbeat", &beat(UNKNOWN, &token))
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
    let told = client.call("session/end", &beat(UNKNOWN, &token));
    assert_eq!(told.status, 429, "the same guess in another call");
    // A key that exists is told from one that does not, as often as a lookup is worth it.
    let guesses: Vec<u16> = (0..40)
        .map(|_| {
            client
                .call("session/heartbeat", &beat(&other, &token))
                .status
        })
        .collect();
    assert_eq!(guesses.last(), Some(&429), "{guesses:?}");
    for _ in 0..20 {
        let heard = client.call("session/heartbeat", &beat(&key, &token));
        assert_eq!(heard.status, 200, "{heard:?}");
    }
}

/// What a copy asks from morning to evening; the answers are those of somebody who has no neighbours.
fn works(client: &Client, key: &str, device: &str) {
    let body = claim(key, device);
    assert_eq!(client.call("activate", &body).status, 200, "{device}");
    assert_eq!(client.get(VERSION).status, 200, "{device}");
    let verdict = client.call("verify", &body);
    assert_eq!(verdict.body["valid"], true, "{device}: {verdict:?}");
    let started = client.call("session/start", &body);
    assert_eq!(started.status, 201, "{device}: {started:?}");
    let own = beat(key, &started.token());
    assert_eq!(
        client.call("session/heartbeat", &own).status,
        200,
        "{device}"
    );
    assert_eq!(client.call("session/end", &own).status, 200, "{device}");
}

#[test]
fn one_broken_copy_stops_nobody_behind_its_address() {
    let slow = ["limit", "set", "client_failures", "--per-minute", "1"];
    let slow = [&slow[..], &["--burst", "100"]].concat();
    let mut server = started(&[], &[&slow]);
    let keys = server.licenses(2, 3);
    let client = server.client();
    for key in &keys {
        assert_eq!(client.call("activate", &claim(key, "laptop")).status, 201);
    }
    let broken = |client: &Client| {
        let told: Vec<u16> = (0..130)
            .map(|_| client.call("verify", &claim(UNKNOWN, "laptop")).status)
            .collect();
        assert_eq!(
            told.last(),
            Some(&429),
            "it stays limited by itself: {told:?}"
        );
    };
    broken(&client);
    for key in &keys {
        works(&client, key, "laptop");
    }
    let first = client.call("activate", &claim(&keys[0], "first time"));
    assert_eq!(first.status, 201, "{first:?}");
    // A server that has just started remembers nobody.
    server.restart();
    let client = server.client();
    broken(&client);
    for key in &keys {
        works(&client, key, "laptop");
    }
    // Keys that change look like guessing, and are as limited.
    for number in 0..50 {
        let made_up = LicenseKey::new().unwrap().shown();
        let told = client.call("activate", &claim(&made_up, "laptop"));
        assert_eq!(told.status, 429, "{number}");
    }
    works(&client, &keys[0], "first time");
}

#[test]
fn no_number_of_wrong_keys_behind_an_address_refuses_what_exists() {
    let mut server = started(&[], &[FAILURES_8]);
    let old = server.client();
    let rotated = server.json(&["config", "rotate-api-key", "--overlap-days", "0"]);
    let client = old.with_key(rotated["api_key"].as_str().unwrap());
    eventually("the new key", || client.get(VERSION).status == 200);
    let keys = server.licenses(2, 3);
    for key in &keys {
        assert_eq!(client.call("activate", &claim(key, "laptop")).status, 201);
    }
    // So few that what is made up would empty whatever it draws on.
    let few = limit("client", "1", "24");
    server.json(&few);
    server.restart();
    let api_key = rotated["api_key"].as_str().unwrap();
    let old = server.client();
    let client = old.with_key(api_key);
    let made_up = || LicenseKey::new().unwrap().shown();
    let guess = |number: u32| {
        let token = format!("0b0e7a54-9d0c-4e5f-8a6b-{number:012}");
        for (deed, body) in [
            ("session/start", claim(&made_up(), "laptop")),
            ("verify", claim(UNKNOWN, "laptop")),
            ("session/heartbeat", beat(&made_up(), &token)),
            ("session/end", json!({ "session_token": token })),
        ] {
            let told = client.call(deed, &body).status;
            assert!(number < 10 || told == 429, "{number} {deed}: {told}");
        }
        let told = old.call("verify", &claim(&keys[0], "laptop")).status;
        assert!([401, 429].contains(&told), "{number}: {told}");
    };
    (0..40).for_each(guess);
    let first = client.call("activate", &claim(&keys[0], "first time"));
    assert_eq!(first.status, 201, "{first:?}");
    for key in &keys {
        (40..50).for_each(guess);
        works(&client, key, "laptop");
    }
}

#[test]
fn programs_with_a_retired_api_key_stop_none_with_the_new_one() {
    let server = Server::start();
    let key = server.license(1);
    let old = server.client();
    assert_eq!(old.call("activate", &claim(&key, "laptop")).status, 201);
    let rotated = server.json(&["config", "rotate-api-key", "--overlap-days", "0"]);
    let new = old.with_key(rotated["api_key"].as_str().unwrap());
    eventually("the new key", || new.get(VERSION).status == 200);
    let told: Vec<u16> = (0..150)
        .map(|_| old.call("verify", &claim(&key, "laptop")).status)
        .collect();
    assert_eq!((told[0], told[149]), (401, 429), "{told:?}");
    works(&new, &key, "laptop");
    let first = new.call("verify", &claim("mistyped", "laptop"));
    assert_eq!(
        first.code(),
        "license_not_found",
        "nor does it fail for them"
    );
}

/// Does `deed` as each of `count` devices, six of them at a time.
fn each(server: &Server, count: usize, deed: &(dyn Fn(&Client, usize) + Sync)) {
    std::thread::scope(|scope| {
        for part in 0..6 {
            let client = server.client();
            scope.spawn(move || (part..count).step_by(6).for_each(|n| deed(&client, n)));
        }
    });
}

#[test]
fn after_a_restore_150_copies_behind_one_address_are_at_work_again() {
    let mut server = started(&[MANY_STARTS], &[]);
    let keys = server.licenses(1, 150);
    let name = |number: usize| format!("device {number}");
    each(&server, keys.len(), &|client, n| {
        let told = client.call("activate", &claim(&keys[n], &name(n)));
        assert_eq!(told.status, 201);
    });
    server.json(&["backup", "copy.sqlite3"]);
    let tokens: Vec<_> = keys.iter().map(|_| Mutex::new(String::new())).collect();
    each(&server, keys.len(), &|client, n| {
        let started = client.call("session/start", &claim(&keys[n], &name(n)));
        *tokens[n].lock().unwrap() = started.token();
    });
    assert_eq!(server.stop(), Some(0));
    server.json(&["restore", "copy.sqlite3"]);
    server.run();
    // Among them one with a wrong key, which asks all the time.
    let client = server.client();
    for _ in 0..130 {
        client.call("verify", &claim(UNKNOWN, "laptop"));
    }
    let begun = Instant::now();
    each(&server, keys.len(), &|client, n| {
        let lost = client.call(
            "session/heartbeat",
            &beat(&keys[n], &tokens[n].lock().unwrap()),
        );
        assert_eq!(lost.told(), (404, "session_not_found"), "{n}");
        let again = client.call("session/start", &claim(&keys[n], &name(n)));
        assert_eq!(again.status, 201, "{n}: {again:?}");
        let heard = client.call("session/heartbeat", &beat(&keys[n], &again.token()));
        assert_eq!(heard.status, 200, "{n}: {heard:?}");
    });
    assert!(
        begun.elapsed() < Duration::from_mins(1),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn plain_refusals_and_right_calls_of_one_program_end_no_session_of_its_neighbours() {
    let few = limit("client", "1", "30");
    let server = started(&[], &[&few]);
    let keys = server.licenses(1, 2);
    let client = server.client();
    let token = client.session(&keys[0], "laptop");
    let alive = || {
        let heard = client.call("session/heartbeat", &beat(&keys[0], &token));
        assert_eq!(heard.status, 200, "{heard:?}");
    };
    // What cannot be read uses up no calls.
    for round in 0..30 {
        let text = [("Content-Type", "text/plain")];
        for (body, headers, status) in [
            (&b"{"[..], &[][..], 400),
            (b"{}", &text, 415),
            (b"{\"license_key\":7}", &[], 422),
        ] {
            let told = client.send("verify", body, headers).status;
            assert!([status, 429].contains(&told), "{round}: {told}");
        }
        alive();
    }
    let first = client.call("activate", &claim(&keys[1], "desk"));
    assert_eq!(first.status, 201, "{first:?}");
    // What is right and comes all the time does; whoever holds a slot has a share of its own.
    let told: Vec<u16> = (0..60)
        .map(|_| {
            client
                .call("session/start", &claim(&keys[0], "stranger"))
                .status
        })
        .collect();
    assert_eq!((told[0], told[59]), (403, 429), "{told:?}");
    alive();
    works(&client, &keys[1], "desk");
    // It is no way around the limit.
    let told: Vec<u16> = (0..200)
        .map(|_| client.call("verify", &claim(&keys[1], "desk")).status)
        .collect();
    assert_eq!((told[0], told[199]), (200, 429), "{told:?}");
    alive();
}

#[test]
fn strangers_from_a_whole_network_refuse_nobody_the_first_start() {
    let full = rounds(1) > 1;
    // At full size with the shipped limits, 40 calls a second from each source; else with so small ones that
    // a few calls are as many.
    let strict: &[&str] = &limit("client_failures", "1", "2");
    let limits: &[&[&str]] = if full { &[] } else { &[strict] };
    let proxied = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    let server = started(&[AUTO_ACTIVATE, proxied], limits);
    let keys = server.licenses(1, 40);
    let v6 = (0..256).map(|number| format!("2001:db8:0:{number:x}::1"));
    let v4 = (0..25).map(|number| format!("198.51.100.{number}"));
    let sources: Vec<String> = v6.chain(v4).collect();
    let (attacked, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let attack = |part: usize| {
        let client = server.client();
        let stranger = client.with_key("");
        let of_part = sources.iter().skip(part).step_by(4).cycle();
        for (number, source) in of_part.enumerate() {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let from = [("X-Forwarded-For", source.as_str())];
            // Without an API key, and with one and keys that nobody has.
            let who = if number % 2 == 0 { &stranger } else { &client };
            let told = who.call_with("session/start", &claim(UNKNOWN, "x"), &from);
            assert!([401, 404, 429].contains(&told.status), "{told:?}");
            attacked.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for part in 0..4 {
            let attack = &attack;
            scope.spawn(move || attack(part));
        }
        let least = if full { 25 * 40 * 30 } else { 400 };
        let client = server.client();
        for (number, key) in keys.iter().enumerate() {
            // Spread over the attack.
            let due = least * u32::try_from(number).unwrap() / 40;
            eventually("strangers", || attacked.load(Ordering::Relaxed) >= due);
            let source = format!("192.0.2.{number}");
            let from = [("X-Forwarded-For", source.as_str())];
            let told = client.call_with("session/start", &claim(key, "desk"), &from);
            assert_eq!(told.status, 201, "{number}: {told:?}");
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn refusals_that_are_no_guesses_use_up_no_failures() {
    let server = started(&[], &[&limit("client_failures", "1", "1")]);
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
    let few: &[&str] = &limit("client", "1", "3");
    let server = started(&[("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]")], &[few]);
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
    let few: &[&str] = &limit("client", "1", "10");
    let server = started(&[], &[few]);
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
