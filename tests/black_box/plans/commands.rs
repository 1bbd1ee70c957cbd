//! Plans and the licenses that are issued by them, on the command line.

use serde_json::{Value, json};

use crate::database;
use crate::inspect::error_of;
use crate::support::{Server, identity};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A server with a customer and the plan `pro`: three devices, a year from the first activation, two years of updates.
pub fn shop() -> Server {
    let server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    let terms = [
        "plan",
        "add",
        "pro",
        "--name",
        "Pro",
        "--devices",
        "3",
        "--term-days",
        "365",
        "--term-starts",
        "first_activation",
        "--updates-days",
        "730",
        "--feature",
        "pro",
        "--feature",
        "export",
    ];
    server.json(&terms);
    server
}

/// Issues one license to Ada; the license as it is printed.
pub fn issue(server: &Server, more: &[&str]) -> Value {
    let words = ["license", "issue", "--customer", "Ada"];
    server.json(&[&words[..], more].concat())["licenses"][0].clone()
}

/// The key of a license.
pub fn key_of(license: &Value) -> &str {
    license["license_key"].as_str().unwrap()
}

/// A moment as it is printed, in Unix milliseconds.
fn ms(moment: &Value) -> i64 {
    let text = moment.as_str().unwrap();
    license_server::clock::UnixMs::parse(text).unwrap().0
}

fn text_of(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_plan_is_added_shown_edited_and_archived_and_each_is_audited() {
    let server = shop();
    let mut expected = json!({
        "code": "pro", "name": "Pro", "kind": "full", "device_limit": 3, "term_days": 365,
        "term_starts": "first_activation", "features": ["export", "pro"], "updates_days": 730,
        "archived_at": null,
    });
    let mut shown = server.json(&["plan", "show", "pro"]);
    expected["created_at"] = shown["created_at"].take();
    shown["created_at"] = expected["created_at"].clone();
    assert_eq!(shown, expected);
    // Unlimited, unless they are named; a trial lasts 30 days then.
    server.json(&["plan", "add", "free", "--name", "Free"]);
    let free = server.json(&["plan", "show", "free"]);
    for (member, value) in [
        ("kind", json!("full")),
        ("device_limit", json!(1)),
        ("term_days", Value::Null),
        ("term_starts", json!("issue")),
        ("features", json!([])),
        ("updates_days", Value::Null),
    ] {
        assert_eq!(free[member], value, "{member}");
    }
    server.json(&["plan", "add", "try", "--name", "Try", "--kind", "trial"]);
    assert_eq!(server.json(&["plan", "show", "try"])["term_days"], 30);
    // An edit changes what it names only.
    let edit = [
        "plan",
        "edit",
        "pro",
        "--name",
        "Professional",
        "--updates-days",
        "none",
        "--feature",
        "",
    ];
    let edited = server.json(&edit)["plans"][0].clone();
    assert_eq!(edited["name"], "Professional");
    assert_eq!(edited["updates_days"], Value::Null);
    assert_eq!(edited["features"], json!([]));
    assert_eq!(edited["device_limit"], 3);
    assert_eq!(edited["term_days"], 365);
    server.json(&["plan", "archive", "pro"]);
    let listed = server.json(&["plan", "list"])["plans"].clone();
    let codes: Vec<&Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["code"])
        .collect();
    assert_eq!(codes, ["pro", "free", "try"]);
    assert!(listed[0]["archived_at"].is_string());
    assert_eq!(listed[1]["archived_at"], Value::Null);
    // A code is never used again.
    let again = error_of(&server, &["plan", "add", "pro", "--name", "Pro"]);
    assert!(again.contains("never used twice"), "{again}");
    let actions = ["plans.add", "plans.edit", "plans.archive"];
    let counts = actions.map(|action| database::audited(&server, action).len());
    assert_eq!(counts, [3, 1, 1]);
    let entry = database::audited(&server, "plans.edit").remove(0);
    assert_eq!(entry.subject, "pro");
    assert!(entry.before.contains("\"name\":\"Pro\""), "{entry:?}");
    assert!(
        entry.after.contains("\"name\":\"Professional\""),
        "{entry:?}"
    );
}

#[test]
fn a_license_gets_the_values_of_its_plan_and_may_differ() {
    let server = shop();
    let license = issue(&server, &["--plan", "pro"]);
    for (member, value) in [
        ("plan", json!("pro")),
        ("kind", json!("full")),
        ("device_limit", json!(3)),
        ("features", json!(["export", "pro"])),
        ("valid_until", Value::Null),
        ("term_days_from_first_activation", json!(365)),
    ] {
        assert_eq!(license[member], value, "{member}");
    }
    let updates = ms(&license["updates_until"]) - ms(&license["created_at"]);
    assert_eq!(updates, 730 * DAY_MS);
    let differing = issue(
        &server,
        &[
            "--plan",
            "pro",
            "--kind",
            "trial",
            "--devices",
            "1",
            "--valid-until",
            "2099-12-31",
            "--feature",
            "basic",
            "--updates-until",
            "2098-12-31",
        ],
    );
    for (member, value) in [
        ("plan", json!("pro")),
        ("kind", json!("trial")),
        ("device_limit", json!(1)),
        ("features", json!(["basic"])),
        ("valid_until", json!("2099-12-31T23:59:59Z")),
        ("term_days_from_first_activation", Value::Null),
        ("updates_until", json!("2098-12-31T23:59:59Z")),
    ] {
        assert_eq!(differing[member], value, "{member}");
    }
    // The term of a plan that starts with the issue has its end at once.
    let year = [
        "plan",
        "add",
        "year",
        "--name",
        "Year",
        "--term-days",
        "365",
    ];
    server.json(&year);
    let license = issue(&server, &["--plan", "year"]);
    let term = ms(&license["valid_until"]) - ms(&license["created_at"]);
    assert_eq!(term, 365 * DAY_MS);
    assert_eq!(license["term_days_from_first_activation"], Value::Null);
    // Without a plan, nothing of it is there.
    let plain = issue(&server, &[]);
    for (member, value) in [
        ("plan", Value::Null),
        ("kind", json!("full")),
        ("device_limit", json!(1)),
        ("features", json!([])),
        ("updates_until", Value::Null),
        ("valid_until", Value::Null),
    ] {
        assert_eq!(plain[member], value, "{member}");
    }
    let shown = text_of(&server, &["license", "show", key_of(&plain)]);
    assert!(
        !shown.contains("plan") && !shown.contains("updates"),
        "{shown}"
    );
    let list = text_of(&server, &["license", "list", "--search", key_of(&plain)]);
    assert!(!list.contains("PLAN"), "{list}");
    server.json(&["plan", "archive", "pro"]);
    let sale = ["license", "issue", "--customer", "Ada", "--plan", "pro"];
    let refused = error_of(&server, &sale);
    assert!(refused.contains("archived"), "{refused}");
}

#[test]
fn a_term_starts_with_the_first_activation_and_is_said_to_until_then() {
    let server = shop();
    let license = issue(&server, &["--plan", "pro"]);
    let key = key_of(&license);
    for (command, pending) in [
        (
            &["license", "list"][..],
            "365 days, starts with the first activation",
        ),
        (
            &["license", "show", key],
            "for 365 days that start with the first activation",
        ),
    ] {
        let text = text_of(&server, command);
        assert!(text.contains(pending), "{text}");
    }
    // Days lengthen the term, which begins no sooner for that.
    let extended = text_of(&server, &["license", "extend", key, "--days", "5"]);
    assert!(extended.contains("370 days, starts with"), "{extended}");
    let too_long = server.cli(&["license", "extend", key, "--days", "36500"]);
    assert_eq!(too_long.status.code(), Some(2));
    let activated = server.call("activate", &identity(key, "laptop"));
    assert_eq!(activated.status, 201, "{activated:?}");
    let shown = server.json(&["license", "show", key]);
    let term = ms(&shown["valid_until"]) - ms(&shown["devices"][0]["activated_at"]);
    assert!((term - 370 * DAY_MS).abs() <= 1000, "{shown:#}");
    assert_eq!(shown["term_days_from_first_activation"], Value::Null);
    // A second device begins nothing anew.
    server.call("activate", &identity(key, "desktop"));
    let later = server.json(&["license", "show", key]);
    assert_eq!(later["valid_until"], shown["valid_until"]);
    // A date ends a term that has not begun.
    let other = issue(&server, &["--plan", "pro"]);
    let words = ["license", "extend", key_of(&other), "--until", "2099-12-31"];
    let fixed = server.json(&words)["licenses"][0].clone();
    assert_eq!(fixed["valid_until"], "2099-12-31T23:59:59Z");
    assert_eq!(fixed["term_days_from_first_activation"], Value::Null);
}

#[test]
fn a_changed_plan_reaches_sold_licenses_only_when_it_is_applied() {
    let server = shop();
    let begun = issue(&server, &["--plan", "pro"]);
    server.call("activate", &identity(key_of(&begun), "laptop"));
    let begun = server.json(&["license", "show", key_of(&begun)]);
    let waiting = issue(&server, &["--plan", "pro", "--devices", "7"]);
    let revoked = issue(&server, &["--plan", "pro"]);
    server.json(&["license", "revoke", "--yes", key_of(&revoked)]);
    let other = issue(&server, &[]);
    let edit = [
        "plan",
        "edit",
        "pro",
        "--devices",
        "5",
        "--term-days",
        "100",
        "--updates-days",
        "1000",
        "--feature",
        "all",
    ];
    server.json(&edit);
    let shown = |license: &Value| server.json(&["license", "show", key_of(license)]);
    assert_eq!(shown(&begun)["features"], json!(["export", "pro"]));
    assert_eq!(shown(&waiting)["device_limit"], 7);
    let applied = server.json(&["plan", "apply", "pro", "--yes"]);
    let expected = json!({
        "plan": "pro", "changed": 2, "unchanged": 0, "longer_updates": 0, "skipped": [],
    });
    assert_eq!(applied, expected);
    for license in [&begun, &waiting] {
        let now = shown(license);
        assert_eq!(now["device_limit"], 5);
        assert_eq!(now["features"], json!(["all"]));
        let updates = ms(&now["updates_until"]) - ms(&now["created_at"]);
        assert_eq!(updates, 1000 * DAY_MS);
    }
    // A term that has begun stays; one that has not is as the plan's.
    assert_eq!(shown(&begun)["valid_until"], begun["valid_until"]);
    assert_eq!(shown(&waiting)["term_days_from_first_activation"], 100);
    assert_eq!(shown(&revoked)["features"], json!(["export", "pro"]));
    assert_eq!(shown(&other)["features"], json!([]));
    let again = server.json(&["plan", "apply", "pro", "--yes"]);
    assert_eq!(
        (&again["changed"], &again["unchanged"]),
        (&json!(0), &json!(2))
    );
    let entry = database::audited(&server, "plans.apply").remove(0);
    assert_eq!(entry.subject, "pro");
    assert!(entry.after.contains("\"licenses_changed\":2"), "{entry:?}");
    // Each license has an entry with its values before and after.
    let edits = database::audited(&server, "licenses.edit");
    assert_eq!(edits.len(), 2);
    assert!(edits[1].before.contains("\"device_limit\":7"), "{edits:?}");
    assert!(edits[1].after.contains("\"device_limit\":5"), "{edits:?}");
}

#[test]
fn a_plan_never_takes_a_slot_that_a_device_holds() {
    let server = shop();
    let license = issue(&server, &["--plan", "pro"]);
    let key = key_of(&license);
    for device in ["laptop", "desktop"] {
        server.call("activate", &identity(key, device));
    }
    let before = server.json(&["license", "show", key]);
    server.json(&["plan", "edit", "pro", "--devices", "1", "--feature", "all"]);
    let applied = server.json(&["plan", "apply", "pro", "--yes"]);
    let expected = json!({
        "plan": "pro", "changed": 0, "unchanged": 0, "longer_updates": 0,
        "skipped": [{ "license_key": key, "device_count": 2, "device_limit": 3 }],
    });
    assert_eq!(applied, expected);
    let text = text_of(&server, &["plan", "apply", "pro", "--yes"]);
    assert!(
        text.contains(&format!(
            "license {key} stays as it is: 2 devices hold a slot"
        )),
        "{text}"
    );
    let after = server.json(&["license", "show", key]);
    for member in ["device_limit", "features", "valid_until", "updates_until"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    server.json(&["license", "release-device", key, "desktop"]);
    assert_eq!(
        server.json(&["plan", "apply", "pro", "--yes"])["changed"],
        1
    );
    assert_eq!(server.json(&["license", "show", key])["device_limit"], 1);
}

#[test]
fn a_license_is_edited_by_what_the_command_names() {
    let server = shop();
    server.json(&["customer", "add", "Bob"]);
    let license = issue(&server, &["--note", "old"]);
    let key = key_of(&license);
    let edit = |more: &[&str]| {
        let words = ["license", "edit", key];
        server.json(&[&words[..], more].concat())["licenses"][0].clone()
    };
    let edited = edit(&[
        "--kind",
        "trial",
        "--devices",
        "4",
        "--valid-until",
        "2099-12-31",
        "--plan",
        "pro",
        "--feature",
        "b",
        "--feature",
        "a",
        "--updates-until",
        "2098-12-31",
        "--note",
        "new",
        "--customer",
        "Bob",
    ]);
    for (member, value) in [
        ("kind", json!("trial")),
        ("device_limit", json!(4)),
        ("valid_until", json!("2099-12-31T23:59:59Z")),
        ("plan", json!("pro")),
        ("features", json!(["a", "b"])),
        ("updates_until", json!("2098-12-31T23:59:59Z")),
        ("note", json!("new")),
        ("customer", json!("Bob")),
        ("valid_from", license["valid_from"].clone()),
    ] {
        assert_eq!(edited[member], value, "{member}");
    }
    let emptied = edit(&[
        "--valid-until",
        "",
        "--plan",
        "",
        "--feature",
        "",
        "--updates-until",
        "",
    ]);
    for member in ["valid_until", "plan", "updates_until"] {
        assert_eq!(emptied[member], Value::Null, "{member}");
    }
    assert_eq!(emptied["features"], json!([]));
    assert_eq!(emptied["device_limit"], 4);
    server.call("activate", &identity(key, "laptop"));
    server.call("activate", &identity(key, "desktop"));
    let refused = error_of(&server, &["license", "edit", key, "--devices", "1"]);
    assert!(refused.contains("2 devices use a slot"), "{refused}");
    let entries = database::audited(&server, "licenses.edit");
    assert!(entries[0].after.contains("\"plan\":\"pro\""), "{entries:?}");
}

#[test]
fn a_code_is_unique_in_its_product_and_sells_that_product_only() {
    let server = shop();
    server.json(&["product", "add", "Second", "--slug", "second"]);
    let add = |code, devices, product| {
        let words = ["plan", "add", code, "--name", "Other", "--devices", devices];
        server.json(&[&words[..], &["--product", product]].concat());
    };
    add("pro", "9", "second");
    add("only", "1", "second");
    let license = issue(&server, &["--plan", "pro", "--product", "second"]);
    assert_eq!(license["device_limit"], 9);
    let first = server.json(&["product", "list"])["products"][0]["slug"].clone();
    let first = first.as_str().unwrap();
    let license = issue(&server, &["--plan", "pro", "--product", first]);
    assert_eq!(license["device_limit"], 3);
    let foreign = [
        "license",
        "issue",
        "--customer",
        "Ada",
        "--plan",
        "only",
        "--product",
        first,
    ];
    let refused = error_of(&server, &foreign);
    assert!(refused.contains("plan list"), "{refused}");
    let edit = ["license", "edit", key_of(&license), "--plan", "only"];
    let refused = error_of(&server, &edit);
    assert!(refused.contains("plan list"), "{refused}");
    let unnamed = server.cli(&["plan", "list"]);
    assert_eq!(unnamed.status.code(), Some(2));
    // Applying a plan reaches the licenses of its own product only.
    let edit = ["plan", "edit", "pro", "--devices", "5", "--product", first];
    server.json(&edit);
    let apply = ["plan", "apply", "pro", "--yes", "--product", first];
    assert_eq!(server.json(&apply)["changed"], 1);
    // The audit log tells the plans apart.
    let subjects: Vec<String> = database::audited(&server, "plans.add")
        .into_iter()
        .map(|entry| entry.subject)
        .collect();
    assert_eq!(subjects, ["pro", "second/pro", "second/only"]);
}
