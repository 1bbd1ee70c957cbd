//! Whether the database is still where it was opened. A file that was deleted, moved or replaced stays open, and
//! takes every write; but what is written then is gone with the process, or is in a file that nobody knows.

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use tempfile::TempDir;

use super::lock::{Holder, beside};
use super::room::Room;
use crate::error::{Doing, Error, Result};

/// The parts of a database in use: the file, what was committed lately, the index of that, and the lock.
const PARTS: [&str; 4] = ["", "-wal", "-shm", LOCK];
const LOCK: &str = ".lock";

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// When it was made, in nanoseconds; 0 where the file system does not tell. A deleted file's inode is soon
    /// another file's.
    born: u64,
}

impl Identity {
    /// Of the file at `path`; none where there is none.
    pub(super) fn of(path: &Path) -> std::io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(data) => Ok(Some(Self::from(&data))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As it is written down.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|number| number.parse().ok());
        let one = Self {
            device: numbers.next()??,
            inode: numbers.next()??,
            // Not written down by earlier versions.
            born: numbers.next().unwrap_or(Some(0))?,
        };
        numbers.next().is_none().then_some(one)
    }

    /// Whether it is the same file as `earlier`, which another process wrote down: a disk may have another number
    /// after the machine was started again.
    pub(super) fn continues(self, earlier: Self) -> bool {
        let unknown = self.born == 0 || earlier.born == 0;
        self.inode == earlier.inode && (unknown || self.born == earlier.born)
    }

    /// The number by which `find -inum` finds it.
    pub(super) fn inode(self) -> u64 {
        self.inode
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(data: &fs::Metadata) -> Self {
        let born = data.created().ok();
        let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Self {
            device: data.dev(),
            inode: data.ino(),
            born: born.map_or(0, |born| u64::try_from(born.as_nanos()).unwrap_or(0)),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.device, self.inode, self.born)
    }
}

/// The parts of an open database.
pub(super) type Parts = [Option<Identity>; PARTS.len()];

/// Where a database was opened, and which files were there.
#[derive(Debug)]
pub(super) struct DatabaseFiles {
    path: PathBuf,
    /// None of a part that was not there, or not opened for writing yet.
    parts: RwLock<Parts>,
    /// Whether it has been said that they are gone.
    told: AtomicBool,
}

impl DatabaseFiles {
    /// Of the database at `path`; what is there is learned once it is open.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            parts: RwLock::default(),
            told: AtomicBool::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files that the database consists of, as far as they are known.
    pub(super) fn parts(&self) -> Parts {
        *self.parts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the files that are at the path now for those of the database, which is open for writing; `lock` is the
    /// one that this process holds, if any.
    pub(super) fn learn(&self, lock: Option<Identity>) -> Result<Parts> {
        let mut parts = Parts::default();
        for (part, suffix) in parts.iter_mut().zip(PARTS) {
            if suffix == LOCK {
                *part = lock;
                continue;
            }
            *part = Identity::of(&beside(&self.path, suffix)).doing("look at the database file")?;
        }
        *self.parts.write().unwrap_or_else(PoisonError::into_inner) = parts;
        Ok(parts)
    }

    /// Whether every part is where it was, or what is wrong and what to do: a microsecond for each. Said in the log
    /// when it begins, and when it ends.
    pub(super) fn check(&self) -> Result<(), String> {
        let found = compare(&self.path, &self.parts());
        let gone = found.is_err();
        if self.told.swap(gone, Ordering::Relaxed) != gone {
            match &found {
                Err(reason) => log::error!("{reason}"),
                Ok(()) => log::warn!("{} is in its place again", self.path.display()),
            }
        }
        found
    }
}

fn compare(path: &Path, parts: &Parts) -> Result<(), String> {
    for (part, suffix) in parts.iter().zip(PARTS) {
        let name = beside(path, suffix);
        let what = match Identity::of(&name) {
            Ok(found) if found == *part || part.is_none() => continue,
            Ok(None) => "was deleted or moved".to_owned(),
            Ok(Some(_)) => "was replaced by another file".to_owned(),
            Err(error) => format!("cannot be looked at ({error})"),
        };
        if !suffix.is_empty() {
            return Err(gone(&name, &what));
        }
        return Err(format!(
            "{} {what} while the server has it open, so nothing is written any more: move the file back, or save what \
             the server still has with `license-server backup FILE`, stop the server, and put that in place with \
             `license-server restore FILE`",
            name.display()
        ));
    }
    Ok(())
}

/// That a part beside the database is not where it was, and what to do.
fn gone(name: &Path, what: &str) -> String {
    format!(
        "{} {what} while the server has it open, so nothing is written any more: save what the server still has with \
         `license-server backup FILE`, then stop it with SIGTERM and start it again",
        name.display()
    )
}

/// Whether the database that a running server has open is the one at `path`. True as well where no server runs.
///
/// # Errors
/// [`Error::State`] where it is not.
pub(super) fn is_served_from(path: &Path) -> Result<()> {
    match Holder::of(path)? {
        Some(holder) => holder.serves(path),
        None => Ok(()),
    }
}

/// What was saved of a database that is not in its place any more.
#[derive(Debug)]
pub struct Rescued {
    /// The copy.
    pub database: PathBuf,
    /// The data folder where it is now, if it was moved as a whole.
    pub data: Option<PathBuf>,
    /// The copy is gone with it.
    _folder: TempDir,
}

/// Copies what the server at `path` has open, though it is not at `path` any more, into a folder in one of `places`:
/// it writes nothing meanwhile, so file and WAL belong together.
///
/// # Errors
/// [`Error::State`] when the server's files cannot be reached, or there is no room for the copy.
pub(super) fn rescue(path: &Path, places: &[Room]) -> Result<Rescued> {
    let holder = Holder::of(path)?
        .ok_or_else(|| Error::State(format!("no server runs on {}", path.display())))?;
    let lost = |suffix: &str| {
        Error::State(format!(
            "the server (process {}) has {}{suffix} no longer open: restore a backup",
            holder.pid,
            path.display()
        ))
    };
    let open = holder.open_files()?;
    let mut sources = Vec::new();
    // The index is made anew from the WAL.
    for (index, (part, suffix)) in holder.parts.iter().zip(PARTS).take(2).enumerate() {
        let Some(part) = part else {
            // A server that could not write since its start has no WAL, but it has a database.
            if index == 0 {
                return Err(lost(suffix));
            }
            continue;
        };
        let source = open.iter().find(|(identity, _)| identity == part);
        let (_, source) = source.ok_or_else(|| lost(suffix))?;
        let file = File::open(source).doing("open what the server has open")?;
        sources.push((file, suffix));
    }
    let mut bytes = 0;
    for (file, _) in &sources {
        bytes += file
            .metadata()
            .doing("measure what the server has open")?
            .len();
    }
    let folder = Room::first(places, bytes, |folder| {
        let made = tempfile::Builder::new()
            .prefix(".license-server-rescue-")
            .tempdir_in(folder);
        made.doing("make a folder for the copy")
    })?;
    let copy = folder.path().join("rescued.sqlite3");
    for (mut from, suffix) in sources {
        let mut to = File::create_new(beside(&copy, suffix)).doing("make the copy")?;
        std::io::copy(&mut from, &mut to).doing("copy what the server has open")?;
    }
    let data = holder.is_now_at()?;
    Ok(Rescued {
        database: copy,
        data: data.and_then(|file| file.parent().map(Path::to_owned)),
        _folder: folder,
    })
}

impl Holder {
    /// Whether the database that it has open is the one at `path`.
    fn serves(&self, path: &Path) -> Result<()> {
        let reason = match compare(path, &self.parts) {
            Ok(()) if path.exists() => return Ok(()),
            Ok(()) => format!(
                "{} is not there, though a server (process {}) runs on it, which does not tell more: look at its log",
                path.display(),
                self.pid
            ),
            Err(reason) => reason,
        };
        // For another user it stays hidden where it is.
        let now_at = self.is_now_at().ok().flatten();
        let now_at = now_at.map(|file| format!(" (it is {} now)", file.display()));
        Err(Error::State(reason + &now_at.unwrap_or_default()))
    }

    /// The present path of the database file, where it has one.
    fn is_now_at(&self) -> Result<Option<PathBuf>> {
        let [file, ..] = self.parts;
        let open = self.open_files()?;
        let found = open.iter().find(|(identity, _)| Some(*identity) == file);
        let path = found.and_then(|(_, link)| fs::read_link(link).ok());
        // That of a deleted file ends with a word that says so.
        Ok(path.filter(|path| Identity::of(path).is_ok_and(|there| there == file)))
    }

    /// What the process has open, as paths that lead there whatever became of the names.
    fn open_files(&self) -> Result<Vec<(Identity, PathBuf)>> {
        let folder = PathBuf::from(format!("/proc/{}/fd", self.pid));
        let entries = fs::read_dir(&folder).map_err(|error| {
            Error::State(format!(
                "cannot look at what the server (process {}) has open ({error}): run this as its user or as root; the \
                 panel's backups work too",
                self.pid
            ))
        })?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.doing("look at what the server has open")?.path();
            // A connection that has just been closed is none of ours.
            if let Ok(data) = fs::metadata(&path) {
                found.push((Identity::from(&data), path));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_gone_replaced_or_back_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        for suffix in PARTS {
            fs::write(beside(&path, suffix), "x").unwrap();
        }
        let place = DatabaseFiles::new(&path);
        place
            .learn(Identity::of(&beside(&path, LOCK)).unwrap())
            .unwrap();
        assert_eq!(place.check(), Ok(()));
        for suffix in PARTS {
            let (name, away) = (beside(&path, suffix), dir.path().join("away"));
            fs::rename(&name, &away).unwrap();
            assert!(place.check().unwrap_err().contains("deleted or moved"));
            fs::write(&name, "x").unwrap();
            assert!(place.check().unwrap_err().contains("replaced"));
            fs::rename(&away, &name).unwrap();
            assert_eq!(place.check(), Ok(()), "{suffix}");
        }
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let one = Identity {
            device: 65024,
            inode: u64::MAX,
            born: 1_795_356_331_000_000_000,
        };
        assert_eq!(Identity::parse(&one.to_string()), Some(one));
        let old = Identity::parse("1:18446744073709551615").unwrap();
        assert!(
            one.continues(old) && old.continues(one),
            "no birth is known"
        );
        let reused = Identity { born: 1, ..one };
        assert!(!reused.continues(one) && reused != one);
        for wrong in ["", "1", "1:", ":1", "a:b", "1:2:", "1:2:3:4"] {
            assert_eq!(Identity::parse(wrong), None, "{wrong}");
        }
    }
}
