//! A backup is written: the database and everything beside it that cannot be made again.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::archive::age::Sealed;
use crate::archive::{self, Small};
use crate::clock::UnixMs;
use crate::db::{Copy, Db};
use crate::error::{Doing, Error, Result};
use crate::security::private_file::Draft;
use crate::security::secret::Secret;
use crate::signing_keys;

/// How often the copy is made anew because a signing key was rotated meanwhile.
const TRIES: u32 = 3;
/// A file beside the database is not larger.
const SMALL_MAX: u64 = 1024 * 1024;
/// Folders in folders in `data/tls`.
const DEPTH: u32 = 3;
/// A shorter passphrase would be guessed from a copy that somebody has found.
const PASSPHRASE_MIN: usize = 12;

/// What goes into a backup beside the database, and how it is protected.
#[derive(Clone, Debug)]
pub struct Source {
    /// The data folder.
    pub data: PathBuf,
    /// The file with the passphrase, where backups are encrypted.
    pub passphrase_file: Option<PathBuf>,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// An archive of all that must be kept, encrypted where there is a passphrase.
    Everything(Option<&'a Secret<String>>),
    /// The database file and nothing else, never encrypted.
    Database,
}

/// A backup that was written.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Written {
    /// Its size.
    pub bytes: u64,
    /// The schema of its database.
    pub schema: u32,
    /// What is in it beside the database.
    pub files: Vec<String>,
    /// Whether it takes a passphrase to open.
    pub encrypted: bool,
    /// Signing keys that should be in it, and are nowhere in the data folder.
    pub missing: Vec<String>,
}

/// The first line of a file with a passphrase.
///
/// # Errors
/// [`Error::State`] when it cannot be read, or is too short to protect anything.
pub fn passphrase(file: &Path) -> Result<Secret<String>> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| {
        Error::State(format!(
            "the passphrase of backups cannot be read from {name} ({error}): look at [backup] passphrase_file"
        ))
    })?;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() < PASSPHRASE_MIN {
        return Err(Error::State(format!(
            "the first line of {name} is the passphrase of backups: it needs at least {PASSPHRASE_MIN} characters"
        )));
    }
    Ok(Secret::new(line.to_owned()))
}

impl Source {
    /// The passphrase, where backups are encrypted.
    ///
    /// # Errors
    /// As [`passphrase`].
    pub fn passphrase(&self) -> Result<Option<Secret<String>>> {
        self.passphrase_file.as_deref().map(passphrase).transpose()
    }
}

impl Scope<'_> {
    /// The folder in which a copy of the database may be for a while that goes into a file in `folder`: not where what
    /// is to be encrypted would be in the clear.
    pub fn copy_beside<'a>(&self, folder: &'a Path) -> Option<&'a Path> {
        match self {
            Self::Everything(Some(_)) => None,
            Self::Everything(None) | Self::Database => Some(folder),
        }
    }
}

/// Writes a backup into `out` while the server goes on; it is not on the disk yet when this returns.
///
/// # Errors
/// When there is no room, a file cannot be read, or the copy of the database does not check out.
pub(super) fn write(
    db: &Db,
    data: &Path,
    scope: Scope<'_>,
    out: &Draft,
    now: UnixMs,
) -> Result<Written> {
    let (beside, out) = (scope.copy_beside(out.folder()), out.file());
    let mut written = match scope {
        Scope::Database => {
            let (copy, ()) = db.copy(beside, |_| Ok(()))?;
            let mut out = BufWriter::new(out);
            std::io::copy(&mut copy.file(), &mut out).doing("write a backup")?;
            out.flush().doing("write a backup")?;
            Written::of(&copy)
        }
        Scope::Everything(passphrase) => {
            let (copy, others, missing) = gather(db, data, beside, now)?;
            let mut written = Written::of(&copy);
            let schema = copy.copied.schema;
            let created = now.rfc3339();
            let mut buffered = BufWriter::new(out);
            if let Some(passphrase) = passphrase {
                let mut sealed = Sealed::begin(buffered, passphrase).doing("encrypt a backup")?;
                archive::write(&mut sealed, copy.file(), schema, &others, created)?;
                sealed.finish().doing("encrypt a backup")?;
            } else {
                archive::write(&mut buffered, copy.file(), schema, &others, created)?;
            }
            written.files = others.into_iter().map(|other| other.name).collect();
            written.encrypted = passphrase.is_some();
            written.missing = missing;
            written
        }
    };
    written.bytes = out.metadata().doing("measure a backup")?.len();
    Ok(written)
}

impl Written {
    fn of(copy: &Copy) -> Self {
        Self {
            bytes: 0,
            schema: copy.copied.schema,
            files: Vec::new(),
            encrypted: false,
            missing: Vec::new(),
        }
    }
}

/// A copy of the database and the files that belong to it, of one moment: a rotation that comes in between deletes
/// a key that the copy still names.
fn gather(
    db: &Db,
    data: &Path,
    beside: Option<&Path>,
    now: UnixMs,
) -> Result<(Copy, Vec<Small>, Vec<String>)> {
    let mut left = TRIES;
    loop {
        let mut others = Vec::new();
        for folder in archive::FOLDERS {
            others.extend(files(data, folder)?);
        }
        let (copy, known) = db.copy(beside, |reader| signing_keys::published(reader, now))?;
        let named = known
            .as_ref()
            .map(signing_keys::file_names)
            .unwrap_or_default();
        let there = |name: &String| others.iter().any(|other| other.name == *name);
        let missing: Vec<String> = named.into_iter().filter(|name| !there(name)).collect();
        left -= 1;
        let rotated = missing.iter().any(|name| data.join(name).exists());
        if left == 0 || !rotated {
            return Ok((copy, others, missing));
        }
    }
}

/// Every file in `folder` of the data folder, in the order of their names.
///
/// # Errors
/// [`Error::State`] for a link or something else that is no file, or when one cannot be read.
pub(super) fn files(data: &Path, folder: &str) -> Result<Vec<Small>> {
    let mut found = Vec::new();
    walk(data, Path::new(folder), DEPTH, &mut found)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk(data: &Path, below: &Path, depth: u32, found: &mut Vec<Small>) -> Result<()> {
    let entries = match fs::read_dir(data.join(below)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.doing("look into the data folder")?,
    };
    for entry in entries {
        let entry = entry.doing("look into the data folder")?;
        let (below, kind) = (below.join(entry.file_name()), entry.file_type());
        let kind = kind.doing("look into the data folder")?;
        let name = below.to_string_lossy();
        // Half a file of a process that died, and what somebody's editor hides.
        let passing = below.extension().is_some_and(|end| end == "new")
            || entry.file_name().as_encoded_bytes().starts_with(b".");
        if passing {
            continue;
        }
        if kind.is_dir() && depth > 0 {
            walk(data, &below, depth - 1, found)?;
            continue;
        }
        if !kind.is_file() {
            return Err(Error::State(format!(
                "{} is a link, or no file: put the real one there",
                data.join(&below).display()
            )));
        }
        let bytes = match File::open(data.join(&below)) {
            // The file of a certificate that has just been replaced.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => {
                let mut bytes = Vec::new();
                let mut file = file.doing("read a key")?.take(SMALL_MAX + 1);
                file.read_to_end(&mut bytes).doing("read a key")?;
                bytes
            }
        };
        let name = name.into_owned();
        found.push(Small { name, bytes });
    }
    Ok(())
}
