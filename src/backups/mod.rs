//! Backups: archives of everything that must be kept, in a folder. Made in the panel or on a schedule; the oldest are
//! deleted. The files in the folder are the only list of backups: the database does not know them.

pub mod cli;
mod copies;
mod create;
mod folder;
pub mod panel;
mod restore;
mod rules;

pub use create::{BackupSource, LiveData, Scope, WrittenBackup, check_files, passphrase};
pub use folder::FolderFault;
pub use restore::{
    BackupInput, ExpectedKeys, Origin, RestoreTarget, remove_staging_folders, restore,
};
pub use rules::{BackupAge, age, in_words, timestamp};

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{self, Act, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{self, Db, OldDatabase, Reader};
use crate::error::{Doing, Error, Resource, Result};
use crate::privacy::{ErasedAgain, ListFiles};
use crate::security::private_file::Draft;
use crate::{devices, server_state, sessions};

/// After this time, an unfinished copy counts as abandoned. A younger one may be in progress.
const COPY_MAX: Duration = Duration::from_hours(1);

/// A backup file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Backup {
    /// The file's name.
    pub name: String,
    /// The file's size.
    pub bytes: u64,
    /// When it was made, according to its name.
    pub made_at: UnixMs,
}

/// The folder with the backups, and its schedule.
#[derive(Clone, Debug)]
pub struct BackupDir {
    folder: PathBuf,
    /// How many backups are kept; at least 1.
    keep: usize,
    /// How often a backup is made automatically. `None`: only manually.
    every: Option<Duration>,
    source: BackupSource,
}

impl BackupDir {
    /// The backups in `folder`: the newest `keep` are kept, and a new one is made `every` so often.
    pub fn new(folder: PathBuf, keep: u32, every: Option<Duration>, source: BackupSource) -> Self {
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).max(1);
        Self {
            folder,
            keep,
            every,
            source,
        }
    }

    /// The path of the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder, unless it is not the intended one; see [`BackupDir::folder_fault`].
    pub fn usable_folder(&self) -> Option<&Path> {
        let fault = self.folder_fault(None);
        matches!(fault, Ok(None)).then_some(&*self.folder)
    }

    /// How often a backup is made automatically. `None`: only manually.
    pub const fn every(&self) -> Option<Duration> {
        self.every
    }

    /// Whether backups are encrypted with a passphrase.
    pub const fn is_encrypted(&self) -> bool {
        self.source.passphrase_file.is_some()
    }

    /// All backups, newest first. Empty if the folder does not exist yet.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Backup>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.doing("read the backup folder")?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.doing("read the backup folder")?;
            let name = entry.file_name();
            // Other files in the folder are ignored.
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

    /// Makes a backup while the server runs, and deletes the oldest ones beyond the number to keep. Blocks while it
    /// copies: do not call it on an async thread.
    ///
    /// # Errors
    /// When the disk is full, or the copy is damaged; then no backup is deleted.
    pub fn make(&self, db: &Db, now: UnixMs) -> Result<Backup> {
        self.open_folder(db)?;
        let passphrase = self.source.passphrase()?;
        let name = match passphrase {
            Some(_) => rules::encrypted_file_name(now),
            None => rules::file_name(now),
        };
        // A second backup within the same second: the first one has this name already.
        if let Some(made) = self.list()?.into_iter().find(|backup| backup.name == name) {
            return Ok(made);
        }
        self.delete_abandoned(now)?;
        // The folder may be a symbolic link, which `Draft` does not follow.
        let folder = fs::canonicalize(&self.folder).doing("find the backup folder")?;
        let draft = Draft::create(&folder.join(&name), ".part").doing("begin a backup")?;
        let scope = Scope::Everything(passphrase.as_ref());
        let live = LiveData {
            db,
            data: &self.source.data,
        };
        let written = create::write(live, scope, &draft, now)?;
        draft.persist_new().doing("give a backup its name")?;
        // The folder may be new. The backup itself lists the erasures, those that follow apart.
        if let Err(error) = ListFiles::in_folder(Some(&folder), db.path()).save(db) {
            log::warn!("the backup folder has no list of erased customers: {error}");
        }
        let present = self.list()?;
        if self.source.data.is_dir() {
            self.delete_oldest(present, &name)?;
        } else {
            log::warn!(
                "the data folder is gone: backup {name} contains no certificates and keys, so older backups are kept"
            );
        }
        Ok(Backup {
            name,
            bytes: written.bytes,
            made_at: now,
        })
    }

    /// Deletes the oldest of the backups that are `present`, except those to keep and the `new` one, which is excluded
    /// by name: if the clock was set back, it is not the newest one.
    fn delete_oldest(&self, present: Vec<Backup>, new: &str) -> Result<()> {
        let older = present.into_iter().filter(|backup| backup.name != new);
        for old in older.skip(self.keep.saturating_sub(1)) {
            fs::remove_file(self.folder.join(&old.name)).doing("delete an old backup")?;
        }
        Ok(())
    }

    /// Deletes unfinished copies of processes that were killed, so that they do not fill the disk.
    fn delete_abandoned(&self, now: UnixMs) -> Result<()> {
        for entry in fs::read_dir(&self.folder).doing("read the backup folder")? {
            let entry = entry.doing("read the backup folder")?;
            let name = entry.file_name();
            let begun = name.to_str().and_then(rules::begun_at);
            if begun.is_some_and(|at| at.plus(COPY_MAX) <= now) {
                fs::remove_file(entry.path()).doing("delete an unfinished backup")?;
            }
        }
        Ok(())
    }

    /// The bytes of the backup `name`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no backup has exactly this name.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        // Look the name up in the list: a name from a request must never become a path.
        let known = self.list()?.into_iter().find(|backup| backup.name == name);
        let known = known.ok_or_else(|| Error::not_found(Resource::Backup, name))?;
        fs::read(self.folder.join(known.name)).doing("read a backup")
    }

    /// Whether the schedule asks for a backup now.
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

/// A backup that was just made.
#[derive(Debug)]
pub struct Made {
    /// The backup.
    pub backup: Backup,
    /// Whether the audit log has its entry. On a data disk that is full or read-only it has none, though the backup
    /// exists.
    pub noted: Result<()>,
}

/// Makes a backup in `dir` for `actor`, and notes it in the audit log.
///
/// # Errors
/// As [`BackupDir::make`].
pub async fn make(db: &Db, dir: &BackupDir, actor: Actor, now: UnixMs) -> Result<Made> {
    let (source, dir) = (db.clone(), dir.clone());
    // Not on a thread for requests: it takes a minute for a large database, and as much of the processor as it gets.
    let made = db::in_background("backup", move || dir.make(&source, now));
    let backup = made.await??;
    let (name, bytes) = (backup.name.clone(), backup.bytes);
    let noted = db.write("backups.make", move |tx| {
        note(&Act::new(tx, &actor, now), BackupEvent::Made, &name, bytes)
    });
    let noted = noted.await;
    Ok(Made { backup, noted })
}

/// Notes in the audit log that a backup was made or downloaded.
fn note(act: &Act<'_>, event: BackupEvent, backup: &str, bytes: u64) -> Result<()> {
    let after = json!({ "bytes": bytes });
    let change = match event {
        BackupEvent::Made => Change {
            action: "backups.make",
            subject: backup,
            before: Value::Null,
            after,
        },
        BackupEvent::Downloaded => Change {
            action: "backups.download",
            subject: backup,
            before: Value::Null,
            after,
        },
    };
    act.note(&change)
}

/// The changes that are lost because a restored copy replaced a newer database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LostChanges {
    /// No database was replaced.
    NoFile,
    /// Changes between the latest date in the copy and the latest date in the replaced database. Nothing is lost if the
    /// first is not before the second.
    Span(UnixMs, UnixMs),
    /// Changes after the latest date in the copy. The replaced database cannot be read, for this reason, so the end
    /// of the period is unknown.
    Unknown(UnixMs, String),
}

/// The result of a restore.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// What was put in place, and where the replaced database is kept.
    pub database: db::Restored,
    /// The changes that are lost.
    pub lost: LostChanges,
    /// How many sessions were active in the copy. They were ended.
    pub sessions_ended: usize,
    /// The customers who had been erased after the copy was made. They were erased in it again.
    pub erased_again: Vec<ErasedAgain>,
    /// If no list of erased customers was found, the latest date in the copy: customers erased later are in it again.
    pub no_erased_list_since: Option<UnixMs>,
    /// Whether the copy was a whole archive, not only a database.
    pub is_archive: bool,
    /// Where the replaced keys and certificates are kept.
    pub replaced_folders: Vec<PathBuf>,
    /// Keys that belong to the database and were neither in the copy nor in the data folder.
    pub missing: Vec<MissingKey>,
}

/// A key that belongs to a database and is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// The private key of the signing key with this id.
    SigningKey(String),
    /// The certificate authority that programs trust. The data folder has none.
    Authority,
    /// The certificate authority that programs trust. The data folder has another one.
    KnownAuthority,
}

/// The latest date in a database: that of its last recorded event, or the latest date that its server has seen.
pub fn newest_change(reader: &Reader<'_>) -> Result<UnixMs> {
    let seen = server_state::load(reader)?.high_water;
    let latest = [
        audit::newest_entry_at(reader)?,
        sessions::latest_activity(reader)?,
        devices::latest(reader)?,
    ];
    Ok(latest.into_iter().flatten().fold(seen, UnixMs::max))
}

/// What is lost if a copy with the latest date `from` replaces a database.
pub fn lost(from: UnixMs, replaced: &OldDatabase<'_>) -> LostChanges {
    match replaced {
        OldDatabase::Nothing => LostChanges::NoFile,
        OldDatabase::Unreadable(reason) => LostChanges::Unknown(from, reason.clone()),
        // A damaged database is a reason to restore, so an error here must not stop the restore.
        OldDatabase::File(file) => match newest_change(file) {
            Ok(until) => LostChanges::Span(from, until),
            Err(error) => LostChanges::Unknown(from, error.to_string()),
        },
    }
}

/// A backup event for the audit log.
#[derive(Clone, Copy, Debug)]
pub enum BackupEvent {
    /// It was made.
    Made,
    /// It was downloaded.
    Downloaded,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Options;

    #[test]
    fn the_newest_backups_are_kept_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::in_folder(dir.path());
        let db = Db::open_as_server(&options).unwrap();
        let source = BackupSource {
            data: dir.path().to_owned(),
            passphrase_file: None,
        };
        let folder = dir.path().join("copies");
        let backups = BackupDir::new(folder, 2, Some(Duration::from_hours(24)), source);
        let at = |hours: u32| UnixMs(1_795_356_331_000).plus(Duration::from_hours(1) * hours);
        assert!(backups.list().unwrap().is_empty() && backups.is_due(at(0)).unwrap());
        backups.make(&db, at(0)).unwrap();
        fs::write(backups.folder().join("mine.txt"), "x").unwrap();
        assert!(!backups.is_due(at(23)).unwrap() && backups.is_due(at(24)).unwrap());
        backups.make(&db, at(24)).unwrap();
        backups.make(&db, at(48)).unwrap();
        let dates: Vec<_> = backups
            .list()
            .unwrap()
            .into_iter()
            .map(|b| b.made_at)
            .collect();
        assert_eq!(dates, [at(48), at(24)]);
        assert!(backups.folder().join("mine.txt").exists());
        // An old unfinished copy is deleted; one that may be in progress stays.
        let part = |hours| format!("{}.part", rules::file_name(at(hours)));
        for name in [part(70), part(72), "mine.part".to_owned()] {
            fs::write(backups.folder().join(name), "half").unwrap();
        }
        backups.make(&db, at(72)).unwrap();
        let exists = |name: &str| backups.folder().join(name).exists();
        assert!(!exists(&part(70)) && exists("mine.part"));
        for name in ["mine.txt", "../t.sqlite3", ""] {
            assert!(backups.read(name).is_err(), "{name}");
        }
        let made = backups.read(&rules::file_name(at(72))).unwrap();
        assert!(made.starts_with(b"manifest.json"));
        // The disk of the folder is not mounted: the folder is missing or empty.
        let away = dir.path().join("away");
        fs::rename(backups.folder(), &away).unwrap();
        for exists in [false, true] {
            if exists {
                fs::create_dir(backups.folder()).unwrap();
            }
            assert!(backups.folder_fault(None).unwrap().is_some());
            let error = backups.make(&db, at(96)).unwrap_err().to_string();
            assert!(error.contains("mount its disk"), "{error}");
        }
        assert_eq!(fs::read_dir(backups.folder()).unwrap().count(), 0);
        fs::remove_dir(backups.folder()).unwrap();
        fs::rename(&away, backups.folder()).unwrap();
        assert!(backups.folder_fault(None).unwrap().is_none());
        backups.make(&db, at(96)).unwrap();
    }
}
