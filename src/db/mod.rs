//! One SQLite database: one thread writes, a pool of connections reads. SQL text lives in `sql/`, not here.

mod backup;
mod checkpoint;
mod continuity;
mod copy_folder;
mod disk;
mod generation;
mod inspect;
mod location;
mod lock;
mod migrate;
mod pool;
mod presence;
mod sql;
mod types;
mod writer;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Params, Row};

pub use backup::{
    CopyInfo, DatabaseCopy, OldDatabase, PreparedCopy, Restore, Restored, max_restore_size,
};
pub use inspect::Inspected;
pub use location::Rescued;
pub use lock::file_kind;
pub use migrate::SCHEMA;
pub use pool::register_functions;

use crate::clock::{Boot, UnixMs};
use crate::error::{Doing, Error, Result};
use continuity::Continuity;
use copy_folder::CopyFolder;
use generation::Generation;
use location::DatabaseFiles;

/// When a commit counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// After the disk confirms it: a power cut loses nothing that was acknowledged.
    Full,
    /// After the operating system accepted it: a power cut may lose the last commits.
    Normal,
}

/// How to open the database.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database file.
    pub path: PathBuf,
    /// When a commit counts as durable.
    pub synchronous: Synchronous,
    /// Connections in the read pool; at least 1.
    pub read_connections: u32,
}

/// A handle on the database; cheap to clone.
#[derive(Clone)]
pub struct Db {
    writer: writer::Writer,
    thread: Arc<Mutex<Option<writer::Thread>>>,
    /// `None` after [`Db::close`].
    readers: Arc<RwLock<Option<r2d2::Pool<pool::Readers>>>>,
    generation: Arc<Generation>,
    condition: Arc<disk::Condition>,
    path: Arc<Path>,
    location: Arc<DatabaseFiles>,
    /// The server's lock, held as long as the process runs; `None` in a command.
    lock: Option<Arc<lock::Lock>>,
    /// The server's socket for commands; `None` in a command.
    _presence: Option<Arc<presence::Presence>>,
    _users: Arc<lock::Users>,
}

/// Tries to write a file beside the database at `path`, and removes it again.
///
/// # Errors
/// The error of the operating system, if the file cannot be written.
pub fn probe(path: &Path) -> std::io::Result<()> {
    disk::probe(path)
}

/// Read-only access.
pub struct Reader<'a> {
    conn: &'a Connection,
    generation: &'a Generation,
}

/// Runs after the commit of an operation.
type Hook = Box<dyn FnOnce() + Send>;

/// Read-write access inside one transaction: all changes of an operation are committed or none is.
pub struct Tx<'a> {
    reader: Reader<'a>,
    after: RefCell<Vec<Hook>>,
    invalidates: Cell<bool>,
}

impl Db {
    /// Opens the database for the server, of which there is at most one: creates the file if it is absent,
    /// migrates it, and holds its lock until the last handle is dropped.
    ///
    /// # Errors
    /// [`Error::State`] if another server has it open, if its schema is newer than this program, if it existed
    /// before and is missing now, or if it lacks changes that the last server acknowledged. Nothing is changed
    /// then.
    pub fn open_as_server(options: &Options) -> Result<Self> {
        let path = lock::resolved(&options.path)?;
        lock::check_path(&path)?;
        let lock = lock::Lock::take(&path)?;
        let continuity = Continuity::of(&path, &lock.previous(), options.synchronous)?;
        if let Some(message) = continuity.acceptable()? {
            log::error!("{message}");
        }
        migrate::to_latest(&path, &lock)?;
        // Resolved again: the file exists only now, and its path may contain a symbolic link.
        Self::start(options, lock::resolved(&path)?, Some(Arc::new(lock)))
    }

    /// Opens the database for a command, with or without a running server.
    ///
    /// # Errors
    /// As [`Db::open_as_server`]; an older schema is migrated only while no server runs. [`Error::State`] if the
    /// running server has another file open than the one at the path.
    pub fn open_as_command(options: &Options) -> Result<Self> {
        let path = lock::resolved(&options.path)?;
        lock::check_path(&path)?;
        location::is_served_from(&path)?;
        if !lock::is_taken(&path)? {
            let previous = lock::Previous::read(&path)?;
            Continuity::of(&path, &previous, options.synchronous)?.acceptable()?;
        }
        if !migrate::is_latest(&path)? {
            let lock = lock::Lock::take(&path)?;
            migrate::to_latest(&path, &lock)?;
        }
        Self::start(options, lock::resolved(&path)?, None)
    }

    fn start(options: &Options, path: PathBuf, lock: Option<Arc<lock::Lock>>) -> Result<Self> {
        let users = lock::Users::shared(&path)?;
        let location = Arc::new(DatabaseFiles::new(&path));
        let immutable = pool::needs_immutable(&path)?;
        let readers = pool::Readers::pool(location.clone(), options.read_connections, immutable)?;
        let readers = Arc::new(RwLock::new(Some(readers)));
        let condition = Arc::<disk::Condition>::default();
        let context = writer::Context {
            location: location.clone(),
            generation: Arc::default(),
            condition: condition.clone(),
        };
        let generation = context.generation.clone();
        let opening = Opening {
            location: location.clone(),
            options: options.clone(),
            condition: condition.clone(),
            lock: lock.clone(),
            readers: readers.clone(),
            check_disk: immutable,
            is_retry: false,
        };
        let opened = opening.first()?;
        if matches!(opened, writer::Opened::Ready(_)) {
            // Open one connection now: if the file is moved away later, a backup needs a connection that is
            // already open.
            let pool = readers.read().unwrap_or_else(PoisonError::into_inner);
            let first = pool.as_ref().map(r2d2::Pool::get).transpose();
            drop(first.doing("open a read connection")?);
        }
        let (writer, thread) = writer::Writer::start(opened, context)?;
        let presence = lock
            .as_ref()
            .map(|_| Arc::new(presence::Presence::announce(&options.path, &location)));
        Ok(Self {
            writer,
            thread: Arc::new(Mutex::new(Some(thread))),
            readers,
            generation,
            condition,
            path: path.into(),
            location,
            lock,
            _presence: presence,
            _users: Arc::new(users),
        })
    }

    /// Whether a server has the database open, this process or another one.
    ///
    /// # Errors
    /// If the lock file cannot be read.
    pub fn is_served(&self) -> Result<bool> {
        lock::is_taken(&self.path)
    }

    /// Writes to the lock file that the database contains changes up to `seen`.
    pub fn note_latest_date(&self, seen: UnixMs) {
        let noted = self
            .lock
            .as_ref()
            .map_or(Ok(()), |lock| lock.note_latest_date(seen));
        if let Err(error) = noted {
            log::debug!("the latest date was not written to the lock file: {error}");
        }
    }

    /// The boot of the machine in which a server of this database last trusted the system clock.
    ///
    /// # Errors
    /// If the lock file cannot be read.
    pub fn trusted_boot(&self) -> Result<Option<Boot>> {
        lock::trusted_boot(&self.path)
    }

    /// Writes to the lock file in which boot the system clock is trusted; `None` while it is not.
    pub fn note_trusted_boot(&self, boot: Option<Boot>) {
        let noted = self
            .lock
            .as_ref()
            .map_or(Ok(()), |lock| lock.note_trusted_boot(boot));
        if let Err(error) = noted {
            log::debug!("whether the clock is trusted was not written to the lock file: {error}");
        }
    }

    /// The path of the database file, with links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in the writer thread and returns after its commit.
    ///
    /// `work` must be quick: every other write waits for it. `name`, as `<module>.<verb>`, appears in log lines.
    ///
    /// # Errors
    /// What `work` returns (its changes are rolled back then), or [`Error::Unavailable`] if the database cannot be
    /// written now. Whether the changes were committed is then unknown; no caller was told that they were.
    pub async fn write<T, F>(&self, name: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let answer = self.writer.queue(work)?.await;
        answer
            .unwrap_or_else(|_| Err(writer::no_answer()))
            .inspect_err(|error| self.note(name, error))
    }

    /// Runs `work` in the writer thread, between two transactions: what it reads does not change in this process
    /// until it returns. It needs no space on the disk and is not affected by failing writes.
    ///
    /// # Errors
    /// What `work` returns, or [`Error::Unavailable`] if the database cannot be read now.
    pub async fn read_on_writer<T, F>(&self, name: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let answer = self.writer.queue_read(work)?.await;
        answer
            .unwrap_or_else(|_| Err(writer::no_answer()))
            .inspect_err(|error| self.note(name, error))
    }

    /// Runs `work` at the beginning of the first transaction of this process. It is repeated with each transaction
    /// until one is committed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the queue is full or the server is stopping.
    pub fn write_first<F>(&self, work: F) -> Result<()>
    where
        F: Fn(&Tx<'_>) -> Result<()> + Send + 'static,
    {
        self.writer.queue_first(Box::new(work))
    }

    /// [`Db::write`] for synchronous code: a command.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub fn write_blocking<T, F>(&self, name: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let answer = self.writer.queue(work)?.blocking_recv();
        answer
            .unwrap_or_else(|_| Err(writer::no_answer()))
            .inspect_err(|error| self.note(name, error))
    }

    /// Runs `work` on a pooled connection that cannot write.
    ///
    /// What it reads may be outdated when it returns: an operation that writes must read again inside its own
    /// transaction.
    ///
    /// # Errors
    /// What `work` returns, or [`Error::Unavailable`] if no connection is free.
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let db = self.clone();
        tokio::task::spawn_blocking(move || db.read_blocking(work))
            .await
            .doing("join a read")?
    }

    /// [`Db::read`] for synchronous code: a command.
    ///
    /// # Errors
    /// As [`Db::read`].
    pub fn read_blocking<T>(&self, work: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
        let readers = self
            .readers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let readers = readers.ok_or_else(|| Error::Unavailable {
            reason: "the server is stopping".to_owned(),
        })?;
        let conn = readers.get().map_err(|error| Error::Unavailable {
            reason: format!("no read connection is free: {error}"),
        })?;
        // One transaction, so that all queries of `work` see the same state.
        let read_tx = conn.unchecked_transaction()?;
        let result = work(&Reader {
            conn: &conn,
            generation: &self.generation,
        });
        read_tx.finish()?;
        result.inspect_err(|error| self.note("read", error))
    }

    /// Waits until a disk error makes further writes of this process unsafe; the process must end then. For one
    /// listener.
    pub async fn disk_failure(&self) {
        self.condition.failure().await;
    }

    /// Whether the disk has failed; see [`Db::disk_failure`].
    pub fn disk_has_failed(&self) -> bool {
        self.condition.has_failed()
    }

    /// The damage that a query or [`Db::inspect`] found in the database, if any.
    pub fn damage(&self) -> Option<String> {
        self.condition.damage()
    }

    /// Checks the whole database, slowly; stops when the future is dropped. [`Db::damage`] reports the result from
    /// then on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database cannot be read now.
    pub async fn inspect(&self) -> Result<Inspected> {
        let (location, condition) = (self.location.clone(), self.condition.clone());
        inspect::Inspection::begin(location, condition)?.end().await
    }

    /// The current generation; see [`Reader::generation`].
    pub fn generation(&self) -> u64 {
        self.generation.number()
    }

    /// Waits until another process, or a call of [`Tx::invalidate_caches`], begins a new generation. For one
    /// listener.
    pub async fn generation_changed(&self) {
        self.generation.changed().await;
    }

    /// Makes a consistent copy of the database while the server runs; `read` is called with a reader of the copy. The copy is in the
    /// folder `target` if that is given and has space, else in another folder.
    ///
    /// # Errors
    /// If there is no space for the copy, or the copy is damaged; it is deleted then.
    pub fn copy<T>(
        &self,
        target: Option<&Path>,
        read: impl FnOnce(&Reader<'_>) -> Result<T>,
    ) -> Result<(DatabaseCopy, T)> {
        let folders = CopyFolder::of(&self.path, target);
        if self.location.check().is_ok() {
            let conn = pool::open_read_only(&self.path)?;
            return backup::make_copy(&conn, &folders, read);
        }
        // The file was moved or replaced: only connections that are already open read the right one.
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        let open = readers.as_ref().and_then(|readers| readers.get().ok());
        let conn = open.ok_or_else(|| Error::Unavailable {
            reason: "no read connection is free".to_owned(),
        })?;
        let made = backup::make_copy(&conn, &folders, read);
        conn.execute_batch("pragma query_only = on")?;
        made
    }

    /// Finishes the queued writes, checkpoints, and ends the writer thread. Waits at most `patience`, since
    /// another process may hold a lock. Later reads and writes are refused.
    pub fn close(&self, patience: Duration) {
        // Readers first: SQLite deletes the WAL when the last connection is closed, which must be the writer's.
        *self.readers.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.writer.stop();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && !thread.ended_within(patience)
        {
            log::warn!(
                "another process holds the database: the next start makes the last checkpoint"
            );
        }
    }
}

/// Whether the path leads to the database that a running server has open, or no server runs.
///
/// # Errors
/// [`Error::State`] where it leads elsewhere; it says what to do.
pub fn check_served_file(path: &Path) -> Result<()> {
    location::is_served_from(&lock::resolved(path)?)
}

/// Whether `path` is free or holds a license-server database. Changes nothing.
///
/// # Errors
/// [`Error::State`] for anything else; the text says what it is.
pub fn check_path(path: &Path) -> Result<()> {
    lock::check_path(&lock::resolved(path)?)
}

/// Accepts the database at `path` although the last server had another file open, or acknowledged changes that
/// this one lacks. Returns the path to which the WAL of another database was moved, if there was one.
///
/// # Errors
/// [`Error::State`] while a server or a command uses the database, or if there is none.
pub fn accept_database(path: &Path, stamp: &str) -> Result<Option<PathBuf>> {
    continuity::accept(path, stamp)
}

/// Copies the database that a running server has open although it is no longer at `path`. The copy is in the
/// folder `target` if that is given and has space, else in another folder.
///
/// # Errors
/// [`Error::State`] if the open files cannot be read.
pub fn rescue(path: &Path, target: Option<&Path>) -> Result<Rescued> {
    location::rescue(&lock::resolved(path)?, &CopyFolder::of(path, target))
}

/// Opens the database for the writer thread: at once, or as soon as the disk can be written.
struct Opening {
    location: Arc<DatabaseFiles>,
    options: Options,
    condition: Arc<disk::Condition>,
    lock: Option<Arc<lock::Lock>>,
    /// Replaced once the disk can be written: the first ones may have been opened as immutable.
    readers: Arc<RwLock<Option<r2d2::Pool<pool::Readers>>>>,
    is_retry: bool,
    /// Whether the disk could not be written at the start: then that is checked before anything is opened.
    check_disk: bool,
}

impl Opening {
    fn first(mut self) -> Result<writer::Opened> {
        match self.open() {
            Ok(ready) => Ok(writer::Opened::Ready(ready)),
            Err(Error::Unavailable { reason }) => Ok(writer::Opened::Waiting(writer::Waiting {
                conn: None,
                reason: format!("the database cannot be written: {reason}"),
                open: Box::new(move || self.open()),
            })),
            Err(error) => Err(error),
        }
    }

    fn open(&mut self) -> Result<writer::Ready> {
        let open = || pool::open_writer(self.location.path(), self.options.synchronous);
        let is_retry = std::mem::replace(&mut self.is_retry, true);
        if (is_retry || self.check_disk) && disk::is_unwritable(self.location.path()) {
            return Err(Error::Unavailable {
                reason: "the disk is full or read-only".to_owned(),
            });
        }
        if is_retry || self.check_disk {
            self.renew_readers()?;
        }
        let conn = open()?;
        // A first read, so that SQLite creates the WAL and its index.
        conn.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))?;
        let parts = self
            .location
            .record_files(self.lock.as_ref().map(|lock| lock.own()))?;
        let checkpoints = match &self.lock {
            None => None,
            Some(lock) => {
                lock.refresh()?;
                lock.note_parts(parts)?;
                let condition = self.condition.clone();
                Some(checkpoint::Checkpoints::start(
                    open()?,
                    self.location.path(),
                    condition,
                )?)
            }
        };
        Ok(writer::Ready { conn, checkpoints })
    }

    fn renew_readers(&self) -> Result<()> {
        let pool =
            pool::Readers::pool(self.location.clone(), self.options.read_connections, false)?;
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        if readers.is_some() {
            *readers = Some(pool);
        }
        Ok(())
    }
}

impl Db {
    /// Logs failures; refusals are not logged.
    fn note(&self, name: &str, error: &Error) {
        match error {
            Error::Damaged { found } => self.condition.note_damage(found),
            Error::Unavailable { .. } | Error::Internal { .. } => log::debug!("{name}: {error}"),
            _ => {}
        }
    }
}

impl Reader<'_> {
    /// The single row of `sql`; no row is an error.
    pub fn one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        Ok(self.conn.prepare_cached(sql)?.query_row(params, row)?)
    }

    /// The row of `sql`; `None` if there is none.
    pub fn maybe<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row(params, row)
            .optional()?)
    }

    /// All rows of `sql`, in its order.
    pub fn list<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params, row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The generation in which this read began: data cached from it is valid until the number changes.
    pub fn generation(&self) -> u64 {
        self.generation.number()
    }

    /// Objects in the schema that this program did not create, and those that are missing; empty if the schema is
    /// as it should be.
    pub fn foreign_objects(&self) -> Result<Vec<String>> {
        migrate::foreign_objects(self.conn, SCHEMA)
    }

    /// The problems that SQLite finds in the database; empty if it is sound. Reads the whole file.
    pub fn integrity(&self) -> Result<Vec<String>> {
        let mut found = self.list("pragma integrity_check(20)", [], |row| {
            row.get::<_, String>(0)
        })?;
        found.retain(|line| line != "ok");
        let orphans = self.list("pragma foreign_key_check", [], |row| {
            Ok(format!(
                "a row of {} refers to a row that does not exist",
                row.get::<_, String>(0)?
            ))
        })?;
        found.extend(orphans.into_iter().take(20));
        Ok(found)
    }
}

impl<'a> Tx<'a> {
    fn new(reader: Reader<'a>) -> Self {
        Self {
            reader,
            after: RefCell::default(),
            invalidates: Cell::default(),
        }
    }

    /// Runs `sql` and returns the number of changed rows.
    pub fn run(&self, sql: &'static str, params: impl Params) -> Result<usize> {
        Ok(self.conn.prepare_cached(sql)?.execute(params)?)
    }

    /// Runs `sql`, an insert, and returns the row id.
    pub fn insert(&self, sql: &'static str, params: impl Params) -> Result<i64> {
        Ok(self.conn.prepare_cached(sql)?.insert(params)?)
    }

    /// Runs `hook` after the commit, before the caller gets its result; never, if the operation is rolled back.
    pub fn after_commit(&self, hook: impl FnOnce() + Send + 'static) {
        self.after.borrow_mut().push(Box::new(hook));
    }

    /// Begins a new generation with this commit: what other parts of the process cached from the database is no
    /// longer valid.
    pub fn invalidate_caches(&self) {
        self.invalidates.set(true);
    }
}

impl<'a> std::ops::Deref for Tx<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        disk::classify(source)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ErrorCode;

    use super::*;

    const ADD: &str = "insert into feature_flags (name, description, enabled, share_percent, updated_at_ms) \
                       values (hex(randomblob(8)), '', 1, 100, 0)";

    fn with_new_database<T>(test: impl AsyncFnOnce(Db) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        let options = Options {
            path,
            synchronous: Synchronous::Full,
            read_connections: 2,
        };
        let db = Db::open_as_server(&options).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(test(db))
    }

    async fn count(db: &Db) -> i64 {
        db.read(|r| r.one("select count(*) from feature_flags", [], |row| row.get(0)))
            .await
            .unwrap()
    }

    /// Overwrites the start of the first page after its header, which only reading the file itself detects.
    fn overwrite_first_page(path: &Path) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0; 200], 100).unwrap();
    }

    #[test]
    fn damage_is_noted_and_a_sound_file_in_its_place_does_not_clear_it() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            path: dir.path().join("t.sqlite3"),
            synchronous: Synchronous::Full,
            read_connections: 1,
        };
        Db::open_as_server(&options)
            .unwrap()
            .close(Duration::from_secs(10));
        let db = Db::open_as_server(&options).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        let sound = runtime.block_on(db.inspect()).unwrap();
        assert!(sound.found.is_empty() && db.damage().is_none());
        overwrite_first_page(db.path());
        let error = runtime.block_on(db.inspect()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(db.damage().is_some());
        // A sound file that replaced it says nothing about the database.
        let other = dir.path().join("other.sqlite3");
        let aside = Options {
            path: other.clone(),
            ..options.clone()
        };
        Db::open_as_server(&aside)
            .unwrap()
            .close(Duration::from_secs(10));
        std::fs::rename(other, db.path()).unwrap();
        let error = runtime.block_on(db.inspect()).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(db.damage().is_some());
    }

    #[test]
    fn a_failing_write_undoes_only_itself_and_a_panic_kills_nothing() {
        with_new_database(async |db| {
            let kept = db.write("t.keep", |tx| tx.run(ADD, []));
            let undone = db.write("t.undo", |tx| {
                tx.run(ADD, [])?;
                Err::<(), _>(Error::not_found("reason", ""))
            });
            let panics = db.write("t.panic", |tx| {
                tx.run(ADD, [])?;
                assert!(tx.run(ADD, []).is_err(), "in the writer");
                Ok(())
            });
            let all = tokio::join!(kept, undone, panics);
            assert!(all.0.is_ok() && all.1.is_err());
            assert!(matches!(all.2, Err(Error::Internal { .. })));
            assert_eq!(count(&db).await, 1);
        });
    }

    #[test]
    fn a_dropped_caller_does_not_stop_the_writer() {
        with_new_database(async |db| {
            let mut gone = Box::pin(db.write("t.gone", |tx| tx.run(ADD, [])));
            std::future::poll_fn(|cx| {
                assert!(Future::poll(gone.as_mut(), cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            drop(gone);
            db.write("t.next", |tx| tx.run(ADD, [])).await.unwrap();
            assert_eq!(count(&db).await, 2);
        });
    }

    #[test]
    fn a_reader_cannot_write() {
        with_new_database(async |db| {
            let result = db.read(|r| r.list(ADD, [], |_| Ok(())).map(drop)).await;
            assert!(
                matches!(result, Err(Error::Unavailable { .. })),
                "read-only"
            );
            assert_eq!(count(&db).await, 0);
        });
    }

    #[test]
    fn hooks_run_only_for_committed_operations() {
        with_new_database(async |db| {
            let (send, received) = std::sync::mpsc::channel();
            for keep in [true, false] {
                let send = send.clone();
                let done = db.write("t.hook", move |tx| {
                    tx.after_commit(move || send.send(keep).unwrap());
                    tx.run(ADD, [])?;
                    keep.then_some(())
                        .ok_or_else(|| Error::not_found("reason", ""))
                });
                assert_eq!(done.await.is_ok(), keep);
            }
            drop(send);
            assert_eq!(received.iter().collect::<Vec<_>>(), [true]);
        });
    }

    #[test]
    fn only_invalidations_and_other_processes_begin_a_new_generation() {
        with_new_database(async |db| {
            db.write("t.quiet", |tx| tx.run(ADD, [])).await.unwrap();
            let previous = db.generation();
            db.write("t.quiet", |tx| tx.run(ADD, [])).await.unwrap();
            assert_eq!(db.generation(), previous);
            db.write("t.loud", |tx| {
                tx.invalidate_caches();
                tx.run(ADD, [])
            })
            .await
            .unwrap();
            assert_eq!(db.generation(), previous + 1);
            let outside = pool::open_writer(db.path(), Synchronous::Full).unwrap();
            outside.execute(ADD, []).unwrap();
            db.write("t.quiet", |tx| tx.run(ADD, [])).await.unwrap();
            assert_eq!(db.generation(), previous + 2);
        });
    }

    #[test]
    fn an_operation_locks_out_other_writers_before_its_first_read() {
        with_new_database(async |db| {
            let outside = pool::open_writer(db.path(), Synchronous::Full).unwrap();
            outside.busy_timeout(Duration::ZERO).unwrap();
            let kept_out = db.write("t.lock", move |_| {
                let result = outside.execute_batch("begin immediate");
                Ok(result.unwrap_err().sqlite_error_code())
            });
            assert_eq!(kept_out.await.unwrap(), Some(ErrorCode::DatabaseBusy));
        });
    }

    #[test]
    fn a_write_behind_a_foreign_lock_is_refused_and_works_later() {
        with_new_database(async |db| {
            let outside = pool::open_writer(db.path(), Synchronous::Full).unwrap();
            outside.execute_batch("begin immediate").unwrap();
            let refused = db.write("t.blocked", |tx| tx.run(ADD, [])).await;
            assert!(matches!(refused, Err(Error::Unavailable { .. })));
            outside.execute_batch("rollback").unwrap();
            db.write("t.free", |tx| tx.run(ADD, [])).await.unwrap();
            assert_eq!(count(&db).await, 1, "the refused write had no effect");
        });
    }
}
