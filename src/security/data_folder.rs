//! Permissions of the data folder. Only the user that the server runs as may access the files in it: permissions that
//! are too open are repaired at the start where possible; otherwise the server refuses to start.

use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, OFlags};

use super::run_as::User;
use crate::db::{self, file_kind};
use crate::error::{Error, Result};

/// Folders in it that hold secrets: every file in them is checked.
const SECRET_FOLDERS: [&str; 2] = ["tls", "signing"];
/// Suffixes of the files that this program creates beside the database.
const OWN_SUFFIXES: [&str; 8] = [
    "",
    ".lock",
    ".users",
    ".probe",
    ".new",
    ".restored",
    ".erased",
    ".erased.new",
];
/// Suffixes that SQLite, or a copy under construction, appends to each of those.
const SQLITE_SUFFIXES: [&str; 4] = ["-wal", "-shm", "-journal", ".part"];
/// Infixes of files that a restore or a migration has replaced: name, infix, number.
const REPLACED_INFIXES: [&str; 2] = [".before-restore-", ".before-v"];
/// Folders that may be beside the database without making the folder a shared one.
const EXPECTED_FOLDERS: [&str; 2] = ["backups", "lost+found"];
/// Maximum number of files to check; far more than there should be.
const FILES_MAX: usize = 10_000;

/// A file or folder that other users can access, or that this user cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    path: PathBuf,
    /// What is wrong, and what to do about it.
    message: String,
    /// The mode that repairs it. `None` if changing the mode does not help.
    mode: Option<u32>,
}

impl Fault {
    /// What is wrong, and what to do about it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the next start repairs it automatically.
    pub const fn is_repaired_at_start(&self) -> bool {
        self.mode.is_some()
    }
}

/// Repairs permissions, and rejects what cannot be repaired. Changes nothing if the database path is not a database.
///
/// # Errors
/// [`Error::State`] for a fault that this user cannot repair; it says what to do.
pub fn secure(database: &Path) -> Result<()> {
    match db::check_path(database) {
        Err(refused @ Error::State(_)) => return Err(refused),
        // If this user may not access the path, `inspect` reports it.
        Err(error) => log::debug!("{error}"),
        Ok(()) => {}
    }
    for fault in inspect(database)? {
        repair(&fault)?;
    }
    Ok(())
}

/// Sets the mode that repairs a fault.
fn repair(fault: &Fault) -> Result<()> {
    let Some(mode) = fault.mode else {
        return Err(Error::State(fault.message.clone()));
    };
    // Open without following links: the file may have been replaced by a link since it was checked.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(&fault.path);
    let name = fault.path.display();
    file.and_then(|file| file.set_permissions(fs::Permissions::from_mode(mode)))
        .map_err(|error| Error::State(format!("{} (it was tried: {error})", fault.message)))?;
    log::warn!("others had access to {name}: its mode is {mode:o} now");
    Ok(())
}

/// What is wrong with the permissions in the folder of the database file `database`. Changes nothing.
///
/// # Errors
/// [`Error::State`] when this user may not read the folder; it says as which user to run.
pub fn inspect(database: &Path) -> Result<Vec<Fault>> {
    let folder = folder_of(database);
    let data = match fs::metadata(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        data => data.map_err(|error| inaccessible(&folder, None, &error))?,
    };
    let mut faults = Vec::new();
    let entries =
        fs::read_dir(&folder).map_err(|error| inaccessible(&folder, Some(&data), &error))?;
    let database = database.file_name().unwrap_or_default();
    let mut contents = FolderContents::OwnFilesOnly;
    for entry in entries {
        let entry = entry.map_err(|error| inaccessible(&folder, Some(&data), &error))?;
        let (path, name) = (entry.path(), entry.file_name());
        if is_secret(name.as_encoded_bytes()) {
            check_tree(&path, FILES_MAX, &mut faults)?;
        } else if is_part(name.as_encoded_bytes(), database.as_encoded_bytes()) {
            // The database itself may be a link. Its target is checked when it is opened.
            let linked = name == database && path.is_symlink();
            let path = if linked {
                path.canonicalize().unwrap_or(path)
            } else {
                path
            };
            faults.extend(check_entry(&path)?);
        } else {
            let is_expected = EXPECTED_FOLDERS.iter().any(|known| name == *known);
            if !is_expected && !name.as_encoded_bytes().starts_with(b".") {
                contents = FolderContents::OtherFilesToo;
            }
        }
    }
    faults.extend(check_folder(&folder, &data, contents));
    Ok(faults)
}

/// Whether this is a folder with certificates or keys, or one that a restore has replaced. Other names with the same
/// beginning do not count.
fn is_secret(name: &[u8]) -> bool {
    SECRET_FOLDERS.iter().any(|known| {
        let rest = name.strip_prefix(known.as_bytes());
        rest.is_some_and(|rest| {
            rest.is_empty() || rest == b".old" || rest.starts_with(b".old-") || was_replaced(rest)
        })
    })
}

/// Whether this is the database file or a file that belongs to it.
fn is_part(name: &[u8], database: &[u8]) -> bool {
    let Some(mut rest) = name.strip_prefix(database) else {
        return false;
    };
    for end in SQLITE_SUFFIXES {
        rest = rest.strip_suffix(end.as_bytes()).unwrap_or(rest);
    }
    OWN_SUFFIXES.iter().any(|part| rest == part.as_bytes()) || was_replaced(rest)
}

fn was_replaced(end: &[u8]) -> bool {
    let mut numbers = REPLACED_INFIXES
        .iter()
        .filter_map(|word| end.strip_prefix(word.as_bytes()));
    numbers.any(|number| number.first().is_some_and(u8::is_ascii_digit))
}

/// The folder of a database file.
fn folder_of(database: &Path) -> PathBuf {
    match database.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn check_tree(folder: &Path, left: usize, faults: &mut Vec<Fault>) -> Result<()> {
    let fault = check_entry(folder)?;
    let walked = fault.as_ref().is_none_or(|fault| fault.mode.is_some());
    faults.extend(fault);
    if !walked || !folder.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(|error| inaccessible(folder, None, &error))?;
    for entry in entries.take(left) {
        let path = entry
            .map_err(|error| inaccessible(folder, None, &error))?
            .path();
        if path.is_dir() && !path.is_symlink() {
            check_tree(&path, left / 2, faults)?;
        } else {
            faults.extend(check_entry(&path)?);
        }
    }
    Ok(())
}

/// What the data folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FolderContents {
    OwnFilesOnly,
    /// It may be a home directory: its mode is not changed, but no other user may write in it.
    OtherFilesToo,
}

/// Checks the folder itself.
fn check_folder(folder: &Path, data: &Metadata, contents: FolderContents) -> Option<Fault> {
    let (mode, name) = (data.mode() & 0o7777, folder.display());
    let open = mode & 0o077 != 0;
    if !open {
        return None;
    }
    let message = format!("others may look into {name} (mode {mode:o}): chmod 700 {name}");
    let own = data.uid() == User::current().uid();
    if own && contents == FolderContents::OwnFilesOnly {
        let (path, mode) = (folder.to_owned(), Some(0o700));
        return Some(Fault {
            path,
            message,
            mode,
        });
    }
    let (users, remedy) = if mode & 0o002 != 0 {
        ("all users", String::new())
    } else if own && mode & 0o020 != 0 {
        (
            "all members of its group",
            format!("`chmod g-w {name}`, or "),
        )
    } else {
        // The files in it are protected by their own modes. And if it belongs to another user, this user may depend on
        // the group's access.
        return None;
    };
    let message = format!(
        "{users} may create files in {name} (mode {mode:o}), or remove the database: {remedy}give the database a folder \
         of its own"
    );
    let (path, mode) = (folder.to_owned(), None);
    Some(Fault {
        path,
        message,
        mode,
    })
}

/// Checks a file or folder in the data folder. `None` also if it no longer exists.
fn check_entry(path: &Path) -> Result<Option<Fault>> {
    let data = match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        data => data.map_err(|error| inaccessible(path, None, &error))?,
    };
    let (name, me) = (path.display(), User::current());
    let fault = |message: String, mode| {
        let path = path.to_owned();
        Ok(Some(Fault {
            path,
            message,
            mode,
        }))
    };
    if !data.is_file() && !data.is_dir() {
        let what = file_kind(&data);
        let message =
            format!("{name} is {what}, which is not used: put the real file or folder there");
        return fault(message, None);
    }
    let wanted = Access::READ_OK | Access::WRITE_OK;
    if let Err(error) = rustix::fs::accessat(CWD, path, wanted, AtFlags::EACCESS)
        && error == rustix::io::Errno::ACCESS
    {
        return fault(unreadable(path, &data), None);
    }
    let (mode, own) = (data.mode() & 0o777, data.uid() == me.uid());
    let open = mode & 0o077 != 0;
    if !open {
        return Ok(None);
    }
    let right = mode & 0o700;
    let message =
        format!("others may read or write {name} (mode {mode:o}): chmod {right:o} {name}");
    fault(message, (own || me.uid() == 0).then_some(right))
}

/// Repairs the permissions of a certificate and key that the operator keeps elsewhere.
///
/// # Errors
/// [`Error::State`] for a fault that this user cannot repair; it says what to do.
pub fn secure_certificate_files(certificate: &Path, key: &Path) -> Result<()> {
    let faults = inspect_certificate_files(certificate, key);
    faults.iter().try_for_each(repair)
}

/// What is wrong with the permissions of a certificate and key that the operator keeps elsewhere. Changes nothing.
/// A group may read the key: so several servers can use one. A missing file is reported when it is read.
pub fn inspect_certificate_files(certificate: &Path, key: &Path) -> Vec<Fault> {
    let certificate = check_certificate_file(certificate, 0o022);
    let key = check_certificate_file(key, 0o026);
    certificate.into_iter().chain(key).collect()
}

/// Checks that the file, which may be a link, has none of the `forbidden` permissions.
fn check_certificate_file(path: &Path, forbidden: u32) -> Option<Fault> {
    let path = path.canonicalize().ok()?;
    let data = fs::metadata(&path).ok()?;
    let (mode, me) = (data.mode() & 0o7777, User::current());
    // A folder that was named by mistake is reported when it is read, and keeps its permissions.
    if !data.is_file() || mode & forbidden == 0 {
        return None;
    }
    let what = if mode & 0o022 == 0 {
        "read the key"
    } else {
        "replace the certificate of the server, since they may write to"
    };
    let (right, name) = (mode & !forbidden, path.display());
    let own = data.uid() == me.uid() || me.uid() == 0;
    let user = if own {
        String::new()
    } else {
        format!("as {}, ", User::owner(&data).describe())
    };
    let message = format!("others may {what} {name} (mode {mode:o}): {user}chmod {right:o} {name}");
    Some(Fault {
        path,
        message,
        mode: own.then_some(right),
    })
}

/// The message that this user may not read a file, and what to do.
fn unreadable(path: &Path, data: &Metadata) -> String {
    let (name, me, owner) = (path.display(), User::current(), User::owner(data));
    let mode = data.mode() & 0o777;
    let cause = format!(
        "{} may not read and write {name}, which belongs to {} (mode {mode:o})",
        me.describe(),
        owner.describe()
    );
    let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
    let folder = folder.map_or(owner, |data| User::owner(&data));
    if folder.uid() == me.uid() {
        return format!("{cause}: as root, `chown {} {name}`", me.uid());
    }
    format!(
        "{cause}: run `sudo -u {} license-server …`",
        owner.sudo_name()
    )
}

/// The error that this user may not read a folder, and as which user to run.
fn inaccessible(path: &Path, data: Option<&Metadata>, error: &std::io::Error) -> Error {
    let (name, me) = (path.display(), User::current().describe());
    let owner = data.map(User::owner);
    let run = match owner {
        Some(owner) => format!(
            "it belongs to {}: run `sudo -u {} license-server …`",
            owner.describe(),
            owner.sudo_name()
        ),
        None => "run this as the user that the server runs as, or as root".to_owned(),
    };
    Error::State(format!("{me} cannot access {name} ({error}): {run}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn permissions_that_are_too_open_are_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("tls/acme")).unwrap();
        let database = data.join("t.sqlite3");
        let names = [
            "t.sqlite3",
            "t.sqlite3-wal",
            "tls/ca.key",
            "tls/acme/state.json",
            "tls",
            ".",
        ];
        for name in &names[..4] {
            fs::write(data.join(name), "").unwrap();
        }
        for (name, open) in names.iter().zip([0o644, 0o666, 0o640, 0o602, 0o777, 0o755]) {
            fs::set_permissions(data.join(name), PermissionsExt::from_mode(open)).unwrap();
        }
        fs::set_permissions(data.join("tls/acme"), PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(inspect(&database).unwrap().len(), names.len());
        secure(&database).unwrap();
        assert_eq!(inspect(&database).unwrap(), []);
        assert_eq!(
            names.map(|name| mode(&data.join(name))),
            [0o600, 0o600, 0o600, 0o600, 0o700, 0o700]
        );
    }

    #[test]
    fn a_link_in_the_place_of_a_key_is_refused_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (data, other) = (dir.path().join("data"), dir.path().join("other"));
        fs::create_dir_all(data.join("tls")).unwrap();
        fs::create_dir_all(&other).unwrap();
        fs::set_permissions(&other, PermissionsExt::from_mode(0o755)).unwrap();
        for (link, message) in [("tls/ca.key", "is a link"), ("signing", "is a link")] {
            symlink(&other, data.join(link)).unwrap();
            let refused = secure(&data.join("t.sqlite3")).unwrap_err().to_string();
            assert!(
                refused.contains(message) && refused.contains(link),
                "{refused}"
            );
            fs::remove_file(data.join(link)).unwrap();
        }
        assert_eq!(mode(&other), 0o755);
    }

    #[test]
    fn a_certificate_or_key_that_others_may_write_and_a_key_that_all_may_read_are_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let pair = ["chain.pem", "key.pem"].map(|name| dir.path().join(name));
        for (modes, faults, right) in [
            ([0o644, 0o640], 0, [0o644, 0o640]),
            ([0o644, 0o644], 1, [0o644, 0o640]),
            ([0o664, 0o660], 2, [0o644, 0o640]),
            ([0o646, 0o600], 1, [0o644, 0o600]),
            ([0o600, 0o602], 1, [0o600, 0o600]),
        ] {
            for (path, mode) in pair.iter().zip(modes) {
                fs::write(path, "x").unwrap();
                fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            }
            let found = inspect_certificate_files(&pair[0], &pair[1]);
            assert_eq!(found.len(), faults, "{found:?}");
            assert!(found.iter().all(|fault| fault.message.contains("chmod")));
            secure_certificate_files(&pair[0], &pair[1]).unwrap();
            assert_eq!([mode(&pair[0]), mode(&pair[1])], right);
        }
    }

    #[test]
    fn a_link_to_a_key_is_followed_and_a_missing_one_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let (key, link) = (dir.path().join("key1.pem"), dir.path().join("key.pem"));
        fs::write(&key, "x").unwrap();
        fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        symlink(&key, &link).unwrap();
        secure_certificate_files(&dir.path().join("missing"), &link).unwrap();
        assert_eq!(mode(&key), 0o640);
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o1777)).unwrap();
        secure_certificate_files(&folder, &folder).unwrap();
        assert_eq!(mode(&folder), 0o777, "a folder is left alone");
    }

    #[test]
    fn only_files_that_belong_to_the_database_are_checked() {
        for ours in [
            "t.db",
            "t.db-wal",
            "t.db-shm",
            "t.db-journal",
            "t.db.lock",
            "t.db.users",
            "t.db.new-wal",
            "t.db.restored.part",
            "t.db.before-v8",
            "t.db.before-v8.part",
            "t.db.before-restore-20261122T140531Z-2-shm",
            "t.db.before-restore-20261122T140531Z.other-wal",
        ] {
            assert!(is_part(ours.as_bytes(), b"t.db"), "{ours}");
        }
        for other in [
            "t.db.pdf",
            "t.db.newsletter",
            "t.db-wall",
            "t.db.before-restore-notes",
            "a-t.db",
        ] {
            assert!(!is_part(other.as_bytes(), b"t.db"), "{other}");
        }
        for (name, ours) in [
            ("tls", true),
            ("signing", true),
            ("tls.old", true),
            ("tls.before-restore-20261122T140531Z", true),
            ("signing.before-restore-20261122T140531Z-2", true),
            ("tls-notes", false),
            ("signing-list.pdf", false),
            ("tls.older", false),
        ] {
            assert_eq!(is_secret(name.as_bytes()), ours, "{name}");
        }
    }

    #[test]
    fn a_folder_that_holds_other_files_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
        for (open, refused) in [(0o755, false), (0o775, true), (0o777, true)] {
            fs::set_permissions(dir.path(), PermissionsExt::from_mode(open)).unwrap();
            assert_eq!(secure(&dir.path().join("t.sqlite3")).is_err(), refused);
            assert_eq!(mode(dir.path()), open);
        }
    }
}
