//! Backup archives: one file with everything that a backup needs, as a tar archive that may be encrypted. Its
//! first entry is a list of the others with their checksums; an archive that differs from its list is refused.
//! Independent of licenses.

pub mod age;
pub mod data_files;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, Entry, EntryType, Header};

use crate::error::{Doing, Error, Result};
use crate::security::secret::hex;

/// The name of the database's entry.
pub const DATABASE: &str = "database.sqlite3";
/// Folders of the data folder whose files are entries, under the same names.
pub const FOLDERS: [&str; 2] = ["tls", "signing"];
const MANIFEST: &str = "manifest.json";
/// The version of the archive format.
const FORMAT: u32 = 1;
const PRODUCT: &str = "license-server";
/// Maximum size, in bytes, of the list, and of each file other than the database.
const SMALL_MAX: u64 = 1024 * 1024;
/// Maximum number of files in an archive; more than are ever needed.
const FILES_MAX: usize = 1000;
/// Maximum number of bytes after the last entry: tar pads, and some programs pad a lot.
const PADDING_MAX: u64 = 1024 * 1024;

/// The list at the beginning of an archive.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Manifest {
    format: u32,
    product: String,
    /// The version of the program that wrote the archive.
    pub version: String,
    /// The schema version of its database.
    pub schema: u32,
    /// When the archive was made, in RFC 3339.
    pub created_at: String,
    /// Its entries, in their order.
    pub files: Vec<ArchiveEntry>,
}

/// An entry in the list of an archive.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ArchiveEntry {
    /// Its path relative to the data folder; [`DATABASE`] for the database.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    sha256: String,
}

/// A file other than the database, in memory: keys and certificates are small.
#[derive(Clone, PartialEq, Eq)]
pub struct SmallFile {
    /// Its path from the data folder.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for SmallFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Small({:?})", self.name)
    }
}

/// The kind of a backup file, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupKind {
    /// A database alone.
    Database,
    /// An archive.
    Archive,
    /// An encrypted archive.
    Encrypted,
}

impl BackupKind {
    /// The kind of `file`; `None` if it is no backup.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        const USTAR: (usize, &[u8]) = (257, b"ustar");
        let mut head = [0; 512];
        let mut length = 0;
        while let Some(rest) = head.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, u64::try_from(length).unwrap_or(u64::MAX))? {
                0 => break,
                count => length += count,
            }
        }
        let ustar = head.get(USTAR.0..).unwrap_or_default();
        Ok(if head.starts_with(b"SQLite format 3\0") {
            Some(Self::Database)
        } else if head.starts_with(age::MAGIC) {
            Some(Self::Encrypted)
        } else if ustar.starts_with(USTAR.1) {
            Some(Self::Archive)
        } else {
            None
        })
    }
}

impl Manifest {
    /// Whether the archive has a file of this folder of the data folder: `tls` or `signing`.
    pub fn has(&self, folder: &str) -> bool {
        let mut names = self.files.iter().map(|file| Path::new(&file.name));
        names.any(|name| name.starts_with(folder) && name != Path::new(folder))
    }
}

/// What an archive is made of.
pub struct ArchiveContents<'a> {
    /// A copy of the database.
    pub database: &'a File,
    /// Its schema version.
    pub schema: u32,
    /// The other files.
    pub others: &'a [SmallFile],
    /// When the copy was made, in RFC 3339.
    pub created_at: String,
}

/// Rejects files that an archive may not contain. An archive with them could not be restored.
///
/// # Errors
/// [`Error::State`] if there are too many, or if one is too large or has a name that is not allowed.
pub fn check_files(files: &[SmallFile]) -> Result<()> {
    // One entry is the database.
    if files.len() >= FILES_MAX {
        return Err(Error::State(format!(
            "the folders {} in the data folder have {} files, and a backup may have {}: move those that you put there \
             elsewhere",
            FOLDERS.join(" and "),
            files.len(),
            FILES_MAX - 1
        )));
    }
    let is_refused =
        |file: &&SmallFile| !is_allowed(&file.name) || file.bytes.len() as u64 > SMALL_MAX;
    match files.iter().find(is_refused) {
        None => Ok(()),
        Some(SmallFile { name, .. }) => Err(Error::State(format!(
            "{name} in the data folder is too large or has a name that is not allowed in a backup: move it elsewhere"
        ))),
    }
}

/// Writes an archive; returns its list.
///
/// # Errors
/// If the output cannot be written, or a file cannot be read.
pub fn write(out: &mut impl Write, contents: &ArchiveContents<'_>) -> Result<Manifest> {
    let database = contents.database;
    let length = database.metadata().doing("measure the copy")?.len();
    let mut files = vec![ArchiveEntry {
        name: DATABASE.to_owned(),
        bytes: length,
        sha256: digest(&mut FromStart::start(database), &mut io::sink()).doing("read the copy")?,
    }];
    check_files(contents.others)?;
    for other in contents.others {
        files.push(ArchiveEntry {
            name: other.name.clone(),
            bytes: other.bytes.len() as u64,
            sha256: digest(&mut &other.bytes[..], &mut io::sink()).doing("read a key")?,
        });
    }
    let manifest = Manifest {
        format: FORMAT,
        product: PRODUCT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: contents.schema,
        created_at: contents.created_at.clone(),
        files,
    };
    let list = serde_json::to_vec_pretty(&manifest).doing("write the list of an archive")?;
    let written = write_entries(out, &list, contents, length);
    written.doing("write an archive")?;
    Ok(manifest)
}

/// `length` is that of the database.
fn write_entries(
    out: &mut impl Write,
    list: &[u8],
    contents: &ArchiveContents<'_>,
    length: u64,
) -> io::Result<()> {
    let mut tar = Builder::new(out);
    append(&mut tar, MANIFEST, list.len() as u64, list)?;
    append(
        &mut tar,
        DATABASE,
        length,
        FromStart::start(contents.database),
    )?;
    for other in contents.others {
        append(
            &mut tar,
            &other.name,
            other.bytes.len() as u64,
            &other.bytes[..],
        )?;
    }
    tar.into_inner()?.flush()
}

fn append(
    tar: &mut Builder<impl Write>,
    name: &str,
    bytes: u64,
    from: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    tar.append(&header, from.take(bytes))
}

/// Reads a file from its start, independent of the file's own position, which other readers share.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> FromStart<'a> {
    fn start(file: &'a File) -> Self {
        Self { file, at: 0 }
    }
}

impl Read for FromStart<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Copies everything, and returns its SHA-256 in hexadecimal.
fn digest(from: &mut impl Read, to: &mut impl Write) -> io::Result<String> {
    let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; 64 * 1024]);
    loop {
        let count = from.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            return Ok(hex(context.finish().as_ref()));
        };
        context.update(read);
        to.write_all(read)?;
    }
}

/// Unpacks an archive into the empty folder `into`: only the files that its list names, with the sizes that it
/// gives; no links, and nothing outside of the allowed folders. `database_max` is the maximum size of the
/// database, in bytes.
///
/// # Errors
/// [`Error::State`] if it is no archive or is incomplete; some files may be unpacked then.
pub fn unpack(input: impl Read, into: &Path, database_max: u64) -> Result<Manifest> {
    let mut archive = Archive::new(input);
    let manifest = {
        let entries = archive.entries().map_err(damaged)?;
        // Raw entries: extensions of names and headers may be of any size, and our archives have none.
        let mut entries = entries.raw(true);
        let first = entries.next().ok_or_else(|| refusal("it is empty"))?;
        let manifest = list(first.map_err(damaged)?)?;
        let mut left = expected(&manifest, database_max)?;
        for entry in entries {
            let mut entry = entry.map_err(damaged)?;
            let name = name_of(&entry)?;
            let listed = left
                .remove(name.as_str())
                .ok_or_else(|| refusal(format!("its list does not name {name}")))?;
            take(&mut entry, listed, into)?;
        }
        if let Some(name) = left.into_keys().next() {
            return Err(refusal(format!("it lacks {name}")));
        }
        manifest
    };
    // Read to the very end: only there does an encrypted archive prove that it is complete.
    let mut rest = archive.into_inner().take(PADDING_MAX + 1);
    let padding = io::copy(&mut rest, &mut io::sink()).map_err(damaged)?;
    if padding > PADDING_MAX {
        return Err(refusal("something else follows after its end"));
    }
    Ok(manifest)
}

fn list(entry: Entry<'_, impl Read>) -> Result<Manifest> {
    if name_of(&entry)? != MANIFEST || entry.size() > SMALL_MAX {
        return Err(refusal("it does not begin with a list of its files"));
    }
    let mut text = Vec::new();
    entry
        .take(SMALL_MAX)
        .read_to_end(&mut text)
        .map_err(damaged)?;
    // Product and format first: the list of a later format may have other members.
    let form: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
    if form.get("product").and_then(|name| name.as_str()) != Some(PRODUCT) {
        return Err(refusal(format!("it is not an archive of {PRODUCT}")));
    }
    match form.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {
            serde_json::from_value(form).map_err(damaged)
        }
        _ => Err(refusal(
            "it has a format that this program does not support: use the newer license-server that wrote it",
        )),
    }
}

/// The entries of a list by name, after checking that each may be unpacked.
fn expected(manifest: &Manifest, database_max: u64) -> Result<BTreeMap<&str, &ArchiveEntry>> {
    if manifest.files.len() > FILES_MAX {
        return Err(refusal("its list is too long"));
    }
    let mut named = BTreeMap::new();
    for listed in &manifest.files {
        let (name, bytes) = (listed.name.as_str(), listed.bytes);
        let database = name == DATABASE;
        if !database && !is_allowed(name) {
            return Err(refusal(format!("{name:?} is not an allowed name")));
        }
        if !database && bytes > SMALL_MAX {
            return Err(refusal(format!("{name} is too large")));
        }
        if database && bytes > database_max {
            return Err(Error::State(format!(
                "there is no space for its database of {} MiB: free some in the data folder",
                bytes.div_ceil(1024 * 1024)
            )));
        }
        if named.insert(name, listed).is_some() {
            return Err(refusal(format!("{name} is in it twice")));
        }
    }
    if named.contains_key(DATABASE) {
        Ok(named)
    } else {
        Err(refusal("it contains no database"))
    }
}

/// Whether this is the name of a file in one of [`FOLDERS`]: a few plain parts, none of them hidden.
fn is_allowed(name: &str) -> bool {
    let plain = |part: &str| {
        let first = part.chars().next();
        first.is_some_and(|c| c != '.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            && part.len() <= 90
    };
    let parts: Vec<&str> = name.split('/').collect();
    let ours = parts.first().is_some_and(|first| FOLDERS.contains(first));
    ours && (2..=4).contains(&parts.len()) && name.len() <= 180 && parts.into_iter().all(plain)
}

fn name_of(entry: &Entry<'_, impl Read>) -> Result<String> {
    let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else {
        return Err(refusal("a name in it is not UTF-8"));
    };
    // Only regular files: a link could lead to any other file.
    if entry.header().entry_type() == EntryType::Regular {
        Ok(name)
    } else {
        Err(refusal(format!("{name:?} in it is not a regular file")))
    }
}

fn take(entry: &mut Entry<'_, impl Read>, listed: &ArchiveEntry, into: &Path) -> Result<()> {
    let path = into.join(&listed.name);
    let inside = path.strip_prefix(into).is_ok_and(|path| {
        path.components()
            .all(|part| matches!(part, Component::Normal(_)))
    });
    if !inside || entry.size() != listed.bytes {
        return Err(refusal(format!("{} differs from its list", listed.name)));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).doing("unpack an archive")?;
    }
    let mut file = File::create_new(&path).doing("unpack an archive")?;
    // Other kinds of errors are failures of the disk, such as missing space, and not of the archive.
    let found = digest(entry, &mut file).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
            damaged(error)
        }
        _ => Error::State(format!("it cannot be unpacked: {error}")),
    })?;
    file.sync_all().doing("unpack an archive")?;
    if found != listed.sha256 {
        return Err(refusal(format!("{} differs from its list", listed.name)));
    }
    Ok(())
}

fn refusal(reason: impl Into<String>) -> Error {
    Error::State(reason.into())
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::State(format!("it is damaged: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = "2026-11-22T14:05:31Z";

    fn small(name: &str) -> SmallFile {
        let (name, bytes) = (name.to_owned(), name.as_bytes().to_vec());
        SmallFile { name, bytes }
    }

    fn database() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 200_000]).unwrap();
        file
    }

    fn archive() -> (Vec<u8>, Manifest) {
        let (mut out, others) = (
            Vec::new(),
            [small("tls/ca.pem"), small("tls/acme/state.json")],
        );
        let contents = ArchiveContents {
            database: &database(),
            schema: 5,
            others: &others,
            created_at: CREATED.to_owned(),
        };
        let manifest = write(&mut out, &contents).unwrap();
        (out, manifest)
    }

    /// The error for an archive that must be refused.
    fn refusal_of(archive: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let result = unpack(archive, &dir.path().join("in"), 1_000_000);
        assert!(fs::read_dir(dir.path()).unwrap().count() <= 1, "outside");
        result.unwrap_err().to_string()
    }

    /// An archive with any entries and any list.
    fn forged(list: &[(&str, &[u8])], entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let files = list.iter().map(|(name, bytes)| ArchiveEntry {
            name: (*name).to_owned(),
            bytes: bytes.len() as u64,
            sha256: hex(ring::digest::digest(&SHA256, bytes).as_ref()),
        });
        let manifest = Manifest {
            files: files.collect(),
            ..archive().1
        };
        let text = serde_json::to_vec(&manifest).unwrap();
        let mut tar = Builder::new(Vec::new());
        let first = [(MANIFEST, EntryType::Regular, &text[..])];
        for (name, kind, bytes) in first.iter().chain(entries) {
            let mut header = Header::new_ustar();
            // Unlike a proper program: sets the name unchecked.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_entry_type(*kind);
            header.set_link_name("/etc/passwd").unwrap();
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn an_archive_is_unpacked_as_it_was_packed() {
        let (bytes, manifest) = archive();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unpack(&bytes[..], dir.path(), 200_000).unwrap(), manifest);
        let unpacked = |name: &str| fs::read(dir.path().join(name)).unwrap();
        assert_eq!(unpacked(DATABASE), vec![7; 200_000]);
        assert_eq!(unpacked("tls/acme/state.json"), b"tls/acme/state.json");
        assert!(manifest.has("tls") && !manifest.has("signing"));
        let too_large = unpack(&bytes[..], &dir.path().join("x"), 199_999);
        assert!(too_large.unwrap_err().to_string().contains("no space"));
    }

    #[test]
    fn an_archive_that_is_not_what_its_list_says_is_refused() {
        use EntryType::{Directory, GNULongName, Link, Regular, Symlink};
        type Entry<'a> = (&'a str, EntryType, &'a [u8]);
        let db: (&str, &[u8]) = (DATABASE, b"db");
        let is = |bytes| -> Entry<'_> { (DATABASE, Regular, bytes) };
        let (entry, key): (Entry<'_>, Entry<'_>) = (is(b"db"), ("tls/a", Regular, b"x"));
        let mut cases = vec![
            (vec![db], vec![is(b"dc")], "differs from its list"),
            (vec![db], vec![is(b"long")], "differs from its list"),
            (vec![db], vec![], "lacks"),
            (vec![("tls/a", &b"x"[..])], vec![key], "no database"),
            (vec![db], vec![entry, key], "does not name"),
            (vec![db], vec![entry, entry], "does not name"),
            (vec![db, db], vec![entry, entry], "twice"),
        ];
        for kind in [Symlink, Link, Directory] {
            let list = vec![db, ("tls/a", &b""[..])];
            cases.push((
                list,
                vec![entry, ("tls/a", kind, b"")],
                "not a regular file",
            ));
        }
        let long = ("tls/a", GNULongName, &b"x"[..]);
        cases.push((vec![db], vec![entry, long], "not a regular file"));
        for name in ["../a", "/etc/a", "tls/../../a", "tls/.a", "tls", "other/a"] {
            let list = vec![db, (name, &b"x"[..])];
            cases.push((
                list,
                vec![entry, (name, Regular, b"x")],
                "not an allowed name",
            ));
        }
        for (list, entries, expected) in cases {
            let reason = refusal_of(&forged(&list, &entries));
            assert!(reason.contains(expected), "{list:?} {entries:?}: {reason}");
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_or_altered_anywhere_is_refused() {
        let (bytes, _) = archive();
        for length in [0, 100, 512, 5000, 100_000, bytes.len() - 1600] {
            refusal_of(&bytes[..length]);
        }
        for at in [600, 50_000, bytes.len() - 1700] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            refusal_of(&bytes);
        }
        let mut newer = bytes.clone();
        let at = newer
            .windows(11)
            .position(|w| w == b"\"format\": 1")
            .unwrap();
        newer[at + 10] = b'9';
        assert!(refusal_of(&newer).contains("newer"));
        let more = [&bytes[..], &vec![1; 2_000_000]].concat();
        assert!(refusal_of(&more).contains("after its end"));
    }

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        let of = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            BackupKind::of(&file).unwrap()
        };
        assert_eq!(of(&archive().0), Some(BackupKind::Archive));
        assert_eq!(of(b"SQLite format 3\0..."), Some(BackupKind::Database));
        assert_eq!(
            of(b"age-encryption.org/v1\n-> "),
            Some(BackupKind::Encrypted)
        );
        for other in [&b""[..], b"SQLite", b"PK\x03\x04", &[0; 600]] {
            assert_eq!(of(other), None);
        }
    }
}
