//! Databases of earlier versions (`tests/fixtures`): this version migrates them, and everything in them is still there.

use std::fs;
use std::path::{Path, PathBuf};

use license_server::db::SCHEMA;

use crate::database;
use crate::support::{Server, files_below, heartbeat_body, identity};

/// Columns that a later migration renamed: table, earlier name, name today.
const RENAMED: &[(&str, &str, &str)] = &[
    ("audit_log", "deed", "action"),
    ("idempotent_answers", "deed", "operation"),
    ("client_configs", "config_id", "product_id"),
];
/// Tables to which a later migration adds rows, after the earlier ones.
const LONGER: &[&str] = &["rate_limits"];
/// Tables that a later migration replaced by counts in another one.
const REPLACED: &[&str] = &["daily_refusals"];
/// Columns that a later migration computes anew: the hashes of the audit log.
const COMPUTED: &[(&str, &str)] = &[("audit_log", "hash"), ("audit_head", "hash")];
/// Lines of `check` that depend on the machine or on the age of the fixture.
const VARYING: &[&str] = &["clock", "disk space", "backup"];

/// The license with an activated device named `desk` and a running session, of the first product.
struct Known {
    license: &'static str,
    token: &'static str,
}

const OF_ROWS: Known = Known {
    license: "T6FXC-WD5PK-9KM86-55VVN-QC4MM",
    token: "00112233-4455-6677-8899-aabbccddeeff",
};
const OF_SCHEMA_9: Known = Known {
    license: "T6FXC-WD5PK-9KM86-55VVN-QC4MM",
    token: "070a671d-8387-4c8a-bde7-dc7cffee8f27",
};
const OF_SCHEMA_11: Known = Known {
    license: "CWFKA-X8CZM-1M17F-HQGYZ-29C62",
    token: "3266b5f1-8f5b-464e-9699-559f00d8393d",
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The migrations up to this schema, each followed by the rows for what it adds.
fn migrations_with_rows(schema: u32) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut migrations = files_below(&root.join("sql/migrations"));
    migrations.retain(|file| file.is_file());
    migrations.sort();
    let mut all = Vec::new();
    for (number, migration) in (1..=schema).zip(migrations) {
        all.push(fs::read_to_string(migration).unwrap());
        let added = fixtures().join(format!("rows/{number:04}.sql"));
        if added.exists() {
            all.push(fs::read_to_string(added).unwrap());
        }
    }
    all
}

/// A folder with the keys and the certificate authority that the rows use, without a database.
fn prepare() -> Server {
    prepare_with_keys_of("schema_9")
}

fn prepare_with_keys_of(fixture: &str) -> Server {
    let server = Server::prepare(&[]);
    for folder in ["signing", "tls"] {
        let target = server.path("data").join(folder);
        fs::create_dir_all(&target).unwrap();
        for file in files_below(&fixtures().join(fixture).join(folder)) {
            if file.is_file() {
                fs::copy(&file, target.join(file.file_name().unwrap())).unwrap();
            }
        }
    }
    server
}

/// Migrates the database in the server's folder, and checks that it has the same content and works.
fn expect_migrated(mut server: Server, known: &Known) {
    let before = database::rows(&server.database());
    // A command migrates like a server.
    server.json(&["customer", "list"]);
    let after = database::rows(&server.database());
    for (table, old_rows) in &before {
        if REPLACED.contains(&table.as_str()) {
            continue;
        }
        let new_rows = &after[table];
        assert!(!old_rows.is_empty(), "the fixture has no row in {table}");
        if !LONGER.contains(&table.as_str()) {
            assert_eq!(new_rows.len(), old_rows.len(), "{table}");
        }
        assert!(new_rows.len() >= old_rows.len(), "{table}");
        for (old, new) in old_rows.iter().zip(new_rows) {
            for (column, value) in old {
                if COMPUTED.contains(&(table.as_str(), column.as_str())) {
                    continue;
                }
                let renamed = RENAMED
                    .iter()
                    .find(|(renamed, earlier, _)| renamed == table && earlier == column);
                let name = renamed.map_or(column.as_str(), |(_, _, today)| today);
                assert_eq!(new.get(name), Some(value), "{table}.{column} of {old:?}");
            }
        }
    }
    server.set_api_key(&database::api_key(&server, 1));
    server.run();
    let (client, license) = (server.client(), known.license);
    let heartbeat = client.call("session/heartbeat", &heartbeat_body(license, known.token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    let again = client.call("activate", &identity(license, "desk"));
    assert_eq!(again.status, 200, "{again:?}");
    let first = client.call("activate", &identity(license, "phone"));
    assert_eq!(first.status, 201, "{first:?}");
    let check = server.cli(&["check"]);
    let check = String::from_utf8(check.stdout).unwrap();
    for line in check.lines() {
        let varies = VARYING.iter().any(|name| line.contains(name));
        assert!(varies || line.starts_with("ok "), "{check}");
    }
    assert!(check.contains("no entry was altered"), "{check}");
    assert_eq!(server.stop(), Some(0));
}

/// A folder with everything of a fixture that an executable wrote.
fn copied(fixture: &str) -> Server {
    let server = prepare_with_keys_of(fixture);
    let database = fixtures().join(fixture).join("license-server.sqlite3");
    fs::copy(database, server.database()).unwrap();
    server
}

#[test]
fn a_database_of_the_executable_with_schema_9_keeps_everything_when_it_is_migrated() {
    expect_migrated(copied("schema_9"), &OF_SCHEMA_9);
}

#[test]
fn a_database_of_the_executable_with_schema_11_keeps_everything_when_it_is_migrated() {
    expect_migrated(copied("schema_11"), &OF_SCHEMA_11);
}

#[test]
fn a_database_of_every_earlier_schema_keeps_everything_when_it_is_migrated() {
    for schema in 1..SCHEMA {
        let server = prepare();
        let statements = migrations_with_rows(schema);
        database::create(&server.database(), schema, &statements);
        expect_migrated(server, &OF_ROWS);
    }
}

/// The last schemas before a migration that changes the audit log or its hashes.
const LOG_CHANGES_AFTER: &[u32] = &[1, 9, 13];

/// How somebody may have altered the audit log, and what `check` says of it.
const ALTERATIONS: &[(&str, &str)] = &[
    (
        "update audit_log set actor = 'eve' where audit_id = 1",
        "entry 1 was altered",
    ),
    (
        "update audit_log set after = '{}' where audit_id = 2",
        "entry 2 was altered",
    ),
    (
        "update audit_log set hash = zeroblob(32) where audit_id = 1",
        "entry 1 was altered",
    ),
    (
        "update audit_head set hash = zeroblob(32)",
        "entry 3 was altered",
    ),
    ("update audit_head set audit_id = 3", "entry 3 was altered"),
];

#[test]
fn an_audit_entry_that_was_altered_before_the_migration_is_still_reported_after_it() {
    let audit_finding = |server: &Server| {
        let output = String::from_utf8(server.cli(&["check"]).stdout).unwrap();
        let mut lines = output.lines().map(str::to_owned);
        lines.find(|line| line.contains("audit log")).unwrap()
    };
    for schema in 1..SCHEMA {
        // Of the schemas between those that changed the log, each with one of the changes.
        let every = LOG_CHANGES_AFTER.contains(&schema) || schema == SCHEMA - 1;
        let one = schema as usize % ALTERATIONS.len();
        let tried = if every {
            ALTERATIONS
        } else {
            &ALTERATIONS[one..=one]
        };
        for (change, found) in tried {
            let server = prepare();
            let mut statements = migrations_with_rows(schema);
            statements.push((*change).to_owned());
            database::create(&server.database(), schema, &statements);
            server.json(&["customer", "list"]);
            let finding = audit_finding(&server);
            assert!(
                finding.contains(found),
                "{change} in schema {schema}: {finding}"
            );
        }
    }
}
