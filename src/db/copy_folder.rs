//! Folders for a temporary copy of the database: beside the file that is made from it, so that a data disk that is
//! full, read-only or gone does not matter; else the data folder; else a folder for temporary files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::folder_of;
use crate::error::{Doing, Error, Result};

/// Space, in bytes, that a copy leaves free on the disk of the database for the running server.
const RESERVE: u64 = 16 * 1024 * 1024;
/// Preferred to `/tmp`, which is often in memory.
const TEMPORARY: &str = "/var/tmp";

/// A folder, and how many times the copy has to fit into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopyFolder {
    path: PathBuf,
    times: u64,
    /// Bytes that must stay free.
    reserve: u64,
}

impl CopyFolder {
    /// The folders for a copy of the database at `database`, the best one first. `target` is the folder of the
    /// file that is made from the copy, or `None` if the copy must not be there.
    pub(super) fn of(database: &Path, target: Option<&Path>) -> Vec<Self> {
        let data = folder_of(database);
        let device = |folder: &Path| fs::metadata(folder).ok().map(|data| data.dev());
        // The copy and the file made from it both have to fit there.
        let target = target.map(|folder| (folder.to_owned(), 2));
        let others = [data.clone(), TEMPORARY.into(), "/tmp".into()];
        let mut folders: Vec<Self> = Vec::new();
        for (folder, times) in target.into_iter().chain(others.map(|folder| (folder, 1))) {
            let Some(on) = device(&folder) else { continue };
            let shared = device(&data) == Some(on);
            let reserve = if shared { RESERVE } else { 0 };
            if folders.iter().all(|known| known.path != folder) {
                folders.push(Self {
                    path: folder,
                    times,
                    reserve,
                });
            }
        }
        folders
    }

    /// Calls `make` with the first folder that has space for `bytes`, and with the next one if that fails. Errors
    /// of the database itself are returned at once, since they are the same everywhere.
    ///
    /// # Errors
    /// [`Error::State`] if no folder works; it says why.
    pub(super) fn first<T>(
        folders: &[Self],
        bytes: u64,
        make: impl Fn(&Path) -> Result<T>,
    ) -> Result<T> {
        let mut reasons = Vec::new();
        for folder in folders {
            match folder.has_space(bytes).and_then(|()| make(&folder.path)) {
                Err(error @ (Error::Unavailable { .. } | Error::Internal { .. })) => {
                    reasons.push(format!("in {}: {error}", folder.path.display()));
                }
                done => return done,
            }
        }
        Err(Error::State(format!(
            "there is no space for a copy of the database ({}): free some, or name a file on another disk",
            reasons.join("; ")
        )))
    }

    /// Checks that `bytes` fit without filling the disk.
    fn has_space(&self, bytes: u64) -> Result<()> {
        let free = rustix::fs::statvfs(&self.path).doing("determine the free space")?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        let needed = bytes
            .saturating_mul(self.times)
            .saturating_add(self.reserve);
        if free >= needed {
            return Ok(());
        }
        let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
        Err(Error::Unavailable {
            reason: format!(
                "the copy needs {} MiB, and {} MiB are free",
                mib(needed),
                mib(free)
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_made_beside_its_target_or_elsewhere_if_that_is_full() {
        let (data, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let database = data.path().join("t.sqlite3");
        let folders = CopyFolder::of(&database, Some(target.path()));
        let begins_with = |folders: &[CopyFolder], wanted: &[&Path]| {
            let found: Vec<&Path> = folders.iter().map(|folder| folder.path.as_path()).collect();
            assert!(found.starts_with(wanted), "{found:?}");
        };
        begins_with(
            &folders,
            &[target.path(), data.path(), Path::new(TEMPORARY)],
        );
        // A backup that will be encrypted must not be in the target folder in the clear.
        begins_with(
            &CopyFolder::of(&database, None),
            &[data.path(), Path::new(TEMPORARY)],
        );
        // If both are the same folder, it is listed once.
        let folders_of_one = CopyFolder::of(&database, Some(data.path()));
        begins_with(&folders_of_one, &[data.path(), Path::new(TEMPORARY)]);
        assert_eq!(folders_of_one[0].reserve, RESERVE);
        let full = |folder: &Path| {
            let reason = "full".to_owned();
            if folder == target.path() {
                return Err(Error::Unavailable { reason });
            }
            Ok(folder.to_owned())
        };
        assert_eq!(CopyFolder::first(&folders, 1, full).unwrap(), data.path());
        let error = CopyFolder::first(&folders, u64::MAX, full)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("MiB are free") && error.contains("another disk"),
            "{error}"
        );
        drop(data);
        begins_with(&CopyFolder::of(&database, None), &[Path::new(TEMPORARY)]);
    }
}
