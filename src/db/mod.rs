//! One SQLite database: one thread writes, a pool of connections reads. SQL text lives in `sql/`, not here.

mod background;
mod batch_reader;
mod changes;
mod checkpoint;
mod columns;
mod continuity;
mod copy;
mod copy_folder;
mod disk;
mod failure_log;
mod files;
mod generation;
mod inspect;
mod location;
mod lock;
mod migrate;
mod opening;
mod options;
mod path_check;
mod pool;
mod presence;
mod queue;
mod reader;
mod rescue;
mod restore;
mod schema;
mod search_index;
mod sql;
mod types;
mod users;
mod vacuum;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

pub use background::{in_background, lower_priority};
pub use columns::{Columns, FromColumns, from_row};
pub use copy::{CopyInfo, DatabaseCopy};
pub use disk::{is_damaged_index, remedy};
pub use inspect::Inspected;
pub use options::{Options, Synchronous};
pub use path_check::file_kind;
pub use pool::register_functions;
pub use reader::{Reader, Tx};
pub use rescue::Rescued;
pub use restore::{OldDatabase, PreparedCopy, Restore, Restored, max_restore_size};
pub use schema::SCHEMA;
pub use search_index::Reindexed;
pub use types::{id_list, unknown_value};
pub use vacuum::Vacuumed;

use rusqlite::Connection;
use tokio::sync::oneshot::error::RecvError;

use crate::clock::{Boot, UnixMs};
use crate::error::{Error, Result};
use crate::id::LicenseId;
use batch_reader::BatchReader;
use changes::LicenseChanges;
use continuity::Continuity;
use copy_folder::CopyFolder;
use generation::Generation;
use location::DatabaseFiles;
use opening::Opening;
use queue::ReadJob;

/// The pools of a process; `None` after [`Db::close`].
type SharedPools = Arc<RwLock<Option<pool::ReadPools>>>;

/// A handle on the database; cheap to clone.
#[derive(Clone)]
pub struct Db {
    writer: queue::Writer,
    batch_reader: BatchReader,
    thread: Arc<Mutex<Option<writer::Thread>>>,
    readers: SharedPools,
    generation: Arc<Generation>,
    changes: Arc<LicenseChanges>,
    condition: Arc<disk::Condition>,
    path: Arc<Path>,
    location: Arc<DatabaseFiles>,
    /// The server's lock, held as long as the process runs; `None` in a command.
    lock: Option<Arc<lock::Lock>>,
    /// The server's socket for commands; `None` in a command.
    _presence: Option<Arc<presence::Presence>>,
    _users: Arc<users::Users>,
}

/// A state of the database in the sequence of its changes.
#[derive(Clone, Copy, Debug)]
pub struct ReadPoint {
    generation: u64,
    changes: u64,
}

/// Tries to write a file beside the database at `path`, and removes it again.
///
/// # Errors
/// The error of the operating system, if the file cannot be written.
pub fn probe(path: &Path) -> std::io::Result<()> {
    disk::probe(path)
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
        let path = files::resolved(&options.path)?;
        path_check::check_path(&path)?;
        let lock = lock::Lock::take(&path)?;
        let continuity = Continuity::of(&path, &lock.previous(), options.synchronous)?;
        if let Some(message) = continuity.acceptable()? {
            log::error!("{message}");
        }
        migrate::to_latest(&path, &lock)?;
        remove_unfinished_copies(&path);
        // Resolved again: the file exists only now, and its path may contain a symbolic link.
        Self::start(options, files::resolved(&path)?, Some(Arc::new(lock)))
    }

    /// Opens the database for a command, with or without a running server.
    ///
    /// # Errors
    /// As [`Db::open_as_server`]; an older schema is migrated only while no server runs. [`Error::State`] if the
    /// running server has another file open than the one at the path.
    pub fn open_as_command(options: &Options) -> Result<Self> {
        let path = files::resolved(&options.path)?;
        path_check::check_path(&path)?;
        rescue::is_served_from(&path)?;
        if !lock::is_taken(&path)? {
            let previous = lock::Previous::read(&path)?;
            Continuity::of(&path, &previous, options.synchronous)?.acceptable()?;
        }
        if !migrate::is_latest(&path)? {
            let lock = lock::Lock::take(&path)?;
            migrate::to_latest(&path, &lock)?;
        }
        Self::start(options, files::resolved(&path)?, None)
    }

    fn start(options: &Options, path: PathBuf, lock: Option<Arc<lock::Lock>>) -> Result<Self> {
        let users = users::Users::shared(&path)?;
        let location = Arc::new(DatabaseFiles::new(&path));
        let read_mode = pool::read_mode(&path)?;
        let readers = pool::ReadPools::open(&location, options.read_connections, read_mode)?;
        let readers = Arc::new(RwLock::new(Some(readers)));
        let context = writer::Context::of(location.clone());
        let (generation, condition) = (context.generation.clone(), context.condition.clone());
        let changes = context.changes.clone();
        let opened = Opening {
            location: location.clone(),
            options: options.clone(),
            condition: condition.clone(),
            lock: lock.clone(),
            readers: readers.clone(),
            check_disk: read_mode == pool::ReadMode::Immutable,
            is_retry: false,
        }
        .first()?;
        let batch_reader = BatchReader::start(readers.clone(), generation.clone())?;
        let (writer, thread) = writer::start(opened, context)?;
        let announce = |_| Arc::new(presence::Presence::announce(&options.path, &location));
        let presence = lock.as_ref().map(announce);
        Ok(Self {
            writer,
            batch_reader,
            thread: Arc::new(Mutex::new(Some(thread))),
            readers,
            generation,
            changes,
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
        self.noted(name, self.writer.queue(work)?.await)
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
        self.noted(name, self.writer.queue_read(work)?.await)
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
        self.noted(name, self.writer.queue(work)?.blocking_recv())
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
        let (read, answer) = queue::read_job(work);
        let db = self.clone();
        tokio::task::spawn_blocking(move || db.run_read(read));
        self.noted("read", answer.await)
    }

    /// [`Db::read`] for a request of a program: quick, and one of many. It shares a transaction with those that wait at
    /// the same time; see `db/batch_reader.rs`.
    ///
    /// # Errors
    /// What `work` returns, or [`Error::Unavailable`] if the database cannot be read now or too many wait.
    pub async fn read_for_program<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        self.noted("read", self.batch_reader.queue(work)?.await)
    }

    /// [`Db::read`] for synchronous code: a command.
    ///
    /// # Errors
    /// As [`Db::read`].
    pub fn read_blocking<T>(&self, work: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
        let read = |conn: &Connection| {
            // One transaction, so that all queries see the same state.
            let read_tx = conn.unchecked_transaction()?;
            let result = work(&Reader {
                conn,
                generation: &self.generation,
            });
            let ended = read_tx.finish();
            let found = result?;
            ended?;
            Ok(found)
        };
        self.reading_connection()
            .and_then(|conn| read(&conn))
            .inspect_err(|error| self.note("read", error))
    }

    /// Runs a read on a pooled connection. It takes the place of [`Db::read_blocking`] where that would be compiled once
    /// for each read of the panel.
    fn run_read(&self, read: ReadJob) {
        match self.reading_connection() {
            Ok(conn) => queue::run_reads(&conn, &self.generation, vec![read], || {}),
            Err(error) => read(Err(&error.to_string())),
        }
    }

    fn reading_connection(&self) -> Result<pool::PooledReader> {
        pool::connection_of(&self.readers, |pools| &pools.shared)
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

    /// The state that a read sees at least if it begins now; see [`Db::is_current`].
    pub fn read_point(&self) -> ReadPoint {
        ReadPoint {
            generation: self.generation.number(),
            changes: self.changes.count(),
        }
    }

    /// Whether what a read found out about `license`, and about its devices and its session, is still true: this process
    /// has not changed it since `point`, which was taken before the read. What other processes change is noticed within a
    /// second.
    pub fn is_current(&self, license: LicenseId, point: ReadPoint) -> bool {
        point.generation == self.generation.number()
            && !self.changes.changed_since(license, point.changes)
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
            return copy::make_copy(&conn, &folders, read);
        }
        // The file was moved or replaced: only connections that are already open read the right one.
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        let pools = readers
            .as_ref()
            .ok_or_else(|| queue::unavailable("the server is stopping"))?;
        let conn = pool::connection(&pools.shared)?;
        let made = copy::make_copy(&conn, &folders, read);
        conn.execute_batch("pragma query_only = on")?;
        made
    }

    /// Rewrites the database and empties its WAL, so that nothing of what was deleted is left in them. Other writes wait
    /// meanwhile, those of a running server too.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the disk is full or another program writes; [`Error::State`] if another program reads
    /// the WAL.
    pub fn vacuum(&self) -> Result<Vacuumed> {
        vacuum::vacuum(&self.path)
    }

    /// Makes the index of the search anew. Other writes wait meanwhile.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the disk is full or another program writes.
    pub fn reindex(&self) -> Result<Reindexed> {
        search_index::rebuild(&self.path)
    }

    /// Finishes the queued writes, checkpoints, and ends the writer thread. Waits at most `patience`, since
    /// another process may hold a lock, and a moment for reads. Later reads and writes are refused.
    pub fn close(&self, patience: Duration) {
        // Readers first: SQLite deletes the WAL when the last connection is closed, which must be the writer's.
        let readers = self
            .readers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(readers) = readers {
            readers.close(patience.min(pool::LAST_READS));
        }
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

/// Deletes copies of the database at `path` that killed processes left unfinished: they hold everything, and no erasure
/// reaches them. The caller holds the lock.
fn remove_unfinished_copies(path: &Path) {
    let folder = files::folder_of(path);
    let removed =
        path_check::remove_unfinished_copies(path).and_then(|()| copy::remove_unfinished(&folder));
    if let Err(error) = removed {
        // A full or read-only disk must not prevent the start.
        log::warn!("unfinished copies of the database were not deleted: {error}");
    }
}

/// Whether the path leads to the database that a running server has open, or no server runs.
///
/// # Errors
/// [`Error::State`] where it leads elsewhere; it says what to do.
pub fn check_served_file(path: &Path) -> Result<()> {
    rescue::is_served_from(&files::resolved(path)?)
}

/// Whether `path` is free or holds a license-server database. Changes nothing.
///
/// # Errors
/// [`Error::State`] for anything else; the text says what it is.
pub fn check_path(path: &Path) -> Result<()> {
    path_check::check_path(&files::resolved(path)?)
}

/// Reads a database that this process has not opened, such as a copy, whatever its schema is.
///
/// # Errors
/// What `work` returns, or [`Error::State`] if it cannot be read.
pub fn read_file<T>(path: &Path, work: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
    let (conn, generation) = (pool::open_read_only(path)?, &Generation::default());
    work(&Reader {
        conn: &conn,
        generation,
    })
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
    rescue::rescue(&files::resolved(path)?, &CopyFolder::of(path, target))
}

impl Db {
    /// The answer of one of the threads, if it gave one; failures are logged.
    fn noted<T>(&self, name: &str, answer: Result<Result<T>, RecvError>) -> Result<T> {
        answer
            .unwrap_or_else(|_| Err(queue::no_answer()))
            .inspect_err(|error| self.note(name, error))
    }

    /// Logs failures; refusals are not logged.
    fn note(&self, name: &str, error: &Error) {
        match error {
            Error::Damaged { found } => self.condition.note_damage(found),
            Error::Unavailable { .. } | Error::Internal { .. } => log::debug!("{name}: {error}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
