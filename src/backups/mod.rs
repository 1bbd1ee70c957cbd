//! Backups: archives of all that must be kept, in a folder, made by hand in the panel or by the clock, the oldest
//! thrown away. The folder is the truth: an archive that is not in it is no backup.

pub mod cli;
mod create;
mod folder;
pub mod panel;
mod restore;
mod rules;

pub use create::{Scope, Source, Written, passphrase};
pub use folder::Away;
pub use restore::{Input, RestoreTarget, restore};
pub use rules::{Age, age, stamp};

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{self, Db, Reader, Replaced, Tx};
use crate::error::{Doing, Error, Result};
use crate::security::private_file::Draft;
use crate::{devices, server_state, sessions};

/// Longest that a copy may take; another may be on its way meanwhile.
const COPY_MAX: Duration = Duration::from_hours(1);
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
pub struct BackupDir {
    folder: PathBuf,
    /// How many are kept; at least 1.
    keep: usize,
    /// How often one is made by itself; none: only by hand.
    every: Option<Duration>,
    source: Source,
}

impl BackupDir {
    /// A shelf in `folder` that keeps the newest `keep`, with a new one `every` so often.
    pub fn new(folder: PathBuf, keep: u32, every: Option<Duration>, source: Source) -> Self {
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).max(1);
        Self {
            folder,
            keep,
            every,
            source,
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

    /// Whether backups take a passphrase to open.
    pub const fn is_encrypted(&self) -> bool {
        self.source.passphrase_file.is_some()
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
        self.open_folder(db)?;
        let passphrase = self.source.passphrase()?;
        let name = rules::name_at(now, passphrase.is_some());
        // Twice within a second: it is there already.
        if let Some(made) = self.list()?.into_iter().find(|backup| backup.name == name) {
            return Ok(made);
        }
        self.clear(now)?;
        // The operator may have made a link to the folder.
        let folder = fs::canonicalize(&self.folder).doing("find the backup folder")?;
        let draft = Draft::begin(&folder.join(&name), ".part").doing("begin a backup")?;
        let scope = Scope::Everything(passphrase.as_ref());
        let written = create::write(db, &self.source.data, scope, &draft, now)?;
        draft.keep_new().doing("give a backup its name")?;
        let others = self
            .list()?
            .into_iter()
            .filter(|backup| backup.name != name);
        if !self.source.data.is_dir() {
            log::warn!(
                "the data folder is gone: backup {name} has no certificates and keys in it, so older ones are kept"
            );
            return Ok(Backup {
                name,
                bytes: written.bytes,
                made_at: now,
            });
        }
        // Not by its age: where the clock went back, the one just made is not the newest by name.
        for old in others.skip(self.keep.saturating_sub(1)) {
            fs::remove_file(self.folder.join(&old.name)).doing("throw away an old backup")?;
        }
        Ok(Backup {
            name,
            bytes: written.bytes,
            made_at: now,
        })
    }

    /// Throws away halves of copies that broke off: nobody takes one for a backup, but they fill the disk.
    fn clear(&self, now: UnixMs) -> Result<()> {
        for entry in fs::read_dir(&self.folder).doing("look into the backup folder")? {
            let entry = entry.doing("look into the backup folder")?;
            let name = entry.file_name();
            let begun = name.to_str().and_then(rules::begun_at);
            if begun.is_some_and(|at| at.plus(COPY_MAX) <= now) {
                fs::remove_file(entry.path()).doing("throw away half a backup")?;
            }
        }
        Ok(())
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
        Done::Made => Change {
            what: "backups.make",
            subject: backup,
            before: Value::Null,
            after,
        },
        Done::HandedOut => Change {
            what: "backups.download",
            subject: backup,
            before: Value::Null,
            after,
        },
    };
    audit::note(tx, now, actor, &deed)
}

/// What is gone with a file that a copy replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There was no file.
    NoFile,
    /// What was done between the last moment in the copy and the last one in the file; nothing, where the
    /// copy is as new.
    Span(UnixMs, UnixMs),
    /// What was done after the last moment in the copy; how much that is nobody can tell, for this reason.
    Unknown(UnixMs, String),
}

/// A copy that is the database now.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What was put in place, and where the file is kept that it replaced.
    pub file: db::Restored,
    /// What that costs.
    pub lost: Lost,
    /// Sessions that ran when the copy was made.
    pub sessions_ended: usize,
    /// Whether it was an archive of everything, not a bare database.
    pub whole: bool,
    /// Where keys and certificates are kept that it replaced.
    pub kept: Vec<PathBuf>,
    /// What the database needs, and neither the backup nor the data folder had.
    pub missing: Vec<Missing>,
}

/// A key that belongs to a database and is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The private half of the signing key with this id.
    SigningKey(String),
    /// The authority that programs trust; there is none in the data folder.
    Authority,
    /// The authority that programs trust; there is another one in the data folder.
    KnownAuthority,
}

/// The last moment that a file knows of: that of its last deed, or when it was last looked after.
fn newest(reader: &Reader<'_>) -> Result<UnixMs> {
    let seen = server_state::load(reader)?.high_water;
    let deeds = [
        audit::latest(reader)?,
        sessions::latest(reader)?,
        devices::latest(reader)?,
    ];
    Ok(deeds.into_iter().flatten().fold(seen, UnixMs::max))
}

/// What is lost of the file that a copy replaces, whose last moment is `from`.
fn lost(from: UnixMs, replaced: &Replaced<'_>) -> Lost {
    match replaced {
        Replaced::Nothing => Lost::NoFile,
        Replaced::Unreadable(reason) => Lost::Unknown(from, reason.clone()),
        // A damaged file is what one restores for: that it does not tell must not be in the way.
        Replaced::File(file) => match newest(file) {
            Ok(until) => Lost::Span(from, until),
            Err(error) => Lost::Unknown(from, error.to_string()),
        },
    }
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
        let source = Source {
            data: dir.path().to_owned(),
            passphrase_file: None,
        };
        let folder = dir.path().join("copies");
        let shelf = BackupDir::new(folder, 2, Some(Duration::from_hours(24)), source);
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
        // Half a copy of a server that died over it goes; one that may be on its way stays.
        let part = |hours| format!("{}.part", rules::name_at(at(hours), false));
        for name in [part(70), part(72), "mine.part".to_owned()] {
            fs::write(shelf.folder().join(name), "half").unwrap();
        }
        shelf.make(&db, at(72)).unwrap();
        let there = |name: &str| shelf.folder().join(name).exists();
        assert!(!there(&part(70)) && there("mine.part"));
        for name in ["mine.txt", "../t.sqlite3", ""] {
            assert!(shelf.read(name).is_err(), "{name}");
        }
        let made = shelf.read(&rules::name_at(at(72), false)).unwrap();
        assert!(made.starts_with(b"manifest.json"));
        // The disk of the folder is not mounted: what is in its place is empty.
        let away = dir.path().join("away");
        fs::rename(shelf.folder(), &away).unwrap();
        for there in [false, true] {
            if there {
                fs::create_dir(shelf.folder()).unwrap();
            }
            assert!(shelf.away(None).unwrap().is_some());
            let told = shelf.make(&db, at(96)).unwrap_err().to_string();
            assert!(told.contains("mount its disk"), "{told}");
        }
        assert_eq!(fs::read_dir(shelf.folder()).unwrap().count(), 0);
        fs::remove_dir(shelf.folder()).unwrap();
        fs::rename(&away, shelf.folder()).unwrap();
        assert!(shelf.away(None).unwrap().is_none());
        shelf.make(&db, at(96)).unwrap();
    }
}
