//! How connections are opened, for writing and for reading.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, OpenFlags, ffi};

use super::SharedPools;
use super::disk;
use super::files::beside;
use super::location::DatabaseFiles;
use super::options::Synchronous;
use super::types::unknown_value;
use crate::clock::turns;
use crate::digest;
use crate::domain::Domain;
use crate::error::{Doing, Error, Result};
use crate::terms;
use crate::text;

const WRITER: &str = include_str!("../../sql/pragmas/writer.sql");
const READER: &str = include_str!("../../sql/pragmas/reader.sql");
/// Cached prepared statements of a connection; more than there are files in `sql/queries`.
const STATEMENTS: usize = 256;
/// How long a connection waits for a lock of another process; the pragmas set the same time.
pub(super) const BUSY: Duration = Duration::from_secs(3);

/// The page cache of a shared connection.
const SHARED_CACHE_KIB: i32 = 4 * 1024;
/// The page cache of the connection for programs, whose reads hit rows all over the database.
const PROGRAMS_CACHE_KIB: i32 = 16 * 1024;
/// How long a close waits for reads.
pub(super) const LAST_READS: Duration = Duration::from_millis(400);
/// Time between two looks at whether the connections are still used.
const CLOSE_EACH: Duration = Duration::from_millis(5);

/// Required on every connection, whatever SQLite was built with: pragma and value as read back.
const VERIFIED: &[(&str, &str)] = &[
    ("foreign_keys", "1"),
    ("trusted_schema", "0"),
    ("cell_size_check", "1"),
    ("mmap_size", "0"),
    ("busy_timeout", "3000"),
    ("journal_size_limit", "67108864"),
    ("wal_autocheckpoint", "0"),
];
/// Required on each connection that writes, or reads beside one that does.
const WAL: &[(&str, &str)] = &[("journal_mode", "wal")];
/// Required on each read-only connection.
const READ_ONLY: &[(&str, &str)] = &[("query_only", "1")];

/// Opens a connection for writing; the file must exist.
///
/// # Errors
/// [`Error::Unavailable`] if the file can only be read now.
pub(super) fn open_writer(path: &Path, synchronous: Synchronous) -> Result<Connection> {
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.execute_batch(WRITER)?;
    // SQLite silently falls back to reading if it may not write.
    if conn.is_readonly(MAIN_DB)? {
        return Err(Error::Unavailable {
            reason: format!("{} is read-only", path.display()),
        });
    }
    let (word, number) = match synchronous {
        Synchronous::Full => ("full", "2"),
        Synchronous::Normal => ("normal", "1"),
    };
    conn.pragma_update(None, "synchronous", word)?;
    verify_pragmas(&conn, &[VERIFIED, WAL, &[("synchronous", number)]])?;
    Ok(conn)
}

/// Opens a file that no server uses, such as a new one or a copy; creates it if it is missing.
pub(super) fn open_or_create(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let conn = open(path, flags)?;
    conn.execute_batch(WRITER)?;
    verify_pragmas(&conn, &[VERIFIED, WAL, &[("synchronous", "2")]])?;
    Ok(conn)
}

/// Copies the whole WAL into the file, and closes the connection; the last connection deletes the empty WAL.
/// `false` if another process still reads; then the WAL stays and nothing is lost.
///
/// # Errors
/// If the disk cannot be written; the WAL stays then.
pub(super) fn checkpoint_and_close(conn: Connection) -> rusqlite::Result<bool> {
    let busy: i64 = conn.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0))?;
    if busy != 0 {
        return Ok(false);
    }
    // Everything is copied and checked: now the close may delete the WAL.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    conn.close().map_err(|(_, error)| error)?;
    Ok(true)
}

/// Opens a file read-only, so that reading changes nothing.
pub(super) fn open_read_only(path: &Path) -> Result<Connection> {
    open_to_inspect(path).map_err(|error| unreadable(path, error))
}

/// As [`open_read_only`], for a file that is known to be a database: if it cannot be read as one, that is
/// [`Error::Damaged`].
pub(super) fn open_to_inspect(path: &Path) -> Result<Connection> {
    match try_open_read_only(path) {
        Err(Error::Unavailable { .. }) if may_be_immutable(path) => try_open_immutable(path),
        opened => opened,
    }
}

fn try_open_read_only(path: &Path) -> Result<Connection> {
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut ready = conn.execute_batch(READER);
    if let Err(rusqlite::Error::SqliteFailure(error, _)) = &ready
        && error.extended_code == ffi::SQLITE_READONLY_ROLLBACK
    {
        // A process crashed while it switched the file to WAL: the hot journal must be rolled back before anything
        // can be read, which needs a connection that may write.
        open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?.execute_batch(READER)?;
        ready = conn.execute_batch(READER);
    }
    ready?;
    verify_pragmas(&conn, &[VERIFIED, READ_ONLY])?;
    // The first read creates the index of the WAL, for which a full disk may have no space.
    conn.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))?;
    Ok(conn)
}

/// How the file can be read now.
///
/// # Errors
/// If it cannot be read at all.
pub(super) fn read_mode(path: &Path) -> Result<ReadMode> {
    match try_open_read_only(path) {
        Ok(_) => Ok(ReadMode::Shared),
        Err(Error::Unavailable { .. }) if may_be_immutable(path) => {
            open_immutable(path).map(|_| ReadMode::Immutable)
        }
        Err(error) => Err(unreadable(path, error)),
    }
}

/// Whether the file can be read as immutable: its WAL is empty, and no process can fill it, since nothing can be
/// written in this folder now.
pub(super) fn may_be_immutable(path: &Path) -> bool {
    let wal = std::fs::metadata(beside(path, "-wal")).map_or(0, |wal| wal.len());
    wal == 0 && disk::is_unwritable(path)
}

/// Opens a file as immutable, on a disk that cannot be written: without lock, WAL or index.
pub(super) fn open_immutable(path: &Path) -> Result<Connection> {
    try_open_immutable(path).map_err(|error| unreadable(path, error))
}

fn try_open_immutable(path: &Path) -> Result<Connection> {
    let Some(name) = path.to_str() else {
        return Err(Error::Usage(format!(
            "the path {} is not UTF-8",
            path.display()
        )));
    };
    let escaped = name
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let uri = format!("file:{escaped}?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let conn = open(Path::new(&uri), flags)?;
    conn.execute_batch(READER)?;
    verify_pragmas(&conn, &[VERIFIED, READ_ONLY])?;
    conn.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))?;
    Ok(conn)
}

/// The error for the operator about a file that is not a database, or is damaged.
pub(super) fn unreadable(path: &Path, error: Error) -> Error {
    let cause = match error {
        Error::Internal { source, .. } => source.to_string(),
        Error::Damaged { found } => found,
        other => return other,
    };
    Error::State(format!(
        "{} cannot be read as a database ({cause}): restore a backup with `license-server restore FILE`",
        path.display()
    ))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where the pragmas are set"
)]
fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Makes query plans independent of bound values. Without it, SQLite prepares a cached statement again whenever
    // a value is bound that an index is searched for, which is half of its work.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Without it, a close would checkpoint and ignore errors: see `db/checkpoint.rs`.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    register_functions(&conn)?;
    Ok(conn)
}

/// Registers the SQL functions of a connection: `folded(text)`, text as searches compare it (SQLite's own `lower`
/// knows only ASCII and would not find "Käthe" by "KÄTHE"); `sort_key(text)`, text as lists sort it; `composed(text)`, text
/// as it is stored; `slug_of(name)`, a short name for addresses; `spellings(domain)`, a host name in ASCII and in its own
/// script; `digest_of(prefix, field, …)`, the SHA-256 of [`digest::of_fields`]; and `indexed(text)` and
/// `indexed_domain(domain)`: a text and a domain as the search index holds them. Triggers call these and `sort_key`.
pub fn register_functions(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("folded", 1, flags, |given| {
        Ok(text::casefold(given.get_raw(0).as_str()?))
    })?;
    conn.create_scalar_function("composed", 1, flags, |given| {
        Ok(text::to_nfc(given.get_raw(0).as_str()?))
    })?;
    conn.create_scalar_function("slug_of", 1, flags, |given| {
        Ok(text::slug_of(given.get_raw(0).as_str()?))
    })?;
    conn.create_scalar_function("digest_of", -1, flags, |given| {
        let fields = (1..given.len()).map(|at| field_bytes(given.get_raw(at)));
        let fields = fields.collect::<rusqlite::Result<Vec<_>>>()?;
        let fields: Vec<&[u8]> = fields.iter().map(AsRef::as_ref).collect();
        Ok(digest::of_fields(given.get_raw(0).as_blob()?, &fields).to_vec())
    })?;
    conn.create_scalar_function("spellings", 1, flags, |given| {
        Ok(Domain::from_stored(given.get_raw(0).as_str()?).spellings())
    })?;
    // Harmless wherever they are called.
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("sort_key", 1, flags, |given| {
        Ok(text::sort_key(given.get_raw(0).as_str()?))
    })?;
    conn.create_scalar_function("indexed", 1, flags, |given| {
        Ok(terms::indexed(given.get_raw(0).as_str()?))
    })?;
    conn.create_scalar_function("indexed_domain", 1, flags, |given| {
        Ok(terms::indexed_domain(given.get_raw(0).as_str()?))
    })
}

/// A value as `digest_of` reads it: text and blobs as they are, an integer in decimal digits.
fn field_bytes(value: ValueRef<'_>) -> rusqlite::Result<Cow<'_, [u8]>> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(bytes.into()),
        ValueRef::Integer(number) => Ok(number.to_string().into_bytes().into()),
        ValueRef::Null | ValueRef::Real(_) => Err(unknown_value("field of a digest")),
    }
}

fn verify_pragmas(conn: &Connection, wanted: &[&[(&str, &str)]]) -> Result<()> {
    for (name, value) in wanted.iter().copied().flatten() {
        let found = conn.query_row(&format!("pragma {name}"), [], |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Integer(number) => number.to_string(),
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

/// The connections that read.
pub(super) struct ReadPools {
    /// For pages of the panel, jobs and commands.
    pub(super) shared: r2d2::Pool<Readers>,
    /// The one connection of the thread that reads for programs.
    pub(super) for_programs: r2d2::Pool<Readers>,
}

impl ReadPools {
    /// Pools of at most `size` shared connections and one for programs, opened when they are needed.
    pub(super) fn open(location: &Arc<DatabaseFiles>, size: u32, mode: ReadMode) -> Result<Self> {
        let pool = |size, cache_kib| {
            let readers = Readers {
                path: location.path().to_owned(),
                location: location.clone(),
                mode,
                cache_kib,
            };
            readers.pool(size)
        };
        Ok(Self {
            shared: pool(size, SHARED_CACHE_KIB)?,
            for_programs: pool(1, PROGRAMS_CACHE_KIB)?,
        })
    }

    /// Waits until no connection is used any more, at most `patience`: a job that was stopped may still read. The
    /// connections are closed with the pools.
    pub(super) fn close(self, patience: Duration) {
        let is_used = |pool: &r2d2::Pool<Readers>| {
            let state = pool.state();
            state.connections > state.idle_connections
        };
        let turns = patience.as_millis() / CLOSE_EACH.as_millis();
        for _ in 0..turns {
            if !is_used(&self.shared) && !is_used(&self.for_programs) {
                break;
            }
            std::thread::park_timeout(CLOSE_EACH);
        }
    }
}

/// A connection of the pool that `choose` takes of a process's pools; see [`connection`].
///
/// # Errors
/// As [`connection`], and after [`super::Db::close`].
pub(super) fn connection_of(
    pools: &SharedPools,
    choose: fn(&ReadPools) -> &r2d2::Pool<Readers>,
) -> Result<PooledReader> {
    let pools = pools.read().unwrap_or_else(PoisonError::into_inner);
    let pool = pools.as_ref().map(choose).cloned();
    drop(pools);
    let pool = pool.ok_or_else(|| Error::Unavailable {
        reason: "the server is stopping".to_owned(),
    })?;
    connection(&pool)
}

/// A connection of a pool, which is waited for as long as for a lock.
///
/// # Errors
/// [`Error::Unavailable`] with the reason why none could be opened, if there is one.
pub(super) fn connection(pool: &r2d2::Pool<Readers>) -> Result<PooledReader> {
    let mut reason = String::new();
    for turn in turns(BUSY) {
        match pool.get_timeout(turn) {
            Ok(conn) => return Ok(conn),
            // The pool tells a reason once.
            Err(error) if reason.len() <= error.to_string().len() => reason = error.to_string(),
            Err(_) => {}
        }
    }
    Err(Error::Unavailable {
        reason: format!("no read connection is free: {reason}"),
    })
}

/// A connection that returns to its pool.
pub(super) type PooledReader = r2d2::PooledConnection<Readers>;

/// Opens the read-only connections of a pool.
pub(super) struct Readers {
    path: PathBuf,
    location: Arc<DatabaseFiles>,
    mode: ReadMode,
    cache_kib: i32,
}

/// How a file is opened for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadMode {
    /// Beside the connections that write.
    Shared,
    /// As a file that cannot change; see [`open_immutable`].
    Immutable,
}

impl Readers {
    /// A pool of at most `size` connections, opened when they are needed.
    fn pool(self, size: u32) -> Result<r2d2::Pool<Self>> {
        r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(0))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_on_check_out(false)
            .connection_timeout(BUSY)
            .build(self)
            .doing("open the read pool")
    }
}

impl r2d2::ManageConnection for Readers {
    type Connection = Connection;
    type Error = Error;

    fn connect(&self) -> Result<Connection> {
        if self.mode == ReadMode::Immutable {
            return open_immutable(&self.path);
        }
        // Not opened read-only: the first reader of a WAL database may have to create its index.
        let conn = open(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.execute_batch(READER)?;
        verify_pragmas(&conn, &[VERIFIED, WAL, READ_ONLY])?;
        conn.pragma_update(None, "cache_size", -self.cache_kib)?;
        // The path may lead to another file than the one that the writer has open.
        let in_place = self.location.check();
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
    fn every_kind_of_connection_has_the_safe_pragmas() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        let alone = open_or_create(&path).unwrap();
        alone.execute_batch("create table t (x)").unwrap();
        let full = open_writer(&path, Synchronous::Full).unwrap();
        let normal = open_writer(&path, Synchronous::Normal).unwrap();
        let read_only = open_read_only(&path).unwrap();
        let location = Arc::new(DatabaseFiles::new(&path));
        let pools = ReadPools::open(&location, 1, ReadMode::Shared).unwrap();
        let (pooled, for_programs) = (
            pools.shared.get().unwrap(),
            pools.for_programs.get().unwrap(),
        );
        let pooled = [&*pooled, &*for_programs];
        for conn in [&alone, &full, &normal, &read_only]
            .into_iter()
            .chain(pooled)
        {
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
            assert_eq!(of("pragma wal_autocheckpoint"), Ok(0));
            assert_eq!(of("select timeout from pragma_busy_timeout"), Ok(3000));
            let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            assert!(
                conn.db_config(no_checkpoint).unwrap(),
                "a close must not checkpoint"
            );
        }
        let synchronous = [&alone, &full, &normal].map(|conn| value(conn, "synchronous"));
        assert_eq!(synchronous, ["2", "2", "1"]);
        for conn in [&read_only].into_iter().chain(pooled) {
            assert!(conn.execute("insert into t values (1)", []).is_err());
        }
    }

    #[test]
    fn a_pragma_without_effect_is_found_by_reading_it_back() {
        // In-memory databases have no WAL, and SQLite does not report that when WAL is requested.
        let conn = open(Path::new(":memory:"), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        conn.execute_batch(WRITER).unwrap();
        let error = verify_pragmas(&conn, &[WAL]).unwrap_err().to_string();
        assert!(error.contains("journal_mode is memory, not wal"), "{error}");
    }
}
