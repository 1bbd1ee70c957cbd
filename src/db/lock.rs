//! One server a file: a lock beside it, held for life. It also remembers that there was a file, so that
//! an empty one is never made where a full one is missing.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::place::{Identity, Parts};
use super::presence;
use crate::clock::{Boot, UnixMs};
use crate::error::{Doing, Error, Result};

const MADE: &str = "made";
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
/// Words before the identities of the server's files, and before the latest date that it acknowledged.
const PART: [&str; 4] = ["file=", "wal=", "shm=", "lock="];
const SEEN: &str = "seen=";
/// And before the boot of the machine in which its clock was last believed.
const BOOT: &str = "boot=";
const EARLIER: &str = "earlier";
/// The length of what is written: always the same, so that one write replaces all of it.
const NOTE_LEN: usize = 500;
/// How often, and how long each time, a taken lock is looked at again.
const GLANCES: u32 = 10;
const GLANCE: Duration = Duration::from_millis(20);

/// The lock of a database file; free again when this is dropped, or when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    own: Identity,
    _file: File,
    served: Mutex<Option<Served>>,
    name: PathBuf,
    before: Before,
    note: Mutex<Note>,
    /// Whether what another process wrote stands in it, since the disk took nothing.
    stale: AtomicBool,
}

/// What stands in a lock file beside the process that has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Note {
    /// True once a database was made beside it.
    made: bool,
    /// The files that the process has open.
    parts: Parts,
    /// Whether they are those of the process before, and this one has none open yet.
    earlier: bool,
    /// The latest date that the database was told, as far as that was noted; 0 for none.
    seen: UnixMs,
    /// The boot in which the machine's clock was last believed.
    boot: Option<Boot>,
}

impl Note {
    /// Reads the words after the first; what is not known is passed over.
    fn parse(text: &str) -> Self {
        let mut note = Self::default();
        for word in text.split_whitespace().skip(1) {
            note.made |= word == MADE;
            note.earlier |= word == EARLIER;
            for (part, name) in note.parts.iter_mut().zip(PART) {
                if let Some(identity) = word.strip_prefix(name) {
                    *part = Identity::parse(identity);
                }
            }
            if let Some(seen) = word.strip_prefix(SEEN) {
                note.seen = UnixMs(seen.parse().unwrap_or(0));
            }
            if let Some(boot) = word.strip_prefix(BOOT) {
                note.boot = Boot::parse(boot);
            }
        }
        note
    }

    fn line(&self) -> String {
        let mut words = vec![std::process::id().to_string()];
        if self.made {
            words.push(MADE.to_owned());
        }
        for (part, name) in self.parts.iter().zip(PART) {
            words.extend(part.map(|part| format!("{name}{part}")));
        }
        if self.earlier {
            words.push(EARLIER.to_owned());
        }
        words.push(format!("{SEEN}{}", self.seen.0));
        words.extend(self.boot.map(|boot| format!("{BOOT}{boot}")));
        let line = words.join(" ");
        format!("{line:NOTE_LEN$}\n")
    }
}

/// The server that has a database.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) pid: String,
    /// The files that it has open.
    pub(super) parts: Parts,
}

/// What the process before has left word of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// Its files; none known where the lock file is a copy of its own, since then the others are copies too.
    pub(super) parts: Parts,
    /// The latest date that the database was told, as far as that was noted; 0 for none.
    pub(super) seen: UnixMs,
}

impl Before {
    /// Of the database at `path`.
    ///
    /// # Errors
    /// When the lock file cannot be read.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut text = String::new();
        match File::open(beside(path, ".lock")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            file => {
                let mut file = file.doing("open the lock file")?;
                let data = file.metadata().doing("look at the lock file")?;
                file.read_to_string(&mut text).doing("read the lock file")?;
                Ok(Self::of(&Note::parse(&text), Identity::from(&data)))
            }
        }
    }

    fn of(note: &Note, own: Identity) -> Self {
        let [.., lock] = note.parts;
        let of_this_folder = lock.is_some_and(|lock| own.continues(lock));
        Self {
            parts: if of_this_folder {
                note.parts
            } else {
                Parts::default()
            },
            seen: note.seen,
        }
    }
}

impl Holder {
    /// Of the database at `path`; none where no server has it.
    ///
    /// # Errors
    /// When the lock cannot be asked.
    pub(super) fn of(path: &Path) -> Result<Option<Self>> {
        if !is_locked(path)? {
            return Ok(presence::find(path));
        }
        let text = std::fs::read_to_string(beside(path, ".lock")).doing("read the lock file")?;
        let pid = text.split_whitespace().next().unwrap_or("unknown");
        // On a disk that takes nothing, what an earlier process wrote still stands there.
        let runs = Path::new("/proc").join(pid).exists();
        let note = Note::parse(&text);
        let open = runs && !note.earlier;
        Ok(Some(Self {
            pid: pid.to_owned(),
            parts: if open { note.parts } else { Parts::default() },
        }))
    }
}

/// `name` with `suffix` after it, in the same folder.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The file that a path means: its folder and the file itself may be links, but the lock beside it must
/// be the same whichever way one comes.
///
/// # Errors
/// When a part of the path cannot be read.
pub(super) fn resolved(path: &Path) -> Result<PathBuf> {
    let target = match std::fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        found => Some(found.doing("find the database file")?),
    };
    if let Some(target) = target {
        return Ok(target);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let (Some(folder), Some(name)) = (folder, path.file_name()) else {
        return Ok(path.to_owned());
    };
    match std::fs::canonicalize(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(path.to_owned()),
        found => Ok(found.doing("find the data folder")?.join(name)),
    }
}

/// What a file that a restore has replaced is called, before the moment.
pub(super) const KEPT: &str = ".before-restore-";
/// `LicS` in SQLite's header: the file is one of ours.
pub(super) const APPLICATION_ID: i32 = 0x4c69_6353;

/// Whether a database of ours may be at `path`: it is there, or there is nothing. Looked at before anything is made
/// beside it.
///
/// # Errors
/// [`Error::State`] for a device, a folder, a pipe, somebody else's file, or a database with a second name.
pub(super) fn check_place(path: &Path) -> Result<()> {
    let name = path.display();
    let data = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        data => data.doing("look at the database file")?,
    };
    if !data.is_file() {
        let what = kind_of(&data);
        return Err(Error::State(format!(
            "{name} is {what}: let [database] path name a file"
        )));
    }
    // Where there has been one of ours, it is damaged, and what opens it says so.
    if data.len() > 0 && !beside(path, ".lock").exists() && !is_ours(path)? {
        return Err(Error::State(format!(
            "{name} is a file, but no database of license-server: let [database] path name another one"
        )));
    }
    let names = data
        .nlink()
        .saturating_sub(unfinished(path, &data)?.len() as u64);
    if names > 1 {
        return Err(Error::State(format!(
            "{name} has {names} names (hard links), and by each of them another server could write into it: leave it \
             one; `find / -samefile {name}` lists them"
        )));
    }
    Ok(())
}

/// What a file is that is no regular file, with its article.
pub fn kind_of(data: &Metadata) -> &'static str {
    let kind = data.file_type();
    if kind.is_symlink() {
        "a link"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Whether a file begins as a database of ours. Read without SQLite, which might make files beside it.
fn is_ours(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    let file = File::open(path).doing("look into the database file")?;
    file.take(72)
        .read_to_end(&mut head)
        .doing("look into the database file")?;
    let id = APPLICATION_ID.to_be_bytes();
    Ok(head.starts_with(b"SQLite format 3\0") && head.get(68..72) == Some(&id[..]))
}

/// Names under which a restore that broke off has kept the very file that is at `path`.
fn unfinished(path: &Path, data: &Metadata) -> Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    if data.nlink() == 1 {
        return Ok(Vec::new());
    }
    let mut prefix = name.to_owned();
    prefix.push(KEPT);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).doing("look into the data folder")? {
        let entry = entry.doing("look into the data folder")?;
        let kept = entry.file_name();
        let named = kept
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        if named {
            let other = entry.metadata().doing("look at a file that was kept")?;
            if (other.dev(), other.ino()) == (data.dev(), data.ino()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Takes the second name from a database that a restore was about to replace when it broke off: it was not replaced.
/// For whoever holds the lock.
///
/// # Errors
/// When the folder cannot be changed.
pub(super) fn forget_unfinished(path: &Path) -> Result<()> {
    let data = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        data => data.doing("look at the database file")?,
    };
    for name in unfinished(path, &data)? {
        log::info!(
            "a restore broke off before it replaced the database: {} is no old one",
            name.display()
        );
        std::fs::remove_file(name).doing("take a second name from the database")?;
    }
    Ok(())
}

/// The boot in which the machine's clock was last believed by a server of the database at `path`.
///
/// # Errors
/// When the lock file cannot be read.
pub(super) fn believed_boot(path: &Path) -> Result<Option<Boot>> {
    match std::fs::read_to_string(beside(path, ".lock")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => Ok(Note::parse(&text.doing("read the lock file")?).boot),
    }
}

/// Whether a server has the database, also where its lock is gone.
///
/// # Errors
/// When the lock cannot be asked.
pub(super) fn is_taken(path: &Path) -> Result<bool> {
    Ok(is_locked(path)? || presence::find(path).is_some())
}

fn is_locked(path: &Path) -> Result<bool> {
    let file = match File::open(beside(path, ".lock")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened.doing("open the lock file")?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error).doing("ask the lock of the database"),
    }
}

/// Commands hold this together, as long as they work on the file; a restore holds it alone.
#[derive(Debug)]
pub(super) struct Users {
    /// None where none could be made: on a disk that takes nothing.
    _file: Option<File>,
}

impl Users {
    /// Works on the file beside others.
    ///
    /// # Errors
    /// [`Error::State`] while it is being restored.
    pub(super) fn join(path: &Path) -> Result<Self> {
        let Some(file) = Self::open(path)? else {
            return Ok(Self { _file: None });
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(Error::State(format!(
                "{} is being restored: try again when that is done",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error).doing("join the users of the database"),
        }
    }

    /// Works on the file alone.
    ///
    /// # Errors
    /// [`Error::State`] while a command works on it.
    pub(super) fn alone(path: &Path) -> Result<Self> {
        let Some(file) = Self::open(path)? else {
            return Err(Error::Unavailable {
                reason: "the data folder takes no file".to_owned(),
            });
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(Error::State(format!(
                "a command works on {}: let it finish first",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error).doing("have the database alone"),
        }
    }

    fn open(path: &Path) -> Result<Option<File>> {
        match open(&beside(path, ".users")) {
            Ok(file) => Ok(Some(file)),
            Err(error) if takes_nothing(&error) => Ok(None),
            Err(error) => Err(unopened(&beside(path, ".users"), error)),
        }
    }
}

/// Opens a file, and makes it where it is missing. On a disk that takes nothing, one that is there is only read,
/// which is enough to lock it.
fn open(name: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // What is written here must not be written into the file that a link leads to.
    options.custom_flags(NOFOLLOW);
    match options.open(name) {
        Err(error) if takes_nothing(&error) => OpenOptions::new()
            .read(true)
            .custom_flags(NOFOLLOW)
            .open(name)
            .or(Err(error)),
        opened => opened,
    }
}

fn takes_nothing(error: &std::io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
    )
}

fn unopened(name: &Path, error: std::io::Error) -> Error {
    let told = name.display();
    if name.is_symlink() {
        return Error::State(format!("{told} is a link: remove it"));
    }
    if error.kind() == ErrorKind::PermissionDenied {
        return Error::State(format!(
            "{told} may not be opened by this user ({error}): run this as the user to whom the data folder belongs"
        ));
    }
    Error::Internal {
        doing: "open the lock file",
        source: error.into(),
    }
}

/// Looks for a server whose lock is gone, with its folder or alone.
fn refuse_a_second(path: &Path) -> Result<()> {
    let mut found = presence::find(path);
    for _ in 0..GLANCES {
        if found.is_none() || is_locked(path)? {
            // One that has its lock is told by that.
            return Ok(());
        }
        // It may be about to end.
        std::thread::park_timeout(GLANCE);
        found = presence::find(path);
    }
    found.map_or(Ok(()), |holder| {
        Err(Error::State(format!(
            "another license-server (process {}) has {} open, though its lock is not there: save what it has with \
             `license-server backup FILE`, and stop it first",
            holder.pid,
            path.display()
        )))
    })
}

/// The lock on the database file itself, by whatever name: `flock`, which knows nothing of SQLite's own locks on it.
#[derive(Debug)]
struct Served {
    /// Kept open for life: closing it would take away the locks that SQLite holds on this file, in this process.
    file: &'static File,
}

/// Network shares (NFS, SMB), where `flock` is one of SQLite's own kind of lock and would get in its way.
const SHARES: [u32; 4] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42];

impl Served {
    /// Locks the file at `path`; none where there is none yet, or where that is not possible.
    ///
    /// # Errors
    /// [`Error::State`] while another server has it.
    fn hold(path: &Path) -> Result<Option<Self>> {
        let Some(file) = Self::open(path)? else {
            return Ok(None);
        };
        match locked(file) {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Err(Error::State(format!(
                "another license-server has {0} open, though {0}.lock is not the one that it made: find it with \
                 `fuser {0}`, and stop it with SIGTERM first",
                path.display(),
            ))),
            Err(TryLockError::Error(error)) => {
                log::debug!("this file system has no locks of its own: {error}");
                Ok(None)
            }
        }
    }

    fn open(path: &Path) -> Result<Option<&'static File>> {
        // Anything else is refused where it is used; a pipe would be waited for.
        if !path.is_file() {
            return Ok(None);
        }
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // What uses it says that this user may not.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            file => file.doing("open the database file")?,
        };
        let system = rustix::fs::fstatfs(&file).doing("look at the file system")?;
        let shared = u32::try_from(system.f_type).is_ok_and(|kind| SHARES.contains(&kind));
        let file: &'static File = Box::leak(Box::new(file));
        Ok((!shared).then_some(file))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            log::debug!("the lock of the database file is free when the process ends: {error}");
        }
    }
}

/// Locks a file, unless a server has it: a command that only asks whether one is there is waited for.
fn locked(file: &File) -> std::result::Result<(), TryLockError> {
    let mut held = file.try_lock();
    for _ in 0..GLANCES {
        if !matches!(held, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::park_timeout(GLANCE);
        held = file.try_lock();
    }
    held
}

impl Lock {
    /// Takes the lock of the database at `path`; makes its folder, if there is none.
    ///
    /// # Errors
    /// [`Error::State`] naming the process that holds it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        refuse_a_second(path)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).doing("make the data folder")?;
        }
        let name = beside(path, ".lock");
        let mut file = open(&name).map_err(|error| unopened(&name, error))?;
        let held = locked(&file);
        let mut text = String::new();
        file.read_to_string(&mut text).doing("read the lock file")?;
        let mut words = text.split_whitespace();
        match held {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::State(format!(
                    "another license-server (process {}) has {}: stop it first, or give this one \
                     its own [database] path",
                    words.next().unwrap_or("unknown"),
                    path.display(),
                )));
            }
            Err(TryLockError::Error(error)) => return Err(error).doing("lock the database"),
        }
        let served = Served::hold(path)?;
        let data = file.metadata().doing("look at the lock file")?;
        let note = Note {
            earlier: true,
            ..Note::parse(&text)
        };
        let own = Identity::from(&data);
        let lock = Self {
            own,
            _file: file,
            served: Mutex::new(served),
            name,
            before: Before::of(&note, own),
            note: Mutex::new(note),
            stale: AtomicBool::new(true),
        };
        match lock.refresh() {
            // It is held, and it says that there is a database; the number can wait.
            Err(error) if note.made => log::debug!("{error}"),
            written => written?,
        }
        Ok(lock)
    }

    /// Writes down who has the database, where that was not possible before.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn refresh(&self) -> Result<()> {
        if self.stale.load(Ordering::SeqCst) {
            self.write(|_| {})?
                .sync_all()
                .doing("write the lock file")?;
            self.stale.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Whether there has been a database.
    pub(super) fn knows_a_file(&self) -> bool {
        self.note().made
    }

    /// Remembers that there is a database at `path` now, and locks it too.
    pub(super) fn remember_the_file(&self, path: &Path) -> Result<()> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if served.is_none() {
            *served = Served::hold(path)?;
        }
        let file = self.write(|note| note.made = true)?;
        file.sync_all().doing("write the lock file")
    }

    /// Remembers that the database at `path` is the one to go on with, whatever was noted of another one; there is
    /// nothing in its WAL.
    pub(super) fn begin_with(&self, path: &Path) -> Result<()> {
        let file = Identity::of(path).doing("look at the database file")?;
        let written = self.write(|note| {
            *note = Note {
                made: true,
                earlier: true,
                parts: [file, None, None, Some(self.own)],
                seen: UnixMs(0),
                boot: note.boot,
            };
        });
        written?.sync_all().doing("write the lock file")
    }

    /// Tells others which files are open.
    pub(super) fn name_parts(&self, parts: Parts) -> Result<()> {
        let named = self.write(|note| (note.parts, note.earlier) = (parts, false));
        named.map(drop)
    }

    /// The lock file itself.
    pub(super) fn own(&self) -> Identity {
        self.own
    }

    /// What the process before this one has left word of.
    pub(super) fn before(&self) -> Before {
        self.before
    }

    /// Notes the latest date that the database was told. Not waited for: a power cut may take it, and then less is
    /// noticed.
    pub(super) fn note_seen(&self, seen: UnixMs) -> Result<()> {
        self.write(|note| note.seen = seen).map(drop)
    }

    /// Notes in which boot the machine's clock is believed; none while it is not.
    pub(super) fn note_boot(&self, boot: Option<Boot>) -> Result<()> {
        self.write(|note| note.boot = boot).map(drop)
    }

    fn note(&self) -> Note {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the note, and writes all of it at once: a process that dies leaves the old one or the new one. Over
    /// what stands there, which a full disk takes; by a file of its own, since the lock may be held by one that can
    /// only be read.
    fn write(&self, change: impl FnOnce(&mut Note)) -> Result<File> {
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut note);
        let line = note.line();
        let written = OpenOptions::new()
            .write(true)
            .custom_flags(NOFOLLOW)
            .open(&self.name)
            .and_then(|file| file.write_all_at(line.as_bytes(), 0).and(Ok(file)));
        written.map_err(|error| Error::Unavailable {
            reason: format!("{} cannot be written: {error}", self.name.display()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_older_ones_too() {
        let parts = [
            Identity::parse("1:2:3"),
            None,
            Identity::parse("3:4"),
            Identity::parse("5:6"),
        ];
        let note = Note {
            made: true,
            earlier: false,
            parts,
            seen: UnixMs(1_795_356_331_000),
            boot: Boot::new("0c1c7b66-5b7c-4a2e-9f6e-0123456789ab", UnixMs(i64::MIN)),
        };
        assert_eq!(Note::parse(&note.line()), note);
        let longest = Identity::parse(&format!("{0}:{0}:{0}", u64::MAX));
        let note = Note {
            earlier: true,
            parts: [longest; 4],
            seen: UnixMs(i64::MIN),
            ..note
        };
        assert_eq!(Note::parse(&note.line()), note);
        assert_eq!(note.line().len(), NOTE_LEN + 1, "{}", note.line());
        let old = Note::parse("1234 made\n");
        assert!(old.made && old.seen == UnixMs(0));
        for nothing in ["", "1234", "1234 \n"] {
            assert_eq!(Note::parse(nothing), Note::default());
        }
    }
}
