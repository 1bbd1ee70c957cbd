//! Writes a backup: the database, and the files in the data folder that cannot be generated again.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::archive::age::Encryptor;
use crate::archive::{self, ArchiveContents, SmallFile, data_files};
use crate::clock::UnixMs;
use crate::db::{DatabaseCopy, Db};
use crate::error::{Doing, Error, Result};
use crate::security::private_file::Draft;
use crate::security::secret::Secret;
use crate::signing_keys::{self, Published};

/// How often the database is copied if signing keys are rotated meanwhile.
const TRIES: u32 = 3;
/// Minimum length of a passphrase in characters. A shorter one could be guessed by an attacker who has the backup.
const PASSPHRASE_MIN: usize = 12;

/// Where the files in a backup come from, and how the backup is protected.
#[derive(Clone, Debug)]
pub struct BackupSource {
    /// The data folder.
    pub data: PathBuf,
    /// The file with the passphrase. `None` if backups are not encrypted.
    pub passphrase_file: Option<PathBuf>,
}

/// The data that is backed up, which a server may be using.
#[derive(Clone, Copy)]
pub struct LiveData<'a> {
    /// The database.
    pub db: &'a Db,
    /// The data folder.
    pub data: &'a Path,
}

/// What a backup contains.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// An archive of everything that must be kept, encrypted if there is a passphrase.
    Everything(Option<&'a Secret<String>>),
    /// Only the database file, never encrypted.
    Database,
}

/// A backup that was written.
#[derive(Clone, Debug, serde::Serialize)]
pub struct WrittenBackup {
    /// The size of the file.
    pub bytes: u64,
    /// The schema of its database.
    pub schema: u32,
    /// The names of the other files in it.
    pub files: Vec<String>,
    /// Whether it is encrypted with a passphrase.
    pub encrypted: bool,
    /// The files of signing keys that belong to the database but are missing in the data folder.
    pub missing: Vec<String>,
}

/// The passphrase: the first line of `file`.
///
/// # Errors
/// [`Error::State`] when the file cannot be read, or the passphrase is too short.
pub fn passphrase(file: &Path) -> Result<Secret<String>> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| {
        Error::State(format!(
            "the backup passphrase cannot be read from {name} ({error}): check [backup] passphrase_file"
        ))
    })?;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() < PASSPHRASE_MIN {
        return Err(Error::State(format!(
            "the first line of {name} is the backup passphrase: it needs at least {PASSPHRASE_MIN} characters"
        )));
    }
    Ok(Secret::new(line.to_owned()))
}

impl BackupSource {
    /// The passphrase. `None` if backups are not encrypted.
    ///
    /// # Errors
    /// As [`passphrase`].
    pub fn passphrase(&self) -> Result<Option<Secret<String>>> {
        self.passphrase_file.as_deref().map(passphrase).transpose()
    }
}

impl Scope<'_> {
    /// The folder for a temporary copy of the database while a backup is written to `folder`. `None` if the backup is
    /// encrypted: the copy must not lie unencrypted beside it.
    pub fn plain_copy_folder<'a>(&self, folder: &'a Path) -> Option<&'a Path> {
        match self {
            Self::Everything(Some(_)) => None,
            Self::Everything(None) | Self::Database => Some(folder),
        }
    }
}

/// Writes a backup into `out` while the server runs. It is not yet synced to disk when this returns.
///
/// # Errors
/// When the disk is full, a file cannot be read, or the copy of the database is damaged.
pub(super) fn write(
    live: LiveData<'_>,
    scope: Scope<'_>,
    out: &Draft,
    now: UnixMs,
) -> Result<WrittenBackup> {
    let (beside, out) = (scope.plain_copy_folder(out.folder()), out.file());
    let mut written = match scope {
        Scope::Database => {
            let (copy, ()) = live.db.copy(beside, |_| Ok(()))?;
            let mut out = BufWriter::new(out);
            std::io::copy(&mut copy.file(), &mut out).doing("write a backup")?;
            out.flush().doing("write a backup")?;
            WrittenBackup::of(&copy)
        }
        Scope::Everything(passphrase) => {
            let (copy, others, missing) = gather(live, beside, now)?;
            let mut written = WrittenBackup::of(&copy);
            let contents = ArchiveContents {
                database: copy.file(),
                schema: copy.copied.schema,
                others: &others,
                created_at: now.rfc3339(),
            };
            write_archive(BufWriter::new(out), &contents, passphrase)?;
            written.files = others.into_iter().map(|other| other.name).collect();
            written.encrypted = passphrase.is_some();
            written.missing = missing;
            written
        }
    };
    written.bytes = out.metadata().doing("measure a backup")?.len();
    Ok(written)
}

/// Writes an archive, encrypted if there is a passphrase.
fn write_archive(
    mut out: BufWriter<&File>,
    contents: &ArchiveContents<'_>,
    passphrase: Option<&Secret<String>>,
) -> Result<()> {
    if let Some(passphrase) = passphrase {
        let mut sealed = Encryptor::begin(out, passphrase).doing("encrypt a backup")?;
        archive::write(&mut sealed, contents)?;
        sealed.finish().doing("encrypt a backup")?;
    } else {
        archive::write(&mut out, contents)?;
    }
    Ok(())
}

impl WrittenBackup {
    fn of(copy: &DatabaseCopy) -> Self {
        Self {
            bytes: 0,
            schema: copy.copied.schema,
            files: Vec::new(),
            encrypted: false,
            missing: Vec::new(),
        }
    }
}

/// A consistent copy of the database, the files that belong to it, and the names of those that are missing.
fn gather(
    LiveData { db, data }: LiveData<'_>,
    beside: Option<&Path>,
    now: UnixMs,
) -> Result<(DatabaseCopy, Vec<SmallFile>, Vec<String>)> {
    gather_around(data, || {
        db.copy(beside, |reader| signing_keys::published(reader, now))
    })
}

/// As [`gather`], with the copy that `copy` makes. A rotation may delete a key that the copy names, so files are read
/// before and after it. Only three rotations during one copy can generate a key and delete it again: then it is repeated.
fn gather_around<T>(
    data: &Path,
    mut copy: impl FnMut() -> Result<(T, Option<Published>)>,
) -> Result<(T, Vec<SmallFile>, Vec<String>)> {
    let mut before = data_files::all(data)?;
    let mut left = TRIES;
    loop {
        let (copy, known) = copy()?;
        let mut after = data_files::all(data)?;
        let named = known.as_ref().map(signing_keys::private_key_files);
        let mut missing = named.unwrap_or_default();
        missing.retain(|name| !contains(&after, name));
        let deleted = before.iter().filter(|file| missing.contains(&file.name));
        let deleted: Vec<SmallFile> = deleted.cloned().collect();
        missing.retain(|name| !contains(&deleted, name));
        left -= 1;
        if missing.is_empty() || before == after || left == 0 {
            after.extend(deleted);
            return Ok((copy, after, missing));
        }
        before = after;
    }
}

fn contains(files: &[SmallFile], name: &str) -> bool {
    files.iter().any(|file| file.name == name)
}

/// Rejects files in the data folder that prevent every backup, such as one that the operator has put there.
///
/// # Errors
/// [`Error::State`]; it says what to do.
pub fn check_files(data: &Path) -> Result<()> {
    archive::check_files(&data_files::all(data)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Actor;
    use crate::db::Options;
    use crate::signing_keys::{KeyStorage, LostKeys};

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    #[test]
    fn a_backup_has_the_keys_that_its_database_names_however_often_they_are_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let db = Db::open_as_server(&Options::in_folder(data)).unwrap();
        signing_keys::open(&db, data, NOW).unwrap();
        let read = || db.read_blocking(|reader| signing_keys::published(reader, NOW));
        let rotate = |times| {
            for _ in 0..times {
                let storage = KeyStorage { db: &db, data };
                signing_keys::rotate(storage, LostKeys::Refuse, Actor::server(), NOW).unwrap();
            }
        };
        let orders = (0..4).flat_map(|before| (0..4).map(move |after| (before, after)));
        for (before, after) in orders {
            let (mut left, mut names) = (Some((before, after)), Vec::new());
            let gathered = gather_around(data, || {
                let (before, after) = left.take().unwrap_or_default();
                rotate(before);
                let known = read()?;
                rotate(after);
                names = known.as_ref().map(signing_keys::private_key_files).unwrap();
                Ok(((), known))
            });
            let ((), files, missing) = gathered.unwrap();
            assert_eq!(missing, [""; 0], "{before} before, {after} after");
            assert!(names.iter().all(|name| contains(&files, name)));
        }
        let (mut copies, lost) = (0, read().unwrap().unwrap());
        let lost = signing_keys::private_key_files(&lost).remove(1);
        fs::remove_file(data.join(&lost)).unwrap();
        let gathered = gather_around(data, || {
            copies += 1;
            Ok(((), read()?))
        });
        let ((), _, missing) = gathered.unwrap();
        assert_eq!((copies, missing), (1, vec![lost]), "nothing was rotated");
    }
}
