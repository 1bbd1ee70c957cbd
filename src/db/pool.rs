//! How a connection is opened, for writing and for reading.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags};

use super::Synchronous;
use crate::error::{Doing, Error, Result};

const WRITER: &str = include_str!("../../sql/pragmas/writer.sql");
const READER: &str = include_str!("../../sql/pragmas/reader.sql");
/// Prepared statements kept by a connection; more than there are files in `sql/queries`.
const STATEMENTS: usize = 256;

/// What must hold on every connection, whatever SQLite was built with: name and value as read back.
const PROMISED: &[(&str, &str)] = &[
    ("journal_mode", "wal"),
    ("foreign_keys", "1"),
    ("trusted_schema", "0"),
    ("cell_size_check", "1"),
    ("mmap_size", "0"),
    ("busy_timeout", "3000"),
];

/// Opens the one connection that writes; the file must exist.
pub(super) fn open_writer(path: &Path, synchronous: Synchronous) -> Result<Connection> {
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.execute_batch(WRITER)?;
    let (word, number) = match synchronous {
        Synchronous::Full => ("full", "2"),
        Synchronous::Normal => ("normal", "1"),
    };
    conn.pragma_update(None, "synchronous", word)?;
    promised(&conn, PROMISED)?;
    promised(&conn, &[("synchronous", number)])?;
    Ok(conn)
}

/// Opens a file that is no server's yet, or no longer: a new one, a copy.
pub(super) fn open_alone(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let conn = open(path, flags)?;
    conn.execute_batch(WRITER)?;
    Ok(conn)
}

/// Opens a file only to look at it, and so that looking changes nothing.
pub(super) fn open_to_look(path: &Path) -> Result<Connection> {
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.execute_batch(READER)
        .map_err(|error| unreadable(path, error))?;
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

/// Gives a connection `folded(text)`: text as searches compare it. SQLite's own `lower` knows no letters
/// but those of English, and would not find "Käthe" by "KÄTHE".
///
/// # Errors
/// When SQLite does not take it.
pub fn teach(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("folded", 1, flags, |given| {
        Ok(given.get_raw(0).as_str()?.to_lowercase())
    })
}

fn promised(conn: &Connection, wanted: &[(&str, &str)]) -> Result<()> {
    for (name, value) in wanted {
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
}

impl Readers {
    /// A pool of at most `size` connections, opened when they are needed.
    pub(super) fn pool(path: &Path, size: u32) -> Result<r2d2::Pool<Self>> {
        let manager = Self {
            path: path.to_owned(),
        };
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
        promised(&conn, PROMISED)?;
        promised(&conn, &[("query_only", "1")])?;
        Ok(conn)
    }

    fn is_valid(&self, conn: &mut Connection) -> Result<()> {
        Ok(conn.query_row("select 1", [], |_| Ok(()))?)
    }

    fn has_broken(&self, conn: &mut Connection) -> bool {
        !conn.is_autocommit()
    }
}
