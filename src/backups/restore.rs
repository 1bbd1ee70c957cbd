//! Restores a backup: unpacks and checks it in a temporary folder, then puts it in place part by part. If the process
//! is killed at any point, each part is either the old one or the new one, and the server starts with any mixture.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use serde_json::json;
use tempfile::TempDir;

use super::{LostChanges, MissingKey, RestoreReport, lost, newest_change, rules};
use crate::archive::age::Decryptor;
use crate::archive::{self, BackupKind, Manifest, data_files};
use crate::audit::{Act, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{self, OldDatabase, Reader, Tx};
use crate::error::{Doing, Error, Result};
use crate::privacy::{self, ErasedAgain, Erasure, ListFiles};
use crate::security::private_file;
use crate::security::secret::Secret;
use crate::signing_keys::{self, Published};
use crate::timelines::{self, Relation};
use crate::tls::{self, TrustedAuthority};
use crate::{logins, server_state, sessions};

/// Prefix of the temporary folder in which a backup is unpacked.
const STAGING: &str = ".restore-";

/// An open backup file. It is opened before root becomes the owner of the data folder, since only root may be able to
/// read it.
#[derive(Debug)]
pub struct BackupInput {
    name: PathBuf,
    file: File,
    form: BackupKind,
    /// WAL and journal beside a bare database, with the suffix of their names.
    beside: Vec<(&'static str, File)>,
    /// The list of erased customers in the same folder, if there is one.
    erasures: Option<Vec<Erasure>>,
    passphrase: Option<Secret<String>>,
    origin: Origin,
}

/// Which server a backup may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Any but one that a standby has replaced, after that.
    #[default]
    Current,
    /// Also one that a standby has replaced.
    Any,
}

/// Where a backup is restored to.
#[derive(Clone, Copy, Debug)]
pub struct RestoreTarget<'a> {
    /// The database file.
    pub database: &'a Path,
    /// The data folder.
    pub data: &'a Path,
    /// The backup folder, if it can be used.
    pub backups: Option<&'a Path>,
    /// Whether the server uses its own certificate authority.
    pub own_authority: bool,
}

impl BackupInput {
    /// Opens a backup of the database at `database` and detects its form.
    ///
    /// # Errors
    /// [`Error::State`] if it is not a backup.
    pub fn open(name: &Path, database: &Path) -> Result<Self> {
        let given = name.display();
        let unreadable = |error: io::Error| {
            Error::State(format!("{given} cannot be read ({error}): name a backup"))
        };
        let file = open(name).map_err(unreadable)?;
        let data = file.metadata().map_err(unreadable)?;
        if !data.is_file() || data.len() == 0 {
            return Err(Error::State(format!(
                "{given} is empty or a folder: name a backup"
            )));
        }
        let form = BackupKind::of(&file).map_err(unreadable)?.ok_or_else(|| {
            Error::State(format!(
                "{given} is neither an archive of license-server nor a database: name a backup"
            ))
        })?;
        let mut beside = Vec::new();
        if form == BackupKind::Database {
            for end in ["-wal", "-journal"] {
                let mut name = name.as_os_str().to_owned();
                name.push(end);
                match open(Path::new(&name)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    file => beside.push((end, file.map_err(unreadable)?)),
                }
            }
        }
        Ok(Self {
            name: name.to_owned(),
            file,
            form,
            beside,
            erasures: erasures_in_folder_of(name, data.uid(), database)?,
            passphrase: None,
            origin: Origin::Current,
        })
    }

    /// The same backup, restored if it comes from this server.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// The same backup with the passphrase that decrypts it.
    #[must_use]
    pub fn with_passphrase(self, passphrase: Option<Secret<String>>) -> Self {
        Self { passphrase, ..self }
    }

    /// Whether it is encrypted with a passphrase.
    pub fn is_encrypted(&self) -> bool {
        self.form == BackupKind::Encrypted
    }

    /// The path as the operator gave it.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Unpacks it into the empty folder `into`; `size_max` is the free space in bytes. Returns the manifest of an
    /// archive, `None` for a bare database.
    fn unpack(&self, into: &Path, size_max: u64) -> Result<Option<Manifest>> {
        let input = BufReader::new(&self.file);
        let unpacked = match (self.form, &self.passphrase) {
            (BackupKind::Database, _) => return self.copy_database(into, size_max).map(|()| None),
            (BackupKind::Archive, _) => archive::unpack(input, into, size_max),
            (BackupKind::Encrypted, Some(passphrase)) => {
                let opened = Decryptor::begin(input, passphrase).map_err(|error| {
                    Error::State(if error.kind() == io::ErrorKind::PermissionDenied {
                        "it is encrypted with another passphrase: name the right one with --passphrase-file"
                            .to_owned()
                    } else {
                        format!("it cannot be decrypted: {error}")
                    })
                });
                opened.and_then(|opened| archive::unpack(opened, into, size_max))
            }
            (BackupKind::Encrypted, None) => Err(Error::State(
                "it is encrypted: name the file with its passphrase with --passphrase-file, or in [backup] \
                 passphrase_file"
                    .to_owned(),
            )),
        };
        let name = self.name.display();
        unpacked.map(Some).map_err(|error| match error {
            Error::State(message) => {
                Error::State(format!("{name}: {message}; nothing was changed"))
            }
            other => other,
        })
    }

    fn copy_database(&self, into: &Path, size_max: u64) -> Result<()> {
        let database = into.join(archive::DATABASE);
        let beside = self.beside.iter().map(|(end, file)| (*end, file));
        for (end, mut file) in std::iter::once(("", &self.file)).chain(beside) {
            let bytes = file.metadata().doing("measure a backup")?.len();
            if bytes > size_max {
                return Err(Error::State(format!(
                    "there is not enough space for {}: free some in the data folder",
                    self.name.display()
                )));
            }
            let mut name = database.clone().into_os_string();
            name.push(end);
            let mut copy = File::create_new(name).doing("copy a backup")?;
            io::copy(&mut file, &mut copy).doing("copy a backup")?;
        }
        Ok(())
    }
}

/// The list of erased customers of the database at `database` that is in the folder of the backup `name`, if there is one
/// that belongs to the owner of the backup: others could name customers who are to be erased.
fn erasures_in_folder_of(name: &Path, owner: u32, database: &Path) -> Result<Option<Vec<Erasure>>> {
    let list = name.with_file_name(privacy::list_name(database));
    let given = list.display();
    let unreadable = |error: io::Error| {
        Error::State(format!(
            "{given} cannot be read ({error}): nothing was changed"
        ))
    };
    let mut file = match open(&list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(unreadable)?,
    };
    let data = file.metadata().map_err(unreadable)?;
    if !data.is_file() || data.uid() != owner {
        log::warn!("{given} is not used, since it is not a file of the owner of the backup");
        return Ok(None);
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    privacy::parse_list(&text, &list).map(Some)
}

/// Opens a file without blocking: opening a named pipe would wait forever for a writer.
fn open(name: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(name)
}

/// The keys that belong to a database, according to the database.
#[derive(Debug)]
pub struct ExpectedKeys {
    signing: Option<Published>,
    authority: TrustedAuthority,
}

impl ExpectedKeys {
    /// Those of the database that is read.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(reader: &Reader<'_>, now: UnixMs) -> Result<Self> {
        Ok(Self {
            signing: signing_keys::published(reader, now)?,
            authority: signing_keys::trusted_authority(reader)?,
        })
    }

    /// Those that the data folder does not have.
    ///
    /// # Errors
    /// If a key file cannot be read.
    pub fn missing_in(&self, target: RestoreTarget<'_>) -> Result<Vec<MissingKey>> {
        let mut missing = Vec::new();
        if let Some(known) = &self.signing {
            let lost = signing_keys::missing_keys(target.data, known)?;
            missing.extend(lost.into_iter().map(MissingKey::SigningKey));
        }
        if target.own_authority {
            let found = tls::authority_key(target.data)?;
            match (self.authority, found) {
                (TrustedAuthority::Key(_) | TrustedAuthority::Unknown, None) => {
                    missing.push(MissingKey::Authority);
                }
                (TrustedAuthority::Key(known), Some(found)) if known != found => {
                    missing.push(MissingKey::KnownAuthority);
                }
                _ => {}
            }
        }
        Ok(missing)
    }
}

/// Replaces the database, certificates and signing keys by those of `input`, while no server runs. Ends all sessions
/// and logins in it, since they may have changed after the backup was made.
///
/// # Errors
/// [`Error::State`] when a server runs, or when the backup is damaged or was tampered with; then nothing is changed.
pub fn restore(
    input: &BackupInput,
    target: RestoreTarget<'_>,
    actor: &Actor,
    now: UnixMs,
) -> Result<RestoreReport> {
    let replacement = db::Restore::begin(target.database)?;
    let unpacked = Unpacked::new(input, target.data, &replacement)?;
    let (staged, from) = (unpacked.folder.path(), input.name());
    let lists = ListFiles::of(replacement.path(), target.backups);
    let mut known = KnownErasures::new(lists.read()?, input.erasures.clone());
    let finalize = |tx: &Tx<'_>, replaced: &OldDatabase<'_>| {
        finalize(&Act::new(tx, actor, now), input, replaced, &mut known)
    };
    let (ready, finalized) =
        replacement.prepare(&staged.join(archive::DATABASE), from, finalize)?;
    let (timestamp, mut replaced_folders) = (rules::timestamp(now), Vec::new());
    // Add the keys first and remove none yet, so that the keys of both the old and the new database are present.
    if unpacked.contains("signing") {
        add_keys(staged, target.data)?;
    }
    if unpacked.contains("tls") {
        replaced_folders.extend(put_certificates(staged, target.data, &timestamp)?);
    }
    lists.add(&known.erasures)?;
    let database = replacement.put_in_place(ready, &timestamp)?;
    if unpacked.contains("signing") {
        replaced_folders.extend(move_old_keys_aside(staged, target.data, &timestamp)?);
    }
    Ok(RestoreReport {
        database,
        lost: finalized.lost,
        sessions_ended: finalized.sessions_ended,
        erased_again: finalized.erased_again,
        no_erased_list_since: finalized.no_erased_list_since,
        is_archive: unpacked.manifest.is_some(),
        replaced_folders,
        missing: finalized.expected_keys.missing_in(target)?,
    })
}

/// An unpacked backup.
struct Unpacked {
    /// Deleted when dropped.
    folder: TempDir,
    /// `None` for a bare database.
    manifest: Option<Manifest>,
}

impl Unpacked {
    fn new(input: &BackupInput, data: &Path, replacement: &db::Restore) -> Result<Self> {
        let folder = staging_folder(data)?;
        let size_max = db::max_restore_size(replacement.path())?;
        let manifest = input.unpack(folder.path(), size_max)?;
        Ok(Self { folder, manifest })
    }

    /// Whether it has files in `folder`.
    fn contains(&self, folder: &str) -> bool {
        self.manifest.as_ref().is_some_and(|list| list.has(folder))
    }
}

/// The result of [`finalize`].
struct Finalized {
    lost: LostChanges,
    sessions_ended: usize,
    erased_again: Vec<ErasedAgain>,
    no_erased_list_since: Option<UnixMs>,
    expected_keys: ExpectedKeys,
}

/// The erasures that something else than the unpacked database lists.
struct KnownErasures {
    erasures: Vec<Erasure>,
    /// Whether there is a list at all.
    is_listed: bool,
}

impl KnownErasures {
    /// From the list of the replaced database, and that in the folder of the backup.
    fn new(own: Option<Vec<Erasure>>, of_backup: Option<Vec<Erasure>>) -> Self {
        let is_listed = own.is_some() || of_backup.is_some();
        let erasures = own.into_iter().chain(of_backup).flatten().collect();
        Self {
            erasures,
            is_listed,
        }
    }
}

/// Erases in the unpacked database the customers that were erased after it was made. Adds to `known` those that only
/// one of the databases lists.
fn erase_again(
    act: &Act<'_>,
    known: &mut KnownErasures,
    replaced: &OldDatabase<'_>,
) -> Result<Vec<ErasedAgain>> {
    if let OldDatabase::File(replaced) = replaced {
        match privacy::erasures_in_use(replaced) {
            Ok(Some(erasures)) => {
                known.erasures.extend(erasures);
                known.is_listed = true;
            }
            // The first start on a new machine has made it.
            Ok(None) => {}
            // A damaged database is a reason to restore, and one of an earlier version has no list: the file beside it
            // counts then.
            Err(error) => log::warn!(
                "the replaced database has no readable list of erased customers ({error}): the file beside it counts"
            ),
        }
    }
    known.erasures.extend(privacy::erasures(act.tx)?);
    privacy::erase_again(act, &known.erasures)
}

/// Prepares the unpacked database for its use: ends all sessions and logins in it, records the restore, and erases
/// customers again. Adds to `known` the erasures that only one of the databases lists.
fn finalize(
    act: &Act<'_>,
    input: &BackupInput,
    replaced: &OldDatabase<'_>,
    known: &mut KnownErasures,
) -> Result<Finalized> {
    let newest_in_copy = newest_change(act.tx)?;
    continue_timelines(act.tx, input, replaced, newest_in_copy)?;
    let lost = lost(newest_in_copy, replaced);
    if let LostChanges::Span(_, until) = &lost {
        // The trusted date must not go back: what had expired by then stays expired.
        server_state::advance(act.tx, *until)?;
    }
    let sessions_ended = sessions::end_all(act.tx, act.now)?;
    logins::end_all_logins(act.tx)?;
    act.note(&Change {
        action: "backups.restore",
        subject: &input.name.display().to_string(),
        before: lost.replaced(),
        after: json!({ "sessions_ended": sessions_ended }),
    })?;
    let erased_again = erase_again(act, known, replaced)?;
    let expected_keys = ExpectedKeys::of(act.tx, act.now)?;
    Ok(Finalized {
        lost,
        sessions_ended,
        erased_again,
        no_erased_list_since: (!known.is_listed).then_some(newest_in_copy),
        expected_keys,
    })
}

/// Gives the unpacked database the timelines of the one that it replaces.
///
/// # Errors
/// [`Error::State`] if it comes from a server that a standby had replaced before, unless that is wanted.
fn continue_timelines(
    tx: &Tx<'_>,
    input: &BackupInput,
    replaced: &OldDatabase<'_>,
    newest_in_copy: UnixMs,
) -> Result<()> {
    let OldDatabase::File(replaced) = replaced else {
        return Ok(());
    };
    // A damaged database is a reason to restore.
    let present = timelines::list(replaced).unwrap_or_default();
    let missing = match timelines::relation(&timelines::list(tx)?, &present) {
        Relation::Precedes(missing) if newest_in_copy > missing.continues => Some(missing),
        Relation::Diverged(missing) => Some(missing),
        Relation::Same | Relation::Continues | Relation::Precedes(_) => None,
    };
    if let Some(missing) = missing.filter(|_| input.origin == Origin::Current) {
        return Err(Error::State(format!(
            "{} comes from a server that was replaced: a standby took over on {} with the changes until {}, and this copy \
             has later ones, until {}. Nothing was changed. Restore a copy of this server; or, to take that one all the \
             same, add --replaced-server",
            input.name.display(),
            missing.began_at.rfc3339(),
            missing.continues.rfc3339(),
            newest_in_copy.rfc3339()
        )));
    }
    timelines::take_over(tx, &present)
}

/// Creates a temporary folder to unpack a backup in.
fn staging_folder(data: &Path) -> Result<TempDir> {
    // It may not exist if the database is a link to another folder.
    fs::create_dir_all(data).doing("make the data folder")?;
    remove_staging_folders(data)?;
    let made = tempfile::Builder::new().prefix(STAGING).tempdir_in(data);
    made.doing("make a folder to unpack a backup in")
}

/// Deletes the temporary folders that killed restores have left in the data folder. The caller holds the lock of the
/// database, so that no restore runs.
///
/// # Errors
/// If the folder cannot be read or changed.
pub fn remove_staging_folders(data: &Path) -> Result<()> {
    for entry in fs::read_dir(data).doing("read the data folder")? {
        let entry = entry.doing("read the data folder")?;
        let left = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(STAGING.as_bytes());
        if left && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(entry.path()).doing("delete an unfinished restore")?;
        }
    }
    Ok(())
}

/// Adds the signing keys of a backup to the existing ones.
fn add_keys(staged: &Path, data: &Path) -> Result<()> {
    fs::create_dir_all(data.join("signing")).doing("make the folder of the signing keys")?;
    let present = data_files::of_folder(data, "signing")?;
    for key in data_files::of_folder(staged, "signing")? {
        if !present.contains(&key) {
            private_file::write(&data.join(&key.name), &key.bytes)
                .doing("restore a signing key")?;
        }
    }
    Ok(())
}

/// Moves signing keys that are not in the backup to a folder beside `signing`. Returns it, or `None` if there are none.
fn move_old_keys_aside(staged: &Path, data: &Path, timestamp: &str) -> Result<Option<PathBuf>> {
    let wanted = data_files::of_folder(staged, "signing")?;
    let old = data_files::of_folder(data, "signing")?.into_iter();
    let old: Vec<_> = old
        .filter(|key| !wanted.iter().any(|other| other.name == key.name))
        .collect();
    if old.is_empty() {
        return Ok(None);
    }
    let old_folder = private_file::unused_name(
        &data.join("signing"),
        &format!(".before-restore-{timestamp}"),
    );
    let old_folder = old_folder.doing("find a name for old keys")?;
    fs::create_dir(&old_folder).doing("keep old signing keys")?;
    for key in old {
        let from = data.join(&key.name);
        let name = from.file_name().unwrap_or_default();
        private_file::rename(&from, &old_folder.join(name)).doing("keep an old signing key")?;
    }
    Ok(Some(old_folder))
}

/// Replaces the certificates by those of the backup, atomically, unless they are the same. Returns where the old ones
/// are kept, or `None` if nothing was replaced.
fn put_certificates(staged: &Path, data: &Path, timestamp: &str) -> Result<Option<PathBuf>> {
    let (restored, current) = (staged.join("tls"), data.join("tls"));
    if !current.exists() {
        fs::rename(&restored, &current).doing("restore the certificates")?;
        private_file::sync_parents(&current).doing("restore the certificates")?;
        return Ok(None);
    }
    // Keep the existing ACME certificate: it is newer than that of the backup.
    let present = data_files::of_folder(data, "tls/acme")?;
    if !present.is_empty() {
        let old = restored.join("acme");
        if old.exists() {
            fs::remove_dir_all(&old).doing("restore the certificates")?;
        }
        fs::create_dir_all(&old).doing("restore the certificates")?;
        for file in present {
            let file_name = staged.join(&file.name);
            private_file::write(&file_name, &file.bytes).doing("restore the certificates")?;
        }
    }
    if data_files::of_folder(staged, "tls")? == data_files::of_folder(data, "tls")? {
        return Ok(None);
    }
    let old_copy = private_file::unused_name(&current, &format!(".before-restore-{timestamp}"));
    let old_copy = old_copy.doing("find a name for old certificates")?;
    // Move the restored folder to the name for the old one, then exchange the two atomically.
    fs::rename(&restored, &old_copy).doing("restore the certificates")?;
    let exchanged = rustix::fs::renameat_with(CWD, &old_copy, CWD, &current, RenameFlags::EXCHANGE);
    if let Err(error) = exchanged {
        // Not every file system supports an atomic exchange.
        log::debug!("cannot exchange the certificates atomically: {error}");
        let between = private_file::unused_name(&current, ".old").doing("find a name")?;
        fs::rename(&current, &between).doing("keep the old certificates")?;
        fs::rename(&old_copy, &current).doing("restore the certificates")?;
        fs::rename(&between, &old_copy).doing("keep the old certificates")?;
    }
    private_file::sync_parents(&current).doing("restore the certificates")?;
    Ok(Some(old_copy))
}

impl LostChanges {
    /// The lost period, for the audit log.
    pub fn replaced(&self) -> serde_json::Value {
        match self {
            Self::NoFile => serde_json::Value::Null,
            Self::Span(from, until) => {
                json!({ "lost_from": from.rfc3339(), "lost_until": until.rfc3339() })
            }
            Self::Unknown(from, _) => json!({ "lost_from": from.rfc3339() }),
        }
    }
}
