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

use crate::audit::{Act, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Error, Refused, Resource, Result};
use crate::id::{AdminId, AdminSessionId};
use crate::security::secret::{self, Secret};
use crate::security::totp::SharedSecret;
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

/// The CSRF token of the forms of the login with the secret `token`. It is derived from that, so other sites cannot know it.
pub fn csrf_token(token: &str) -> String {
    secret::hex(&secret::sha256(format!("csrf\n{token}").as_bytes()))
}

/// The administrator whose forms carry `csrf_token`, also after their login has ended; `None` if it is unknown, or the login was
/// created too long ago.
pub fn form_owner(reader: &Reader<'_>, csrf_token: &str) -> Result<Option<AdminId>> {
    store::form_owner(reader, &digest(csrf_token))
}

/// How many browsers are remembered for one administrator.
const BROWSERS_MAX: u32 = 20;
/// How long a browser is remembered after its last login, in days.
pub const BROWSER_DAYS: u64 = 180;
/// How long it is known whose forms were made in a login, after the longest time that it may last, in days: over a weekend
/// and a holiday.
const FORM_TOKEN_DAYS: u64 = 7;

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

/// What a login needs to know about the account of an administrator.
#[derive(Clone, Debug)]
pub struct Account {
    /// The id.
    pub id: AdminId,
    /// The name.
    pub name: String,
    /// Whether a login needs a second factor.
    pub has_totp: bool,
    /// The hash of the password.
    pub password_hash: String,
}

/// The stored second factor of an administrator.
#[derive(Clone, Debug, Default)]
struct TotpState {
    /// The secret shared with the authenticator app; `None` without a second factor.
    secret: Option<SharedSecret>,
    /// A secret that was shown and is not confirmed yet.
    pending: Option<SharedSecret>,
    /// The time step of the last accepted code: a code is accepted only for a later step.
    used_step: i64,
    /// Number of unused recovery codes.
    codes: u32,
}

/// The account with the id `id`.
///
/// # Errors
/// [`Error::NotFound`] if the id is unknown.
fn account(reader: &Reader<'_>, id: AdminId) -> Result<Account> {
    store::account(reader, id)?.ok_or_else(|| Error::not_found(Resource::Administrator, id))
}

/// The account called `name`; `None` if the name is unknown.
pub fn account_named(reader: &Reader<'_>, name: &str) -> Result<Option<Account>> {
    // First as typed: where two names became equal by Unicode normalization, one kept its spelling (migration 0005).
    match store::account_named(reader, name)? {
        None => store::account_named(reader, &text::to_nfc(name)),
        found => Ok(found),
    }
}

/// The login of a request, and its administrator.
#[derive(Clone, Copy, Debug)]
pub struct CurrentLogin {
    /// The administrator.
    pub admin_id: AdminId,
    /// The login.
    pub session_id: AdminSessionId,
}

/// A password that matched a stored hash. Hashing is slow and runs outside the transaction, so the transaction
/// checks that the hash is still the stored one.
#[derive(Clone, Debug)]
pub struct CheckedPassword {
    /// The account as it was when the password was checked.
    pub account: Account,
    /// A new hash of the password, if the stored one was made with weaker parameters than today's.
    pub rehashed: Option<String>,
}

impl CheckedPassword {
    /// The administrator, logging in from `origin` at `now`, as the actor of an audit entry.
    pub fn actor(&self, origin: &Origin, now: UnixMs) -> Actor {
        Actor::Administrator {
            id: self.account.id,
            name: self.account.name.clone(),
            source: origin.address.clone(),
            proved_at: now,
        }
    }

    /// Returns the account as it is now.
    ///
    /// # Errors
    /// [`Refusal::WrongPassword`] if it has another password by now.
    fn check_unchanged(&self, reader: &Reader<'_>) -> Result<Account> {
        let current = account(reader, self.account.id)?;
        if current.password_hash == self.account.password_hash {
            Ok(current)
        } else {
            Err(Refusal::WrongPassword.into())
        }
    }
}

impl CurrentLogin {
    /// Rejects the request if its login has ended since the request was admitted.
    ///
    /// # Errors
    /// [`Refusal::NotLoggedIn`].
    fn check_active(self, reader: &Reader<'_>) -> Result<()> {
        let sessions = store::sessions_of(reader, self.admin_id)?;
        if sessions.iter().any(|session| session.id == self.session_id) {
            Ok(())
        } else {
            Err(Refusal::NotLoggedIn.into())
        }
    }
}

/// Rejects an irreversible action of an administrator who has not given a password or second factor recently. Operators
/// of the machine and the server itself need none.
///
/// # Errors
/// [`Refusal::ReauthenticationRequired`].
pub fn require_reauthentication(act: &Act<'_>) -> Result<()> {
    let accepted = match act.actor {
        Actor::Administrator { proved_at, .. } => recently_authenticated(*proved_at, act.now),
        Actor::Site { .. } | Actor::Program => false,
        Actor::Setup { .. } | Actor::CommandLine { .. } | Actor::Server { .. } | Actor::Demo => {
            true
        }
    };
    if accepted {
        Ok(())
    } else {
        Err(Refusal::ReauthenticationRequired.into())
    }
}

/// Starts a login after the password was checked. The result says whether a second factor is still needed.
///
/// # Errors
/// [`Refusal::WrongPassword`] if the password was changed meanwhile, [`Error::NotFound`] if the account was removed.
pub fn start(act: &Act<'_>, checked: &CheckedPassword, new_login: &NewLogin) -> Result<Stage> {
    let account = checked.check_unchanged(act.tx)?;
    if let Some(hash) = &checked.rehashed {
        store::rehash(act.tx, account.id, hash)?;
    }
    if account.has_totp {
        replace_login(act, account.id, new_login, Stage::Password)?;
        return Ok(Stage::Password);
    }
    finish(act, &account, new_login)?;
    Ok(Stage::Full)
}

/// Completes the login `login` with the second factor.
///
/// # Errors
/// `wrong_code`, `not_logged_in`.
pub fn complete(
    act: &Act<'_>,
    login: CurrentLogin,
    new_login: &NewLogin,
    second_factor: &SecondFactor,
) -> Result<()> {
    login.check_active(act.tx)?;
    second_factor.redeem(act.tx, login.admin_id)?;
    finish(act, &account(act.tx, login.admin_id)?, new_login)
}

/// Creates a complete login, remembers the browser, and writes the audit entry.
fn finish(act: &Act<'_>, account: &Account, new_login: &NewLogin) -> Result<()> {
    resume(act, account.id, new_login)?;
    store::trim_browsers(act.tx, account.id, BROWSERS_MAX)?;
    let after = json!({ "browser": new_login.origin.browser });
    act.note(&Change {
        action: "admins.login",
        subject: &account.name,
        before: Value::Null,
        after,
    })
}

/// Creates a login and ends the one that the browser had before.
fn replace_login(act: &Act<'_>, id: AdminId, new_login: &NewLogin, stage: Stage) -> Result<()> {
    if let Some(replaced) = &new_login.replaces {
        store::remove_session(act.tx, &digest(replaced.reveal()))?;
    }
    store::insert_session(act, id, new_login, stage)?;
    let csrf_token = csrf_token(new_login.token.reveal());
    store::insert_form_token(act, id, &digest(&csrf_token))
}

/// Creates a complete login, and remembers the browser.
fn resume(act: &Act<'_>, id: AdminId, new_login: &NewLogin) -> Result<()> {
    replace_login(act, id, new_login, Stage::Full)?;
    let browser = digest(new_login.browser.reveal());
    store::remember_browser(act.tx, &browser, id, act.now)
}

/// Ends the login of `token`.
pub fn end(tx: &Tx<'_>, token: &str) -> Result<()> {
    store::remove_session(tx, &digest(token))
}

/// Ends the login `session` of an administrator, if it has not ended yet.
pub fn end_one(act: &Act<'_>, id: AdminId, session: AdminSessionId) -> Result<()> {
    let ended = store::remove_session_of(act.tx, id, session)?;
    note_end(act, id, ended)
}

/// Ends every login of the administrator except `login`.
pub fn end_others(act: &Act<'_>, login: CurrentLogin) -> Result<()> {
    let ended = store::remove_other_sessions(act.tx, login.admin_id, login.session_id)?;
    note_end(act, login.admin_id, ended)
}

/// Writes the audit entry that login attempts for `account`, or else from the address of the actor, are rejected for a
/// while.
pub fn note_lockout(act: &Act<'_>, account: Option<&str>) -> Result<()> {
    let address = act.actor.source();
    act.note(&Change {
        action: "admins.lockout",
        // An unknown name is not stored: it may be a password typed into the wrong field.
        subject: account.unwrap_or(&address),
        before: Value::Null,
        after: Value::Null,
    })
}

fn note_end(act: &Act<'_>, id: AdminId, ended: usize) -> Result<()> {
    if ended == 0 {
        return Ok(());
    }
    let before = json!({ "logins": ended });
    act.note(&Change {
        action: "admins.end_logins",
        subject: &account(act.tx, id)?.name,
        before,
        after: Value::Null,
    })
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

/// Stores that the administrator has confirmed their identity again in the login `login`.
///
/// # Errors
/// `wrong_code`, `wrong_password`, `not_logged_in`; `changed_meanwhile` for a password if the account has a second
/// factor by now.
pub fn reauthenticate(act: &Act<'_>, login: CurrentLogin, credential: &Credential) -> Result<()> {
    login.check_active(act.tx)?;
    match credential {
        Credential::SecondFactor(second_factor) => {
            second_factor.redeem(act.tx, login.admin_id)?;
        }
        Credential::Password(_) if factors::load(act.tx, login.admin_id)?.secret.is_some() => {
            return Err(Refused::changed_meanwhile().into());
        }
        Credential::Password(checked) => {
            checked.check_unchanged(act.tx)?;
        }
    }
    store::mark_reauthenticated(act.tx, login.session_id, act.now)
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
    let forms = Duration::from_hours(FORM_TOKEN_DAYS * 24);
    store::purge_form_tokens(tx, created.minus(forms))?;
    store::purge_sessions(tx, created, seen, now.minus(SECOND_FACTOR_TIMEOUT))
}

/// Sets the password of the administrator `id`, ends every login of the account, and forgets the known browsers. The
/// caller has checked and hashed the password.
///
/// # Errors
/// [`Error::NotFound`] if the id is unknown, [`Refusal::ReauthenticationRequired`].
pub fn set_password(act: &Act<'_>, id: AdminId, password_hash: &str) -> Result<()> {
    require_reauthentication(act)?;
    replace_password(act, &account(act.tx, id)?, password_hash)
}

/// A password that an administrator chose for their own account.
#[derive(Clone, Debug)]
pub struct ChosenPassword {
    /// The old password.
    pub old: CheckedPassword,
    /// The hash of the new one.
    pub hash: String,
    /// How the login continues.
    pub new_login: NewLogin,
}

/// Sets the password that the administrator chose; the login in which it was chosen continues under a new token.
///
/// # Errors
/// [`Refusal::WrongPassword`] if the password was changed meanwhile, [`Refusal::NotLoggedIn`].
pub fn choose_password(act: &Act<'_>, login: CurrentLogin, chosen: &ChosenPassword) -> Result<()> {
    let account = chosen.old.check_unchanged(act.tx)?;
    login.check_active(act.tx)?;
    replace_password(act, &account, &chosen.hash)?;
    resume(act, account.id, &chosen.new_login)
}

fn replace_password(act: &Act<'_>, account: &Account, password_hash: &str) -> Result<()> {
    store::set_password(act.tx, account.id, password_hash, act.now)?;
    end_all(act.tx, account.id)?;
    // Somebody else may have had the old password: no form of a login from before is shown to the administrator any more.
    store::forget_form_tokens(act.tx, account.id)?;
    let after = json!({ "password": "set" });
    act.note(&Change {
        action: "admins.set_password",
        subject: &account.name,
        before: Value::Null,
        after,
    })
}
