//! Logins of administrators: start, check and end them; passwords, second factors, and the browsers that an administrator
//! has logged in from.

mod factors;
pub mod panel;
mod rules;
mod store;
mod throttle;

pub use factors::{SecondFactor, reset_totp};
pub use rules::{Refusal, SessionLifetime, ends_in_s, recently_authenticated};

use std::time::Duration;

use serde_json::{Value, json};

use rules::{SECOND_FACTOR_TIMEOUT, is_active};

use crate::admins::Admin;
use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Refused, Result};
use crate::id::{AdminId, AdminSessionId};
use crate::security::client_address::ClientAddress;
use crate::security::secret::{self, Secret};
use crate::text;

/// Whether a login is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The password was accepted, the second factor is missing.
    Password,
    /// Complete.
    Full,
}

/// A login.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Session {
    /// The id.
    pub id: AdminSessionId,
    /// Whether it is complete.
    pub stage: Stage,
    /// The address that it was created from.
    pub address: String,
    /// The browser's user agent.
    pub browser: String,
    /// When it was created.
    pub created_at: UnixMs,
    /// When it was last used; up to a minute too early, since not every request is written.
    pub seen_at: UnixMs,
    /// When a password or second factor was last accepted in it.
    pub proved_at: UnixMs,
}

/// The secret of a login or of a known browser, stored in a cookie: 256 random bits in hexadecimal digits. The database
/// has only its digest.
pub type Token = Secret<String>;

/// Where a login comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The address.
    pub address: String,
    /// The browser's user agent; at most 200 characters.
    pub browser: String,
}

/// The digest of a token, as the database stores it.
pub fn digest(token: &str) -> [u8; 32] {
    secret::sha256(token.as_bytes())
}

/// How many browsers are remembered for one administrator.
const BROWSERS_MAX: u32 = 20;
/// How long a browser is remembered after its last login, in days.
pub const BROWSER_DAYS: u64 = 180;

/// A new random token, as 64 hexadecimal digits.
///
/// # Errors
/// If the operating system provides no randomness.
pub fn new_token() -> Result<Token> {
    Ok(Secret::new(secret::hex(&secret::random::<32>()?)))
}

/// What a login is created from: the request's origin and the tokens that the browser gets.
#[derive(Clone, Debug)]
pub struct NewLogin {
    /// Where the request comes from.
    pub origin: Origin,
    /// The token of the browser's previous login, which ends.
    pub replaces: Option<Token>,
    /// The token by which the browser is recognized at later logins.
    pub browser: Token,
    /// The token of the new login; always a fresh one, so that a token planted in the browser is worthless.
    pub token: Token,
}

impl NewLogin {
    /// `admin`, from where the login comes, as the actor of an audit entry.
    pub fn actor(&self, admin: &Admin) -> Actor {
        Actor::Administrator {
            id: admin.id,
            name: admin.name.clone(),
            source: self.origin.address.clone(),
        }
    }
}

/// A password that matched a stored hash. Hashing is slow and runs outside the transaction, so the transaction
/// checks by [`CheckedPassword::check_unchanged`] that the hash is still the stored one.
#[derive(Clone, Debug)]
pub struct CheckedPassword {
    /// The stored hash that the password matched.
    pub hash: Option<String>,
    /// A new hash of the password, if the stored one was made with weaker parameters than today's.
    pub rehashed: Option<String>,
}

impl CheckedPassword {
    /// Rejects the password if `admin` has another one by now.
    ///
    /// # Errors
    /// [`Refusal::WrongPassword`].
    pub fn check_unchanged(&self, reader: &Reader<'_>, admin: &Admin) -> Result<()> {
        if store::password_hash(reader, &admin.name)? == self.hash {
            Ok(())
        } else {
            Err(Refusal::WrongPassword.into())
        }
    }
}

/// Rejects a request whose login `id` has ended since the request was admitted.
///
/// # Errors
/// [`Refusal::NotLoggedIn`].
pub fn check_still_logged_in(reader: &Reader<'_>, admin: &Admin, id: AdminSessionId) -> Result<()> {
    let sessions = store::sessions_of(reader, admin.id)?;
    if sessions.iter().any(|session| session.id == id) {
        Ok(())
    } else {
        Err(Refusal::NotLoggedIn.into())
    }
}

/// Starts a login of `admin` after the password was checked. The result says whether a second factor is still needed.
///
/// # Errors
/// [`Refusal::WrongPassword`] if the password was changed meanwhile.
pub fn start(
    tx: &Tx<'_>,
    admin: &Admin,
    new_login: &NewLogin,
    checked: &CheckedPassword,
    now: UnixMs,
) -> Result<Stage> {
    checked.check_unchanged(tx, admin)?;
    if let Some(hash) = &checked.rehashed {
        store::rehash(tx, admin.id, hash)?;
    }
    if admin.has_totp {
        replace_login(tx, admin, new_login, Stage::Password, now)?;
        return Ok(Stage::Password);
    }
    finish(tx, admin, new_login, now)?;
    Ok(Stage::Full)
}

/// Completes the login `session` with the second factor.
///
/// # Errors
/// `wrong_code`, `not_logged_in`.
pub fn complete(
    tx: &Tx<'_>,
    (admin, session): (&Admin, AdminSessionId),
    new_login: &NewLogin,
    second_factor: &SecondFactor,
    now: UnixMs,
) -> Result<()> {
    check_still_logged_in(tx, admin, session)?;
    second_factor.redeem(tx, admin.id)?;
    finish(tx, admin, new_login, now)
}

/// Creates a complete login, remembers the browser, and writes the audit entry.
fn finish(tx: &Tx<'_>, admin: &Admin, new_login: &NewLogin, now: UnixMs) -> Result<()> {
    replace_login(tx, admin, new_login, Stage::Full, now)?;
    let browser = digest(new_login.browser.reveal());
    store::remember_browser(tx, &browser, admin.id, now)?;
    store::trim_browsers(tx, admin.id, BROWSERS_MAX)?;
    let actor = new_login.actor(admin);
    let after = json!({ "browser": new_login.origin.browser });
    let change = Change {
        action: "admins.login",
        subject: &admin.name,
        before: Value::Null,
        after,
    };
    audit::note(tx, now, &actor, &change)
}

/// Creates a login and ends the one that the browser had before.
fn replace_login(
    tx: &Tx<'_>,
    admin: &Admin,
    new_login: &NewLogin,
    stage: Stage,
    now: UnixMs,
) -> Result<()> {
    if let Some(replaced) = &new_login.replaces {
        store::remove_session(tx, &digest(replaced.reveal()))?;
    }
    let token = digest(new_login.token.reveal());
    store::insert_session(tx, admin.id, &token, stage, &new_login.origin, now)
}

/// Continues a login under a new token after its password was changed, which ended every login of `admin`.
pub fn resume(tx: &Tx<'_>, admin: &Admin, new_login: &NewLogin, now: UnixMs) -> Result<()> {
    replace_login(tx, admin, new_login, Stage::Full, now)?;
    let browser = digest(new_login.browser.reveal());
    store::remember_browser(tx, &browser, admin.id, now)
}

/// Ends the login of `token`.
pub fn end(tx: &Tx<'_>, token: &str) -> Result<()> {
    store::remove_session(tx, &digest(token))
}

/// Ends the login `id` of `admin`, if it has not ended yet.
pub fn end_one(
    tx: &Tx<'_>,
    admin: &Admin,
    id: AdminSessionId,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    if store::remove_session_of(tx, admin.id, id)? > 0 {
        note_end(tx, admin, actor, 1, now)?;
    }
    Ok(())
}

/// Ends every login of `admin` except `own`.
pub fn end_others(
    tx: &Tx<'_>,
    admin: &Admin,
    own: AdminSessionId,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let ended = store::remove_other_sessions(tx, admin.id, own)?;
    if ended > 0 {
        note_end(tx, admin, actor, ended, now)?;
    }
    Ok(())
}

/// Writes the audit entry that login attempts for `account`, or else from `address`, are rejected for a while.
pub fn note_lockout(
    tx: &Tx<'_>,
    account: Option<&str>,
    address: ClientAddress,
    now: UnixMs,
) -> Result<()> {
    let actor = Actor::Server {
        source: Some(address),
    };
    let address = address.to_string();
    let change = Change {
        action: "admins.lockout",
        // An unknown name is not stored: it may be a password typed into the wrong field.
        subject: account.unwrap_or(&address),
        before: Value::Null,
        after: Value::Null,
    };
    audit::note(tx, now, &actor, &change)
}

fn note_end(tx: &Tx<'_>, admin: &Admin, actor: &Actor, ended: usize, now: UnixMs) -> Result<()> {
    let before = json!({ "logins": ended });
    let change = Change {
        action: "admins.end_logins",
        subject: &admin.name,
        before,
        after: Value::Null,
    };
    audit::note(tx, now, actor, &change)
}

/// Ends every login of an administrator and forgets the known browsers.
pub fn end_all(tx: &Tx<'_>, id: AdminId) -> Result<()> {
    store::remove_other_sessions(tx, id, AdminSessionId(0))?;
    store::forget_browsers(tx, id)
}

/// The login with `token` and the id of its administrator; `None` if it has ended or expired.
pub fn find(
    reader: &Reader<'_>,
    token: &str,
    lifetime: SessionLifetime,
    now: UnixMs,
) -> Result<Option<(AdminId, Session)>> {
    let found = store::session(reader, &digest(token))?;
    Ok(found.filter(|(_, session)| is_active(session, lifetime, now)))
}

/// The active logins of an administrator, the latest used first.
pub fn list(
    reader: &Reader<'_>,
    id: AdminId,
    lifetime: SessionLifetime,
    now: UnixMs,
) -> Result<Vec<Session>> {
    let mut sessions = store::sessions_of(reader, id)?;
    sessions.retain(|session| is_active(session, lifetime, now));
    Ok(sessions)
}

/// Stores that a login was used at `now`.
pub fn mark_seen(tx: &Tx<'_>, id: AdminSessionId, now: UnixMs) -> Result<()> {
    store::mark_seen(tx, id, now)
}

/// What an administrator confirms their identity with during a login.
#[derive(Clone, Debug)]
pub enum Credential {
    /// The second factor.
    SecondFactor(SecondFactor),
    /// The password, for an account without a second factor.
    Password(CheckedPassword),
}

/// Stores that the administrator has confirmed their identity again in the login `session`.
///
/// # Errors
/// `wrong_code`, `wrong_password`, `not_logged_in`; `changed_meanwhile` for a password if the account has a second
/// factor by now.
pub fn reauthenticate(
    tx: &Tx<'_>,
    (admin, session): (&Admin, AdminSessionId),
    credential: &Credential,
    now: UnixMs,
) -> Result<()> {
    check_still_logged_in(tx, admin, session)?;
    match credential {
        Credential::SecondFactor(second_factor) => second_factor.redeem(tx, admin.id)?,
        Credential::Password(_) if factors::load(tx, admin.id)?.secret.is_some() => {
            return Err(Refused::changed_meanwhile().into());
        }
        Credential::Password(checked) => checked.check_unchanged(tx, admin)?,
    }
    store::mark_reauthenticated(tx, session, now)
}

/// The digest of a browser's `token`, if the administrator `name` has logged in from that browser before.
pub fn known_browser(reader: &Reader<'_>, token: &str, name: &str) -> Result<Option<[u8; 32]>> {
    let token = digest(token);
    Ok(store::knows_browser(reader, &token, name)?.then_some(token))
}

/// The token by which a browser is recognized: the `given` one if any administrator has logged in with it, else a new
/// one. An unknown token is never adopted, because another person may have planted it.
pub fn browser_token(reader: &Reader<'_>, given: Option<Token>) -> Result<Token> {
    match given {
        Some(token) if store::browser_is_known(reader, &digest(token.reveal()))? => Ok(token),
        _ => new_token(),
    }
}

/// Ends every login in a restored database: some of them had ended after the backup was made.
pub fn end_all_logins(tx: &Tx<'_>) -> Result<usize> {
    let any_time = UnixMs(i64::MAX);
    store::purge_sessions(tx, any_time, any_time, any_time)
}

/// Removes expired logins, and browsers that have not been used for `BROWSER_DAYS`; returns the number of logins.
pub fn purge(tx: &Tx<'_>, lifetime: SessionLifetime, now: UnixMs) -> Result<usize> {
    let browsers = Duration::from_hours(BROWSER_DAYS * 24);
    store::purge_browsers(tx, now.minus(browsers))?;
    let (created, seen) = (now.minus(lifetime.absolute), now.minus(lifetime.idle));
    store::purge_sessions(tx, created, seen, now.minus(SECOND_FACTOR_TIMEOUT))
}

/// Sets the password of `admin`, ends every login of `admin`, and forgets the known browsers. The caller has checked
/// and hashed the password.
pub fn set_password(
    tx: &Tx<'_>,
    admin: &Admin,
    password_hash: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    store::set_password(tx, admin.id, password_hash, now)?;
    end_all(tx, admin.id)?;
    let after = json!({ "password": "set" });
    let change = Change {
        action: "admins.set_password",
        subject: &admin.name,
        before: Value::Null,
        after,
    };
    audit::note(tx, now, actor, &change)
}

/// Sets the password that `admin` chose; the login in which it was chosen continues under a new token.
fn choose_password(
    tx: &Tx<'_>,
    admin: &Admin,
    password_hash: &str,
    new_login: &NewLogin,
    now: UnixMs,
) -> Result<()> {
    let actor = new_login.actor(admin);
    set_password(tx, admin, password_hash, &actor, now)?;
    resume(tx, admin, new_login, now)
}

/// The password hash of the administrator `name`; `None` if the name is unknown.
pub fn password_hash(reader: &Reader<'_>, name: &str) -> Result<Option<String>> {
    store::password_hash(reader, &text::to_nfc(name))
}
