//! One server a file: a lock beside it, held for life. It also remembers that there was a file, so that
//! an empty one is never made where a full one is missing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Doing, Error, Result};

const MADE: &str = "made";
/// How often, and how long each time, a taken lock is looked at again.
const GLANCES: u32 = 10;
const GLANCE: Duration = Duration::from_millis(20);

/// The lock of a database file; free again when this is dropped, or when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    name: PathBuf,
    /// True once a database was made beside it.
    made: bool,
    /// Whether the number of another process stands in it, since the disk took nothing.
    stale: AtomicBool,
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
    /// None where none could be made: on a disk that takes nothing.
    _file: Option<File>,
}

impl Users {
    /// Works on the file beside others.
    ///
    /// # Errors
    /// [`Error::State`] while it is being restored.
    pub(super) fn join(path: &Path) -> Result<Self> {
        let Some(file) = Self::open(path)? else {
            return Ok(Self { _file: None });
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { _file: Some(file) }),
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
        let Some(file) = Self::open(path)? else {
            return Err(Error::Unavailable {
                reason: "the data folder takes no file".to_owned(),
            });
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(Error::State(format!(
                "a command works on {}: let it finish first",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error).doing("have the database alone"),
        }
    }

    fn open(path: &Path) -> Result<Option<File>> {
        match open(&beside(path, ".users")) {
            Ok(file) => Ok(Some(file)),
            Err(error) if takes_nothing(&error) => Ok(None),
            Err(error) => Err(error).doing("open the file of users"),
        }
    }
}

/// Opens a file, and makes it where it is missing. On a disk that takes nothing, one that is there is only read,
/// which is enough to lock it.
fn open(name: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    match options.open(name) {
        Err(error) if takes_nothing(&error) => File::open(name).or(Err(error)),
        opened => opened,
    }
}

fn takes_nothing(error: &std::io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
    )
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
        let lock = Self {
            _file: file,
            name: beside(path, ".lock"),
            made: words.any(|word| word == MADE),
            stale: AtomicBool::new(true),
        };
        match lock.refresh() {
            // It is held, and it says that there is a database; the number can wait.
            Err(error) if lock.made => log::debug!("{error}"),
            written => written?,
        }
        Ok(lock)
    }

    /// Writes down who has the database, where that was not possible before.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn refresh(&self) -> Result<()> {
        if self.stale.load(Ordering::SeqCst) {
            self.write(self.made)?;
            self.stale.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Whether there has been a database.
    pub(super) fn knows_a_file(&self) -> bool {
        self.made
    }

    /// Remembers that there is a database now.
    pub(super) fn remember_the_file(&self) -> Result<()> {
        self.write(true)
    }

    /// Over what stands there, which a full disk takes; by a file of its own, since the lock may be held by one
    /// that can only be read.
    fn write(&self, made: bool) -> Result<()> {
        let word = if made { MADE } else { "" };
        let text = format!("{} {word}\n", std::process::id());
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let written = OpenOptions::new()
            .write(true)
            .open(&self.name)
            .and_then(|file| {
                file.write_all_at(text.as_bytes(), 0)?;
                file.set_len(length)?;
                file.sync_all()
            });
        written.map_err(|error| Error::Unavailable {
            reason: format!("{} cannot be written: {error}", self.name.display()),
        })
    }
}
