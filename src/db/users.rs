//! The lock of all processes that use a database: commands share it, a restore has it alone.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::files::beside;
use crate::error::{Doing, Error, Result};

pub(super) const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Held by all commands that use the database (shared), or by a restore (exclusive).
#[derive(Debug)]
pub(super) struct Users {
    /// `None` if the file could not be created, on a disk that cannot be written.
    _file: Option<File>,
}

impl Users {
    /// Locks the database for shared use.
    ///
    /// # Errors
    /// [`Error::State`] while a restore runs.
    pub(super) fn shared(path: &Path) -> Result<Self> {
        let Some(file) = Self::open(path)? else {
            return Ok(Self { _file: None });
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(Error::State(format!(
                "{} is being restored: try again when that is done",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error).doing("lock the database for a command"),
        }
    }

    /// Locks the database for exclusive use.
    ///
    /// # Errors
    /// [`Error::State`] while a command uses it.
    pub(super) fn exclusive(path: &Path) -> Result<Self> {
        let Some(file) = Self::open(path)? else {
            return Err(Error::Unavailable {
                reason: "no file can be created in the data folder".to_owned(),
            });
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(Error::State(format!(
                "a command is using {}: wait until it has finished",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error).doing("lock the database for a restore"),
        }
    }

    fn open(path: &Path) -> Result<Option<File>> {
        match open(&beside(path, ".users")) {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_write_refused(&error) => Ok(None),
            Err(error) => Err(open_error(&beside(path, ".users"), error)),
        }
    }
}

/// Opens a file, and creates it if it is missing. On a disk that cannot be written, an existing file is opened for
/// reading, which is enough to lock it.
pub(super) fn open(name: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // A symbolic link is not followed: another file must not be overwritten.
    options.custom_flags(NOFOLLOW);
    match options.open(name) {
        Err(error) if is_write_refused(&error) => OpenOptions::new()
            .read(true)
            .custom_flags(NOFOLLOW)
            .open(name)
            .or(Err(error)),
        opened => opened,
    }
}

pub(super) fn is_write_refused(error: &std::io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
    )
}

pub(super) fn open_error(name: &Path, error: std::io::Error) -> Error {
    let shown = name.display();
    if name.is_symlink() {
        return Error::State(format!("{shown} is a link: remove it"));
    }
    if error.kind() == ErrorKind::PermissionDenied {
        return Error::State(format!(
            "{shown} may not be opened by this user ({error}): run this as the owner of the data folder"
        ));
    }
    Error::Internal {
        doing: "open the lock file",
        source: error.into(),
    }
}
