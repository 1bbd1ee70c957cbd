//! One server a file: a lock beside it, held for life. It also remembers that there was a file, so that
//! an empty one is never made where a full one is missing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Doing, Error, Result};

const MADE: &str = "made";
/// How often, and how long each time, a taken lock is looked at again.
const GLANCES: u32 = 10;
const GLANCE: Duration = Duration::from_millis(20);

/// The lock of a database file; free again when this is dropped, or when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// True once a database was made beside it.
    made: bool,
}

/// `name` with `suffix` after it, in the same folder.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The file that a path means: its folder and the file itself may be links, but the lock beside it must
/// be the same whichever way one comes.
///
/// # Errors
/// When a part of the path cannot be read.
pub(super) fn resolved(path: &Path) -> Result<PathBuf> {
    let target = match std::fs::canonicalize(path) {
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
    match std::fs::canonicalize(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(path.to_owned()),
        found => Ok(found.doing("find the data folder")?.join(name)),
    }
}

/// Whether a server has the database.
///
/// # Errors
/// When the lock cannot be asked.
pub(super) fn is_taken(path: &Path) -> Result<bool> {
    let file = match File::open(beside(path, ".lock")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened.doing("open the lock file")?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error).doing("ask the lock of the database"),
    }
}

/// Commands hold this together, as long as they work on the file; a restore holds it alone.
#[derive(Debug)]
pub(super) struct Users {
    _file: File,
}

impl Users {
    /// Works on the file beside others.
    ///
    /// # Errors
    /// [`Error::State`] while it is being restored.
    pub(super) fn join(path: &Path) -> Result<Self> {
        let file = Self::open(path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::State(format!(
                "{} is being restored: try again when that is done",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error).doing("join the users of the database"),
        }
    }

    /// Works on the file alone.
    ///
    /// # Errors
    /// [`Error::State`] while a command works on it.
    pub(super) fn alone(path: &Path) -> Result<Self> {
        let file = Self::open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::State(format!(
                "a command works on {}: let it finish first",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error).doing("have the database alone"),
        }
    }

    fn open(path: &Path) -> Result<File> {
        open(&beside(path, ".users")).doing("open the file of users")
    }
}

fn open(name: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(name)
}

impl Lock {
    /// Takes the lock of the database at `path`; makes its folder, if there is none.
    ///
    /// # Errors
    /// [`Error::State`] naming the process that holds it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).doing("make the data folder")?;
        }
        let mut file = open(&beside(path, ".lock")).doing("open the lock file")?;
        let mut held = file.try_lock();
        for _ in 0..GLANCES {
            if !matches!(held, Err(TryLockError::WouldBlock)) {
                break;
            }
            // It may be a command that only asks whether a server is there.
            std::thread::park_timeout(GLANCE);
            held = file.try_lock();
        }
        let mut text = String::new();
        file.read_to_string(&mut text).doing("read the lock file")?;
        let mut words = text.split_whitespace();
        match held {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::State(format!(
                    "another license-server (process {}) has {}: stop it first, or give this one \
                     its own [database] path",
                    words.next().unwrap_or("unknown"),
                    path.display(),
                )));
            }
            Err(TryLockError::Error(error)) => return Err(error).doing("lock the database"),
        }
        let mut lock = Self {
            file,
            made: words.any(|word| word == MADE),
        };
        lock.write().doing("write the lock file")?;
        Ok(lock)
    }

    /// Whether there has been a database.
    pub(super) fn knows_a_file(&self) -> bool {
        self.made
    }

    /// Remembers that there is a database now.
    pub(super) fn remember_the_file(&self) -> Result<()> {
        let mut lock = Self {
            file: self.file.try_clone().doing("keep the lock file")?,
            made: true,
        };
        lock.write().doing("write the lock file")
    }

    fn write(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        let made = if self.made { MADE } else { "" };
        writeln!(self.file, "{} {made}", std::process::id())?;
        self.file.sync_all()
    }
}
