//! How a connection is opened, for writing and for reading.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags, ffi};

use super::Synchronous;
use super::place::Place;
use crate::domain::Domain;
use crate::error::{Doing, Error, Result};
use crate::text;

const WRITER: &str = include_str!("../../sql/pragmas/writer.sql");
const READER: &str = include_str!("../../sql/pragmas/reader.sql");
/// Prepared statements kept by a connection; more than there are files in `sql/queries`.
const STATEMENTS: usize = 256;

/// What must hold on every connection, whatever SQLite was built with: name and value as read back.
const PROMISED: &[(&str, &str)] = &[
    ("foreign_keys", "1"),
    ("trusted_schema", "0"),
    ("cell_size_check", "1"),
    ("mmap_size", "0"),
    ("busy_timeout", "3000"),
    ("journal_size_limit", "67108864"),
];
/// And on each that writes, or reads beside one that does.
const WAL: &[(&str, &str)] = &[("journal_mode", "wal")];
/// And on each that only looks.
const READ_ONLY: &[(&str, &str)] = &[("query_only", "1")];

/// Opens the one connection that writes; the file must exist.
pub(super) fn open_writer(path: &Path, synchronous: Synchronous) -> Result<Connection> {
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.execute_batch(WRITER)?;
    let (word, number) = match synchronous {
        Synchronous::Full => ("full", "2"),
        Synchronous::Normal => ("normal", "1"),
    };
    conn.pragma_update(None, "synchronous", word)?;
    promised(&conn, &[PROMISED, WAL, &[("synchronous", number)]])?;
    Ok(conn)
}

/// Opens a file that is no server's yet, or no longer: a new one, a copy.
pub(super) fn open_alone(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let conn = open(path, flags)?;
    conn.execute_batch(WRITER)?;
    promised(&conn, &[PROMISED, WAL, &[("synchronous", "2")]])?;
    Ok(conn)
}

/// Opens a file only to look at it, and so that looking changes nothing.
pub(super) fn open_to_look(path: &Path) -> Result<Connection> {
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut ready = conn.execute_batch(READER);
    if let Err(rusqlite::Error::SqliteFailure(error, _)) = &ready
        && error.extended_code == ffi::SQLITE_READONLY_ROLLBACK
    {
        // Whoever gave the file its WAL died over it. Nobody may look before that is undone.
        open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?.execute_batch(READER)?;
        ready = conn.execute_batch(READER);
    }
    ready.map_err(|error| unreadable(path, error))?;
    promised(&conn, &[PROMISED, READ_ONLY])?;
    Ok(conn)
}

/// What the operator is told of a file that is there and is no database, or none any more.
pub(super) fn unreadable(path: &Path, error: rusqlite::Error) -> Error {
    match Error::from(error) {
        Error::Internal { source, .. } => Error::State(format!(
            "{} cannot be read as a database ({source}): restore a backup with \
             `license-server restore FILE`",
            path.display()
        )),
        other => other,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where the pragmas are set"
)]
fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // A plan does not depend on what is bound to it: without this, SQLite parses and plans a prepared
    // statement anew whenever a value is bound that an index is searched for. That is half of its work.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    teach(&conn)?;
    Ok(conn)
}

/// Gives a connection `folded(text)`: text as searches compare it, for SQLite's own `lower` knows no letters
/// but those of English, and would not find "Käthe" by "KÄTHE"; `composed(text)`: text as it is stored; and
/// `spellings(domain)`: a host name as it is stored and as people write it.
///
/// # Errors
/// When SQLite does not take it.
pub fn teach(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("folded", 1, flags, |given| {
        Ok(text::folded(given.get_raw(0).as_str()?))
    })?;
    conn.create_scalar_function("composed", 1, flags, |given| {
        Ok(text::composed(given.get_raw(0).as_str()?))
    })?;
    conn.create_scalar_function("spellings", 1, flags, |given| {
        Ok(Domain::from_stored(given.get_raw(0).as_str()?).spellings())
    })
}

fn promised(conn: &Connection, wanted: &[&[(&str, &str)]]) -> Result<()> {
    for (name, value) in wanted.iter().copied().flatten() {
        let found = conn.query_row(&format!("pragma {name}"), [], |row| {
            Ok(match row.get_ref(0)? {
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                other => other.as_str()?.to_owned(),
            })
        })?;
        if found != *value {
            let what = format!("pragma {name} is {found}, not {value}");
            return Err(Error::State(format!(
                "the database cannot be opened safely: {what}; is the file system a network share?"
            )));
        }
    }
    Ok(())
}

/// Opens connections that cannot write.
pub(super) struct Readers {
    path: PathBuf,
    place: Arc<Place>,
}

impl Readers {
    /// A pool of at most `size` connections, opened when they are needed.
    pub(super) fn pool(place: Arc<Place>, path: &Path, size: u32) -> Result<r2d2::Pool<Self>> {
        let path = path.to_owned();
        let manager = Self { path, place };
        r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(0))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_on_check_out(false)
            .connection_timeout(std::time::Duration::from_secs(3))
            .build(manager)
            .doing("open the read pool")
    }
}

impl r2d2::ManageConnection for Readers {
    type Connection = Connection;
    type Error = Error;

    fn connect(&self) -> Result<Connection> {
        // Read-only would not do: the first reader of a WAL file may have to make its index.
        let conn = open(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.execute_batch(READER)?;
        promised(&conn, &[PROMISED, WAL, READ_ONLY])?;
        // Another file may have taken the place of the one that is written.
        let in_place = self.place.check();
        in_place.map_err(|reason| Error::Unavailable { reason })?;
        Ok(conn)
    }

    fn is_valid(&self, conn: &mut Connection) -> Result<()> {
        Ok(conn.query_row("select 1", [], |_| Ok(()))?)
    }

    fn has_broken(&self, conn: &mut Connection) -> bool {
        !conn.is_autocommit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(conn: &Connection, pragma: &str) -> String {
        let sql = format!("select cast({pragma} as text) from pragma_{pragma}");
        conn.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn every_connection_is_as_safe_as_every_other_whatever_opened_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        let alone = open_alone(&path).unwrap();
        alone.execute_batch("create table t (x)").unwrap();
        let full = open_writer(&path, Synchronous::Full).unwrap();
        let normal = open_writer(&path, Synchronous::Normal).unwrap();
        let look = open_to_look(&path).unwrap();
        let place = Arc::new(Place::of(&path).unwrap());
        let pooled = Readers::pool(place, &path, 1).unwrap().get().unwrap();
        for conn in [&alone, &full, &normal, &look, &*pooled] {
            for (pragma, safe) in [
                ("journal_mode", "wal"),
                ("trusted_schema", "0"),
                ("cell_size_check", "1"),
                ("foreign_keys", "1"),
                ("journal_size_limit", "67108864"),
            ] {
                assert_eq!(value(conn, pragma), safe, "{pragma}");
            }
            let of = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
            assert_eq!(of("pragma mmap_size").unwrap_or(0), 0);
            assert_eq!(of("select timeout from pragma_busy_timeout"), Ok(3000));
        }
        let synchronous = [&alone, &full, &normal].map(|conn| value(conn, "synchronous"));
        assert_eq!(synchronous, ["2", "2", "1"]);
        for conn in [&look, &*pooled] {
            assert!(conn.execute("insert into t values (1)", []).is_err());
        }
    }

    #[test]
    fn a_promise_that_the_file_does_not_keep_is_found_by_reading_it_back() {
        // In memory there is no WAL, and no word of that when one is asked for.
        let conn = open(Path::new(":memory:"), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        conn.execute_batch(WRITER).unwrap();
        let told = promised(&conn, &[WAL]).unwrap_err().to_string();
        assert!(told.contains("journal_mode is memory, not wal"), "{told}");
    }
}
