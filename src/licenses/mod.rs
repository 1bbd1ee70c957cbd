//! Licenses: what was sold, to whom, for how many devices and until when.

pub mod cli;
pub mod panel;
mod rules;
mod store;

pub use rules::{KEY_TEXT_MAX, LicenseKey, Refusal, standing};

use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Deed};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Error, Result};
use crate::id::{CustomerId, LicenseId};

/// Licenses that one order may issue.
pub const ORDER_MAX: u32 = 10_000;
/// How long a trial runs for which nobody said it.
const TRIAL: Duration = Duration::from_hours(30 * 24);
const DEVICES_MAX: u32 = 100_000;
const NOTE_MAX: usize = 4000;

/// Paid for, or to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Paid for.
    Full,
    /// To try.
    Trial,
}

/// What an administrator made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In use.
    Active,
    /// Stopped for now.
    Suspended,
    /// Stopped for good.
    Revoked,
}

/// What was sold.
#[derive(Clone, Debug)]
pub struct License {
    /// The number.
    pub id: LicenseId,
    /// What the customer knows it by.
    pub key: LicenseKey,
    /// Whose it is.
    pub customer_id: CustomerId,
    /// The customer's name.
    pub customer: String,
    /// Paid for, or to try.
    pub kind: Kind,
    /// What an administrator made of it.
    pub state: State,
    /// How many devices may hold a slot; at least 1.
    pub device_limit: u32,
    /// Its first moment.
    pub valid_from: UnixMs,
    /// Its last moment; none, if it has no end.
    pub valid_until: Option<UnixMs>,
    /// The one domain that it is bound to.
    pub domain: Option<String>,
    /// For administrators only.
    pub note: String,
    /// When it was issued.
    pub created_at: UnixMs,
}

/// What is to be issued.
#[derive(Clone, Debug)]
pub struct Order {
    /// To whom.
    pub customer_id: CustomerId,
    /// Paid for, or to try.
    pub kind: Kind,
    /// Devices of each.
    pub device_limit: u32,
    /// The last moment; none: no end for a full license, 30 days for a trial.
    pub valid_until: Option<UnixMs>,
    /// As typed; stored in ASCII.
    pub domain: Option<String>,
    /// How many; 1 to [`ORDER_MAX`].
    pub count: u32,
    /// For administrators only.
    pub note: String,
}

/// How far to extend.
#[derive(Clone, Copy, Debug)]
pub enum Extension {
    /// To this last moment.
    Until(UnixMs),
    /// By so many days from its end, or from now where that has passed.
    Days(u32),
}

/// Issues what `order` asks for.
///
/// # Errors
/// [`Error::Invalid`] for a part that is not of its form; nothing is issued then.
pub fn issue(tx: &Tx<'_>, order: &Order, actor: &Actor, now: UnixMs) -> Result<Vec<License>> {
    check(order, now)?;
    let domain = order.domain.as_deref().map(domain_of).transpose()?;
    let valid_until = match (order.valid_until, order.kind) {
        (None, Kind::Trial) => Some(now.plus(TRIAL)),
        (given, _) => given,
    };
    let mut ids = Vec::new();
    for _ in 0..order.count {
        let key = LicenseKey::new()?;
        ids.push(store::insert(
            tx,
            &key,
            order,
            domain.as_deref(),
            valid_until,
            now,
        )?);
    }
    let licenses = ids
        .iter()
        .map(|id| find(tx, *id))
        .collect::<Result<Vec<_>>>()?;
    let subject = match (ids.first(), ids.last()) {
        (Some(first), Some(last)) if first != last => format!("{first}..{last}"),
        (first, _) => first.map(ToString::to_string).unwrap_or_default(),
    };
    let after = licenses.first().map_or(Value::Null, facts);
    audit::note(
        tx,
        now,
        actor,
        &Deed {
            what: "licenses.issue",
            subject: &subject,
            before: Value::Null,
            after,
        },
    )?;
    tx.announce();
    Ok(licenses)
}

fn check(order: &Order, now: UnixMs) -> Result<()> {
    if !(1..=ORDER_MAX).contains(&order.count) {
        return Err(Error::invalid("count", format!("must be 1..{ORDER_MAX}")));
    }
    if !(1..=DEVICES_MAX).contains(&order.device_limit) {
        return Err(Error::invalid(
            "devices",
            format!("must be 1..{DEVICES_MAX}"),
        ));
    }
    if order.valid_until.is_some_and(|until| until < now) {
        return Err(Error::invalid("valid-until", "lies in the past"));
    }
    if order.note.contains(|c: char| c.is_control() && c != '\n') {
        return Err(Error::invalid("note", "holds a control character"));
    }
    if order.note.chars().count() > NOTE_MAX {
        return Err(Error::invalid(
            "note",
            format!("is longer than {NOTE_MAX} characters"),
        ));
    }
    Ok(())
}

/// A host name as it is stored: ASCII, lower case (UTS 46).
fn domain_of(text: &str) -> Result<String> {
    let wrong = || Error::invalid("domain", "must be a host name like www.example.org");
    let ascii = idna::domain_to_ascii_strict(text.trim().trim_end_matches('.'))
        .ok()
        .ok_or_else(wrong)?;
    let named =
        ascii.contains('.') && ascii.len() <= 253 && ascii.parse::<std::net::IpAddr>().is_err();
    if named { Ok(ascii) } else { Err(wrong()) }
}

/// What the audit log says of a license.
fn facts(license: &License) -> Value {
    json!({
        "customer": license.customer_id,
        "kind": license.kind,
        "state": license.state,
        "device_limit": license.device_limit,
        "valid_from": license.valid_from.rfc3339(),
        "valid_until": license.valid_until.map(UnixMs::rfc3339),
        "domain": license.domain,
        "note": license.note,
    })
}

/// The license of this number.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn find(reader: &Reader<'_>, id: LicenseId) -> Result<License> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found("license", id))
}

/// The license of this key, whatever its state.
///
/// # Errors
/// When SQLite fails; that there is none is an answer.
pub fn by_key(reader: &Reader<'_>, key: &LicenseKey) -> Result<Option<License>> {
    store::by_key(reader, key)
}

/// The license that an operator means by what he typed.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn by_typed_key(reader: &Reader<'_>, typed: &str) -> Result<License> {
    let found = LicenseKey::parse(typed)
        .map(|key| store::by_key(reader, &key))
        .transpose()?;
    found
        .flatten()
        .ok_or_else(|| Error::not_found("license with the key", typed))
}

/// Licenses in whose key, customer, note or domain `search` occurs, newest first; all for an empty one.
///
/// # Errors
/// When SQLite fails.
pub fn list(reader: &Reader<'_>, search: &str, limit: u32) -> Result<Vec<License>> {
    store::list(reader, search, limit)
}

/// How many there are.
///
/// # Errors
/// When SQLite fails.
pub fn count(reader: &Reader<'_>) -> Result<u32> {
    store::count(reader)
}

/// Stops a license for now. Its session ends within a second.
///
/// # Errors
/// [`Error::State`] when it is revoked.
pub fn suspend(tx: &Tx<'_>, id: LicenseId, actor: &Actor, now: UnixMs) -> Result<License> {
    turn(tx, id, State::Suspended, "licenses.suspend", actor, now)
}

/// Puts a suspended license back into use.
///
/// # Errors
/// [`Error::State`] when it is revoked.
pub fn reinstate(tx: &Tx<'_>, id: LicenseId, actor: &Actor, now: UnixMs) -> Result<License> {
    turn(tx, id, State::Active, "licenses.reinstate", actor, now)
}

/// Stops a license for good. Its session ends within a second.
///
/// # Errors
/// When SQLite fails.
pub fn revoke(tx: &Tx<'_>, id: LicenseId, actor: &Actor, now: UnixMs) -> Result<License> {
    turn(tx, id, State::Revoked, "licenses.revoke", actor, now)
}

fn turn(
    tx: &Tx<'_>,
    id: LicenseId,
    to: State,
    what: &'static str,
    actor: &Actor,
    now: UnixMs,
) -> Result<License> {
    let mut license = find(tx, id)?;
    if license.state == to {
        return Ok(license);
    }
    if license.state == State::Revoked {
        return Err(Error::State(
            "a revoked license stays revoked: issue a new one".to_owned(),
        ));
    }
    let before = facts(&license);
    store::set_state(tx, id, to)?;
    license.state = to;
    note(tx, &license, before, what, actor, now)?;
    Ok(license)
}

/// Gives a license a later end, or an earlier one.
///
/// # Errors
/// [`Error::Invalid`] when the end would lie before the beginning, [`Error::State`] for days on a license
/// without an end.
pub fn extend(
    tx: &Tx<'_>,
    id: LicenseId,
    by: Extension,
    actor: &Actor,
    now: UnixMs,
) -> Result<License> {
    let mut license = find(tx, id)?;
    let until = match (by, license.valid_until) {
        (Extension::Until(until), _) => until,
        (Extension::Days(days), Some(end)) => end
            .max(now)
            .plus(Duration::from_secs(u64::from(days) * 24 * 60 * 60)),
        (Extension::Days(_), None) => {
            return Err(Error::State(
                "the license has no end: give one with --until".to_owned(),
            ));
        }
    };
    if until < license.valid_from {
        return Err(Error::invalid("until", "lies before the license begins"));
    }
    let before = facts(&license);
    store::set_valid_until(tx, id, until)?;
    license.valid_until = Some(until);
    note(tx, &license, before, "licenses.extend", actor, now)?;
    Ok(license)
}

fn note(
    tx: &Tx<'_>,
    license: &License,
    before: Value,
    what: &'static str,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let subject = license.id.to_string();
    let after = facts(license);
    audit::note(
        tx,
        now,
        actor,
        &Deed {
            what,
            subject: &subject,
            before,
            after,
        },
    )?;
    tx.announce();
    Ok(())
}

impl Kind {
    /// The word in the file and on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Trial => "trial",
        }
    }
}

impl State {
    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_stored_in_ascii() {
        assert_eq!(
            domain_of("Bücher.example.").unwrap(),
            "xn--bcher-kva.example"
        );
        assert_eq!(domain_of("WWW.Example.org").unwrap(), "www.example.org");
        for wrong in [
            "",
            "localhost",
            "192.0.2.1",
            "exa mple.org",
            "a..b",
            "x/y.org",
            "example.org:80",
        ] {
            assert!(domain_of(wrong).is_err(), "{wrong}");
        }
    }
}
