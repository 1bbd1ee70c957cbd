//! One file with everything that must be kept: a tar archive, perhaps encrypted. Its first entry is a list of the
//! others with their checksums; an archive is what its list says, or it is refused. Knows nothing of licenses.

pub mod age;

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

/// The entry that is the database.
pub const DATABASE: &str = "database.sqlite3";
/// Folders whose files are entries, under the names that they have in the data folder.
pub const FOLDERS: [&str; 2] = ["tls", "signing"];
const MANIFEST: &str = "manifest.json";
/// The form of the archives that this program writes.
const FORMAT: u32 = 1;
const PRODUCT: &str = "license-server";
/// The largest list, and the largest file beside the database.
const SMALL_MAX: u64 = 1024 * 1024;
/// Files in an archive; more than there can be.
const FILES_MAX: usize = 1000;
/// What may follow after the last entry: tar pads, and some programs pad a lot.
const PADDING_MAX: u64 = 1024 * 1024;

/// What an archive says of itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Manifest {
    format: u32,
    product: String,
    /// The version of the program that wrote it.
    pub version: String,
    /// The schema of its database.
    pub schema: u32,
    /// When it was made, in RFC 3339.
    pub created_at: String,
    /// What is in it, in this order.
    pub files: Vec<Listed>,
}

/// An entry of an archive.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its path from the data folder; [`DATABASE`] for the database.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    sha256: String,
}

/// A file beside the database, held in memory: keys and certificates are small.
#[derive(Clone, PartialEq, Eq)]
pub struct Small {
    /// Its path from the data folder.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Small {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Small({:?})", self.name)
    }
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A database and nothing else.
    Database,
    /// An archive.
    Archive,
    /// An encrypted archive.
    Sealed,
}

impl Form {
    /// What `file` is; none where it is no backup.
    ///
    /// # Errors
    /// When it cannot be read.
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
            Some(Self::Sealed)
        } else if ustar.starts_with(USTAR.1) {
            Some(Self::Archive)
        } else {
            None
        })
    }
}

impl Manifest {
    /// Whether a file in this folder of the data folder, `tls` or `signing`, is in the archive.
    pub fn has(&self, folder: &str) -> bool {
        let mut names = self.files.iter().map(|file| Path::new(&file.name));
        names.any(|name| name.starts_with(folder) && name != Path::new(folder))
    }
}

/// Writes an archive of `database` and `others`; what it says of itself.
///
/// # Errors
/// When the output does not take it, or a file cannot be read.
pub fn write(
    out: &mut impl Write,
    database: &File,
    schema: u32,
    others: &[Small],
    created_at: String,
) -> Result<Manifest> {
    let length = database.metadata().doing("measure the copy")?.len();
    let mut files = vec![Listed {
        name: DATABASE.to_owned(),
        bytes: length,
        sha256: digest(&mut At::start(database), &mut io::sink()).doing("read the copy")?,
    }];
    for other in others {
        if !fits(&other.name) || other.bytes.len() as u64 > SMALL_MAX {
            let name = &other.name;
            return Err(Error::State(format!(
                "{name} in the data folder is too large or has a name that an archive cannot have: move it elsewhere"
            )));
        }
        files.push(Listed {
            name: other.name.clone(),
            bytes: other.bytes.len() as u64,
            sha256: digest(&mut &other.bytes[..], &mut io::sink()).doing("read a key")?,
        });
    }
    let manifest = Manifest {
        format: FORMAT,
        product: PRODUCT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema,
        created_at,
        files,
    };
    let list = serde_json::to_vec_pretty(&manifest).doing("write the list of an archive")?;
    let written = entries(out, &list, database, length, others);
    written.doing("write an archive")?;
    Ok(manifest)
}

fn entries(
    out: &mut impl Write,
    list: &[u8],
    database: &File,
    length: u64,
    others: &[Small],
) -> io::Result<()> {
    let mut tar = Builder::new(out);
    append(&mut tar, MANIFEST, list.len() as u64, list)?;
    append(&mut tar, DATABASE, length, At::start(database))?;
    for other in others {
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

/// Reads a file from its start, wherever others are in it.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> At<'a> {
    fn start(file: &'a File) -> Self {
        Self { file, at: 0 }
    }
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Copies everything, and gives its SHA-256.
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

/// Unpacks an archive into the empty folder `into`, and nothing that its list does not name: neither links nor folders
/// of others, and not a byte more than the list says. `database_max` is the largest database there is room for.
///
/// # Errors
/// [`Error::State`] for what is no archive, or none that is whole; some of it may be unpacked then.
pub fn unpack(input: impl Read, into: &Path, database_max: u64) -> Result<Manifest> {
    let mut archive = Archive::new(input);
    let manifest = {
        let entries = archive.entries().map_err(damaged)?;
        // Raw: what extends a name or a header may be of any length, and none of ours has any.
        let mut entries = entries.raw(true);
        let first = entries.next().ok_or_else(|| refused("it is empty"))?;
        let manifest = list(first.map_err(damaged)?)?;
        let mut left = expected(&manifest, database_max)?;
        for entry in entries {
            let mut entry = entry.map_err(damaged)?;
            let name = name_of(&entry)?;
            let listed = left
                .remove(name.as_str())
                .ok_or_else(|| refused(format!("its list does not name {name}")))?;
            take(&mut entry, listed, into)?;
        }
        if let Some(name) = left.into_keys().next() {
            return Err(refused(format!("{name} is missing in it")));
        }
        manifest
    };
    // To the very end: only there does an encrypted one show that nothing was cut off.
    let mut rest = archive.into_inner().take(PADDING_MAX + 1);
    let padding = io::copy(&mut rest, &mut io::sink()).map_err(damaged)?;
    if padding > PADDING_MAX {
        return Err(refused("something else follows after its end"));
    }
    Ok(manifest)
}

fn list(entry: Entry<'_, impl Read>) -> Result<Manifest> {
    if name_of(&entry)? != MANIFEST || entry.size() > SMALL_MAX {
        return Err(refused("it does not begin with a list of what is in it"));
    }
    let mut text = Vec::new();
    entry
        .take(SMALL_MAX)
        .read_to_end(&mut text)
        .map_err(damaged)?;
    // The form first: what a later one lists may be listed otherwise.
    let form: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
    if form.get("product").and_then(|name| name.as_str()) != Some(PRODUCT) {
        return Err(refused(format!("it is none of {PRODUCT}")));
    }
    match form.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {
            serde_json::from_value(form).map_err(damaged)
        }
        _ => Err(refused(
            "it is of a form that this program does not know: use the newer license-server that wrote it",
        )),
    }
}

/// The entries of a list by name, each checked to be one that may be unpacked.
fn expected(manifest: &Manifest, database_max: u64) -> Result<BTreeMap<&str, &Listed>> {
    if manifest.files.len() > FILES_MAX {
        return Err(refused("its list is too long"));
    }
    let mut named = BTreeMap::new();
    for listed in &manifest.files {
        let (name, bytes) = (listed.name.as_str(), listed.bytes);
        let database = name == DATABASE;
        if !database && !fits(name) {
            return Err(refused(format!(
                "{name:?} is no name that it may have in it"
            )));
        }
        if !database && bytes > SMALL_MAX {
            return Err(refused(format!("{name} is too large")));
        }
        if database && bytes > database_max {
            return Err(Error::State(format!(
                "there is no room for its database of {} MiB: make room in the data folder",
                bytes.div_ceil(1024 * 1024)
            )));
        }
        if named.insert(name, listed).is_some() {
            return Err(refused(format!("{name} is in it twice")));
        }
    }
    if named.contains_key(DATABASE) {
        Ok(named)
    } else {
        Err(refused("there is no database in it"))
    }
}

/// Whether this is the name of a file in one of our folders: a few plain parts, none of them hidden.
fn fits(name: &str) -> bool {
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
        return Err(refused("a name in it is no text"));
    };
    // By what it is: a file with bytes of its own, never a link to somebody else's.
    if entry.header().entry_type() == EntryType::Regular {
        Ok(name)
    } else {
        Err(refused(format!("{name:?} in it is no regular file")))
    }
}

fn take(entry: &mut Entry<'_, impl Read>, listed: &Listed, into: &Path) -> Result<()> {
    let path = into.join(&listed.name);
    let inside = path.strip_prefix(into).is_ok_and(|path| {
        path.components()
            .all(|part| matches!(part, Component::Normal(_)))
    });
    if !inside || entry.size() != listed.bytes {
        return Err(refused(format!("{} is not as its list says", listed.name)));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).doing("unpack an archive")?;
    }
    let mut file = File::create_new(&path).doing("unpack an archive")?;
    // A failure of the disk, not of the archive, where there is no room.
    let found = digest(entry, &mut file).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
            damaged(error)
        }
        _ => Error::State(format!("it cannot be unpacked: {error}")),
    })?;
    file.sync_all().doing("unpack an archive")?;
    if found != listed.sha256 {
        return Err(refused(format!("{} is not as its list says", listed.name)));
    }
    Ok(())
}

fn refused(told: impl Into<String>) -> Error {
    Error::State(told.into())
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::State(format!("it is damaged: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = "2026-11-22T14:05:31Z";

    fn small(name: &str) -> Small {
        let (name, bytes) = (name.to_owned(), name.as_bytes().to_vec());
        Small { name, bytes }
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
        let manifest = write(&mut out, &database(), 5, &others, CREATED.to_owned()).unwrap();
        (out, manifest)
    }

    /// What is said of an archive that is refused.
    fn told(archive: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let told = unpack(archive, &dir.path().join("in"), 1_000_000);
        assert!(fs::read_dir(dir.path()).unwrap().count() <= 1, "outside");
        told.unwrap_err().to_string()
    }

    /// An archive of any entries, with a list that says what they are.
    fn forged(list: &[(&str, &[u8])], entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let files = list.iter().map(|(name, bytes)| Listed {
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
            // As no honest program does it: the name as it is.
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
        let no_room = unpack(&bytes[..], &dir.path().join("x"), 199_999);
        assert!(no_room.unwrap_err().to_string().contains("no room"));
    }

    #[test]
    fn an_archive_that_is_not_what_its_list_says_is_refused() {
        use EntryType::{Directory, GNULongName, Link, Regular, Symlink};
        type Entry<'a> = (&'a str, EntryType, &'a [u8]);
        let db: (&str, &[u8]) = (DATABASE, b"db");
        let is = |bytes| -> Entry<'_> { (DATABASE, Regular, bytes) };
        let (entry, key): (Entry<'_>, Entry<'_>) = (is(b"db"), ("tls/a", Regular, b"x"));
        let mut cases = vec![
            (vec![db], vec![is(b"dc")], "not as its list says"),
            (vec![db], vec![is(b"long")], "not as its list says"),
            (vec![db], vec![], "is missing"),
            (vec![("tls/a", &b"x"[..])], vec![key], "no database"),
            (vec![db], vec![entry, key], "does not name"),
            (vec![db], vec![entry, entry], "does not name"),
            (vec![db, db], vec![entry, entry], "twice"),
        ];
        for kind in [Symlink, Link, Directory] {
            let list = vec![db, ("tls/a", &b""[..])];
            cases.push((list, vec![entry, ("tls/a", kind, b"")], "no regular file"));
        }
        let long = ("tls/a", GNULongName, &b"x"[..]);
        cases.push((vec![db], vec![entry, long], "no regular file"));
        for name in ["../a", "/etc/a", "tls/../../a", "tls/.a", "tls", "other/a"] {
            let list = vec![db, (name, &b"x"[..])];
            cases.push((list, vec![entry, (name, Regular, b"x")], "no name"));
        }
        for (list, entries, expected) in cases {
            let told = told(&forged(&list, &entries));
            assert!(told.contains(expected), "{list:?} {entries:?}: {told}");
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_or_altered_anywhere_is_refused() {
        let (bytes, _) = archive();
        for length in [0, 100, 512, 5000, 100_000, bytes.len() - 1600] {
            told(&bytes[..length]);
        }
        for at in [600, 50_000, bytes.len() - 1700] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            told(&bytes);
        }
        let mut newer = bytes.clone();
        let at = newer
            .windows(11)
            .position(|w| w == b"\"format\": 1")
            .unwrap();
        newer[at + 10] = b'9';
        assert!(told(&newer).contains("newer"));
        let more = [&bytes[..], &vec![1; 2_000_000]].concat();
        assert!(told(&more).contains("after its end"));
    }

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        let of = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            Form::of(&file).unwrap()
        };
        assert_eq!(of(&archive().0), Some(Form::Archive));
        assert_eq!(of(b"SQLite format 3\0..."), Some(Form::Database));
        assert_eq!(of(b"age-encryption.org/v1\n-> "), Some(Form::Sealed));
        for other in [&b""[..], b"SQLite", b"PK\x03\x04", &[0; 600]] {
            assert_eq!(of(other), None);
        }
    }
}
