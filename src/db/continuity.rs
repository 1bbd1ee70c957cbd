//! Whether the database file and its WAL are those that the last server left. Checked before the first write: as
//! long as nothing was written, a missing file can be put back and a wrong one taken away.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::checkpoint;
use super::files::{self, beside, resolved};
use super::location::Identity;
use super::lock::{Lock, Previous};
use super::options::Synchronous;
use super::path_check::{REPLACED, check_path};
use super::pool;
use super::users::Users;
use crate::clock::UnixMs;
use crate::error::{Doing, Error, Result};

/// The command with which the operator accepts the database that is there.
const ACCEPT: &str = "license-server check --accept-database";

/// The result of the check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    /// The database is as the last server left it, as far as that can be seen.
    Intact,
    /// The right files, but the disk lost the last commits: there is nothing to put back. Holds a message for the
    /// log.
    LostTail(String),
    /// The database lacks acknowledged changes. Holds a message that says what to do.
    Behind(String),
    /// The WAL belongs to another database, or is an old one: together they would be damaged. Holds a message that
    /// says what to do.
    ForeignWal(String),
}

impl Continuity {
    /// Checks the database at `path`, which no server has open.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be read now.
    pub(super) fn of(path: &Path, previous: &Previous, synchronous: Synchronous) -> Result<Self> {
        let identity = |name: &Path| Identity::of(name).doing("examine the database file");
        let wal = beside(path, "-wal");
        let (file, log) = (identity(path)?, identity(&wal)?);
        let Some(file) = file else {
            return Ok(Self::Intact);
        };
        let [known_file, known_log, _, known_lock] = previous.parts;
        let has_wal = checkpoint::wal_has_content(path)?;
        let of_previous = log
            .zip(known_log)
            .is_some_and(|(log, known)| log.continues(known));
        let replaced = known_file.filter(|known| !file.continues(*known));
        let files = Files {
            path,
            file,
            replaced,
            known_log,
            of_previous,
            has_wal,
        };
        if replaced.is_some() && has_wal && of_previous {
            return Ok(Self::ForeignWal(files.message_for_foreign_wal()));
        }
        let latest = files.latest()?;
        // Also in the file that the last server left: it stays, empty, while somebody else still reads.
        if has_wal && known_lock.is_some() && latest < latest_date_without_wal(path) {
            return Ok(Self::ForeignWal(files.message_for_old_wal()));
        }
        // A database without a date is refused where it is opened.
        let Some(latest) = latest.filter(|latest| *latest < previous.seen) else {
            return Ok(Self::Intact);
        };
        let message = files.message_for_behind(latest, previous.seen);
        Ok(if files.lost_only_the_tail(synchronous) {
            Self::LostTail(message)
        } else {
            Self::Behind(message)
        })
    }

    /// `Ok` if the server may start; with a message if that is to be logged.
    ///
    /// # Errors
    /// [`Error::State`] that says what to do.
    pub(super) fn acceptable(self) -> Result<Option<String>> {
        match self {
            Self::Intact => Ok(None),
            Self::LostTail(message) => Ok(Some(message)),
            Self::Behind(message) | Self::ForeignWal(message) => Err(Error::State(message)),
        }
    }
}

/// The files to judge.
struct Files<'a> {
    path: &'a Path,
    file: Identity,
    /// The file that the last server had open, if it was another one.
    replaced: Option<Identity>,
    known_log: Option<Identity>,
    /// Whether the WAL is the one that the last server had open.
    of_previous: bool,
    /// Whether the WAL has content.
    has_wal: bool,
}

impl Files<'_> {
    /// The latest date in the database; `None` if it cannot be read.
    fn latest(&self) -> Result<Option<UnixMs>> {
        let journal = beside(self.path, "-journal").exists();
        // Without WAL or journal, reading must not create any.
        let opened = if self.has_wal || journal {
            pool::open_read_only(self.path)
        } else {
            pool::open_immutable(self.path)
        };
        match opened {
            Ok(conn) => Ok(high_water(&conn)),
            Err(error @ Error::Unavailable { .. }) => Err(error),
            Err(error) => {
                log::debug!("the latest date in the database cannot be read: {error}");
                Ok(None)
            }
        }
    }

    /// Whether a database that lacks changes lost the last commits only.
    fn lost_only_the_tail(&self, synchronous: Synchronous) -> bool {
        // Without a sync at each commit, a power cut may lose the last commits.
        self.replaced.is_none()
            && self.of_previous
            && (self.has_wal || synchronous == Synchronous::Normal)
    }

    fn message_for_foreign_wal(&self) -> String {
        let (name, found) = (self.path.display(), self.file.inode());
        let known = self.known_file();
        format!(
            "{name} is not the file that the server had open when it ended ({known}; now inode {found}), and {name}-wal \
             belongs to that one: nothing was written, since the two together would be damaged. Put back the file that \
             the server had, and leave {name}-wal where it is; or, to continue with the file that is there, run `{ACCEPT}`, \
             which moves the WAL aside; or restore the newest backup with `license-server restore FILE`"
        )
    }

    fn message_for_old_wal(&self) -> String {
        let name = self.path.display();
        format!(
            "{name}-wal was put there after the server ended, and is older than {name}: nothing was written, since the \
             two together would be damaged. Run `{ACCEPT}`, which moves that WAL aside and keeps the database"
        )
    }

    fn message_for_behind(&self, latest: UnixMs, seen: UnixMs) -> String {
        let (name, latest, seen) = (self.path.display(), latest.rfc3339(), seen.rfc3339());
        let lacks = format!(
            "{name} has no changes after {latest}, but the server that ran last acknowledged changes until {seen}"
        );
        let accept = format!(
            "restore the newest backup with `license-server restore FILE`, or, to continue without those changes, run \
             `{ACCEPT}`"
        );
        if self.replaced.is_some() {
            let (known, found) = (self.known_file(), self.file.inode());
            return format!(
                "{lacks}: it is not the file that the server had open ({known}; now inode {found}), but an older copy; \
                 nothing was written. Put back the right file, with its WAL; {accept}"
            );
        }
        let inode = self
            .known_log
            .map_or_else(String::new, |log| format!(" (inode {})", log.inode()));
        format!(
            "{lacks}: its WAL was lost, or an older copy was put in its place; nothing was written. If you have the WAL \
             that the server left{inode}, put it back as {name}-wal before doing anything else; otherwise {accept}"
        )
    }

    fn known_file(&self) -> String {
        let inode = self.replaced.map_or(0, Identity::inode);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        format!(
            "inode {inode}; `find {} -xdev -inum {inode}` finds it while it exists",
            folder.display()
        )
    }
}

/// The latest date in the file without its WAL; `None` if it cannot be read: a checkpoint may have been
/// interrupted.
fn latest_date_without_wal(path: &Path) -> Option<UnixMs> {
    high_water(&pool::open_immutable(path).ok()?)
}

fn high_water(conn: &Connection) -> Option<UnixMs> {
    let known = conn.query_row(crate::sql!("db/latest_date"), [], |row| {
        row.get("high_water_ms")
    });
    known
        .inspect_err(|error| log::debug!("the latest date in the database cannot be read: {error}"))
        .ok()
}

/// Accepts the database at `path`, whatever the last server left. A WAL of another database is moved to a name
/// that contains `stamp`; returns that name, `None` if there was no such WAL.
///
/// # Errors
/// [`Error::State`] while a server or a command uses the database, or if there is none.
pub(super) fn accept(path: &Path, stamp: &str) -> Result<Option<PathBuf>> {
    let path = resolved(path)?;
    check_path(&path)?;
    if !path.exists() {
        return Err(Error::State(format!(
            "there is no database at {}: `license-server restore FILE` brings one back",
            path.display()
        )));
    }
    let lock = Lock::take(&path)?;
    let _exclusive = Users::exclusive(&path)?;
    let continuity = Continuity::of(&path, &lock.previous(), Synchronous::Full)?;
    let moved_to = matches!(continuity, Continuity::ForeignWal(_))
        .then(|| set_wal_aside(&path, stamp))
        .transpose()?;
    lock.accept_file(&path)?;
    Ok(moved_to)
}

/// Moves a WAL that belongs to another database away.
pub(super) fn set_wal_aside(path: &Path, stamp: &str) -> Result<PathBuf> {
    let moved_to = files::unused(&beside(path, &format!("{REPLACED}{stamp}.other")))?;
    files::move_aside(path, &moved_to)?;
    files::sync_folder_of(path)?;
    Ok(beside(&moved_to, "-wal"))
}
