//! Database files that are deleted, moved or replaced while the server runs: writes to them would be lost, so the
//! server acknowledges none.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::database;
use crate::setup::{AUTO_ACTIVATE, NO_LIMIT, NO_SWEEP, started};
use crate::support::{Server, eventually, files_below, free_port, heartbeat_body, identity};

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A server with a running session, the license key and the session token.
fn server_with_session() -> (Server, String, String) {
    let server = started(&[AUTO_ACTIVATE, NO_SWEEP], &[NO_LIMIT]);
    let key = server.issue_license(3);
    let token = server.client().session(&key, "laptop");
    (server, key, token)
}

/// Activates a device; status and error code of the response.
fn activate(server: &Server, key: &str, device: &str) -> (u16, String) {
    let response = server.call("activate", &identity(key, device));
    (response.status, response.code().to_owned())
}

/// Asserts that writes are refused, that running sessions go on, and that `/health`, the log and `check` show
/// `problem`.
fn assert_refuses(server: &Server, key: &str, token: &str, problem: &str) {
    assert_eq!(
        activate(server, key, "desk"),
        (503, "unavailable".to_owned())
    );
    let heartbeat = server.call("session/heartbeat", &heartbeat_body(key, token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    let health = server.client().get("/health");
    assert_eq!(health.status, 503);
    let reason = health.body["reason"].as_str().unwrap();
    assert!(
        reason.contains(problem) && reason.contains("backup"),
        "{reason}"
    );
    let lines = server
        .log()
        .lines()
        .filter(|line| line.contains("ERROR") && line.contains(problem))
        .count();
    assert_eq!(lines, 1, "{}", server.log());
    let output = server.cli(&["--json", "check"]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut checks = printed["checks"].as_array().unwrap().iter();
    let file = checks.find(|check| check["name"] == "file").unwrap();
    assert_eq!(file["ok"], false);
    assert!(file["detail"].as_str().unwrap().contains(problem), "{file}");
}

/// Asserts that a backup of the running server, restored elsewhere, has the license and the device.
fn assert_can_be_rescued(server: &Server, key: &str, name: &str) {
    let copy = server.path(name);
    let saved = server.cli(&["backup", copy.to_str().unwrap()]);
    assert!(saved.status.success(), "{saved:?}");
    assert_backup_has_license(&copy, key);
}

fn assert_backup_has_license(copy: &Path, key: &str) {
    let other = Server::prepare(&[]);
    let restored = other.cli(&["restore", copy.to_str().unwrap()]);
    assert!(restored.status.success(), "{restored:?}");
    let shown = other.json(&["license", "show", key]);
    let devices = shown["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 1, "{shown}");
    let ended = other.json(&["session", "history"]);
    assert_eq!(ended["sessions"].as_array().unwrap().len(), 1, "{ended}");
}

/// Asserts that commands are refused and do not touch or create a database.
fn assert_commands_are_refused(server: &Server) {
    let before = fs::read(server.database()).ok();
    for command in [
        &["customer", "add", "Eve"][..],
        &["license", "list"],
        &["session", "list"],
    ] {
        let output = server.cli(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("while the server has it open"), "{error}");
    }
    assert_eq!(fs::read(server.database()).ok(), before);
}

#[test]
fn with_a_deleted_database_every_write_is_refused_and_a_backup_has_all_acknowledged_ones() {
    let (mut server, key, token) = server_with_session();
    fs::remove_file(server.database()).unwrap();
    assert_refuses(&server, &key, &token, "deleted or moved");
    assert_commands_are_refused(&server);
    assert_can_be_rescued(&server, &key, "rescued");
    assert!(!server.database().exists());
    // The same after its WAL is deleted as well.
    fs::remove_file(with_suffix(&server.database(), "-wal")).unwrap();
    assert_can_be_rescued(&server, &key, "rescued-again");
    server.signal("TERM");
    server.wait();
    let output = server.cli(&["serve"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("though there was a database"), "{error}");
}

/// Asserts that no second server, restore or check can use the database of a running server, even without its lock
/// file.
fn assert_keeps_its_database(server: &Server, copy: &Path) {
    let port = free_port().to_string();
    let mut second = server.command(&["serve"]);
    second.env("LICENSE_SERVER_SERVER__PORT", port);
    let second = second.output().unwrap();
    let restored = server.cli(&["restore", copy.to_str().unwrap()]);
    let check = server.cli(&["check", "--accept-clock"]);
    for output in [second, restored, check] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let names_server =
            error.contains("another license-server") && error.contains(&server.pid().to_string());
        assert!(
            names_server || error.contains("while the server has it open"),
            "{error}"
        );
    }
}

#[test]
fn without_its_data_folder_every_write_is_refused_and_a_backup_has_all_acknowledged_ones() {
    for moved in [true, false] {
        let (mut server, key, token) = server_with_session();
        let (client, mut panel) = (server.client(), server.logged_in_browser("owner"));
        let (data, moved_to) = (server.path("data"), server.path("away"));
        if moved {
            fs::rename(&data, &moved_to).unwrap();
        } else {
            fs::remove_dir_all(&data).unwrap();
        }
        let refused = client.call("activate", &identity(&key, "desk"));
        assert_eq!(refused.status_and_code(), (503, "unavailable"));
        let heartbeat = client.call("session/heartbeat", &heartbeat_body(&key, &token));
        assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
        assert_eq!(client.get("/health").status, 503);
        assert_commands_are_refused(&server);
        panel.post("/backups", &[]);
        assert_can_be_rescued(&server, &key, "rescued");
        assert_keeps_its_database(&server, &server.path("rescued"));
        assert!(!data.exists(), "no new data folder");
        // If the folder still exists, its keys are in the backup as well.
        let backup = server.json(&["backup", server.path("whole").to_str().unwrap()]);
        let files = backup["files"].as_array().unwrap();
        assert_eq!(
            files.iter().any(|name| name == "tls/ca.key"),
            moved,
            "{backup}"
        );
        if moved {
            let error = server.cli(&["customer", "list"]).stderr;
            let error = String::from_utf8(error).unwrap();
            assert!(error.contains("away/license-server.sqlite3 now"), "{error}");
            fs::rename(&moved_to, &data).unwrap();
            assert_eq!(activate(&server, &key, "desk").0, 201);
            assert_eq!(server.stop(), Some(0));
        }
    }
}

#[test]
fn without_the_lock_file_no_second_server_starts_and_no_restore_runs() {
    let (mut server, key, _) = server_with_session();
    let copy = server.path("copy");
    server.json(&["backup", copy.to_str().unwrap()]);
    fs::remove_file(with_suffix(&server.database(), ".lock")).unwrap();
    assert_keeps_its_database(&server, &copy);
    assert_eq!(activate(&server, &key, "desk").0, 503);
    assert_eq!(server.stop(), Some(0));
    server.run();
    assert_eq!(activate(&server, &key, "desk").0, 201);
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["devices"].as_array().unwrap().len(), 2, "{shown}");
}

#[test]
fn a_database_that_is_moved_back_takes_writes_again() {
    let (server, key, token) = server_with_session();
    let away = server.path("away.sqlite3");
    fs::rename(server.database(), &away).unwrap();
    assert_refuses(&server, &key, &token, "deleted or moved");
    fs::rename(&away, server.database()).unwrap();
    assert_eq!(activate(&server, &key, "desk").0, 201);
    assert_eq!(server.client().get("/health").status, 200);
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["devices"].as_array().unwrap().len(), 2, "{shown}");
}

#[test]
fn a_database_that_was_replaced_is_not_used() {
    let (server, key, token) = server_with_session();
    let other = Server::prepare(&[]);
    other.json(&["customer", "add", "Mallory"]);
    let other_copy = server.path("other.sqlite3");
    fs::copy(other.database(), &other_copy).unwrap();
    fs::rename(&other_copy, server.database()).unwrap();
    assert_refuses(&server, &key, &token, "replaced by another file");
    assert_commands_are_refused(&server);
    assert_can_be_rescued(&server, &key, "rescued");
}

#[test]
fn a_backup_from_the_panel_copies_the_database_that_the_server_has_open() {
    let (server, key, _) = server_with_session();
    let mut panel = server.logged_in_browser("owner");
    fs::remove_file(server.database()).unwrap();
    eventually("the server notices", || {
        server.log().contains("deleted or moved")
    });
    // The audit log cannot record it, but the backup is made.
    panel.post("/backups", &[]);
    let made = fs::read_dir(server.path("data/backups")).unwrap();
    let made: Vec<PathBuf> = made.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_backup_has_license(&made[0], &key);
}

#[test]
fn a_deleted_wal_is_noticed_and_a_clean_stop_loses_nothing() {
    let (mut server, key, token) = server_with_session();
    fs::remove_file(with_suffix(&server.database(), "-wal")).unwrap();
    assert_refuses(&server, &key, &token, "-wal was deleted or moved");
    assert_commands_are_refused(&server);
    assert_can_be_rescued(&server, &key, "rescued");
    assert_eq!(server.stop(), Some(0));
    server.run();
    let heartbeat = server.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    assert_eq!(activate(&server, &key, "desk").0, 201);
}

/// The contents of the database and its WAL; `None` for a missing file.
fn contents(server: &Server) -> Vec<Option<Vec<u8>>> {
    let parts = ["", "-wal"].iter();
    parts
        .map(|part| fs::read(with_suffix(&server.database(), part)).ok())
        .collect()
}

/// Asserts that neither the server nor a command uses the database, that each of them, `check` included, says why in
/// these `words`, and that nothing is written.
fn assert_start_is_refused(server: &Server, words: &[&str]) {
    let before = contents(server);
    for command in [
        &["serve"][..],
        &["customer", "add", "Eve"],
        &["license", "list"],
        &["check"],
    ] {
        let output = server.cli(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).unwrap();
        let line = printed
            .lines()
            .find(|line| line.contains("nothing was written"));
        let line = line.unwrap_or_else(|| panic!("{command:?}: {printed}"));
        assert!(line.contains("--accept-database"), "{command:?}: {line}");
        for word in words {
            assert!(line.contains(word), "{command:?} {word}: {line}");
        }
        assert!(
            command != ["check"] || line.starts_with("TODO  file"),
            "{line}"
        );
    }
    assert_eq!(contents(server), before);
}

/// Accepts the database as it is and asserts that the server runs on it, with the license, and that `check` is happy.
fn accept_database(server: &mut Server, key: &str) {
    let output = server.cli(&["check", "--accept-database"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("continuing with"), "{message}");
    server.run();
    let activated = activate(server, key, "desk");
    assert!(matches!(activated.0, 200 | 201), "{activated:?}");
    let output = server.cli(&["--json", "check"]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut checks = printed["checks"].as_array().unwrap().iter();
    assert!(checks.all(|check| check["ok"] == true), "{printed}");
}

#[test]
fn a_wal_that_is_missing_after_a_kill_prevents_the_start_until_it_is_back_or_given_up() {
    let (mut server, key, token) = server_with_session();
    let away = server.path("wal.bak");
    let wal = with_suffix(&server.database(), "-wal");
    server.kill();
    server.run();
    server.kill();
    // A command checkpoints the WAL into the database: nothing is lost then.
    server.json(&["license", "list"]);
    server.run();
    server.kill();
    fs::rename(&wal, &away).unwrap();
    assert_start_is_refused(&server, &["WAL was lost", "put it back as", "inode"]);
    fs::rename(&away, &wal).unwrap();
    server.run();
    let heartbeat = server.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    server.kill();
    fs::rename(&wal, &away).unwrap();
    accept_database(&mut server, &key);
    // The earlier advice, followed too late: after a kill, and after a clean stop.
    server.kill();
    let newer = server.path("wal.newer");
    fs::rename(&wal, &newer).unwrap();
    fs::copy(&away, &wal).unwrap();
    assert_start_is_refused(&server, &["WAL was lost"]);
    fs::remove_file(&wal).unwrap();
    fs::rename(&newer, &wal).unwrap();
    server.run();
    assert_old_wal_is_refused_after_a_stop(&mut server, &away);
    accept_database(&mut server, &key);
}

/// Stops the server, and asserts that it does not start with this WAL: neither as a new file, nor written into the file that
/// the server left, as when another process still read it.
fn assert_old_wal_is_refused_after_a_stop(server: &mut Server, old: &Path) {
    let wal = with_suffix(&server.database(), "-wal");
    let kept = server.path("wal.kept");
    fs::hard_link(&wal, &kept).unwrap();
    assert_eq!(server.stop(), Some(0));
    fs::copy(old, &wal).unwrap();
    assert_start_is_refused(server, &["is older than"]);
    fs::rename(&kept, &wal).unwrap();
    fs::copy(old, &wal).unwrap();
    assert_start_is_refused(server, &["is older than"]);
}

#[test]
fn another_file_in_place_of_the_database_is_not_read_with_the_remaining_wal() {
    let (mut server, key, _) = server_with_session();
    assert_eq!(server.stop(), Some(0));
    let (old, away) = (server.path("old"), server.path("away"));
    let copy = || fs::copy(server.database(), &old).unwrap();
    copy();
    server.run();
    let sold = server.issue_license(1);
    let token = server.client().session(&sold, "tower");
    fs::rename(server.database(), &away).unwrap();
    fs::rename(&old, server.database()).unwrap();
    server.kill();
    assert_start_is_refused(
        &server,
        &["is not the file", "find ", "moves the WAL aside"],
    );
    fs::rename(server.database(), &old).unwrap();
    fs::rename(&away, server.database()).unwrap();
    server.run();
    let heartbeat = server.call("session/heartbeat", &heartbeat_body(&sold, &token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    // Deleted and created again: the new file may have the inode number of the deleted one.
    server.kill();
    fs::remove_file(server.database()).unwrap();
    fs::copy(&old, server.database()).unwrap();
    assert_start_is_refused(&server, &["is not the file"]);
    accept_database(&mut server, &key);
    let folder = fs::read_dir(server.path("data")).unwrap();
    let mut names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.any(|name| name.ends_with(".other-wal")));
}

#[test]
fn a_restore_over_another_file_applies_the_remaining_wal_to_neither() {
    let (mut server, key, _) = server_with_session();
    server.json(&["backup", "copy"]);
    assert_eq!(server.stop(), Some(0));
    let old = server.path("old");
    fs::copy(server.database(), &old).unwrap();
    server.run();
    let sold = server.issue_license(1);
    server.client().session(&sold, "tower");
    server.kill();
    fs::rename(&old, server.database()).unwrap();
    server.json(&["restore", "copy"]);
    let files = files_below(&server.path("data"));
    let replaced = files.iter().find(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.contains(".before-restore-") && !name.contains("other")
    });
    assert_eq!(database::integrity(replaced.unwrap()), "ok");
    server.run();
    assert_eq!(activate(&server, &key, "desk").0, 201);
}

#[test]
fn an_older_copy_put_in_place_by_hand_is_served_after_a_confirmation() {
    let (mut server, key, _) = server_with_session();
    assert_eq!(server.stop(), Some(0));
    let old = server.path("old");
    fs::copy(server.database(), &old).unwrap();
    server.run();
    assert_eq!(server.stop(), Some(0));
    let newest = server.path("newest");
    fs::copy(server.database(), &newest).unwrap();
    fs::rename(&old, server.database()).unwrap();
    assert_start_is_refused(&server, &["an older copy", "Put back the right file"]);
    // A complete copy needs no confirmation.
    fs::rename(&newest, server.database()).unwrap();
    server.run();
    assert_eq!(server.stop(), Some(0));
    accept_database(&mut server, &key);
}

#[test]
fn without_its_lock_file_the_database_still_belongs_to_one_server() {
    let (mut server, key, token) = server_with_session();
    fs::remove_file(with_suffix(&server.database(), ".lock")).unwrap();
    assert_refuses(&server, &key, &token, ".lock was deleted or moved");
    assert_commands_are_refused(&server);
    assert_can_be_rescued(&server, &key, "rescued");
    for command in [
        &["serve"][..],
        &["restore", "rescued"],
        &["check", "--accept-database"],
    ] {
        let mut second = server.command(command);
        let output = second
            .env("LICENSE_SERVER_SERVER__PORT", "1")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("another license-server"), "{error}");
    }
    // The lock file that the second server created is not the first one's.
    let health = server.client().get("/health");
    assert_eq!(health.status, 503, "{health:?}");
    assert_eq!(server.stop(), Some(0));
    server.run();
    let heartbeat = server.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    assert_eq!(activate(&server, &key, "desk").0, 201);
}
