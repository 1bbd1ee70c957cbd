//! Which earlier copies of the database exist: backups, and the files that a migration or a restore has replaced.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::BackupDir;
use crate::clock::UnixMs;
use crate::error::{Doing, Result};

/// What follows the name of the database in the names of files that were replaced.
const REPLACED: &str = ".before-";

impl BackupDir {
    /// The backups in the folder, and the replaced files beside the database at `database`, that hold what was in it at
    /// `until` or before.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn copies_until(&self, database: &Path, until: UnixMs) -> Result<Vec<PathBuf>> {
        // The time in the name of a backup has no milliseconds.
        let backups = self.list()?.into_iter().filter(|it| it.made_at <= until);
        let mut copies: Vec<PathBuf> = backups.map(|it| self.folder().join(it.name)).collect();
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
        copies.sort();
        Ok(copies)
    }
}
