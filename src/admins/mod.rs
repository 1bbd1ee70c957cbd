//! Administrators: who may work in the panel, how they prove it, and their logins.

pub mod cli;
mod factors;
mod logins;
pub mod panel;
mod rules;
mod setup;
mod store;
mod throttle;

pub use logins::{end_all_logins, purge};
pub use rules::{Refusal, SessionLifetime};
pub use setup::Setup;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::config::Language;
use crate::db::{Reader, Tx};
use crate::error::{CHANGED_MEANWHILE, Error, Refused, Result};
use crate::id::{AdminId, AdminSessionId};
use crate::security::secret::{self, Secret};
use crate::text;

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
    /// 1 to 64 letters of one script, digits and signs, without spaces.
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
    pub created_at: UnixMs,
    /// Since when the password is what it is.
    pub password_set_at: UnixMs,
}

/// Whether a login is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The password was right; the second factor is missing.
    Password,
    /// All that is asked for was given.
    Full,
}

/// A login.
#[derive(Clone, Debug, serde::Serialize)]
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

fn digest(token: &str) -> [u8; 32] {
    secret::sha256(token.as_bytes())
}

/// Adds an administrator, whose password was hashed already.
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
    let name = &text::composed(name);
    rules::check_name(name)?;
    if store::by_name(tx, name)?.is_some() {
        return Err(Refusal::NameTaken.into());
    }
    let known = store::list(tx)?;
    if let Some(known) = known
        .iter()
        .find(|known| rules::confusable(name, &known.name))
    {
        let refused = Refused::from(Refusal::NameConfusable).with("other", known.name.clone());
        return Err(refused.into());
    }
    let id = store::insert(tx, name, role, password_hash, now)?;
    let after = json!({ "role": role });
    let deed = Change {
        what: "admins.add",
        subject: name,
        before: Value::Null,
        after,
    };
    audit::note(tx, now, actor, &deed)?;
    Ok(id)
}

/// Gives `admin` another password, which was hashed already. Every login of his ends, and no browser of
/// his is known any more.
///
/// # Errors
/// When SQLite fails.
pub fn set_password(
    tx: &Tx<'_>,
    admin: &Admin,
    password_hash: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    store::set_password(tx, admin.id, password_hash, now)?;
    logins::end_all(tx, admin.id)?;
    let set = json!({ "password": "set" });
    let deed = Change {
        what: "admins.set_password",
        subject: &admin.name,
        before: Value::Null,
        after: set,
    };
    audit::note(tx, now, actor, &deed)
}

/// Gives `admin` the password that he chose himself; the login in which he did goes on under another token.
///
/// # Errors
/// When SQLite fails.
fn choose_password(
    tx: &Tx<'_>,
    admin: &Admin,
    password_hash: &str,
    arrival: &logins::NewLogin,
    now: UnixMs,
) -> Result<()> {
    let actor = Actor {
        name: admin.name.clone(),
        source: arrival.origin.address.clone(),
    };
    set_password(tx, admin, password_hash, &actor, now)?;
    logins::resume(tx, admin, arrival, now)
}

/// What a form for the role was made from: another state has another digest.
pub fn state(admin: &Admin) -> String {
    secret::digest_of(&json!({ "name": admin.name, "role": admin.role }))
}

/// Gives `admin` another role, as long as nobody else has since `seen` was taken. Every login of his ends.
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
    if seen.is_some_and(|seen| seen != state(admin)) {
        return Err(Refused::plain(CHANGED_MEANWHILE).into());
    }
    if admin.role == role {
        return Ok(());
    }
    if admin.name == actor.name {
        return Err(Refusal::OwnRole.into());
    }
    rules::keeps_an_owner(admin.role, Some(role), store::owners(tx)?)?;
    store::set_role(tx, admin.id, role)?;
    logins::end_all(tx, admin.id)?;
    let (before, after) = (json!({ "role": admin.role }), json!({ "role": role }));
    let deed = Change {
        what: "admins.set_role",
        subject: &admin.name,
        before,
        after,
    };
    audit::note(tx, now, actor, &deed)
}

/// Removes `admin`, and with him his logins, codes and browsers.
///
/// # Errors
/// [`Refusal::LastOwner`], [`Refusal::OwnAccount`].
pub fn remove(tx: &Tx<'_>, admin: &Admin, actor: &Actor, now: UnixMs) -> Result<()> {
    if admin.name == actor.name {
        return Err(Refusal::OwnAccount.into());
    }
    rules::keeps_an_owner(admin.role, None, store::owners(tx)?)?;
    store::remove(tx, admin.id)?;
    let before = json!({ "role": admin.role });
    let deed = Change {
        what: "admins.remove",
        subject: &admin.name,
        before,
        after: Value::Null,
    };
    audit::note(tx, now, actor, &deed)
}

/// What an administrator wants from now on.
#[derive(Clone, Copy, Debug)]
pub enum Preferences {
    /// Pages in this language; the rest stays.
    Language(Language),
    /// All of it.
    All {
        /// The language of the pages; none: as the browser says.
        language: Option<Language>,
        /// Whether single keys do something.
        single_keys: bool,
    },
}

/// Notes what the administrator `id` likes. What stays is what it is in this transaction: another tab may have
/// changed it since the request was let in.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn set_preferences(
    tx: &Tx<'_>,
    id: AdminId,
    taste: &Preferences,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let admin = get(tx, id)?;
    let old = (admin.language, admin.single_keys);
    let new = match *taste {
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
    let deed = Change {
        what: "admins.prefer",
        subject: &admin.name,
        before: facts(old),
        after: facts(new),
    };
    audit::note(tx, now, actor, &deed)
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

/// The administrator of this number.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn get(reader: &Reader<'_>, id: AdminId) -> Result<Admin> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found("administrator", id))
}

/// The administrator of this name.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn named(reader: &Reader<'_>, name: &str) -> Result<Admin> {
    // As it was typed first: of two names that became the same, one has kept its spelling (migration 0005).
    let found = match store::by_name(reader, name)? {
        None => store::by_name(reader, &text::composed(name))?,
        found => found,
    };
    found.ok_or_else(|| Error::not_found("administrator", name))
}

/// The hash of the password of the administrator `name`, if there is one.
///
/// # Errors
/// When SQLite fails.
pub fn password_hash(reader: &Reader<'_>, name: &str) -> Result<Option<String>> {
    store::password_hash(reader, &text::composed(name))
}
