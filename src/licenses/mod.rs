//! Licenses: what was sold, to whom, for how many devices and until when.

pub mod cli;
pub mod client;
pub mod panel;
mod rules;
mod store;

pub use rules::{Filter, KEY_TEXT_MAX, LicenseKey, Refusal, Shown, key_part, shown, standing};

use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::domain::Domain;
use crate::error::{CHANGED_MEANWHILE, Error, Refused, Result};
use crate::id::{CustomerId, LicenseId, SessionId};
use crate::security::secret;
use crate::server_state;
use crate::text;

/// 9999-12-31T23:59:59Z: no later date can be written.
const END_OF_DATES: UnixMs = UnixMs(253_402_300_799_000);
/// Licenses that one order may issue.
pub const ORDER_MAX: u32 = 10_000;
/// How long a trial runs for which nobody said it.
const TRIAL: Duration = Duration::from_hours(30 * 24);
const DEVICES_MAX: u32 = 100_000;
const NOTE_MAX: usize = 4000;
/// Most days that a license is extended by at once: a hundred years.
const DAYS_MAX: u32 = 36_500;
/// Longest search, in characters; more is cut off.
const SEARCH_MAX: usize = 200;
/// The code of a deed that only a license in use allows.
const REVOKED: &str = "license_revoked";

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
    let order = Order {
        note: text::typed(&order.note),
        ..order.clone()
    };
    check(&order, now)?;
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
            &order,
            domain.as_ref(),
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
        &Change {
            what: "licenses.issue",
            subject: &subject,
            before: Value::Null,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(licenses)
}

fn check(order: &Order, now: UnixMs) -> Result<()> {
    if !(1..=ORDER_MAX).contains(&order.count) {
        return Err(Error::invalid("count", format!("must be 1..{ORDER_MAX}")));
    }
    if order.valid_until.is_some_and(|until| until < now) {
        return Err(Error::invalid("valid-until", "lies in the past"));
    }
    check_terms(order.device_limit, &order.note)
}

fn check_terms(device_limit: u32, note: &str) -> Result<()> {
    if !(1..=DEVICES_MAX).contains(&device_limit) {
        return Err(Error::invalid(
            "devices",
            format!("must be 1..{DEVICES_MAX}"),
        ));
    }
    if note.contains(|c: char| c.is_control() && c != '\n') {
        return Err(Error::invalid("note", "holds a control character"));
    }
    if note.chars().count() > NOTE_MAX {
        return Err(Error::invalid(
            "note",
            format!("is longer than {NOTE_MAX} characters"),
        ));
    }
    Ok(())
}

/// A host name as it is stored.
fn domain_of(text: &str) -> Result<Domain> {
    Domain::typed(text)
        .ok_or_else(|| Error::invalid("domain", "must be a host name like www.example.org"))
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

/// A license as lists show it.
#[derive(Clone, Debug)]
pub struct LicenseRow {
    /// What was sold.
    pub license: License,
    /// The customer's company; empty if none.
    pub company: String,
    /// Device slots that are taken.
    pub taken: u32,
    /// The session that runs on it.
    pub session: Option<SessionId>,
}

/// Which licenses to list.
#[derive(Clone, Debug, Default)]
pub struct LicenseQuery {
    /// What occurs in key, customer, company, note or domain; empty for any.
    pub search: String,
    /// How they stand.
    pub filter: Filter,
    /// Of this customer only.
    pub customer_id: Option<CustomerId>,
    /// Numbered from the one to the other, as an order issued them.
    pub range: Option<(LicenseId, LicenseId)>,
}

/// Which way a page of licenses goes on.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// The newest ones.
    Newest,
    /// Those that are older than this one.
    Before(LicenseId),
    /// Those that are newer than this one.
    After(LicenseId),
}

/// How many licenses each filter lets through, and their device slots.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct LicenseCounts {
    /// All of them.
    pub all: u32,
    /// In use now.
    pub active: u32,
    /// In use, and over within 30 days.
    pub expiring: u32,
    /// In use, and no device has a slot.
    pub unused: u32,
    /// Suspended or revoked.
    pub stopped: u32,
    /// Over.
    pub expired: u32,
    /// Device slots that are taken.
    pub taken: u32,
    /// Device slots that were sold.
    pub slots: u32,
}

/// A page of licenses, the newest first.
///
/// # Errors
/// When SQLite fails.
pub fn page(
    reader: &Reader<'_>,
    wanted: &LicenseQuery,
    from: From,
    limit: u32,
    now: UnixMs,
) -> Result<Vec<LicenseRow>> {
    let started_at = server_state::load(reader)?.started_at;
    let (low, high) = wanted.range.unwrap_or((LicenseId(0), LicenseId(i64::MAX)));
    let look = |low, high| store::Cursor {
        low,
        high,
        limit,
        now,
        started_at,
    };
    match from {
        From::Newest => store::page_before(reader, wanted, &look(low, high)),
        From::Before(LicenseId(id)) => {
            let high = high.min(LicenseId(id.saturating_sub(1)));
            store::page_before(reader, wanted, &look(low, high))
        }
        From::After(LicenseId(id)) => {
            let low = low.max(LicenseId(id.saturating_add(1)));
            let mut rows = store::page_after(reader, wanted, &look(low, high))?;
            rows.reverse();
            Ok(rows)
        }
    }
}

/// One license as lists show it.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn listed(reader: &Reader<'_>, id: LicenseId, now: UnixMs) -> Result<LicenseRow> {
    let started_at = server_state::load(reader)?.started_at;
    store::listed(reader, id, started_at, now)?.ok_or_else(|| Error::not_found("license", id))
}

/// How many licenses each filter lets through, among those that `wanted` searches for.
///
/// # Errors
/// When SQLite fails.
pub fn tally(reader: &Reader<'_>, wanted: &LicenseQuery, now: UnixMs) -> Result<LicenseCounts> {
    store::tally(reader, wanted, now)
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
/// `license_revoked`.
pub fn suspend(tx: &Tx<'_>, id: LicenseId, actor: &Actor, now: UnixMs) -> Result<License> {
    turn(tx, id, State::Suspended, "licenses.suspend", actor, now)
}

/// Puts a suspended license back into use.
///
/// # Errors
/// `license_revoked`.
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

/// The same, where `typed` shows that this license is meant: the last group of its key.
///
/// # Errors
/// [`Error::Invalid`] for another text.
pub fn revoke_named(
    tx: &Tx<'_>,
    id: LicenseId,
    typed: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<License> {
    let key = find(tx, id)?.key.shown();
    let meant = key.rsplit('-').next().unwrap_or_default();
    if key_part(typed) != key_part(meant) {
        return Err(Error::invalid("typed", "is not the last group of the key"));
    }
    revoke(tx, id, actor, now)
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
        return Err(Refused::plain(REVOKED).into());
    }
    let before = facts(&license);
    store::set_state(tx, id, to)?;
    license.state = to;
    note(tx, &license, before, what, actor, now)?;
    Ok(license)
}

/// [`extend`], as long as nobody else has changed the license since `seen` was taken.
///
/// # Errors
/// As [`extend`], and `changed_meanwhile`.
pub fn extend_seen(
    tx: &Tx<'_>,
    id: LicenseId,
    by: Extension,
    seen: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<License> {
    if state(&find(tx, id)?) != seen {
        return Err(Refused::plain(CHANGED_MEANWHILE).into());
    }
    extend(tx, id, by, actor, now)
}

/// Gives a license a later end, or an earlier one.
///
/// # Errors
/// [`Error::Invalid`] when the end would lie before the beginning, `license_without_end` for days on a
/// license that has none, `license_revoked`.
pub fn extend(
    tx: &Tx<'_>,
    id: LicenseId,
    by: Extension,
    actor: &Actor,
    now: UnixMs,
) -> Result<License> {
    let mut license = find(tx, id)?;
    if license.state == State::Revoked {
        return Err(Refused::plain(REVOKED).into());
    }
    if let Extension::Days(days) = by
        && !(1..=DAYS_MAX).contains(&days)
    {
        return Err(Error::invalid("days", format!("must be 1..{DAYS_MAX}")));
    }
    let until = match (by, license.valid_until) {
        (Extension::Until(until), _) => until,
        (Extension::Days(days), Some(end)) => end
            .max(now)
            .plus(Duration::from_secs(u64::from(days) * 24 * 60 * 60)),
        (Extension::Days(_), None) => {
            return Err(Refused::plain("license_without_end").into());
        }
    };
    if until < license.valid_from {
        return Err(Error::invalid("until", "lies before the license begins"));
    }
    if until > END_OF_DATES {
        return Err(Error::invalid("until", "lies behind the year 9999"));
    }
    let before = facts(&license);
    store::set_valid_until(tx, id, until)?;
    license.valid_until = Some(until);
    note(tx, &license, before, "licenses.extend", actor, now)?;
    Ok(license)
}

/// What an administrator may change about a license, as typed.
#[derive(Clone, Debug)]
pub struct EditedTerms {
    /// Paid for, or to try.
    pub kind: Kind,
    /// How many devices may hold a slot.
    pub device_limit: u32,
    /// The first day, such as 2026-12-01.
    pub valid_from: String,
    /// The last day; empty for no end.
    pub valid_until: String,
    /// For administrators only.
    pub note: String,
}

/// What a form for a license was made from: another state has another digest.
pub fn state(license: &License) -> String {
    secret::digest_of(&facts(license))
}

/// Changes what was agreed about a license, as long as nobody else has since `seen` was taken.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], `changed_meanwhile`, and `slots_taken` for fewer devices than
/// hold a slot.
pub fn edit(
    tx: &Tx<'_>,
    id: LicenseId,
    terms: &EditedTerms,
    seen: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let LicenseRow {
        license: old,
        taken,
        ..
    } = listed(tx, id, now)?;
    if state(&old) != seen {
        return Err(Refused::plain(CHANGED_MEANWHILE).into());
    }
    let note_text = text::typed(&terms.note);
    check_terms(terms.device_limit, &note_text)?;
    if terms.device_limit < taken {
        return Err(Refused::plain("slots_taken").with("n", taken).into());
    }
    let new = License {
        kind: terms.kind,
        device_limit: terms.device_limit,
        valid_from: rules::first_moment(&terms.valid_from, old.valid_from)?,
        valid_until: rules::last_moment(&terms.valid_until, old.valid_until)?,
        note: note_text,
        ..old.clone()
    };
    if new.valid_until.is_some_and(|until| until < new.valid_from) {
        return Err(Error::invalid("valid-until", "lies before the beginning"));
    }
    store::edit(tx, &new)?;
    note(tx, &new, facts(&old), "licenses.edit", actor, now)
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
        &Change {
            what,
            subject: &subject,
            before,
            after,
        },
    )?;
    tx.invalidate_caches();
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

    /// The kind of a word.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another word.
    pub fn of_word(word: &str) -> Result<Self> {
        match word {
            "full" => Ok(Self::Full),
            "trial" => Ok(Self::Trial),
            _ => Err(Error::invalid("kind", "must be full or trial")),
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
        let stored = |typed| domain_of(typed).unwrap().to_string();
        assert_eq!(stored(" Bücher.example "), "xn--bcher-kva.example");
        assert_eq!(stored("https://example.org./"), "example.org");
        for wrong in ["", ".", "localhost", "192.0.2.1.", "example.org.."] {
            assert!(domain_of(wrong).is_err(), "{wrong}");
        }
    }
}
