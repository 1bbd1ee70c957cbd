//! Administrators of the panel: their accounts and roles.

pub mod cli;
pub mod panel;
mod rules;
mod store;

pub use rules::{Refusal, check_name};

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::config::Language;
use crate::db::{Reader, Tx};
use crate::error::{Error, Refused, Result};
use crate::id::AdminId;
use crate::logins;
use crate::security::secret;
use crate::text;

/// What an administrator may do; each role includes the ones below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, including administrators and backups.
    Owner,
    /// Daily work.
    Admin,
    /// Read-only, plus releasing device slots.
    Support,
}

/// An administrator's account.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Admin {
    /// The id.
    pub id: AdminId,
    /// 1 to 64 letters of one script, digits and punctuation marks, without spaces.
    pub name: String,
    /// What the administrator may do.
    pub role: Role,
    /// The language of the panel; `None`: the browser's.
    #[serde(skip)]
    pub language: Option<Language>,
    /// Whether single-key shortcuts are on.
    pub single_keys: bool,
    /// Whether a login needs a second factor.
    pub has_totp: bool,
    /// When the account was created.
    pub created_at: UnixMs,
    /// When the password was last set.
    pub password_set_at: UnixMs,
}

/// Adds an administrator. The caller has checked and hashed the password.
///
/// # Errors
/// [`Error::Invalid`] for the name, [`Refusal::NameReserved`], [`Refusal::NameTaken`],
/// [`Refusal::NameConfusable`].
pub fn add(
    tx: &Tx<'_>,
    name: &str,
    role: Role,
    password_hash: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<AdminId> {
    let name = &text::to_nfc(name);
    rules::check_name(name)?;
    if store::by_name(tx, name)?.is_some() {
        return Err(Refusal::NameTaken.into());
    }
    let others = store::list(tx)?;
    if let Some(other) = others
        .iter()
        .find(|other| rules::confusable(name, &other.name))
    {
        let refused = Refused::from(Refusal::NameConfusable).with("other", other.name.clone());
        return Err(refused.into());
    }
    let id = store::insert(tx, name, role, password_hash, now)?;
    let after = json!({ "role": role });
    let change = Change {
        action: "admins.add",
        subject: name,
        before: Value::Null,
        after,
    };
    audit::note(tx, now, actor, &change)?;
    Ok(id)
}

/// A digest of what the form for the role shows, to detect a concurrent change.
pub fn revision(admin: &Admin) -> String {
    secret::json_digest(&json!({ "name": admin.name, "role": admin.role }))
}

/// Changes the role of `admin`, unless it was changed since the revision `seen` was read. Ends every login of `admin`.
///
/// # Errors
/// [`Refusal::LastOwner`], [`Refusal::OwnRole`], `changed_meanwhile`.
pub fn set_role(
    tx: &Tx<'_>,
    admin: &Admin,
    role: Role,
    seen: Option<&str>,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    if seen.is_some_and(|seen| seen != revision(admin)) {
        return Err(Refused::changed_meanwhile().into());
    }
    if admin.role == role {
        return Ok(());
    }
    if actor.is_administrator(admin.id) {
        return Err(Refusal::OwnRole.into());
    }
    rules::check_owner_remains(admin.role, Some(role), store::owners(tx)?)?;
    store::set_role(tx, admin.id, role)?;
    logins::end_all(tx, admin.id)?;
    let (before, after) = (json!({ "role": admin.role }), json!({ "role": role }));
    let change = Change {
        action: "admins.set_role",
        subject: &admin.name,
        before,
        after,
    };
    audit::note(tx, now, actor, &change)
}

/// Removes `admin`, with all logins, recovery codes and known browsers.
///
/// # Errors
/// [`Refusal::LastOwner`], [`Refusal::OwnAccount`].
pub fn remove(tx: &Tx<'_>, admin: &Admin, actor: &Actor, now: UnixMs) -> Result<()> {
    if actor.is_administrator(admin.id) {
        return Err(Refusal::OwnAccount.into());
    }
    rules::check_owner_remains(admin.role, None, store::owners(tx)?)?;
    store::remove(tx, admin.id)?;
    let before = json!({ "role": admin.role });
    let change = Change {
        action: "admins.remove",
        subject: &admin.name,
        before,
        after: Value::Null,
    };
    audit::note(tx, now, actor, &change)
}

/// New preferences of an administrator.
#[derive(Clone, Copy, Debug)]
pub enum Preferences {
    /// The language alone; the others stay.
    Language(Language),
    /// All of them.
    All {
        /// The language of the panel; `None`: the browser's.
        language: Option<Language>,
        /// Whether single-key shortcuts are on.
        single_keys: bool,
    },
}

/// Sets the preferences of the administrator `id`. Those that stay are read in this transaction: another request may
/// have changed them since this one was admitted.
///
/// # Errors
/// [`Error::NotFound`] if the id is unknown.
pub fn set_preferences(
    tx: &Tx<'_>,
    id: AdminId,
    preferences: &Preferences,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let admin = get(tx, id)?;
    let old = (admin.language, admin.single_keys);
    let new = match *preferences {
        Preferences::Language(language) => (Some(language), admin.single_keys),
        Preferences::All {
            language,
            single_keys,
        } => (language, single_keys),
    };
    if new == old {
        return Ok(());
    }
    let (language, single_keys) = new;
    store::set_preferences(tx, id, language, single_keys)?;
    let facts = |(language, single_keys): (Option<Language>, bool)| json!({ "language": language.map(Language::tag), "single_keys": single_keys });
    let change = Change {
        action: "admins.prefer",
        subject: &admin.name,
        before: facts(old),
        after: facts(new),
    };
    audit::note(tx, now, actor, &change)
}

/// Every administrator, by name.
pub fn list(reader: &Reader<'_>) -> Result<Vec<Admin>> {
    store::list(reader)
}

/// Whether there is an administrator. Until then the set-up page is available.
pub fn any_exists(reader: &Reader<'_>) -> Result<bool> {
    Ok(store::count(reader)? > 0)
}

/// The administrator `id`.
///
/// # Errors
/// [`Error::NotFound`] if the id is unknown.
pub fn get(reader: &Reader<'_>, id: AdminId) -> Result<Admin> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found("administrator", id))
}

/// The administrator called `name`.
///
/// # Errors
/// [`Error::NotFound`] if the name is unknown.
pub fn by_name(reader: &Reader<'_>, name: &str) -> Result<Admin> {
    // First as typed: where two names became equal by Unicode normalization, one kept its spelling (migration 0005).
    let found = match store::by_name(reader, name)? {
        None => store::by_name(reader, &text::to_nfc(name))?,
        found => found,
    };
    found.ok_or_else(|| Error::not_found("administrator", name))
}
