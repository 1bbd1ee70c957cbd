//! The folder that backups are put in, and whether it is the one that is meant: a disk that is not mounted leaves an
//! empty folder behind, or none.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{BackupDir, rules};
use crate::audit::{self, Actor, From};
use crate::db::Db;
use crate::error::{Doing, Error, Result};
use crate::security::private_file;
use crate::security::secret;

/// The file in the data folder that remembers which folder backups were put in, and the file in that folder by which
/// it is known again. An empty one is the operator's word that the folder is a new one.
const KNOWN: &str = ".backup-folder";
const MARK: &str = ".license-server-backups";
/// What the machine mounts, and what is mounted.
const FSTAB: &str = "/etc/fstab";
const MOUNTS: &str = "/proc/self/mountinfo";

/// Why nothing is put into the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Away {
    /// It is not the folder that backups were put in before.
    Another,
    /// Neither it nor the folder above it is there.
    Missing,
    /// Backups were made by the clock before, and it holds none.
    Empty,
    /// It is to be on a disk that is not mounted at this place.
    NotMounted(PathBuf),
}

impl Away {
    /// For texts.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Another => "another",
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::NotMounted(_) => "not_mounted",
        }
    }

    /// What is wrong with `folder`, and what to do.
    pub fn told(&self, folder: &Path) -> String {
        let name = folder.display();
        let anew = format!(
            "if it is meant to be a new folder, as the user of the server: mkdir -p {name} && touch {name}/{MARK}"
        );
        match self {
            Self::Another => format!(
                "{name} is not the folder that backups were put in before: mount its disk; {anew}"
            ),
            Self::Missing => format!(
                "the backup folder {name} is not there, nor the one above it: mount its disk, or make the folder"
            ),
            Self::Empty => format!(
                "backups were made by the clock before, and none of them is in {name}: mount its disk; {anew}"
            ),
            Self::NotMounted(place) => format!(
                "the backup folder {name} is to be on the disk of {place} (in {FSTAB}), which is not mounted: mount \
                 {place}",
                place = place.display()
            ),
        }
    }
}

impl BackupDir {
    /// Why nothing may be put into the folder, if that is so. `db` knows whether backups were made before.
    ///
    /// # Errors
    /// When the folder cannot be looked at, or SQLite fails.
    pub fn away(&self, db: Option<&Db>) -> Result<Option<Away>> {
        if self.every.is_none() {
            return Ok(None);
        }
        let mark = self.mark()?;
        if mark.as_deref() == Some("") {
            return Ok(None);
        }
        if let Some(id) = self.known()? {
            return Ok((mark != Some(id)).then_some(Away::Another));
        }
        if mark.is_some() {
            return Ok(None);
        }
        if let Some(place) = self.missing_mount() {
            return Ok(Some(Away::NotMounted(place)));
        }
        let above = self.folder.parent();
        let above = above.filter(|above| !above.as_os_str().is_empty());
        if !is_there(&self.folder)? && !is_there(above.unwrap_or(Path::new(".")))? {
            return Ok(Some(Away::Missing));
        }
        // Another folder than before is one that was chosen anew.
        let first = read(&self.source.data.join(KNOWN))?.is_none();
        let lost = first && self.list()?.is_empty() && made_before(db)?;
        Ok(lost.then_some(Away::Empty))
    }

    /// Makes the folder where it is needed for the first time, and marks it.
    pub(super) fn open_folder(&self, db: &Db) -> Result<()> {
        if let Some(away) = self.away(Some(db))? {
            return Err(Error::State(away.told(&self.folder)));
        }
        if self.every.is_none() {
            // Not on a new data folder in the place of one that is gone: the next start would take it for its own.
            if !self.source.data.is_dir() {
                return Err(Error::State(format!(
                    "{name} is not made anew, since the data folder is gone: save the database with \
                     `license-server backup FILE` while the server runs",
                    name = self.folder.display()
                )));
            }
            return fs::create_dir_all(&self.folder).doing("make the backup folder");
        }
        // Only the last part: where the disk is away, the rest of the path often is too.
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.doing("make the backup folder")?,
        }
        let mark = self.mark()?.filter(|id| !id.is_empty());
        if mark.is_some() && self.known()? == mark {
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

    /// Notes in the data folder which folder backups are put in.
    fn remember(&self, id: &str) {
        let name = self.folder.display();
        let text = format!("{id}\n{name}\n");
        let noted = private_file::write(&self.source.data.join(KNOWN), text);
        if let Err(error) = noted {
            // A data disk that is full, read-only or gone is what backups are for.
            log::warn!(
                "that backups are put in {name} cannot be noted in the data folder: {error}"
            );
        }
    }

    /// The mark of the folder that backups were put in before, where it is this one by its name.
    fn known(&self) -> Result<Option<String>> {
        let text = read(&self.source.data.join(KNOWN))?.unwrap_or_default();
        let mut lines = text.lines();
        let (id, folder) = (lines.next(), lines.next());
        let same = self.every.is_some() && folder == Some(&*self.folder.to_string_lossy());
        Ok(id.filter(|_| same).map(str::to_owned))
    }

    fn mark(&self) -> Result<Option<String>> {
        let text = read(&self.folder.join(MARK))?;
        Ok(text.map(|text| text.trim().to_owned()))
    }

    /// Where the disk belongs that the folder is to be on, and that is not mounted, as far as the machine says.
    fn missing_mount(&self) -> Option<PathBuf> {
        // Without these files nothing is known, which is no fault.
        let fstab = fs::read(FSTAB).ok()?;
        let mounts = fs::read(MOUNTS).ok()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let folder = std::path::absolute(&self.folder).ok()?;
        let real = folder.ancestors().find_map(|above| {
            let rest = folder.strip_prefix(above).ok()?;
            Some(fs::canonicalize(above).ok()?.join(rest))
        });
        rules::missing_mount(&text(fstab), &text(mounts), &real.unwrap_or(folder))
    }
}

fn is_there(folder: &Path) -> Result<bool> {
    folder.try_exists().doing("look for the backup folder")
}

/// Whether the server has made a backup by the clock, as far as the audit log says.
fn made_before(db: Option<&Db>) -> Result<bool> {
    let Some(db) = db else {
        return Ok(false);
    };
    let filter = audit::Filter {
        actor: Some(Actor::SERVER.to_owned()),
        room: Some("backups".to_owned()),
        subject: None,
        since: None,
    };
    let made = db.read_blocking(|reader| audit::page(reader, &filter, From::Newest, 1))?;
    Ok(!made.is_empty())
}

/// What is in a file; none where there is no such file.
fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => text.map(Some).doing("read the mark of the backup folder"),
    }
}
