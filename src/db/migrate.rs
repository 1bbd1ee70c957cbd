//! Migrates the schema. `user_version` is the number of applied migrations, `application_id` marks a
//! license-server database.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::lock::{APPLICATION_ID, Lock, beside, remove_unfinished_restore};
use super::pool;
use crate::error::{Doing, Error, Result};

/// All migrations, oldest first. A released one is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("../../sql/migrations/0001_init.sql"),
    include_str!("../../sql/migrations/0002_panel.sql"),
    include_str!("../../sql/migrations/0003_sites.sql"),
    include_str!("../../sql/migrations/0004_signing.sql"),
    include_str!("../../sql/migrations/0005_composed.sql"),
    include_str!("../../sql/migrations/0006_authority.sql"),
    include_str!("../../sql/migrations/0007_proxies.sql"),
    include_str!("../../sql/migrations/0008_folded_history.sql"),
    include_str!("../../sql/migrations/0009_folded_time.sql"),
    include_str!("../../sql/migrations/0010_action_operation.sql"),
    include_str!("../../sql/migrations/0011_running_sessions.sql"),
];
/// The schema version of this program.
pub const SCHEMA: u32 = 11;
const _: () = assert!(
    MIGRATIONS.len() == SCHEMA as usize,
    "SCHEMA counts MIGRATIONS"
);

/// Whether the database exists and its schema is current. Changes nothing.
pub(super) fn is_latest(path: &Path) -> Result<bool> {
    Ok(length(path)? > 0 && schema(&pool::open_read_only(path)?, path)? == SCHEMA)
}

/// Creates the database, or migrates it after copying it. The lock keeps every server out meanwhile.
pub(super) fn to_latest(path: &Path, lock: &Lock) -> Result<()> {
    remove_unfinished_restore(path)?;
    if length(path)? == 0 {
        if lock.was_created() || length(&beside(path, "-wal"))? > 0 {
            return Err(missing_error(path));
        }
        create(path)?;
    } else {
        let done = schema(&pool::open_read_only(path)?, path)?;
        if done < SCHEMA {
            upgrade(path, done)?;
        }
    }
    if lock.was_created() {
        Ok(())
    } else {
        lock.note_created(path)
    }
}

/// The schema version of `conn`; at most [`SCHEMA`].
///
/// # Errors
/// [`Error::State`] if it is no license-server database, or one of a newer program.
pub(super) fn schema(conn: &Connection, path: &Path) -> Result<u32> {
    let pragma = |name: &str| conn.query_row(name, [], |row| row.get::<_, i64>(0));
    let name = path.display();
    let (whose, version) = match (
        pragma("pragma application_id"),
        pragma("pragma user_version"),
    ) {
        (Ok(whose), Ok(version)) => (whose, version),
        (Err(error), _) | (_, Err(error)) => return Err(pool::unreadable(path, error.into())),
    };
    if whose != i64::from(APPLICATION_ID) {
        return Err(Error::State(format!(
            "{name} is a database, but not one of license-server"
        )));
    }
    u32::try_from(version).ok().filter(|version| *version <= SCHEMA).ok_or_else(|| {
        Error::State(format!(
            "{name} has schema {version}, and this program supports only up to {SCHEMA}: start the \
             newer license-server that wrote it; nothing was changed"
        ))
    })
}

fn length(path: &Path) -> Result<u64> {
    match fs::metadata(path) {
        Ok(data) => Ok(data.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).doing("examine the database file"),
    }
}

fn missing_error(path: &Path) -> Error {
    let name = path.display();
    Error::State(format!(
        "{name} is missing or empty, though there was a database: mount its disk, or restore a backup \
         with `license-server restore FILE`; to start with an empty one, set [database] path to a file in another folder"
    ))
}

/// Creates the file under another name first: a power cut leaves all of it or nothing.
fn create(path: &Path) -> Result<()> {
    let draft = beside(path, ".new");
    remove_all(&draft)?;
    let conn = pool::open_or_create(&draft)?;
    apply(&conn, 0)?;
    if !pool::checkpoint_and_close(conn)? {
        return Err(Error::State(format!(
            "another program has {} open: let it close the file first",
            draft.display()
        )));
    }
    sync(&draft)?;
    fs::rename(&draft, path).doing("put the new database in its place")?;
    sync_folder_of(path)
}

fn upgrade(path: &Path, done: u32) -> Result<()> {
    let copy = beside(path, &format!(".before-v{SCHEMA}"));
    remove(&copy)?;
    super::backup::copy(path, &copy)?;
    log::info!(
        "the schema is migrated from {done} to {SCHEMA}; the old database is saved as {}",
        copy.display()
    );
    // The changes stay in the WAL: the server that opens the database checkpoints them.
    apply(&pool::open_or_create(path)?, done)
}

/// Runs all migrations after number `done` in one transaction.
pub(super) fn apply(conn: &Connection, done: u32) -> Result<()> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)
        .doing("begin the migration")?;
    for text in MIGRATIONS
        .iter()
        .skip(usize::try_from(done).unwrap_or(usize::MAX))
    {
        tx.execute_batch(text).doing("migrate the database")?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", SCHEMA)?;
    tx.commit().doing("commit the migration")
}

/// Differences between the schema of `conn` and that of a database of version `version` that this program creates.
/// A foreign trigger, view or table would take part in every query on it.
pub(super) fn foreign_objects(conn: &Connection, version: u32) -> Result<Vec<String>> {
    let ours = in_memory(version)?;
    let (ours, found) = (objects(&ours)?, objects(conn)?);
    let foreign = found
        .difference(&ours)
        .filter(|object| !object.is_allowed());
    let foreign = foreign.map(|object| {
        format!(
            "the {} {:?} does not belong to license-server",
            object.kind, object.name
        )
    });
    let missing = ours.difference(&found);
    let missing = missing.map(|object| {
        format!(
            "the {} {:?} is missing or altered",
            object.kind, object.name
        )
    });
    Ok(missing.chain(foreign).collect())
}

/// A row of `sqlite_schema`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: String,
    name: String,
    table: String,
    sql: Option<String>,
}

impl Object {
    /// Tables that SQLite's `analyze` creates, and the two that Litestream adds to every file it replicates.
    fn is_allowed(&self) -> bool {
        let statistics = ["sqlite_stat1", "sqlite_stat4"].contains(&self.name.as_str());
        let sql = self.sql.as_deref().unwrap_or_default().to_ascii_lowercase();
        let litestream = [
            "create table _litestream_seq (id integer primary key, seq integer)",
            "create table _litestream_lock (id integer)",
        ];
        self.kind == "table" && (statistics || litestream.contains(&sql.as_str()))
    }
}

fn objects(conn: &Connection) -> Result<BTreeSet<Object>> {
    let mut rows = conn.prepare("select type, name, tbl_name, sql from sqlite_schema")?;
    let rows = rows.query_map([], |row| {
        Ok(Object {
            kind: row.get(0)?,
            name: row.get(1)?,
            table: row.get(2)?,
            sql: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// An empty in-memory database of this schema version.
fn in_memory(version: u32) -> Result<Connection> {
    let conn = Connection::open_in_memory()?;
    pool::register_functions(&conn)?;
    let count = usize::try_from(version).unwrap_or(usize::MAX);
    for text in MIGRATIONS.iter().take(count) {
        conn.execute_batch(text).doing("make an empty schema")?;
    }
    Ok(conn)
}

/// Deletes a database with its WAL and index.
pub(super) fn remove_all(path: &Path) -> Result<()> {
    for part in ["", "-wal", "-shm"] {
        remove(&beside(path, part))?;
    }
    Ok(())
}

/// Deletes a file, if it exists.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing("delete a leftover file")
        }
        _ => Ok(()),
    }
}

/// Syncs a file to the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .doing("write a file to the disk")
}

/// Syncs the folder that `path` is in, and so the names of its files.
pub(super) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    sync(folder.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decomposed_texts_are_composed_by_the_migration() {
        let dir = tempfile::tempdir().unwrap();
        let conn = pool::open_or_create(&dir.path().join("t.sqlite3")).unwrap();
        let before = MIGRATIONS
            .iter()
            .position(|text| text.contains("composed(name)"))
            .unwrap();
        for text in MIGRATIONS.iter().take(before) {
            conn.execute_batch(text).unwrap();
        }
        conn.execute_batch(
            "insert into customers (name, note, created_at_ms) values ('Mu\u{308}ller', 'Ko\u{308}ln', 1), ('Ada', '', 1);
             insert into admins (name, role, password_hash, created_at_ms)
                 values ('J\u{fc}rgen', 'owner', 'x', 1), ('Ju\u{308}rgen', 'owner', 'x', 1), ('A\u{30a}sa', 'admin', 'x', 1);
             insert into feature_flags values ('x', 'Scho\u{308}n', 1, 100, 1);",
        )
        .unwrap();
        // Composed, each of these characters becomes two, which exceeds the length limit.
        let long = |count: usize| "\u{958}".repeat(count);
        conn.execute_batch(&format!(
            "insert into customers (name, note, created_at_ms) values ('{}', 'Ko\u{308}ln', 1);
             insert into licenses (license_key, customer_id, kind, state, device_limit, valid_from_ms, created_at_ms)
                 values ('0123456789ABCDEFGHJKMNPQR', 1, 'full', 'active', 2, 1, 1);
             insert into devices (license_id, hardware_id, machine_id, client_version, activated_at_ms, last_seen_at_ms)
                 values (1, 'a', '{}', '1.0.0', 1, 1), (1, 'b', 'Bu\u{308}ro', '1.0.0', 1, 1);
             insert into client_configs (config_id, client_name, api_key, heartbeat_interval, session_timeout,
                                         current_version, minimum_version, session_policy, updated_at_ms)
                 values (1, '{}', 'lsk_0123456789ABCDEFGHJK', 30, 60, '1.0.0', '1.0.0', 'reject', 1);
             insert into admins (name, role, password_hash, created_at_ms) values ('{}', 'admin', 'x', 1);",
            long(200), long(255), long(100), long(64),
        ))
        .unwrap();
        apply(&conn, u32::try_from(before).unwrap()).unwrap();
        let all = |sql| {
            conn.query_row(sql, [], |row| row.get::<_, String>(0))
                .unwrap()
        };
        assert_eq!(
            all(
                "select group_concat(name || note) from (select * from customers order by customer_id)"
            ),
            format!("M\u{fc}llerK\u{f6}ln,Ada,{}K\u{f6}ln", long(200))
        );
        assert_eq!(
            all("select group_concat(machine_id) from (select * from devices order by device_id)"),
            format!("{},B\u{fc}ro", long(255))
        );
        assert_eq!(all("select client_name from client_configs"), long(100));
        assert_eq!(
            all("select group_concat(name) from (select * from admins order by admin_id)"),
            format!("J\u{fc}rgen,Ju\u{308}rgen,\u{c5}sa,{}", long(64))
        );
        assert_eq!(all("select description from feature_flags"), "Sch\u{f6}n");
    }
}
