//! One server a file: a lock beside it, held for life. It also remembers that there was a file, so that
//! an empty one is never made where a full one is missing.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
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

/// What a file that a restore has replaced is called, before the moment.
pub(super) const KEPT: &str = ".before-restore-";
/// `LicS` in SQLite's header: the file is one of ours.
pub(super) const APPLICATION_ID: i32 = 0x4c69_6353;

/// Whether a database of ours may be at `path`: it is there, or there is nothing. Looked at before anything is made
/// beside it.
///
/// # Errors
/// [`Error::State`] for a device, a folder, a pipe, somebody else's file, or a database with a second name.
pub(super) fn check_place(path: &Path) -> Result<()> {
    let name = path.display();
    let data = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        data => data.doing("look at the database file")?,
    };
    if !data.is_file() {
        let what = kind_of(&data);
        return Err(Error::State(format!(
            "{name} is {what}: let [database] path name a file"
        )));
    }
    // Where there has been one of ours, it is damaged, and what opens it says so.
    if data.len() > 0 && !beside(path, ".lock").exists() && !is_ours(path)? {
        return Err(Error::State(format!(
            "{name} is a file, but no database of license-server: let [database] path name another one"
        )));
    }
    let names = data
        .nlink()
        .saturating_sub(unfinished(path, &data)?.len() as u64);
    if names > 1 {
        return Err(Error::State(format!(
            "{name} has {names} names (hard links), and by each of them another server could write into it: leave it \
             one; `find / -samefile {name}` lists them"
        )));
    }
    Ok(())
}

fn kind_of(data: &Metadata) -> &'static str {
    let kind = data.file_type();
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Whether a file begins as a database of ours. Read without SQLite, which might make files beside it.
fn is_ours(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    let file = File::open(path).doing("look into the database file")?;
    file.take(72)
        .read_to_end(&mut head)
        .doing("look into the database file")?;
    let id = APPLICATION_ID.to_be_bytes();
    Ok(head.starts_with(b"SQLite format 3\0") && head.get(68..72) == Some(&id[..]))
}

/// Names under which a restore that broke off has kept the very file that is at `path`.
fn unfinished(path: &Path, data: &Metadata) -> Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    if data.nlink() == 1 {
        return Ok(Vec::new());
    }
    let mut prefix = name.to_owned();
    prefix.push(KEPT);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).doing("look into the data folder")? {
        let entry = entry.doing("look into the data folder")?;
        let kept = entry.file_name();
        let named = kept
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        if named {
            let other = entry.metadata().doing("look at a file that was kept")?;
            if (other.dev(), other.ino()) == (data.dev(), data.ino()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Takes the second name from a database that a restore was about to replace when it broke off: it was not replaced.
/// For whoever holds the lock.
///
/// # Errors
/// When the folder cannot be changed.
pub(super) fn forget_unfinished(path: &Path) -> Result<()> {
    let data = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        data => data.doing("look at the database file")?,
    };
    for name in unfinished(path, &data)? {
        log::info!(
            "a restore broke off before it replaced the database: {} is no old one",
            name.display()
        );
        std::fs::remove_file(name).doing("take a second name from the database")?;
    }
    Ok(())
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
    // What is written here must not be written into the file that a link leads to.
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options.open(name)
}

fn open_lock(name: &Path) -> Result<File> {
    let told = name.display();
    open(name).map_err(|error| {
        if name.is_symlink() {
            return Error::State(format!("{told} is a link: remove it"));
        }
        if error.kind() == ErrorKind::PermissionDenied {
            return Error::State(format!(
                "{told} may not be opened by this user ({error}): run this as the user to whom the data folder belongs"
            ));
        }
        Error::Internal {
            doing: "open the lock file",
            source: error.into(),
        }
    })
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
        let mut file = open_lock(&beside(path, ".lock"))?;
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
