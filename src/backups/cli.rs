//! The door for the operator on the machine: a copy out, a copy back in.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Input, Lost, Missing, RestoreTarget, Restored, Scope, Written, rules};
use crate::audit::Actor;
use crate::clock::UnixMs;
use crate::console;
use crate::db::Db;
use crate::error::{Doing, Error, Result};
use crate::security::private_file::Draft;
use crate::security::run_as;
use crate::security::secret::Secret;

/// The file that a backup is to be, in the making. Root makes it as root: where root may write, the owner of the data
/// folder often may not.
#[derive(Debug)]
pub struct Target {
    name: PathBuf,
    draft: Draft,
}

impl Target {
    /// Begins the file `name`. In a folder of the user to whom the data folder belongs it belongs to that user.
    ///
    /// # Errors
    /// [`Error::State`] when there is something of that name, or no file can be made there.
    pub fn begin(name: &Path, data: &Path) -> Result<Self> {
        let given = name.display();
        let taken = || Error::State(format!("{given} already exists: choose another file name"));
        if name.symlink_metadata().is_ok() {
            return Err(taken());
        }
        let here = name
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let impossible = |error: std::io::Error| {
            Error::State(format!(
                "{given} cannot be created ({error}): choose another file"
            ))
        };
        let folder = fs::canonicalize(here.unwrap_or(Path::new("."))).map_err(impossible)?;
        let file_name = name
            .file_name()
            .ok_or_else(|| impossible(ErrorKind::InvalidInput.into()))?;
        let draft = Draft::begin(&folder.join(file_name), ".part").map_err(impossible)?;
        if run_as::owner_of(&folder)? == run_as::owner_of(data)? {
            draft
                .give_to_the_owner_of_its_folder()
                .doing("hand over a backup")?;
        }
        let name = name.to_owned();
        Ok(Self { name, draft })
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        self.draft.folder()
    }

    /// Writes the backup into it.
    ///
    /// # Errors
    /// When there is no room, or the copy of the database does not check out.
    pub fn fill(&self, db: &Db, data: &Path, scope: Scope<'_>, now: UnixMs) -> Result<Written> {
        super::create::write(db, data, scope, &self.draft, now)
    }

    /// Gives it its name, and says what is in it.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn keep(self, written: &Written, json: bool) -> Result<()> {
        let file = self.name;
        self.draft.keep_new().map_err(|error| {
            let name = file.display();
            Error::State(format!(
                "{name} cannot be created ({error}): choose another file"
            ))
        })?;
        if json {
            let mut document = json!(written);
            if let Some(map) = document.as_object_mut() {
                map.insert("file".to_owned(), json!(file));
            }
            return console::json(&document);
        }
        console::text(&told(&file, written))
    }
}

fn told(file: &Path, written: &Written) -> String {
    let mut lines = vec![format!(
        "{} bytes written and checked: {}",
        written.bytes,
        file.display()
    )];
    if written.files.is_empty() {
        lines.push(
            "database only: without the certificate authority in data/tls and the signing keys in data/signing"
                .to_owned(),
        );
    } else {
        let secret = if written.encrypted {
            "it opens only with the passphrase: keep the passphrase elsewhere"
        } else {
            "it contains every key: keep it safe"
        };
        let count = written.files.len();
        lines.push(format!(
            "the database and {count} files with certificates and keys; {secret}"
        ));
    }
    let missing = written.missing.iter();
    lines.extend(missing.map(|name| {
        format!("missing: {name}, which the database needs; see `license-server check`")
    }));
    lines.join("\n") + "\n"
}

/// Puts a backup back, and says what that costs.
///
/// # Errors
/// As [`super::restore()`].
pub fn restore(
    input: &Input,
    passphrase: Option<&Secret<String>>,
    place: RestoreTarget<'_>,
    user: &str,
    now: UnixMs,
    json: bool,
) -> Result<()> {
    let actor = Actor::command_line(user);
    let restored = super::restore(input, passphrase, place, &actor, now)?;
    if json {
        let restored = document(&restored);
        return console::json(&json!({ "database": place.database, "restored": restored }));
    }
    console::text(&lines(input.name(), &restored))
}

fn document(restored: &Restored) -> Value {
    let mut document = json!(restored.file);
    let lost = match &restored.lost {
        Lost::NoFile => Value::Null,
        Lost::Span(from, until) => json!({
            "from": from.rfc3339(), "until": until.rfc3339(), "seconds": span(*from, *until).as_secs(),
        }),
        Lost::Unknown(from, reason) => {
            json!({ "from": from.rfc3339(), "until": null, "reason": reason })
        }
    };
    if let Some(map) = document.as_object_mut() {
        map.insert("lost".to_owned(), lost);
        map.insert("sessions_ended".to_owned(), restored.sessions_ended.into());
        let form = if restored.whole {
            "archive"
        } else {
            "database"
        };
        map.insert("form".to_owned(), form.into());
        map.insert("kept_keys".to_owned(), json!(restored.kept));
        let keys = restored.missing.iter().filter_map(|missing| match missing {
            Missing::SigningKey(id) => Some(id),
            Missing::Authority | Missing::KnownAuthority => None,
        });
        map.insert(
            "missing_signing_keys".to_owned(),
            json!(keys.collect::<Vec<_>>()),
        );
        let lost = [Missing::Authority, Missing::KnownAuthority];
        let lost = lost.iter().any(|lost| restored.missing.contains(lost));
        map.insert("missing_authority".to_owned(), lost.into());
    }
    document
}

fn lines(file: &Path, restored: &Restored) -> String {
    let kept = restored.file.kept.as_ref();
    let kept = kept.map(|kept| format!("; the old one is kept as {}", kept.display()));
    let lost = match &restored.lost {
        Lost::NoFile => "there was no database before".to_owned(),
        Lost::Span(from, until) if from >= until => {
            "no changes are lost: the copy is as recent as the database that it replaces".to_owned()
        }
        Lost::Span(from, until) => format!(
            "changes made between {} and {} ({}) are lost; they remain in the old database",
            from.rfc3339(),
            until.rfc3339(),
            rules::words(span(*from, *until)),
        ),
        Lost::Unknown(from, reason) => format!(
            "changes made after {} are lost; until when is unknown: {reason}",
            from.rfc3339()
        ),
    };
    let mut lines = format!(
        "{} is now the database{}\n{lost}\n{} of the copy {} ended; the programs will start new ones\n",
        file.display(),
        kept.unwrap_or_default(),
        count(restored.sessions_ended, "session"),
        if restored.sessions_ended == 1 {
            "was"
        } else {
            "were"
        },
    );
    lines += if restored.whole {
        "certificates and signing keys of the copy were restored\n"
    } else {
        "the copy is a database only: the existing certificates and signing keys were kept\n"
    };
    let kept = restored.kept.iter();
    lines.extend(kept.map(|kept| format!("the replaced ones are kept in {}\n", kept.display())));
    let missing = restored.missing.iter();
    lines.extend(missing.map(|missing| format!("MISSING: {}\n", consequence(missing))));
    lines
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// What is missing, what that means, and what to do.
fn consequence(missing: &Missing) -> String {
    match missing {
        Missing::SigningKey(id) => format!(
            "the signing key {id}: copy its file from the old machine into data/signing; without it the server does not \
             start. `license-server config rotate-signing-key --lost` creates a new one, which every program and site \
             that verifies responses then needs"
        ),
        Missing::Authority => "the certificate authority: copy data/tls from the old machine; without it the \
             server does not start. `license-server config new-authority` creates a new one, whose data/tls/ca.pem every \
             program then needs before it can connect again"
            .to_owned(),
        Missing::KnownAuthority => "the authority that programs trust: data/tls contains a different one. Copy data/tls from the \
             old machine or, if programs trust the one that is here, run `license-server config new-authority`"
            .to_owned(),
    }
}

fn span(from: UnixMs, until: UnixMs) -> Duration {
    Duration::from_millis(u64::try_from(until.0.saturating_sub(from.0)).unwrap_or(0))
}
