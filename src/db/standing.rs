//! Whether what lies in the database's place is what the last server left there. Looked at before the first write:
//! as long as nothing was written, a part that is missing can be put back, and a wrong one can be taken away.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::checkpoint;
use super::lock::{Before, KEPT, Lock, Users, beside, check_place, resolved};
use super::place::Identity;
use super::{Synchronous, migrate, pool};
use crate::clock::UnixMs;
use crate::error::{Doing, Error, Result};

/// How the operator says that the database that is there is the one to go on with.
const ACCEPT: &str = "license-server check --accept-database";

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is as it was left, as far as that can be seen.
    Right,
    /// The right files, but the disk lost what it had taken: there is nothing to put back.
    Shortened(String),
    /// It lacks what was acknowledged; what to do.
    Behind(String),
    /// The WAL beside it is another file's, or an old one: read together they would be damaged. What to do.
    Spoilt(String),
}

impl Standing {
    /// Of the database at `path`, which no server has.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be read now.
    pub(super) fn of(path: &Path, before: &Before, synchronous: Synchronous) -> Result<Self> {
        let look = |name: &Path| Identity::of(name).doing("look at the database file");
        let wal = beside(path, "-wal");
        let (file, log) = (look(path)?, look(&wal)?);
        let Some(file) = file else {
            return Ok(Self::Right);
        };
        let [known_file, known_log, _, known_lock] = before.parts;
        let left = checkpoint::is_left(path)?;
        let of_before = log
            .zip(known_log)
            .is_some_and(|(log, known)| log.continues(known));
        let replaced = known_file.filter(|known| !file.continues(*known));
        let files = Files {
            path,
            file,
            replaced,
            known_log,
        };
        if replaced.is_some() && left && of_before {
            return Ok(Self::Spoilt(files.of_another()));
        }
        let until = files.until(left)?;
        if left && !of_before && known_lock.is_some() && until < until_without_wal(path) {
            return Ok(Self::Spoilt(files.with_an_old_wal()));
        }
        // Where it does not tell, what opens it says what is wrong with it.
        let Some(until) = until.filter(|until| *until < before.seen) else {
            return Ok(Self::Right);
        };
        let told = files.behind(until, before.seen);
        // Without a sync at each commit, a power cut may take the last of them.
        let whole = replaced.is_none() && of_before && (left || synchronous == Synchronous::Normal);
        Ok(if whole {
            Self::Shortened(told)
        } else {
            Self::Behind(told)
        })
    }

    /// Refuses to go on with what is not as it was left. What can only be told is returned.
    ///
    /// # Errors
    /// [`Error::State`] saying what to do.
    pub(super) fn accepted(self) -> Result<Option<String>> {
        match self {
            Self::Right => Ok(None),
            Self::Shortened(told) => Ok(Some(told)),
            Self::Behind(told) | Self::Spoilt(told) => Err(Error::State(told)),
        }
    }
}

/// The files in question.
struct Files<'a> {
    path: &'a Path,
    file: Identity,
    /// The file that the last server had, where it is another one.
    replaced: Option<Identity>,
    known_log: Option<Identity>,
}

impl Files<'_> {
    /// The latest date that the database knows; none where it does not tell.
    fn until(&self, left: bool) -> Result<Option<UnixMs>> {
        let journal = beside(self.path, "-journal").exists();
        // Where nothing is left beside it, looking makes nothing there.
        let opened = if left || journal {
            pool::open_to_look(self.path)
        } else {
            pool::open_frozen(self.path)
        };
        match opened {
            Ok(conn) => Ok(high_water(&conn)),
            Err(error @ Error::Unavailable { .. }) => Err(error),
            Err(error) => {
                log::debug!("the database does not tell how far it is: {error}");
                Ok(None)
            }
        }
    }

    fn of_another(&self) -> String {
        let (name, found) = (self.path.display(), self.file.inode());
        let known = self.known_file();
        format!(
            "{name} is not the file that the server had open when it ended ({known}; now inode {found}), and {name}-wal \
             belongs to that one: nothing was written, since the two together would be damaged. Put the file back that \
             the server had, and leave {name}-wal where it is; or, to go on with the file that is there, run `{ACCEPT}`, \
             which moves the WAL aside; or restore the newest backup with `license-server restore FILE`"
        )
    }

    fn with_an_old_wal(&self) -> String {
        let name = self.path.display();
        format!(
            "{name}-wal was put there since the server ended, and is older than {name}: nothing was written, since the \
             two together would be damaged. Run `{ACCEPT}`, which moves that WAL aside and goes on with the database"
        )
    }

    fn behind(&self, until: UnixMs, seen: UnixMs) -> String {
        let (name, until, seen) = (self.path.display(), until.rfc3339(), seen.rfc3339());
        let lacks = format!(
            "{name} knows nothing after {until}, but the server that ran last has acknowledged changes until {seen}"
        );
        let accept = format!(
            "restore the newest backup with `license-server restore FILE`, or, to go on without those changes, run \
             `{ACCEPT}`"
        );
        if self.replaced.is_some() {
            let (known, found) = (self.known_file(), self.file.inode());
            return format!(
                "{lacks}: it is not the file that that server had open ({known}; now inode {found}), but an older copy; \
                 nothing was written. Put the right file back, with its WAL; {accept}"
            );
        }
        let inode = self
            .known_log
            .map_or_else(String::new, |log| format!(" (inode {})", log.inode()));
        format!(
            "{lacks}: its WAL was lost, or an older copy was put in its place; nothing was written. If you have the WAL \
             that the server left{inode}, put it back as {name}-wal before anything else is done; else {accept}"
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

/// The latest date that the file knows without its WAL; none where that does not tell: it may be half of a checkpoint.
fn until_without_wal(path: &Path) -> Option<UnixMs> {
    high_water(&pool::open_frozen(path).ok()?)
}

fn high_water(conn: &Connection) -> Option<UnixMs> {
    let known = conn.query_row(crate::sql!("db/latest_date"), [], |row| {
        row.get("high_water_ms")
    });
    known
        .inspect_err(|error| log::debug!("the database does not tell how far it is: {error}"))
        .ok()
}

/// Takes the database at `path` for the one to go on with, whatever the last server left; a WAL of another one is
/// kept under a name that has `stamp` in it. Where that is; none where there was no such WAL.
///
/// # Errors
/// [`Error::State`] while a server runs or a command works on it, or where there is no database.
pub(super) fn accept(path: &Path, stamp: &str) -> Result<Option<PathBuf>> {
    let path = resolved(path)?;
    check_place(&path)?;
    if !path.exists() {
        return Err(Error::State(format!(
            "there is no database at {}: `license-server restore FILE` brings one back",
            path.display()
        )));
    }
    let lock = Lock::take(&path)?;
    let _alone = Users::alone(&path)?;
    let standing = Standing::of(&path, &lock.before(), Synchronous::Full)?;
    let kept = matches!(standing, Standing::Spoilt(_))
        .then(|| set_wal_aside(&path, stamp))
        .transpose()?;
    lock.begin_with(&path)?;
    Ok(kept)
}

/// Moves a WAL that is not that of the database away from it.
pub(super) fn set_wal_aside(path: &Path, stamp: &str) -> Result<PathBuf> {
    let kept = super::backup::unused(&beside(path, &format!("{KEPT}{stamp}.other")))?;
    super::backup::move_aside(path, &kept)?;
    migrate::sync_folder_of(path)?;
    Ok(beside(&kept, "-wal"))
}
