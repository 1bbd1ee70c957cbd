//! `kill -9` during a backup (D6).

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::ack_log::is_sound;
use crate::load::{Worker, under_load};
use crate::support::{Server, rounds};
use crate::{random_up_to, wait_for};

#[test]
fn a_backup_that_is_killed_leaves_no_incomplete_copy_under_its_name() {
    let mut server = Server::start();
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let many = 5000;
    let keys = server.issue_licenses(2, many);
    let copy = server.path("copy.sqlite3");
    let args = ["backup", copy.to_str().unwrap(), "--database-only"];
    let began = Instant::now();
    let output = server.cli(&args);
    assert!(output.status.success(), "{output:?}");
    let usual = began.elapsed();
    assert_eq!(licenses_in(&copy), many);
    let mut workers: Vec<Worker> = (0..2).map(Worker::new).collect();
    let (_, whole) = under_load(&mut server, &mut workers, &keys[..20], |server| {
        let mut whole = 0;
        for _ in 0..rounds(10) {
            if copy.exists() {
                std::fs::remove_file(&copy).unwrap();
            }
            let mut command = server.command(&args);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            wait_for(random_up_to(usual + Duration::from_millis(20)));
            child.kill().unwrap();
            child.wait().unwrap();
            if copy.exists() {
                assert_eq!(licenses_in(&copy), many);
                whole += 1;
            }
        }
        whole
    });
    if copy.exists() {
        std::fs::remove_file(&copy).unwrap();
    }
    // Leftovers of killed processes do no harm.
    let output = server.cli(&args);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(licenses_in(&copy), many);
    assert!(!server.path("copy.sqlite3.part").exists());
    eprintln!("a backup takes {usual:?}; {whole} were complete when they were killed");
}

fn licenses_in(copy: &Path) -> u32 {
    assert!(is_sound(copy), "the copy is damaged");
    let conn = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    conn.query_row("select count(*) from licenses", [], |row| row.get(0))
        .unwrap()
}
