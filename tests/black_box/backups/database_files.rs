//! The database file: backup and restore, files that are newer, foreign, damaged or missing.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::database::{self, OtherProgram};
use crate::inspect::{data_files, end_reasons, error_of, running};
use crate::setup::{AUTO_ACTIVATE, MANY_STARTS, NO_LIMIT, WHOLE_HISTORY, started};
use crate::support::{Server, heartbeat_body, identity};
use crate::timing::now_ms;

#[test]
fn a_backup_made_under_load_is_consistent_and_can_be_restored() {
    let mut server = started(&[AUTO_ACTIVATE, MANY_STARTS, WHOLE_HISTORY], &[NO_LIMIT]);
    let keys = server.issue_licenses(1, 6);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for key in &keys[..4] {
            let (client, done) = (server.client(), &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let token = client
                        .call("session/start", &identity(key, "laptop"))
                        .token();
                    assert_eq!(
                        client
                            .call("session/end", &heartbeat_body(key, &token))
                            .status,
                        200
                    );
                }
            });
        }
        let before = database::count(&server, "session_history");
        for number in 0..5 {
            let name = format!("copy-{number}");
            server.json(&["backup", &name, "--database-only"]);
            let copy = server.path(&name);
            assert_eq!(database::integrity(&copy), "ok");
            assert_eq!(database::contradictions(&copy), 0);
            assert!(database::count_in(&copy, "session_history") >= before);
        }
        done.store(true, Ordering::Relaxed);
    });
    let client = server.client();
    let token = client
        .call("session/start", &identity(&keys[4], "laptop"))
        .token();
    server.json(&["backup", "copy"]);
    let later = server.issue_license(1);
    assert!(error_of(&server, &["restore", "copy"]).contains(&server.pid().to_string()));
    assert_eq!(server.stop(), Some(0));
    let restored = server.json(&["restore", "copy"]);
    let kept = server.path(restored["restored"]["kept"].as_str().unwrap());
    assert!(
        kept.exists() && kept.parent() == server.database().parent(),
        "beside the new one"
    );
    server.run();
    let client = server.client();
    let response = client.call("session/heartbeat", &heartbeat_body(&keys[4], &token));
    assert_eq!(response.status_and_code(), (410, "session_ended"));
    assert_eq!(
        client
            .call("activate", &identity(&later, "laptop"))
            .status_and_code(),
        (404, "license_not_found")
    );
    assert_eq!(database::count_in(&kept, "licenses"), 7);
    assert_eq!(database::count(&server, "licenses"), 6);
}

#[test]
fn a_restore_reports_the_lost_period_and_ends_the_sessions_of_the_copy() {
    let mut server = started(&[AUTO_ACTIVATE], &[]);
    let keys = server.issue_licenses(2, 2);
    let client = server.client();
    let start = |key: &str, device| client.call("session/start", &identity(key, device));
    let tokens = [0, 1].map(|number| start(&keys[number], "laptop").token());
    let mut panel = server.logged_in_browser("owner");
    assert_eq!(panel.get("/customers").status, 200);
    server.json(&["backup", "copy"]);
    // Both licenses move to other devices after the copy was made.
    for (key, token) in keys.iter().zip(&tokens) {
        client.call("session/end", &json!({ "session_token": token }));
        assert_eq!(start(key, "desktop").status, 201);
    }
    assert_eq!(server.stop(), Some(0));
    database::advance_heartbeats(&server, 90_061_000);
    let restored = &server.json(&["restore", "copy"])["restored"];
    assert_eq!(restored["sessions_ended"], 2);
    let lost = &restored["lost"];
    let seconds = lost["seconds"].as_u64().unwrap();
    assert!((90_061..90_161).contains(&seconds), "{lost}");
    let kept = Path::new(restored["kept"].as_str().unwrap());
    let until = database::latest_heartbeat_ms(kept) / 1000;
    let until = time::OffsetDateTime::from_unix_timestamp(until).unwrap();
    let rfc3339 = time::format_description::well_known::Rfc3339;
    assert_eq!(lost["until"], until.format(&rfc3339).unwrap());
    server.run();
    let mut reasons = end_reasons(&server);
    reasons.sort_unstable();
    assert_eq!(reasons, ["forced", "forced"]);
    assert!(running(&server).is_empty());
    let client = server.client();
    for (key, token) in keys.iter().zip(&tokens) {
        let response = client.call("session/heartbeat", &heartbeat_body(key, token));
        assert_eq!(response.status_and_code(), (410, "session_ended"));
        assert_eq!(response.body["end_reason"], "forced");
        let started = client.call("session/start", &identity(key, "desktop"));
        assert_eq!(started.status, 201, "{started:?}");
    }
    assert_ne!(
        panel.get("/customers").status,
        200,
        "logins in the copy are ended"
    );
    let actions = database::audited_actions(&server);
    assert_eq!(actions.last().unwrap(), "backups.restore", "{actions:?}");
    // The later date of the replaced database is kept, so `check` reports that the clock is behind it.
    let checked = String::from_utf8(server.cli(&["check"]).stdout).unwrap();
    let wrong: Vec<&str> = checked
        .lines()
        .filter(|line| !line.starts_with("ok"))
        .collect();
    assert_eq!(wrong.len(), 1, "{checked}");
    assert!(wrong[0].starts_with("TODO  clock"), "{checked}");
}

#[test]
fn a_restore_prints_what_is_lost() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["backup", "copy"]);
    let restore_prints = |words: &str| {
        let output = server.cli(&["restore", "copy"]);
        let message = String::from_utf8(output.stdout).unwrap();
        assert!(message.contains(words), "{words}: {message}");
    };
    restore_prints("no changes are lost: the copy is as recent as the database");
    database::set_latest_date(&server, now_ms() + 7_200_000);
    restore_prints("changes made between 20");
    server.json(&["customer", "add", "Late"]);
    fs::write(server.database(), "x".repeat(10_000)).unwrap();
    restore_prints("until when is unknown: ");
    fs::remove_file(server.database()).unwrap();
    restore_prints("there was no database before");
}

#[test]
fn a_file_that_is_not_a_usable_backup_is_not_restored() {
    let mut server = Server::start();
    let key = server.issue_license(1);
    server.json(&["backup", "good", "--database-only"]);
    server.stop();
    fs::write(server.path("text"), "no database at all").unwrap();
    fs::write(server.path("empty"), "").unwrap();
    database::create_foreign(&server.path("foreign"));
    let good = fs::read(server.path("good")).unwrap();
    fs::write(server.path("half"), &good[..good.len() / 2]).unwrap();
    let mut damaged = good.clone();
    damaged[4096 * 3..4096 * 12].fill(0x5a);
    fs::write(server.path("damaged"), damaged).unwrap();
    fs::copy(server.path("good"), server.path("newer")).unwrap();
    database::mark_as_newer(&server.path("newer"));
    let before = data_files(&server);
    for name in [
        "text", "empty", "foreign", "half", "damaged", "newer", "nowhere", "data",
    ] {
        error_of(&server, &["restore", name]);
        assert!(data_files(&server) == before, "{name} changed something");
    }
    server.run();
    assert_eq!(
        server.call("activate", &identity(&key, "laptop")).status,
        201
    );
}

#[test]
fn a_foreign_or_newer_database_is_refused_without_changes() {
    for (sql, hint) in [
        ("pragma user_version = 99", "newer"),
        ("pragma user_version = -1", "newer"),
        ("pragma application_id = 7", "not one of license-server"),
    ] {
        let mut server = Server::start();
        server.issue_license(1);
        server.stop();
        database::change(&server, sql);
        let before = data_files(&server);
        for command in [
            &["serve"][..],
            &["customer", "list"],
            &["license", "list"],
            &["backup", "copy"],
        ] {
            let message = error_of(&server, command);
            assert!(message.contains(hint), "{sql}: {message}");
            assert!(
                data_files(&server) == before,
                "{sql}: {command:?} changed something"
            );
        }
        assert!(!server.path("copy").exists());
    }
}

#[test]
fn a_lost_database_is_never_replaced_by_an_empty_one() {
    let mut server = Server::start();
    let key = server.issue_license(1);
    server.json(&["backup", "copy", "--database-only"]);
    server.stop();
    let database = server.database();
    let whole = fs::read(server.path("copy")).unwrap();
    for how in ["missing", "empty", "garbage", "half"] {
        drop(fs::remove_file(&database));
        for part in ["-wal", "-shm"] {
            drop(fs::remove_file(
                database.with_extension(format!("sqlite3{part}")),
            ));
        }
        match how {
            "empty" => fs::write(&database, "").unwrap(),
            "half" => fs::write(&database, &whole[..whole.len() / 2]).unwrap(),
            "garbage" => fs::write(&database, "x".repeat(10_000)).unwrap(),
            _ => {}
        }
        let before = data_files(&server);
        for command in [
            &["serve"][..],
            &["customer", "list"],
            &["customer", "add", "Eve"],
        ] {
            let message = error_of(&server, command);
            assert!(message.contains("restore"), "{how}: {message}");
            assert!(
                data_files(&server) == before,
                "{how}: {command:?} changed something"
            );
        }
    }
    fs::remove_file(&database).unwrap();
    assert_eq!(
        server.json(&["restore", "copy"])["restored"]["kept"],
        json!(null)
    );
    server.run();
    assert_eq!(
        server.call("activate", &identity(&key, "laptop")).status,
        201
    );
}

#[test]
fn a_leftover_wal_of_the_old_database_does_not_damage_a_restored_one() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["backup", "early.sqlite3"]);
    // Another process has the database open, so its WAL stays when the file itself is moved away.
    let reader = OtherProgram::read(&server);
    server.issue_licenses(1, 200);
    let refused = error_of(&server, &["restore", "early.sqlite3"]);
    assert!(refused.contains("another program has"), "{refused}");
    fs::rename(server.database(), server.path("moved.sqlite3")).unwrap();
    server.json(&["restore", "early.sqlite3"]);
    drop(reader);
    let listed = server.json(&["customer", "list"]);
    assert_eq!(listed["customers"].as_array().unwrap().len(), 1);
    let found = server.json(&["license", "list"]);
    assert_eq!(found["licenses"], json!([]));
    assert_eq!(database::integrity(&server.database()), "ok");
}

#[test]
fn the_database_that_a_restore_replaces_is_kept_completely() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Early"]);
    server.json(&["backup", "early.sqlite3"]);
    server.json(&["customer", "add", "Late"]);
    let restored = server.json(&["restore", "early.sqlite3"]);
    let kept = server.path(restored["restored"]["kept"].as_str().unwrap());
    assert_eq!(database::customer_names(&kept), ["Early", "Late"]);
}

#[test]
fn a_second_server_cannot_open_the_database_by_a_link() {
    let server = Server::start();
    std::os::unix::fs::symlink(server.database(), server.path("link.sqlite3")).unwrap();
    let mut second = server.command(&["serve"]);
    second.env("LICENSE_SERVER_DATABASE__PATH", "link.sqlite3");
    second.env("LICENSE_SERVER_SERVER__PORT", "1");
    let message = String::from_utf8(second.output().unwrap().stderr).unwrap();
    assert!(
        message.contains(&format!("process {}", server.pid())),
        "{message}"
    );
}

#[test]
fn an_orderly_stop_leaves_no_wal_and_no_shm() {
    let mut server = Server::prepare(&[]);
    // The check reads the database while the server stops.
    server.check_integrity_now();
    server.run();
    let key = server.issue_license(1);
    server.client().session(&key, "laptop");
    assert_eq!(server.stop(), Some(0));
    for part in ["-wal", "-shm"] {
        let name = server.database().with_extension(format!("sqlite3{part}"));
        assert!(!name.exists(), "{}", name.display());
    }
}

#[test]
fn only_commands_that_set_up_a_new_machine_create_a_database() {
    let server = Server::prepare(&[]);
    for command in [
        "config show",
        "config rotate-api-key",
        "config rotate-signing-key",
        "config new-authority",
        "check --accept-clock",
        "backup copy",
        "customer list",
        "license issue --customer Ada",
        "license list",
        "session list",
        "release yank 1.0.0",
        "admin list",
        "admin remove Ada",
        "flag remove new",
        "limit list",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let output = server.cli(&words);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            message.contains("there is no database at /"),
            "{command}: {message}"
        );
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(!server.path("data").exists(), "{command}");
    }
    assert!(!server.path("copy").exists());
    let made = server.cli(&["config", "set", "minimum_version=1.0.0"]);
    let message = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(message.contains("created a new database"), "{message}");
    server.json(&["config", "show"]);
}
