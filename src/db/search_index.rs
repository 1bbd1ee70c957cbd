//! The index of the search: its tables, and how they are made anew from what they index.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::options::Synchronous;
use super::pool;
use crate::clock::{Clock, SystemClock};
use crate::error::{Doing, Result};

/// Make the index and the triggers that keep it.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../sql/migrations/0017_search.sql"),
    include_str!("../../sql/migrations/0025_refusal_search.sql"),
    include_str!("../../sql/migrations/0029_released_by_programs.sql"),
];
/// The tables of the index.
const TABLES: [&str; 5] = [
    "customer_texts",
    "license_texts",
    "device_texts",
    "refusal_texts",
    "released_texts",
];
/// What SQLite makes for each of them.
const PARTS: [&str; 4] = ["_config", "_content", "_data", "_idx"];
/// What the triggers of each of them are named after.
const EVENTS: [&str; 3] = ["insert", "update", "delete"];

/// The result of making the index anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reindexed {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Whether an object of the schema is one that SQLite makes for the index.
pub(super) fn is_part(name: &str) -> bool {
    TABLES.iter().any(|table| {
        let rest = name.strip_prefix(table);
        rest.is_some_and(|rest| PARTS.contains(&rest))
    })
}

/// Lets the connection forget what it remembers of the index, in the transaction that it is in. SQLite's integrity check
/// (3.54) compares with what the connection read last, which is damage if another one has written since; a query looks
/// whether that is so.
pub(super) fn forget_cached(conn: &Connection) {
    for table in TABLES {
        let query = format!("select exists(select 1 from {table} where rowid = 0)");
        // A database of an earlier schema lacks some of them. The check finds the cause of a failure, too, and says it better.
        drop(conn.query_row(&query, [], |row| row.get::<_, bool>(0)));
    }
}

/// Makes the index of the database at `path` anew. Other writes wait meanwhile.
///
/// # Errors
/// [`Unavailable`](crate::error::Error::Unavailable) if the disk is full or another program writes.
pub(super) fn rebuild(path: &Path) -> Result<Reindexed> {
    let clock = SystemClock::default();
    let began = clock.tick();
    let conn = pool::open_writer(path, Synchronous::Full)?;
    let tx = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate)
        .doing("begin to make the search index")?;
    replace(&tx)?;
    tx.commit().doing("commit the search index")?;
    let took = clock.tick().since(began);
    Ok(Reindexed {
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

fn replace(conn: &Connection) -> Result<()> {
    for table in TABLES {
        for event in EVENTS {
            conn.execute_batch(&format!("drop trigger if exists {table}_{event}"))?;
        }
        conn.execute_batch(&format!("drop table if exists {table}"))?;
    }
    for migration in MIGRATIONS {
        conn.execute_batch(migration)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{SCHEMA, disk, migrate, schema};

    #[test]
    fn a_damaged_index_is_found_and_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        let conn = pool::open_or_create(&path).unwrap();
        migrate::apply(&conn, 0).unwrap();
        let before = schema::foreign_objects(&conn, SCHEMA).unwrap();
        assert_eq!(before, Vec::<String>::new());
        let people =
            "insert into customers (name, created_at_ms) values ('Ada', 1), ('Bob', 1), ('Cay', 1)";
        conn.execute_batch(people).unwrap();
        drop(conn);
        // SQLite has another message for each.
        for damage in [
            "delete from customer_texts_data where id > 10",
            "update customer_texts_data set block = x'00ff00ff00ff' where id > 10",
            "update customer_texts_data set block = x'ff' where id = 10",
            "delete from customer_texts_data",
            "delete from customer_texts_content where id = 2",
        ] {
            let conn = pool::open_or_create(&path).unwrap();
            conn.execute_batch(damage).unwrap();
            let found = integrity(&conn);
            assert!(disk::is_damaged_index(&found), "{damage}: {found}");
            drop(conn);
            rebuild(&path).unwrap();
            expect_whole_index(&path);
        }
    }

    fn integrity(conn: &Connection) -> String {
        let sql = "select group_concat(integrity_check) from pragma_integrity_check";
        let found = conn.query_row(sql, [], |row| row.get::<_, String>(0));
        found.unwrap()
    }

    fn expect_whole_index(path: &Path) {
        let conn = pool::open_or_create(path).unwrap();
        assert_eq!(integrity(&conn), "ok");
        let found = "select count(*) from customer_texts where customer_texts match 'bob'";
        assert_eq!(conn.query_row(found, [], |row| row.get::<_, u32>(0)), Ok(1));
        let foreign = schema::foreign_objects(&conn, SCHEMA).unwrap();
        assert_eq!(foreign, Vec::<String>::new());
    }
}
