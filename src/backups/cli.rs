//! The commands `backup` and `restore`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{LiveData, LostChanges, MissingKey, RestoreReport, Scope, WrittenBackup, rules};
use crate::clock::UnixMs;
use crate::console::{self, OutputFormat};
use crate::error::{Doing, Error, Result};
use crate::security::private_file::Draft;
use crate::security::run_as;

/// The output file of `backup`, under construction. Root creates it as root, since the owner of the data folder may
/// not be allowed to write there.
#[derive(Debug)]
pub struct OutputFile {
    name: PathBuf,
    draft: Draft,
}

impl OutputFile {
    /// Creates the file `name`. If its folder has the same owner as the data folder, the file gets that owner, too.
    ///
    /// # Errors
    /// [`Error::State`] when the name is taken, or no file can be created there.
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
        let draft = Draft::create(&folder.join(file_name), ".part").map_err(impossible)?;
        if run_as::owner_of(&folder)? == run_as::owner_of(data)? {
            draft
                .chown_to_folder_owner()
                .doing("change the owner of a backup")?;
        }
        let name = name.to_owned();
        Ok(Self { name, draft })
    }

    /// The folder that contains it.
    pub fn folder(&self) -> &Path {
        self.draft.folder()
    }

    /// Writes the backup into it.
    ///
    /// # Errors
    /// When the disk is full, or the copy of the database is damaged.
    pub fn write(
        &self,
        live: LiveData<'_>,
        scope: Scope<'_>,
        now: UnixMs,
    ) -> Result<WrittenBackup> {
        super::create::write(live, scope, &self.draft, now)
    }

    /// Gives it its final name, and prints what it contains.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be renamed.
    pub fn finish(self, written: &WrittenBackup, output: OutputFormat) -> Result<()> {
        let file = self.name;
        self.draft.persist_new().map_err(|error| {
            let name = file.display();
            Error::State(format!(
                "{name} cannot be created ({error}): choose another file"
            ))
        })?;
        if output == OutputFormat::Json {
            let mut document = json!(written);
            if let Some(map) = document.as_object_mut() {
                map.insert("file".to_owned(), json!(file));
            }
            return console::json(&document);
        }
        console::text(&backup_text(&file, written))
    }
}

/// The output of `backup`.
fn backup_text(file: &Path, written: &WrittenBackup) -> String {
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
        let advice = if written.encrypted {
            "it opens only with the passphrase: keep the passphrase elsewhere"
        } else {
            "it contains every key: keep it safe"
        };
        let count = written.files.len();
        lines.push(format!(
            "the database and {count} files with certificates and keys; {advice}"
        ));
    }
    let missing = written.missing.iter();
    lines.extend(missing.map(|name| {
        format!("missing: {name}, which the database needs; see `license-server check`")
    }));
    lines.join("\n") + "\n"
}

/// Prints that the backup `file` was restored as `database`, and what is lost.
///
/// # Errors
/// If standard output cannot be written.
pub fn show_restored(
    file: &Path,
    database: &Path,
    restored: &RestoreReport,
    output: OutputFormat,
) -> Result<()> {
    if output == OutputFormat::Json {
        let restored = to_json(restored);
        return console::json(&json!({ "database": database, "restored": restored }));
    }
    console::text(&restore_text(file, restored))
}

/// The changes that are lost, as JSON.
pub fn lost_to_json(lost: &LostChanges) -> Value {
    match lost {
        LostChanges::NoFile => Value::Null,
        LostChanges::Span(from, until) => json!({
            "from": from.rfc3339(), "until": until.rfc3339(), "seconds": span(*from, *until).as_secs(),
        }),
        LostChanges::Unknown(from, reason) => {
            json!({ "from": from.rfc3339(), "until": null, "reason": reason })
        }
    }
}

fn to_json(restored: &RestoreReport) -> Value {
    let mut document = json!(restored.database);
    if let Some(map) = document.as_object_mut() {
        map.insert("lost".to_owned(), lost_to_json(&restored.lost));
        map.insert("sessions_ended".to_owned(), restored.sessions_ended.into());
        map.insert("erased_customers".to_owned(), erased_ids(restored));
        let since = restored.no_erased_list_since.map(UnixMs::rfc3339);
        map.insert("no_erased_list_since".to_owned(), json!(since));
        let form = if restored.is_archive {
            "archive"
        } else {
            "database"
        };
        map.insert("form".to_owned(), form.into());
        map.insert("kept_keys".to_owned(), json!(restored.replaced_folders));
        let keys = restored.missing.iter().filter_map(|missing| match missing {
            MissingKey::SigningKey(id) => Some(id),
            MissingKey::Authority | MissingKey::KnownAuthority => None,
        });
        map.insert(
            "missing_signing_keys".to_owned(),
            json!(keys.collect::<Vec<_>>()),
        );
        let authority = [MissingKey::Authority, MissingKey::KnownAuthority];
        let authority = authority.iter().any(|one| restored.missing.contains(one));
        map.insert("missing_authority".to_owned(), authority.into());
    }
    document
}

/// The ids of the customers who were erased again.
fn erased_ids(restored: &RestoreReport) -> Value {
    let ids = restored.erased_again.iter().map(|again| again.customer_id);
    json!(ids.collect::<Vec<_>>())
}

/// Which customers were erased again, and whether there may be others.
fn erased_text(restored: &RestoreReport) -> String {
    let lines = restored.erased_again.iter().map(|again| {
        let first = again.first_erased_at.rfc3339();
        format!(
            "customer {} was erased again: first erased {first}\n",
            again.customer_id
        )
    });
    let mut text: String = lines.collect();
    if let Some(since) = restored.no_erased_list_since {
        text.extend([
            "no list of erased customers was found: a customer who was erased after ",
            &since.rfc3339(),
            " is in the database again; erase them again with `license-server customer erase`\n",
        ]);
    }
    if !restored.erased_again.is_empty() {
        text += "run `license-server vacuum`: deleted text stays in unused parts of the database until then\n";
    }
    text
}

/// Which changes are lost.
pub fn lost_text(lost: &LostChanges) -> String {
    match lost {
        LostChanges::NoFile => "there was no database before".to_owned(),
        LostChanges::Span(from, until) if from >= until => {
            "no changes are lost: the copy is as recent as the database that it replaces".to_owned()
        }
        LostChanges::Span(from, until) => format!(
            "changes made between {} and {} ({}) are lost; they remain in the old database",
            from.rfc3339(),
            until.rfc3339(),
            rules::in_words(span(*from, *until)),
        ),
        LostChanges::Unknown(from, reason) => format!(
            "changes made after {} are lost; until when is unknown: {reason}",
            from.rfc3339()
        ),
    }
}

/// The output of `restore`.
fn restore_text(file: &Path, restored: &RestoreReport) -> String {
    let kept = restored.database.kept.as_ref();
    let kept = kept.map(|kept| format!("; the old one is kept as {}", kept.display()));
    let lost = lost_text(&restored.lost);
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
    lines += &erased_text(restored);
    lines += if restored.is_archive {
        "certificates and signing keys of the copy were restored\n"
    } else {
        "the copy is a database only: the existing certificates and signing keys were kept\n"
    };
    let kept = restored.replaced_folders.iter();
    lines.extend(kept.map(|kept| format!("the replaced ones are kept in {}\n", kept.display())));
    let missing = restored.missing.iter();
    lines.extend(missing.map(|missing| format!("MISSING: {}\n", consequence(missing))));
    lines
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// What is missing, the consequence, and what to do.
fn consequence(missing: &MissingKey) -> String {
    match missing {
        MissingKey::SigningKey(id) => format!(
            "the signing key {id}: copy its file from the old machine into data/signing; without it the server does not \
             start. `license-server config rotate-signing-key --lost` creates a new one, which every program and site \
             that verifies responses then needs"
        ),
        MissingKey::Authority => "the certificate authority: copy data/tls from the old machine; without it the \
             server does not start. `license-server config new-authority` creates a new one, whose data/tls/ca.pem every \
             program then needs before it can connect again"
            .to_owned(),
        MissingKey::KnownAuthority => "the authority that programs trust: data/tls contains a different one. Copy data/tls from the \
             old machine or, if programs trust the one that is here, run `license-server config new-authority`"
            .to_owned(),
    }
}

/// The time between two moments; zero if the second is not later.
pub fn span(from: UnixMs, until: UnixMs) -> Duration {
    Duration::from_millis(u64::try_from(until.0.saturating_sub(from.0)).unwrap_or(0))
}
