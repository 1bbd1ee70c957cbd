//! `customer erase`: nothing of a person is left, and nothing else is touched.

use std::fs;
use std::time::Duration;

use license_server::clock::UnixMs;
use serde_json::json;

use super::person::{
    NAME, OTHER_WORDS, WORDS, audit_finding, holders, shop, start_and_end, with_input,
};
use crate::browser::Browser;
use crate::database;
use crate::inspect::{error_of, running};
use crate::support::{Server, heartbeat_body, identity};

/// The database, its WAL and the WAL's index.
const DATABASE: &str = "license-server.sqlite3";

#[test]
fn after_an_erasure_and_a_vacuum_no_byte_of_a_person_is_in_the_database_or_its_wal() {
    let (mut server, person) = shop();
    for word in WORDS {
        let before = holders(&server, DATABASE, &[word]);
        assert!(
            !before.is_empty(),
            "{word} is nowhere, so this test shows nothing"
        );
    }
    let erased = server.json(&["customer", "erase", "1", "--yes"]);
    let facts = &erased["erased"];
    assert_eq!(facts["customer_id"], 1);
    assert_eq!(facts["licenses"], 3, "{erased}");
    assert_eq!(facts["devices"], 3, "{erased}");
    assert_eq!(facts["sessions"], 3, "{erased}");
    assert_eq!(erased["copies"], json!([]));
    let tables = format!("{:?}", database::rows(&server.database())).to_lowercase();
    for word in WORDS {
        assert!(!tables.contains(&word.to_lowercase()), "{word} in a table");
    }
    let rewritten = server.json(&["vacuum"]);
    assert!(rewritten["bytes"].as_u64() > Some(0), "{rewritten}");
    assert_eq!(holders(&server, DATABASE, WORDS), Vec::<String>::new());
    assert_eq!(database::integrity(&server.database()), "ok");
    assert!(audit_finding(&server).starts_with("no entry was altered; "));
    // The running session has ended, and the licenses are revoked.
    let client = server.client();
    let heartbeat = client.call(
        "session/heartbeat",
        &heartbeat_body(&person.keys[0], &person.token),
    );
    assert_ne!(heartbeat.status, 200, "{heartbeat:?}");
    for key in &person.keys {
        let refused = client.call("activate", &identity(key, "laptop"));
        assert_eq!(
            refused.status_and_code(),
            (403, "license_suspended"),
            "{refused:?}"
        );
        let shown = server.json(&["license", "show", key]);
        assert_eq!(shown["state"], "revoked", "{shown}");
    }
    let listed = server.json(&["customer", "list"]);
    assert_eq!(
        listed["customers"][1]["name"], "erased customer 1",
        "{listed}"
    );
    // Nothing of the other customer is gone.
    for word in OTHER_WORDS {
        assert!(!holders(&server, DATABASE, &[word]).is_empty(), "{word}");
    }
    let heartbeat = client.call(
        "session/heartbeat",
        &heartbeat_body(&person.other_key, &person.other_token),
    );
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    assert_eq!(running(&server).len(), 1);
    let added = database::audited(&server, "customers.add");
    assert!(
        added[0].subject.is_empty() && added[1].subject == "2",
        "{added:?}"
    );
    assert_eq!(server.stop(), Some(0));
    assert_eq!(holders(&server, DATABASE, WORDS), Vec::<String>::new());
}

#[test]
fn an_erasure_keeps_ids_keys_and_dates_and_leaves_one_entry_without_a_name() {
    let (server, person) = shop();
    let before = database::rows(&server.database());
    server.json(&["customer", "erase", "1", "--yes"]);
    let after = database::rows(&server.database());
    for (table, columns) in [
        ("customers", &["customer_id", "created_at_ms"][..]),
        (
            "licenses",
            &[
                "license_id",
                "license_key",
                "product_id",
                "customer_id",
                "kind",
                "device_limit",
                "valid_from_ms",
                "valid_until_ms",
                "created_at_ms",
            ],
        ),
    ] {
        for (old, new) in before[table].iter().zip(&after[table]) {
            for column in columns {
                assert_eq!(old[*column], new[*column], "{table}.{column}");
            }
        }
        assert_eq!(before[table].len(), after[table].len());
    }
    for (old, new) in before["audit_log"].iter().zip(&after["audit_log"]) {
        for column in ["audit_id", "at_ms", "action", "payload_hash", "hash"] {
            assert_eq!(old[column], new[column], "{column}");
        }
    }
    let history = database::ended_sessions(&server);
    assert_eq!(history.len(), before["session_history"].len() + 1);
    let entry = database::audited(&server, "customers.erase").remove(0);
    assert_eq!(
        (entry.actor.as_str(), entry.subject.as_str()),
        ("command line", "1")
    );
    assert_eq!(
        database::audited(&server, "licenses.revoke").len(),
        person.keys.len()
    );
}

#[test]
fn an_erasure_asks_for_the_name_and_nothing_happens_without_it() {
    let (server, _) = shop();
    let before = database::rows(&server.database());
    let unchanged = |message: &str| {
        let now = database::rows(&server.database());
        assert_eq!(before["customers"], now["customers"], "{message}");
        assert_eq!(before["audit_log"], now["audit_log"], "{message}");
    };
    unchanged(&error_of_usage(&server, &["customer", "erase", "1"]));
    let wrong = with_input(&server, &["customer", "erase", "1"], "Quendoline");
    let message = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        !wrong.status.success() && message.contains("is not the name of the customer"),
        "{message}"
    );
    assert!(message.contains("Type the customer's name"), "{message}");
    unchanged(&message);
    assert!(error_of(&server, &["customer", "erase", "9", "--yes"]).contains("no customer"));
    let right = with_input(&server, &["customer", "erase", "1"], NAME);
    let printed = String::from_utf8(right.stdout).unwrap();
    assert!(right.status.success(), "{printed}");
    for part in [
        "customer 1 is erased: 3 licenses revoked",
        "license-server vacuum",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
}

/// Runs a command without input, which it needs; returns its error output.
fn error_of_usage(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{message}");
    assert!(message.contains("standard input is empty"), "{message}");
    message
}

#[test]
fn kept_licenses_stay_valid_and_on_their_domains_but_lose_their_devices() {
    let (server, person) = shop();
    server.json(&["customer", "erase", "1", "--keep-licenses", "--yes"]);
    let shown = server.json(&["license", "show", &person.keys[0]]);
    assert_eq!(shown["state"], "active", "{shown}");
    assert_eq!(shown["devices"], json!([]), "{shown}");
    assert!(shown.to_string().contains(WORDS[6]), "{shown}");
    let again = server
        .client()
        .call("activate", &identity(&person.keys[0], "anew"));
    assert_eq!(again.status, 201, "{again:?}");
    server.json(&["vacuum"]);
    let gone: Vec<&str> = WORDS
        .iter()
        .copied()
        .filter(|word| *word != WORDS[6])
        .collect();
    assert_eq!(holders(&server, DATABASE, &gone), Vec::<String>::new());
}

#[test]
fn an_erased_customer_can_neither_be_changed_nor_sold_to_nor_removed() {
    let (server, _) = shop();
    server.json(&["customer", "erase", "1", "--yes"]);
    for command in [
        &["license", "issue", "--customer", "1"][..],
        &["license", "issue", "--customer", "erased customer 1"],
    ] {
        let message = error_of(&server, command);
        assert!(
            message.contains("permanently erased"),
            "{command:?}: {message}"
        );
    }
    let mut panel = server.logged_in_browser("admin");
    for (path, fields) in [
        ("/customers/1/edit", &[("name", "Again")][..]),
        ("/customers/1/remove", &[]),
    ] {
        let refused = panel.post(path, fields);
        assert!([409, 422].contains(&refused.status), "{path}: {refused:?}");
    }
    let sql = "update customers set name = 'x' where customer_id = 1";
    assert!(database::execute(&server.database(), sql).is_err());
}

#[test]
fn an_altered_entry_stays_reported_after_it_is_erased() {
    let (server, _) = shop();
    database::forge_first_audit_entry(&server);
    assert!(audit_finding(&server).starts_with("entry 1 "));
    server.json(&["customer", "erase", "1", "--yes"]);
    assert!(audit_finding(&server).starts_with("entry 1 "));
}

/// Empties entries so that the chain stays sound, as if they had been erased at this time.
fn forge_erasure(server: &Server, entries: &str, at_ms: i64) {
    let sql = format!(
        "update audit_log set salt = x'', actor = '', source = '', subject = '', before = '', after = '',
                              erased_at_ms = {at_ms} where {entries}"
    );
    database::change(server, &sql);
}

#[test]
fn an_entry_that_was_emptied_without_an_erasure_is_found() {
    let (server, _) = shop();
    server.json(&["customer", "erase", "1", "--yes"]);
    let finding = audit_finding(&server);
    assert!(
        finding.ends_with("entries are erased with a customer"),
        "{finding}"
    );
    let erased = database::audited(&server, "customers.erase").remove(0);
    forge_erasure(
        &server,
        "action = 'customers.add' and subject = '2'",
        erased.at_ms,
    );
    let finding = audit_finding(&server);
    let at = format!(
        "were erased at {}, and the log says ",
        UnixMs(erased.at_ms).rfc3339()
    );
    assert!(finding.contains(&at), "{finding}");
}

#[test]
fn an_erasure_that_was_emptied_is_found() {
    let (server, _) = shop();
    server.json(&["customer", "erase", "1", "--yes"]);
    forge_erasure(&server, "action = 'customers.erase'", 7);
    let finding = audit_finding(&server);
    assert!(
        finding.starts_with("1 entry was erased at 1970"),
        "{finding}"
    );
    assert_eq!(server.cli(&["check"]).status.code(), Some(1));
}

#[test]
fn copies_that_still_hold_the_data_are_listed() {
    let (mut server, _) = shop();
    let mut owner = server.logged_in_browser("owner");
    assert_eq!(owner.post("/backups", &[]).status, 303);
    // One of before the customer, and one that was never finished.
    let backups = server.path("data/backups");
    let made = fs::read_dir(&backups)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::copy(&made, backups.join("license-server-20200101T000000Z.tar")).unwrap();
    fs::copy(&made, format!("{}.part", made.display())).unwrap();
    server.json(&["backup", "copy"]);
    server.stop();
    server.json(&["restore", "copy"]);
    let erased = server.json(&["customer", "erase", "1", "--yes"]);
    let copies: Vec<&str> = erased["copies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|copy| copy.as_str().unwrap())
        .collect();
    for part in ["backups/license-server-", ".before-restore-", ".tar.part"] {
        assert!(
            copies.iter().any(|copy| copy.contains(part)),
            "{part}: {copies:?}"
        );
    }
    assert!(
        !copies.iter().any(|copy| copy.contains("20200101")),
        "{copies:?}"
    );
    for copy in copies {
        let held = holders(&server, copy.rsplit('/').next().unwrap(), &[NAME]);
        assert!(!held.is_empty(), "{copy} holds nothing");
    }
}

#[test]
fn the_page_of_a_customer_lists_copies_made_before_the_last_erasure() {
    let (server, _) = shop();
    let mut owner = server.logged_in_browser("owner");
    server.json(&["customer", "erase", "1", "--keep-licenses", "--yes"]);
    // Copies are told by the second.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(owner.post("/backups", &[]).status, 303);
    let listed = |owner: &mut Browser| owner.get("/customers/1").text.contains(".tar");
    assert!(!listed(&mut owner), "made after the erasure");
    server.json(&["customer", "erase", "1", "--keep-licenses", "--yes"]);
    assert!(listed(&mut owner), "made before the last erasure");
}

#[test]
fn a_customer_whose_licenses_were_kept_is_erased_again_with_what_these_have_collected() {
    let (server, person) = shop();
    server.json(&["customer", "erase", "1", "--keep-licenses", "--yes"]);
    let key = &person.keys[1];
    let collect = || {
        start_and_end(&server, key, WORDS[8], WORDS[12]);
        server.json(&["license", "edit", key, "--note", WORDS[4]]);
    };
    collect();
    let typed = with_input(
        &server,
        &["customer", "erase", "1", "--keep-licenses"],
        NAME,
    );
    assert!(!typed.status.success(), "{typed:?}");
    let words = [WORDS[8], WORDS[12], WORDS[4]];
    let arguments = ["customer", "erase", "1", "--keep-licenses"];
    let typed = with_input(&server, &arguments, "erased customer 1");
    assert!(typed.status.success(), "{typed:?}");
    server.json(&["vacuum"]);
    assert_eq!(holders(&server, DATABASE, &words), Vec::<String>::new());
    collect();
    let erased = server.json(&["customer", "erase", "1", "--yes"]);
    assert_eq!(erased["erased"]["devices"], 1, "{erased}");
    let shown = server.json(&["license", "show", key]);
    assert_eq!(shown["state"], "revoked", "{shown}");
    server.json(&["vacuum"]);
    assert_eq!(holders(&server, DATABASE, &words), Vec::<String>::new());
    assert!(audit_finding(&server).starts_with("no entry was altered; "));
}

#[test]
fn a_removed_customer_is_in_no_entry_and_the_id_is_not_given_again() {
    let server = crate::support::Server::start();
    let mut panel = server.logged_in_browser("admin");
    for name in [NAME, "Bob"] {
        server.json(&[
            "customer", "add", name, "--email", WORDS[1], "--note", WORDS[3],
        ]);
    }
    let key = server.json(&["license", "issue", "--customer", "2"]);
    let key = key["licenses"][0]["license_key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(panel.post("/customers/1/remove", &[]).status, 303);
    server.json(&[
        "license",
        "edit",
        &key,
        "--customer",
        &new_customer(&server),
    ]);
    // Nothing of what happened on a license that was given away is erased by an administrator.
    let refused = panel.post("/customers/2/remove", &[]);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(
        refused.text.contains("was moved to another one"),
        "{refused:?}"
    );
    server.json(&["vacuum"]);
    assert_eq!(holders(&server, DATABASE, &[NAME]), Vec::<String>::new());
    let list = std::fs::read_to_string(server.path("data/license-server.sqlite3.erased")).unwrap();
    assert!(list.contains("\"customer_id\":1,"), "{list}");
    let listed = server.json(&["customer", "list"]).to_string();
    assert!(!listed.contains("erased customer"), "{listed}");
}

/// Adds a customer, who gets an id that nobody had.
fn new_customer(server: &crate::support::Server) -> String {
    let added = server.json(&["customer", "add", "Carol"]);
    assert_eq!(added["customers"][0]["id"], 3, "{added}");
    "3".to_owned()
}
