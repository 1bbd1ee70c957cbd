//! The command that sells a trial: as *Sell license* in the panel.

use serde_json::{Value, json};

use super::{OFFER, PLAN, PRO, refused, shown, trial};
use crate::database;
use crate::setup::started;
use crate::support::{Server, identity};

const ADA: &[&str] = &["customer", "add", "Ada"];

/// The key of the trial of a device.
fn key_of(server: &Server, name: &str) -> String {
    let answer = trial(&server.client(), name);
    answer.body["license_key"].as_str().unwrap().to_owned()
}

#[test]
fn a_command_sells_a_trial_by_a_plan_whose_term_begins() {
    let server = started(&[], &[PLAN, PRO, OFFER, ADA]);
    let key = key_of(&server, "laptop");
    let before = shown(&server, &key);
    let sold = server.json(&[
        "license",
        "sell",
        &key,
        "--customer",
        "Ada",
        "--plan",
        "pro",
    ]);
    let after = &sold["licenses"][0];
    assert_eq!(after["license_key"], before["license_key"]);
    assert_eq!(after["valid_from"], before["valid_from"]);
    for (member, value) in [
        ("customer", json!("Ada")),
        ("kind", json!("full")),
        ("plan", json!("pro")),
        ("device_limit", json!(2)),
        ("features", json!(["export"])),
    ] {
        assert_eq!(after[member], value, "{member}");
    }
    assert!(
        after["valid_until"].as_str() > before["valid_until"].as_str(),
        "a new term: {after}"
    );
    let audited = database::audited(&server, "licenses.assign");
    assert_eq!(audited.len(), 1);
    assert_eq!(audited[0].subject, before["id"].to_string());
    let other = server.client().call("activate", &identity(&key, "desktop"));
    assert_eq!(other.status, 201, "bound to no device: {other:?}");
    let again = refused(&server, &["license", "sell", &key, "--customer", "Ada"]);
    assert!(again.contains("already belongs to a customer"), "{again}");
}

#[test]
fn a_command_sells_a_trial_without_a_plan_as_it_is() {
    let server = started(&[], &[PLAN, OFFER, ADA]);
    let key = key_of(&server, "laptop");
    let before = shown(&server, &key);
    let output = server.cli(&["license", "sell", &key, "--customer-id", "1"]);
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{line}");
    for part in [key.as_str(), "Ada", "trial"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let after = shown(&server, &key);
    assert_eq!(after["customer"], "Ada");
    for same in ["kind", "plan", "valid_until", "device_limit"] {
        assert_eq!(after[same], before[same], "{same}");
    }
}

#[test]
fn a_sale_that_is_refused_changes_nothing() {
    let server = started(&[], &[PLAN, PRO, OFFER, ADA]);
    let key = key_of(&server, "laptop");
    server.json(&["plan", "archive", "pro"]);
    let unknown = "00000-00000-00000-00000-00000";
    for (arguments, problem) in [
        (&["sell", &key][..], "--customer"),
        (&["sell", &key, "--customer", "Bob"], "Bob"),
        (&["sell", &key, "--customer", "Ada", "--plan", "no"], "plan"),
        (
            &["sell", &key, "--customer", "Ada", "--plan", "pro"],
            "archived",
        ),
        (&["sell", unknown, "--customer", "Ada"], "license"),
    ] {
        let message = refused(&server, &[&["license"], arguments].concat());
        assert!(message.contains(problem), "{arguments:?}: {message}");
        assert_eq!(shown(&server, &key)["customer_id"], Value::Null);
    }
    // Nobody can buy a revoked license; its owner can still be noted, so that an erasure reaches it.
    server.json(&["license", "revoke", "--yes", &key]);
    let message = refused(&server, &["license", "sell", &key, "--customer", "Ada"]);
    assert!(message.contains("permanent"), "{message}");
    server.json(&["license", "edit", &key, "--customer", "Ada"]);
    server.json(&["customer", "erase", "1", "--yes"]);
    let next = trial(&server.client(), "laptop");
    assert_eq!(next.status, 201, "the device is forgotten: {next:?}");
    assert_ne!(next.body["license_key"], json!(key));
}
