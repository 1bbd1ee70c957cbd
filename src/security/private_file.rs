//! Files that hold keys: for their owner alone, written whole or not at all, and still there after a power cut.
//! No link is followed when one is written.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

/// A file that only its owner may read, in the making: it has its name once it is kept, and is gone if it is not.
#[derive(Debug)]
pub struct Draft {
    /// As it was named, for what has to be beside it for a while.
    beside: PathBuf,
    folder: OwnedFd,
    name: OsString,
    passing: OsString,
    file: File,
    kept: bool,
}

impl Draft {
    /// Begins the file `path`, under its name with `suffix` after it.
    ///
    /// # Errors
    /// When the disk does not take it, or its folder is a link.
    pub fn begin(path: &Path, suffix: &str) -> Result<Self> {
        let name = path.file_name().map(OsString::from);
        let name = name.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "no name of a file"))?;
        let mut passing = name.clone();
        passing.push(suffix);
        let folder = folder_of(path)?;
        // What a process that died has left behind; unlinking follows no link.
        match rustix::fs::unlinkat(&folder, &passing, AtFlags::empty()) {
            Err(error) if error != rustix::io::Errno::NOENT => return Err(error.into()),
            _ => {}
        }
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &passing, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self {
            beside: path.parent().map(Path::to_owned).unwrap_or_default(),
            folder,
            name,
            passing,
            file: file.into(),
            kept: false,
        })
    }

    /// The file, to write into.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        let here = self.beside.as_os_str().is_empty();
        if here { Path::new(".") } else { &self.beside }
    }

    /// Gives it to whom its folder belongs; only root can, and only for root that is not already so.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn give_to_the_owner_of_its_folder(&self) -> Result<()> {
        let folder = rustix::fs::fstat(&self.folder)?;
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (folder.st_uid, folder.st_gid);
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(uid),
                rustix::fs::Gid::from_raw(gid),
            );
            rustix::fs::fchown(&self.file, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Gives it its name, in the place of a file that has it. It is on the disk when this returns, by its name.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn keep(self) -> Result<()> {
        self.named(RenameFlags::empty())
    }

    /// Gives it its name, unless there is something of that name.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when there is, or when the disk does not take it.
    pub fn keep_new(self) -> Result<()> {
        if rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        match self.renamed(RenameFlags::NOREPLACE) {
            // Not every file system knows how; whether something is there has just been looked at.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                self.named(RenameFlags::empty())
            }
            done => done.and_then(|()| self.synced()),
        }
    }

    fn named(self, flags: RenameFlags) -> Result<()> {
        self.renamed(flags)?;
        self.synced()
    }

    fn renamed(&self, flags: RenameFlags) -> Result<()> {
        self.file.sync_all()?;
        let (folder, passing, name) = (&self.folder, &self.passing, &self.name);
        Ok(rustix::fs::renameat_with(
            folder, passing, folder, name, flags,
        )?)
    }

    fn synced(mut self) -> Result<()> {
        self.kept = true;
        // The folder, and the name of the folder: others know these keys by heart from the first start on, and new
        // ones after a power cut would lock them out.
        rustix::fs::fsync(&self.folder)?;
        let above = rustix::fs::openat(
            &self.folder,
            "..",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        match above {
            // The folder above may be another user's: it had its names before we came.
            Err(rustix::io::Errno::ACCESS) => Ok(()),
            above => Ok(rustix::fs::fsync(above?)?),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = rustix::fs::unlinkat(&self.folder, &self.passing, AtFlags::empty())
        {
            log::debug!("a file that was not kept stays as a draft: {error}");
        }
    }
}

/// The folder of `path`, opened without following a link in its last part.
fn folder_of(path: &Path) -> Result<OwnedFd> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let here = folder.as_os_str().is_empty();
    let folder = if here { Path::new(".") } else { folder };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty()).map_err(|error| {
        let told = format!("{}: {}", folder.display(), Error::from(error));
        Error::new(Error::from(error).kind(), told)
    })
}

/// Writes a whole file that only its owner may read, or none. It is on the disk when this returns, by its name.
///
/// # Errors
/// When the disk does not take it, or its folder is a link.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let draft = Draft::begin(path, ".new")?;
    draft.file().write_all(bytes.as_ref())?;
    draft.keep()
}

/// Gives a file another name, which holds when this returns.
///
/// # Errors
/// When the disk does not take it.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    sync_names(to)
}

/// Waits until the disk has the names in the folder of `path`, and that folder's own.
///
/// # Errors
/// When the disk does not take them.
pub fn sync_names(path: &Path) -> Result<()> {
    for folder in path.ancestors().skip(1).take(2) {
        // A relative path ends with nothing: that is where we are.
        let here = folder.as_os_str().is_empty();
        let folder = if here { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A name beside `path` that nothing has yet: with `suffix`, or with a number after that.
///
/// # Errors
/// When the folder cannot be looked at, or a thousand of them are taken.
pub fn unused(path: &Path, suffix: &str) -> Result<PathBuf> {
    for number in 1..1000 {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        if number > 1 {
            name.push(format!("-{number}"));
        }
        let name = PathBuf::from(name);
        match name.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(name),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_private_file_is_written_whole_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("keys/a.pem"), dir.path().join("other"));
        fs::create_dir(dir.path().join("keys")).unwrap();
        fs::write(&other, "untouched").unwrap();
        // Both the name and that of its draft lead elsewhere.
        symlink(&other, &path).unwrap();
        symlink(&other, dir.path().join("keys/a.pem.new")).unwrap();
        write(&path, "secret").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
        assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
        let data = path.symlink_metadata().unwrap();
        assert!(data.is_file() && data.permissions().mode() & 0o777 == 0o600);
        // So does the folder.
        symlink(dir.path().join("keys"), dir.path().join("link")).unwrap();
        assert!(write(&dir.path().join("link/b.pem"), "secret").is_err());
        assert!(!dir.path().join("keys/b.pem").exists());
    }

    #[test]
    fn a_draft_that_is_not_kept_is_gone_and_a_name_that_is_taken_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        drop(Draft::begin(&path, ".part").unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&path, "first").unwrap();
        let draft = Draft::begin(&path, ".part").unwrap();
        let told = draft.keep_new().unwrap_err();
        assert_eq!(told.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unused_name_is_one_that_nothing_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for expected in ["a.old", "a.old-2", "a.old-3"] {
            let name = unused(&path, ".old").unwrap();
            assert_eq!(name, dir.path().join(expected));
            // A link that leads nowhere is something, too.
            symlink("nowhere", name).unwrap();
        }
    }
}
