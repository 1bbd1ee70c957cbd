//! Files that vanish under the running server: what is written to them would be gone, so nothing is acknowledged.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::scene::{AUTO_ACTIVATE, NO_LIMIT, NO_SWEEP, started};
use crate::support::{Server, beat, claim, eventually};

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A server with a session on its license; the key and the token.
fn served() -> (Server, String, String) {
    let server = started(&[AUTO_ACTIVATE, NO_SWEEP], &[NO_LIMIT]);
    let key = server.license(3);
    let token = server.client().session(&key, "laptop");
    (server, key, token)
}

fn start(server: &Server, key: &str, device: &str) -> (u16, String) {
    let answer = server.call("activate", &claim(key, device));
    (answer.status, answer.code().to_owned())
}

/// That starts are refused, live sessions go on, and everybody is told.
fn assert_refuses(server: &Server, key: &str, token: &str, what: &str) {
    assert_eq!(start(server, key, "desk"), (503, "unavailable".to_owned()));
    let beaten = server.call("session/heartbeat", &beat(key, token));
    assert_eq!(beaten.status, 200, "{beaten:?}");
    let health = server.client().get("/health");
    assert_eq!(health.status, 503);
    let reason = health.body["reason"].as_str().unwrap();
    assert!(
        reason.contains(what) && reason.contains("backup"),
        "{reason}"
    );
    let lines = server
        .log()
        .lines()
        .filter(|line| line.contains("ERROR") && line.contains(what))
        .count();
    assert_eq!(lines, 1, "{}", server.log());
    let output = server.cli(&["--json", "check"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut checks = told["checks"].as_array().unwrap().iter();
    let file = checks.find(|check| check["name"] == "file").unwrap();
    assert_eq!(file["ok"], false);
    assert!(file["detail"].as_str().unwrap().contains(what), "{file}");
}

/// That a backup of the running server, put in place elsewhere, has the license and the device.
fn assert_saves(server: &Server, key: &str, name: &str) {
    let copy = server.path(name);
    let saved = server.cli(&["backup", copy.to_str().unwrap()]);
    assert!(saved.status.success(), "{saved:?}");
    assert_holds(&copy, key);
}

fn assert_holds(copy: &Path, key: &str) {
    let other = Server::prepare(&[]);
    let put = other.cli(&["restore", copy.to_str().unwrap()]);
    assert!(put.status.success(), "{put:?}");
    let shown = other.json(&["license", "show", key]);
    let devices = shown["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 1, "{shown}");
    let ended = other.json(&["session", "history"]);
    assert_eq!(ended["sessions"].as_array().unwrap().len(), 1, "{ended}");
}

/// That commands do nothing, and make nothing.
fn assert_commands_keep_off(server: &Server) {
    let before = fs::read(server.database()).ok();
    for command in [
        &["customer", "add", "Eve"][..],
        &["license", "list"],
        &["session", "list"],
    ] {
        let output = server.cli(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("while the server has it open"), "{told}");
    }
    assert_eq!(fs::read(server.database()).ok(), before);
}

#[test]
fn a_database_that_was_deleted_costs_every_write_and_a_backup_saves_what_was_acknowledged() {
    let (mut server, key, token) = served();
    fs::remove_file(server.database()).unwrap();
    assert_refuses(&server, &key, &token, "deleted or moved");
    assert_commands_keep_off(&server);
    assert_saves(&server, &key, "rescued");
    assert!(!server.database().exists());
    // And after the whole of it has gone, its WAL as well.
    fs::remove_file(beside(&server.database(), "-wal")).unwrap();
    assert_saves(&server, &key, "rescued-again");
    server.signal("TERM");
    server.wait();
    let output = server.cli(&["serve"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("though there has been one"), "{told}");
}

/// That no server, restore or check comes in the way of one that runs, whatever became of its lock.
fn assert_keeps_its_database(server: &Server, copy: &Path) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = port.local_addr().unwrap().port().to_string();
    let mut second = server.command(&["serve"]);
    second.env("LICENSE_SERVER_SERVER__PORT", port);
    let second = second.output().unwrap();
    let restored = server.cli(&["restore", copy.to_str().unwrap()]);
    let believed = server.cli(&["check", "--accept-clock"]);
    for output in [second, restored, believed] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let named =
            told.contains("another license-server") && told.contains(&server.pid().to_string());
        assert!(
            named || told.contains("while the server has it open"),
            "{told}"
        );
    }
}

#[test]
fn a_data_folder_that_is_gone_costs_every_write_and_a_backup_saves_what_was_acknowledged() {
    for moved in [true, false] {
        let (mut server, key, token) = served();
        let (client, mut panel) = (server.client(), server.panel("owner"));
        let (data, away) = (server.path("data"), server.path("away"));
        if moved {
            fs::rename(&data, &away).unwrap();
        } else {
            fs::remove_dir_all(&data).unwrap();
        }
        let refused = client.call("activate", &claim(&key, "desk"));
        assert_eq!(refused.told(), (503, "unavailable"));
        let beaten = client.call("session/heartbeat", &beat(&key, &token));
        assert_eq!(beaten.status, 200, "{beaten:?}");
        assert_eq!(client.get("/health").status, 503);
        assert_commands_keep_off(&server);
        panel.post("/backups", &[]);
        assert_saves(&server, &key, "rescued");
        assert_keeps_its_database(&server, &server.path("rescued"));
        assert!(!data.exists(), "a new data folder was made");
        // Where the folder still is, its keys are saved with the database.
        let whole = server.json(&["backup", server.path("whole").to_str().unwrap()]);
        let files = whole["files"].as_array().unwrap();
        assert_eq!(
            files.iter().any(|name| name == "tls/ca.key"),
            moved,
            "{whole}"
        );
        if moved {
            let told = server.cli(&["customer", "list"]).stderr;
            let told = String::from_utf8(told).unwrap();
            assert!(told.contains("away/license-server.sqlite3 now"), "{told}");
            fs::rename(&away, &data).unwrap();
            assert_eq!(start(&server, &key, "desk").0, 201);
            assert_eq!(server.stop(), Some(0));
        }
    }
}

#[test]
fn a_lock_that_was_deleted_lets_no_second_server_on_and_no_restore() {
    let (server, key, _) = served();
    let copy = server.path("copy");
    server.json(&["backup", copy.to_str().unwrap()]);
    fs::remove_file(beside(&server.database(), ".lock")).unwrap();
    assert_keeps_its_database(&server, &copy);
    assert_eq!(start(&server, &key, "desk").0, 201);
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["devices"].as_array().unwrap().len(), 2, "{shown}");
}

#[test]
fn a_database_that_is_moved_back_takes_writes_again() {
    let (server, key, token) = served();
    let away = server.path("away.sqlite3");
    fs::rename(server.database(), &away).unwrap();
    assert_refuses(&server, &key, &token, "deleted or moved");
    fs::rename(&away, server.database()).unwrap();
    assert_eq!(start(&server, &key, "desk").0, 201);
    assert_eq!(server.client().get("/health").status, 200);
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["devices"].as_array().unwrap().len(), 2, "{shown}");
}

#[test]
fn a_database_that_was_replaced_is_not_taken_for_the_servers() {
    let (server, key, token) = served();
    let other = Server::prepare(&[]);
    other.json(&["customer", "add", "Mallory"]);
    let stranger = server.path("stranger.sqlite3");
    fs::copy(other.database(), &stranger).unwrap();
    fs::rename(&stranger, server.database()).unwrap();
    assert_refuses(&server, &key, &token, "replaced by another file");
    assert_commands_keep_off(&server);
    assert_saves(&server, &key, "rescued");
}

#[test]
fn the_panels_own_backup_is_of_the_servers_file_wherever_that_is() {
    let (server, key, _) = served();
    let mut panel = server.panel("owner");
    fs::remove_file(server.database()).unwrap();
    eventually("it is noticed", || {
        server.log().contains("deleted or moved")
    });
    // That it was made cannot be noted in the database; the copy is there.
    panel.post("/backups", &[]);
    let made = fs::read_dir(server.path("data/backups")).unwrap();
    let made: Vec<PathBuf> = made.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_holds(&made[0], &key);
}

#[test]
fn a_wal_that_was_deleted_is_noticed_and_an_orderly_stop_loses_nothing() {
    let (mut server, key, token) = served();
    fs::remove_file(beside(&server.database(), "-wal")).unwrap();
    assert_refuses(&server, &key, &token, "-wal was deleted or moved");
    assert_commands_keep_off(&server);
    assert_saves(&server, &key, "rescued");
    assert_eq!(server.stop(), Some(0));
    server.run();
    let beaten = server.call("session/heartbeat", &beat(&key, &token));
    assert_eq!(beaten.status, 200, "{beaten:?}");
    assert_eq!(start(&server, &key, "desk").0, 201);
}

#[test]
fn a_wal_that_is_missing_after_a_kill_is_told_at_the_next_start() {
    let (mut server, _, _) = served();
    server.kill();
    server.run();
    assert!(!server.log().contains("was lost"), "{}", server.log());
    server.kill();
    // A command folds the WAL into the file: nothing is lost then.
    server.json(&["license", "list"]);
    server.run();
    assert!(!server.log().contains("was lost"), "{}", server.log());
    server.kill();
    fs::remove_file(beside(&server.database(), "-wal")).unwrap();
    server.run();
    let log = server.log();
    let told = log.lines().find(|line| line.contains("was lost"));
    assert!(told.is_some_and(|line| line.contains("ERROR")), "{log}");
    server.restart();
    assert_eq!(server.log().matches("was lost").count(), 1, "told once");
}
