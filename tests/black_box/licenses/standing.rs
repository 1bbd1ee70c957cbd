//! Responses that depend on the state of a license, on the program's version, and on feature flags.

use license_server::clock::UnixMs;
use serde_json::{Value, json};

use crate::database;
use crate::inspect::end_reasons;
use crate::setup::{NO_SWEEP, UNKNOWN, started};
use crate::support::{Server, eventually, heartbeat_body, identity};
use crate::timing::{now_ms, retry_while_too_slow};

#[test]
fn an_unusable_license_is_refused_by_every_endpoint_with_its_code() {
    let server = started(&[NO_SWEEP], &[]);
    let client = server.client();
    for (code, columns) in [
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
        let key = server.issue_license(1);
        let token = client.session(&key, "laptop");
        database::set_license(&server, database::last_license(&server), columns);
        eventually(code, || {
            client.call("verify", &identity(&key, "laptop")).body["code"] == code
        });
        let verdict = client.call("verify", &identity(&key, "laptop"));
        assert_eq!(
            (verdict.status, &verdict.body["valid"]),
            (200, &json!(false))
        );
        assert_eq!(verdict.body["license"]["device_count"], 1);
        for endpoint in ["activate", "session/start", "deactivate"] {
            assert_eq!(
                client
                    .call(endpoint, &identity(&key, "laptop"))
                    .status_and_code(),
                (403, code),
                "{columns} {endpoint}"
            );
        }
        let unknown_device = client.call("session/start", &identity(&key, "thief"));
        assert_eq!(
            unknown_device.status_and_code(),
            (403, code),
            "the license is checked before the device"
        );
        for _ in 0..2 {
            let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
            assert_eq!(heartbeat.status_and_code(), (403, code), "{columns}");
        }
    }
    assert_eq!(end_reasons(&server), ["forced"; 5]);
}

#[test]
fn messages_say_dates_as_people_write_them() {
    let server = started(&[NO_SWEEP], &[]);
    let client = server.client();
    let key = server.issue_license(1);
    let license = database::last_license(&server);
    for (columns, member, moment, german, english) in [
        // The whole of a last day in UTC, and an end within a day.
        (
            "valid_from_ms = 0, valid_until_ms = 1767225599000",
            "valid_until",
            "2025-12-31T23:59:59Z",
            "Diese Lizenz war bis 31.12.2025 gültig.",
            "This license was valid until 31 Dec 2025.",
        ),
        (
            "valid_from_ms = 0, valid_until_ms = 1767189900000",
            "valid_until",
            "2025-12-31T14:05:00Z",
            "Diese Lizenz war bis 31.12.2025, 14:05 UTC gültig.",
            "This license was valid until 31 Dec 2025, 14:05 UTC.",
        ),
        (
            "valid_from_ms = 4099766400000, valid_until_ms = null",
            "valid_from",
            "2099-12-01T00:00:00Z",
            "Diese Lizenz ist erst ab 01.12.2099 gültig.",
            "This license is not valid before 1 Dec 2099.",
        ),
    ] {
        database::set_license(&server, license, columns);
        for (language, sentence) in [("de", german), ("en", english)] {
            let headers = [("Accept-Language", language)];
            eventually(sentence, || {
                let verdict = client.call_with("verify", &identity(&key, "laptop"), &headers);
                verdict.body["detail"] == sentence
            });
            let refused = client.call_with("session/start", &identity(&key, "laptop"), &headers);
            assert_eq!(refused.body["detail"], sentence);
            assert_eq!(refused.body[member], moment, "programs read the moment");
        }
    }
}

#[test]
fn a_suspension_ends_the_session_and_a_reinstated_license_can_start_a_new_one() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 2);
    let client = server.client();
    let tokens = [
        client.session(&keys[0], "laptop"),
        client.session(&keys[1], "laptop"),
    ];
    server.json(&["license", "suspend", &keys[0]]);
    eventually("403", || {
        client
            .call("session/heartbeat", &heartbeat_body(&keys[0], &tokens[0]))
            .status
            == 403
    });
    assert_eq!(end_reasons(&server), ["forced"]);
    let other = client.call("session/heartbeat", &heartbeat_body(&keys[1], &tokens[1]));
    assert_eq!(other.status, 200, "another license's session goes on");
    server.json(&["license", "reinstate", &keys[0]]);
    eventually("410", || {
        let response = client.call("session/heartbeat", &heartbeat_body(&keys[0], &tokens[0]));
        response.status == 410 && response.body["end_reason"] == "forced"
    });
    assert_eq!(
        client
            .call("session/start", &identity(&keys[0], "laptop"))
            .status,
        201
    );
    // A session without heartbeats ends as well: a revocation triggers a sweep.
    server.json(&["license", "revoke", "--yes", &keys[1]]);
    eventually("the sweep", || end_reasons(&server) == ["forced", "forced"]);
    let revived = server.cli(&["license", "reinstate", &keys[1]]);
    assert_eq!(revived.status.code(), Some(1), "a revocation is permanent");
}

#[test]
fn an_expiry_takes_effect_on_the_next_request_without_a_sweep() {
    retry_while_too_slow(|| {
        let server = started(&[NO_SWEEP], &[]);
        let key = server.issue_license(1);
        let client = server.client();
        let token = client.session(&key, "laptop");
        let until = UnixMs(now_ms() + 3000).rfc3339();
        let extended = server.cli(&["license", "extend", &key, "--until", &until]);
        // A date that has passed is refused.
        if now_ms() >= UnixMs::parse(&until).unwrap().0 {
            return None;
        }
        assert!(extended.status.success(), "{extended:?}");
        eventually("the new expiry date", || {
            client.call("verify", &identity(&key, "laptop")).body["license"]["valid_until"]
                == until.as_str()
        });
        eventually("403", || {
            let response = client.call("session/heartbeat", &heartbeat_body(&key, &token));
            assert!(
                response.status == 200 || response.body["valid_until"] == until.as_str(),
                "{response:?}"
            );
            response.status_and_code() == (403, "license_expired")
        });
        assert!(
            now_ms() >= UnixMs::parse(&until).unwrap().0,
            "not before its time"
        );
        assert_eq!(end_reasons(&server), ["forced"]);
        let refused = client.call("session/start", &identity(&key, "laptop"));
        assert_eq!(refused.status_and_code(), (403, "license_expired"));
        server.json(&["license", "extend", &key, "--days", "1"]);
        eventually("a new start", || {
            let started = client.call("session/start", &identity(&key, "laptop"));
            started.status == 201
        });
        Some(())
    });
}

#[test]
fn verify_reports_the_state_and_changes_nothing() {
    let server = started(
        &[],
        &[&[
            "config",
            "set",
            "minimum_version=0.5.0",
            "current_version=1.2.0",
        ]],
    );
    let key = server.issue_license(2);
    let client = server.client();
    let verify = |body: &Value| {
        let verdict = client.call_with("verify", body, &[("Accept-Language", "en")]);
        assert_eq!(verdict.status, 200, "{verdict:?}");
        assert_eq!(verdict.body["valid"], json!(verdict.code() == "valid"));
        assert!(verdict.body["detail"].as_str().unwrap().len() > 10);
        verdict.body
    };
    let fresh = verify(&identity(&key, "laptop"));
    let issued = server.json(&["license", "show", &key]);
    let expected = json!({
        "valid": false, "code": "device_not_activated",
        "detail": "This device is not activated for this license.",
        "license": { "kind": "full", "valid_from": issued["valid_from"], "valid_until": null,
                     "plan": null, "features": [], "updates_until": null, "device_limit": 2,
                     "device_count": 0 },
        "session_active": false,
        "version": { "current_version": "1.2.0", "minimum_version": "0.5.0",
                     "update_available": true, "supported": true, "renewal_version": null },
        "feature_flags": {}, "lease": null,
    });
    assert_eq!(fresh, expected);
    client.session(&key, "laptop");
    let mut old = identity(&key, "laptop");
    old["version"] = json!("0.4.9");
    for (body, code, session_active) in [
        (identity(&key, "laptop"), "valid", true),
        (identity(&key, "desktop"), "device_not_activated", true),
        (identity(UNKNOWN, "laptop"), "license_not_found", false),
        (
            identity("no key at all", "laptop"),
            "license_not_found",
            false,
        ),
        (old, "version_too_old", true),
    ] {
        let verdict = verify(&body);
        let result = (&verdict["code"], &verdict["session_active"]);
        assert_eq!(result, (&json!(code), &json!(session_active)), "{body}");
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
fn a_program_is_offered_the_current_release_while_it_is_older() {
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
    let version_info = |query: &str| client.get(&format!("/api/license/version{query}"));
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
        let response = version_info(&format!("?version={version}"));
        assert_eq!(
            (response.status, response.body),
            (200, expected),
            "{version}"
        );
    }
    for wrong in [
        "",
        "?version=",
        "?version=1.0",
        "?version=v1.0.0",
        "?version=1.0.0-rc1",
        "?v=1.0.0",
    ] {
        let response = version_info(wrong);
        assert_eq!(
            (response.status_and_code(), &response.body["field"]),
            ((422, "invalid_field"), &json!("version"))
        );
    }
    let key = server.issue_license(1);
    let mut body = identity(&key, "laptop");
    let too_old = client.call("activate", &body);
    assert_eq!(too_old.status_and_code(), (403, "version_too_old"));
    assert_eq!(too_old.body["download_url"], url);
    body["version"] = json!("1.9.5");
    client.call("activate", &body);
    let started = client.call("session/start", &body);
    let news = (&started.body["whats_new"], &started.body["download_url"]);
    assert_eq!(news, (&json!("Faster\nand nicer"), &json!(url)));
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &started.token()));
    assert_eq!(heartbeat.body["update_available"], true);
    server.json(&["release", "yank", "1.10.0"]);
    eventually("the release is no longer offered", || {
        version_info("?version=1.9.0").body["download_url"].is_null()
    });
}

#[test]
fn a_session_start_returns_the_feature_flags() {
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
    let keys = server.issue_licenses(1, 40);
    let mut halves = [0, 0];
    for key in &keys {
        client.call("activate", &identity(key, "laptop"));
        let flags =
            client.call("session/start", &identity(key, "laptop")).body["feature_flags"].clone();
        let half = flags["half"].as_bool().unwrap();
        halves[usize::from(half)] += 1;
        let expected = json!({ "beta": false, "dark_mode": true, "half": half, "nobody": false });
        assert_eq!(flags, expected);
    }
    assert!(
        halves.iter().all(|count| (5..=35).contains(count)),
        "{halves:?}"
    );
    server.json(&["flag", "remove", "beta"]);
    server.json(&["flag", "set", "dark_mode", "--off"]);
    let key = server.issue_license(1);
    client.call("activate", &identity(&key, "laptop"));
    let flags =
        client.call("session/start", &identity(&key, "laptop")).body["feature_flags"].clone();
    assert_eq!(
        (flags.get("beta"), &flags["dark_mode"]),
        (None, &json!(false)),
        "the change takes effect at once"
    );
}
