//! One server a file: a lock beside it, held for life. It also remembers that there was a file, so that
//! an empty one is never made where a full one is missing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{Doing, Error, Result};

const MADE: &str = "made";

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

impl Lock {
    /// Takes the lock of the database at `path`; makes its folder, if there is none.
    ///
    /// # Errors
    /// [`Error::State`] naming the process that holds it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).doing("make the data folder")?;
        }
        let name = beside(path, ".lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&name)
            .doing("open the lock file")?;
        let held = file.try_lock();
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
