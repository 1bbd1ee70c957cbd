//! The process or the power ends during a migration (D5): the schema is the old or the new one.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use license_server::licenses::LicenseKey;
use rusqlite::Connection;
use serde_json::json;

use crate::disk::Disk;
use crate::support::{Server, identity, rounds};
use crate::{random_up_to, run_interrupted, spin_until, wait_for};

/// Number of rows that makes a migration take a while.
const HISTORY: u32 = 8_000;
const MIGRATE: &[&str] = &["customer", "list"];

/// A database as the first release left it, with an active session. Returns the key of its license.
fn first_schema(path: &Path, history: u32) -> String {
    let key = LicenseKey::new().unwrap().formatted();
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

/// A database's schema version, its SQL, and its number of rows.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    schema: u32,
    sql: String,
    rows: u32,
}

impl Content {
    /// Reads a copy of the database and its WAL or journal, so that reading repairs nothing in the original.
    fn of(path: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let copied = folder.path().join("t");
        for part in ["", "-wal", "-journal"] {
            let with = |name: &Path| format!("{}{part}", name.display());
            if part.is_empty() || Path::new(&with(path)).exists() {
                std::fs::copy(with(path), with(&copied)).unwrap();
            }
        }
        let conn = Connection::open(&copied).unwrap();
        let integrity: String = conn
            .query_row("pragma integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(integrity, "ok", "{}", path.display());
        let sql =
            "select group_concat(sql, ';') from (select sql from sqlite_schema order by name)";
        Self {
            schema: conn
                .query_row("pragma user_version", [], |row| row.get(0))
                .unwrap(),
            sql: conn.query_row(sql, [], |row| row.get(0)).unwrap(),
            rows: conn
                .query_row("select count(*) from session_history", [], |row| row.get(0))
                .unwrap(),
        }
    }
}

/// Puts `template` in place as the server's database, alone in the data folder.
fn install(server: &Server, template: &Path) {
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
    for path in [&server.database(), &data] {
        File::open(path).unwrap().sync_all().unwrap();
    }
}

fn old_or_new(mut server: Server, disk: Option<&Disk>, times: u32) {
    let template = server.path("template.sqlite3");
    // Not in WAL mode yet, like a copy that was put there by hand: switching the mode is a change, too.
    let key = first_schema(&template, HISTORY);
    let old = Content::of(&template);
    install(&server, &template);
    let began = Instant::now();
    // A command migrates like a server, and starts faster.
    server.json(MIGRATE);
    let usual = began.elapsed();
    let new = Content::of(&server.database());
    assert!(new.schema > old.schema && new.rows == old.rows);
    let copy_name = format!("data/license-server.sqlite3.before-v{}", new.schema);
    let (mut old_ones, mut in_the_middle) = (0, 0);
    for round in 0..times {
        install(&server, &template);
        run_interrupted(&server, MIGRATE, disk, || {
            if round % 2 == 0 {
                // After the copy, which takes most of the time.
                spin_until("a migration", || server.path(&copy_name).exists());
                wait_for(random_up_to(usual / 4));
            } else {
                wait_for(random_up_to(usual));
            }
        });
        let found = Content::of(&server.database());
        if found.schema == old.schema {
            assert_eq!(found, old, "neither old nor new");
            old_ones += 1;
            in_the_middle += u32::from(server.path(&copy_name).exists());
        } else {
            assert_eq!(found, new, "neither old nor new");
            // The copy is made before the change.
            assert_eq!(Content::of(&server.path(&copy_name)), old);
        }
        server.json(MIGRATE);
        assert_eq!(Content::of(&server.database()), new);
        assert_eq!(Content::of(&server.path(&copy_name)), old);
    }
    server.run();
    let response = server.call("activate", &identity(&key, "new"));
    assert_eq!(response.status, 201, "{response:?}");
    eprintln!(
        "a migration takes {usual:?}; of {times} interrupted ones {old_ones} left the old schema, \
         {in_the_middle} of them after the copy"
    );
}

#[test]
fn a_migration_that_is_killed_leaves_the_old_file_or_the_new_one() {
    old_or_new(Server::prepare(&[]), None, rounds(8));
}

#[test]
fn a_migration_during_a_power_cut_leaves_the_old_file_or_the_new_one() {
    let server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 256) else {
        return;
    };
    old_or_new(server, Some(&disk), rounds(3));
}

/// The moment of switching to WAL mode, which the tests above hit only rarely.
#[test]
fn a_file_whose_writer_died_during_a_change_is_rolled_back() {
    let mut server = Server::prepare(&[]);
    let template = server.path("template.sqlite3");
    let key = first_schema(&template, 2000);
    install(&server, &template);
    let conn = Connection::open(server.database()).unwrap();
    // Changed pages are written before the commit, as when the process dies in the middle of it.
    conn.execute_batch("pragma cache_size = 1; pragma cache_spill = 1; begin")
        .unwrap();
    let update = format!(
        "update session_history set address = '{}'",
        "x".repeat(4000)
    );
    conn.execute_batch(&update).unwrap();
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
    let response = server.call("activate", &identity(&key, "new"));
    assert_eq!(response.status, 201, "{response:?}");
    assert_eq!(server.stop(), Some(0));
    let conn = Connection::open(server.database()).unwrap();
    let sql = "select sum(length(address)) from session_history";
    let length: u32 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(length, 0, "an uncommitted change is in the file");
}

#[test]
fn a_copy_with_an_older_schema_is_migrated_by_the_restore_and_stays_unchanged() {
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
    let response = server.call("activate", &identity(&key, "new"));
    assert_eq!(response.status, 201, "{response:?}");
}
