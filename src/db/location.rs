//! Whether the database is still where it was opened. A file that was deleted, moved or replaced stays open and
//! accepts writes; but what is written then is lost with the process, or is in a file that no later process finds.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use super::files::beside;
use crate::error::{Doing, Result};

/// The files of an open database: the database itself, the WAL, the WAL's index, and the lock file.
pub(super) const PARTS: [&str; 4] = ["", "-wal", "-shm", LOCK];
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

pub(super) fn compare(path: &Path, parts: &Parts) -> Result<(), String> {
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
