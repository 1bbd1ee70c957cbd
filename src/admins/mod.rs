//! Administrators: who may work in the panel, how they prove it, and their logins.

pub mod cli;
pub mod panel;
mod rules;
mod store;

pub use rules::{Lasting, Refusal};

use serde_json::{Value, json};

use crate::audit::{self, Actor, Deed};
use crate::clock::UnixMs;
use crate::config::Language;
use crate::db::{Reader, Tx};
use crate::error::{Error, Result};
use crate::id::{AdminId, AdminSessionId};
use crate::security::secret::{self, Secret};

/// What somebody may do; each includes the ones below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, administrators and backups too.
    Owner,
    /// The daily work.
    Admin,
    /// Reads, and frees devices.
    Support,
}

/// Somebody who may work in the panel.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Admin {
    /// The number.
    pub id: AdminId,
    /// 1 to 64 printable characters without spaces.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// The language of his pages; none: as his browser says.
    #[serde(skip)]
    pub language: Option<Language>,
    /// Whether single keys do something on his pages.
    pub single_keys: bool,
    /// Whether a second factor is asked for.
    pub has_totp: bool,
    /// Since when.
    #[serde(skip)]
    pub created_at: UnixMs,
}

/// Whether a login is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The password was right; the second factor is missing.
    Password,
    /// All that is asked for was given.
    Full,
}

/// A login.
#[derive(Clone, Debug)]
pub struct Session {
    /// The number.
    pub id: AdminSessionId,
    /// Whether it is complete.
    pub stage: Stage,
    /// Where it was made from.
    pub address: String,
    /// What the browser says it is.
    pub browser: String,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it was last used; up to a minute older than it really was.
    pub seen_at: UnixMs,
    /// When a password or a second factor was last given.
    pub proved_at: UnixMs,
}

/// What a browser proves its login with: 256 random bits. The file has only its digest.
pub type Token = Secret<String>;

/// Where somebody logs in from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The address.
    pub address: String,
    /// What the browser says it is; at most 200 characters.
    pub browser: String,
}

/// A new random token, as 64 hexadecimal digits.
///
/// # Errors
/// When the operating system has no randomness.
pub fn new_token() -> Result<Token> {
    Ok(Secret::new(secret::hex(&secret::random::<32>()?)))
}

fn digest(token: &str) -> [u8; 32] {
    secret::sha256(token.as_bytes())
}

/// Adds an administrator, whose password was hashed already.
///
/// # Errors
/// [`Error::Invalid`] for the name, [`Refusal::NameTaken`].
pub fn add(
    tx: &Tx<'_>,
    name: &str,
    role: Role,
    password_hash: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<AdminId> {
    rules::check_name(name)?;
    if store::by_name(tx, name)?.is_some() {
        return Err(Refusal::NameTaken.into());
    }
    let id = store::insert(tx, name, role, password_hash, now)?;
    let after = json!({ "role": role });
    let deed = Deed {
        what: "admins.add",
        subject: name,
        before: Value::Null,
        after,
    };
    audit::note(tx, now, actor, &deed)?;
    Ok(id)
}

/// Every administrator, by name.
///
/// # Errors
/// When SQLite fails.
pub fn list(reader: &Reader<'_>) -> Result<Vec<Admin>> {
    store::list(reader)
}

/// Whether there is any: until then the set-up is open.
///
/// # Errors
/// When SQLite fails.
pub fn any(reader: &Reader<'_>) -> Result<bool> {
    Ok(store::count(reader)? > 0)
}

/// The administrator of this name.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn named(reader: &Reader<'_>, name: &str) -> Result<Admin> {
    store::by_name(reader, name)?.ok_or_else(|| Error::not_found("administrator", name))
}

/// The hash of the password of the administrator `name`, if there is one.
///
/// # Errors
/// When SQLite fails.
pub fn password_hash(reader: &Reader<'_>, name: &str) -> Result<Option<String>> {
    store::password_hash(reader, name)
}

/// Begins a login for who has given the right password.
///
/// # Errors
/// When SQLite fails.
pub fn begin_session(
    tx: &Tx<'_>,
    admin: &Admin,
    token: &Token,
    origin: &Origin,
    now: UnixMs,
) -> Result<Stage> {
    let stage = if admin.has_totp {
        Stage::Password
    } else {
        Stage::Full
    };
    store::insert_session(tx, admin.id, &digest(token.reveal()), stage, origin, now)?;
    Ok(stage)
}

/// Ends the login of `token`.
///
/// # Errors
/// When SQLite fails.
pub fn end_session(tx: &Tx<'_>, token: &str) -> Result<()> {
    store::remove_session(tx, &digest(token))
}

/// Who the browser with `token` is, as long as its login lasts.
///
/// # Errors
/// When SQLite fails.
pub fn visitor(
    reader: &Reader<'_>,
    token: &str,
    lasting: Lasting,
    now: UnixMs,
) -> Result<Option<(Admin, Session)>> {
    let found = store::session(reader, &digest(token))?;
    Ok(found.filter(|(_, session)| rules::lasts(session, lasting, now)))
}

/// Remembers that a login was used.
///
/// # Errors
/// When SQLite fails.
pub fn seen(tx: &Tx<'_>, id: AdminSessionId, now: UnixMs) -> Result<()> {
    store::seen(tx, id, now)
}
