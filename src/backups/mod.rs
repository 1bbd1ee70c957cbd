//! Backups: copies of the database in a folder, made by hand in the panel or by the clock, the oldest
//! thrown away. The folder is the truth: a copy that is not in it is no backup.

pub mod panel;
mod rules;

pub use rules::{Age, age};

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Deed};
use crate::clock::UnixMs;
use crate::db::{Db, Tx};
use crate::error::{Doing, Error, Result};

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Backup {
    /// The name of its file.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it was made, as its name says.
    pub made_at: UnixMs,
}

/// Where backups are kept.
#[derive(Clone, Debug)]
pub struct Shelf {
    folder: PathBuf,
    /// How many are kept; at least 1.
    keep: usize,
    /// How often one is made by itself; none: only by hand.
    every: Option<Duration>,
}

impl Shelf {
    /// A shelf in `folder` that keeps the newest `keep`, with a new one `every` so often.
    pub fn new(folder: PathBuf, keep: u32, every: Option<Duration>) -> Self {
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).max(1);
        Self {
            folder,
            keep,
            every,
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How often a backup is made by itself.
    pub const fn every(&self) -> Option<Duration> {
        self.every
    }

    /// Every backup, newest first; none where the folder is not there yet.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Backup>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.doing("look into the backup folder")?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.doing("look into the backup folder")?;
            let name = entry.file_name();
            // Another file is none of ours, whatever it is.
            let Some((name, made_at)) = name
                .to_str()
                .and_then(|name| Some((name.to_owned(), rules::made_at(name)?)))
            else {
                continue;
            };
            let bytes = entry.metadata().doing("measure a backup")?.len();
            found.push(Backup {
                name,
                bytes,
                made_at,
            });
        }
        found.sort_by_key(|backup| std::cmp::Reverse(backup.made_at));
        Ok(found)
    }

    /// Makes a backup while the server goes on, and throws away the oldest beyond those that are kept. Takes
    /// as long as copying takes: not for a task.
    ///
    /// # Errors
    /// When there is no room, or the copy does not check out; nothing is thrown away then.
    pub fn make(&self, db: &Db, now: UnixMs) -> Result<Backup> {
        fs::create_dir_all(&self.folder).doing("make the backup folder")?;
        let name = rules::name_at(now);
        // Twice within a second: it is there already.
        if let Some(made) = self.list()?.into_iter().find(|backup| backup.name == name) {
            return Ok(made);
        }
        let copied = db.backup(&self.folder.join(&name))?;
        let others = self
            .list()?
            .into_iter()
            .filter(|backup| backup.name != name);
        // Not by its age: where the clock went back, the one just made is not the newest by name.
        for old in others.skip(self.keep.saturating_sub(1)) {
            fs::remove_file(self.folder.join(&old.name)).doing("throw away an old backup")?;
        }
        Ok(Backup {
            name,
            bytes: copied.bytes,
            made_at: now,
        })
    }

    /// The bytes of the backup `name`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none of exactly this name.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        // By the list, not by the name: what somebody sends never becomes a path.
        let known = self.list()?.into_iter().find(|backup| backup.name == name);
        let known = known.ok_or_else(|| Error::not_found("backup", name))?;
        fs::read(self.folder.join(known.name)).doing("read a backup")
    }

    /// Whether the clock says that it is time for another.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn is_due(&self, now: UnixMs) -> Result<bool> {
        let Some(every) = self.every else {
            return Ok(false);
        };
        let newest = self.list()?.first().map(|backup| backup.made_at);
        Ok(newest.is_none_or(|made_at| made_at.plus(every) <= now))
    }
}

/// Notes that a backup was made, or handed out.
///
/// # Errors
/// When SQLite fails.
pub fn note(
    tx: &Tx<'_>,
    what: Done,
    backup: &str,
    bytes: u64,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let after = json!({ "bytes": bytes });
    let deed = match what {
        Done::Made => Deed {
            what: "backups.make",
            subject: backup,
            before: Value::Null,
            after,
        },
        Done::HandedOut => Deed {
            what: "backups.download",
            subject: backup,
            before: Value::Null,
            after,
        },
    };
    audit::note(tx, now, actor, &deed)
}

/// What was done with a backup.
#[derive(Clone, Copy, Debug)]
pub enum Done {
    /// It was made.
    Made,
    /// Somebody has it now.
    HandedOut,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Options, Synchronous};

    #[test]
    fn the_newest_are_kept_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            path: dir.path().join("t.sqlite3"),
            synchronous: Synchronous::Full,
            read_connections: 1,
        };
        let db = Db::open_as_server(&options).unwrap();
        let shelf = Shelf::new(dir.path().join("copies"), 2, Some(Duration::from_hours(24)));
        let at = |hours: u32| UnixMs(1_795_356_331_000).plus(Duration::from_hours(1) * hours);
        assert!(shelf.list().unwrap().is_empty() && shelf.is_due(at(0)).unwrap());
        shelf.make(&db, at(0)).unwrap();
        fs::write(shelf.folder().join("mine.txt"), "x").unwrap();
        assert!(!shelf.is_due(at(23)).unwrap() && shelf.is_due(at(24)).unwrap());
        shelf.make(&db, at(24)).unwrap();
        shelf.make(&db, at(48)).unwrap();
        let names: Vec<_> = shelf
            .list()
            .unwrap()
            .into_iter()
            .map(|b| b.made_at)
            .collect();
        assert_eq!(names, [at(48), at(24)]);
        assert!(shelf.folder().join("mine.txt").exists());
        for name in ["mine.txt", "../t.sqlite3", ""] {
            assert!(shelf.read(name).is_err(), "{name}");
        }
        assert!(
            shelf
                .read(&rules::name_at(at(48)))
                .unwrap()
                .starts_with(b"SQLite format 3")
        );
    }
}
