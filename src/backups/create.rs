//! Writes a backup: the database, and the files in the data folder that cannot be generated again.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::archive::age::Encryptor;
use crate::archive::{self, ArchiveContents, SmallFile};
use crate::clock::UnixMs;
use crate::db::{DatabaseCopy, Db};
use crate::error::{Doing, Error, Result};
use crate::security::private_file::Draft;
use crate::security::secret::Secret;
use crate::signing_keys;

/// How often the copy is repeated if a signing key was rotated meanwhile.
const TRIES: u32 = 3;
/// Maximum size of a file other than the database, in bytes.
const SMALL_MAX: u64 = 1024 * 1024;
/// Maximum depth of folders in `data/tls`.
const DEPTH: u32 = 3;
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

/// A consistent copy of the database and the files that belong to it. If a signing key is rotated in between, the copy
/// refers to a deleted key file, and is repeated.
fn gather(
    LiveData { db, data }: LiveData<'_>,
    beside: Option<&Path>,
    now: UnixMs,
) -> Result<(DatabaseCopy, Vec<SmallFile>, Vec<String>)> {
    let mut left = TRIES;
    loop {
        let others = key_files(data)?;
        let (copy, known) = db.copy(beside, |reader| signing_keys::published(reader, now))?;
        let named = known
            .as_ref()
            .map(signing_keys::private_key_files)
            .unwrap_or_default();
        let is_present = |name: &String| others.iter().any(|other| other.name == *name);
        let missing: Vec<String> = named.into_iter().filter(|name| !is_present(name)).collect();
        left -= 1;
        let rotated = missing.iter().any(|name| data.join(name).exists());
        if left == 0 || !rotated {
            return Ok((copy, others, missing));
        }
    }
}

/// Rejects files in the data folder that prevent every backup, such as one that the operator has put there.
///
/// # Errors
/// [`Error::State`]; it says what to do.
pub fn check_files(data: &Path) -> Result<()> {
    archive::check_files(&key_files(data)?)
}

/// The files of a backup other than the database.
fn key_files(data: &Path) -> Result<Vec<SmallFile>> {
    let folders = archive::FOLDERS.iter().map(|folder| files(data, folder));
    let files: Vec<Vec<SmallFile>> = folders.collect::<Result<_>>()?;
    Ok(files.into_iter().flatten().collect())
}

/// All files below `folder` in the data folder, sorted by name.
///
/// # Errors
/// [`Error::State`] for a link or anything else that is not a regular file.
pub(super) fn files(data: &Path, folder: &str) -> Result<Vec<SmallFile>> {
    let mut found = Vec::new();
    walk(data, Path::new(folder), DEPTH, &mut found)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk(data: &Path, below: &Path, depth: u32, found: &mut Vec<SmallFile>) -> Result<()> {
    let entries = match fs::read_dir(data.join(below)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.doing("read the data folder")?,
    };
    for entry in entries {
        let entry = entry.doing("read the data folder")?;
        let (below, kind) = (below.join(entry.file_name()), entry.file_type());
        let kind = kind.doing("read the data folder")?;
        let name = below.to_string_lossy();
        // Unfinished files of a process that was killed, and hidden files of editors.
        let is_temporary = below.extension().is_some_and(|end| end == "new")
            || entry.file_name().as_encoded_bytes().starts_with(b".");
        if is_temporary {
            continue;
        }
        let path = data.join(&below);
        let path = path.display();
        if kind.is_dir() && depth == 0 {
            return Err(Error::State(format!(
                "{path} is a folder in too many others for a backup: move it elsewhere"
            )));
        }
        if kind.is_dir() {
            walk(data, &below, depth - 1, found)?;
            continue;
        }
        if !kind.is_file() {
            return Err(Error::State(format!(
                "{path} is not a regular file: put the real file there"
            )));
        }
        let bytes = read_small(&data.join(&below))?;
        let name = name.into_owned();
        found.extend(bytes.map(|bytes| SmallFile { name, bytes }));
    }
    Ok(())
}

/// The content of a file, of one that is too large only its beginning. `None` if the file was just replaced, for example
/// by a renewed certificate.
fn read_small(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.doing("read a key")?,
    };
    let mut bytes = Vec::new();
    let read = file.take(SMALL_MAX + 1).read_to_end(&mut bytes);
    read.doing("read a key")?;
    Ok(Some(bytes))
}
