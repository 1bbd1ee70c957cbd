//! An older copy of the database is put in place: the same customers are erased in it again.

use std::fs;

use serde_json::json;

use super::person::{NAME, WORDS, audit_finding, holders, shop, start_and_end};
use crate::database;
use crate::support::Server;

const DATABASE: &str = "license-server.sqlite3";

/// Erases the person in a shop of which `copy` was made before. The server is stopped.
fn erased_after_copy(arguments: &[&str]) -> Server {
    let (mut server, _) = shop();
    server.json(&["backup", "copy"]);
    let mut erase = vec!["customer", "erase", "1", "--yes"];
    erase.extend(arguments);
    server.json(&erase);
    assert_eq!(server.stop(), Some(0));
    server
}

/// Nothing of the person is in the database, and the audit log is sound.
fn expect_erased(server: &Server) {
    server.json(&["vacuum"]);
    let held: Vec<String> = holders(server, DATABASE, WORDS)
        .into_iter()
        .filter(|held| !held.contains(".before-"))
        .collect();
    assert_eq!(held, Vec::<String>::new());
    assert!(audit_finding(server).starts_with("no entry was altered; "));
}

#[test]
fn a_restore_of_an_older_copy_erases_the_customer_again_and_says_so() {
    for loss in ["nothing", "the database", "the list"] {
        let server = erased_after_copy(&[]);
        let list = server.path("data/license-server.sqlite3.erased");
        match loss {
            "the database" => {
                fs::write(server.database(), "x".repeat(10_000)).unwrap();
            }
            "the list" => fs::remove_file(&list).unwrap(),
            _ => {}
        }
        let restored = server.json(&["restore", "copy"]);
        assert_eq!(
            restored["restored"]["erased_customers"],
            json!([1]),
            "{loss}"
        );
        expect_erased(&server);
        assert!(list.exists(), "{loss}");
        let entry = database::audited(&server, "customers.erase").remove(0);
        assert_eq!(entry.subject, "1", "{loss}");
    }
}

#[test]
fn a_restore_prints_which_customers_were_erased_again() {
    let server = erased_after_copy(&["--keep-licenses"]);
    let printed = String::from_utf8(server.cli(&["restore", "copy"]).stdout).unwrap();
    assert!(
        printed.contains("customer 1 was erased again: first erased 20"),
        "{printed}"
    );
    let licenses = server.json(&["license", "list"]);
    let licenses = licenses["licenses"].as_array().unwrap();
    assert!(
        licenses.iter().all(|license| license["state"] == "active"),
        "{licenses:?}"
    );
    // A second restore of the same copy does it again, from the list that was kept.
    let again = server.json(&["restore", "copy"]);
    assert_eq!(again["restored"]["erased_customers"], json!([1]));
}

#[test]
fn the_first_start_on_an_older_copy_erases_the_customer_again_and_logs_it() {
    let (mut server, _) = shop();
    server.json(&["backup", "copy", "--database-only"]);
    server.json(&["customer", "erase", "1", "--yes"]);
    assert_eq!(server.stop(), Some(0));
    fs::copy(server.path("copy"), server.database()).unwrap();
    assert_eq!(database::customer_names(&server.database())[0], NAME);
    server.cli(&["check", "--accept-database"]);
    server.run();
    let log = server.log();
    assert!(
        log.contains("the database is an older copy: customer 1, erased on 20"),
        "{log}"
    );
    expect_erased(&server);
    server.restart();
    assert_eq!(database::audited(&server, "customers.erase").len(), 1);
}

#[test]
fn a_lost_list_is_written_again_from_the_database_at_the_next_start() {
    let mut server = erased_after_copy(&[]);
    let list = server.path("data/license-server.sqlite3.erased");
    let lines = fs::read_to_string(&list).unwrap();
    fs::remove_file(&list).unwrap();
    server.run();
    assert_eq!(fs::read_to_string(&list).unwrap(), lines);
}

#[test]
fn a_list_that_cannot_be_read_stops_a_restore_and_is_reported_at_a_start() {
    let mut server = erased_after_copy(&[]);
    let list = server.path("data/license-server.sqlite3.erased");
    fs::write(&list, "customer one\n").unwrap();
    let message = crate::inspect::error_of(&server, &["restore", "copy"]);
    assert!(
        message.contains("line 1 of the list of erased customers"),
        "{message}"
    );
    server.run();
    assert!(
        server.log().contains("line 1 of the list"),
        "{}",
        server.log()
    );
    assert_eq!(fs::read_to_string(&list).unwrap(), "customer one\n");
}

#[test]
fn another_customer_with_the_same_id_is_not_erased() {
    let server = Server::prepare(&[]);
    server.json(&["flag", "set", "x"]);
    server.json(&["backup", "empty"]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["customer", "erase", "1", "--yes"]);
    server.json(&["restore", "empty"]);
    server.json(&["customer", "add", "Bob"]);
    server.json(&["backup", "with-bob"]);
    let restored = server.json(&["restore", "with-bob"]);
    assert_eq!(restored["restored"]["erased_customers"], json!([]));
    assert_eq!(database::customer_names(&server.database()), ["Bob"]);
}

#[test]
fn a_restore_of_a_copy_from_between_two_erasures_repeats_the_second() {
    let (server, person) = shop();
    let erase = ["customer", "erase", "1", "--keep-licenses", "--yes"];
    server.json(&erase);
    start_and_end(&server, &person.keys[1], WORDS[8], WORDS[12]);
    server.json(&["backup", "between"]);
    server.json(&erase);
    server.json(&["backup", "after"]);
    let mut server = server;
    assert_eq!(server.stop(), Some(0));
    for (copy, expected) in [("between", json!([1])), ("after", json!([]))] {
        let restored = server.json(&["restore", copy]);
        assert_eq!(restored["restored"]["erased_customers"], expected, "{copy}");
        let tables = format!("{:?}", database::rows(&server.database()));
        assert!(
            !tables.contains(WORDS[8]) && !tables.contains(WORDS[12]),
            "{tables}"
        );
    }
}
