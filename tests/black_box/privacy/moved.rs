//! A license moves to another customer: what happened on it before stays with the former one.

use serde_json::json;

use super::person::{OTHER_WORDS, Person, WORDS, audit_finding, holders, shop, start_and_end};
use crate::database;
use crate::inspect::running;
use crate::support::{Server, eventually, heartbeat_body, identity};
use crate::trials;

const DATABASE: &str = "license-server.sqlite3";
/// The domain of the license, which stays on it.
const DOMAIN: &str = WORDS[6];
/// What the new owner leaves on the license.
const LATER_WORDS: &[&str] = &["yonder-second", "203.0.113.91"];

/// The person's first license belongs to the other customer, whose device has used it since.
fn moved() -> (Server, Person) {
    let (server, person) = shop();
    server.json(&["license", "edit", &person.keys[0], "--customer", "2"]);
    start_and_end(&server, &person.keys[0], LATER_WORDS[0], LATER_WORDS[1]);
    database::add_handshake(&server, OTHER_WORDS[2], LATER_WORDS[1]);
    (server, person)
}

/// The words about the person, without the domain that stays on the license.
fn words_without_domain() -> Vec<&'static str> {
    let words = WORDS.iter().copied();
    words.filter(|word| *word != DOMAIN).collect()
}

#[test]
fn a_license_comes_to_another_customer_without_devices_session_responses_and_note() {
    let (server, person) = shop();
    let key = &person.keys[0];
    server.json(&["license", "edit", key, "--customer", "2"]);
    let shown = server.json(&["license", "show", key]);
    assert_eq!(shown["devices"], json!([]), "{shown}");
    assert_eq!(shown["note"], "", "{shown}");
    assert!(shown.to_string().contains(DOMAIN), "{shown}");
    assert_eq!(running(&server).len(), 1);
    let client = server.client();
    // The server notices within a second what a command has changed.
    eventually("the session has ended", || {
        let heartbeat = client.call("session/heartbeat", &heartbeat_body(key, &person.token));
        heartbeat.status_and_code() == (410, "session_ended")
    });
    let stored = database::rows(&server.database());
    let id = &stored["licenses"][0]["license_id"];
    let mut responses = stored["idempotent_answers"].iter();
    assert!(responses.all(|row| row["license_id"] != *id));
    // Nothing else of the customer has changed, and the license can be used by its new owner.
    let other = server.json(&["license", "show", &person.keys[1]]);
    assert_ne!(other["devices"], json!([]), "{other}");
    let again = client.call("activate", &identity(key, "anew"));
    assert_eq!(again.status, 201, "{again:?}");
    // Its own customer once more: nothing is lost.
    server.json(&["license", "edit", key, "--customer", "2", "--note", "kept"]);
    let shown = server.json(&["license", "show", key]);
    assert_eq!(
        shown["devices"].as_array().map(Vec::len),
        Some(1),
        "{shown}"
    );
    server.json(&["license", "edit", key, "--customer", "1", "--note", "new"]);
    assert_eq!(server.json(&["license", "show", key])["note"], "new");
}

#[test]
fn the_panel_moves_a_license_in_the_same_way() {
    let (server, person) = shop();
    let mut panel = server.logged_in_browser("admin");
    let page = panel.get("/licenses/1/edit").text;
    let seen = page.split("name=\"seen\" value=\"").nth(1).unwrap();
    let seen = seen.split('"').next().unwrap();
    let moved = panel.post(
        "/licenses/1/edit",
        &[
            ("seen", seen),
            ("customer", "2"),
            ("kind", "full"),
            ("devices", "4"),
            ("valid_from", "2026-01-01"),
            ("valid_until", ""),
            ("note", WORDS[4]),
        ],
    );
    assert_eq!(moved.status, 303, "{moved:?}");
    assert_eq!(running(&server).len(), 1);
    let shown = server.json(&["license", "show", &person.keys[0]]);
    assert_eq!(shown["devices"], json!([]), "{shown}");
    assert_eq!(shown["note"], "", "{shown}");
}

#[test]
fn each_customer_is_told_what_happened_on_the_license_while_it_was_theirs() {
    let (server, _) = moved();
    let former = server.json(&["customer", "export", "1"]);
    let text = former.to_string();
    for word in WORDS {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    for word in OTHER_WORDS.iter().chain(LATER_WORDS) {
        assert!(!text.contains(word), "{word} is in {text}");
    }
    assert_eq!(former["licenses"].as_array().map(Vec::len), Some(2));
    let given_away = &former["former_licenses"][0];
    assert_eq!(given_away["license_id"], 1, "{text}");
    assert_eq!(given_away["history"].as_array().map(Vec::len), Some(2));
    let present = server.json(&["customer", "export", "2"]).to_string();
    for word in words_without_domain() {
        assert!(!present.contains(word), "{word} is in {present}");
    }
    for word in OTHER_WORDS.iter().chain(LATER_WORDS) {
        assert!(present.contains(word), "{word} is not in {present}");
    }
}

#[test]
fn an_erasure_of_the_former_customer_erases_what_happened_until_then_and_no_more() {
    let (server, person) = moved();
    server.json(&["customer", "erase", "1", "--yes"]);
    server.json(&["vacuum"]);
    let words = words_without_domain();
    assert_eq!(holders(&server, DATABASE, &words), Vec::<String>::new());
    for word in OTHER_WORDS.iter().chain(LATER_WORDS).chain(&[DOMAIN]) {
        assert!(!holders(&server, DATABASE, &[word]).is_empty(), "{word}");
    }
    let shown = server.json(&["license", "show", &person.keys[0]]);
    assert_eq!(shown["state"], "active", "{shown}");
    assert_eq!(shown["devices"][0]["machine_id"], LATER_WORDS[0], "{shown}");
    assert!(audit_finding(&server).starts_with("no entry was altered; "));
}

#[test]
fn an_erasure_of_the_new_customer_leaves_what_happened_before() {
    let (server, _) = moved();
    server.json(&["customer", "erase", "2", "--yes"]);
    server.json(&["vacuum"]);
    for word in OTHER_WORDS.iter().chain(LATER_WORDS) {
        assert_eq!(holders(&server, DATABASE, &[word]), Vec::<String>::new());
    }
    let former = server.json(&["customer", "export", "1"]).to_string();
    for word in words_without_domain() {
        assert!(former.contains(word), "{word} is not in {former}");
    }
}

#[test]
fn the_trial_of_a_license_that_was_sold_and_moved_belongs_to_its_first_customer() {
    let (server, _) = shop();
    let id = trials::start(&server);
    let listed = server.json(&["license", "list"]);
    let mut listed = listed["licenses"].as_array().unwrap().iter();
    let trial = listed.find(|license| license["id"] == id).unwrap();
    let key = trial["license_key"].as_str().unwrap();
    server.json(&["license", "sell", key, "--customer", "1"]);
    server.json(&["license", "edit", key, "--customer", "2"]);
    let digest = || database::rows(&server.database())["trials"][0]["fingerprint_digest"].clone();
    let before = digest();
    server.json(&["customer", "erase", "2", "--keep-licenses", "--yes"]);
    assert_eq!(digest(), before);
    server.json(&["customer", "erase", "1", "--yes"]);
    assert_ne!(digest(), before);
}
