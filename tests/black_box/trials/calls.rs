//! Trials without a key: what programs ask and are answered.

use serde_json::{Value, json};

use super::{device, offering, shown, trial};
use crate::database;
use crate::inspect::running;
use crate::setup::started;
use crate::support::{Client, Server, eventually, identity};
use crate::timing::run_together;

/// A moment before every test.
const LONG_AGO: &str = "valid_from_ms = 0, valid_until_ms = 1";

#[test]
fn the_first_call_of_a_device_gives_it_a_license_of_the_trial_plan() {
    let server = offering();
    let client = server.client();
    let first = trial(&client, "laptop");
    assert_eq!(first.status, 201, "{first:?}");
    let key = first.body["license_key"].as_str().unwrap().to_owned();
    let activated = client.call("activate", &identity(&key, "laptop"));
    assert_eq!(activated.status, 200, "the device holds a slot");
    let mut expected = activated.body;
    expected["license_key"] = json!(key);
    expected["valid"] = json!(true);
    expected["code"] = json!("valid");
    assert_eq!(
        first.body, expected,
        "what an activation answers, and the key"
    );
    assert_eq!(first.body["license"]["kind"], "trial");
    assert_eq!(first.body["device_limit"], 1);
    let license = shown(&server, &key);
    assert_eq!(license["customer_id"], Value::Null);
    assert_eq!(license["customer"], "");
    assert_eq!(license["kind"], "trial");
    assert_eq!(license["plan"], "try");
    assert_eq!(license["devices"].as_array().unwrap().len(), 1);
    let verified = client.call("verify", &identity(&key, "laptop"));
    assert_eq!(verified.body["code"], "valid");
    client.session(&key, "laptop");
    assert_eq!(running(&server).len(), 1);
}

#[test]
fn a_device_gets_the_same_trial_for_ever_and_another_device_another_one() {
    let mut server = offering();
    let first = trial(&server.client(), "laptop");
    let again = trial(&server.client(), "laptop");
    assert_eq!((again.status, &again.body), (200, &first.body));
    let mut renamed = device("laptop");
    renamed["machine_id"] = json!("Büro");
    renamed["version"] = json!("1.2.3");
    let again = server.client().call("trial", &renamed);
    assert_eq!((again.status, &again.body), (200, &first.body));
    let key = first.body["license_key"].as_str().unwrap();
    let held = &shown(&server, key)["devices"][0];
    assert_eq!(
        (&held["machine_id"], &held["version"]),
        (&json!("Büro"), &json!("1.2.3"))
    );
    let other = trial(&server.client(), "desktop");
    assert_eq!(other.status, 201);
    assert_ne!(other.body["license_key"], first.body["license_key"]);
    server.restart();
    let again = trial(&server.client(), "laptop");
    assert_eq!(
        (again.status, &again.body),
        (200, &first.body),
        "after a restart"
    );
    server.kill();
    server.run();
    let again = trial(&server.client(), "laptop");
    assert_eq!(
        (again.status, &again.body),
        (200, &first.body),
        "after kill -9"
    );
    assert_eq!(database::count(&server, "licenses"), 2);
    assert_eq!(database::count(&server, "trials"), 2);
}

#[test]
fn without_a_trial_plan_a_device_without_a_trial_is_refused() {
    let server = started(&[], &[super::PLAN]);
    let client = server.client();
    let refused = trial(&client, "laptop");
    assert_eq!(refused.status_and_code(), (403, "trial_not_offered"));
    assert!(!refused.body["detail"].as_str().unwrap().is_empty());
    assert_eq!(database::count(&server, "licenses"), 0);
    server.json(super::OFFER);
    eventually("the offer", || trial(&client, "laptop").status < 300);
    server.json(&["config", "set", "trial_plan="]);
    eventually("the end of the offer", || {
        trial(&client, "desktop").status_and_code() == (403, "trial_not_offered")
    });
    assert_eq!(trial(&client, "laptop").status, 200, "it has its trial");
}

#[test]
fn no_other_device_uses_a_trial_also_after_its_slot_is_free() {
    let server = started(
        &[],
        &[
            &[
                "plan",
                "add",
                "try",
                "--name",
                "Test",
                "--kind",
                "trial",
                "--term-days",
                "14",
                "--devices",
                "3",
            ],
            super::OFFER,
        ],
    );
    let client = server.client();
    let first = trial(&client, "laptop");
    let key = first.body["license_key"].as_str().unwrap();
    let refused = |when: &str| {
        for endpoint in ["activate", "session/start"] {
            let english = [("Accept-Language", "en")];
            let other = client.call_with(endpoint, &identity(key, "desktop"), &english);
            assert_eq!(
                other.status_and_code(),
                (409, "device_limit_reached"),
                "{endpoint} {when}"
            );
            assert_eq!(other.body["device_limit"], 3);
            let detail = other.body["detail"].as_str().unwrap();
            assert!(detail.contains("another device"), "{detail}");
            assert!(!detail.contains('3'), "{detail}");
        }
    };
    refused("beside the device");
    server.json(&["license", "release-device", key, "laptop"]);
    refused("after the device was released");
    assert_eq!(
        client.call("activate", &identity(key, "laptop")).status,
        201
    );
    let body = json!({ "license_key": key, "hardware_hash": "hash of laptop" });
    assert_eq!(client.call("deactivate", &body).status, 200);
    refused("after the device was deactivated");
    let auto = started(&[crate::setup::AUTO_ACTIVATE], &[super::PLAN, super::OFFER]);
    let client = auto.client();
    let key = trial(&client, "laptop").body["license_key"]
        .as_str()
        .unwrap()
        .to_owned();
    auto.json(&["license", "release-device", &key, "laptop"]);
    let other = client.call("session/start", &identity(&key, "desktop"));
    assert_eq!(other.status_and_code(), (409, "device_limit_reached"));
    assert_eq!(
        client
            .call("session/start", &identity(&key, "laptop"))
            .status,
        201
    );
}

#[test]
fn a_device_that_was_released_takes_its_slot_again() {
    let server = offering();
    let client = server.client();
    let first = trial(&client, "laptop");
    let key = first.body["license_key"].as_str().unwrap();
    server.json(&["license", "release-device", key, "laptop"]);
    let again = trial(&client, "laptop");
    assert_eq!(again.status, 200);
    assert_eq!(again.body["license_key"], first.body["license_key"]);
    assert_eq!(again.body["license"], first.body["license"], "the same end");
    assert_eq!(again.body["device_count"], 1);
    assert!(again.body["activated_at"].is_string());
    client.session(key, "laptop");
}

#[test]
fn a_trial_that_cannot_be_used_is_returned_with_the_reason() {
    let server = offering();
    let client = server.client();
    let first = trial(&client, "laptop");
    let key = first.body["license_key"].as_str().unwrap();
    let id = shown(&server, key)["id"].as_i64().unwrap();
    let expect = |code: &str, activated_at: &Value, device_count: u32| {
        let answer = trial(&client, "laptop");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["license_key"], first.body["license_key"]);
        assert_eq!(answer.body["valid"], false);
        assert_eq!(answer.body["code"], code);
        assert_eq!(&answer.body["activated_at"], activated_at, "{code}");
        assert_eq!(answer.body["device_count"], device_count);
        assert_eq!(answer.body["license"]["kind"], "trial");
        answer
    };
    database::set_license(&server, id, LONG_AGO);
    let ended = expect("license_expired", &first.body["activated_at"], 1);
    assert_eq!(ended.body["license"]["valid_until"], "1970-01-01T00:00:00Z");
    server.json(&["license", "release-device", key, "laptop"]);
    expect("license_expired", &Value::Null, 0);
    server.json(&["license", "extend", key, "--days", "10"]);
    let back = trial(&client, "laptop");
    assert_eq!(
        (back.status, &back.body["valid"]),
        (200, &json!(true)),
        "it takes its slot again"
    );
    server.json(&["license", "suspend", key]);
    expect("license_suspended", &back.body["activated_at"], 1);
    server.json(&["license", "revoke", "--yes", key]);
    expect("license_suspended", &back.body["activated_at"], 1);
    assert_eq!(database::count(&server, "licenses"), 1, "no second trial");
}

#[test]
fn a_call_is_judged_as_an_activation_is() {
    let server = started(
        &[],
        &[
            super::PLAN,
            super::OFFER,
            &["config", "set", "current_version=2.0.0"],
        ],
    );
    let client = server.client();
    for field in ["machine_id", "hardware_hash", "version"] {
        let activation = {
            let mut body = identity("00000-00000-00000-00000-00000", "laptop");
            body.as_object_mut().unwrap().remove(field);
            client.call("activate", &body)
        };
        let mut body = device("laptop");
        body.as_object_mut().unwrap().remove(field);
        let missing = client.call("trial", &body);
        assert_eq!(missing.status_and_code(), (422, "invalid_field"));
        assert_eq!(missing.body, activation.body, "{field}");
        let mut body = device("laptop");
        body[field] = json!("x\u{7}");
        assert_eq!(
            client.call("trial", &body).status_and_code(),
            (422, "invalid_field")
        );
        body[field] = json!("x".repeat(256));
        assert_eq!(client.call("trial", &body).body["field"], field);
    }
    let mut body = device("laptop");
    body["license_key"] = json!(7);
    assert_eq!(
        client.call("trial", &body).status,
        201,
        "an unknown field is ignored"
    );
    let array = client.send("trial", b"[]", &[]);
    assert_eq!(array.status_and_code(), (400, "malformed_json"));
    let foreign = client.with_key("lsk_AAAAAAAAAAAAAAAAAAAA");
    assert_eq!(
        trial(&foreign, "desktop").status_and_code(),
        (401, "invalid_api_key")
    );
    assert_eq!(
        client.get("/api/license/trial").status,
        503,
        "only POST is served"
    );
    server.json(&["config", "set", "--yes", "minimum_version=2.0.0"]);
    eventually("the minimum", || {
        trial(&client, "laptop").status_and_code() == (403, "version_too_old")
    });
    assert_eq!(trial(&client, "desktop").code(), "version_too_old");
    assert_eq!(database::count(&server, "trials"), 1);
}

#[test]
fn a_repeated_call_with_its_idempotency_key_gets_the_first_response() {
    let server = offering();
    let client = server.client();
    let call = |name: &str, key: &str| {
        client.call_with("trial", &device(name), &[("Idempotency-Key", key)])
    };
    let first = call("laptop", "a-1");
    assert_eq!(first.status, 201);
    let again = call("laptop", "a-1");
    assert_eq!((again.status, &again.text), (201, &first.text));
    assert_eq!(call("laptop", "a-2").status, 200, "another call");
    let other = call("desktop", "a-1");
    assert_eq!(other.status, 201, "another device");
    assert_ne!(other.body["license_key"], first.body["license_key"]);
    let long = "k".repeat(65);
    for wrong in ["", "a b", &long] {
        assert_eq!(
            call("tablet", wrong).status_and_code(),
            (422, "invalid_field"),
            "{wrong:?}"
        );
    }
    // As for an activation: once the device holds no slot, the stored response no longer applies.
    let key = first.body["license_key"].as_str().unwrap();
    server.json(&["license", "release-device", key, "laptop"]);
    let back = call("laptop", "a-1");
    assert_eq!(
        (back.status, &back.body["license_key"]),
        (200, &first.body["license_key"])
    );
    // The same header with an activation is another request.
    let activated = client.call_with(
        "activate",
        &identity(key, "laptop"),
        &[("Idempotency-Key", "a-1")],
    );
    assert_eq!(activated.status, 200);
    assert_eq!(activated.body["license_key"], Value::Null);
}

#[test]
fn a_response_is_signed_as_any_other() {
    let server = offering();
    let client = server.client();
    let nonce = (
        "Signature-Nonce",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    );
    for (name, status) in [("laptop", 201), ("laptop", 200)] {
        let signed = client.call_with("trial", &device(name), &[nonce]);
        assert_eq!(signed.status, status);
        for header in ["content-digest", "signature-input", "signature"] {
            assert!(signed.header(header).is_some(), "{header}");
        }
    }
}

#[test]
fn simultaneous_first_calls_of_a_device_give_it_one_license() {
    let server = offering();
    let answers = run_together(16, |_| trial(&server.client(), "laptop"));
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 1);
    for answer in &answers {
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.body, answers[0].body);
    }
    assert_eq!(database::count(&server, "licenses"), 1);
    assert_eq!(database::count(&server, "trials"), 1);
    assert_eq!(database::count(&server, "devices"), 1);
}

/// Starts a trial on each device; adds the name of the device and the key of each that was granted.
fn start_trials_until_the_server_ends(
    client: &Client,
    names: impl Iterator<Item = String>,
    granted: &std::sync::Mutex<Vec<(String, Value)>>,
) {
    for name in names {
        let body = serde_json::to_vec(&device(&name)).unwrap();
        let Ok(answer) = client.try_send("trial", &body, &[]) else {
            return;
        };
        if answer.status == 201 {
            let key = answer.body["license_key"].clone();
            granted.lock().unwrap().push((name, key));
        }
    }
}

#[test]
fn a_crash_leaves_a_trial_with_its_license_and_device_or_nothing() {
    let mut server = started(
        &[],
        &[
            super::PLAN,
            super::OFFER,
            &["limit", "set", "trials", "--per-hour", "0"],
        ],
    );
    for round in 0..3 {
        let client = server.client();
        let granted = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (client, granted) = (&client, &granted);
                scope.spawn(move || {
                    let names = (0..).map(|number| format!("{round}-{thread}-{number}"));
                    start_trials_until_the_server_ends(client, names, granted);
                });
            }
            eventually("some trials", || granted.lock().unwrap().len() >= 20);
            server.kill();
        });
        server.run();
        let trials = database::count(&server, "trials");
        assert_eq!(database::count(&server, "licenses"), trials);
        assert_eq!(database::count(&server, "devices"), trials);
        let client = server.client();
        for (name, key) in granted.into_inner().unwrap() {
            let again = trial(&client, &name);
            assert_eq!(
                (again.status, &again.body["license_key"]),
                (200, &key),
                "{name}"
            );
        }
    }
}

#[test]
fn a_device_whose_fingerprint_was_erased_starts_anew_and_no_device_takes_the_old_license() {
    let server = offering();
    let client = server.client();
    let first = trial(&client, "laptop");
    let key = first.body["license_key"].as_str().unwrap();
    server.json(&["license", "release-device", key, "laptop"]);
    // As the erasure of a person does.
    database::change(&server, "update trials set fingerprint_digest = null");
    for name in ["laptop", "desktop"] {
        let refused = client.call("activate", &identity(key, name));
        assert_eq!(
            refused.status_and_code(),
            (409, "device_limit_reached"),
            "{name}"
        );
    }
    let anew = trial(&client, "laptop");
    assert_eq!(anew.status, 201);
    assert_ne!(anew.body["license_key"], first.body["license_key"]);
}

#[test]
fn the_erasure_of_a_customer_forgets_the_device_of_a_trial_that_the_customer_bought() {
    let server = started(
        &[],
        &[super::PLAN, super::OFFER, &["customer", "add", "Ada"]],
    );
    let client = server.client();
    let first = trial(&client, "laptop");
    let key = first.body["license_key"].as_str().unwrap();
    server.json(&["license", "edit", key, "--customer", "Ada"]);
    let exported = server.json(&["customer", "export", "1"]).to_string();
    assert!(exported.contains("\"trial_started_at\":\"20"), "{exported}");
    server.json(&["customer", "erase", "1", "--yes"]);
    let rows = format!("{:?}", database::rows(&server.database())["trials"]);
    assert!(rows.contains("Null") && !rows.contains("Blob"), "{rows}");
    let anew = trial(&client, "laptop");
    assert_eq!(anew.status, 201);
    assert_ne!(anew.body["license_key"], first.body["license_key"]);
}

#[test]
fn a_fingerprint_is_stored_as_a_digest_and_the_start_is_in_the_audit_log_without_an_address() {
    let server = offering();
    let key = trial(&server.client(), "laptop").body["license_key"].clone();
    let id = shown(&server, key.as_str().unwrap())["id"].clone();
    let rows = &database::rows(&server.database())["trials"];
    let text = format!("{rows:?}");
    assert!(!text.contains("laptop") && text.contains("Blob"), "{text}");
    let entries = database::audited(&server, "trials.start");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].actor, "program");
    assert_eq!(entries[0].source, "");
    assert_eq!(entries[0].subject, id.to_string());
    assert!(!entries[0].after.contains("laptop"), "{}", entries[0].after);
    trial(&server.client(), "laptop");
    assert_eq!(
        database::audited(&server, "trials.start").len(),
        1,
        "only the first call"
    );
    let refused = [
        "admin",
        "add",
        "program",
        "--role",
        "support",
        "--password-stdin",
    ];
    assert!(
        !Server::cli(&server, &refused).status.success(),
        "no administrator has that name"
    );
}
