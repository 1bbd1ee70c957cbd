//! Where a copy of the database may be for a while: beside the file that is to be made of it, so that a data disk that
//! is full, read-only or gone does not matter; else in the data folder; else in a folder for temporary files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lock::folder_of;
use crate::error::{Doing, Error, Result};

/// Room that a copy leaves on the disk of the database: a server that runs must not find it full.
const RESERVE: u64 = 16 * 1024 * 1024;
/// On a disk, while `/tmp` is often in memory.
const TEMPORARY: &str = "/var/tmp";

/// A folder, and how many times the copy has to fit into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    folder: PathBuf,
    times: u64,
    /// What must be left over.
    reserve: u64,
}

impl Room {
    /// The folders for a copy of the database at `database`, the best one first. `target` is the folder of the file that
    /// is made of it, unless the copy must not be there.
    pub(super) fn of(database: &Path, target: Option<&Path>) -> Vec<Self> {
        let data = folder_of(database);
        let device = |folder: &Path| fs::metadata(folder).ok().map(|data| data.dev());
        // Beside the target both have to fit.
        let target = target.map(|folder| (folder.to_owned(), 2));
        let others = [data.clone(), TEMPORARY.into(), "/tmp".into()];
        let mut rooms: Vec<Self> = Vec::new();
        for (folder, times) in target.into_iter().chain(others.map(|folder| (folder, 1))) {
            let Some(on) = device(&folder) else { continue };
            let shared = device(&data) == Some(on);
            let reserve = if shared { RESERVE } else { 0 };
            if rooms.iter().all(|room| room.folder != folder) {
                rooms.push(Self {
                    folder,
                    times,
                    reserve,
                });
            }
        }
        rooms
    }

    /// What `make` makes in the first of these folders that takes so many bytes. What is wrong with the database itself
    /// is the same everywhere, and is returned at once.
    ///
    /// # Errors
    /// [`Error::State`] where none of them does; it says why.
    pub(super) fn first<T>(
        rooms: &[Self],
        bytes: u64,
        make: impl Fn(&Path) -> Result<T>,
    ) -> Result<T> {
        let mut faults = Vec::new();
        for room in rooms {
            match room.takes(bytes).and_then(|()| make(&room.folder)) {
                Err(error @ (Error::Unavailable { .. } | Error::Internal { .. })) => {
                    faults.push(format!("in {}: {error}", room.folder.display()));
                }
                done => return done,
            }
        }
        Err(Error::State(format!(
            "there is no place for a copy of the database ({}): make room, or name a file on another disk",
            faults.join("; ")
        )))
    }

    /// Whether so many bytes fit without filling the disk.
    fn takes(&self, bytes: u64) -> Result<()> {
        let free = rustix::fs::statvfs(&self.folder).doing("ask how much room there is")?;
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
                "it takes {} MiB, and {} MiB are left",
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
    fn a_copy_is_made_beside_its_target_and_elsewhere_where_that_does_not_take_it() {
        let (data, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let database = data.path().join("t.sqlite3");
        let rooms = Room::of(&database, Some(target.path()));
        let begins = |rooms: &[Room], wanted: &[&Path]| {
            let found: Vec<&Path> = rooms.iter().map(|room| room.folder.as_path()).collect();
            assert!(found.starts_with(wanted), "{found:?}");
        };
        begins(&rooms, &[target.path(), data.path(), Path::new(TEMPORARY)]);
        // What is encrypted on its way to the target is not put there in the clear.
        begins(
            &Room::of(&database, None),
            &[data.path(), Path::new(TEMPORARY)],
        );
        // Both are one: it is named once.
        let rooms_of_one = Room::of(&database, Some(data.path()));
        begins(&rooms_of_one, &[data.path(), Path::new(TEMPORARY)]);
        assert_eq!(rooms_of_one[0].reserve, RESERVE);
        let full = |folder: &Path| {
            let reason = "full".to_owned();
            if folder == target.path() {
                return Err(Error::Unavailable { reason });
            }
            Ok(folder.to_owned())
        };
        assert_eq!(Room::first(&rooms, 1, full).unwrap(), data.path());
        let told = Room::first(&rooms, u64::MAX, full).unwrap_err().to_string();
        assert!(
            told.contains("MiB are left") && told.contains("another disk"),
            "{told}"
        );
        drop(data);
        begins(&Room::of(&database, None), &[Path::new(TEMPORARY)]);
    }
}
