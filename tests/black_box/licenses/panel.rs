//! The panel's pages for licenses: issue, edit, extend, suspend and revoke.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::browser::Browser;
use crate::database;
use crate::support::{Response, Server, eventually, heartbeat_body, identity};

/// The form fields for one license of a new customer; `more` replaces or adds fields.
fn order<'a>(customer: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("customer", customer),
        ("new_customer", "1"),
        ("kind", "full"),
        ("devices", "1"),
        ("count", "1"),
    ];
    for (name, text) in more {
        fields.retain(|(known, _)| known != name);
        fields.push((name, text));
    }
    fields
}

/// Issues licenses through the panel and returns the page with the keys.
fn issue(panel: &mut Browser, fields: &[(&str, &str)]) -> Response {
    let issued = panel.post("/licenses/new", fields);
    assert_eq!(issued.status, 303, "{}", issued.text);
    follow(panel, &issued)
}

/// Follows the redirect of a response.
fn follow(panel: &mut Browser, answer: &Response) -> Response {
    let to = answer.header("location").unwrap();
    panel.get(to.strip_prefix("/lizenzserver").unwrap())
}

/// The hidden field `seen` of a form.
fn seen(page: &Response) -> String {
    let rest = page.text.split("name=\"seen\" value=\"").nth(1).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// The form fields of an edited license.
fn edited<'a>(note: &'a str, seen: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("kind", "full"),
        ("devices", "5"),
        ("valid_from", "2026-01-02"),
        ("valid_until", "2099-12-31"),
        ("note", note),
        ("seen", seen),
    ]
}

/// The licenses as `license list` prints them, newest first.
pub fn licenses(server: &Server) -> Vec<Value> {
    let list = server.json(&["license", "list"]);
    list["licenses"].as_array().unwrap().clone()
}

/// Extends license 1 through a freshly loaded form.
fn extend(panel: &mut Browser, fields: &[(&str, &str)]) -> Response {
    let page = panel.get("/licenses/1/extend").text;
    let seen = page.split("name=\"seen\" value=\"").nth(1).unwrap();
    let seen = seen.split('"').next().unwrap();
    panel.post("/licenses/1/extend", &[fields, &[("seen", seen)]].concat())
}

#[test]
fn a_license_is_issued_to_a_new_customer_and_its_key_is_shown_to_copy() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let form = panel.get("/licenses/new");
    assert_eq!(form.status, 200, "{}", form.text);
    let page = issue(
        &mut panel,
        &order(
            "Ada Lovelace",
            &[
                ("devices", "3"),
                ("valid_until", "2099-12-31"),
                ("domain", "WWW.B\u{fc}cher.example"),
                ("note", "two\r\nlines"),
            ],
        ),
    );
    let issued = &licenses(&server)[0];
    let key = issued["license_key"].as_str().unwrap();
    assert!(page.text.contains(&format!("data-copy=\"{key}\"")));
    let facts = ["kind", "device_limit", "valid_until", "domain", "note"].map(|n| &issued[n]);
    let expected = serde_json::json!([
        "full",
        3,
        "2099-12-31T23:59:59Z",
        "www.xn--bcher-kva.example",
        "two\nlines"
    ]);
    assert_eq!(serde_json::json!(facts), expected);
    let token = server.client().session(key, "laptop");
    assert!(!token.is_empty(), "a program can use it");
    // The customer exists now and can be given by id, by name, or as suggested in the form.
    let suggested = panel.get("/licenses/new?customer=1");
    assert!(suggested.text.contains("value=\"Ada Lovelace (#1)\""));
    for known in ["1", "ada lovelace", "Ada Lovelace (#1)"] {
        let mut fields = order(known, &[("kind", "trial")]);
        fields.retain(|(name, _)| *name != "new_customer");
        issue(&mut panel, &fields);
    }
    let all = licenses(&server);
    assert!(all.len() == 4 && all.iter().all(|license| license["customer_id"] == 1));
    assert!(all[0]["valid_until"].is_string(), "a trial expires");
}

#[test]
fn many_licenses_are_issued_at_once_each_with_its_own_key() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let page = issue(&mut panel, &order("Ada", &[("count", "30")]));
    let keys: BTreeSet<String> = licenses(&server)
        .iter()
        .map(|license| license["license_key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 30);
    for key in &keys {
        assert!(page.text.contains(&format!("<code>{key}</code>")), "{key}");
    }
    assert!(page.text.contains("30 licenses issued"));
    let file = panel.get("/licenses.csv?first=2&last=4");
    assert_eq!(file.text.lines().count(), 4, "{}", file.text);
}

#[test]
fn an_invalid_order_is_shown_again_with_its_values_and_the_problem() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    for (name, text, problem) in [
        ("devices", "0", "from 1 to 100000"),
        ("devices", "many", "from 1 to 100000"),
        ("count", "10001", "from 1 to 10000"),
        ("kind", "gift", "full or trial"),
        ("valid_until", "2001-01-01", "not in the past"),
        ("valid_until", "31.12.2099", "2027-12-31"),
        ("domain", "localhost", "host name"),
        ("customer", " ", "No customer"),
    ] {
        let fields = order("Ada", &[("note", "kept <b>"), (name, text)]);
        let refused = panel.post("/licenses/new", &fields);
        assert_eq!(refused.status, 422, "{name} {text}");
        assert!(refused.text.contains(problem), "{name}: {}", refused.text);
        assert!(refused.text.contains("kept &lt;b&gt;"));
        assert!(refused.text.contains(&format!("href=\"#f-{name}\"")));
    }
    let mut unknown = order("Nobody", &[]);
    unknown.retain(|(name, _)| *name != "new_customer");
    let refused = panel.post("/licenses/new", &unknown);
    assert!(refused.status == 422 && refused.text.contains("No customer"));
    assert!(licenses(&server).is_empty());
    assert_eq!(database::count(&server, "customers"), 0);
    for _ in 0..2 {
        server.json(&["customer", "add", "Nobody", "--another"]);
    }
    let refused = panel.post("/licenses/new", &unknown);
    assert!(refused.status == 422 && refused.text.contains("by ID: 1, 2"));
}

#[test]
fn the_second_of_two_edits_of_one_license_is_refused_as_a_conflict() {
    let server = Server::start();
    let (mut one, mut other) = (
        server.logged_in_browser("admin"),
        server.logged_in_browser("owner"),
    );
    let key = server.issue_license(2);
    let first = seen(&one.get("/licenses/1/edit"));
    let saved = other.post("/licenses/1/edit", &edited("from other", &first));
    assert_eq!(saved.status, 303, "{}", saved.text);
    let late = one.post("/licenses/1/edit", &edited("from one", &first));
    assert_eq!(late.status, 422);
    assert!(
        late.text.contains("Someone else changed this")
            && late.text.contains(">from one</textarea>")
    );
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["note"], "from other");
    assert_eq!(shown["valid_from"], "2026-01-02T00:00:00Z");
    assert_eq!(shown["valid_until"], "2099-12-31T23:59:59Z");
    assert_eq!(shown["device_limit"], 5);
    let seen_now = seen(&late);
    let again = edited("from one", &seen_now);
    assert_eq!(one.post("/licenses/1/edit", &again).status, 303);
    assert_eq!(server.json(&["license", "show", &key])["note"], "from one");
    let entry = database::audited(&server, "licenses.edit").remove(0);
    assert!(entry.before.contains("\"device_limit\":2"), "{entry:?}");
    assert!(entry.after.contains("\"device_limit\":5"), "{entry:?}");
}

#[test]
fn an_edit_keeps_the_time_of_an_unchanged_day_and_cannot_remove_taken_slots() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    server.json(&["customer", "add", "Ada"]);
    let words = [
        "license",
        "issue",
        "--customer",
        "1",
        "--devices",
        "3",
        "--valid-until",
    ];
    let issued = server.json(&[&words[..], &["2099-12-31T12:00:00Z"][..]].concat());
    let before = issued["licenses"][0].clone();
    let key = before["license_key"].as_str().unwrap();
    let client = server.client();
    for device in ["laptop", "desktop"] {
        client.call("activate", &identity(key, device));
    }
    let form = panel.get("/licenses/1/edit");
    assert!(form.text.contains("value=\"2099-12-31\""));
    let from = before["valid_from"].as_str().unwrap()[..10].to_owned();
    let seen = seen(&form);
    let fields = |devices| {
        [
            ("kind", "full"),
            ("devices", devices),
            ("valid_from", &from),
            ("valid_until", "2099-12-31"),
            ("note", "new"),
            ("seen", &seen),
        ]
    };
    let refused = panel.post("/licenses/1/edit", &fields("1"));
    assert!(refused.status == 422 && refused.text.contains("2 devices use a slot"));
    assert_eq!(panel.post("/licenses/1/edit", &fields("2")).status, 303);
    let after = server.json(&["license", "show", key]);
    for fact in ["valid_from", "valid_until"] {
        assert_eq!(after[fact], before[fact]);
    }
    assert_eq!(
        (&after["note"], &after["device_limit"]),
        (&"new".into(), &2.into())
    );
}

#[test]
fn a_suspension_needs_a_confirmation_and_ends_the_session_within_a_second() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let confirmation = panel.get("/licenses/1/suspend");
    assert!(
        confirmation.text.contains("Suspend the license for Ada?"),
        "{}",
        confirmation.text
    );
    assert!(
        confirmation
            .text
            .contains("The running session ends within a second.")
    );
    assert_eq!(
        client
            .call("session/heartbeat", &heartbeat_body(&key, &token))
            .status,
        200
    );
    let done = panel.post("/licenses/1/suspend", &[]);
    assert_eq!(done.status, 303);
    assert_eq!(done.header("location"), Some("/lizenzserver/licenses/1"));
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(
        heartbeat.status_and_code(),
        (403, "license_suspended"),
        "at once"
    );
    eventually("the session has ended", || {
        database::count(&server, "active_sessions") == 0
    });
    let suspended = database::audited(&server, "licenses.suspend")[0].at_ms;
    assert!(database::ended_sessions(&server)[0].ended_at_ms - suspended < 1000);
    assert!(
        !panel
            .get("/licenses/1/suspend")
            .text
            .contains("running session ends")
    );
    assert_eq!(panel.post("/licenses/1/reinstate", &[]).status, 303);
    let again = client.call("session/start", &identity(&key, "laptop"));
    assert_eq!(again.status, 201);
}

#[test]
fn a_revocation_needs_the_last_group_of_the_key_and_is_final() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let key = server.issue_license(1);
    let group = key.rsplit('-').next().unwrap();
    assert!(
        panel
            .get("/licenses/1/revoke")
            .text
            .contains(&format!("data-match=\"{group}\""))
    );
    for wrong in ["", "00000", &key] {
        let refused = panel.post("/licenses/1/revoke", &[("typed", wrong)]);
        assert_eq!(refused.status, 422);
        assert!(
            refused.text.contains("not the last group"),
            "{}",
            refused.text
        );
    }
    let client = server.client();
    let token = client.session(&key, "laptop");
    let done = panel.post("/licenses/1/revoke", &[("typed", &group.to_lowercase())]);
    assert_eq!(done.status, 303, "{}", done.text);
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.status_and_code(), (403, "license_suspended"));
    for action in ["suspend", "reinstate"] {
        let refused = panel.post(&format!("/licenses/1/{action}"), &[]);
        assert_eq!(refused.status, 409);
        assert!(
            refused.text.contains("Revoking a license is permanent."),
            "{action}"
        );
    }
    let refused = extend(&mut panel, &[("until", "2099-12-31")]);
    assert!(refused.status == 422 && refused.text.contains("is permanent"));
    let command = server.cli(&["license", "reinstate", &key]);
    let line = String::from_utf8(command.stderr).unwrap();
    assert_eq!(command.status.code(), Some(1));
    assert_eq!(
        line,
        "license-server: Revoking a license is permanent. Please issue a new one.\n"
    );
}

#[test]
fn a_license_is_extended_by_days_or_to_a_day() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let key = server.issue_license(1);
    let by_days = server.cli(&["license", "extend", &key, "--days", "3"]);
    assert_eq!(by_days.status.code(), Some(1));
    let line = String::from_utf8(by_days.stderr).unwrap();
    assert!(
        line.starts_with("license-server: This license does not expire"),
        "{line}"
    );
    let until = |server: &Server| server.json(&["license", "show", &key])["valid_until"].clone();
    for (fields, problem) in [
        (&[("days", "3")][..], "Set an expiry date instead"),
        (&[("days", ""), ("until", "")], "number of days"),
        (
            &[("days", "1"), ("until", "2099-12-31")],
            "leave the number of days empty",
        ),
        (&[("until", "2001-01-01")], "not before the first day"),
        (&[("until", "soon")], "2027-12-31"),
    ] {
        let refused = extend(&mut panel, fields);
        assert_eq!(refused.status, 422, "{fields:?}");
        assert!(
            refused.text.contains(problem),
            "{fields:?}: {}",
            refused.text
        );
    }
    assert_eq!(extend(&mut panel, &[("until", "2099-12-30")]).status, 303);
    assert_eq!(until(&server), "2099-12-30T23:59:59Z");
    let refused = extend(&mut panel, &[("days", "36501")]);
    assert!(refused.status == 422 && refused.text.contains("36500"));
    assert_eq!(extend(&mut panel, &[("days", "2")]).status, 303);
    assert_eq!(until(&server), "2100-01-01T23:59:59Z");
}

#[test]
fn the_page_of_a_license_shows_its_devices_sessions_flags_and_log() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let key = server.issue_license(3);
    server.json(&["flag", "set", "exporter", "--description", "Writes tables"]);
    server.json(&["flag", "set", "importer", "--off"]);
    let client = server.client();
    let ended = client.session(&key, "laptop");
    client.call(
        "session/end",
        &serde_json::json!({ "session_token": ended }),
    );
    client.session(&key, "desktop");
    server.json(&["license", "extend", &key, "--until", "2099-12-31"]);
    let page = panel.get("/licenses/1?order=-device&rows=100");
    let place = |name: &str| page.text.find(&format!("clip\">{name}<"));
    assert!(place("laptop") < place("desktop"), "{}", page.text);
    let head = "aria-sort=\"descending\"><a href=\"/lizenzserver/licenses/1?order=device#devices\">Device</a>";
    assert!(page.text.contains(head), "{}", page.text);
    let page = panel.get("/licenses/1");
    assert_eq!(page.status, 200, "{}", page.text);
    for text in [
        "<h1>License for Ada</h1>",
        &format!("data-copy=\"{key}\""),
        "href=\"/lizenzserver/customers/1\"",
        "2 of 3 in use",
        "31 Dec 2099",
        "<th scope=\"row\"><span class=\"clip\">laptop</span>",
        "hash of desktop",
        "href=\"/lizenzserver/sessions/2/terminate?back=%2Flizenzserver%2Flicenses%2F1\"",
        "Session on laptop ended by the program",
        "Session started on desktop",
        "desktop activated",
        "License extended",
        "31 Dec 2099</time></ins>",
        "License issued",
        "href=\"/lizenzserver/licenses/1/devices/2/release\"",
        "Writes tables",
        "href=\"/lizenzserver/licenses/1/suspend\"",
    ] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    let flag = |name: &str| {
        let before = page.text.split(&format!("<code>{name}</code>")).next();
        before.unwrap().rsplit("<li>").next().unwrap().to_owned()
    };
    assert!(flag("exporter").contains(">On<") || flag("exporter").contains("On</span>"));
    assert!(flag("importer").contains("Off</span>"));
    assert_eq!(panel.get("/licenses/99").status, 404);
    let mut german = server.logged_in_browser("support");
    german
        .headers
        .push(("Accept-Language".to_owned(), "de".to_owned()));
    german.headers.remove(1);
    let page = german.get("/licenses/1");
    assert!(
        page.text.contains("<h1>Lizenz für Ada</h1>"),
        "{}",
        page.text
    );
    for button in ["/edit", "/extend", "/suspend", "/revoke", "/terminate"] {
        assert!(
            !page.text.contains(&format!("{button}\"")),
            "support sees {button}"
        );
    }
    assert!(page.text.contains("/devices/2/release\""));
}

#[test]
fn support_can_release_a_device_and_change_nothing_else() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    let key = server.issue_license(2);
    let client = server.client();
    client.call("activate", &identity(&key, "laptop"));
    let token = client.session(&key, "desktop");
    let without_session = panel.get("/licenses/1/devices/1/release");
    assert!(
        without_session.text.contains("Release the device laptop?"),
        "{}",
        without_session.text
    );
    assert!(!without_session.text.contains("session on this device"));
    let with_session = panel.get("/licenses/1/devices/2/release");
    assert!(
        with_session
            .text
            .contains("The session on this device ends immediately.")
    );
    let released = panel.post("/licenses/1/devices/2/release", &[]);
    assert_eq!(released.status, 303, "{}", released.text);
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(
        (heartbeat.status, &heartbeat.body["end_reason"]),
        (410, &"forced".into())
    );
    let entry = database::audited(&server, "devices.release").remove(0);
    assert_eq!(entry.actor, "support");
    assert_eq!(entry.source, "127.0.0.1");
    let other = server.issue_license(1);
    client.call("activate", &identity(&other, "tablet"));
    let wrong = panel.post("/licenses/1/devices/3/release", &[]);
    assert_eq!(wrong.status, 404, "the device belongs to another license");
    let before = licenses(&server);
    let fields = order("Ada", &[("typed", key.rsplit('-').next().unwrap())]);
    for path in [
        "new",
        "1/edit",
        "1/extend",
        "1/suspend",
        "1/reinstate",
        "1/revoke",
    ] {
        let refused = panel.post(&format!("/licenses/{path}"), &fields);
        assert_eq!(refused.status, 403, "{path}");
    }
    assert_eq!(panel.post("/customers/1/remove", &[]).status, 403);
    assert_eq!(licenses(&server), before);
}

#[test]
fn markup_in_every_field_is_shown_as_text() {
    const MARKUP: &str = "<b>\"x'</b><script>{{ 1 }}";
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    issue(&mut panel, &order(MARKUP, &[("note", MARKUP)]));
    let seen = seen(&panel.get("/customers/1/edit"));
    let fields = [
        ("name", MARKUP),
        ("company", MARKUP),
        ("note", MARKUP),
        ("seen", &seen),
    ];
    assert_eq!(panel.post("/customers/1/edit", &fields).status, 303);
    let key = licenses(&server)[0]["license_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut machine = identity(&key, "x");
    for name in ["machine_id", "hardware_hash"] {
        machine[name] = MARKUP.into();
    }
    server.call("activate", &machine);
    assert_eq!(server.call("session/start", &machine).status, 201);
    server.json(&["flag", "set", "exporter", "--description", MARKUP]);
    for path in [
        "/licenses",
        "/licenses/1",
        "/licenses/new?customer=1",
        "/licenses/issued/1/1",
        "/licenses/1/edit",
        "/licenses/1/extend",
        "/licenses/1/suspend",
        "/licenses/1/revoke",
        "/licenses/1/devices/1/release",
        "/licenses?customer=1",
        "/customers/1",
        "/customers",
    ] {
        let page = panel.get(path);
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(page.text.contains("&lt;b&gt;"), "{path}");
        assert!(
            !page.text.contains("<b>") && !page.text.contains("<script>{{"),
            "{path}"
        );
    }
}

#[test]
fn an_invalid_edit_keeps_its_digest_and_a_late_one_shows_the_current_values() {
    let server = Server::start();
    server.issue_license(1);
    let (mut one, mut other) = (
        server.logged_in_browser("admin"),
        server.logged_in_browser("owner"),
    );
    let seen = |page: &str| {
        let rest = page.split("name=\"seen\" value=\"").nth(1).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let first = seen(&one.get("/licenses/1/edit").text);
    let terms = |note: &'static str, devices: &'static str| {
        [
            ("kind", "full"),
            ("devices", devices),
            ("valid_from", "2026-01-01"),
            ("note", note),
        ]
    };
    let post = |panel: &mut Browser, note, devices, seen: &str| {
        panel.post(
            "/licenses/1/edit",
            &[&terms(note, devices)[..], &[("seen", seen)]].concat(),
        )
    };
    let invalid = post(&mut one, "of the one", "x", &first);
    assert_eq!((invalid.status, seen(&invalid.text)), (422, first.clone()));
    assert_eq!(post(&mut other, "of the other", "2", &first).status, 303);
    // Both are told at once.
    let late = post(&mut one, "of the one", "x", &first);
    assert!(
        late.status == 422
            && late.text.contains("of the other")
            && late.text.contains("id=\"e-devices\""),
        "{}",
        late.text
    );
    let again = seen(&late.text);
    assert_eq!(post(&mut one, "of the one", "2", &again).status, 303);
    let end = seen(&one.get("/licenses/1/extend").text);
    for (panel, status) in [(&mut one, 303), (&mut other, 422)] {
        let fields = [("until", "2099-12-31"), ("seen", &*end)];
        assert_eq!(panel.post("/licenses/1/extend", &fields).status, status);
    }
}
