//! An older copy of the database is put in place: the same customers are erased in it again.

use std::fs;

use serde_json::{Value, json};

use super::person::{NAME, WORDS, audit_finding, holders, shop, shop_with, start_and_end};
use crate::database;
use crate::support::{Server, eventually};

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
fn a_list_that_cannot_be_read_is_reported_by_check_and_by_an_erasure() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    let list = server.path("data/license-server.sqlite3.erased");
    assert_eq!(
        list_finding(&server),
        (
            true,
            "0 erased customers are listed, for a restore of an older copy".to_owned()
        )
    );
    fs::write(&list, "customer one\n").unwrap();
    let (ok, detail) = list_finding(&server);
    assert!(!ok && detail.contains("line 1 of the list"), "{detail}");
    let erased = server.cli(&["customer", "erase", "1", "--yes"]);
    let message = String::from_utf8(erased.stderr).unwrap();
    assert!(erased.status.success(), "{message}");
    assert!(
        message.contains("line 1 of the list") && !message.contains("next start"),
        "{message}"
    );
    fs::write(&list, "").unwrap();
    let (ok, detail) = list_finding(&server);
    assert!(!ok && detail.contains("restart the server"), "{detail}");
}

/// The finding of `check` about the list of erased customers.
fn list_finding(server: &Server) -> (bool, String) {
    let output = server.cli(&["--json", "check"]).stdout;
    let output: Value = serde_json::from_slice(&output).unwrap();
    let mut checks = output["checks"].as_array().unwrap().iter();
    let found = checks.find(|check| check["name"] == "erased").unwrap();
    let detail = found["detail"].as_str().unwrap();
    (found["ok"].as_bool().unwrap(), detail.to_owned())
}

/// The person is erased in a shop with a backup folder of its own, and then the data folder is lost.
fn lost_after_erasure() -> Server {
    let (mut server, _) = shop_with(&[("BACKUP__DIRECTORY", "elsewhere")]);
    // The server makes its first backup at its start.
    eventually("the folder is there", || server.path("elsewhere").is_dir());
    server.json(&["backup", "copy"]);
    server.json(&["customer", "erase", "1", "--yes"]);
    assert_eq!(server.stop(), Some(0));
    fs::remove_dir_all(server.path("data")).unwrap();
    server
}

#[test]
fn if_the_data_folder_is_lost_the_list_in_the_backup_folder_or_beside_the_backup_counts() {
    for place in ["the backup folder", "beside the backup"] {
        let server = lost_after_erasure();
        let list = server.path("elsewhere/license-server.sqlite3.erased");
        let mut copy = "copy";
        if place == "beside the backup" {
            fs::create_dir(server.path("usb")).unwrap();
            fs::rename(&list, server.path("usb/license-server.sqlite3.erased")).unwrap();
            fs::rename(server.path(copy), server.path("usb/copy")).unwrap();
            copy = "usb/copy";
        }
        let restored = server.json(&["restore", copy]);
        let restored = &restored["restored"];
        assert_eq!(restored["erased_customers"], json!([1]), "{place}");
        assert_eq!(restored["no_erased_list_since"], json!(null), "{place}");
        // Now it is in both places.
        assert!(list.exists(), "{place}");
        expect_erased(&server);
        assert!(list_finding(&server).0, "{place}");
    }
}

#[test]
fn a_restore_without_any_list_says_that_erased_customers_may_be_back() {
    for first_start in [false, true] {
        let mut server = lost_after_erasure();
        fs::remove_dir_all(server.path("elsewhere")).unwrap();
        if first_start {
            // The service was started on the new machine before the restore.
            server.run();
            server.stop();
        }
        let restored = server.cli(&["restore", "copy"]);
        let printed = String::from_utf8(restored.stdout).unwrap();
        let warning = "no list of erased customers was found: a customer who was erased after 20";
        assert!(printed.contains(warning), "{first_start}: {printed}");
        assert_eq!(database::customer_names(&server.database())[0], NAME);
    }
}

#[test]
fn a_restore_over_a_database_in_use_needs_no_list() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["backup", "copy"]);
    let restored = server.json(&["restore", "copy"]);
    let since = &restored["restored"]["no_erased_list_since"];
    assert_eq!(since, &json!(null));
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
