//! The process or the power ends while a copy is put back (D6): there is the old file or the new one, never none.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};

use crate::book::is_sound;
use crate::disk::Disk;
use crate::support::{Server, claim, rounds};
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
    server.json(&["backup", COPY]);
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
    server.json(&["backup", COPY]);
    let usual = began.elapsed();
    let mut whole = 0;
    for round in 0..rounds(4) {
        drop(std::fs::remove_file(server.path(COPY)));
        cut_off(&server, &["backup", COPY], Some(&disk), || {
            if round % 2 == 0 {
                soon("the copy has its name", || server.path(COPY).exists());
            } else {
                pass(up_to(usual));
            }
        });
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
    server.json(&["backup", COPY]);
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
