//! Databases of earlier versions (`tests/fixtures`): this version migrates them, and everything in them is still there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use license_server::db::{SCHEMA, register_functions};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use crate::support::{Server, files_below, heartbeat_body, identity};

/// Columns that a later migration renamed: table, earlier name, name today.
const RENAMED: &[(&str, &str, &str)] = &[
    ("audit_log", "deed", "action"),
    ("idempotent_answers", "deed", "operation"),
];
/// Lines of `check` that depend on the machine or on the age of the fixture.
const VARYING: &[&str] = &["clock", "disk space", "backup"];
/// The license with an activated device named `desk` and a running session, in every fixture.
const LICENSE: &str = "T6FXC-WD5PK-9KM86-55VVN-QC4MM";
const FIXED_TOKEN: &str = "00112233-4455-6677-8899-aabbccddeeff";

/// The rows of each table, each row as its values by column, in a fixed order.
type Rows = BTreeMap<String, Vec<BTreeMap<String, Value>>>;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Every row of the database.
fn rows(database: &Path) -> Rows {
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let tables = "select name from sqlite_schema where type = 'table' and name not like 'sqlite%'";
    let mut tables = conn.prepare(tables).unwrap();
    let tables = tables.query_map([], |row| row.get(0)).unwrap();
    tables
        .map(|table| {
            let table: String = table.unwrap();
            let columns = conn.prepare(&format!("select * from {table}")).unwrap();
            let columns: Vec<String> = columns.column_names().map(str::to_owned).collect();
            let order: Vec<String> = (1..=columns.len()).map(|at| at.to_string()).collect();
            let sql = format!("select * from {table} order by {}", order.join(", "));
            let mut rows = conn.prepare(&sql).unwrap();
            let rows = rows.query_map([], |row| {
                let columns = columns.iter().enumerate();
                columns
                    .map(|(at, column)| Ok((column.clone(), row.get(at)?)))
                    .collect()
            });
            let rows = rows.unwrap().map(Result::unwrap).collect();
            (table, rows)
        })
        .collect()
}

/// A database of this schema, with rows in every table.
fn database_of_schema(schema: u32, path: &Path) {
    let conn = Connection::open(path).unwrap();
    register_functions(&conn).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut migrations = files_below(&root.join("sql/migrations"));
    migrations.retain(|file| file.is_file());
    migrations.sort();
    for (number, migration) in (1..=schema).zip(migrations) {
        conn.execute_batch(&fs::read_to_string(migration).unwrap())
            .unwrap();
        let added = fixtures().join(format!("rows/{number:04}.sql"));
        if added.exists() {
            conn.execute_batch(&fs::read_to_string(added).unwrap())
                .unwrap();
        }
    }
    let marks = format!("pragma application_id = 0x4c696353; pragma user_version = {schema}");
    conn.execute_batch(&marks).unwrap();
}

/// A folder with the keys and the certificate authority of the fixture, without a database.
fn prepare() -> Server {
    let server = Server::prepare(&[]);
    for folder in ["signing", "tls"] {
        let target = server.path("data").join(folder);
        fs::create_dir_all(&target).unwrap();
        for file in files_below(&fixtures().join("schema_9").join(folder)) {
            if file.is_file() {
                fs::copy(&file, target.join(file.file_name().unwrap())).unwrap();
            }
        }
    }
    server
}

/// Migrates the database in the server's folder, and checks that it has the same content and works.
fn expect_migrated(mut server: Server, token: &str) {
    let before = rows(&server.database());
    // A command migrates like a server.
    server.json(&["customer", "list"]);
    let after = rows(&server.database());
    for (table, old_rows) in &before {
        let new_rows = &after[table];
        assert!(!old_rows.is_empty(), "the fixture has no row in {table}");
        assert_eq!(new_rows.len(), old_rows.len(), "{table}");
        for (old, new) in old_rows.iter().zip(new_rows) {
            for (column, value) in old {
                let renamed = RENAMED
                    .iter()
                    .find(|(renamed, earlier, _)| renamed == table && earlier == column);
                let name = renamed.map_or(column.as_str(), |(_, _, today)| today);
                assert_eq!(new.get(name), Some(value), "{table}.{column} of {old:?}");
            }
        }
    }
    server.run();
    let client = server.client();
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(LICENSE, token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    let again = client.call("activate", &identity(LICENSE, "desk"));
    assert_eq!(again.status, 200, "{again:?}");
    let first = client.call("activate", &identity(LICENSE, "phone"));
    assert_eq!(first.status, 201, "{first:?}");
    let check = server.cli(&["check"]);
    let check = String::from_utf8(check.stdout).unwrap();
    for line in check.lines() {
        let varies = VARYING.iter().any(|name| line.contains(name));
        assert!(varies || line.starts_with("ok "), "{check}");
    }
    assert!(
        check.contains("no row was altered") || check.contains("no entry was altered"),
        "{check}"
    );
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_database_of_the_executable_with_schema_9_keeps_everything_when_it_is_migrated() {
    let server = prepare();
    let database = fixtures().join("schema_9/license-server.sqlite3");
    fs::copy(database, server.database()).unwrap();
    expect_migrated(server, "070a671d-8387-4c8a-bde7-dc7cffee8f27");
}

#[test]
fn a_database_of_every_earlier_schema_keeps_everything_when_it_is_migrated() {
    for schema in 1..SCHEMA {
        let server = prepare();
        database_of_schema(schema, &server.database());
        expect_migrated(server, FIXED_TOKEN);
    }
}
