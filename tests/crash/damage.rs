//! A database that cannot be read back: damaged pages, and a disk with read errors. No response may claim that
//! something does not exist, and every response must be a documented one.

use std::os::unix::fs::FileExt;

use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::bad_disk::BadDisk;
use crate::support::{Server, eventually, heartbeat_body, identity};

const PAGE: u64 = 4096;

/// Overwrites the first page of a table or an index; no server may be running.
fn damage(server: &Server, name: &str) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = Connection::open_with_flags(server.database(), flags).unwrap();
    let sql = "select rootpage from sqlite_schema where name = ?1";
    let root: u32 = conn.query_row(sql, [name], |row| row.get(0)).unwrap();
    drop(conn);
    let file = std::fs::File::options().write(true).open(server.database());
    let garbage = vec![0xA5; usize::try_from(PAGE).unwrap()];
    file.unwrap()
        .write_all_at(&garbage, u64::from(root - 1) * PAGE)
        .unwrap();
}

/// Sends every kind of request about a license; returns the responses.
fn responses(server: &Server, key: &str, token: &str) -> Vec<(&'static str, u16, String)> {
    let client = server.client();
    let device = identity(key, "laptop");
    let calls = [
        ("verify", device.clone()),
        ("activate", device.clone()),
        ("session/start", device.clone()),
        ("session/heartbeat", heartbeat_body(key, token)),
        (
            "session/end",
            json!({ "session_token": token, "license_key": key }),
        ),
        ("deactivate", device),
    ];
    calls
        .into_iter()
        .map(|(call, body)| {
            let answer = client.call(call, &body);
            if answer.status == 503 {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
            }
            (call, answer.status, answer.code().to_owned())
        })
        .collect()
}

#[test]
fn a_damaged_page_is_reported_in_health_log_and_check_and_not_as_missing_data() {
    for part in ["licenses", "license_product_key", "devices"] {
        let mut server = Server::start();
        server.json(&["limit", "set", "client", "--per-minute", "0"]);
        let key = server.issue_license(1);
        let token = server.client().session(&key, "laptop");
        assert_eq!(server.stop(), Some(0));
        damage(&server, part);
        server.run();
        let mut refused = 0;
        for (call, status, code) in (0..5).flat_map(|_| responses(&server, &key, &token)) {
            assert!(
                status == 503 || status < 300,
                "{part}: {call}: {status} {code}"
            );
            refused += u32::from(status == 503 && code == "unavailable");
        }
        assert!(refused >= 5, "{part}: {refused}");
        let health = server.client().get("/health");
        assert_eq!(
            (health.status, &health.body["status"]),
            (503, &json!("damaged"))
        );
        let log = server.log();
        assert!(log.contains("restore a backup"), "{log}");
        assert!(log.lines().count() < 20, "it floods the log: {log}");
        let checked = server.cli(&["check"]);
        let report = String::from_utf8(checked.stdout).unwrap();
        assert!(report.contains("restore a backup"), "{report}");
        assert_eq!(checked.status.code(), Some(1));
        let copy = server.path("copy.sqlite3");
        let made = server.cli(&["backup", copy.to_str().unwrap(), "--json"]);
        assert!(!made.status.success() || copy.exists());
        assert_eq!(server.stop(), Some(0), "{}", server.log());
    }
}

/// Sends every request that writes; returns those that were refused.
fn refused_writes(server: &Server, key: &str, token: &str) -> Vec<&'static str> {
    let client = server.client();
    let calls = [
        (
            "session/end",
            json!({ "session_token": token, "license_key": key }),
        ),
        ("session/start", identity(key, "laptop")),
        ("activate", identity(key, "workstation")),
    ];
    let mut refused = Vec::new();
    for (call, body) in calls {
        let answer = client.call_with(call, &body, &[("Idempotency-Key", call)]);
        let (status, code) = answer.status_and_code();
        // An end that was refused leaves the session active.
        let is_active = refused.contains(&"session/end") && code == "session_active";
        assert!(
            status < 300 || is_active || (status, code) == (503, "unavailable"),
            "{call}: {answer:?}"
        );
        refused.extend((status == 503).then_some(call));
    }
    refused
}

#[test]
fn damage_met_only_by_a_write_is_reported_in_health_and_log() {
    for part in [
        "session_history",
        "session_history_ended",
        "session_history_license",
        "session_history_reason",
        "session_counts",
        "running_counts",
        "device_license",
        "idempotent_answers",
        "idempotent_answer_at",
    ] {
        let mut server = Server::start();
        let key = server.issue_license(2);
        let token = server.client().session(&key, "laptop");
        assert_eq!(server.stop(), Some(0));
        damage(&server, part);
        server.run();
        let refused = refused_writes(&server, &key, &token);
        assert!(!refused.is_empty(), "{part}");
        let health = server.client().get("/health");
        assert_eq!(health.status, 503, "{part}: {refused:?}");
        assert_eq!(health.body["status"], "damaged", "{part}: {refused:?}");
        let log = server.log();
        assert!(log.contains("restore a backup"), "{part}: {log}");
        assert!(log.lines().count() < 20, "it floods the log: {log}");
        assert_eq!(server.stop(), Some(0), "{}", server.log());
    }
}

#[test]
fn a_disk_that_cannot_be_read_for_a_moment_is_not_reported_as_missing_data() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = BadDisk::under(&mut server) else {
        return;
    };
    server.run();
    let key = server.issue_license(1);
    let token = server.client().session(&key, "laptop");
    server.restart();
    disk.set_failing("unreadable");
    for (call, status, code) in responses(&server, &key, &token) {
        assert_eq!((status, code.as_str()), (503, "unavailable"), "{call}");
    }
    assert_eq!(server.client().get("/health").status, 503);
    disk.recover();
    let answer = server.client().call("verify", &identity(&key, "laptop"));
    assert_eq!((answer.status, answer.code()), (200, "valid"));
    let answer = server
        .client()
        .call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(answer.status, 200);
    assert!(server.log().contains("dmesg"), "{}", server.log());
}

#[test]
fn damage_in_unused_pages_is_found_by_the_nightly_check() {
    let mut server = Server::start();
    server.issue_license(1);
    server.check_integrity_now();
    server.restart();
    eventually("the check ends", || {
        server.log().contains("found no damage")
    });
    assert_eq!(server.client().get("/health").status, 200);
    assert_eq!(server.stop(), Some(0));
    damage(&server, "session_history");
    server.check_integrity_now();
    server.run();
    eventually("the damage is found", || {
        server.log().contains("the database is damaged")
    });
    let health = server.client().get("/health");
    assert_eq!(
        (health.status, &health.body["status"]),
        (503, &json!("damaged"))
    );
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    // A stop does not wait for the check.
    server.run();
    assert_eq!(server.stop(), Some(0), "{}", server.log());
}
