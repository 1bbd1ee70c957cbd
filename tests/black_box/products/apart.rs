//! Two products of one server: API keys, licenses, settings, flags and releases of each are its own.

use serde_json::json;

use crate::database;
use crate::setup::{FIRST, SECOND, UNKNOWN, issue_of, limit, two_products};
use crate::support::{eventually, heartbeat_body, identity};

const FAILURES_8: &[&str] = &limit("client_failures", "1", "8");

#[test]
fn the_license_of_another_product_is_answered_as_an_unknown_one() {
    let (server, [first, second]) = two_products(&[], &[]);
    let key = issue_of(&server, FIRST, &[]);
    let token = first.session(&key, "laptop");
    let with_token = |key: &str| {
        let mut body = identity(key, "laptop");
        body["session_token"] = token.as_str().into();
        body
    };
    for endpoint in [
        "activate",
        "verify",
        "session/start",
        "session/heartbeat",
        "session/end",
        "deactivate",
    ] {
        let foreign = second.call(endpoint, &with_token(&key));
        let unknown = second.call(endpoint, &with_token(UNKNOWN));
        assert_eq!(foreign.code(), "license_not_found", "{endpoint}");
        assert_eq!(foreign.status, unknown.status, "{endpoint}");
        assert_eq!(foreign.text, unknown.text, "{endpoint}");
    }
    // A session without a license key belongs to the product of its license.
    let token_only = json!({ "session_token": token });
    let foreign = second.call("session/end", &token_only);
    assert_eq!(foreign.status_and_code(), (404, "session_not_found"));
    let heartbeat = first.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.status, 200, "none of it ended the session");
    assert_eq!(database::count(&server, "devices"), 1);
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["product"], FIRST);
}

#[test]
fn the_license_of_another_product_counts_as_a_wrong_key() {
    let (server, [first, second]) = two_products(&[], &[FAILURES_8]);
    let key = issue_of(&server, FIRST, &[]);
    let own = issue_of(&server, SECOND, &[]);
    let body = identity(&key, "laptop");
    assert_eq!(first.call("activate", &body).status, 201);
    for round in 0..8 {
        assert_eq!(second.call("activate", &body).status, 404, "{round}");
    }
    for endpoint in ["activate", "session/start", "deactivate"] {
        let limited = second.call(endpoint, &body);
        let expected = (429, "rate_limited");
        assert_eq!(limited.status_and_code(), expected, "{endpoint}");
    }
    assert_eq!(first.call("verify", &body).status, 200, "{FIRST}");
    let known = second.call("activate", &identity(&own, "laptop"));
    assert_eq!(known.status, 201, "a license of the product itself");
}

#[test]
fn settings_flags_and_releases_are_those_of_the_product() {
    let (server, clients) = two_products(&[], &[]);
    for (product, seconds, version, notes) in [
        (FIRST, "11", "1.5.0", "Notes are faster"),
        (SECOND, "13", "2.5.0", "Ledgers are faster"),
    ] {
        let with = |arguments: &[&str]| {
            server.json(&[arguments, &["--product", product]].concat());
        };
        let interval = format!("heartbeat_interval={seconds}");
        let current = format!("current_version={version}");
        with(&["config", "set", &interval, &current]);
        with(&["release", "add", version, "--notes", notes]);
        // The same version of each product.
        with(&["release", "add", "1.0.0", "--notes", notes]);
        let state = if product == FIRST { "--on" } else { "--off" };
        with(&["flag", "set", "shared", state]);
        with(&["flag", "set", product, "--on"]);
    }
    // The flag is the last change.
    let key = issue_of(&server, SECOND, &[]);
    eventually("the last change", || {
        let verified = clients[1].call("verify", &identity(&key, "laptop"));
        verified.body["feature_flags"][SECOND] == true
    });
    for (product, client, seconds, version, notes) in [
        (FIRST, &clients[0], 11, "1.5.0", "Notes are faster"),
        (SECOND, &clients[1], 13, "2.5.0", "Ledgers are faster"),
    ] {
        let key = issue_of(&server, product, &[]);
        let body = identity(&key, "laptop");
        assert_eq!(client.call("activate", &body).status, 201);
        let started = client.call("session/start", &body).body;
        assert_eq!(started["heartbeat_interval"], seconds, "{started}");
        assert_eq!(started["current_version"], version, "{started}");
        assert_eq!(started["whats_new"], notes, "{started}");
        let mut flags = json!({ "shared": product == FIRST });
        flags[product] = true.into();
        assert_eq!(started["feature_flags"], flags);
        let asked = client.get("/api/license/version?version=1.0.0").body;
        assert_eq!(asked["whats_new"], notes, "{asked}");
    }
    server.json(&["release", "yank", "1.0.0", "--product", FIRST]);
    let listed = |product| {
        let listed = server.json(&["release", "list", "--product", product]);
        listed["releases"][1]["state"].clone()
    };
    assert_eq!(
        (listed(FIRST), listed(SECOND)),
        ("yanked".into(), "released".into())
    );
    server.json(&["flag", "remove", "shared", "--product", FIRST]);
    let others = server.json(&["flag", "list", "--product", SECOND]);
    assert_eq!(others["flags"].as_array().unwrap().len(), 2, "{others}");
    let subjects: Vec<String> = database::audited(&server, "releases.add")
        .into_iter()
        .map(|entry| entry.subject)
        .collect();
    assert_eq!(
        subjects,
        ["1.5.0", "1.0.0", "ledger/2.5.0", "ledger/1.0.0"],
        "the audit log tells the products apart"
    );
}

#[test]
fn the_rotation_of_one_api_key_leaves_the_others() {
    let (server, [first, second]) = two_products(&[], &[]);
    let version = "/api/license/version?version=1.0.0";
    let rotate = |days: &str| {
        let rotate = ["config", "rotate-api-key", "--overlap-days", days];
        let rotated = server.json(&[&rotate[..], &["--product", SECOND]].concat());
        second.with_key(rotated["api_key"].as_str().unwrap())
    };
    let next = rotate("7");
    eventually("the new key", || next.get(version).status == 200);
    assert_eq!(second.get(version).status, 200, "for seven days");
    let last = rotate("0");
    eventually("the last key", || last.get(version).status == 200);
    for old in [&second, &next] {
        let refused = old.get(version);
        assert_eq!(refused.status_and_code(), (401, "invalid_api_key"));
    }
    assert_eq!(first.get(version).status, 200);
    let entries = database::audited(&server, "client_config.rotate_api_key");
    assert!(entries.iter().all(|entry| entry.subject == "ledger/client"));
}

#[test]
fn an_api_key_belongs_to_one_product() {
    let (server, _) = two_products(&[], &[]);
    let key_of = |product| {
        let shown = server.json(&["config", "show", "--product", product]);
        format!("api_key={}", shown["api_key"].as_str().unwrap())
    };
    let current = key_of(FIRST);
    let rotate = ["config", "rotate-api-key", "--product", FIRST];
    server.json(&rotate);
    // The one that was rotated out and is still accepted, and the present one.
    for taken in [&current, &key_of(FIRST)] {
        let before = key_of(SECOND);
        let set = server.cli(&["config", "set", "--product", SECOND, taken]);
        let error = String::from_utf8(set.stderr).unwrap();
        assert_eq!(set.status.code(), Some(2), "{error}");
        assert!(error.contains("belongs to another product"), "{error}");
        assert_eq!(key_of(SECOND), before);
    }
    server.json(&["config", "set", "--product", FIRST, &current]);
}
