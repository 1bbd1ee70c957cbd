//! The process or the power ends during a restore (D6): afterwards there is the old database or the new one, never
//! none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};

use crate::ack_log::is_sound;
use crate::bad_disk::BadDisk;
use crate::disk::Disk;
use crate::support::{Server, files_below, identity, rounds};
use crate::{random_up_to, run_interrupted, spin_until, wait_for};

const COPY: &str = "data/copy.sqlite3";

/// The customers, by which the old database and the new one differ.
fn customers(path: &Path) -> String {
    assert!(is_sound(path), "{} is damaged or missing", path.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = Connection::open_with_flags(path, flags).unwrap();
    let sql = "select group_concat(name) from (select name from customers order by customer_id)";
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn running(path: &Path) -> u32 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = Connection::open_with_flags(path, flags).unwrap();
    conn.query_row("select count(*) from active_sessions", [], |row| row.get(0))
        .unwrap()
}

fn old_or_new(mut server: Server, disk: Option<&Disk>, times: u32) {
    server.run();
    let keys = server.issue_licenses(1, 5000);
    server.client().session(&keys[0], "laptop");
    server.json(&["backup", COPY, "--database-only"]);
    server.json(&["customer", "add", "Late"]);
    assert_eq!(server.stop(), Some(0));
    let old = server.path("old.sqlite3");
    std::fs::copy(server.database(), &old).unwrap();
    let began = Instant::now();
    server.json(&["restore", COPY]);
    let usual = began.elapsed();
    assert_eq!(customers(&server.database()), "Ada");
    let mut replaced = 0;
    for round in 0..times {
        // As after an orderly stop of a server with the old database.
        std::fs::copy(&old, server.path("data/next")).unwrap();
        std::fs::rename(server.path("data/next"), server.database()).unwrap();
        for path in [&server.database(), &server.path("data")] {
            File::open(path).unwrap().sync_all().unwrap();
        }
        for old_file in old_files(&server) {
            std::fs::remove_file(old_file).unwrap();
        }
        run_interrupted(&server, &["restore", COPY], disk, || {
            if round % 2 == 0 {
                // The critical moment: the old file has its second name, and the new one is about to be put in
                // place.
                spin_until("the old file has its second name", || {
                    !old_files(&server).is_empty()
                });
                wait_for(random_up_to(usual / 20));
            } else {
                wait_for(random_up_to(usual));
            }
        });
        let found = customers(&server.database());
        match found.as_str() {
            "Ada,Late" => assert_eq!(running(&server.database()), 1),
            "Ada" => {
                assert_eq!(
                    running(&server.database()),
                    0,
                    "a session of the copy is active"
                );
                replaced += 1;
            }
            other => panic!("neither old nor new: {other}"),
        }
        assert_eq!(customers(&server.path(COPY)), "Ada");
        for old_file in old_files(&server) {
            assert_eq!(customers(&old_file), "Ada,Late", "{}", old_file.display());
        }
    }
    // Leftovers of killed processes do no harm.
    server.json(&["restore", COPY]);
    let names = std::fs::read_dir(server.path("data")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let leftovers: Vec<String> = names.filter(|name| name.contains(".restored")).collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
    server.run();
    let response = server.call("activate", &identity(&keys[1], "laptop"));
    assert_eq!(response.status, 201, "{response:?}");
    eprintln!(
        "a restore takes {usual:?}; of {times} interrupted ones {replaced} left the new file"
    );
}

/// All old files that were kept. One may still be a hard link to the current file.
fn old_files(server: &Server) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(server.path("data")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.contains(".before-restore-") && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .collect()
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_file_or_the_new_one_and_never_none() {
    old_or_new(Server::prepare(&[]), None, rounds(8));
}

#[test]
fn a_restore_during_a_power_cut_leaves_the_old_file_or_the_new_one_and_never_none() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    old_or_new(server, Some(&disk), rounds(3));
}

#[test]
fn a_backup_during_a_power_cut_leaves_no_incomplete_copy_under_its_name() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    server.json(&["customer", "add", "Ada"]);
    server.issue_licenses(1, 5000);
    let began = Instant::now();
    server.json(&["backup", COPY, "--database-only"]);
    let usual = began.elapsed();
    let mut whole = 0;
    for round in 0..rounds(4) {
        drop(std::fs::remove_file(server.path(COPY)));
        run_interrupted(
            &server,
            &["backup", COPY, "--database-only"],
            Some(&disk),
            || {
                if round % 2 == 0 {
                    spin_until("the copy has its name", || server.path(COPY).exists());
                } else {
                    wait_for(random_up_to(usual));
                }
            },
        );
        if server.path(COPY).exists() {
            assert_eq!(customers(&server.path(COPY)), "Ada");
            whole += 1;
        }
    }
    eprintln!("a backup takes {usual:?}; {whole} were complete when the power was cut");
}

#[test]
fn an_acknowledged_backup_and_an_acknowledged_restore_survive_a_power_cut() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    server.json(&["customer", "add", "Ada"]);
    server.issue_licenses(1, 500);
    // As if long ago: everything up to here is on the disk.
    assert!(Command::new("sync").status().unwrap().success());
    server.json(&["backup", COPY, "--database-only"]);
    disk.cut_power();
    disk.restore_power();
    assert_eq!(customers(&server.path(COPY)), "Ada");
    server.json(&["customer", "add", "Late"]);
    let restored = server.json(&["restore", COPY]);
    disk.cut_power();
    disk.restore_power();
    assert_eq!(customers(&server.database()), "Ada");
    let kept = restored["restored"]["kept"].as_str().unwrap();
    assert_eq!(customers(&server.path(kept)), "Ada,Late");
}

/// The files of a folder, by their relative paths.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files_in(folder: &Path) -> Files {
    let files = files_below(folder)
        .into_iter()
        .filter(|path| path.is_file());
    files
        .map(|path| {
            (
                path.strip_prefix(folder).unwrap().to_owned(),
                fs::read(path).unwrap(),
            )
        })
        .collect()
}

/// Replaces the content of the data folder, without the copy in it, and syncs it.
fn replace_files(server: &Server, files: &Files) {
    let data = server.path("data");
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    for (name, bytes) in files {
        let path = data.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    // Permissions as a server leaves them: no access for others.
    let mut private = Command::new("chmod");
    assert!(
        private
            .args(["-R", "go="])
            .arg(&data)
            .status()
            .unwrap()
            .success()
    );
    for path in files_below(&data) {
        File::open(path).unwrap().sync_all().unwrap();
    }
}

/// Checks that every part of a backup is completely the old or the new one; returns how many of database and
/// certificates are new.
fn count_new_parts(server: &Server, old: &Files, new: &Files) -> usize {
    let database = customers(&server.database());
    assert!(
        ["Ada", "Ada,Late"].contains(&database.as_str()),
        "{database}"
    );
    let now = files_in(&server.path("data"));
    let in_folder = |files: &Files, folder: &str| -> Files {
        let found = files.iter().filter(|(name, _)| name.starts_with(folder));
        found
            .map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect()
    };
    let tls = in_folder(&now, "tls");
    assert!(
        [in_folder(old, "tls"), in_folder(new, "tls")].contains(&tls),
        "certificates are mixed"
    );
    // Keys are added before the database is replaced, and unneeded ones are deleted after that.
    let expected = if database == "Ada" { new } else { old };
    let signing = in_folder(&now, "signing");
    for (name, bytes) in in_folder(expected, "signing") {
        assert_eq!(signing.get(&name), Some(&bytes), "{}", name.display());
    }
    usize::from(database == "Ada") + usize::from(tls == in_folder(new, "tls"))
}

fn restore_everything(mut server: Server, disk: Option<&Disk>, times: u32) {
    let copy = server.path("copy.tar");
    let args = ["restore", copy.to_str().unwrap()];
    server.run();
    let keys = server.issue_licenses(1, 2000);
    let trusts_new = server.client();
    server.json(&["backup", args[1]]);
    assert_eq!(server.stop(), Some(0));
    let new = files_in(&server.path("data"));
    server.json(&["customer", "add", "Late"]);
    server.json(&["config", "rotate-signing-key"]);
    server.json(&["config", "new-authority", "--replace"]);
    let old = files_in(&server.path("data"));
    let began = Instant::now();
    server.json(&args);
    let usual = began.elapsed();
    let mut mixed = 0;
    for round in 0..times {
        replace_files(&server, &old);
        run_interrupted(&server, &args, disk, || {
            if round % 2 == 0 {
                spin_until("the certificates are replaced", || {
                    let found = fs::read(server.path("data/tls/ca.pem"));
                    found.is_ok_and(|pem| pem == new[Path::new("tls/ca.pem")])
                });
                wait_for(random_up_to(usual / 20));
            } else {
                wait_for(random_up_to(usual));
            }
        });
        mixed += usize::from(count_new_parts(&server, &old, &new) == 1);
    }
    // Whatever killed processes have left, one more restore is enough.
    server.json(&args);
    assert_eq!(count_new_parts(&server, &old, &new), 2);
    let names = fs::read_dir(server.path("data")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let leftovers: Vec<String> = names
        .filter(|name| name.contains(".restored") || name.starts_with(".restore"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
    server.run();
    let response = trusts_new.call("activate", &identity(&keys[1], "laptop"));
    assert_eq!(response.status, 201, "{response:?}");
    eprintln!(
        "a restore of everything takes {usual:?}; of {times} interrupted ones {mixed} left a mix of old and new parts"
    );
}

#[test]
fn a_full_restore_that_is_killed_leaves_the_old_or_the_new_of_every_part() {
    restore_everything(Server::prepare(&[]), None, rounds(8));
}

#[test]
fn a_full_restore_during_a_power_cut_leaves_the_old_or_the_new_of_every_part() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 128) else {
        return;
    };
    restore_everything(server, Some(&disk), rounds(3));
}

/// A stopped server whose database has one customer more than the copy beside it.
fn with_a_copy(mut server: Server) -> Server {
    server.run();
    server.json(&["customer", "add", "Ada"]);
    server.json(&["backup", COPY, "--database-only"]);
    server.json(&["customer", "add", "Late"]);
    assert_eq!(server.stop(), Some(0));
    server
}

#[test]
fn a_restore_works_without_hard_links_and_keeps_the_old_file() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = BadDisk::under(&mut server) else {
        return;
    };
    let server = with_a_copy(server);
    disk.set_failing("nolinks");
    let restored = server.json(&["restore", COPY]);
    let kept = PathBuf::from(restored["restored"]["kept"].as_str().unwrap());
    assert_eq!(customers(&server.database()), "Ada");
    assert_eq!(customers(&kept), "Ada,Late");
}

#[test]
fn an_old_file_that_is_locked_or_read_only_is_not_treated_as_damaged() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = BadDisk::under(&mut server) else {
        return;
    };
    let server = with_a_copy(server);
    let other_process = Connection::open(server.database()).unwrap();
    let exclusive = "pragma locking_mode = exclusive; begin exclusive;
                     update server_state set started_at_ms = started_at_ms + 1; commit";
    other_process.execute_batch(exclusive).unwrap();
    let refused = || {
        let output = server.cli(&["restore", COPY]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!message.contains("is damaged"), "{message}");
        assert!(old_files(&server).is_empty(), "{:?}", old_files(&server));
        message
    };
    assert!(refused().contains("nothing was changed"));
    drop(other_process);
    // Changes that a killed process left in the WAL must be checkpointed first.
    let writer = Connection::open(server.database()).unwrap();
    writer.execute_batch(
        "pragma wal_autocheckpoint = 0; update server_state set started_at_ms = started_at_ms + 1",
    )
    .unwrap();
    disk.set_failing("refuse");
    assert!(refused().contains("nothing was changed"));
    disk.recover();
    drop(writer);
    server.json(&["restore", COPY]);
    assert_eq!(customers(&server.database()), "Ada");
}
