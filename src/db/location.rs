//! Whether the database is still where it was opened. A file that was deleted, moved or replaced stays open and
//! accepts writes; but what is written then is lost with the process, or is in a file that no later process finds.

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use tempfile::TempDir;

use super::copy_folder::CopyFolder;
use super::lock::{Holder, beside};
use crate::error::{Doing, Error, Result};

/// The files of an open database: the database itself, the WAL, the WAL's index, and the lock file.
const PARTS: [&str; 4] = ["", "-wal", "-shm", LOCK];
const LOCK: &str = ".lock";

/// The identity of a file, independent of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// Creation time in nanoseconds since 1970; 0 if the file system does not have it. Needed because the inode of
    /// a deleted file is soon reused.
    born: u64,
}

impl Identity {
    /// The identity of the file at `path`; `None` if there is none.
    pub(super) fn of(path: &Path) -> std::io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(data) => Ok(Some(Self::from(&data))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Parses the form of [`fmt::Display`]: `device:inode:born`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|number| number.parse().ok());
        let identity = Self {
            device: numbers.next()??,
            inode: numbers.next()??,
            // Earlier versions did not write it.
            born: numbers.next().unwrap_or(Some(0))?,
        };
        numbers.next().is_none().then_some(identity)
    }

    /// Whether it is the same file as `earlier`, which another process noted. The device is not compared: a disk
    /// may have another device number after a reboot.
    pub(super) fn continues(self, earlier: Self) -> bool {
        let unknown = self.born == 0 || earlier.born == 0;
        self.inode == earlier.inode && (unknown || self.born == earlier.born)
    }

    /// The inode, by which `find -inum` finds the file.
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

/// The identities of the files of an open database, in the order of `PARTS`.
pub(super) type Parts = [Option<Identity>; PARTS.len()];

/// The path of an open database, and which files were opened there.
#[derive(Debug)]
pub(super) struct DatabaseFiles {
    path: PathBuf,
    /// `None` for a file that did not exist, or was not opened for writing yet.
    parts: RwLock<Parts>,
    /// Whether it has been logged that a file is gone.
    logged: AtomicBool,
}

impl DatabaseFiles {
    /// For the database at `path`; its files are recorded by [`Self::record_files`] once it is open.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            parts: RwLock::default(),
            logged: AtomicBool::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files of the database, as far as they are known.
    pub(super) fn parts(&self) -> Parts {
        *self.parts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the files that are at the path now as those of the database, which is open for writing; `lock` is
    /// the lock file that this process holds, if any.
    pub(super) fn record_files(&self, lock: Option<Identity>) -> Result<Parts> {
        let mut parts = Parts::default();
        for (part, suffix) in parts.iter_mut().zip(PARTS) {
            if suffix == LOCK {
                *part = lock;
                continue;
            }
            *part = Identity::of(&beside(&self.path, suffix)).doing("examine the database file")?;
        }
        *self.parts.write().unwrap_or_else(PoisonError::into_inner) = parts;
        Ok(parts)
    }

    /// Checks that every file is where it was, which takes a microsecond each. The error says what is wrong and
    /// what to do. Logged when it begins and when it ends.
    pub(super) fn check(&self) -> Result<(), String> {
        let found = compare(&self.path, &self.parts());
        let missing = found.is_err();
        if self.logged.swap(missing, Ordering::Relaxed) != missing {
            match &found {
                Err(reason) => log::error!("{reason}"),
                Ok(()) => log::warn!("{} is back at its path", self.path.display()),
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
            Err(error) => format!("cannot be read ({error})"),
        };
        if !suffix.is_empty() {
            return Err(missing(&name, &what));
        }
        return Err(format!(
            "{} {what} while the server has it open, so nothing is written any more: move the file back, or save the \
             server's data with `license-server backup FILE`, stop the server, and restore it with \
             `license-server restore FILE`",
            name.display()
        ));
    }
    Ok(())
}

/// The message for a file beside the database that is gone.
fn missing(name: &Path, what: &str) -> String {
    format!(
        "{} {what} while the server has it open, so nothing is written any more: save the server's data with \
         `license-server backup FILE`, then stop it with SIGTERM and start it again",
        name.display()
    )
}

/// Checks that the database that a running server has open is the one at `path`. `Ok` if no server runs.
///
/// # Errors
/// [`Error::State`] if it is another one.
pub(super) fn is_served_from(path: &Path) -> Result<()> {
    match Holder::of(path)? {
        Some(holder) => holder.serves(path),
        None => Ok(()),
    }
}

/// A copy of a database that was deleted or moved while a server had it open.
#[derive(Debug)]
pub struct Rescued {
    /// The copy.
    pub database: PathBuf,
    /// The present path of the data folder, if it was moved as a whole.
    pub data: Option<PathBuf>,
    /// Deletes the copy when dropped.
    _folder: TempDir,
}

/// Copies the files that the server at `path` has open, although they are no longer there, into a folder in one of
/// `folders`. The server writes nothing meanwhile, so database and WAL belong together.
///
/// # Errors
/// [`Error::State`] if the server's files cannot be read, or there is no space for the copy.
pub(super) fn rescue(path: &Path, folders: &[CopyFolder]) -> Result<Rescued> {
    let holder = Holder::of(path)?
        .ok_or_else(|| Error::State(format!("no server runs on {}", path.display())))?;
    let lost = |suffix: &str| {
        Error::State(format!(
            "the server (process {}) no longer has {}{suffix} open: restore a backup",
            holder.pid,
            path.display()
        ))
    };
    let open = holder.open_files()?;
    let mut sources = Vec::new();
    // The index is not needed: SQLite rebuilds it from the WAL.
    for (index, (part, suffix)) in holder.parts.iter().zip(PARTS).take(2).enumerate() {
        let Some(part) = part else {
            // A server that was unable to write since its start has no WAL, but it has a database.
            if index == 0 {
                return Err(lost(suffix));
            }
            continue;
        };
        let source = open.iter().find(|(identity, _)| identity == part);
        let (_, source) = source.ok_or_else(|| lost(suffix))?;
        let file = File::open(source).doing("open a file of the server")?;
        sources.push((file, suffix));
    }
    let mut bytes = 0;
    for (file, _) in &sources {
        bytes += file.metadata().doing("measure a file of the server")?.len();
    }
    let folder = CopyFolder::first(folders, bytes, |folder| {
        let made = tempfile::Builder::new()
            .prefix(".license-server-rescue-")
            .tempdir_in(folder);
        made.doing("make a folder for the copy")
    })?;
    let copy = folder.path().join("rescued.sqlite3");
    for (mut from, suffix) in sources {
        let mut to = File::create_new(beside(&copy, suffix)).doing("make the copy")?;
        std::io::copy(&mut from, &mut to).doing("copy a file of the server")?;
    }
    let data = holder.is_now_at()?;
    Ok(Rescued {
        database: copy,
        data: data.and_then(|file| file.parent().map(Path::to_owned)),
        _folder: folder,
    })
}

impl Holder {
    /// Checks that the database that it has open is the one at `path`.
    fn serves(&self, path: &Path) -> Result<()> {
        let reason = match compare(path, &self.parts) {
            Ok(()) if path.exists() => return Ok(()),
            Ok(()) => format!(
                "{} is missing, though a server (process {}) runs on it, which does not say which files it has open: see its log",
                path.display(),
                self.pid
            ),
            Err(reason) => reason,
        };
        // Another user may not see where it is.
        let now_at = self.is_now_at().ok().flatten();
        let now_at = now_at.map(|file| format!(" (it is {} now)", file.display()));
        Err(Error::State(reason + &now_at.unwrap_or_default()))
    }

    /// The present path of the database file; `None` if it was deleted.
    fn is_now_at(&self) -> Result<Option<PathBuf>> {
        let [file, ..] = self.parts;
        let open = self.open_files()?;
        let found = open.iter().find(|(identity, _)| Some(*identity) == file);
        let path = found.and_then(|(_, link)| fs::read_link(link).ok());
        // The link to a deleted file ends with " (deleted)".
        Ok(path.filter(|path| Identity::of(path).is_ok_and(|there| there == file)))
    }

    /// The files that the process has open, as paths that lead to them even if they were deleted.
    fn open_files(&self) -> Result<Vec<(Identity, PathBuf)>> {
        let folder = PathBuf::from(format!("/proc/{}/fd", self.pid));
        let entries = fs::read_dir(&folder).map_err(|error| {
            Error::State(format!(
                "cannot list the files that the server (process {}) has open ({error}): run this as its user or as root, \
                 or make the backup in the panel",
                self.pid
            ))
        })?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry
                .doing("list the files that the server has open")?
                .path();
            // A descriptor that was closed meanwhile is skipped.
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
    fn missing_replaced_and_returned_files_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        for suffix in PARTS {
            fs::write(beside(&path, suffix), "x").unwrap();
        }
        let location = DatabaseFiles::new(&path);
        location
            .record_files(Identity::of(&beside(&path, LOCK)).unwrap())
            .unwrap();
        assert_eq!(location.check(), Ok(()));
        for suffix in PARTS {
            let (name, moved) = (beside(&path, suffix), dir.path().join("away"));
            fs::rename(&name, &moved).unwrap();
            assert!(location.check().unwrap_err().contains("deleted or moved"));
            fs::write(&name, "x").unwrap();
            assert!(location.check().unwrap_err().contains("replaced"));
            fs::rename(&moved, &name).unwrap();
            assert_eq!(location.check(), Ok(()), "{suffix}");
        }
    }

    #[test]
    fn an_identity_is_parsed_as_it_was_printed() {
        let identity = Identity {
            device: 65024,
            inode: u64::MAX,
            born: 1_795_356_331_000_000_000,
        };
        assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
        let old = Identity::parse("1:18446744073709551615").unwrap();
        assert!(
            identity.continues(old) && old.continues(identity),
            "one has no creation time"
        );
        let reused = Identity {
            born: 1,
            ..identity
        };
        assert!(!reused.continues(identity) && reused != identity);
        for wrong in ["", "1", "1:", ":1", "a:b", "1:2:", "1:2:3:4"] {
            assert_eq!(Identity::parse(wrong), None, "{wrong}");
        }
    }
}
