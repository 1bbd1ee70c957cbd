//! What a program hears of its license: suspended, expired, too new, too old, and what is new.

use std::time::Instant;

use license_server::clock::UnixMs;
use serde_json::{Value, json};

use crate::scene::{NO_SWEEP, UNKNOWN, change, end_reasons, now_ms, started, wait_until};
use crate::support::{Server, beat, claim, eventually};

#[test]
fn a_license_out_of_use_is_refused_everywhere_with_its_own_code() {
    let server = started(&[NO_SWEEP], &[]);
    let client = server.client();
    for (code, sql) in [
        ("license_suspended", "state = 'suspended'"),
        ("license_suspended", "state = 'revoked'"),
        (
            "license_suspended",
            "state = 'suspended', valid_until_ms = valid_from_ms",
        ),
        (
            "license_not_yet_valid",
            "valid_from_ms = valid_from_ms + 60000",
        ),
        (
            "license_expired",
            "valid_from_ms = 0, valid_until_ms = 1000",
        ),
    ] {
        let key = server.license(1);
        let token = client.session(&key, "laptop");
        let last = "license_id = (select max(license_id) from licenses)";
        change(&server, &format!("update licenses set {sql} where {last}"));
        eventually(code, || {
            client.call("verify", &claim(&key, "laptop")).body["code"] == code
        });
        let verdict = client.call("verify", &claim(&key, "laptop"));
        assert_eq!(
            (verdict.status, &verdict.body["valid"]),
            (200, &json!(false))
        );
        assert_eq!(verdict.body["license"]["device_count"], 1);
        for deed in ["activate", "session/start", "deactivate"] {
            assert_eq!(
                client.call(deed, &claim(&key, "laptop")).told(),
                (403, code),
                "{sql} {deed}"
            );
        }
        let stranger = client.call("session/start", &claim(&key, "thief"));
        assert_eq!(
            stranger.told(),
            (403, code),
            "the license is judged before the device"
        );
        for _ in 0..2 {
            let beaten = client.call("session/heartbeat", &beat(&key, &token));
            assert_eq!(beaten.told(), (403, code), "{sql}");
        }
    }
    assert_eq!(end_reasons(&server), ["forced"; 5]);
}

#[test]
fn a_suspension_ends_the_session_and_a_reinstated_license_starts_anew() {
    let server = Server::start();
    let keys = server.licenses(1, 2);
    let client = server.client();
    let tokens = [
        client.session(&keys[0], "laptop"),
        client.session(&keys[1], "laptop"),
    ];
    server.json(&["license", "suspend", &keys[0]]);
    eventually("403", || {
        client
            .call("session/heartbeat", &beat(&keys[0], &tokens[0]))
            .status
            == 403
    });
    assert_eq!(end_reasons(&server), ["forced"]);
    let other = client.call("session/heartbeat", &beat(&keys[1], &tokens[1]));
    assert_eq!(other.status, 200, "another license's session goes on");
    server.json(&["license", "reinstate", &keys[0]]);
    eventually("410", || {
        let told = client.call("session/heartbeat", &beat(&keys[0], &tokens[0]));
        told.status == 410 && told.body["end_reason"] == "forced"
    });
    assert_eq!(
        client
            .call("session/start", &claim(&keys[0], "laptop"))
            .status,
        201
    );
    // One that nobody beats for ends too: the sweeper comes at once.
    server.json(&["license", "revoke", &keys[1]]);
    eventually("the sweep", || end_reasons(&server) == ["forced", "forced"]);
    let revived = server.cli(&["license", "reinstate", &keys[1]]);
    assert_eq!(revived.status.code(), Some(1), "revoked is for good");
}

#[test]
fn an_expiry_is_judged_when_it_is_read_and_not_when_it_is_swept() {
    let server = started(&[NO_SWEEP], &[]);
    let key = server.license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let until = UnixMs(now_ms() + 3000).rfc3339();
    server.json(&["license", "extend", &key, "--until", &until]);
    eventually("its end on the wire", || {
        client.call("verify", &claim(&key, "laptop")).body["license"]["valid_until"]
            == until.as_str()
    });
    eventually("403", || {
        let told = client.call("session/heartbeat", &beat(&key, &token));
        assert!(
            told.status == 200 || told.body["valid_until"] == until.as_str(),
            "{told:?}"
        );
        told.told() == (403, "license_expired")
    });
    assert!(
        now_ms() >= UnixMs::parse(&until).unwrap().0,
        "not before its time"
    );
    assert_eq!(end_reasons(&server), ["forced"]);
    assert_eq!(
        client.call("session/start", &claim(&key, "laptop")).told(),
        (403, "license_expired")
    );
    server.json(&["license", "extend", &key, "--days", "1"]);
    eventually("a new start", || {
        client.call("session/start", &claim(&key, "laptop")).status == 201
    });
}

#[test]
fn verify_judges_without_changing_anything() {
    let server = started(
        &[],
        &[&[
            "config",
            "set",
            "minimum_version=0.5.0",
            "current_version=1.2.0",
        ]],
    );
    let key = server.license(2);
    let client = server.client();
    let verify = |body: &Value| {
        let verdict = client.call_with("verify", body, &[("Accept-Language", "en")]);
        assert_eq!(verdict.status, 200, "{verdict:?}");
        assert_eq!(verdict.body["valid"], json!(verdict.code() == "valid"));
        assert!(verdict.body["detail"].as_str().unwrap().len() > 10);
        verdict.body
    };
    let fresh = verify(&claim(&key, "laptop"));
    let issued = server.json(&["license", "show", &key]);
    let expected = json!({
        "valid": false, "code": "device_not_activated",
        "detail": "This device is not activated for this license.",
        "license": { "kind": "full", "valid_from": issued["valid_from"], "valid_until": null,
                     "device_limit": 2, "device_count": 0 },
        "session_active": false,
        "version": { "current_version": "1.2.0", "minimum_version": "0.5.0",
                     "update_available": true, "supported": true },
        "feature_flags": {}, "lease": null,
    });
    assert_eq!(fresh, expected);
    client.session(&key, "laptop");
    let mut old = claim(&key, "laptop");
    old["version"] = json!("0.4.9");
    for (body, code, session_active) in [
        (claim(&key, "laptop"), "valid", true),
        (claim(&key, "desktop"), "device_not_activated", true),
        (claim(UNKNOWN, "laptop"), "license_not_found", false),
        (claim("no key at all", "laptop"), "license_not_found", false),
        (old, "version_too_old", true),
    ] {
        let verdict = verify(&body);
        let told = (&verdict["code"], &verdict["session_active"]);
        assert_eq!(told, (&json!(code), &json!(session_active)), "{body}");
        assert_eq!(verdict["license"].is_null(), code == "license_not_found");
        assert_eq!(
            verdict["version"]["supported"],
            json!(code != "version_too_old")
        );
    }
    assert_eq!(
        server.json(&["license", "show", &key])["devices"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_program_hears_what_is_new_as_long_as_it_is_older() {
    let url = "https://example.org/program-1.10.0.zip";
    let server = started(
        &[],
        &[
            &[
                "release",
                "add",
                "1.10.0",
                "--notes",
                "Faster\nand nicer",
                "--url",
                url,
            ],
            &[
                "config",
                "set",
                "current_version=1.10.0",
                "minimum_version=1.9.0",
            ],
        ],
    );
    let client = server.client();
    let ask = |query: &str| client.get(&format!("/api/license/version{query}"));
    for (version, newer, supported) in [
        ("1.8.99", true, false),
        ("1.9.0", true, true),
        ("1.9.9", true, true),
        ("1.10.0", false, true),
        ("2.0.0", false, true),
    ] {
        let (notes, link) = if newer {
            (json!("Faster\nand nicer"), json!(url))
        } else {
            Default::default()
        };
        let expected = json!({
            "current_version": "1.10.0", "minimum_version": "1.9.0", "update_available": newer,
            "supported": supported, "whats_new": notes, "download_url": link,
        });
        let told = ask(&format!("?version={version}"));
        assert_eq!((told.status, told.body), (200, expected), "{version}");
    }
    for wrong in [
        "",
        "?version=",
        "?version=1.0",
        "?version=v1.0.0",
        "?version=1.0.0-rc1",
        "?v=1.0.0",
    ] {
        let told = ask(wrong);
        assert_eq!(
            (told.told(), &told.body["field"]),
            ((422, "invalid_field"), &json!("version"))
        );
    }
    let key = server.license(1);
    let mut body = claim(&key, "laptop");
    let too_old = client.call("activate", &body);
    assert_eq!(too_old.told(), (403, "version_too_old"));
    assert_eq!(too_old.body["download_url"], url);
    body["version"] = json!("1.9.5");
    client.call("activate", &body);
    let started = client.call("session/start", &body);
    let told = (&started.body["whats_new"], &started.body["download_url"]);
    assert_eq!(told, (&json!("Faster\nand nicer"), &json!(url)));
    let beaten = client.call("session/heartbeat", &beat(&key, &started.token()));
    assert_eq!(beaten.body["update_available"], true);
    server.json(&["release", "yank", "1.10.0"]);
    eventually("nothing to be had", || {
        ask("?version=1.9.0").body["download_url"].is_null()
    });
}

#[test]
fn a_start_tells_which_features_are_on() {
    let server = started(
        &[],
        &[
            &[
                "flag",
                "set",
                "dark_mode",
                "--description",
                "black on black",
            ],
            &["flag", "set", "beta", "--off"],
            &["flag", "set", "nobody", "--share", "0"],
            &["flag", "set", "half", "--share", "50"],
        ],
    );
    let client = server.client();
    let keys = server.licenses(1, 40);
    let mut halves = [0, 0];
    for key in &keys {
        client.call("activate", &claim(key, "laptop"));
        let flags =
            client.call("session/start", &claim(key, "laptop")).body["feature_flags"].clone();
        let half = flags["half"].as_bool().unwrap();
        halves[usize::from(half)] += 1;
        let expected = json!({ "beta": false, "dark_mode": true, "half": half, "nobody": false });
        assert_eq!(flags, expected);
    }
    assert!(
        halves.iter().all(|count| (5..=35).contains(count)),
        "{halves:?}"
    );
    let begun = Instant::now();
    server.json(&["flag", "remove", "beta"]);
    server.json(&["flag", "set", "dark_mode", "--off"]);
    wait_until(begun, std::time::Duration::ZERO);
    let key = server.license(1);
    client.call("activate", &claim(&key, "laptop"));
    let flags = client.call("session/start", &claim(&key, "laptop")).body["feature_flags"].clone();
    assert_eq!(
        (flags.get("beta"), &flags["dark_mode"]),
        (None, &json!(false)),
        "at once"
    );
}
