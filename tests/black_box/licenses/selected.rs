//! Changes to the selected licenses of a list.

use crate::database;
use crate::licenses::panel::licenses;
use crate::support::{Server, eventually, heartbeat_body, identity};

/// The fields of a form with these licenses selected.
fn selected<'a>(action: &'a str, ids: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let ids = ids.iter().map(|id| ("ids", *id));
    [("action", action)].into_iter().chain(ids).collect()
}

/// The states of the licenses, the first one first.
fn states(server: &Server) -> Vec<String> {
    let all = licenses(server).into_iter().rev();
    all.map(|license| license["state"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn selected_licenses_are_suspended_together_after_a_question_with_their_count() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 5);
    let program = server.client();
    let token = program.session(&keys[0], "desk");
    let mut panel = server.logged_in_browser("admin");
    let list = panel.get("/licenses").text;
    assert!(
        list.contains("name=\"ids\" value=\"5\" form=\"selected\""),
        "{list}"
    );
    let back = "/lizenzserver/licenses?q=Ada&order=customer";
    let query: String = form_urlencoded::byte_serialize(back.as_bytes()).collect();
    let question = panel.get(&format!(
        "/licenses/selected?action=suspend&ids=1&ids=3&ids=4&back={query}"
    ));
    assert_eq!(question.status, 200, "{}", question.text);
    for text in [
        "Suspend 3 licenses?",
        "Ends 1 running session.",
        &keys[0],
        &keys[3],
    ] {
        assert!(question.text.contains(text), "{text} in {}", question.text);
    }
    assert!(!question.text.contains(&keys[1]));
    let mut fields = selected("suspend", &["1", "3", "4"]);
    fields.push(("back", back));
    let done = panel.post("/licenses/selected", &fields);
    assert_eq!(done.status, 303, "{}", done.text);
    let to = done.header("location").unwrap();
    assert_eq!(to, back);
    assert_eq!(
        states(&server),
        ["suspended", "active", "suspended", "suspended", "active"]
    );
    // One entry a license, and none for one that was suspended before.
    assert_eq!(database::audited(&server, "licenses.suspend").len(), 3);
    panel.post("/licenses/selected", &selected("suspend", &["1", "2"]));
    assert_eq!(database::audited(&server, "licenses.suspend").len(), 4);
    eventually("the session ends", || {
        program
            .call("session/heartbeat", &heartbeat_body(&keys[0], &token))
            .status
            != 200
    });
    panel.post(
        "/licenses/selected",
        &selected("reinstate", &["1", "2", "3", "4", "5"]),
    );
    assert_eq!(states(&server), ["active"; 5]);
    assert_eq!(database::audited(&server, "licenses.reinstate").len(), 4);
}

#[test]
fn a_license_that_is_refused_is_named_and_none_is_changed() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 3);
    server.json(&["license", "revoke", "--yes", &keys[2]]);
    let mut panel = server.logged_in_browser("admin");
    let before = licenses(&server);
    let mut fields = selected("extend", &["1", "2", "3"]);
    fields.push(("until", "2099-12-31"));
    let refused = panel.post("/licenses/selected", &fields);
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(
        refused.text.contains("Nothing was changed"),
        "{}",
        refused.text
    );
    assert!(
        refused
            .text
            .contains(&format!("<code>{}</code></p>", keys[2]))
    );
    assert!(
        refused.text.contains("Revoking a license is permanent"),
        "{}",
        refused.text
    );
    assert!(
        refused.text.contains("value=\"2099-12-31\""),
        "{}",
        refused.text
    );
    assert_eq!(licenses(&server), before);
    assert_eq!(database::audited(&server, "licenses.extend").len(), 0);
    let mut fields = selected("extend", &["1", "2"]);
    fields.push(("until", "2099-12-31"));
    assert_eq!(panel.post("/licenses/selected", &fields).status, 303);
    assert_eq!(database::audited(&server, "licenses.extend").len(), 2);
    // A wrong field, nothing selected, or more than a page has.
    let mut fields = selected("extend", &["1"]);
    fields.push(("days", "x"));
    let wrong = panel.post("/licenses/selected", &fields);
    assert_eq!(wrong.status, 422);
    assert!(wrong.text.contains("e-days"), "{}", wrong.text);
    let none = panel.post("/licenses/selected", &selected("suspend", &[]));
    assert_eq!(none.header("location"), Some("/lizenzserver/licenses"));
    let many: Vec<String> = (1..=201).map(|id| id.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let too_many = panel.post("/licenses/selected", &selected("suspend", &many));
    assert_eq!(too_many.status, 422, "{}", too_many.text);
}

#[test]
fn selected_licenses_move_to_another_customer_without_their_devices() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 3);
    server.json(&["customer", "add", "Bob"]);
    let program = server.client();
    program.session(&keys[0], "desk");
    program.call("activate", &identity(&keys[1], "laptop"));
    let mut panel = server.logged_in_browser("admin");
    let question = panel.get("/licenses/selected?action=move&ids=1&ids=2").text;
    assert!(question.contains("Move 2 licenses"), "{question}");
    assert!(question.contains("Ends 1 running session."), "{question}");
    let unknown = [selected("move", &["1", "2"]), vec![("customer", "Nobody")]].concat();
    assert_eq!(panel.post("/licenses/selected", &unknown).status, 422);
    let to_bob = [selected("move", &["1", "2"]), vec![("customer", "Bob")]].concat();
    for _ in 0..2 {
        let moved = panel.post("/licenses/selected", &to_bob);
        assert_eq!(moved.status, 303, "{}", moved.text);
        // The second time they are Bob's, and nothing is noted.
        assert_eq!(database::audited(&server, "licenses.edit").len(), 2);
    }
    let all = licenses(&server);
    let owners: Vec<&str> = all
        .iter()
        .rev()
        .map(|l| l["customer"].as_str().unwrap())
        .collect();
    assert_eq!(owners, ["Bob", "Bob", "Ada"]);
    assert_eq!(database::devices_named(&server, ""), 0);
    // A single one is moved from its own page, which is shown again.
    let page = panel.get("/licenses/3").text;
    assert!(
        page.contains("/licenses/selected?action=move&amp;ids=3"),
        "{page}"
    );
    let back = [("back", "/lizenzserver/licenses/3"), ("customer", "Bob")];
    let moved = panel.post(
        "/licenses/selected",
        &[selected("move", &["3"]), back.to_vec()].concat(),
    );
    let page = panel.follow(&moved).text;
    assert!(page.contains("now belongs to the other customer"), "{page}");
    assert!(page.contains("License for Bob"), "{page}");
}

#[test]
fn support_exports_selected_licenses_and_changes_none() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 3);
    let mut panel = server.logged_in_browser("support");
    let list = panel.get("/licenses").text;
    assert!(
        list.contains("selected.csv") && !list.contains("value=\"suspend\""),
        "{list}"
    );
    let file = panel.get("/licenses/selected.csv?ids=1&ids=3");
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    for (key, is_in) in [(&keys[0], true), (&keys[1], false), (&keys[2], true)] {
        assert_eq!(file.text.contains(key.as_str()), is_in, "{}", file.text);
    }
    let refused = panel.post("/licenses/selected", &selected("suspend", &["1"]));
    assert_eq!(refused.status, 403);
    assert_eq!(states(&server), ["active"; 3]);
}
