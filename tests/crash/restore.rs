//! The process or the power ends while a copy is put back (D6): there is the old file or the new one, never none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};

use crate::bad_disk::BadDisk;
use crate::book::is_sound;
use crate::disk::Disk;
use crate::support::{Server, claim, files_below, rounds};
use crate::{cut_off, pass, soon, up_to};

const COPY: &str = "data/copy.sqlite3";

/// What tells the old file from the one that is put in its place.
fn customers(path: &Path) -> String {
    assert!(is_sound(path), "{} is damaged or gone", path.display());
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
    let keys = server.licenses(1, 5000);
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
        // As after an orderly stop of a server on the old file.
        std::fs::copy(&old, server.path("data/next")).unwrap();
        std::fs::rename(server.path("data/next"), server.database()).unwrap();
        for place in [&server.database(), &server.path("data")] {
            File::open(place).unwrap().sync_all().unwrap();
        }
        for kept in kept(&server) {
            std::fs::remove_file(kept).unwrap();
        }
        cut_off(&server, &["restore", COPY], disk, || {
            if round % 2 == 0 {
                // The worst moment: the old file has its second name, and the new one is about to come.
                soon("the old file is kept", || !kept(&server).is_empty());
                pass(up_to(usual / 20));
            } else {
                pass(up_to(usual));
            }
        });
        let found = customers(&server.database());
        match found.as_str() {
            "Ada,Late" => assert_eq!(running(&server.database()), 1),
            "Ada" => {
                assert_eq!(running(&server.database()), 0, "a session of the copy runs");
                replaced += 1;
            }
            other => panic!("neither old nor new: {other}"),
        }
        assert_eq!(customers(&server.path(COPY)), "Ada");
        for kept in kept(&server) {
            assert_eq!(customers(&kept), "Ada,Late", "{}", kept.display());
        }
    }
    // What the dead have left behind is in nobody's way.
    server.json(&["restore", COPY]);
    let names = std::fs::read_dir(server.path("data")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let litter: Vec<String> = names.filter(|name| name.contains(".restored")).collect();
    assert!(litter.is_empty(), "{litter:?}");
    server.run();
    let told = server.call("activate", &claim(&keys[1], "laptop"));
    assert_eq!(told.status, 201, "{told:?}");
    eprintln!(
        "a restore takes {usual:?}; of {times} that were cut off {replaced} left the new file"
    );
}

/// Every old file that was kept. One that is still linked with the file that is served is that one.
fn kept(server: &Server) -> Vec<std::path::PathBuf> {
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
fn a_restore_that_loses_its_power_leaves_the_old_file_or_the_new_one_and_never_none() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    old_or_new(server, Some(&disk), rounds(3));
}

#[test]
fn a_backup_that_loses_its_power_leaves_no_copy_under_its_name_that_is_not_whole() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    server.json(&["customer", "add", "Ada"]);
    server.licenses(1, 5000);
    let began = Instant::now();
    server.json(&["backup", COPY, "--database-only"]);
    let usual = began.elapsed();
    let mut whole = 0;
    for round in 0..rounds(4) {
        drop(std::fs::remove_file(server.path(COPY)));
        cut_off(
            &server,
            &["backup", COPY, "--database-only"],
            Some(&disk),
            || {
                if round % 2 == 0 {
                    soon("the copy has its name", || server.path(COPY).exists());
                } else {
                    pass(up_to(usual));
                }
            },
        );
        if server.path(COPY).exists() {
            assert_eq!(customers(&server.path(COPY)), "Ada");
            whole += 1;
        }
    }
    eprintln!("a backup takes {usual:?}; {whole} were whole when the power went");
}

#[test]
fn a_copy_that_was_told_done_and_a_restore_that_was_told_done_outlive_a_power_cut() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    server.json(&["customer", "add", "Ada"]);
    server.licenses(1, 500);
    // A long while ago: all of this is on the disk.
    assert!(Command::new("sync").status().unwrap().success());
    server.json(&["backup", COPY, "--database-only"]);
    disk.cut();
    disk.back();
    assert_eq!(customers(&server.path(COPY)), "Ada");
    server.json(&["customer", "add", "Late"]);
    let restored = server.json(&["restore", COPY]);
    disk.cut();
    disk.back();
    assert_eq!(customers(&server.database()), "Ada");
    let kept = restored["restored"]["kept"].as_str().unwrap();
    assert_eq!(customers(&server.path(kept)), "Ada,Late");
}

/// The files of a folder, by their paths in it.
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

/// Makes the data folder what it was, but for the copy in it, and gets it onto the disk.
fn lay(server: &Server, files: &Files) {
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
    // Folders and files as they come, and closed to others as a server leaves them.
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

/// Everything that a backup has in it is one thing or the other, part by part, and each is whole.
fn every_part_is_old_or_new(server: &Server, old: &Files, new: &Files) -> usize {
    let database = customers(&server.database());
    assert!(
        ["Ada", "Ada,Late"].contains(&database.as_str()),
        "{database}"
    );
    let now = files_in(&server.path("data"));
    let of = |files: &Files, folder: &str| -> Files {
        let found = files.iter().filter(|(name, _)| name.starts_with(folder));
        found
            .map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect()
    };
    let tls = of(&now, "tls");
    assert!(
        [of(old, "tls"), of(new, "tls")].contains(&tls),
        "certificates are mixed"
    );
    // Keys are added before the database comes, and those it does not need are taken away after that.
    let wanted = if database == "Ada" { new } else { old };
    let signing = of(&now, "signing");
    for (name, bytes) in of(wanted, "signing") {
        assert_eq!(signing.get(&name), Some(&bytes), "{}", name.display());
    }
    usize::from(database == "Ada") + usize::from(tls == of(new, "tls"))
}

fn all_of_it(mut server: Server, disk: Option<&Disk>, times: u32) {
    let copy = server.path("copy.tar");
    let order = ["restore", copy.to_str().unwrap()];
    server.run();
    let keys = server.licenses(1, 2000);
    let trusts_new = server.client();
    server.json(&["backup", order[1]]);
    assert_eq!(server.stop(), Some(0));
    let new = files_in(&server.path("data"));
    server.json(&["customer", "add", "Late"]);
    server.json(&["config", "rotate-signing-key"]);
    server.json(&["config", "new-authority", "--replace"]);
    let old = files_in(&server.path("data"));
    let began = Instant::now();
    server.json(&order);
    let usual = began.elapsed();
    let mut mixed = 0;
    for round in 0..times {
        lay(&server, &old);
        cut_off(&server, &order, disk, || {
            if round % 2 == 0 {
                soon("the certificates are replaced", || {
                    let found = fs::read(server.path("data/tls/ca.pem"));
                    found.is_ok_and(|pem| pem == new[Path::new("tls/ca.pem")])
                });
                pass(up_to(usual / 20));
            } else {
                pass(up_to(usual));
            }
        });
        mixed += usize::from(every_part_is_old_or_new(&server, &old, &new) == 1);
    }
    // Whatever the dead have left, once more is enough.
    server.json(&order);
    assert_eq!(every_part_is_old_or_new(&server, &old, &new), 2);
    let names = fs::read_dir(server.path("data")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let litter: Vec<String> = names
        .filter(|name| name.contains(".restored") || name.starts_with(".restore"))
        .collect();
    assert!(litter.is_empty(), "{litter:?}");
    server.run();
    let told = trusts_new.call("activate", &claim(&keys[1], "laptop"));
    assert_eq!(told.status, 201, "{told:?}");
    eprintln!(
        "a restore of everything takes {usual:?}; of {times} that were cut off {mixed} left old and new beside each other"
    );
}

#[test]
fn a_restore_of_everything_that_is_killed_leaves_the_old_or_the_new_of_every_part() {
    all_of_it(Server::prepare(&[]), None, rounds(8));
}

#[test]
fn a_restore_of_everything_that_loses_its_power_leaves_the_old_or_the_new_of_every_part() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 128) else {
        return;
    };
    all_of_it(server, Some(&disk), rounds(3));
}

/// A stopped server with a customer more than the copy beside it.
fn with_a_copy(mut server: Server) -> Server {
    server.run();
    server.json(&["customer", "add", "Ada"]);
    server.json(&["backup", COPY, "--database-only"]);
    server.json(&["customer", "add", "Late"]);
    assert_eq!(server.stop(), Some(0));
    server
}

#[test]
fn a_file_system_without_second_names_is_restored_too_and_keeps_the_old_file() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = BadDisk::under(&mut server) else {
        return;
    };
    let server = with_a_copy(server);
    disk.fails("nolinks");
    let restored = server.json(&["restore", COPY]);
    let kept = PathBuf::from(restored["restored"]["kept"].as_str().unwrap());
    assert_eq!(customers(&server.database()), "Ada");
    assert_eq!(customers(&kept), "Ada,Late");
}

#[test]
fn an_old_file_that_is_locked_or_cannot_be_written_is_not_taken_for_a_damaged_one() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = BadDisk::under(&mut server) else {
        return;
    };
    let server = with_a_copy(server);
    let foreign = Connection::open(server.database()).unwrap();
    let exclusive = "pragma locking_mode = exclusive; begin exclusive;
                     update server_state set started_at_ms = started_at_ms + 1; commit";
    foreign.execute_batch(exclusive).unwrap();
    let refused = || {
        let output = server.cli(&["restore", COPY]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!told.contains("is damaged"), "{told}");
        assert!(kept(&server).is_empty(), "{:?}", kept(&server));
        told
    };
    assert!(refused().contains("nothing was changed"));
    drop(foreign);
    // What a process that was killed has left in the WAL has to go into the file first.
    let left = Connection::open(server.database()).unwrap();
    left.execute_batch(
        "pragma wal_autocheckpoint = 0; update server_state set started_at_ms = started_at_ms + 1",
    )
    .unwrap();
    disk.fails("refuse");
    assert!(refused().contains("nothing was changed"));
    disk.is_well();
    drop(left);
    server.json(&["restore", COPY]);
    assert_eq!(customers(&server.database()), "Ada");
}
