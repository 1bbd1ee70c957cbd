//! A server whose database is no longer at its path: commands refuse to use another file there, and `backup` saves what
//! the server still has open.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::copy_folder::CopyFolder;
use super::files::beside;
use super::location::{Identity, PARTS, compare};
use super::presence::Holder;
use crate::error::{Doing, Error, Result};

/// Checks that the database that a running server has open is the one at `path`. `Ok` if no server runs.
///
/// # Errors
/// [`Error::State`] if it is another one.
pub(super) fn is_served_from(path: &Path) -> Result<()> {
    match Holder::of(path)? {
        Some(holder) => holder.serves(path),
        None => Ok(()),
    }
}

/// A copy of a database that was deleted or moved while a server had it open.
#[derive(Debug)]
pub struct Rescued {
    /// The copy.
    pub database: PathBuf,
    /// The present path of the data folder, if it was moved as a whole.
    pub data: Option<PathBuf>,
    /// Deletes the copy when dropped.
    _folder: TempDir,
}

/// Copies the files that the server at `path` has open, although they are no longer there, into a folder in one of
/// `folders`. The server writes nothing meanwhile, so database and WAL belong together.
///
/// # Errors
/// [`Error::State`] if the server's files cannot be read, or there is no space for the copy.
pub(super) fn rescue(path: &Path, folders: &[CopyFolder]) -> Result<Rescued> {
    let holder = Holder::of(path)?
        .ok_or_else(|| Error::State(format!("no server runs on {}", path.display())))?;
    let sources = open_sources(&holder, path)?;
    let mut bytes = 0;
    for (file, _) in &sources {
        bytes += file.metadata().doing("measure a file of the server")?.len();
    }
    let folder = CopyFolder::first(folders, bytes, |folder| {
        let made = tempfile::Builder::new()
            .prefix(".license-server-rescue-")
            .tempdir_in(folder);
        made.doing("make a folder for the copy")
    })?;
    let copy = folder.path().join("rescued.sqlite3");
    for (mut from, suffix) in sources {
        let mut to = File::create_new(beside(&copy, suffix)).doing("make the copy")?;
        std::io::copy(&mut from, &mut to).doing("copy a file of the server")?;
    }
    let data = holder.is_now_at()?;
    Ok(Rescued {
        database: copy,
        data: data.and_then(|file| file.parent().map(Path::to_owned)),
        _folder: folder,
    })
}

/// Opens the database and the WAL that the server at `path` has open; each with the suffix of its name.
fn open_sources(holder: &Holder, path: &Path) -> Result<Vec<(File, &'static str)>> {
    let lost = |suffix: &str| {
        Error::State(format!(
            "the server (process {}) no longer has {}{suffix} open: restore a backup",
            holder.pid,
            path.display()
        ))
    };
    let open = holder.open_files()?;
    let mut sources = Vec::new();
    // The index is not needed: SQLite rebuilds it from the WAL.
    for (index, (part, suffix)) in holder.parts.iter().zip(PARTS).take(2).enumerate() {
        let Some(part) = part else {
            // A server that was unable to write since its start has no WAL, but it has a database.
            if index == 0 {
                return Err(lost(suffix));
            }
            continue;
        };
        let source = open.iter().find(|(identity, _)| identity == part);
        let (_, source) = source.ok_or_else(|| lost(suffix))?;
        let file = File::open(source).doing("open a file of the server")?;
        sources.push((file, suffix));
    }
    Ok(sources)
}

impl Holder {
    /// Checks that the database that it has open is the one at `path`.
    fn serves(&self, path: &Path) -> Result<()> {
        let reason = match compare(path, &self.parts) {
            Ok(()) if path.exists() => return Ok(()),
            Ok(()) => format!(
                "{} is missing, though a server (process {}) runs on it, which does not say which files it has open: see its log",
                path.display(),
                self.pid
            ),
            Err(reason) => reason,
        };
        // Another user may not see where it is.
        let now_at = self.is_now_at().ok().flatten();
        let now_at = now_at.map(|file| format!(" (it is {} now)", file.display()));
        Err(Error::State(reason + &now_at.unwrap_or_default()))
    }

    /// The present path of the database file; `None` if it was deleted.
    fn is_now_at(&self) -> Result<Option<PathBuf>> {
        let [file, ..] = self.parts;
        let open = self.open_files()?;
        let found = open.iter().find(|(identity, _)| Some(*identity) == file);
        let path = found.and_then(|(_, link)| fs::read_link(link).ok());
        // The link to a deleted file ends with " (deleted)".
        Ok(path.filter(|path| Identity::of(path).is_ok_and(|there| there == file)))
    }

    /// The files that the process has open, as paths that lead to them even if they were deleted.
    fn open_files(&self) -> Result<Vec<(Identity, PathBuf)>> {
        let folder = PathBuf::from(format!("/proc/{}/fd", self.pid));
        let entries = fs::read_dir(&folder).map_err(|error| {
            Error::State(format!(
                "cannot list the files that the server (process {}) has open ({error}): run this as its user or as root, \
                 or make the backup in the panel",
                self.pid
            ))
        })?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry
                .doing("list the files that the server has open")?
                .path();
            // A descriptor that was closed meanwhile is skipped.
            if let Ok(data) = fs::metadata(&path) {
                found.push((Identity::from(&data), path));
            }
        }
        Ok(found)
    }
}
