//! Replaces a database while it is not in use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::continuity::{self, Continuity};
use super::copy::{CopyInfo, check_integrity, copy, inspect_unchecked};
use super::files::{self, beside, folder_of};
use super::generation::Generation;
use super::lock::Lock;
use super::options::Synchronous;
use super::path_check::{self, PREPARED, REPLACED};
use super::reader::{Reader, Tx};
use super::schema::{self, SCHEMA};
use super::users::Users;
use super::{migrate, pool};
use crate::clock::{Clock, SystemClock, Tick};
use crate::error::{Doing, Error, Result};

/// Time limit for examining a file of unknown origin: for each MiB of it, and at least.
const EXAMINE_PER_MIB: Duration = Duration::from_secs(1);
const EXAMINE_MIN: Duration = Duration::from_mins(1);
/// SQLite instructions between two checks of the time limit.
const INSTRUCTIONS: i32 = 100_000;

/// The result of a restore.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Restored {
    /// The restored database.
    #[serde(flatten)]
    pub copied: CopyInfo,
    /// The new path of the file that it replaced, if there was one.
    pub kept: Option<PathBuf>,
}

/// The database that a restore replaces.
pub enum OldDatabase<'a> {
    /// There is none.
    Nothing,
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// It can be read.
    File(&'a Reader<'a>),
}

/// How large, in bytes, a database may be that is restored at `path`.
///
/// # Errors
/// If the free space cannot be determined.
pub fn max_restore_size(path: &Path) -> Result<u64> {
    let free = rustix::fs::statvfs(folder_of(path)).doing("determine the free space")?;
    // Needed twice: for the file as it comes, and for the prepared copy.
    Ok(free.f_bavail.saturating_mul(free.f_frsize) / 2)
}

/// A restore in progress: no server and no command can use the database until this is dropped.
#[derive(Debug)]
pub struct Restore {
    path: PathBuf,
    lock: Lock,
    /// Whether the WAL beside the database belongs to another one.
    foreign_wal: bool,
    _exclusive: Users,
}

/// A prepared copy, to be put in place.
#[derive(Debug)]
pub struct PreparedCopy {
    prepared: PathBuf,
    copied: CopyInfo,
}

impl Restore {
    /// Locks the database at `path`, which need not exist.
    ///
    /// # Errors
    /// [`Error::State`] if a server or a command uses it.
    pub fn begin(path: &Path) -> Result<Self> {
        let path = files::resolved(path)?;
        path_check::check_path(&path)?;
        let lock = Lock::take(&path)?;
        let exclusive = Users::exclusive(&path)?;
        path_check::remove_unfinished_restore(&path)?;
        let continuity = Continuity::of(&path, &lock.previous(), Synchronous::Full);
        let foreign_wal = matches!(continuity, Ok(Continuity::ForeignWal(_)));
        Ok(Self {
            path,
            lock,
            foreign_wal,
            _exclusive: exclusive,
        })
    }

    /// The path of the database, with links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Prepares the file `from`, which may come from anywhere, for use: examines it, migrates it, and runs
    /// `finalize` in it, which can also read the database that will be replaced. `name` is the name for messages.
    /// Nothing is put in place yet.
    ///
    /// # Errors
    /// [`Error::State`] if it is no license-server database or is damaged; or what `finalize` returns.
    pub fn prepare<T>(
        &self,
        from: &Path,
        name: &Path,
        finalize: impl FnOnce(&Tx<'_>, &OldDatabase<'_>) -> Result<T>,
    ) -> Result<(PreparedCopy, T)> {
        examine(from, name)?;
        // Through SQLite, not byte by byte, so that the content of a WAL beside it is included.
        self.prepare_copy(|prepared| copy(from, prepared), finalize)
    }

    /// As [`Self::prepare`], from a file that another program writes by SQLite's locks but never by a WAL: copied byte by
    /// byte and checked once, which takes a fraction of the time.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_followed<T>(
        &self,
        from: &Path,
        finalize: impl FnOnce(&Tx<'_>, &OldDatabase<'_>) -> Result<T>,
    ) -> Result<(PreparedCopy, T)> {
        let make = |prepared: &Path| {
            copy_bytes(from, prepared)?;
            examine(prepared, from)?;
            inspect_unchecked(prepared)
        };
        self.prepare_copy(make, finalize)
    }

    fn prepare_copy<T>(
        &self,
        make: impl FnOnce(&Path) -> Result<CopyInfo>,
        finalize: impl FnOnce(&Tx<'_>, &OldDatabase<'_>) -> Result<T>,
    ) -> Result<(PreparedCopy, T)> {
        let prepared = beside(&self.path, PREPARED);
        files::remove_all(&prepared)?;
        // Read with the WAL of another database, its content would be wrong.
        let finalize = |tx: &Tx<'_>, replaced: &OldDatabase<'_>| {
            if self.foreign_wal {
                let reason = "the WAL beside it is another file's".to_owned();
                return finalize(tx, &OldDatabase::Unreadable(reason));
            }
            finalize(tx, replaced)
        };
        let finished = make(&prepared)
            .and_then(|copied| prepare_file(copied, &self.path, &prepared, finalize));
        match finished {
            Ok((copied, finalized)) => Ok((PreparedCopy { prepared, copied }, finalized)),
            Err(error) => {
                files::remove_all(&prepared)?;
                Err(error)
            }
        }
    }

    /// Deletes the copy instead of putting it in place. Returns what it was.
    ///
    /// # Errors
    /// If it cannot be deleted.
    pub fn discard(&self, ready: &PreparedCopy) -> Result<CopyInfo> {
        files::remove_all(&ready.prepared)?;
        Ok(ready.copied)
    }

    /// Puts the copy in place, and keeps the old file beside it under a name that contains `stamp`.
    ///
    /// If this is interrupted, by an error or a power cut, the old file is there or the new one. The exception is
    /// an old file that is too damaged to be checkpointed, or a file system without hard links: then the old file
    /// is moved first, and after a power cut there may be none at `path`; the next start of the server says so.
    ///
    /// # Errors
    /// [`Error::State`] if another program has the old file open; nothing is changed then.
    pub fn put_in_place(&self, ready: PreparedCopy, stamp: &str) -> Result<Restored> {
        let path = &self.path;
        if self.foreign_wal {
            continuity::set_wal_aside(path, stamp)?;
        }
        let old_path = files::unused(&beside(path, &format!("{REPLACED}{stamp}")))?;
        let had_one = path.exists();
        let moved = had_one && keep_old_database(path, &old_path)?;
        // SQLite would apply the old WAL to the new file and damage it.
        let placed = files::move_aside(path, &old_path)
            .and_then(|()| files::sync_folder_of(path))
            // What was noted of the old database does not apply to the new one. Noted before it is in place: if the
            // process is killed in between, the next server must not take the new one for an older copy.
            .and_then(|()| self.lock.accept_file(&ready.prepared))
            .and_then(|()| fs::rename(&ready.prepared, path).doing("put the copy in its place"));
        if let Err(error) = placed {
            if moved {
                move_back(&old_path, path)?;
            }
            return Err(error);
        }
        files::sync_folder_of(path)?;
        let (copied, kept) = (ready.copied, had_one.then_some(old_path));
        Ok(Restored { copied, kept })
    }
}

/// Checks that a file of unknown origin is a sound license-server database and has nothing else in it, before
/// anything in it is used.
fn examine(from: &Path, name: &Path) -> Result<()> {
    let read = || {
        let mut conn = pool::open_read_only(from)?;
        let bytes = fs::metadata(from).doing("measure the copy")?.len();
        set_time_limit(&mut conn, time_limit(bytes))?;
        let version = schema::schema(&conn, name)?;
        // The schema first: the integrity check would run foreign views and check constraints.
        if let Some(foreign) = schema::foreign_objects(&conn, version)?.first() {
            return Err(Error::State(format!(
                "{} has an unexpected schema: {foreign}; nothing was changed",
                name.display()
            )));
        }
        check_integrity(&conn, name)
    };
    let unreadable = |cause: String| {
        Error::State(format!(
            "{} cannot be read as a database ({cause}); nothing was changed",
            name.display()
        ))
    };
    read().map_err(|error| match error {
        Error::Internal { source, .. } => unreadable(source.to_string()),
        Error::Damaged { found } => unreadable(found),
        other => other,
    })
}

fn time_limit(bytes: u64) -> Duration {
    let mib = u32::try_from(bytes / (1024 * 1024)).unwrap_or(u32::MAX);
    EXAMINE_MIN.saturating_add(EXAMINE_PER_MIB.saturating_mul(mib))
}

/// Interrupts every query of `conn` after `time_limit`: in a file of unknown origin, a query may never end.
fn set_time_limit(conn: &mut Connection, time_limit: Duration) -> Result<()> {
    let clock = SystemClock::default();
    let time_is_up = move || clock.tick().since(Tick::START) > time_limit;
    Ok(conn.progress_handler(INSTRUCTIONS, Some(time_is_up))?)
}

/// Copies `from` byte by byte. Its content is that of one moment: a program that changes it in between must wait.
fn copy_bytes(from: &Path, to: &Path) -> Result<()> {
    let conn = pool::open_read_only(from)?;
    // SQLite's lock is held from the first read to the end of the transaction.
    conn.execute_batch("begin")?;
    conn.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))?;
    // Not `fs::copy`, which copies the permissions too: the copy is for this user alone.
    let mut source = File::open(from).doing("open the followed file")?;
    let mut copy = File::create_new(to).doing("make the copy of the followed file")?;
    match io::copy(&mut source, &mut copy) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(Error::State(format!(
            "there is no space for a copy of {}, which takes as much as the file itself: free some on its disk, then try \
             again; nothing was changed",
            from.display()
        ))),
        copied => copied.map(drop).doing("copy the followed file"),
    }
}

/// Migrates the copy at `prepared`, and runs `finalize` in it, for use at `path`.
fn prepare_file<T>(
    copied: CopyInfo,
    path: &Path,
    prepared: &Path,
    finalize: impl FnOnce(&Tx<'_>, &OldDatabase<'_>) -> Result<T>,
) -> Result<(CopyInfo, T)> {
    let mut conn = pool::open_or_create(prepared)?;
    set_time_limit(&mut conn, time_limit(copied.bytes))?;
    if copied.schema < SCHEMA {
        migrate::apply(&conn, copied.schema)?;
    }
    let finalized = run_finalize(&conn, path, finalize)?;
    // The copy was checked as it came: `examine` here, or `copy`. A migration is what could go wrong since.
    if copied.schema < SCHEMA {
        check_integrity(&conn, prepared)?;
    }
    drop(conn);
    // Only the database file is put in place, so its WAL must be empty.
    if !checkpoint(prepared)? {
        return Err(Error::State(format!(
            "another program has {} open: let it close the file first",
            prepared.display()
        )));
    }
    files::sync(prepared)?;
    let bytes = fs::metadata(prepared).doing("measure the copy")?.len();
    let schema = SCHEMA;
    Ok((CopyInfo { bytes, schema }, finalized))
}

fn run_finalize<T>(
    conn: &Connection,
    path: &Path,
    finalize: impl FnOnce(&Tx<'_>, &OldDatabase<'_>) -> Result<T>,
) -> Result<T> {
    let generation = Generation::default();
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)
        .doing("begin to prepare the copy")?;
    let generation = &generation;
    let tx = Tx::new(Reader { conn, generation });
    let finalized = if path.exists() {
        match pool::open_read_only(path) {
            Ok(conn) => finalize(
                &tx,
                &OldDatabase::File(&Reader {
                    conn: &conn,
                    generation,
                }),
            ),
            Err(error) => finalize(&tx, &OldDatabase::Unreadable(error.to_string())),
        }
    } else {
        finalize(&tx, &OldDatabase::Nothing)
    }?;
    transaction.commit().doing("prepare the copy")?;
    Ok(finalized)
}

/// Checkpoints the old file and gives it a second name, so that there is always a file at `path`. One that is too
/// damaged for that, or that can have no second name, is moved. Returns whether it was moved.
fn keep_old_database(path: &Path, old_path: &Path) -> Result<bool> {
    let name = path.display();
    match checkpoint(path) {
        Ok(true) => {}
        Ok(false) => {
            return Err(Error::State(format!(
                "another program has {name} open: let it close the file first"
            )));
        }
        Err(Error::Damaged { found }) => {
            log::warn!("the old database is damaged; it is moved as it is: {found}");
            fs::rename(path, old_path).doing("keep the old database")?;
            return Ok(true);
        }
        Err(Error::Unavailable { reason }) => {
            return Err(Error::State(format!(
                "the old database {name} cannot be read or checkpointed now ({reason}), so nothing was changed: \
                 close other programs that use it (see `fuser {name}`) and free disk space, then try again; if its disk \
                 fails, move {name}, {name}-wal and {name}-shm away together, then try again"
            )));
        }
        Err(error) => return Err(error),
    }
    match fs::hard_link(path, old_path) {
        Ok(()) => Ok(false),
        Err(error) if has_no_hard_links(&error) => {
            log::info!(
                "the old database is moved, since its file system has no hard links: {error}"
            );
            fs::rename(path, old_path).doing("keep the old database")?;
            Ok(true)
        }
        Err(error) => Err(error).doing("keep the old database"),
    }
}

/// Whether the file system has no hard links: exFAT, FAT, many network shares and FUSE file systems.
fn has_no_hard_links(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::INVAL)
    )
}

/// Moves the old file and its WAL back, after the new one could not be put in place.
fn move_back(old_path: &Path, path: &Path) -> Result<()> {
    for part in ["-wal", "-shm", ""] {
        let from = beside(old_path, part);
        if from.exists() {
            fs::rename(&from, beside(path, part)).doing("put the old database back")?;
        }
    }
    Ok(())
}

/// Copies the WAL into the file. `false` if another process still reads.
fn checkpoint(path: &Path) -> Result<bool> {
    Ok(pool::checkpoint_and_close(pool::open_or_create(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_never_ends_is_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = pool::open_or_create(&dir.path().join("t.sqlite3")).unwrap();
        set_time_limit(&mut conn, Duration::from_millis(20)).unwrap();
        let endless =
            "with recursive n (x) as (select 1 union all select x + 1 from n) select sum(x) from n";
        let error = conn
            .query_row(endless, [], |row| row.get::<_, i64>(0))
            .unwrap_err();
        assert_eq!(
            error.sqlite_error_code(),
            Some(rusqlite::ErrorCode::OperationInterrupted)
        );
    }
}
