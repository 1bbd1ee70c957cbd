//! One SQLite file: one thread writes, a pool reads. SQL text lives in `sql/`, not here.

mod backup;
mod checkpoint;
mod disk;
mod epoch;
mod inspect;
mod lock;
mod migrate;
mod place;
mod pool;
mod presence;
mod room;
mod sql;
mod standing;
mod types;
mod writer;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Params, Row};

pub use backup::{Copied, Copy, Ready, Replaced, Restore, Restored, room};
pub use inspect::Inspected;
pub use lock::kind_of;
pub use migrate::SCHEMA;
pub use place::Rescued;
pub use pool::register_functions;

use crate::clock::{Boot, UnixMs};
use crate::error::{Doing, Error, Result};
use epoch::Generation;
use place::DatabaseFiles;
use room::Room;
use standing::Standing;

/// When a commit counts as on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// After the disk says so: a power cut loses nothing that was acknowledged.
    Full,
    /// After the operating system has it: a power cut may lose the last moments.
    Normal,
}

/// How to open the file.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is.
    pub path: PathBuf,
    /// When a commit counts.
    pub synchronous: Synchronous,
    /// Connections that read; at least 1.
    pub read_connections: u32,
}

/// A handle on the database; cheap to clone.
#[derive(Clone)]
pub struct Db {
    writer: writer::Writer,
    thread: Arc<Mutex<Option<writer::Thread>>>,
    /// None once it is closed.
    readers: Arc<RwLock<Option<r2d2::Pool<pool::Readers>>>>,
    epoch: Arc<Generation>,
    condition: Arc<disk::Condition>,
    path: Arc<Path>,
    place: Arc<DatabaseFiles>,
    /// Held for life by a server; absent in a command.
    lock: Option<Arc<lock::Lock>>,
    /// As the lock.
    _presence: Option<Arc<presence::Presence>>,
    _users: Arc<lock::Users>,
}

/// Tries to write a file beside the database of these settings, and removes it again.
///
/// # Errors
/// Why the disk does not take it.
pub fn probe(path: &Path) -> std::io::Result<()> {
    disk::probe(path)
}

/// May look.
pub struct Reader<'a> {
    conn: &'a Connection,
    epoch: &'a Generation,
}

/// Something to do once a deed is on the disk.
type Hook = Box<dyn FnOnce() + Send>;

/// May look and change. Everything done through it is kept or undone as one.
pub struct Tx<'a> {
    reader: Reader<'a>,
    after: RefCell<Vec<Hook>>,
    announced: Cell<bool>,
}

impl Db {
    /// Opens the file for the one server that may have it: creates it if absent, brings its schema up
    /// to date, and holds its lock until the last handle is gone.
    ///
    /// # Errors
    /// [`Error::State`] when another server has it, when it is newer than this program, or when it is
    /// gone though there was one, or lacks what the last server acknowledged; nothing is changed then.
    pub fn open_as_server(options: &Options) -> Result<Self> {
        let path = lock::resolved(&options.path)?;
        lock::check_place(&path)?;
        let lock = lock::Lock::take(&path)?;
        let standing = Standing::of(&path, &lock.before(), options.synchronous)?;
        if let Some(told) = standing.accepted()? {
            log::error!("{told}");
        }
        migrate::to_latest(&path, &lock)?;
        // Once more: the file that was made now may be reached by a link.
        Self::start(options, lock::resolved(&path)?, Some(Arc::new(lock)))
    }

    /// Opens the file for a command, beside a server or without one.
    ///
    /// # Errors
    /// As [`Db::open_as_server`]; an older file is brought up to date only while no server has it. [`Error::State`]
    /// when the running server has another file than the one that is there.
    pub fn open_as_command(options: &Options) -> Result<Self> {
        let path = lock::resolved(&options.path)?;
        lock::check_place(&path)?;
        place::is_served_from(&path)?;
        if !lock::is_taken(&path)? {
            let before = lock::Before::read(&path)?;
            Standing::of(&path, &before, options.synchronous)?.accepted()?;
        }
        if !migrate::is_latest(&path)? {
            let lock = lock::Lock::take(&path)?;
            migrate::to_latest(&path, &lock)?;
        }
        Self::start(options, lock::resolved(&path)?, None)
    }

    fn start(options: &Options, path: PathBuf, lock: Option<Arc<lock::Lock>>) -> Result<Self> {
        let users = lock::Users::join(&path)?;
        let place = Arc::new(DatabaseFiles::new(&path));
        let frozen = pool::looks_frozen(&path)?;
        let readers = pool::Readers::pool(place.clone(), options.read_connections, frozen)?;
        let readers = Arc::new(RwLock::new(Some(readers)));
        let condition = Arc::<disk::Condition>::default();
        let around = writer::Around {
            place: place.clone(),
            epoch: Arc::default(),
            condition: condition.clone(),
        };
        let epoch = around.epoch.clone();
        let opening = Opening {
            place: place.clone(),
            options: options.clone(),
            condition: condition.clone(),
            lock: lock.clone(),
            readers: readers.clone(),
            doubtful: frozen,
            tried: false,
        };
        let opened = opening.first()?;
        if matches!(opened, writer::Opened::Ready(_)) {
            // One from the start: where the file is moved away later, a backup needs one that is open.
            let pool = readers.read().unwrap_or_else(PoisonError::into_inner);
            let first = pool.as_ref().map(r2d2::Pool::get).transpose();
            drop(first.doing("open a read connection")?);
        }
        let (writer, thread) = writer::Writer::start(opened, around)?;
        let presence = lock
            .as_ref()
            .map(|_| Arc::new(presence::Presence::tell(&options.path, &place)));
        Ok(Self {
            writer,
            thread: Arc::new(Mutex::new(Some(thread))),
            readers,
            epoch,
            condition,
            path: path.into(),
            place,
            lock,
            _presence: presence,
            _users: Arc::new(users),
        })
    }

    /// Whether a server has the file now, this process or another.
    ///
    /// # Errors
    /// When the lock cannot be asked.
    pub fn is_served(&self) -> Result<bool> {
        lock::is_taken(&self.path)
    }

    /// Notes beside the file that it knows of `seen`.
    pub fn note_seen(&self, seen: UnixMs) {
        let noted = self
            .lock
            .as_ref()
            .map_or(Ok(()), |lock| lock.note_seen(seen));
        if let Err(error) = noted {
            log::debug!("the lock file does not know how far the database is: {error}");
        }
    }

    /// The boot in which the machine's clock was last believed by a server of the file.
    ///
    /// # Errors
    /// When the lock file cannot be read.
    pub fn believed_boot(&self) -> Result<Option<Boot>> {
        lock::believed_boot(&self.path)
    }

    /// Notes beside the file in which boot the machine's clock is believed; none while it is not.
    pub fn note_boot(&self, boot: Option<Boot>) {
        let noted = self
            .lock
            .as_ref()
            .map_or(Ok(()), |lock| lock.note_boot(boot));
        if let Err(error) = noted {
            log::debug!("the lock file does not know whether the clock is believed: {error}");
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in the writer thread and returns once its effect is on disk.
    ///
    /// `work` must be quick: every other write waits for it. The name, `<room>.<verb>`, is for logs.
    ///
    /// # Errors
    /// What `work` returns (its changes are then undone), or [`Error::Unavailable`] when the file takes
    /// no write now; whether it was kept is then unknown, and it was not acknowledged.
    pub async fn write<T, F>(&self, name: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let answer = self.writer.queue(work)?.await;
        answer
            .unwrap_or_else(|_| Err(writer::unheard()))
            .inspect_err(|error| self.note(name, error))
    }

    /// Runs `work` in the writer thread, between two of its transactions: what it sees stays true in this
    /// process until it returns. Needs no room on the disk, and shares no write's failure.
    ///
    /// # Errors
    /// What `work` returns, or [`Error::Unavailable`] when the file cannot be read now.
    pub async fn read_on_writer<T, F>(&self, name: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let answer = self.writer.queue_look(work)?.await;
        answer
            .unwrap_or_else(|_| Err(writer::unheard()))
            .inspect_err(|error| self.note(name, error))
    }

    /// Has `work` done in the first transaction that this process makes, before anything else in it. It is tried
    /// with each transaction until one is kept.
    ///
    /// # Errors
    /// When the writer thread takes nothing.
    pub fn write_first<F>(&self, work: F) -> Result<()>
    where
        F: Fn(&Tx<'_>) -> Result<()> + Send + 'static,
    {
        self.writer.queue_first(Box::new(work))
    }

    /// [`Db::write`] for a caller that is no task: a command.
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
            .unwrap_or_else(|_| Err(writer::unheard()))
            .inspect_err(|error| self.note(name, error))
    }

    /// Runs `work` on a pooled connection that cannot write.
    ///
    /// What it sees may already be old: never base a later write on it without looking again.
    ///
    /// # Errors
    /// What `work` returns, or [`Error::Unavailable`] when no connection is free.
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

    /// [`Db::read`] for a caller that is no task: a command.
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
        // One transaction: what is read together belongs together.
        let look = conn.unchecked_transaction()?;
        let result = work(&Reader {
            conn: &conn,
            epoch: &self.epoch,
        });
        look.finish()?;
        result.inspect_err(|error| self.note("read", error))
    }

    /// Waits until the disk has failed in a way that this process must not write after: it has to end. For one
    /// listener.
    pub async fn disk_failure(&self) {
        self.condition.failure().await;
    }

    /// Whether the disk has failed: see [`Db::disk_failure`].
    pub fn disk_has_failed(&self) -> bool {
        self.condition.has_failed()
    }

    /// The damage that was found in the file, if any: by a query that met it, or by [`Db::inspect`].
    pub fn damage(&self) -> Option<String> {
        self.condition.damage()
    }

    /// Looks over the whole file, slowly; ends at once when it is no longer waited for. What it finds is what
    /// [`Db::damage`] says from then on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the file cannot be read now.
    pub async fn inspect(&self) -> Result<Inspected> {
        let (place, condition) = (self.place.clone(), self.condition.clone());
        inspect::Inspection::begin(place, condition)?.end().await
    }

    /// The number of the present epoch; see [`Reader::epoch`].
    pub fn epoch(&self) -> u64 {
        self.epoch.number()
    }

    /// Waits until a change from outside, or one that was announced, begins a new epoch. For one
    /// listener.
    pub async fn epoch_changed(&self) {
        self.epoch.changed().await;
    }

    /// Makes a consistent copy of the file while the server goes on, and what `look` makes of the copy. It is in the
    /// folder `target`, where that is named and takes it.
    ///
    /// # Errors
    /// When there is no room for it, or it does not check out; nothing is left behind then.
    pub fn copy<T>(
        &self,
        target: Option<&Path>,
        look: impl FnOnce(&Reader<'_>) -> Result<T>,
    ) -> Result<(Copy, T)> {
        let rooms = Room::of(&self.path, target);
        if self.place.check().is_ok() {
            let conn = pool::open_to_look(&self.path)?;
            return backup::draft(&conn, &rooms, look);
        }
        // The path leads nowhere, or to a stranger: what is open is the database.
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        let open = readers.as_ref().and_then(|readers| readers.get().ok());
        let conn = open.ok_or_else(|| Error::Unavailable {
            reason: "no read connection is free".to_owned(),
        })?;
        let made = backup::draft(&conn, &rooms, look);
        conn.execute_batch("pragma query_only = on")?;
        made
    }

    /// Finishes what is queued, checkpoints, and ends the writer thread; waits for it at most `patience`,
    /// since somebody else may hold the file. Later reads and writes are refused.
    pub fn close(&self, patience: Duration) {
        // Readers first: the connection that closes last takes the WAL with it.
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
            log::warn!("somebody else holds the database: the next start finishes what is left");
        }
    }
}

/// Whether the path leads to the database that a running server has open, or no server runs.
///
/// # Errors
/// [`Error::State`] where it leads elsewhere; it says what to do.
pub fn is_in_place(path: &Path) -> Result<()> {
    place::is_served_from(&lock::resolved(path)?)
}

/// Whether a database of ours may be at `path`: it is there, or there is nothing. Changes nothing.
///
/// # Errors
/// [`Error::State`] for anything else; it says what.
pub fn check_place(path: &Path) -> Result<()> {
    lock::check_place(&lock::resolved(path)?)
}

/// Takes the database that lies at `path` for the one to go on with, though the last server left another one, or more
/// than it has. Where the WAL of another one is kept, if there was one.
///
/// # Errors
/// [`Error::State`] while a server runs or a command works on it, or where there is no database.
pub fn accept(path: &Path, stamp: &str) -> Result<Option<PathBuf>> {
    standing::accept(path, stamp)
}

/// Copies the database that a running server has open, where it is not at `path` any more. The copy is in the folder
/// `target`, where that is named and takes it.
///
/// # Errors
/// [`Error::State`] when it cannot be reached.
pub fn rescue(path: &Path, target: Option<&Path>) -> Result<Rescued> {
    place::rescue(&lock::resolved(path)?, &Room::of(path, target))
}

/// Opens the file for the writer thread: at once, or as soon as it can be written.
struct Opening {
    place: Arc<DatabaseFiles>,
    options: Options,
    condition: Arc<disk::Condition>,
    lock: Option<Arc<lock::Lock>>,
    /// Connections of a time when nothing could be written give way to usual ones.
    readers: Arc<RwLock<Option<r2d2::Pool<pool::Readers>>>>,
    tried: bool,
    /// Whether nothing could be written lately: then that is found out before anything is opened.
    doubtful: bool,
}

impl Opening {
    fn first(mut self) -> Result<writer::Opened> {
        match self.open() {
            Ok(ready) => Ok(writer::Opened::Ready(ready)),
            Err(Error::Unavailable { reason }) => Ok(writer::Opened::Waiting(writer::Waiting {
                conn: None,
                reason: format!("the database takes no write: {reason}"),
                open: Box::new(move || self.open()),
            })),
            Err(error) => Err(error),
        }
    }

    fn open(&mut self) -> Result<writer::Ready> {
        let open = || pool::open_writer(self.place.path(), self.options.synchronous);
        let again = std::mem::replace(&mut self.tried, true);
        if (again || self.doubtful) && disk::lacks_room(self.place.path()) {
            return Err(Error::Unavailable {
                reason: "the disk is full or read-only".to_owned(),
            });
        }
        if again || self.doubtful {
            self.renew_readers()?;
        }
        let conn = open()?;
        // A first look, so that every part of it is there.
        conn.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))?;
        let parts = self
            .place
            .learn(self.lock.as_ref().map(|lock| lock.own()))?;
        let checkpoints = match &self.lock {
            None => None,
            Some(lock) => {
                lock.refresh()?;
                lock.name_parts(parts)?;
                let condition = self.condition.clone();
                Some(checkpoint::Checkpoints::start(
                    open()?,
                    self.place.path(),
                    condition,
                )?)
            }
        };
        Ok(writer::Ready { conn, checkpoints })
    }

    fn renew_readers(&self) -> Result<()> {
        let pool = pool::Readers::pool(self.place.clone(), self.options.read_connections, false)?;
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        if readers.is_some() {
            *readers = Some(pool);
        }
        Ok(())
    }
}

impl Db {
    /// A failure through no fault of its caller is worth a line; a refusal is not.
    fn note(&self, name: &str, error: &Error) {
        match error {
            Error::Damaged { found } => self.condition.note_damage(found),
            Error::Unavailable { .. } | Error::Internal { .. } => log::debug!("{name}: {error}"),
            _ => {}
        }
    }
}

impl Reader<'_> {
    /// The one row `sql` gives; none is a failure.
    ///
    /// # Errors
    /// When there is no row, or SQLite fails.
    pub fn one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        Ok(self.conn.prepare_cached(sql)?.query_row(params, row)?)
    }

    /// The row `sql` gives, if there is one.
    ///
    /// # Errors
    /// When SQLite fails; an absent row is `None`.
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

    /// Every row `sql` gives, in its order.
    ///
    /// # Errors
    /// When SQLite fails.
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

    /// The epoch that this look belongs to: what is remembered from it holds until the number changes.
    pub fn epoch(&self) -> u64 {
        self.epoch.number()
    }

    /// What is in the schema that this program did not put there, or is missing; nothing, if it is as it should be.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn foreign_objects(&self) -> Result<Vec<String>> {
        migrate::foreign_objects(self.conn, SCHEMA)
    }

    /// What SQLite finds wrong with the file; nothing, if it is sound. Reads all of it.
    ///
    /// # Errors
    /// When the file cannot be read at all.
    pub fn integrity(&self) -> Result<Vec<String>> {
        let mut found = self.list("pragma integrity_check(20)", [], |row| {
            row.get::<_, String>(0)
        })?;
        found.retain(|line| line != "ok");
        let orphans = self.list("pragma foreign_key_check", [], |row| {
            Ok(format!(
                "a row of {} refers to nothing",
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
            announced: Cell::default(),
        }
    }

    /// Runs `sql` and returns how many rows it changed.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn run(&self, sql: &'static str, params: impl Params) -> Result<usize> {
        Ok(self.conn.prepare_cached(sql)?.execute(params)?)
    }

    /// Runs `sql`, an insert, and returns the number of its row.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn insert(&self, sql: &'static str, params: impl Params) -> Result<i64> {
        Ok(self.conn.prepare_cached(sql)?.insert(params)?)
    }

    /// Has `hook` run once this deed is on the disk, before its caller is answered; never, if it is undone.
    pub fn after_commit(&self, hook: impl FnOnce() + Send + 'static) {
        self.after.borrow_mut().push(Box::new(hook));
    }

    /// Begins a new epoch with this deed: what others remember of the file is no longer true.
    pub fn invalidate_caches(&self) {
        self.announced.set(true);
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
        disk::meaning(source)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ErrorCode;

    use super::*;

    const ADD: &str = "insert into feature_flags (name, description, enabled, share_percent, updated_at_ms) \
                       values (hex(randomblob(8)), '', 1, 100, 0)";

    fn in_a_fresh_house<T>(live: impl AsyncFnOnce(Db) -> T) -> T {
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
            .block_on(live(db))
    }

    async fn count(db: &Db) -> i64 {
        db.read(|r| r.one("select count(*) from feature_flags", [], |row| row.get(0)))
            .await
            .unwrap()
    }

    /// Spoils the first page behind its header, as nothing but a look at the file itself would notice.
    fn spoil(path: &Path) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0; 200], 100).unwrap();
    }

    #[test]
    fn a_look_notes_damage_wherever_it_meets_it_and_judges_no_file_but_the_database() {
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
        spoil(db.path());
        let told = runtime.block_on(db.inspect()).unwrap_err();
        assert!(matches!(told, Error::Damaged { .. }), "{told}");
        assert!(db.damage().is_some());
        // A sound file in its place says nothing of the database.
        let other = dir.path().join("other.sqlite3");
        let aside = Options {
            path: other.clone(),
            ..options.clone()
        };
        Db::open_as_server(&aside)
            .unwrap()
            .close(Duration::from_secs(10));
        std::fs::rename(other, db.path()).unwrap();
        let told = runtime.block_on(db.inspect()).unwrap_err();
        assert!(matches!(told, Error::Unavailable { .. }), "{told}");
        assert!(db.damage().is_some());
    }

    #[test]
    fn a_failing_write_undoes_only_itself_and_a_panic_kills_nothing() {
        in_a_fresh_house(async |db| {
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
    fn a_caller_who_went_away_does_not_stop_the_writer() {
        in_a_fresh_house(async |db| {
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
        in_a_fresh_house(async |db| {
            let tried = db.read(|r| r.list(ADD, [], |_| Ok(())).map(drop)).await;
            assert!(matches!(tried, Err(Error::Unavailable { .. })), "read-only");
            assert_eq!(count(&db).await, 0);
        });
    }

    #[test]
    fn hooks_run_for_deeds_that_are_kept_and_for_no_others() {
        in_a_fresh_house(async |db| {
            let (send, heard) = std::sync::mpsc::channel();
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
            assert_eq!(heard.iter().collect::<Vec<_>>(), [true]);
        });
    }

    #[test]
    fn only_announced_deeds_and_other_processes_begin_a_new_epoch() {
        in_a_fresh_house(async |db| {
            db.write("t.quiet", |tx| tx.run(ADD, [])).await.unwrap();
            let before = db.epoch();
            db.write("t.quiet", |tx| tx.run(ADD, [])).await.unwrap();
            assert_eq!(db.epoch(), before);
            db.write("t.loud", |tx| {
                tx.invalidate_caches();
                tx.run(ADD, [])
            })
            .await
            .unwrap();
            assert_eq!(db.epoch(), before + 1);
            let outside = pool::open_writer(db.path(), Synchronous::Full).unwrap();
            outside.execute(ADD, []).unwrap();
            db.write("t.quiet", |tx| tx.run(ADD, [])).await.unwrap();
            assert_eq!(db.epoch(), before + 2);
        });
    }

    #[test]
    fn a_deed_keeps_other_writers_out_from_its_first_look_on() {
        in_a_fresh_house(async |db| {
            let outside = pool::open_writer(db.path(), Synchronous::Full).unwrap();
            outside.busy_timeout(Duration::ZERO).unwrap();
            let kept_out = db.write("t.look", move |_| {
                let tried = outside.execute_batch("begin immediate");
                Ok(tried.unwrap_err().sqlite_error_code())
            });
            assert_eq!(kept_out.await.unwrap(), Some(ErrorCode::DatabaseBusy));
        });
    }

    #[test]
    fn a_write_behind_a_foreign_lock_is_told_to_come_back() {
        in_a_fresh_house(async |db| {
            let outside = pool::open_writer(db.path(), Synchronous::Full).unwrap();
            outside.execute_batch("begin immediate").unwrap();
            let refused = db.write("t.blocked", |tx| tx.run(ADD, [])).await;
            assert!(matches!(refused, Err(Error::Unavailable { .. })));
            outside.execute_batch("rollback").unwrap();
            db.write("t.free", |tx| tx.run(ADD, [])).await.unwrap();
            assert_eq!(count(&db).await, 1, "the refused deed was not done");
        });
    }
}
