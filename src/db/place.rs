//! Whether the database is still where it was opened. A file that was deleted, moved or replaced stays open, and
//! takes every write; but what is written then is gone with the process, or is in a file that nobody knows.

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use super::lock::{Holder, beside};
use crate::error::{Doing, Error, Result};

/// The parts of a database in use: the file, what was committed lately, and the index of that.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of the file at `path`; none where there is none.
    fn of(path: &Path) -> std::io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(data) => Ok(Some(Self::from(&data))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As it is written down.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (device, inode) = text.split_once(':')?;
        Some(Self {
            device: device.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(data: &fs::Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

/// The parts of an open database.
pub(super) type Parts = [Option<Identity>; PARTS.len()];

/// Where a database was opened, and which files were there.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// None of a part that was not there, or not opened for writing yet.
    parts: RwLock<Parts>,
    /// Whether it has been said that they are gone.
    told: AtomicBool,
}

impl Place {
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

    /// Takes the files that are at the path now for those of the database, which is open for writing.
    pub(super) fn learn(&self) -> Result<Parts> {
        let mut parts = Parts::default();
        for (part, suffix) in parts.iter_mut().zip(PARTS) {
            *part = Identity::of(&beside(&self.path, suffix)).doing("look at the database file")?;
        }
        *self.parts.write().unwrap_or_else(PoisonError::into_inner) = parts;
        Ok(parts)
    }

    /// Whether every part is where it was, or what is wrong and what to do: a microsecond for each. Said in the log
    /// when it begins, and when it ends.
    pub(super) fn check(&self) -> Result<(), String> {
        let parts = *self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let found = compare(&self.path, &parts);
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
        let advice = if suffix.is_empty() {
            "move the file back, or save what the server still has with `license-server backup FILE`, stop the \
             server, and put that in place with `license-server restore FILE`"
        } else {
            "save what the server still has with `license-server backup FILE`, then stop it with SIGTERM and start \
             it again"
        };
        return Err(format!(
            "{} {what} while the server has it open, so nothing is written any more: {advice}",
            name.display()
        ));
    }
    Ok(())
}

/// Whether the database that a running server has open is the one at `path`. True as well where no server runs.
///
/// # Errors
/// [`Error::State`] where it is not.
pub(super) fn is_served_from(path: &Path) -> Result<()> {
    match Holder::of(path)? {
        Some(holder) => compare(path, &holder.parts).map_err(Error::State),
        None => Ok(()),
    }
}

/// Copies what the server at `path` has open into `folder`, though it is not at `path` any more: it writes nothing
/// meanwhile, so file and WAL belong together. The path of the copy.
///
/// # Errors
/// [`Error::State`] when the server's files cannot be reached.
pub(super) fn rescue(path: &Path, folder: &Path) -> Result<PathBuf> {
    let holder = Holder::of(path)?
        .ok_or_else(|| Error::State(format!("no server runs on {}", path.display())))?;
    let copy = folder.join("rescued.sqlite3");
    let open = holder.open_files()?;
    // The index is made anew from the WAL.
    for (part, suffix) in holder.parts.iter().zip(PARTS).take(2) {
        let Some(part) = part else { continue };
        let source = open.iter().find(|(identity, _)| identity == part);
        let (_, source) = source.ok_or_else(|| {
            Error::State(format!(
                "the server (process {}) has {}{suffix} no longer open: restore a backup",
                holder.pid,
                path.display()
            ))
        })?;
        let mut from = File::open(source).doing("open what the server has open")?;
        let mut to = File::create_new(beside(&copy, suffix)).doing("make the copy")?;
        std::io::copy(&mut from, &mut to).doing("copy what the server has open")?;
    }
    Ok(copy)
}

impl Holder {
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
        let place = Place::new(&path);
        place.learn().unwrap();
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
        };
        assert_eq!(Identity::parse(&one.to_string()), Some(one));
        for wrong in ["", "1", "1:", ":1", "a:b", "1:2:3"] {
            assert_eq!(Identity::parse(wrong), None, "{wrong}");
        }
    }
}
