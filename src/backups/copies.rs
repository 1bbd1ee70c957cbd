//! Which earlier copies of the database exist: backups, the files that a migration or a restore has replaced, and what
//! Litestream keeps beside the database.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{BackupDir, rules};
use crate::clock::UnixMs;
use crate::error::{Doing, Result};

/// What follows the name of the database in the names of files that were replaced.
const REPLACED: &str = ".before-";

impl BackupDir {
    /// The backups in the folder, unfinished ones included, that were made between the two moments of `span`; the replaced
    /// files beside the database at `database` that hold what was in it at the later one or before; and Litestream's
    /// folder there.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn copies_made_in(
        &self,
        span: RangeInclusive<UnixMs>,
        database: &Path,
    ) -> Result<Vec<PathBuf>> {
        let (since, until) = span.into_inner();
        let mut copies = Vec::new();
        for (name, made_at) in self.copies_in_folder()? {
            // The time in the name of a backup has no milliseconds.
            if made_at <= until && made_at.plus_s(1) > since {
                copies.push(self.folder().join(name));
            }
        }
        let name = database.file_name().unwrap_or_default();
        let folder = database.parent().filter(|it| !it.as_os_str().is_empty());
        let entries = fs::read_dir(folder.unwrap_or(Path::new(".")));
        for entry in entries.doing("read the data folder")? {
            let entry = entry.doing("read the data folder")?;
            let file = entry.file_name();
            let rest = file
                .as_encoded_bytes()
                .strip_prefix(name.as_encoded_bytes());
            if !rest.is_some_and(|rest| rest.starts_with(REPLACED.as_bytes())) {
                continue;
            }
            let changed_s = entry.metadata().doing("examine a replaced file")?.mtime();
            if UnixMs(changed_s.saturating_mul(1000)) <= until {
                copies.push(entry.path());
            }
        }
        copies.extend(litestream_folder(database));
        copies.sort();
        Ok(copies)
    }

    /// The backups and the unfinished ones, with the times in their names.
    fn copies_in_folder(&self) -> Result<Vec<(OsString, UnixMs)>> {
        let entries = match fs::read_dir(self.folder()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.doing("read the backup folder")?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.doing("read the backup folder")?.file_name();
            let at = |name: &str| rules::made_at(name).or_else(|| rules::begun_at(name));
            if let Some(at) = name.to_str().and_then(at) {
                found.push((name, at));
            }
        }
        Ok(found)
    }
}

/// The folder beside the database in which Litestream keeps what it copied last, if it is there. It may hold changes of
/// any age.
fn litestream_folder(database: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(database.file_name()?);
    name.push("-litestream");
    let folder = database.with_file_name(name);
    folder.is_dir().then_some(folder)
}
