//! Administrators of the panel: their accounts and roles.

pub mod cli;
pub mod panel;
mod rules;
mod setup_link;
mod store;

pub use rules::{Refusal, check_name};
pub use setup_link::SetupLink;

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::config::Language;
use crate::db::Reader;
use crate::error::{Error, Refused, Resource, Result};
use crate::id::AdminId;
use crate::logins::{self, Account, CheckedPassword, NewLogin};
use crate::revision::Revision;
use crate::server_state;
use crate::text;
use crate::zone::Zone;

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
    /// The time zone of the times in the panel; `None`: the shop's.
    #[serde(skip)]
    pub time_zone: Option<Zone>,
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
/// [`Refusal::NameConfusable`], [`logins::Refusal::ReauthenticationRequired`].
pub fn add(act: &Act<'_>, name: &str, role: Role, password_hash: &str) -> Result<Admin> {
    logins::require_reauthentication(act)?;
    let name = &text::to_nfc(name);
    rules::check_name(name)?;
    if store::by_name(act.tx, name)?.is_some() {
        return Err(Refusal::NameTaken.into());
    }
    let others = store::list(act.tx)?;
    if let Some(other) = others
        .iter()
        .find(|other| rules::confusable(name, &other.name))
    {
        let refused = Refused::from(Refusal::NameConfusable).with("other", other.name.clone());
        return Err(refused.into());
    }
    let id = store::insert(act, name, role, password_hash)?;
    let after = json!({ "role": role });
    act.note(&Change {
        action: "admins.add",
        subject: name,
        before: Value::Null,
        after,
    })?;
    get(act.tx, id)
}

/// The first owner, as the set-up asks for it.
#[derive(Clone, Debug)]
pub struct NewOwner {
    /// The name of the account.
    pub name: String,
    /// The hash of the password, which the caller has checked.
    pub password_hash: String,
    /// The language for callers whose own is neither German nor English; `None` if the settings name it.
    pub default_language: Option<Language>,
}

/// Adds the first owner, starts a login of this owner, and stores the default language.
///
/// # Errors
/// [`Error::NotFound`] if there is an administrator already, [`Error::Invalid`] for the name.
pub fn create_owner(act: &Act<'_>, owner: &NewOwner, new_login: &NewLogin) -> Result<()> {
    if any_exists(act.tx)? {
        return Err(Error::not_found(Resource::SetUp, ""));
    }
    let password_hash = &owner.password_hash;
    let admin = add(act, &owner.name, Role::Owner, password_hash)?;
    if let Some(language) = owner.default_language {
        server_state::set_default_language(act.tx, language)?;
        act.note(&Change {
            action: "admins.set_language",
            subject: "",
            before: Value::Null,
            after: json!({ "default_language": language.tag() }),
        })?;
    }
    let checked = CheckedPassword {
        account: Account {
            id: admin.id,
            name: admin.name,
            has_totp: false,
            password_hash: password_hash.to_owned(),
        },
        rehashed: None,
    };
    let actor = checked.actor(&new_login.origin, act.now);
    let act = Act::new(act.tx, &actor, act.now);
    logins::start(&act, &checked, new_login).map(drop)
}

/// The revision of what the form for the role shows.
pub fn revision(admin: &Admin) -> Revision {
    Revision::of(&json!({ "name": admin.name, "role": admin.role }))
}

/// Changes the role of the administrator `id`, and ends every login of the account. With `based_on`, only if the role is
/// still the one of that revision.
///
/// # Errors
/// [`Error::NotFound`] if the id is unknown, [`Refusal::LastOwner`], [`Refusal::OwnRole`], `changed_meanwhile`,
/// [`logins::Refusal::ReauthenticationRequired`].
pub fn set_role(
    act: &Act<'_>,
    id: AdminId,
    role: Role,
    based_on: Option<&Revision>,
) -> Result<Admin> {
    logins::require_reauthentication(act)?;
    let admin = get(act.tx, id)?;
    if let Some(based_on) = based_on {
        based_on.check(&revision(&admin))?;
    }
    if admin.role == role {
        return Ok(admin);
    }
    if act.actor.is_administrator(admin.id) {
        return Err(Refusal::OwnRole.into());
    }
    rules::check_owner_remains(admin.role, Some(role), store::owners(act.tx)?)?;
    store::set_role(act.tx, admin.id, role)?;
    logins::end_all(act.tx, admin.id)?;
    let (before, after) = (json!({ "role": admin.role }), json!({ "role": role }));
    act.note(&Change {
        action: "admins.set_role",
        subject: &admin.name,
        before,
        after,
    })?;
    get(act.tx, id)
}

/// Sets the password of the administrator `id`, ends every login of the account, and forgets the known browsers. The
/// caller has checked and hashed the password.
///
/// # Errors
/// [`Error::NotFound`] if the id is unknown, [`logins::Refusal::ReauthenticationRequired`].
pub fn set_password(act: &Act<'_>, id: AdminId, password_hash: &str) -> Result<Admin> {
    logins::set_password(act, id, password_hash)?;
    get(act.tx, id)
}

/// Removes a second factor that the administrator `id` has lost, and ends every login of the account.
///
/// # Errors
/// [`Error::NotFound`] if the id is unknown, [`logins::Refusal::ReauthenticationRequired`].
pub fn reset_totp(act: &Act<'_>, id: AdminId) -> Result<Admin> {
    logins::reset_totp(act, id)?;
    get(act.tx, id)
}

/// Removes the administrator `id`, with all logins, recovery codes and known browsers. Returns the removed account.
///
/// # Errors
/// [`Error::NotFound`] if the id is unknown, [`Refusal::LastOwner`], [`Refusal::OwnAccount`],
/// [`logins::Refusal::ReauthenticationRequired`].
pub fn remove(act: &Act<'_>, id: AdminId) -> Result<Admin> {
    logins::require_reauthentication(act)?;
    let admin = get(act.tx, id)?;
    if act.actor.is_administrator(admin.id) {
        return Err(Refusal::OwnAccount.into());
    }
    rules::check_owner_remains(admin.role, None, store::owners(act.tx)?)?;
    store::remove(act.tx, admin.id)?;
    let before = json!({ "role": admin.role });
    act.note(&Change {
        action: "admins.remove",
        subject: &admin.name,
        before,
        after: Value::Null,
    })?;
    Ok(admin)
}

/// New preferences of an administrator.
#[derive(Clone, Debug)]
pub enum Preferences {
    /// The language alone; the others stay.
    Language(Language),
    /// All of them.
    All {
        /// The language of the panel; `None`: the browser's.
        language: Option<Language>,
        /// The time zone of the times in the panel; `None`: the shop's.
        time_zone: Option<Zone>,
        /// Whether single-key shortcuts are on.
        single_keys: bool,
        /// The [`Admin::preferences_revision`] that the change is based on, if it is based on one.
        seen: Option<Revision>,
    },
}

/// Sets the preferences of the administrator `id`. Those that stay are read in this transaction: another request may
/// have changed them since this one was admitted.
///
/// # Errors
/// [`Error::NotFound`] if the id is unknown, and `changed_meanwhile`.
pub fn set_preferences(act: &Act<'_>, id: AdminId, preferences: &Preferences) -> Result<()> {
    let mut admin = get(act.tx, id)?;
    let before = preferences_of(&admin);
    match preferences {
        Preferences::Language(language) => admin.language = Some(*language),
        Preferences::All {
            language,
            time_zone,
            single_keys,
            seen,
        } => {
            if let Some(seen) = seen {
                seen.check(&admin.preferences_revision())?;
            }
            admin.language = *language;
            admin.time_zone.clone_from(time_zone);
            admin.single_keys = *single_keys;
        }
    }
    let after = preferences_of(&admin);
    if after == before {
        return Ok(());
    }
    store::set_preferences(act.tx, &admin)?;
    act.note(&Change {
        action: "admins.prefer",
        subject: &admin.name,
        before,
        after,
    })
}

/// The preferences of an administrator for the audit log.
fn preferences_of(admin: &Admin) -> Value {
    json!({
        "language": admin.language.map(Language::tag),
        "time_zone": admin.time_zone,
        "single_keys": admin.single_keys,
    })
}

impl Admin {
    /// The revision of the preferences.
    pub fn preferences_revision(&self) -> Revision {
        Revision::of(&preferences_of(self))
    }
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
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found(Resource::Administrator, id))
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
    found.ok_or_else(|| Error::not_found(Resource::Administrator, name))
}
