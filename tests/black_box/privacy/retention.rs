//! The settings of `[privacy]`: what a running server deletes once an hour.

use std::path::Path;

use serde_json::json;

use super::person::audit_finding;
use crate::clock::at_start::{library, set_clock, write_word_of_kernel};
use crate::database;
use crate::setup::NO_LIMIT;
use crate::support::{Server, eventually, heartbeat_body, identity};

/// An hour of the server in four seconds.
const FAST: &str = "+0 x900";

/// Starts the server, which trusts the date. Once it has started its clocks run that fast, the one of its timers too.
fn run_fast(server: &mut Server, library: &Path) {
    let path = write_word_of_kernel(server, "yes");
    let preload = format!("LD_PRELOAD={}", library.display());
    // Not during the start, whose time limits would be a few milliseconds.
    let clock = server.path("clock");
    std::fs::write(&clock, "+0").unwrap();
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock.display());
    let read_again = "FAKETIME_CACHE_DURATION=1"; // after a second
    server.set_launcher(&["env", &path, &preload, &file, read_again, "NO_FAKE_STAT=1"]);
    server.run();
    server.set_launcher(&[]);
    std::fs::write(&clock, FAST).unwrap();
}

/// A server with a license whose device was last seen three days ago, with an ended session, before these settings applied.
fn used_three_days_ago(library: &Path, settings: &[(&str, &str)]) -> (Server, String) {
    let mut server = Server::prepare(&[]);
    set_clock(&mut server, library, "-3d");
    server.json(NO_LIMIT);
    let key = server.issue_license(2);
    server.run();
    let client = server.client();
    let activated = client.call("activate", &identity(&key, "laptop"));
    assert_eq!(activated.status, 201, "{activated:?}");
    let started = client.call("session/start", &identity(&key, "laptop"));
    let ended = client.call("session/end", &heartbeat_body(&key, &started.token()));
    assert_eq!(ended.status, 200, "{ended:?}");
    assert_eq!(server.stop(), Some(0));
    server.set_launcher(&[]);
    for (name, value) in settings {
        server.set(name, value);
    }
    (server, key)
}

#[test]
fn a_running_server_erases_old_audit_entries_and_releases_unseen_devices() {
    let Some(library) = library() else {
        return;
    };
    let settings = [
        ("PRIVACY__AUDIT_DAYS", "1"),
        ("PRIVACY__UNSEEN_DEVICE_DAYS", "2"),
    ];
    let (mut server, key) = used_three_days_ago(&library, &settings);
    let before = database::audited_actions(&server);
    run_fast(&mut server, &library);
    eventually("what is old is deleted", || {
        !database::audited(&server, "audit.expire").is_empty()
    });
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["devices"], json!([]), "{shown}");
    assert_eq!(database::audited(&server, "devices.expire").len(), 1);
    let entries = database::audit_log(&server);
    for (entry, action) in entries.iter().zip(&before) {
        assert_eq!(&entry.action, action);
        assert!(
            entry.subject.is_empty() && entry.after.is_empty(),
            "{entry:?}"
        );
    }
    let expected = format!("{} entries are erased by age", before.len());
    let finding = audit_finding(&server);
    assert!(finding.ends_with(&expected), "{finding}");
}

#[test]
fn without_these_settings_a_running_server_keeps_old_entries_and_devices() {
    let Some(library) = library() else {
        return;
    };
    // The history is purged by the same job, after what these settings ask for.
    let history = [("SESSIONS__HISTORY_DAYS", "1")];
    let (mut server, key) = used_three_days_ago(&library, &history);
    run_fast(&mut server, &library);
    eventually("the history is purged", || {
        database::ended_sessions(&server).is_empty()
    });
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(
        shown["devices"].as_array().map(Vec::len),
        Some(1),
        "{shown}"
    );
    assert_eq!(audit_finding(&server), "no entry was altered");
}
