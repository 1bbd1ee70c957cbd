//! Files that vanish under the running server: what is written to them would be gone, so nothing is acknowledged.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::scene::{AUTO_ACTIVATE, NO_LIMIT, NO_SWEEP, started};
use crate::support::{Server, beat, claim, eventually, files_below};

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
    let (mut server, key, _) = served();
    let copy = server.path("copy");
    server.json(&["backup", copy.to_str().unwrap()]);
    fs::remove_file(beside(&server.database(), ".lock")).unwrap();
    assert_keeps_its_database(&server, &copy);
    assert_eq!(start(&server, &key, "desk").0, 503);
    assert_eq!(server.stop(), Some(0));
    server.run();
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

/// What stands in a database and beside it.
fn files(server: &Server) -> Vec<Option<Vec<u8>>> {
    let parts = ["", "-wal"].iter();
    parts
        .map(|part| fs::read(beside(&server.database(), part)).ok())
        .collect()
}

/// That neither the server nor a command goes on with what is there, that `check` says the same, and that nothing is
/// written meanwhile.
fn assert_stopped(server: &Server, words: &[&str]) {
    let before = files(server);
    for order in [
        &["serve"][..],
        &["customer", "add", "Eve"],
        &["license", "list"],
        &["check"],
    ] {
        let output = server.cli(order);
        assert_eq!(output.status.code(), Some(1), "{order:?}: {output:?}");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).unwrap();
        let line = told
            .lines()
            .find(|line| line.contains("nothing was written"));
        let line = line.unwrap_or_else(|| panic!("{order:?}: {told}"));
        assert!(line.contains("--accept-database"), "{order:?}: {line}");
        for word in words {
            assert!(line.contains(word), "{order:?} {word}: {line}");
        }
        assert!(
            order != ["check"] || line.starts_with("TODO  file"),
            "{line}"
        );
    }
    assert_eq!(files(server), before);
}

/// Goes on with what is there; that it is sound, and has its license.
fn accept(server: &mut Server, key: &str) {
    let output = server.cli(&["check", "--accept-database"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("continuing with"), "{told}");
    server.run();
    let started = start(server, key, "desk");
    assert!(matches!(started.0, 200 | 201), "{started:?}");
    let output = server.cli(&["--json", "check"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut checks = told["checks"].as_array().unwrap().iter();
    assert!(checks.all(|check| check["ok"] == true), "{told}");
}

#[test]
fn a_wal_that_is_missing_after_a_kill_stops_the_start_until_it_is_back_or_given_up() {
    let (mut server, key, token) = served();
    let away = server.path("wal.bak");
    let wal = beside(&server.database(), "-wal");
    server.kill();
    server.run();
    server.kill();
    // A command folds the WAL into the file: nothing is lost then.
    server.json(&["license", "list"]);
    server.run();
    server.kill();
    fs::rename(&wal, &away).unwrap();
    assert_stopped(&server, &["WAL was lost", "put it back as", "inode"]);
    fs::rename(&away, &wal).unwrap();
    server.run();
    let beaten = server.call("session/heartbeat", &beat(&key, &token));
    assert_eq!(beaten.status, 200, "{beaten:?}");
    server.kill();
    fs::rename(&wal, &away).unwrap();
    accept(&mut server, &key);
    // The advice of before, followed too late: after a kill, and after an orderly stop.
    server.kill();
    let newer = server.path("wal.newer");
    fs::rename(&wal, &newer).unwrap();
    fs::copy(&away, &wal).unwrap();
    assert_stopped(&server, &["WAL was lost"]);
    fs::remove_file(&wal).unwrap();
    fs::rename(&newer, &wal).unwrap();
    server.run();
    assert_eq!(server.stop(), Some(0));
    fs::copy(&away, &wal).unwrap();
    assert_stopped(&server, &["is older than"]);
    accept(&mut server, &key);
}

#[test]
fn another_file_in_the_place_of_the_database_is_not_read_with_the_wal_that_was_left() {
    let (mut server, key, _) = served();
    assert_eq!(server.stop(), Some(0));
    let (old, away) = (server.path("old"), server.path("away"));
    let copy = || fs::copy(server.database(), &old).unwrap();
    copy();
    server.run();
    let sold = server.license(1);
    let token = server.client().session(&sold, "tower");
    fs::rename(server.database(), &away).unwrap();
    fs::rename(&old, server.database()).unwrap();
    server.kill();
    assert_stopped(
        &server,
        &["is not the file", "find ", "moves the WAL aside"],
    );
    fs::rename(server.database(), &old).unwrap();
    fs::rename(&away, server.database()).unwrap();
    server.run();
    let beaten = server.call("session/heartbeat", &beat(&sold, &token));
    assert_eq!(beaten.status, 200, "{beaten:?}");
    // Deleted and made anew: it may well have the number of the one that was deleted.
    server.kill();
    fs::remove_file(server.database()).unwrap();
    fs::copy(&old, server.database()).unwrap();
    assert_stopped(&server, &["is not the file"]);
    accept(&mut server, &key);
    let folder = fs::read_dir(server.path("data")).unwrap();
    let mut names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.any(|name| name.ends_with(".other-wal")));
}

#[test]
fn a_restore_over_another_file_keeps_the_wal_that_was_left_away_from_both() {
    let (mut server, key, _) = served();
    server.json(&["backup", "copy"]);
    assert_eq!(server.stop(), Some(0));
    let old = server.path("old");
    fs::copy(server.database(), &old).unwrap();
    server.run();
    let sold = server.license(1);
    server.client().session(&sold, "tower");
    server.kill();
    fs::rename(&old, server.database()).unwrap();
    server.json(&["restore", "copy"]);
    let kept = files_below(&server.path("data"));
    let kept = kept.iter().find(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.contains(".before-restore-") && !name.contains("other")
    });
    let kept = rusqlite::Connection::open(kept.unwrap()).unwrap();
    let sound: String = kept
        .query_row("pragma integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok");
    server.run();
    assert_eq!(start(&server, &key, "desk").0, 201);
}

#[test]
fn an_older_copy_that_was_put_in_place_by_hand_is_served_once_that_was_confirmed() {
    let (mut server, key, _) = served();
    assert_eq!(server.stop(), Some(0));
    let old = server.path("old");
    fs::copy(server.database(), &old).unwrap();
    server.run();
    assert_eq!(server.stop(), Some(0));
    let newest = server.path("newest");
    fs::copy(server.database(), &newest).unwrap();
    fs::rename(&old, server.database()).unwrap();
    assert_stopped(&server, &["an older copy", "Put the right file back"]);
    // One that lacks nothing is no other database.
    fs::rename(&newest, server.database()).unwrap();
    server.run();
    assert_eq!(server.stop(), Some(0));
    accept(&mut server, &key);
}

#[test]
fn without_its_lock_file_the_database_is_still_one_servers() {
    let (mut server, key, token) = served();
    fs::remove_file(beside(&server.database(), ".lock")).unwrap();
    assert_refuses(&server, &key, &token, ".lock was deleted or moved");
    assert_commands_keep_off(&server);
    assert_saves(&server, &key, "rescued");
    for order in [
        &["serve"][..],
        &["restore", "rescued"],
        &["check", "--accept-database"],
    ] {
        let mut second = server.command(order);
        let output = second
            .env("LICENSE_SERVER_SERVER__PORT", "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("another license-server"), "{told}");
    }
    // What the second one left there is no lock of the first.
    let health = server.client().get("/health");
    assert_eq!(health.status, 503, "{health:?}");
    assert_eq!(server.stop(), Some(0));
    server.run();
    let beaten = server.call("session/heartbeat", &beat(&key, &token));
    assert_eq!(beaten.status, 200, "{beaten:?}");
    assert_eq!(start(&server, &key, "desk").0, 201);
}
