//! Logins: how they begin, hold and end, and the browsers that are known from them.

use std::time::Duration;

use serde_json::{Value, json};

use super::factors::{self, SecondFactor};
use super::rules::{HALF_DONE, SessionLifetime, lasts};
use super::{Admin, Origin, Refusal, Session, Stage, Token, digest, store};
use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{CHANGED_MEANWHILE, Refused, Result};
use crate::id::{AdminId, AdminSessionId};
use crate::security::client_address::ClientAddress;
use crate::security::secret::{self, Secret};

/// Browsers that are known of one person.
const BROWSERS_MAX: u32 = 20;
/// How long a browser is known that nobody logs in from, in days.
pub(super) const BROWSER_DAYS: u64 = 180;

/// A new random token, as 64 hexadecimal digits.
///
/// # Errors
/// When the operating system has no randomness.
pub(super) fn new_token() -> Result<Token> {
    Ok(Secret::new(secret::hex(&secret::random::<32>()?)))
}

/// What a browser has when somebody logs in.
#[derive(Clone, Debug)]
pub(super) struct NewLogin {
    /// Where it is.
    pub(super) origin: Origin,
    /// The token of a login that it still has: that one ends.
    pub(super) stale: Option<Token>,
    /// What it is known by from now on.
    pub(super) browser: Token,
    /// What it proves the login with from now on; never one that it had before.
    pub(super) token: Token,
}

/// A password that was right while it was looked at, which takes a while.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// The hash that it was right for.
    pub(super) against: Option<String>,
    /// Its new hash, where that one was made with less effort than is asked for today.
    pub(super) rehashed: Option<String>,
}

impl Checked {
    /// Whether the password is still the one of `admin`: it may have been replaced meanwhile.
    ///
    /// # Errors
    /// [`Refusal::WrongPassword`].
    pub(super) fn still_holds(&self, reader: &Reader<'_>, admin: &Admin) -> Result<()> {
        if store::password_hash(reader, &admin.name)? == self.against {
            Ok(())
        } else {
            Err(Refusal::WrongPassword.into())
        }
    }
}

/// Whether the login `id` of `admin` is still there: it may have been ended meanwhile.
///
/// # Errors
/// [`Refusal::NotLoggedIn`].
pub(super) fn still_there(reader: &Reader<'_>, admin: &Admin, id: AdminSessionId) -> Result<()> {
    let sessions = store::sessions_of(reader, admin.id)?;
    if sessions.iter().any(|session| session.id == id) {
        Ok(())
    } else {
        Err(Refusal::NotLoggedIn.into())
    }
}

/// Begins a login of `admin`, who has given the right password.
///
/// # Errors
/// [`Refusal::WrongPassword`] when it was replaced meanwhile.
pub(super) fn begin(
    tx: &Tx<'_>,
    admin: &Admin,
    arrival: &NewLogin,
    checked: &Checked,
    now: UnixMs,
) -> Result<Stage> {
    checked.still_holds(tx, admin)?;
    if let Some(hash) = &checked.rehashed {
        store::rehash(tx, admin.id, hash)?;
    }
    if admin.has_totp {
        replace(tx, admin, arrival, Stage::Password, now)?;
        return Ok(Stage::Password);
    }
    admit(tx, admin, arrival, now)?;
    Ok(Stage::Full)
}

/// Completes the login `half` with the second factor.
///
/// # Errors
/// `wrong_code`, `not_logged_in`.
pub(super) fn complete(
    tx: &Tx<'_>,
    (admin, half): (&Admin, AdminSessionId),
    arrival: &NewLogin,
    proof: &SecondFactor,
    now: UnixMs,
) -> Result<()> {
    still_there(tx, admin, half)?;
    proof.serve(tx, admin.id)?;
    admit(tx, admin, arrival, now)
}

/// A complete login: noted, and the browser is known from now on.
fn admit(tx: &Tx<'_>, admin: &Admin, arrival: &NewLogin, now: UnixMs) -> Result<()> {
    replace(tx, admin, arrival, Stage::Full, now)?;
    let browser = digest(arrival.browser.reveal());
    store::remember_browser(tx, &browser, admin.id, now)?;
    store::trim_browsers(tx, admin.id, BROWSERS_MAX)?;
    let actor = Actor {
        name: admin.name.clone(),
        source: arrival.origin.address.clone(),
    };
    let after = json!({ "browser": arrival.origin.browser });
    let deed = Change {
        what: "admins.login",
        subject: &admin.name,
        before: Value::Null,
        after,
    };
    audit::note(tx, now, &actor, &deed)
}

/// A new login in the place of what the browser had before.
fn replace(
    tx: &Tx<'_>,
    admin: &Admin,
    arrival: &NewLogin,
    stage: Stage,
    now: UnixMs,
) -> Result<()> {
    if let Some(stale) = &arrival.stale {
        store::remove_session(tx, &digest(stale.reveal()))?;
    }
    let token = digest(arrival.token.reveal());
    store::insert_session(tx, admin.id, &token, stage, &arrival.origin, now)
}

/// Goes on with a login whose password was changed in it: under a token that nobody has seen before.
pub(super) fn resume(tx: &Tx<'_>, admin: &Admin, arrival: &NewLogin, now: UnixMs) -> Result<()> {
    replace(tx, admin, arrival, Stage::Full, now)?;
    let browser = digest(arrival.browser.reveal());
    store::remember_browser(tx, &browser, admin.id, now)
}

/// Ends the login of `token`.
pub(super) fn end(tx: &Tx<'_>, token: &str) -> Result<()> {
    store::remove_session(tx, &digest(token))
}

/// Ends the login `id` of `admin`; that it is over already is no error.
pub(super) fn end_one(
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

/// Ends every login of `admin` but the one that asks for it.
pub(super) fn end_others(
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

/// Notes that from now on tries at logging in are refused for a while: from `address`, or of `account`.
///
/// # Errors
/// When SQLite fails.
pub(super) fn note_lockout(
    tx: &Tx<'_>,
    account: Option<&str>,
    address: ClientAddress,
    now: UnixMs,
) -> Result<()> {
    let address = address.to_string();
    let actor = Actor {
        name: Actor::SERVER.to_owned(),
        source: address.clone(),
    };
    let deed = Change {
        what: "admins.lockout",
        // A name that is no account's is not kept: it may be a password in the wrong field.
        subject: account.unwrap_or(&address),
        before: Value::Null,
        after: Value::Null,
    };
    audit::note(tx, now, &actor, &deed)
}

fn note_end(tx: &Tx<'_>, admin: &Admin, actor: &Actor, ended: usize, now: UnixMs) -> Result<()> {
    let before = json!({ "logins": ended });
    let deed = Change {
        what: "admins.end_logins",
        subject: &admin.name,
        before,
        after: Value::Null,
    };
    audit::note(tx, now, actor, &deed)
}

/// Ends every login of an administrator, and knows none of his browsers any more.
pub(super) fn end_all(tx: &Tx<'_>, id: AdminId) -> Result<()> {
    store::remove_other_sessions(tx, id, AdminSessionId(0))?;
    store::forget_browsers(tx, id)
}

/// Who the browser with `token` is, as long as its login lasts.
pub(super) fn visitor(
    reader: &Reader<'_>,
    token: &str,
    lasting: SessionLifetime,
    now: UnixMs,
) -> Result<Option<(Admin, Session)>> {
    let found = store::session(reader, &digest(token))?;
    Ok(found.filter(|(_, session)| lasts(session, lasting, now)))
}

/// The logins of an administrator that last, the latest used first.
pub(super) fn of(
    reader: &Reader<'_>,
    id: AdminId,
    lasting: SessionLifetime,
    now: UnixMs,
) -> Result<Vec<Session>> {
    let mut sessions = store::sessions_of(reader, id)?;
    sessions.retain(|session| lasts(session, lasting, now));
    Ok(sessions)
}

/// Remembers that a login was used.
pub(super) fn seen(tx: &Tx<'_>, id: AdminSessionId, now: UnixMs) -> Result<()> {
    store::seen(tx, id, now)
}

/// By what the person of a login shows once more who they are.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    /// The second factor.
    Factor(SecondFactor),
    /// The password, for an account without a second factor.
    Password(Checked),
}

/// Remembers that the person of a login showed once more who they are.
///
/// # Errors
/// `wrong_code`, `wrong_password`, `not_logged_in`; `changed_meanwhile` for a password where there is a second factor,
/// perhaps since a moment ago.
pub(super) fn prove(
    tx: &Tx<'_>,
    (admin, session): (&Admin, AdminSessionId),
    shown: &Shown,
    now: UnixMs,
) -> Result<()> {
    still_there(tx, admin, session)?;
    match shown {
        Shown::Factor(proof) => proof.serve(tx, admin.id)?,
        Shown::Password(_) if factors::of(tx, admin.id)?.shared.is_some() => {
            return Err(Refused::plain(CHANGED_MEANWHILE).into());
        }
        Shown::Password(checked) => checked.still_holds(tx, admin)?,
    }
    store::prove(tx, session, now)
}

/// The digest of the browser with `token`, if the person of this name logged in from it before.
pub(super) fn known_browser(
    reader: &Reader<'_>,
    token: &str,
    name: &str,
) -> Result<Option<[u8; 32]>> {
    let token = digest(token);
    Ok(store::knows_browser(reader, &token, name)?.then_some(token))
}

/// What a browser is to be known by: what it is known by already, to anybody, or something new.
pub(super) fn browser_token(reader: &Reader<'_>, given: Option<Token>) -> Result<Token> {
    match given {
        Some(token) if store::browser_is_known(reader, &digest(token.reveal()))? => Ok(token),
        _ => new_token(),
    }
}

/// Ends every login of a file that was put back: some of them had ended after it was copied.
///
/// # Errors
/// When SQLite fails.
pub fn end_all_logins(tx: &Tx<'_>) -> Result<usize> {
    let ever = UnixMs(i64::MAX);
    store::purge_sessions(tx, ever, ever, ever)
}

/// Removes logins that are over, and browsers that nobody logs in from any more.
///
/// # Errors
/// When SQLite fails.
pub fn purge(tx: &Tx<'_>, lasting: SessionLifetime, now: UnixMs) -> Result<usize> {
    let browsers = Duration::from_hours(BROWSER_DAYS * 24);
    store::purge_browsers(tx, now.minus(browsers))?;
    let (created, seen) = (now.minus(lasting.whole), now.minus(lasting.idle));
    store::purge_sessions(tx, created, seen, now.minus(HALF_DONE))
}
