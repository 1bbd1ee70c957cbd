//! The API key tells the product of a program: a license of another product is like one that does not exist, in what is
//! answered, in what is limited, and in time.

use std::time::{Duration, Instant};

use license_server::licenses::LicenseKey;
use serde_json::{Value, json};

use crate::database;
use crate::setup::{NO_LIMIT, UNKNOWN, limit, started};
use crate::support::{Client, Response, Server, eventually, heartbeat_body, identity};
use crate::timing::rank_sum;

const VERSION: &str = "/api/license/version?version=1.0.0";
const NEVER_STARTED: &str = "0b0e7a54-9d0c-4e5f-8a6b-0123456789ab";
/// The command that allows 8 failed attempts.
const FAILURES_8: &[&str] = &limit("client_failures", "1", "8");
/// The command that allows any number of failed attempts.
const NO_FAILURES: &[&str] = &["limit", "set", "client_failures", "--per-minute", "0"];

/// A server with a second product, a program of each, and the keys of `count` licenses of the first product.
struct TwoProducts {
    server: Server,
    first: Client,
    second: Client,
    keys: Vec<String>,
}

impl TwoProducts {
    fn start(commands: &[&[&str]], count: u32) -> Self {
        let server = started(&[], commands);
        let keys = server.issue_licenses(2, count);
        server.json(&["product", "add", "Plotter"]);
        let first = server.client();
        let second = first.with_key(&database::api_key(&server, 2));
        eventually("the API key of the new product", || {
            second.get(VERSION).status == 200
        });
        Self {
            server,
            first,
            second,
            keys,
        }
    }
}

/// A response without what differs from call to call.
fn comparable(response: Response) -> (u16, Vec<(String, String)>, String) {
    let mut headers = response.headers;
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
    (response.status, headers, response.text)
}

/// Every call that names a license, with this key, device and token.
fn calls(key: &str, device: &str, token: &str) -> [(&'static str, Value); 6] {
    [
        ("activate", identity(key, device)),
        ("verify", identity(key, device)),
        ("session/start", identity(key, device)),
        ("deactivate", identity(key, device)),
        ("session/heartbeat", heartbeat_body(key, token)),
        ("session/end", heartbeat_body(key, token)),
    ]
}

#[test]
fn a_license_of_another_product_is_like_one_that_does_not_exist() {
    let TwoProducts {
        server,
        first,
        second,
        keys,
    } = TwoProducts::start(&[], 1);
    let key = &keys[0];
    let token = first.session(key, "laptop");
    let repeatable = [("Idempotency-Key", "once")];
    let activated = first.call_with("activate", &identity(key, "desk"), &repeatable);
    assert_eq!(activated.status, 201);
    for device in ["laptop", "desk", "phone"] {
        let of_other = calls(key, device, &token);
        let unknown = calls(UNKNOWN, device, NEVER_STARTED);
        for ((endpoint, body), (_, unknown_body)) in of_other.iter().zip(&unknown) {
            let response = second.call_with(endpoint, body, &repeatable);
            assert_eq!(response.code(), "license_not_found", "{endpoint}");
            let expected = second.call_with(endpoint, unknown_body, &repeatable);
            assert_eq!(comparable(response), comparable(expected), "{endpoint}");
        }
    }
    // Without a license key, the token alone names the session.
    let by_token = |token: &str| second.call("session/end", &json!({ "session_token": token }));
    let response = by_token(&token);
    assert_eq!(response.status_and_code(), (404, "session_not_found"));
    assert_eq!(comparable(response), comparable(by_token(NEVER_STARTED)));
    // Nothing of the license has changed.
    let heartbeat = first.call("session/heartbeat", &heartbeat_body(key, &token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    let verified = first.call("verify", &identity(key, "laptop"));
    assert_eq!(verified.body["license"]["device_count"], 2, "{verified:?}");
    assert_eq!(verified.body["session_active"], true, "{verified:?}");
    let ended = first.call("session/end", &heartbeat_body(key, &token));
    assert_eq!(ended.status, 200, "{ended:?}");
    // An ended session is not found either.
    let response = by_token(&token);
    assert_eq!(response.status_and_code(), (404, "session_not_found"));
    // And the other way round.
    let issue = ["license", "issue", "--customer", "Ada"];
    let issued = server.json(&[&issue[..], &["--product", "plotter"]].concat());
    let of_second = issued["licenses"][0]["license_key"].as_str().unwrap();
    let response = first.call("activate", &identity(of_second, "laptop"));
    assert_eq!(response.status_and_code(), (404, "license_not_found"));
    second.session(of_second, "laptop");
}

#[test]
fn the_limits_of_calls_do_not_tell_a_license_of_another_product_from_an_unknown_one() {
    let shop = TwoProducts::start(&[FAILURES_8], 1);
    let (first, second, key) = (&shop.first, &shop.second, &shop.keys[0]);
    let token = first.session(key, "laptop");
    // The license is over its limit for unknown sessions; for the second product there is no such license.
    let unknown_session = heartbeat_body(key, NEVER_STARTED);
    let over = (0..20).any(|_| first.call("session/heartbeat", &unknown_session).status == 429);
    assert!(over, "no limit on unknown sessions of a license");
    let response = second.call("session/heartbeat", &unknown_session);
    assert_eq!(response.status_and_code(), (404, "license_not_found"));
    // The address is over its limit: calls for what exists are served, for its own program only.
    let over = (0..20).any(|_| second.call("verify", &identity(UNKNOWN, "laptop")).status == 429);
    assert!(over, "no limit on failed attempts");
    for (endpoint, body) in calls(key, "laptop", &token) {
        let response = second.call(endpoint, &body);
        assert_eq!(
            response.status_and_code(),
            (429, "rate_limited"),
            "{endpoint}"
        );
    }
    let verified = first.call("verify", &identity(key, "laptop"));
    assert_eq!(verified.status_and_code(), (200, "valid"), "{verified:?}");
    let heartbeat = first.call("session/heartbeat", &heartbeat_body(key, &token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
}

#[test]
fn the_api_key_of_an_archived_product_is_refused_by_every_call() {
    let TwoProducts {
        server,
        first,
        second,
        keys,
    } = TwoProducts::start(&[], 1);
    let issue = ["license", "issue", "--customer", "Ada"];
    let issued = server.json(&[&issue[..], &["--product", "plotter"]].concat());
    let of_second = issued["licenses"][0]["license_key"].as_str().unwrap();
    let token = second.session(of_second, "laptop");
    let end = heartbeat_body(of_second, &token);
    assert_eq!(second.call("session/end", &end).status, 200);
    // A key that was rotated out stays valid for a while, but not for an archived product.
    let rotate = ["config", "rotate-api-key", "--overlap-days", "7"];
    server.json(&[&rotate[..], &["--product", "plotter"]].concat());
    let current = first.with_key(&database::api_key(&server, 2));
    eventually("the new API key", || current.get(VERSION).status == 200);
    assert_eq!(second.get(VERSION).status, 200);
    server.json(&["product", "archive", "plotter"]);
    eventually("no API key of the archived product", || {
        current.get(VERSION).status == 401
    });
    for program in [&current, &second] {
        for (endpoint, body) in calls(of_second, "laptop", &token) {
            let response = program.call(endpoint, &body);
            assert_eq!(
                response.status_and_code(),
                (401, "invalid_api_key"),
                "{endpoint}"
            );
        }
        assert_eq!(program.get(VERSION).status, 401);
    }
    first.session(&keys[0], "laptop");
}

/// Well-formed keys that no license has.
fn unknown_keys(count: usize) -> Vec<String> {
    let keys = (0..count).map(|_| LicenseKey::new().unwrap().formatted());
    keys.collect()
}

/// `count` of each number below `kinds`, in random order, so that work after one response does not always delay the
/// same kind of request.
fn in_random_order(kinds: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..kinds * count).map(|at| at % kinds).collect();
    let mut random = 1_u64;
    for at in (1..order.len()).rev() {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(random >> 33).unwrap() % (at + 1);
        order.swap(at, other);
    }
    order
}

#[test]
fn the_time_of_a_response_does_not_tell_a_license_of_another_product_from_an_unknown_one() {
    // Since the order is random, load of the machine makes no kind slower: it hides a difference, but adds none.
    let (samples, limit) = match std::env::var_os("LICENSE_TEST_ROUNDS") {
        None => (150, 5.0),
        Some(_) => (5_000, 4.0),
    };
    let shop = TwoProducts::start(&[NO_LIMIT, NO_FAILURES], u32::try_from(samples).unwrap());
    for key in shop.keys.iter().take(20) {
        shop.first.session(key, "laptop");
    }
    let keys = [
        shop.keys.clone(),
        unknown_keys(samples),
        unknown_keys(samples),
    ];
    for endpoint in ["verify", "session/start"] {
        let mut times: [Vec<Duration>; 3] = [Vec::new(), Vec::new(), Vec::new()];
        for kind in in_random_order(keys.len(), samples) {
            let body = identity(&keys[kind][times[kind].len()], "laptop");
            let begun = Instant::now();
            let response = shop.second.call(endpoint, &body);
            times[kind].push(begun.elapsed());
            assert_eq!(response.code(), "license_not_found");
        }
        for (left, right) in [(0, 1), (0, 2), (1, 2)] {
            let z = rank_sum(&times[left], &times[right]);
            assert!(
                z.abs() < limit,
                "{endpoint}: {left} and {right} differ: z = {z:.1}"
            );
        }
    }
}
