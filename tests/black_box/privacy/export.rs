//! `customer export`: all that the database holds of one person, and nothing of another.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::person::{OTHER_WORDS, WORDS, shop};
use crate::database;
use crate::inspect::{error_of, spellings};

#[test]
fn an_export_holds_everything_about_the_customer_and_nothing_about_another() {
    let (server, person) = shop();
    let document = server.json(&["customer", "export", "1"]);
    let text = document.to_string();
    for word in WORDS {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    for word in OTHER_WORDS {
        assert!(!text.contains(word), "{word} is in {text}");
    }
    for key in &person.keys {
        assert!(text.contains(key.as_str()), "{key}");
    }
    for spelling in spellings(&person.token) {
        assert!(!text.contains(&spelling), "a token is in {text}");
    }
    let licenses = document["licenses"].as_array().unwrap();
    assert_eq!(licenses.len(), 3);
    let first = &licenses[0];
    for (member, rows) in [
        ("devices", 2),
        ("sessions", 1),
        ("history", 1),
        ("stored_responses", 2),
    ] {
        assert_eq!(
            first[member].as_array().unwrap().len(),
            rows,
            "{member}: {first}"
        );
    }
    assert_eq!(document["websites"].as_array().unwrap().len(), 2);
    for action in [
        "customers.add",
        "licenses.issue",
        "devices.release",
        "sessions.terminate",
        "handshake.bind",
    ] {
        let mut entries = document["audit_log"].as_array().unwrap().iter();
        assert!(entries.any(|entry| entry["action"] == action), "{action}");
    }
    let noted = database::audited(&server, "customers.export").remove(0);
    assert_eq!(
        (noted.actor.as_str(), noted.subject.as_str()),
        ("command line", "1")
    );
    let unknown = error_of(&server, &["customer", "export", "9"]);
    assert!(unknown.contains("no customer"), "{unknown}");
}

#[test]
fn an_export_is_written_into_a_new_private_file() {
    let (server, _) = shop();
    let file = server.path("person.json");
    server.json(&["customer", "export", "1", "--output", "person.json"]);
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(written["customer"]["name"], WORDS[0]);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = error_of(
        &server,
        &["customer", "export", "1", "--output", "person.json"],
    );
    assert!(again.contains("choose another file"), "{again}");
}
