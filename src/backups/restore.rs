//! A backup is put back: looked at in a folder of its own first, and then put in place part by part, so that whenever it
//! breaks off each part is the old one or the new one, and a server starts on any mixture of them.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use serde_json::json;
use tempfile::TempDir;

use super::{Lost, Missing, Restored, create, lost, newest, rules};
use crate::archive::age::Opened;
use crate::archive::{self, Form, Manifest};
use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{self, Replaced, Tx};
use crate::error::{Doing, Error, Result};
use crate::security::private_file;
use crate::security::secret::Secret;
use crate::signing_keys::{self, Published};
use crate::tls::{self, Trusted};
use crate::{admins, server_state, sessions};

/// What a folder is called in which a backup is unpacked, before a part that is random.
const STAGING: &str = ".restore-";

/// A backup that is to be put back, open: who opened it may be another user than who works with it.
#[derive(Debug)]
pub struct Input {
    name: PathBuf,
    file: File,
    form: Form,
    /// What SQLite may have left beside a bare database, by the end of its name.
    beside: Vec<(&'static str, File)>,
}

/// Where it is put.
#[derive(Clone, Copy, Debug)]
pub struct RestoreTarget<'a> {
    /// The database file.
    pub database: &'a Path,
    /// The data folder.
    pub data: &'a Path,
    /// Whether programs trust an authority of our own.
    pub own_authority: bool,
}

impl Input {
    /// Opens a backup, and looks what it is.
    ///
    /// # Errors
    /// [`Error::State`] for what is none.
    pub fn open(name: &Path) -> Result<Self> {
        let given = name.display();
        let none = |error: io::Error| {
            Error::State(format!(
                "{given} is no file that can be read ({error}): name a backup"
            ))
        };
        let file = open(name).map_err(none)?;
        let data = file.metadata().map_err(none)?;
        if !data.is_file() || data.len() == 0 {
            return Err(Error::State(format!(
                "{given} is empty or a folder: name a backup"
            )));
        }
        let form = Form::of(&file).map_err(none)?.ok_or_else(|| {
            Error::State(format!(
                "{given} is neither an archive of license-server nor a database: name a backup"
            ))
        })?;
        let mut beside = Vec::new();
        if form == Form::Database {
            for end in ["-wal", "-journal"] {
                let mut name = name.as_os_str().to_owned();
                name.push(end);
                match open(Path::new(&name)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    file => beside.push((end, file.map_err(none)?)),
                }
            }
        }
        let name = name.to_owned();
        Ok(Self {
            name,
            file,
            form,
            beside,
        })
    }

    /// Whether it takes a passphrase to open.
    pub fn is_encrypted(&self) -> bool {
        self.form == Form::Sealed
    }

    /// The name that the operator gave it.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Puts what is in it into the empty folder `into`; what an archive says of itself.
    fn unpack(
        &self,
        passphrase: Option<&Secret<String>>,
        into: &Path,
        room: u64,
    ) -> Result<Option<Manifest>> {
        let input = BufReader::new(&self.file);
        let unpacked = match (self.form, passphrase) {
            (Form::Database, _) => return self.copy_database(into, room).map(|()| None),
            (Form::Archive, _) => archive::unpack(input, into, room),
            (Form::Sealed, Some(passphrase)) => {
                let opened = Opened::begin(input, passphrase).map_err(|error| {
                    Error::State(if error.kind() == io::ErrorKind::PermissionDenied {
                        "it is encrypted with another passphrase: name the right one with --passphrase-file"
                            .to_owned()
                    } else {
                        format!("it cannot be decrypted: {error}")
                    })
                });
                opened.and_then(|opened| archive::unpack(opened, into, room))
            }
            (Form::Sealed, None) => Err(Error::State(
                "it is encrypted: name the file with its passphrase with --passphrase-file, or in [backup] \
                 passphrase_file"
                    .to_owned(),
            )),
        };
        let name = self.name.display();
        unpacked.map(Some).map_err(|error| match error {
            Error::State(told) => Error::State(format!("{name}: {told}; nothing was changed")),
            other => other,
        })
    }

    fn copy_database(&self, into: &Path, room: u64) -> Result<()> {
        let database = into.join(archive::DATABASE);
        let beside = self.beside.iter().map(|(end, file)| (*end, file));
        for (end, mut file) in std::iter::once(("", &self.file)).chain(beside) {
            let bytes = file.metadata().doing("measure a backup")?.len();
            if bytes > room {
                return Err(Error::State(format!(
                    "there is no room for {}: make room in the data folder",
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

/// A named pipe would be waited for without end.
fn open(name: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(name)
}

/// What a database says of the keys that belong to it.
struct Belongs {
    signing: Option<Published>,
    authority: Trusted,
}

/// Makes `input` what is served, while no server runs. Sessions and logins in it are over: what became of them after
/// it was made is not known.
///
/// # Errors
/// [`Error::State`] when a server runs, or when it is no backup, damaged, or not as we leave one; nothing is changed
/// then.
pub fn restore(
    input: &Input,
    passphrase: Option<&Secret<String>>,
    place: RestoreTarget<'_>,
    actor: &Actor,
    now: UnixMs,
) -> Result<Restored> {
    let held = db::Restore::begin(place.database)?;
    let staging = staging(place.data)?;
    let staged = staging.path();
    let room = db::room(held.path())?;
    let manifest = input.unpack(passphrase, staged, room)?;
    let from = input.name();
    let settle = |tx: &Tx<'_>, replaced: &Replaced<'_>| {
        let lost = lost(newest(tx)?, replaced);
        if let Lost::Span(_, until) = &lost {
            // What had expired by then stays expired.
            server_state::advance(tx, *until)?;
        }
        let sessions_ended = sessions::end_all(tx, now)?;
        admins::end_all_logins(tx)?;
        let subject = from.display().to_string();
        let deed = Change {
            what: "backups.restore",
            subject: &subject,
            before: lost.replaced(),
            after: json!({ "sessions_ended": sessions_ended }),
        };
        audit::note(tx, now, actor, &deed)?;
        let belongs = Belongs {
            signing: signing_keys::published(tx, now)?,
            authority: signing_keys::trusted_authority(tx)?,
        };
        Ok((lost, sessions_ended, belongs))
    };
    let (ready, (lost, sessions_ended, belongs)) =
        held.prepare(&staged.join(archive::DATABASE), from, settle)?;
    let stamp = rules::stamp(now);
    let mut kept = Vec::new();
    let has = |folder| manifest.as_ref().is_some_and(|list| list.has(folder));
    // Keys first, and none is taken away yet: whichever database a server finds, its keys are there.
    if has("signing") {
        add_keys(staged, place.data)?;
    }
    if has("tls") {
        kept.extend(put_certificates(staged, place.data, &stamp)?);
    }
    let file = held.put_in_place(ready, &stamp)?;
    if has("signing") {
        kept.extend(set_keys_aside(staged, place.data, &stamp)?);
    }
    let missing = missing(place, &belongs)?;
    Ok(Restored {
        file,
        lost,
        sessions_ended,
        whole: manifest.is_some(),
        kept,
        missing,
    })
}

/// A folder to unpack a backup in; what others left that died over it goes.
fn staging(data: &Path) -> Result<TempDir> {
    // Where the database is elsewhere, by a link.
    fs::create_dir_all(data).doing("make the data folder")?;
    for entry in fs::read_dir(data).doing("look into the data folder")? {
        let entry = entry.doing("look into the data folder")?;
        let left = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(STAGING.as_bytes());
        if left && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(entry.path()).doing("throw away half a restore")?;
        }
    }
    let made = tempfile::Builder::new().prefix(STAGING).tempdir_in(data);
    made.doing("make a folder to unpack a backup in")
}

/// Adds the signing keys of a backup to those that are there.
fn add_keys(staged: &Path, data: &Path) -> Result<()> {
    fs::create_dir_all(data.join("signing")).doing("make the folder of the signing keys")?;
    let present = create::files(data, "signing")?;
    for key in create::files(staged, "signing")? {
        if !present.contains(&key) {
            private_file::write(&data.join(&key.name), &key.bytes)
                .doing("restore a signing key")?;
        }
    }
    Ok(())
}

/// Moves signing keys that are not in the backup to a folder beside those that are.
fn set_keys_aside(staged: &Path, data: &Path, stamp: &str) -> Result<Option<PathBuf>> {
    let wanted = create::files(staged, "signing")?;
    let others = create::files(data, "signing")?.into_iter();
    let others: Vec<_> = others
        .filter(|key| !wanted.iter().any(|other| other.name == key.name))
        .collect();
    if others.is_empty() {
        return Ok(None);
    }
    let kept = private_file::unused(&data.join("signing"), &format!(".before-restore-{stamp}"));
    let kept = kept.doing("find a name for old keys")?;
    fs::create_dir(&kept).doing("keep old signing keys")?;
    for key in others {
        let from = data.join(&key.name);
        let name = from.file_name().unwrap_or_default();
        private_file::rename(&from, &kept.join(name)).doing("keep an old signing key")?;
    }
    Ok(Some(kept))
}

/// Puts the certificates of a backup in place, all at once, where they are others than those that are there.
fn put_certificates(staged: &Path, data: &Path, stamp: &str) -> Result<Option<PathBuf>> {
    let (new, place) = (staged.join("tls"), data.join("tls"));
    if !place.exists() {
        fs::rename(&new, &place).doing("restore the certificates")?;
        private_file::sync_names(&place).doing("restore the certificates")?;
        return Ok(None);
    }
    // A certificate by another authority was renewed since, and is of more use than that of the backup.
    let present = create::files(data, "tls/acme")?;
    if !present.is_empty() {
        let old = new.join("acme");
        if old.exists() {
            fs::remove_dir_all(&old).doing("restore the certificates")?;
        }
        fs::create_dir_all(&old).doing("restore the certificates")?;
        for file in present {
            let file_name = staged.join(&file.name);
            private_file::write(&file_name, &file.bytes).doing("restore the certificates")?;
        }
    }
    if create::files(staged, "tls")? == create::files(data, "tls")? {
        return Ok(None);
    }
    let kept = private_file::unused(&place, &format!(".before-restore-{stamp}"));
    let kept = kept.doing("find a name for old certificates")?;
    fs::rename(&new, &kept).doing("restore the certificates")?;
    let exchanged = rustix::fs::renameat_with(CWD, &kept, CWD, &place, RenameFlags::EXCHANGE);
    if let Err(error) = exchanged {
        // Not every file system knows how to do it at once.
        log::debug!("certificates are exchanged one after the other: {error}");
        let between = private_file::unused(&place, ".old").doing("find a name")?;
        fs::rename(&place, &between).doing("keep the old certificates")?;
        fs::rename(&kept, &place).doing("restore the certificates")?;
        fs::rename(&between, &kept).doing("keep the old certificates")?;
    }
    private_file::sync_names(&place).doing("restore the certificates")?;
    Ok(Some(kept))
}

/// What the database that is in place now needs and the data folder does not have.
fn missing(place: RestoreTarget<'_>, belongs: &Belongs) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    if let Some(known) = &belongs.signing {
        let lost = signing_keys::lost(place.data, known)?;
        missing.extend(lost.into_iter().map(Missing::SigningKey));
    }
    if place.own_authority {
        let found = tls::authority_of(place.data)?;
        match (belongs.authority, found) {
            (Trusted::Key(_) | Trusted::Unknown, None) => missing.push(Missing::Authority),
            (Trusted::Key(known), Some(found)) if known != found => {
                missing.push(Missing::KnownAuthority);
            }
            _ => {}
        }
    }
    Ok(missing)
}

impl Lost {
    /// For the audit log.
    fn replaced(&self) -> serde_json::Value {
        match self {
            Self::NoFile => serde_json::Value::Null,
            Self::Span(from, until) => {
                json!({ "lost_from": from.rfc3339(), "lost_until": until.rfc3339() })
            }
            Self::Unknown(from, _) => json!({ "lost_from": from.rfc3339() }),
        }
    }
}
