//! Files that hold keys: readable by their owner only, written atomically, and synced to disk before the call returns.
//! Writing one never follows a symbolic link.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

/// A file under construction that only its owner may read. It gets its final name when it is persisted, and is deleted
/// if it is dropped before.
#[derive(Debug)]
pub struct Draft {
    /// The path of the folder as the caller gave it, for temporary files beside the draft.
    folder_path: PathBuf,
    folder: OwnedFd,
    name: OsString,
    temporary_name: OsString,
    file: File,
    persisted: bool,
}

impl Draft {
    /// Creates the file under the temporary name `path` + `suffix`.
    ///
    /// # Errors
    /// When it cannot be created, or its folder is a symbolic link.
    pub fn create(path: &Path, suffix: &str) -> Result<Self> {
        let name = path.file_name().map(OsString::from);
        let name = name.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "not a file name"))?;
        let mut temporary_name = name.clone();
        temporary_name.push(suffix);
        let folder = folder_of(path)?;
        // A process that was killed may have left one behind. Unlinking does not follow symbolic links.
        match rustix::fs::unlinkat(&folder, &temporary_name, AtFlags::empty()) {
            Err(error) if error != rustix::io::Errno::NOENT => return Err(error.into()),
            _ => {}
        }
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &temporary_name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self {
            folder_path: path.parent().map(Path::to_owned).unwrap_or_default(),
            folder,
            name,
            temporary_name,
            file: file.into(),
            persisted: false,
        })
    }

    /// The file, for writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The folder that contains it.
    pub fn folder(&self) -> &Path {
        let here = self.folder_path.as_os_str().is_empty();
        if here {
            Path::new(".")
        } else {
            &self.folder_path
        }
    }

    /// Changes its owner to the owner of its folder. Does nothing unless the process runs as root.
    ///
    /// # Errors
    /// When the owner cannot be changed.
    pub fn chown_to_folder_owner(&self) -> Result<()> {
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

    /// Gives it its final name, replacing a file of that name. File and name are synced to disk when this returns.
    ///
    /// # Errors
    /// When it cannot be synced or renamed.
    pub fn persist(self) -> Result<()> {
        self.rename_and_sync(RenameFlags::empty())
    }

    /// Gives it its final name, unless that name is taken.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if the name is taken, or when it cannot be synced or renamed.
    pub fn persist_new(self) -> Result<()> {
        if rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        match self.rename(RenameFlags::NOREPLACE) {
            // Not every file system supports NOREPLACE. The check above has already run.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                self.rename_and_sync(RenameFlags::empty())
            }
            result => result.and_then(|()| self.sync_folders()),
        }
    }

    fn rename_and_sync(self, flags: RenameFlags) -> Result<()> {
        self.rename(flags)?;
        self.sync_folders()
    }

    fn rename(&self, flags: RenameFlags) -> Result<()> {
        self.file.sync_all()?;
        let (folder, temporary_name, name) = (&self.folder, &self.temporary_name, &self.name);
        Ok(rustix::fs::renameat_with(
            folder,
            temporary_name,
            folder,
            name,
            flags,
        )?)
    }

    fn sync_folders(mut self) -> Result<()> {
        self.persisted = true;
        // Sync the folder and its parent: programs pin these keys from the first start on. If a power cut lost them,
        // the server would generate new ones, which those programs reject.
        rustix::fs::fsync(&self.folder)?;
        let parent = rustix::fs::openat(
            &self.folder,
            "..",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        match parent {
            // The parent may belong to another user. Then the folder existed before, and its name is already on disk.
            Err(rustix::io::Errno::ACCESS) => Ok(()),
            parent => Ok(rustix::fs::fsync(parent?)?),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.persisted
            && let Err(error) =
                rustix::fs::unlinkat(&self.folder, &self.temporary_name, AtFlags::empty())
        {
            log::debug!("an unfinished file cannot be deleted: {error}");
        }
    }
}

/// The folder of `path`, opened without following a symbolic link in its last component.
fn folder_of(path: &Path) -> Result<OwnedFd> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let here = folder.as_os_str().is_empty();
    let folder = if here { Path::new(".") } else { folder };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty()).map_err(|error| {
        let message = format!("{}: {}", folder.display(), Error::from(error));
        Error::new(Error::from(error).kind(), message)
    })
}

/// Writes a file that only its owner may read, atomically. File and name are synced to disk when this returns.
///
/// # Errors
/// When it cannot be written, or its folder is a symbolic link.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let draft = Draft::create(path, ".new")?;
    draft.file().write_all(bytes.as_ref())?;
    draft.persist()
}

/// Renames a file. The new name is synced to disk when this returns.
///
/// # Errors
/// When it cannot be renamed or synced.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    sync_parents(to)
}

/// Syncs the folder of `path` and that folder's parent, so that the names in both are on disk.
///
/// # Errors
/// When a folder cannot be opened or synced.
pub fn sync_parents(path: &Path) -> Result<()> {
    for folder in path.ancestors().skip(1).take(2) {
        // The last ancestor of a relative path is empty: the current directory.
        let here = folder.as_os_str().is_empty();
        let folder = if here { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A free name beside `path`: `path` + `suffix`, followed by `-2`, `-3` … if that is taken.
///
/// # Errors
/// When the folder cannot be read, or the first 999 names are taken.
pub fn unused_name(path: &Path, suffix: &str) -> Result<PathBuf> {
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
    fn writing_a_private_file_replaces_a_link_and_never_follows_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("keys/a.pem"), dir.path().join("other"));
        fs::create_dir(dir.path().join("keys")).unwrap();
        fs::write(&other, "untouched").unwrap();
        // Both the name and the temporary name are links to another file.
        symlink(&other, &path).unwrap();
        symlink(&other, dir.path().join("keys/a.pem.new")).unwrap();
        write(&path, "secret").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
        assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
        let data = path.symlink_metadata().unwrap();
        assert!(data.is_file() && data.permissions().mode() & 0o777 == 0o600);
        // The folder is a link, too.
        symlink(dir.path().join("keys"), dir.path().join("link")).unwrap();
        assert!(write(&dir.path().join("link/b.pem"), "secret").is_err());
        assert!(!dir.path().join("keys/b.pem").exists());
    }

    #[test]
    fn a_dropped_draft_is_deleted_and_persist_new_does_not_replace_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        drop(Draft::create(&path, ".part").unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&path, "first").unwrap();
        let draft = Draft::create(&path, ".part").unwrap();
        let error = draft.persist_new().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn unused_returns_the_first_free_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for expected in ["a.old", "a.old-2", "a.old-3"] {
            let name = unused_name(&path, ".old").unwrap();
            assert_eq!(name, dir.path().join(expected));
            // A dangling link takes the name, too.
            symlink("nowhere", name).unwrap();
        }
    }
}
