//! Whether the path of the settings may be used for a database. Checked before anything is created beside it.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::files::{beside, folder_of, remove};
use crate::error::{Doing, Error, Result};

/// In the name of a file that a restore has replaced, before its time stamp.
pub(super) const REPLACED: &str = ".before-restore-";
/// In the name of a copy that a restore prepares.
pub(super) const PREPARED: &str = ".restored";
/// In the name of the copy that a migration saves, before the number of the schema.
pub(super) const SAVED: &str = ".before-v";
/// The end of the name of a copy that is being made.
pub(super) const UNFINISHED: &str = ".part";
/// What SQLite adds to the name of a database for the files beside it.
const PARTS: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// `LicS` in SQLite's header: marks a license-server database.
pub(super) const APPLICATION_ID: i32 = 0x4c69_6353;

/// Whether `path` is free or holds a license-server database. Checked before anything is created beside it.
///
/// # Errors
/// [`Error::State`] for a device, a folder, a pipe, any other file, or a database with a second name (hard link).
pub(super) fn check_path(path: &Path) -> Result<()> {
    let name = path.display();
    let data = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        data => data.doing("examine the database file")?,
    };
    if !data.is_file() {
        let what = file_kind(&data);
        return Err(Error::State(format!(
            "{name} is {what}: set [database] path to a file"
        )));
    }
    // If a lock file is there, the file was a database and is damaged; opening it reports that.
    if data.len() > 0 && !beside(path, ".lock").exists() && !is_ours(path)? {
        return Err(Error::State(format!(
            "{name} is a file, but no database of license-server: set [database] path to another one"
        )));
    }
    let names = data
        .nlink()
        .saturating_sub(unfinished_restore(path, &data)?.len() as u64);
    if names > 1 {
        return Err(Error::State(format!(
            "{name} has {names} names (hard links), and another server could write to it by each of them: remove all \
             but one; `find / -samefile {name}` lists them"
        )));
    }
    Ok(())
}

/// The kind of a file that is not a regular file, with its article.
pub fn file_kind(data: &Metadata) -> &'static str {
    let kind = data.file_type();
    if kind.is_symlink() {
        "a link"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Whether a file begins like a license-server database. Read without SQLite, which might create files beside it.
fn is_ours(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    let file = File::open(path).doing("read the database file")?;
    file.take(72)
        .read_to_end(&mut head)
        .doing("read the database file")?;
    let id = APPLICATION_ID.to_be_bytes();
    Ok(head.starts_with(b"SQLite format 3\0") && head.get(68..72) == Some(&id[..]))
}

/// Second names that an interrupted restore gave to the file that is still at `path`.
fn unfinished_restore(path: &Path, data: &Metadata) -> Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    if data.nlink() == 1 {
        return Ok(Vec::new());
    }
    let mut prefix = name.to_owned();
    prefix.push(REPLACED);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).doing("read the data folder")? {
        let entry = entry.doing("read the data folder")?;
        let entry_name = entry.file_name();
        let named = entry_name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        if named {
            let other = entry.metadata().doing("examine a replaced file")?;
            if (other.dev(), other.ino()) == (data.dev(), data.ino()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Deletes what killed restores and migrations left beside the database: copies of it that never got their name. The
/// caller holds the lock.
///
/// # Errors
/// If the folder cannot be read or changed.
pub(super) fn remove_unfinished_copies(path: &Path) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Ok(());
    };
    for entry in std::fs::read_dir(folder_of(path)).doing("read the data folder")? {
        let entry = entry.doing("read the data folder")?;
        let entry_name = entry.file_name();
        let suffix = entry_name
            .as_encoded_bytes()
            .strip_prefix(name.as_encoded_bytes());
        let suffix = suffix.and_then(|suffix| std::str::from_utf8(suffix).ok());
        let left = suffix.is_some_and(|suffix| {
            let prepared = suffix.strip_prefix(PREPARED);
            prepared.is_some_and(|rest| PARTS.contains(&rest) || rest.starts_with(UNFINISHED))
                || suffix.starts_with(SAVED) && suffix.contains(UNFINISHED)
        });
        if left && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            log::info!(
                "{} is deleted: it was never finished",
                entry.path().display()
            );
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the second name of a database that an interrupted restore did not replace. The caller holds the lock.
///
/// # Errors
/// If the folder cannot be changed.
pub(super) fn remove_unfinished_restore(path: &Path) -> Result<()> {
    let data = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        data => data.doing("examine the database file")?,
    };
    for name in unfinished_restore(path, &data)? {
        log::info!(
            "a restore was interrupted before it replaced the database: its second name {} is removed",
            name.display()
        );
        std::fs::remove_file(name).doing("remove a second name of the database")?;
    }
    Ok(())
}
