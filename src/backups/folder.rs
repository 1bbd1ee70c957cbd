//! Checks that the backup folder is the intended one: if its disk is not mounted, the path is an empty folder or does
//! not exist, and backups would go to the wrong disk.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{BackupDir, rules};
use crate::audit::{self, Actor};
use crate::db::Db;
use crate::error::{Doing, Error, Result};
use crate::paging::PageRequest;
use crate::security::private_file;
use crate::security::secret;

/// The file in the data folder that records the id and the path of the backup folder.
const RECORD: &str = ".backup-folder";
/// The file in the backup folder with its id. The operator creates an empty one to confirm that a folder is a new one.
const MARK: &str = ".license-server-backups";
/// What the machine should mount, and what is mounted.
const FSTAB: &str = "/etc/fstab";
const MOUNTS: &str = "/proc/self/mountinfo";

/// Why the backup folder cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderFault {
    /// It is not the folder that earlier backups are in.
    Another,
    /// Neither the folder nor its parent exists.
    Missing,
    /// Scheduled backups were made before, and the folder contains none.
    Empty,
    /// It belongs on a disk that should be mounted at this path, and is not.
    NotMounted(PathBuf),
}

impl FolderFault {
    /// Its name in texts and JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Another => "another",
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::NotMounted(_) => "not_mounted",
        }
    }

    /// What is wrong with `folder`, and what to do.
    pub fn message(&self, folder: &Path) -> String {
        let name = folder.display();
        let confirm = format!(
            "if it is meant to be a new folder, run as the user of the server: mkdir -p {name} && touch {name}/{MARK}"
        );
        match self {
            Self::Another => format!(
                "{name} is not the folder that backups were put in before: mount its disk; {confirm}"
            ),
            Self::Missing => format!(
                "the backup folder {name} does not exist, nor does its parent: mount its disk, or make the folder"
            ),
            Self::Empty => format!(
                "scheduled backups were made before, and none of them is in {name}: mount its disk; {confirm}"
            ),
            Self::NotMounted(mount_point) => format!(
                "the backup folder {name} belongs on the disk at {disk} (see {FSTAB}), which is not mounted: mount \
                 {disk}",
                disk = mount_point.display()
            ),
        }
    }
}

impl BackupDir {
    /// Why the folder cannot be used. `None` if it can, and without a schedule. The audit log in `db` tells whether
    /// scheduled backups were made before; without `db` that check is skipped.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn folder_fault(&self, db: Option<&Db>) -> Result<Option<FolderFault>> {
        if self.every.is_none() {
            return Ok(None);
        }
        let mark = self.mark()?;
        if mark.as_deref() == Some("") {
            return Ok(None);
        }
        if let Some(id) = self.recorded_id()? {
            return Ok((mark != Some(id)).then_some(FolderFault::Another));
        }
        if mark.is_some() {
            return Ok(None);
        }
        if let Some(mount_point) = self.missing_mount() {
            return Ok(Some(FolderFault::NotMounted(mount_point)));
        }
        let parent = self.folder.parent();
        let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
        if !exists(&self.folder)? && !exists(parent.unwrap_or(Path::new(".")))? {
            return Ok(Some(FolderFault::Missing));
        }
        // If another folder is recorded, the operator has changed the setting: an empty folder is expected then.
        let first = read(&self.source.data.join(RECORD))?.is_none();
        let lost = first && self.list()?.is_empty() && made_before(db)?;
        Ok(lost.then_some(FolderFault::Empty))
    }

    /// Creates the folder if this is its first use, and marks it.
    pub(super) fn open_folder(&self, db: &Db) -> Result<()> {
        if let Some(away) = self.folder_fault(Some(db))? {
            return Err(Error::State(away.message(&self.folder)));
        }
        if self.every.is_none() {
            // The default folder is inside the data folder. If that has disappeared, do not create it again: the next
            // start would take the new one for its own.
            if !self.source.data.is_dir() {
                return Err(Error::State(format!(
                    "{name} is not created, because the data folder is gone: save the database with \
                     `license-server backup FILE` while the server runs",
                    name = self.folder.display()
                )));
            }
            return fs::create_dir_all(&self.folder).doing("make the backup folder");
        }
        // Only the last component: if the disk is not mounted, the rest of the path is often missing too.
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.doing("make the backup folder")?,
        }
        let mark = self.mark()?.filter(|id| !id.is_empty());
        if mark.is_some() && self.recorded_id()? == mark {
            return Ok(());
        }
        let id = if let Some(id) = mark {
            id
        } else {
            let id = secret::hex(&secret::random::<16>()?);
            let folder = fs::canonicalize(&self.folder).doing("find the backup folder")?;
            private_file::write(&folder.join(MARK), &id).doing("mark the backup folder")?;
            id
        };
        self.remember(&id);
        Ok(())
    }

    /// Records in the data folder which folder backups are in.
    fn remember(&self, id: &str) {
        let name = self.folder.display();
        let text = format!("{id}\n{name}\n");
        let written = private_file::write(&self.source.data.join(RECORD), text);
        if let Err(error) = written {
            // Only a warning: a full, read-only or missing data disk is exactly when a backup is needed.
            log::warn!("cannot record in the data folder that backups are in {name}: {error}");
        }
    }

    /// The recorded id, if the recorded path is that of this folder.
    fn recorded_id(&self) -> Result<Option<String>> {
        let text = read(&self.source.data.join(RECORD))?.unwrap_or_default();
        let mut lines = text.lines();
        let (id, folder) = (lines.next(), lines.next());
        let same = self.every.is_some() && folder == Some(&*self.folder.to_string_lossy());
        Ok(id.filter(|_| same).map(str::to_owned))
    }

    /// The id in the mark of the folder. `None` without a mark; empty if the operator created it.
    fn mark(&self) -> Result<Option<String>> {
        let text = read(&self.folder.join(MARK))?;
        Ok(text.map(|text| text.trim().to_owned()))
    }

    /// The mount point in `/etc/fstab` that the folder is below, if nothing is mounted there.
    fn missing_mount(&self) -> Option<PathBuf> {
        // Without these files the mount state is unknown, which is not an error.
        let fstab = fs::read(FSTAB).ok()?;
        let mounts = fs::read(MOUNTS).ok()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let folder = std::path::absolute(&self.folder).ok()?;
        let real = folder.ancestors().find_map(|ancestor| {
            let rest = folder.strip_prefix(ancestor).ok()?;
            Some(fs::canonicalize(ancestor).ok()?.join(rest))
        });
        rules::missing_mount(&text(fstab), &text(mounts), &real.unwrap_or(folder))
    }
}

fn exists(folder: &Path) -> Result<bool> {
    folder.try_exists().doing("look for the backup folder")
}

/// Whether the server has made a scheduled backup, according to the audit log.
fn made_before(db: Option<&Db>) -> Result<bool> {
    let Some(db) = db else {
        return Ok(false);
    };
    let filter = audit::EntryFilter {
        actor: Some(Actor::SERVER.to_owned()),
        module: Some("backups".to_owned()),
        subject: None,
        since: None,
        order: audit::EntryColumn::DEFAULT,
    };
    let newest = PageRequest::first(1);
    let made = db
        .read_blocking(|reader| audit::page(reader, &filter, &newest))?
        .rows;
    Ok(!made.is_empty())
}

/// The content of a file. `None` if it does not exist.
fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => text.map(Some).doing("read the mark of the backup folder"),
    }
}
