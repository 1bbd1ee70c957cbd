//! Copies of the file: out while it is in use, back in while it is not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tempfile::NamedTempFile;

use super::epoch::Generation;
use super::lock::{self, KEPT, Lock, Users, beside, folder_of};
use super::room::Room;
use super::standing::{self, Standing};
use super::{Reader, Synchronous, Tx, migrate, pool};
use crate::clock::{Clock, SystemClock, Tick};
use crate::error::{Doing, Error, Result};

/// What a copy in the making is called, before a part that is random.
const COPY: &str = ".license-server-copy-";
/// Longest that the look at a foreign file may take, for each MiB of it and at least.
const LOOK_PER_MIB: Duration = Duration::from_secs(1);
const LOOK_MIN: Duration = Duration::from_mins(1);
/// Steps of SQLite between two looks at the clock.
const STEPS: i32 = 100_000;

/// A copy that was made.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Copied {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its schema.
    pub schema: u32,
}

/// A consistent copy in a file that is gone when this goes.
#[derive(Debug)]
pub struct Copy {
    file: NamedTempFile,
    /// What it is.
    pub copied: Copied,
}

impl Copy {
    /// The file.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }
}

/// A copy that was put in place.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Restored {
    /// What was put in place.
    #[serde(flatten)]
    pub copied: Copied,
    /// Where the file that it replaced is kept, if there was one.
    pub kept: Option<PathBuf>,
}

/// The file whose place a copy is to take.
pub enum Replaced<'a> {
    /// There is none.
    Nothing,
    /// It cannot be looked into, for this reason.
    Unreadable(String),
    /// This is in it.
    File(&'a Reader<'a>),
}

/// Copies the database that `open` reads, all of one moment, into a file in one of `rooms`, and checks the copy. `look`
/// sees what is in it.
pub(super) fn draft<T>(
    open: &Connection,
    rooms: &[Room],
    look: impl FnOnce(&Reader<'_>) -> Result<T>,
) -> Result<(Copy, T)> {
    let measured = |pragma| open.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let bytes = measured("pragma page_count")?.saturating_mul(measured("pragma page_size")?);
    let bytes = u64::try_from(bytes).unwrap_or(0);
    let (file, conn, schema) = Room::first(rooms, bytes, |folder| drafted(open, folder))?;
    let epoch = &Generation::default();
    let seen = look(&Reader { conn: &conn, epoch })?;
    let bytes = file.as_file().metadata().doing("measure the copy")?.len();
    let copied = Copied { bytes, schema };
    Ok((Copy { file, copied }, seen))
}

fn drafted(open: &Connection, folder: &Path) -> Result<(NamedTempFile, Connection, u32)> {
    clear(folder)?;
    let file = tempfile::Builder::new().prefix(COPY).tempfile_in(folder);
    let file = file.doing("make the file for a copy")?;
    // A copy that is locked is still in the making.
    file.as_file().lock().doing("lock a copy")?;
    vacuum(open, file.path())?;
    let conn = pool::open_to_look(file.path())?;
    let schema = migrate::schema(&conn, file.path())?;
    sound(&conn, file.path())?;
    Ok((file, conn, schema))
}

/// How many bytes a database that is put in the place of that at `path` may have.
///
/// # Errors
/// When the disk does not tell.
pub fn room(path: &Path) -> Result<u64> {
    let free = rustix::fs::statvfs(folder_of(path)).doing("ask how much room there is")?;
    // Twice: as it comes, and as it is drawn up.
    Ok(free.f_bavail.saturating_mul(free.f_frsize) / 2)
}

/// Deletes copies that were left by a process that died over them.
fn clear(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).doing("look into the folder of a copy")? {
        let entry = entry.doing("look into the folder of a copy")?;
        let name = entry.file_name();
        let ours = name.as_encoded_bytes().starts_with(COPY.as_bytes());
        let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        if ours
            && regular
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
            && let Err(error) = migrate::remove(&entry.path())
        {
            // In a folder that others use too it may be another user's.
            log::debug!("half a copy stays where it is: {error}");
        }
    }
    Ok(())
}

/// Copies the database at `from` to `to`, all of one moment, and checks the copy before it gets its name.
pub(super) fn copy(from: &Path, to: &Path) -> Result<Copied> {
    if to.exists() {
        return Err(Error::State(format!(
            "{} exists: name a file that does not",
            to.display()
        )));
    }
    let draft = beside(to, ".part");
    migrate::remove(&draft)?;
    let made = pool::open_to_look(from)
        .and_then(|conn| vacuum(&conn, &draft))
        .and_then(|()| checked(&draft));
    let copied = match made {
        Ok(copied) => copied,
        Err(error) => {
            migrate::remove(&draft)?;
            return Err(error);
        }
    };
    migrate::sync(&draft)?;
    fs::rename(&draft, to).doing("give the copy its name")?;
    migrate::sync_folder_of(to)?;
    Ok(copied)
}

fn vacuum(conn: &Connection, to: &Path) -> Result<()> {
    let Some(to) = to.to_str() else {
        return Err(Error::Usage(format!(
            "{} is no name in UTF-8",
            to.display()
        )));
    };
    conn.execute_batch("pragma query_only = off")?;
    conn.execute("vacuum into ?1", [to])?;
    Ok(())
}

fn checked(path: &Path) -> Result<Copied> {
    let conn = pool::open_to_look(path)?;
    let schema = migrate::schema(&conn, path)?;
    sound(&conn, path)?;
    let bytes = fs::metadata(path).doing("measure the copy")?.len();
    Ok(Copied { bytes, schema })
}

fn sound(conn: &Connection, path: &Path) -> Result<()> {
    let found: String = conn.query_row("pragma integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    Err(Error::State(format!(
        "{} is damaged: {found}",
        path.display()
    )))
}

/// A restore under way: no server and no command works on the database as long as this is there.
#[derive(Debug)]
pub struct Restore {
    path: PathBuf,
    lock: Lock,
    /// Whether the WAL beside the database is that of another one.
    spoilt: bool,
    _alone: Users,
}

/// A copy that is ready to be put in place.
#[derive(Debug)]
pub struct Ready {
    draft: PathBuf,
    copied: Copied,
}

impl Restore {
    /// Keeps everybody else away from the database at `path`, which need not be there.
    ///
    /// # Errors
    /// [`Error::State`] when a server runs on it or a command works on it.
    pub fn begin(path: &Path) -> Result<Self> {
        let path = lock::resolved(path)?;
        lock::check_place(&path)?;
        let lock = Lock::take(&path)?;
        let alone = Users::alone(&path)?;
        lock::forget_unfinished(&path)?;
        let standing = Standing::of(&path, &lock.before(), Synchronous::Full);
        let spoilt = matches!(standing, Ok(Standing::Spoilt(_)));
        Ok(Self {
            path,
            lock,
            spoilt,
            _alone: alone,
        })
    }

    /// Where the database is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes of the file `from`, which may come from anywhere, a database that can be served: looked at, of this
    /// program's schema, and as `settle` leaves it, which also sees the file that it will replace. `name` is what the
    /// operator calls it. Nothing is in its place yet.
    ///
    /// # Errors
    /// [`Error::State`] when it is none of ours or is damaged, or what `settle` returns.
    pub fn prepare<T>(
        &self,
        from: &Path,
        name: &Path,
        settle: impl FnOnce(&Tx<'_>, &Replaced<'_>) -> Result<T>,
    ) -> Result<(Ready, T)> {
        examine(from, name)?;
        let draft = beside(&self.path, ".restored");
        migrate::remove_all(&draft)?;
        // What it says with another one's WAL is not true.
        let settle = |tx: &Tx<'_>, replaced: &Replaced<'_>| {
            if self.spoilt {
                let reason = "the WAL beside it is another file's".to_owned();
                return settle(tx, &Replaced::Unreadable(reason));
            }
            settle(tx, replaced)
        };
        match prepare_file(from, &self.path, &draft, settle) {
            Ok((copied, finalized)) => Ok((Ready { draft, copied }, finalized)),
            Err(error) => {
                migrate::remove_all(&draft)?;
                Err(error)
            }
        }
    }

    /// Puts a copy in its place, and keeps the old file beside it under a name that has `stamp` in it.
    ///
    /// Whenever this ends, by a failure or with the machine, the old file is there or the new one. Only one that
    /// is too damaged to be closed in order, or that can have no second name on its file system, is moved to where it is
    /// kept first: then there may be none after a power cut, and a server that starts says so.
    ///
    /// # Errors
    /// [`Error::State`] when another program has the old file open; nothing is changed then.
    pub fn put_in_place(&self, ready: Ready, stamp: &str) -> Result<Restored> {
        let path = &self.path;
        if self.spoilt {
            standing::set_wal_aside(path, stamp)?;
        }
        let kept = unused(&beside(path, &format!("{KEPT}{stamp}")))?;
        let had_one = path.exists();
        let moved = had_one && keep_old(path, &kept)?;
        // A WAL that is left beside a new file would be taken for its own, and spoil it.
        let placed = move_aside(path, &kept)
            .and_then(|()| migrate::sync_folder_of(path))
            .and_then(|()| fs::rename(&ready.draft, path).doing("put the copy in its place"));
        if let Err(error) = placed {
            if moved {
                move_back(&kept, path)?;
            }
            return Err(error);
        }
        migrate::sync_folder_of(path)?;
        // How far the old one was says nothing of the new one.
        self.lock.begin_with(path)?;
        let (copied, kept) = (ready.copied, had_one.then_some(kept));
        Ok(Restored { copied, kept })
    }
}

/// A name that nothing has: the wanted one, or that with a number.
pub(super) fn unused(wanted: &Path) -> Result<PathBuf> {
    let numbered = (2..1000).map(|number| beside(wanted, &format!("-{number}")));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|name| {
            ["", "-wal", "-shm"]
                .iter()
                .all(|part| beside(name, part).symlink_metadata().is_err())
        })
        .ok_or_else(|| Error::State("too many old databases are kept: delete some".to_owned()))
}

/// Looks whether a file from anywhere is a sound database of ours and nothing else, before anything in it is used.
fn examine(from: &Path, name: &Path) -> Result<()> {
    let look = || {
        let mut conn = pool::open_to_look(from)?;
        let bytes = fs::metadata(from).doing("measure the copy")?.len();
        limit(&mut conn, patience(bytes))?;
        let version = migrate::schema(&conn, name)?;
        // The schema first: a foreign view or check would be run by what looks for damage.
        if let Some(foreign) = migrate::foreign_objects(&conn, version)?.first() {
            return Err(Error::State(format!(
                "{} is not as license-server leaves a database: {foreign}; nothing was changed",
                name.display()
            )));
        }
        sound(&conn, name)
    };
    let unreadable = |cause: String| {
        Error::State(format!(
            "{} cannot be read as a database ({cause}); nothing was changed",
            name.display()
        ))
    };
    look().map_err(|error| match error {
        Error::Internal { source, .. } => unreadable(source.to_string()),
        Error::Damaged { found } => unreadable(found),
        other => other,
    })
}

fn patience(bytes: u64) -> Duration {
    let mib = u32::try_from(bytes / (1024 * 1024)).unwrap_or(u32::MAX);
    LOOK_MIN.saturating_add(LOOK_PER_MIB.saturating_mul(mib))
}

/// Interrupts whatever `conn` does once `patience` is over: in a file from anywhere, a query may never end.
fn limit(conn: &mut Connection, patience: Duration) -> Result<()> {
    let clock = SystemClock::default();
    let over = move || clock.tick().since(Tick::START) > patience;
    Ok(conn.progress_handler(STEPS, Some(over))?)
}

/// Makes of the copy `from` what is to be served at `path`: of this program's schema, and settled.
fn prepare_file<T>(
    from: &Path,
    path: &Path,
    draft: &Path,
    settle: impl FnOnce(&Tx<'_>, &Replaced<'_>) -> Result<T>,
) -> Result<(Copied, T)> {
    // Through SQLite, not byte by byte: so a copy that still has its WAL beside it comes whole.
    let copied = copy(from, draft)?;
    let mut conn = pool::open_alone(draft)?;
    limit(&mut conn, patience(copied.bytes))?;
    if copied.schema < migrate::SCHEMA {
        migrate::apply(&conn, copied.schema)?;
    }
    let finalized = finalized(&conn, path, settle)?;
    sound(&conn, draft)?;
    drop(conn);
    // Only the file itself is put in place: nothing may be left in a WAL.
    if !fold(draft)? {
        return Err(Error::State(format!(
            "another program has {} open: let it close the file first",
            draft.display()
        )));
    }
    migrate::sync(draft)?;
    let bytes = fs::metadata(draft).doing("measure the copy")?.len();
    let schema = migrate::SCHEMA;
    Ok((Copied { bytes, schema }, finalized))
}

fn finalized<T>(
    conn: &Connection,
    path: &Path,
    settle: impl FnOnce(&Tx<'_>, &Replaced<'_>) -> Result<T>,
) -> Result<T> {
    let epoch = Generation::default();
    let deed = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)
        .doing("begin to settle the copy")?;
    let epoch = &epoch;
    let tx = Tx::new(Reader { conn, epoch });
    let finalized = if path.exists() {
        match pool::open_to_look(path) {
            Ok(conn) => settle(&tx, &Replaced::File(&Reader { conn: &conn, epoch })),
            Err(error) => settle(&tx, &Replaced::Unreadable(error.to_string())),
        }
    } else {
        settle(&tx, &Replaced::Nothing)
    }?;
    deed.commit().doing("settle the copy")?;
    Ok(finalized)
}

/// Gives the old file a second name, with all that is in its WAL, so that there is no moment without one.
/// One that is too damaged for that is moved away in its parts. Whether it was moved.
fn keep_old(path: &Path, kept: &Path) -> Result<bool> {
    let name = path.display();
    match fold(path) {
        Ok(true) => {}
        Ok(false) => {
            return Err(Error::State(format!(
                "another program has {name} open: let it close the file first"
            )));
        }
        Err(Error::Damaged { found }) => {
            log::warn!("the old database is damaged, its parts are kept as they are: {found}");
            fs::rename(path, kept).doing("keep the old database")?;
            return Ok(true);
        }
        Err(Error::Unavailable { reason }) => {
            return Err(Error::State(format!(
                "the old database {name} can be neither read nor closed in order now ({reason}), so nothing was changed: \
                 let no other program use it (see `fuser {name}`) and make room, then try again; where its disk fails, \
                 move {name}, {name}-wal and {name}-shm away together, then try again"
            )));
        }
        Err(error) => return Err(error),
    }
    match fs::hard_link(path, kept) {
        Ok(()) => Ok(false),
        Err(error) if knows_no_links(&error) => {
            log::info!(
                "the old database is moved, since its file system knows no second names: {error}"
            );
            fs::rename(path, kept).doing("keep the old database")?;
            Ok(true)
        }
        Err(error) => Err(error).doing("keep the old database"),
    }
}

/// Whether a file can have no second name here: on exFAT, FAT, many network shares and FUSE file systems.
fn knows_no_links(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::INVAL)
    )
}

/// Puts the old file back with its parts, since the new one could not take its place.
fn move_back(kept: &Path, path: &Path) -> Result<()> {
    for part in ["-wal", "-shm", ""] {
        let from = beside(kept, part);
        if from.exists() {
            fs::rename(&from, beside(path, part)).doing("put the old database back")?;
        }
    }
    Ok(())
}

/// Writes all that is in the WAL into the file. False, if somebody else is still reading.
fn fold(path: &Path) -> Result<bool> {
    Ok(pool::fold(pool::open_alone(path)?)?)
}

/// Moves what is left beside the file to the name under which it is kept.
pub(super) fn move_aside(path: &Path, kept: &Path) -> Result<()> {
    for part in ["-wal", "-shm"] {
        let name = beside(path, part);
        if name.exists() {
            fs::rename(&name, beside(kept, part)).doing("keep a part of the old database")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_never_ends_is_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = pool::open_alone(&dir.path().join("t.sqlite3")).unwrap();
        limit(&mut conn, Duration::from_millis(20)).unwrap();
        let endless =
            "with recursive n (x) as (select 1 union all select x + 1 from n) select sum(x) from n";
        let told = conn
            .query_row(endless, [], |row| row.get::<_, i64>(0))
            .unwrap_err();
        assert_eq!(
            told.sqlite_error_code(),
            Some(rusqlite::ErrorCode::OperationInterrupted)
        );
    }

    #[test]
    fn names_of_old_files_never_collide() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("a");
        fs::write(&wanted, "").unwrap();
        fs::write(beside(&wanted, "-2-wal"), "").unwrap();
        assert_eq!(unused(&wanted).unwrap(), beside(&wanted, "-3"));
    }
}
