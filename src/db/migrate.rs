//! Creates a database, or migrates it to the schema of this program.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::files::{beside, remove, remove_all, sync, sync_folder_of};
use super::lock::Lock;
use super::path_check::{APPLICATION_ID, SAVED, remove_unfinished_restore};
use super::schema::{MIGRATIONS, SCHEMA, schema};
use super::{copy, pool};
use crate::clock::{Clock, SystemClock};
use crate::error::{Doing, Error, Result};

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
    let saved = beside(path, &format!("{SAVED}{SCHEMA}"));
    remove(&saved)?;
    copy::copy(path, &saved)?;
    log::info!(
        "the schema is migrated from {done} to {SCHEMA}; the old database is saved as {}",
        saved.display()
    );
    let clock = SystemClock::default();
    let began = clock.tick();
    // The changes stay in the WAL: the server that opens the database checkpoints them.
    apply(&pool::open_or_create(path)?, done)?;
    let took = clock.tick().since(began);
    log::info!("the schema was migrated in {:.1} s", took.as_secs_f64());
    Ok(())
}

/// Runs all migrations after number `done` in one transaction. A migration may replace a table that others refer to,
/// which SQLite allows only without foreign keys: these are checked at the end instead.
pub(super) fn apply(conn: &Connection, done: u32) -> Result<()> {
    conn.pragma_update(None, "foreign_keys", false)?;
    let applied = apply_unchecked(conn, done);
    conn.pragma_update(None, "foreign_keys", true)?;
    applied
}

fn apply_unchecked(conn: &Connection, done: u32) -> Result<()> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)
        .doing("begin the migration")?;
    for text in MIGRATIONS
        .iter()
        .skip(usize::try_from(done).unwrap_or(usize::MAX))
    {
        tx.execute_batch(text).doing("migrate the database")?;
    }
    check_foreign_keys(&tx)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", SCHEMA)?;
    tx.commit().doing("commit the migration")
}

/// Refuses rows that refer to a row that does not exist.
fn check_foreign_keys(conn: &Connection) -> Result<()> {
    let mut statement = conn.prepare("pragma foreign_key_check")?;
    let mut rows = statement.query([])?;
    match rows.next()? {
        None => Ok(()),
        Some(row) => {
            let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
            Err(Error::Damaged {
                found: format!("a row of {table} refers to a row of {parent} that does not exist"),
            })
        }
    }
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
