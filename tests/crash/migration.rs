//! The process or the power ends while a file of an older schema is brought up to date (D5): it is old or new.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use license_server::licenses::LicenseKey;
use rusqlite::Connection;
use serde_json::json;

use crate::disk::Disk;
use crate::support::{Server, claim, rounds};
use crate::{cut_off, pass, soon, up_to};

/// So many rows that a migration takes a while.
const HISTORY: u32 = 8_000;
const MIGRATE: &[&str] = &["customer", "list"];

/// A file as the first release left it, with a running session. The key of its license.
fn first_schema(path: &Path, history: u32) -> String {
    let key = LicenseKey::new().unwrap().shown();
    let bare = key.replace('-', "");
    let conn = Connection::open(path).unwrap();
    let schema = include_str!("../../sql/migrations/0001_init.sql");
    conn.execute_batch(schema).unwrap();
    conn.execute_batch(&format!(
        "pragma application_id = 0x4c696353;
         pragma user_version = 1;
         insert into client_configs values (1, 'Shop', 'lsk_0123456789ABCDEFGHJK', 30, 60, '1.0.0', '1.0.0', 'reject', 1);
         insert into customers (name, created_at_ms) values ('Ada', 1);
         insert into licenses (license_key, customer_id, kind, state, device_limit, valid_from_ms, created_at_ms)
             values ('{bare}', 1, 'full', 'active', 2, 1, 1);
         insert into devices (license_id, hardware_id, machine_id, client_version, activated_at_ms, last_seen_at_ms)
             values (1, 'hash of old', 'old', '1.0.0', 1, 1);
         insert into active_sessions values (1, randomblob(16), 1, 1, '1.0.0', '', 1, 1, 60);
         with recursive n (n) as (select 2 union all select n + 1 from n where n <= {history})
         insert into session_history
             select n, randomblob(16), 1, 'hash of old', 'old', '1.0.0', '', n, n, n, 'normal' from n;"
    ))
    .unwrap();
    key
}

/// Its schema, that schema in words, and how much is in it.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    schema: u32,
    words: String,
    rows: u32,
}

impl Content {
    /// Of the file with all that SQLite left beside it, in a place of its own: the look mends nothing.
    fn of(path: &Path) -> Self {
        let aside = tempfile::tempdir().unwrap();
        let looked = aside.path().join("t");
        for part in ["", "-wal", "-journal"] {
            let with = |name: &Path| format!("{}{part}", name.display());
            if part.is_empty() || Path::new(&with(path)).exists() {
                std::fs::copy(with(path), with(&looked)).unwrap();
            }
        }
        let conn = Connection::open(&looked).unwrap();
        let whole: String = conn
            .query_row("pragma integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(whole, "ok", "{}", path.display());
        let words =
            "select group_concat(sql, ';') from (select sql from sqlite_schema order by name)";
        Self {
            schema: conn
                .query_row("pragma user_version", [], |row| row.get(0))
                .unwrap(),
            words: conn.query_row(words, [], |row| row.get(0)).unwrap(),
            rows: conn
                .query_row("select count(*) from session_history", [], |row| row.get(0))
                .unwrap(),
        }
    }
}

/// Lays `template` where the server looks for its file, as if it had always been there.
fn lay(server: &Server, template: &Path) {
    let data = server.path("data");
    std::fs::create_dir_all(&data).unwrap();
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::copy(template, server.database()).unwrap();
    for place in [&server.database(), &data] {
        File::open(place).unwrap().sync_all().unwrap();
    }
}

fn old_or_new(mut server: Server, disk: Option<&Disk>, times: u32) {
    let template = server.path("template.sqlite3");
    // Without a WAL yet, as a copy that somebody put there by hand: that is a change, too.
    let key = first_schema(&template, HISTORY);
    let old = Content::of(&template);
    lay(&server, &template);
    let began = Instant::now();
    // A command migrates as a server does, and is there sooner.
    server.json(MIGRATE);
    let usual = began.elapsed();
    let new = Content::of(&server.database());
    assert!(new.schema > old.schema && new.rows == old.rows);
    let kept = format!("data/license-server.sqlite3.before-v{}", new.schema);
    let (mut old_ones, mut in_the_middle) = (0, 0);
    for round in 0..times {
        lay(&server, &template);
        cut_off(&server, MIGRATE, disk, || {
            if round % 2 == 0 {
                // Past the copy, which takes the most of the time.
                soon("a migration", || server.path(&kept).exists());
                pass(up_to(usual / 4));
            } else {
                pass(up_to(usual));
            }
        });
        let found = Content::of(&server.database());
        if found.schema == old.schema {
            assert_eq!(found, old, "something between");
            old_ones += 1;
            in_the_middle += u32::from(server.path(&kept).exists());
        } else {
            assert_eq!(found, new, "something between");
            // First the copy, then the change.
            assert_eq!(Content::of(&server.path(&kept)), old);
        }
        server.json(MIGRATE);
        assert_eq!(Content::of(&server.database()), new);
        assert_eq!(Content::of(&server.path(&kept)), old);
    }
    server.run();
    let told = server.call("activate", &claim(&key, "new"));
    assert_eq!(told.status, 201, "{told:?}");
    eprintln!(
        "a migration takes {usual:?}; of {times} that were cut off {old_ones} left the old schema, \
         {in_the_middle} of them in mid-migration"
    );
}

#[test]
fn a_migration_that_is_killed_leaves_the_old_file_or_the_new_one() {
    old_or_new(Server::prepare(&[]), None, rounds(8));
}

#[test]
fn a_migration_that_loses_its_power_leaves_the_old_file_or_the_new_one() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 256) else {
        return;
    };
    old_or_new(server, Some(&disk), rounds(3));
}

/// The moment in which a file is given its WAL, which the tests above meet only now and then.
#[test]
fn a_file_whose_writer_died_in_mid_change_is_taken_as_it_was_before() {
    let mut server = Server::prepare(&[]);
    let template = server.path("template.sqlite3");
    let key = first_schema(&template, 2000);
    lay(&server, &template);
    let conn = Connection::open(server.database()).unwrap();
    // Changed pages are on the disk before their commit, as they are when the process dies over it.
    conn.execute_batch("pragma cache_size = 1; pragma cache_spill = 1; begin")
        .unwrap();
    let spilt = format!(
        "update session_history set address = '{}'",
        "x".repeat(4000)
    );
    conn.execute_batch(&spilt).unwrap();
    let journal = |name: &Path| format!("{}-journal", name.display());
    for (from, to) in [
        (server.database(), server.path("data/left")),
        (
            journal(&server.database()).into(),
            journal(&server.path("data/left")).into(),
        ),
    ] {
        std::fs::copy(from, to).unwrap();
    }
    conn.execute_batch("rollback").unwrap();
    drop(conn);
    for part in ["", "-journal"] {
        let with = |name: &str| server.path(&format!("data/{name}{part}"));
        std::fs::rename(with("left"), with("license-server.sqlite3")).unwrap();
    }
    server.run();
    let told = server.call("activate", &claim(&key, "new"));
    assert_eq!(told.status, 201, "{told:?}");
    assert_eq!(server.stop(), Some(0));
    let conn = Connection::open(server.database()).unwrap();
    let sql = "select sum(length(address)) from session_history";
    let length: u32 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(length, 0, "half of a change is in the file");
}

#[test]
fn a_copy_of_an_older_schema_is_brought_up_to_date_on_its_way_back_and_stays_as_it_was() {
    let mut server = Server::prepare(&[]);
    let copy = server.path("copy.sqlite3");
    let key = first_schema(&copy, 3);
    let before = std::fs::read(&copy).unwrap();
    let restored = server.json(&["restore", "copy.sqlite3"]);
    assert_eq!(restored["restored"]["sessions_ended"], json!(1));
    assert!(std::fs::read(&copy).unwrap() == before);
    let found = Content::of(&server.database());
    assert_eq!(restored["restored"]["schema"], json!(found.schema));
    assert!(found.schema > 1 && found.rows == 4);
    server.run();
    let told = server.call("activate", &claim(&key, "new"));
    assert_eq!(told.status, 201, "{told:?}");
}
