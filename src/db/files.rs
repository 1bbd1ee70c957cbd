//! The files of a database: their names, and how they are moved, deleted and written to the disk.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Error, Result};

/// `path` with `suffix` appended to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The folder of a file; `.` for a bare name.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The path with links resolved: the lock must be beside the database itself, whatever link leads there.
///
/// # Errors
/// If a part of the path cannot be read.
pub(super) fn resolved(path: &Path) -> Result<PathBuf> {
    let target = match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        found => Some(found.doing("find the database file")?),
    };
    if let Some(target) = target {
        return Ok(target);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let (Some(folder), Some(name)) = (folder, path.file_name()) else {
        return Ok(path.to_owned());
    };
    match fs::canonicalize(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(path.to_owned()),
        found => Ok(found.doing("find the data folder")?.join(name)),
    }
}

/// Deletes a database with its WAL and index.
pub(super) fn remove_all(path: &Path) -> Result<()> {
    for part in ["", "-wal", "-shm"] {
        remove(&beside(path, part))?;
    }
    Ok(())
}

/// Deletes a file, if it exists.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).doing("delete a leftover file")
        }
        _ => Ok(()),
    }
}

/// Syncs a file to the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .doing("write a file to the disk")
}

/// Syncs the folder that `path` is in, and so the names of its files.
pub(super) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    sync(folder.unwrap_or(Path::new(".")))
}

/// An unused name: the wanted one, or that with a number.
pub(super) fn unused(wanted: &Path) -> Result<PathBuf> {
    let numbered = (2..1000).map(|number| beside(wanted, &format!("-{number}")));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|name| {
            ["", "-wal", "-shm"]
                .iter()
                .all(|part| beside(name, part).symlink_metadata().is_err())
        })
        .ok_or_else(|| Error::State("there are too many old databases: delete some".to_owned()))
}

/// Moves the WAL and its index to the name of the old file.
pub(super) fn move_aside(path: &Path, old_path: &Path) -> Result<()> {
    for part in ["-wal", "-shm"] {
        let name = beside(path, part);
        if name.exists() {
            fs::rename(&name, beside(old_path, part)).doing("move the WAL of the old database")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_old_file_is_always_unused() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("a");
        fs::write(&wanted, "").unwrap();
        fs::write(beside(&wanted, "-2-wal"), "").unwrap();
        assert_eq!(unused(&wanted).unwrap(), beside(&wanted, "-3"));
    }
}
