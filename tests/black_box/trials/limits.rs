//! How many trials an address may start.

use serde_json::json;

use super::{device, offering, refused, trial};
use crate::database;
use crate::setup::{ONE_A_MINUTE, started};
use crate::support::eventually;
use crate::timing::run_together;

#[test]
fn an_address_starts_ten_trials_an_hour_and_calls_of_their_devices_do_not_count() {
    let server = offering();
    let client = server.client();
    for number in 0..10 {
        let name = format!("device {number}");
        assert_eq!(trial(&client, &name).status, 201, "{name}");
        assert_eq!(trial(&client, &name).status, 200, "{name} again");
    }
    let limited = trial(&client, "one more");
    assert_eq!(limited.status_and_code(), (429, "rate_limited"));
    let wait = limited.body["retry_after"].as_u64().unwrap();
    assert!(
        (3000..=3600).contains(&wait),
        "the first one is an hour ago then: {wait}"
    );
    assert_eq!(
        limited.header("retry-after"),
        Some(wait.to_string().as_str())
    );
    assert_eq!(database::count(&server, "licenses"), 10);
    for number in 0..10 {
        let name = format!("device {number}");
        assert_eq!(trial(&client, &name).status, 200, "{name} has its trial");
    }
    // Only new trials are limited.
    let key = server.issue_license(1);
    client.session(&key, "one more");
}

#[test]
fn simultaneous_calls_do_not_exceed_the_limit() {
    let server = offering();
    let answers = run_together(24, |number| {
        trial(&server.client(), &format!("device {number}"))
    });
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 10);
    assert!(
        answers
            .iter()
            .all(|answer| [201, 429].contains(&answer.status))
    );
    assert_eq!(database::count(&server, "trials"), 10);
}

#[test]
fn a_refused_call_does_not_count() {
    let server = started(
        &[],
        &[super::PLAN, &["limit", "set", "trials", "--per-hour", "1"]],
    );
    let client = server.client();
    for _ in 0..3 {
        assert_eq!(trial(&client, "laptop").status, 403);
    }
    server.json(super::OFFER);
    eventually("the offer", || trial(&client, "laptop").status == 201);
    assert_eq!(trial(&client, "desktop").status, 429);
}

#[test]
fn the_limit_is_listed_and_changed_per_hour() {
    let server = offering();
    let listed = server.json(&["limit", "list"]);
    let limits = listed["limits"].as_array().unwrap();
    let names: Vec<_> = limits
        .iter()
        .map(|limit| limit["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["client", "client_failures", "login", "site", "trials"]
    );
    assert_eq!(limits[4], json!({ "name": "trials", "per_hour": 10 }));
    let table = String::from_utf8(server.cli(&["limit", "list"]).stdout).unwrap();
    let row = table
        .lines()
        .find(|line| line.starts_with("trials"))
        .unwrap();
    assert!(row.contains("10 an hour"), "{table}");
    server.json(&["limit", "set", "trials", "--per-hour", "2"]);
    let client = server.client();
    let statuses = ["a", "b", "c"].map(|name| trial(&client, name).status);
    assert_eq!(statuses, [201, 201, 429]);
    server.json(&["limit", "set", "trials", "--per-hour", "3"]);
    eventually("the higher limit", || trial(&client, "c").status < 300);
    assert_eq!(trial(&client, "d").status, 429);
    server.json(&["limit", "set", "trials", "--per-hour", "0"]);
    eventually("no limit", || trial(&client, "d").status < 300);
    for number in 0..20 {
        assert_eq!(trial(&client, &format!("device {number}")).status, 201);
    }
    let audited = database::audited(&server, "client_config.set_limit");
    assert_eq!(audited[0].before, r#"{"name":"trials","per_hour":10}"#);
    assert_eq!(audited[0].after, r#"{"name":"trials","per_hour":2}"#);
    for (arguments, text) in [
        (
            &["limit", "set", "trials", "--per-hour", "10001"][..],
            "0..10000",
        ),
        (&["limit", "set", "trials", "--per-minute", "5"], "per-hour"),
        (&["limit", "set", "client", "--per-hour", "5"], "per-minute"),
        (
            &["limit", "set", "trials", "--per-hour", "5", "--burst", "2"],
            "--burst",
        ),
        (&["limit", "set", "trials"], "--per-minute"),
    ] {
        let error = refused(&server, arguments);
        assert!(error.contains(text), "{arguments:?}: {error}");
    }
}

#[test]
fn a_device_with_a_trial_is_served_although_its_address_is_over_the_limit_of_calls() {
    let server = started(&[], &[super::PLAN, super::OFFER]);
    let client = server.client();
    let first = trial(&client, "laptop");
    server.json(ONE_A_MINUTE);
    eventually("the limit", || {
        client.call("trial", &device("desktop")).status == 429
    });
    for _ in 0..5 {
        let again = trial(&client, "laptop");
        assert_eq!((again.status, &again.body), (200, &first.body));
    }
    assert_eq!(
        trial(&client, "tablet").status_and_code(),
        (429, "rate_limited")
    );
}
