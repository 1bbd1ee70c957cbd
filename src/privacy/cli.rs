//! The commands `customer export`, `customer erase` and `vacuum`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{Erased, ErasureRequest, LicensePolicy, ListFiles, unlisted};
use crate::audit::{Act, Actor};
use crate::backups::BackupDir;
use crate::console::{self, Console};
use crate::customers;
use crate::error::{Error, Result};
use crate::id::CustomerId;
use crate::logging::counted;
use crate::security::private_file::Draft;
use crate::security::run_as::User;
use crate::sessions::cli::StoredLiveness;

/// What to do after an erasure.
const VACUUM: &str = "license-server vacuum";

/// `customer export`
#[derive(Debug, Args)]
pub struct Export {
    /// The customer's ID
    id: i64,
    /// Write into this new file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `customer erase`
#[derive(Debug, Args)]
pub struct Erase {
    /// The customer's ID
    id: i64,
    /// Leave the licenses valid for programs and sites that have their keys
    #[arg(long)]
    keep_licenses: bool,
    /// Do not ask for the customer's name on standard input
    #[arg(long)]
    yes: bool,
}

/// Writes all that the database holds of a customer.
///
/// # Errors
/// [`Error::NotFound`] for an unknown id, [`Error::State`] if the file exists or cannot be written.
pub fn export(console: &Console, export: &Export) -> Result<()> {
    let (id, now) = (CustomerId(export.id), console.now().wall);
    let data = super::export(&console.db, &Actor::command_line(&console.user), id, now)?;
    match &export.output {
        None => console::json(&data.document),
        Some(file) => {
            write_new(file, &format!("{:#}\n", data.document)).map_err(|error| {
                // Not always the user who typed the command: root becomes the owner of the data folder.
                let user = User::current().describe();
                Error::State(format!(
                    "{} cannot be written by {user} ({error}): choose another file, or omit --output and redirect the \
                     output",
                    file.display()
                ))
            })?;
            let line = format!("all data of customer {id} written: {}", file.display());
            console.show_line(&json!({ "customer_id": id, "file": file }), &line)
        }
    }
}

/// Writes a file that did not exist and that only its owner may read.
fn write_new(file: &Path, text: &str) -> std::io::Result<()> {
    let draft = Draft::create(file, ".part")?;
    draft.file().write_all(text.as_bytes())?;
    draft.persist_new()
}

/// Erases a customer, after the name was given on standard input.
///
/// # Errors
/// The errors of [`super::erase`].
pub fn erase(console: &Console, backups: &BackupDir, erase: &Erase) -> Result<()> {
    let id = CustomerId(erase.id);
    let request = ErasureRequest {
        customer_id: id,
        typed: typed_name(console, erase)?,
        licenses: if erase.keep_licenses {
            LicensePolicy::Keep
        } else {
            LicensePolicy::Revoke
        },
    };
    let policy = request.licenses;
    let actor = Actor::command_line(&console.user);
    let StoredLiveness { live, now, .. } = StoredLiveness::load(console)?;
    let erased = console.db.write_blocking("privacy.erase", move |tx| {
        super::erase(&Act::new(tx, &actor, now.wall), live.at(now), &request)
    });
    let erased = erased.map_err(|error| error.with_field_names(&[("typed", "name")]))?;
    // The customer is erased now, whatever fails from here on.
    let lists = ListFiles::of(console.db.path(), backups.usable_folder());
    if let Err(error) = lists.save(&console.db) {
        console::message(&format!("license-server: {}", unlisted(&error)));
    }
    let copies = copies_left(console, backups, id);
    if console.output == console::OutputFormat::Json {
        return console::json(
            &json!({ "erased": json_of(id, &erased), "copies": copies, "next": VACUUM }),
        );
    }
    console::text(&text_of(id, policy, &erased, &copies))
}

/// The copies that still hold the data of a customer who was just erased.
fn copies_left(console: &Console, backups: &BackupDir, id: CustomerId) -> Vec<PathBuf> {
    let now = console.now().wall;
    let span = console
        .db
        .read_blocking(|reader| super::span_of_copies(reader, id, now));
    let copies = span.and_then(|span| backups.copies_made_in(span, console.db.path()));
    let copies = copies.inspect_err(|error| {
        console::message(&format!(
            "license-server: the backups that still hold the data cannot be listed: {error}"
        ));
    });
    copies.unwrap_or_default()
}

/// The customer's name from standard input; `None` if the command line confirms.
fn typed_name(console: &Console, erase: &Erase) -> Result<Option<String>> {
    if erase.yes {
        return Ok(None);
    }
    let id = CustomerId(erase.id);
    // Refused before anything is asked.
    let customer = console
        .db
        .read_blocking(|reader| customers::get(reader, id))?;
    let licenses = counted(customer.licenses as usize, "license", "licenses");
    let becomes = if erase.keep_licenses {
        "stay valid, their devices are released"
    } else {
        "are revoked"
    };
    console::message(&format!(
        "This permanently erases customer {id}: {licenses}, which {becomes}. It cannot be undone. Type the customer's name to \
         confirm, or use --yes:"
    ));
    console::first_line_of_input().map(Some)
}

fn json_of(id: CustomerId, erased: &Erased) -> Value {
    let mut document = json!(erased);
    if let Some(members) = document.as_object_mut() {
        members.insert("customer_id".to_owned(), json!(id));
    }
    document
}

fn text_of(id: CustomerId, policy: LicensePolicy, erased: &Erased, copies: &[PathBuf]) -> String {
    let become_ = match policy {
        LicensePolicy::Revoke => "revoked",
        LicensePolicy::Keep => "left valid",
    };
    let mut lines = format!(
        "customer {id} is erased: {} {become_}, {} released, {} and {} cleared\n\
         next: run `{VACUUM}`, since deleted text stays in unused parts of the database until then\n",
        counted(erased.licenses, "license", "licenses"),
        counted(erased.devices, "device", "devices"),
        counted(erased.sessions, "ended session", "ended sessions"),
        counted(erased.audit_entries, "audit entry", "audit entries"),
    );
    if !copies.is_empty() {
        lines +=
            "these copies were made before and still hold the data; a restore erases it again:\n";
    }
    lines.extend(copies.iter().map(|copy| format!("  {}\n", copy.display())));
    lines += "copies and replicas elsewhere hold it until they are deleted there\n";
    lines
}

/// Rewrites the database.
///
/// # Errors
/// The errors of [`Db::vacuum`](crate::db::Db::vacuum).
pub fn vacuum(console: &Console) -> Result<()> {
    let done = console.db.vacuum()?;
    let line = format!(
        "the database was rewritten: {} bytes before, {} now; nothing of what was deleted is left in it or in its WAL",
        done.bytes_before, done.bytes
    );
    console.show_line(&json!(done), &line)
}
