//! One server per database: a lock file beside it, held as long as the server runs. It also records that a
//! database was created, so that the server never makes an empty one where a full one is missing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::files::beside;
use super::location::{Identity, Parts};
use super::presence::{self, Holder};
use super::users::{NOFOLLOW, open, open_error};
use crate::clock::{Boot, UnixMs};
use crate::error::{Doing, Error, Result};

const CREATED: &str = "made";
/// Prefixes in the lock file: of the identities of the server's files, and of the latest date that the server
/// acknowledged.
const PART_PREFIX: [&str; 4] = ["file=", "wal=", "shm=", "lock="];
const SEEN_PREFIX: &str = "seen=";
/// And of the boot in which the system clock was last trusted.
const BOOT_PREFIX: &str = "boot=";
const PREVIOUS: &str = "earlier";
/// The length of the text, always the same, so that one write replaces all of it.
const NOTE_LEN: usize = 500;
/// How often, and after which pause, a taken lock is tried again.
const LOCK_TRIES: u32 = 10;
const TESTED_LOCK_TRIES: u32 = 500;
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The lock of a database; released when this is dropped, or when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    own: Identity,
    _file: File,
    on_inode: Mutex<Option<FileLock>>,
    name: PathBuf,
    previous: Previous,
    note: Mutex<Note>,
    /// Whether the file still has the text of an earlier process, because the disk could not be written.
    unwritten: AtomicBool,
}

/// The text of a lock file, after the process id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Note {
    /// Whether a database was created beside it.
    created: bool,
    /// The files that the process has open.
    parts: Parts,
    /// Whether `parts` are those of the previous process, because this one has opened none yet.
    of_previous: bool,
    /// The latest date that was stored in the database, as far as it was noted; 0 for none.
    seen: UnixMs,
    /// The boot in which the system clock was last trusted.
    boot: Option<Boot>,
}

impl Note {
    /// Reads the words after the first; unknown words are ignored.
    fn parse(text: &str) -> Self {
        let mut note = Self::default();
        for word in text.split_whitespace().skip(1) {
            note.created |= word == CREATED;
            note.of_previous |= word == PREVIOUS;
            for (part, name) in note.parts.iter_mut().zip(PART_PREFIX) {
                if let Some(identity) = word.strip_prefix(name) {
                    *part = Identity::parse(identity);
                }
            }
            if let Some(seen) = word.strip_prefix(SEEN_PREFIX) {
                note.seen = UnixMs(seen.parse().unwrap_or(0));
            }
            if let Some(boot) = word.strip_prefix(BOOT_PREFIX) {
                note.boot = Boot::parse(boot);
            }
        }
        note
    }

    fn line(&self) -> String {
        let mut words = vec![std::process::id().to_string()];
        if self.created {
            words.push(CREATED.to_owned());
        }
        for (part, name) in self.parts.iter().zip(PART_PREFIX) {
            words.extend(part.map(|part| format!("{name}{part}")));
        }
        if self.of_previous {
            words.push(PREVIOUS.to_owned());
        }
        words.push(format!("{SEEN_PREFIX}{}", self.seen.0));
        words.extend(self.boot.map(|boot| format!("{BOOT_PREFIX}{boot}")));
        let line = words.join(" ");
        format!("{line:NOTE_LEN$}\n")
    }
}

/// What the previous server process noted in the lock file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Previous {
    /// Its files; unknown if the lock file is a copy of its own, since then the others are copies too.
    pub(super) parts: Parts,
    /// The latest date that was stored in the database, as far as it was noted; 0 for none.
    pub(super) seen: UnixMs,
}

impl Previous {
    /// Reads the note beside the database at `path`.
    ///
    /// # Errors
    /// If the lock file cannot be read.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut text = String::new();
        match File::open(beside(path, ".lock")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            file => {
                let mut file = file.doing("open the lock file")?;
                let data = file.metadata().doing("examine the lock file")?;
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
    /// The server of the database at `path`; `None` if no server runs.
    ///
    /// # Errors
    /// If the lock file cannot be read.
    pub(super) fn of(path: &Path) -> Result<Option<Self>> {
        if !is_locked(path)? {
            return Ok(presence::find(path));
        }
        let text = std::fs::read_to_string(beside(path, ".lock")).doing("read the lock file")?;
        let pid = text.split_whitespace().next().unwrap_or("unknown");
        // On a disk that cannot be written, the text is still that of an earlier process.
        let runs = Path::new("/proc").join(pid).exists();
        let note = Note::parse(&text);
        let open = runs && !note.of_previous;
        Ok(Some(Self {
            pid: pid.to_owned(),
            parts: if open { note.parts } else { Parts::default() },
        }))
    }
}

/// The boot in which a server of the database at `path` last trusted the system clock.
///
/// # Errors
/// If the lock file cannot be read.
pub(super) fn trusted_boot(path: &Path) -> Result<Option<Boot>> {
    match std::fs::read_to_string(beside(path, ".lock")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => Ok(Note::parse(&text.doing("read the lock file")?).boot),
    }
}

/// Whether a server has the database open, even if its lock file is gone.
///
/// # Errors
/// If the lock file cannot be read.
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
        Err(TryLockError::Error(error)) => Err(error).doing("test the lock of the database"),
    }
}

/// Refuses to start beside a server whose lock file is gone, alone or with its folder.
fn refuse_beside_a_server(path: &Path) -> Result<()> {
    let mut found = presence::find(path);
    for _ in 0..LOCK_TRIES {
        if found.is_none() || is_locked(path)? {
            // A server that still has its lock is detected by the lock.
            return Ok(());
        }
        // The server may be ending.
        std::thread::park_timeout(LOCK_RETRY);
        found = presence::find(path);
    }
    found.map_or(Ok(()), |holder| {
        Err(Error::State(format!(
            "another license-server (process {}) has {} open, though its lock file is missing: save its data with \
             `license-server backup FILE`, and stop it first",
            holder.pid,
            path.display()
        )))
    })
}

/// A lock on the database file itself, which also works across its names: `flock`, which is independent of
/// SQLite's own locks.
#[derive(Debug)]
struct FileLock {
    /// Never closed: closing it would release the locks that SQLite holds on this file in this process (POSIX
    /// locks).
    file: &'static File,
}

/// File system types of network shares (NFS, SMB), where `flock` is mapped to the kind of lock that SQLite uses
/// and would conflict with it.
const NETWORK_SHARES: [u32; 4] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42];

impl FileLock {
    /// Locks the file at `path`; `None` if there is no file yet, or the file system has no such locks.
    ///
    /// # Errors
    /// [`Error::State`] while another server has it open.
    fn hold(path: &Path) -> Result<Option<Self>> {
        let Some(file) = Self::open(path)? else {
            return Ok(None);
        };
        match try_lock(file) {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Err(Error::State(format!(
                "another license-server has {0} open, though {0}.lock is not the file that it created: find it with \
                 `fuser {0}`, and stop it with SIGTERM first",
                path.display(),
            ))),
            Err(TryLockError::Error(error)) => {
                log::debug!("this file system does not support flock: {error}");
                Ok(None)
            }
        }
    }

    fn open(path: &Path) -> Result<Option<&'static File>> {
        // Other kinds of files are refused elsewhere; opening a pipe would block.
        if !path.is_file() {
            return Ok(None);
        }
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // The code that uses the file reports the missing permission.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            file => file.doing("open the database file")?,
        };
        let system = rustix::fs::fstatfs(&file).doing("examine the file system")?;
        let shared = u32::try_from(system.f_type).is_ok_and(|kind| NETWORK_SHARES.contains(&kind));
        let file: &'static File = Box::leak(Box::new(file));
        Ok((!shared).then_some(file))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            log::debug!(
                "the lock of the database file is not released before the process ends: {error}"
            );
        }
    }
}

/// Why the data folder cannot be created.
fn folder_error(folder: &Path, error: &std::io::Error) -> Error {
    let name = folder.display();
    let advice = if error.kind() == ErrorKind::PermissionDenied {
        format!(
            "create it for the user who runs this: `sudo install -d -m 700 -o \"$(id -un)\" {name}`"
        )
    } else {
        "set [database] path to a file in a folder that can be created".to_owned()
    };
    Error::State(format!(
        "the data folder {name} cannot be created ({error}): {advice}"
    ))
}

/// Locks a file unless a server holds it. Tries again for a moment, in which a server may end; and for longer while only
/// commands hold the lock, which do so to test it: one of them may be suspended meanwhile.
fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    let mut held = file.try_lock();
    for tried in 0..TESTED_LOCK_TRIES {
        let goes_on = matches!(held, Err(TryLockError::WouldBlock))
            && (tried < LOCK_TRIES || is_only_tested(file));
        if !goes_on {
            break;
        }
        std::thread::park_timeout(LOCK_RETRY);
        held = file.try_lock();
    }
    held
}

/// Whether only commands hold the lock of a file: they share it.
fn is_only_tested(file: &File) -> bool {
    file.try_lock_shared().is_ok() && file.unlock().is_ok()
}

/// Refuses to go on with a lock that is not held. `text` is that of the lock file of the database at `path`.
fn require_held(
    held: std::result::Result<(), TryLockError>,
    text: &str,
    path: &Path,
) -> Result<()> {
    match held {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::State(format!(
            "another license-server (process {}) has {} open: stop it first, or give this one \
             its own [database] path",
            text.split_whitespace().next().unwrap_or("unknown"),
            path.display(),
        ))),
        Err(TryLockError::Error(error)) => Err(error).doing("lock the database"),
    }
}

impl Lock {
    /// Takes the lock of the database at `path`; creates the folder if it is missing.
    ///
    /// # Errors
    /// [`Error::State`] if another process holds it; the text names the process.
    pub(super) fn take(path: &Path) -> Result<Self> {
        refuse_beside_a_server(path)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| folder_error(folder, &error))?;
        }
        let name = beside(path, ".lock");
        let mut file = open(&name).map_err(|error| open_error(&name, error))?;
        let held = try_lock(&file);
        let mut text = String::new();
        file.read_to_string(&mut text).doing("read the lock file")?;
        require_held(held, &text, path)?;
        let on_inode = FileLock::hold(path)?;
        let data = file.metadata().doing("examine the lock file")?;
        let note = Note {
            of_previous: true,
            ..Note::parse(&text)
        };
        let own = Identity::from(&data);
        let lock = Self {
            own,
            _file: file,
            on_inode: Mutex::new(on_inode),
            name,
            previous: Previous::of(&note, own),
            note: Mutex::new(note),
            unwritten: AtomicBool::new(true),
        };
        match lock.refresh() {
            // The lock is held, and the file says that there is a database; the process id can be written later.
            Err(error) if note.created => log::debug!("{error}"),
            written => written?,
        }
        Ok(lock)
    }

    /// Writes the process id, if that was not possible before.
    ///
    /// # Errors
    /// If the disk cannot be written.
    pub(super) fn refresh(&self) -> Result<()> {
        if self.unwritten.load(Ordering::SeqCst) {
            self.write(|_| {})?
                .sync_all()
                .doing("write the lock file")?;
            self.unwritten.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Whether a database was created here before.
    pub(super) fn was_created(&self) -> bool {
        self.note().created
    }

    /// Notes that there is a database at `path` now, and locks that too.
    pub(super) fn note_created(&self, path: &Path) -> Result<()> {
        let mut on_inode = self.on_inode.lock().unwrap_or_else(PoisonError::into_inner);
        if on_inode.is_none() {
            *on_inode = FileLock::hold(path)?;
        }
        let file = self.write(|note| note.created = true)?;
        file.sync_all().doing("write the lock file")
    }

    /// Notes that the database at `path` is the valid one, whatever was noted of another one. Its WAL is empty.
    pub(super) fn accept_file(&self, path: &Path) -> Result<()> {
        let file = Identity::of(path).doing("examine the database file")?;
        let written = self.write(|note| {
            *note = Note {
                created: true,
                of_previous: true,
                parts: [file, None, None, Some(self.own)],
                seen: UnixMs(0),
                boot: note.boot,
            };
        });
        written?.sync_all().doing("write the lock file")
    }

    /// Notes which files are open.
    pub(super) fn note_parts(&self, parts: Parts) -> Result<()> {
        let named = self.write(|note| (note.parts, note.of_previous) = (parts, false));
        named.map(drop)
    }

    /// The identity of the lock file.
    pub(super) fn own(&self) -> Identity {
        self.own
    }

    /// What the previous server process noted.
    pub(super) fn previous(&self) -> Previous {
        self.previous
    }

    /// Notes the latest date that was stored in the database. Not synced: if a power cut loses it, fewer lost
    /// commits are noticed.
    pub(super) fn note_latest_date(&self, seen: UnixMs) -> Result<()> {
        self.write(|note| note.seen = seen).map(drop)
    }

    /// Notes in which boot the system clock is trusted; `None` while it is not.
    pub(super) fn note_trusted_boot(&self, boot: Option<Boot>) -> Result<()> {
        self.write(|note| note.boot = boot).map(drop)
    }

    fn note(&self) -> Note {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the note, and writes all of it at once, so that a process that dies leaves the old text or the new
    /// one. It overwrites the old text, which works on a full disk. It opens the file again, because the lock may
    /// be held on a read-only handle.
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
    fn a_lock_that_a_command_tests_for_long_is_waited_for_and_that_of_a_server_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        let server = Lock::take(&path).unwrap();
        Lock::take(&path).unwrap_err();
        drop(server);
        let tested = File::open(beside(&path, ".lock")).unwrap();
        tested.try_lock_shared().unwrap();
        // Longer than a server's lock is waited for.
        let longer = 2 * LOCK_TRIES * LOCK_RETRY;
        let command = std::thread::spawn(move || {
            std::thread::park_timeout(longer);
            drop(tested);
        });
        Lock::take(&path).unwrap();
        command.join().unwrap();
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_older_ones_too() {
        let parts = [
            Identity::parse("1:2:3"),
            None,
            Identity::parse("3:4"),
            Identity::parse("5:6"),
        ];
        let note = Note {
            created: true,
            of_previous: false,
            parts,
            seen: UnixMs(1_795_356_331_000),
            boot: Boot::new("0c1c7b66-5b7c-4a2e-9f6e-0123456789ab", UnixMs(i64::MIN)),
        };
        assert_eq!(Note::parse(&note.line()), note);
        let longest = Identity::parse(&format!("{0}:{0}:{0}", u64::MAX));
        let note = Note {
            of_previous: true,
            parts: [longest; 4],
            seen: UnixMs(i64::MIN),
            ..note
        };
        assert_eq!(Note::parse(&note.line()), note);
        assert_eq!(note.line().len(), NOTE_LEN + 1, "{}", note.line());
        let old = Note::parse("1234 made\n");
        assert!(old.created && old.seen == UnixMs(0));
        for nothing in ["", "1234", "1234 \n"] {
            assert_eq!(Note::parse(nothing), Note::default());
        }
    }
}
