//! Who can get at the data folder. Everything in it is for the user that the server runs as, and for nobody else: what
//! others may read or write is repaired where that can be done, and otherwise the start is refused.

use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, OFlags};

use super::run_as::User;
use crate::db::{self, kind_of};
use crate::error::{Doing, Error, Result};

/// Folders in it in which every file is looked at.
const SECRETS: [&str; 2] = ["tls", "signing"];
/// What this program puts beside the database, under its name and one of these.
const PARTS: [&str; 6] = ["", ".lock", ".users", ".probe", ".new", ".restored"];
/// And what SQLite and a copy in the making put beside each of them.
const BESIDE: [&str; 4] = ["-wal", "-shm", "-journal", ".part"];
/// What a restore, or a new schema, has replaced: under its name, this and a number.
const REPLACED: [&str; 2] = [".before-restore-", ".before-v"];
/// And what else stands beside the database.
const OTHERS: [&str; 2] = ["backups", "lost+found"];
/// Files that are looked at, at most; more than there can be.
const MAX: usize = 10_000;

/// Something that others can get at, or that this user cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    path: PathBuf,
    /// What is wrong, and what to do about it.
    told: String,
    /// The mode that would put it right; none where changing the mode does not.
    mode: Option<u32>,
}

impl Fault {
    /// What is wrong, and what to do about it.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// Whether the next start puts it right by itself.
    pub const fn is_mended_at_the_start(&self) -> bool {
        self.mode.is_some()
    }
}

/// Puts right what can be, and refuses the rest. Nothing is touched where the database's name is another file's.
///
/// # Errors
/// [`Error::State`] for what this user cannot put right; it says what to do.
pub fn secure(database: &Path) -> Result<()> {
    match db::check_place(database) {
        Err(refused @ Error::State(_)) => return Err(refused),
        // Where this user may not even look, the faults say so.
        Err(error) => log::debug!("{error}"),
        Ok(()) => {}
    }
    for fault in inspect(database)? {
        let Some(mode) = fault.mode else {
            return Err(Error::State(fault.told));
        };
        // Not by the name alone: what was looked at may be a link by now.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(&fault.path);
        file.and_then(|file| file.set_permissions(fs::Permissions::from_mode(mode)))
            .doing("close the data folder to others")?;
        let name = fault.path.display();
        log::warn!("others had access to {name}: its mode is {mode:o} now");
    }
    Ok(())
}

/// What is wrong in the folder of the database file `database`; changes nothing.
///
/// # Errors
/// [`Error::State`] when this user may not look into it; it says as whom to run.
pub fn inspect(database: &Path) -> Result<Vec<Fault>> {
    let folder = folder_of(database);
    let data = match fs::metadata(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        data => data.map_err(|error| closed(&folder, None, &error))?,
    };
    let mut faults = Vec::new();
    let entries = fs::read_dir(&folder).map_err(|error| closed(&folder, Some(&data), &error))?;
    let database = database.file_name().unwrap_or_default();
    let mut shared = false;
    for entry in entries {
        let entry = entry.map_err(|error| closed(&folder, Some(&data), &error))?;
        let (path, name) = (entry.path(), entry.file_name());
        if is_secret(name.as_encoded_bytes()) {
            every_file(&path, MAX, &mut faults)?;
        } else if is_part(name.as_encoded_bytes(), database.as_encoded_bytes()) {
            // The database itself may be a link: where it leads is judged when it is opened.
            let linked = name == database && path.is_symlink();
            let path = if linked {
                path.canonicalize().unwrap_or(path)
            } else {
                path
            };
            faults.extend(of_entry(&path)?);
        } else {
            let backups = OTHERS.iter().any(|known| name == *known);
            shared |= !backups && !name.as_encoded_bytes().starts_with(b".");
        }
    }
    faults.extend(of_folder(&folder, &data, shared));
    Ok(faults)
}

/// Whether this is a folder with certificates or keys, or one that a restore has replaced: not whatever else begins
/// with the same name.
fn is_secret(name: &[u8]) -> bool {
    SECRETS.iter().any(|known| {
        let rest = name.strip_prefix(known.as_bytes());
        rest.is_some_and(|rest| {
            rest.is_empty() || rest == b".old" || rest.starts_with(b".old-") || was_replaced(rest)
        })
    })
}

/// Whether this is the database file or something that belongs to it.
fn is_part(name: &[u8], database: &[u8]) -> bool {
    let Some(mut rest) = name.strip_prefix(database) else {
        return false;
    };
    for end in BESIDE {
        rest = rest.strip_suffix(end.as_bytes()).unwrap_or(rest);
    }
    PARTS.iter().any(|part| rest == part.as_bytes()) || was_replaced(rest)
}

fn was_replaced(end: &[u8]) -> bool {
    let mut numbers = REPLACED
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

fn every_file(folder: &Path, left: usize, faults: &mut Vec<Fault>) -> Result<()> {
    let fault = of_entry(folder)?;
    let walked = fault.as_ref().is_none_or(|fault| fault.mode.is_some());
    faults.extend(fault);
    if !walked || !folder.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(|error| closed(folder, None, &error))?;
    for entry in entries.take(left) {
        let path = entry.map_err(|error| closed(folder, None, &error))?.path();
        if path.is_dir() && !path.is_symlink() {
            every_file(&path, left / 2, faults)?;
        } else {
            faults.extend(of_entry(&path)?);
        }
    }
    Ok(())
}

/// The folder itself. One that holds other things too may be somebody's home: its mode is left alone, but nobody else
/// may write in it.
fn of_folder(folder: &Path, data: &Metadata, shared: bool) -> Option<Fault> {
    let (mode, name) = (data.mode() & 0o7777, folder.display());
    let open = mode & 0o077 != 0;
    if !open {
        return None;
    }
    let told = format!("others may look into {name} (mode {mode:o}): chmod 700 {name}");
    let own = data.uid() == User::current().uid();
    if own && !shared {
        let (path, mode) = (folder.to_owned(), Some(0o700));
        return Some(Fault { path, told, mode });
    }
    let (whom, remedy) = if mode & 0o002 != 0 {
        ("everybody", String::new())
    } else if own && mode & 0o020 != 0 {
        ("a whole group", format!("`chmod g-w {name}`, or "))
    } else {
        // Every file in it is closed all the same; and where it is another's, the group may be how this user gets in.
        return None;
    };
    let told = format!(
        "{whom} may put files into {name} (mode {mode:o}), or take the database away: {remedy}give the database a \
         folder of its own"
    );
    let (path, mode) = (folder.to_owned(), None);
    Some(Fault { path, told, mode })
}

/// A file or folder in the data folder; none that is gone by now.
fn of_entry(path: &Path) -> Result<Option<Fault>> {
    let data = match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        data => data.map_err(|error| closed(path, None, &error))?,
    };
    let (name, me) = (path.display(), User::current());
    let fault = |told: String, mode| {
        let path = path.to_owned();
        Ok(Some(Fault { path, told, mode }))
    };
    if !data.is_file() && !data.is_dir() {
        let what = kind_of(&data);
        let told = format!(
            "{name} is {what}: nothing is read or written through it; put the real one there"
        );
        return fault(told, None);
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
    let told = format!("others may read or write {name} (mode {mode:o}): chmod {right:o} {name}");
    fault(told, (own || me.uid() == 0).then_some(right))
}

/// What is wrong with who can get at a certificate's own files, which the operator keeps elsewhere: a key that
/// everybody may read. None where all is well.
///
/// # Errors
/// [`Error::State`] where everybody may put another one there.
pub fn of_pair(certificate: &Path, key: &Path) -> Result<Option<String>> {
    let mode = |path: &Path| fs::metadata(path).map_or(0, |data| data.mode());
    for path in [certificate, key] {
        if mode(path) & 0o002 != 0 {
            let name = path.display();
            return Err(Error::State(format!(
                "everybody on this machine may write {name}, and so choose the server's certificate: chmod o-w {name}"
            )));
        }
    }
    let name = key.display();
    Ok((mode(key) & 0o004 != 0)
        .then(|| format!("everybody on this machine may read the key {name}: chmod o= {name}")))
}

/// That this user may not read a file, and what to do.
fn unreadable(path: &Path, data: &Metadata) -> String {
    let (name, me, owner) = (path.display(), User::current(), User::owner(data));
    let mode = data.mode() & 0o777;
    let cause = format!(
        "{} may not read and write {name}, which belongs to {} (mode {mode:o})",
        me.described(),
        owner.described()
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

/// That this user may not look into a folder, and as whom to run.
fn closed(path: &Path, data: Option<&Metadata>, error: &std::io::Error) -> Error {
    let (name, me) = (path.display(), User::current().described());
    let owner = data.map(User::owner);
    let run = match owner {
        Some(owner) => format!(
            "it belongs to {}: run `sudo -u {} license-server …`",
            owner.described(),
            owner.sudo_name()
        ),
        None => "run this as the user that the server runs as, or as root".to_owned(),
    };
    Error::State(format!("{me} cannot look into {name} ({error}): {run}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn what_others_may_read_or_write_is_closed_to_them() {
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
        for (link, told) in [("tls/ca.key", "is a link"), ("signing", "is a link")] {
            symlink(&other, data.join(link)).unwrap();
            let refused = secure(&data.join("t.sqlite3")).unwrap_err().to_string();
            assert!(
                refused.contains(told) && refused.contains(link),
                "{refused}"
            );
            fs::remove_file(data.join(link)).unwrap();
        }
        assert_eq!(mode(&other), 0o755);
    }

    #[test]
    fn a_key_that_everybody_may_read_is_told_and_one_that_everybody_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pair = ["chain.pem", "key.pem"].map(|name| dir.path().join(name));
        let told = |modes: [u32; 2]| {
            for (path, mode) in pair.iter().zip(modes) {
                fs::write(path, "x").unwrap();
                fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            }
            of_pair(&pair[0], &pair[1])
        };
        assert_eq!(told([0o644, 0o640]).unwrap(), None);
        assert!(told([0o644, 0o644]).unwrap().unwrap().contains("key.pem"));
        assert!(told([0o646, 0o600]).is_err() && told([0o644, 0o602]).is_err());
    }

    #[test]
    fn only_what_belongs_to_the_database_is_looked_at() {
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
    fn a_folder_that_holds_other_things_too_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
        for (open, refused) in [(0o755, false), (0o775, true), (0o777, true)] {
            fs::set_permissions(dir.path(), PermissionsExt::from_mode(open)).unwrap();
            assert_eq!(secure(&dir.path().join("t.sqlite3")).is_err(), refused);
            assert_eq!(mode(dir.path()), open);
        }
    }
}
