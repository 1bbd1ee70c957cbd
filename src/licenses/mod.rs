//! Licenses: what was sold, to whom, for how many devices and until when.

pub mod cli;
pub mod client;
pub mod panel;
mod rules;
mod store;

pub use rules::{
    Badge, KEY_TEXT_MAX, LicenseFilter, LicenseKey, Refusal, badge, check_usable, key_part,
};

use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::domain::Domain;
use crate::error::{Error, Refused, Result};
use crate::id::{CustomerId, LicenseId, SessionId};
use crate::paging::{Cursor, Page, PageRequest};
use crate::revision::Revision;
use crate::server_state;
use crate::text;

/// 9999-12-31T23:59:59Z, the latest date that RFC 3339 can express.
const END_OF_DATES: UnixMs = UnixMs(253_402_300_799_000);
/// Maximum number of licenses per order.
pub const ORDER_MAX: u32 = 10_000;
/// How long a trial lasts if the order has no expiry date.
const TRIAL: Duration = Duration::from_hours(30 * 24);
const DEVICES_MAX: u32 = 100_000;
const NOTE_MAX: usize = 4000;
/// Maximum days of one extension: a hundred years.
const DAYS_MAX: u32 = 36_500;
/// Maximum length of a search, in characters; the rest is ignored.
const SEARCH_MAX: usize = 200;
/// The refusal of a change to a revoked license.
const REVOKED: &str = "license_revoked";

/// Whether a license is paid for or for evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Paid for.
    Full,
    /// For evaluation.
    Trial,
}

/// The state that administrators have set; a license in use may still be expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LicenseState {
    /// In use.
    Active,
    /// Stopped until it is reinstated.
    Suspended,
    /// Stopped permanently.
    Revoked,
}

/// A license that was sold.
#[derive(Clone, Debug)]
pub struct License {
    /// The id.
    pub id: LicenseId,
    /// The key that the customer received.
    pub key: LicenseKey,
    /// The customer who owns it.
    pub customer_id: CustomerId,
    /// The customer's name.
    pub customer: String,
    /// Full or trial.
    pub kind: Kind,
    /// The state that administrators have set.
    pub state: LicenseState,
    /// How many devices may hold a slot; at least 1.
    pub device_limit: u32,
    /// The first moment at which it can be used.
    pub valid_from: UnixMs,
    /// The last moment at which it can be used; `None` if it does not expire.
    pub valid_until: Option<UnixMs>,
    /// The domain that it is bound to, in ASCII.
    pub domain: Option<String>,
    /// A note for administrators only.
    pub note: String,
    /// When it was issued.
    pub created_at: UnixMs,
}

/// An order for licenses that are to be issued.
#[derive(Clone, Debug)]
pub struct Order {
    /// The buyer.
    pub customer_id: CustomerId,
    /// Full or trial.
    pub kind: Kind,
    /// The device limit of each license.
    pub device_limit: u32,
    /// The last moment; `None` for no expiry, or for 30 days if it is a trial.
    pub valid_until: Option<UnixMs>,
    /// The domain as typed; stored in ASCII.
    pub domain: Option<String>,
    /// The number of licenses, 1 to [`ORDER_MAX`].
    pub count: u32,
    /// A note for administrators only.
    pub note: String,
}

/// How a license is extended.
#[derive(Clone, Copy, Debug)]
pub enum Extension {
    /// To this last moment.
    Until(UnixMs),
    /// By this many days, from the expiry date or from now if it has passed.
    Days(u32),
}

/// Issues the licenses of `order`.
///
/// # Errors
/// [`Error::Invalid`] if a field is invalid; nothing is issued then.
pub fn issue(tx: &Tx<'_>, order: &Order, actor: &Actor, now: UnixMs) -> Result<Vec<License>> {
    let order = Order {
        note: text::clean_input(&order.note),
        ..order.clone()
    };
    check_order(&order, now)?;
    let domain = order.domain.as_deref().map(parse_domain).transpose()?;
    let valid_until = match (order.valid_until, order.kind) {
        (None, Kind::Trial) => Some(now.plus(TRIAL)),
        (until, _) => until,
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
    let after = licenses.first().map_or(Value::Null, audit_json);
    audit::note(
        tx,
        now,
        actor,
        &Change {
            action: "licenses.issue",
            subject: &subject,
            before: Value::Null,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(licenses)
}

fn check_order(order: &Order, now: UnixMs) -> Result<()> {
    if !(1..=ORDER_MAX).contains(&order.count) {
        return Err(Error::invalid("count", format!("must be 1..{ORDER_MAX}")));
    }
    if order.valid_until.is_some_and(|until| until < now) {
        return Err(Error::invalid("valid-until", "is in the past"));
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

/// Parses a typed host name.
fn parse_domain(text: &str) -> Result<Domain> {
    Domain::from_input(text)
        .ok_or_else(|| Error::invalid("domain", "must be a host name like www.example.org"))
}

/// A license as the audit log stores it.
fn audit_json(license: &License) -> Value {
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

/// The license with this id.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn find(reader: &Reader<'_>, id: LicenseId) -> Result<License> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found("license", id))
}

/// The license of this key, whatever its state; `None` if the key is unknown.
pub fn by_key(reader: &Reader<'_>, key: &LicenseKey) -> Result<Option<License>> {
    store::by_key(reader, key)
}

/// The license of a key as typed by an administrator.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn by_typed_key(reader: &Reader<'_>, typed: &str) -> Result<License> {
    let found = LicenseKey::parse(typed)
        .map(|key| store::by_key(reader, &key))
        .transpose()?;
    found
        .flatten()
        .ok_or_else(|| Error::not_found("license with the key", typed))
}

/// Licenses with `search` in the key, customer, note or domain, newest first; all of them if it is empty.
pub fn list(reader: &Reader<'_>, search: &str, limit: u32) -> Result<Vec<License>> {
    store::list(reader, search, limit)
}

/// A license as a row of a list.
#[derive(Clone, Debug)]
pub struct LicenseRow {
    /// The license.
    pub license: License,
    /// The customer's company; may be empty.
    pub company: String,
    /// How many device slots are taken.
    pub taken: u32,
    /// The session that runs on it.
    pub session: Option<SessionId>,
}

/// Which licenses to list.
#[derive(Clone, Debug, Default)]
pub struct LicenseQuery {
    /// Part of the key, customer, company, note or domain; empty for any.
    pub search: String,
    /// The state of the licenses.
    pub filter: LicenseFilter,
    /// Of this customer only.
    pub customer_id: Option<CustomerId>,
    /// First and last id, both included: the licenses of one order.
    pub range: Option<(LicenseId, LicenseId)>,
}

/// How many licenses match each filter, and their device slots.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct LicenseCounts {
    /// All of them.
    pub all: u32,
    /// In use now.
    pub active: u32,
    /// In use, and expiring within 30 days.
    pub expiring: u32,
    /// In use, and no device has a slot.
    pub unused: u32,
    /// Suspended or revoked.
    pub stopped: u32,
    /// Expired.
    pub expired: u32,
    /// How many device slots are taken.
    pub taken: u32,
    /// How many device slots were sold.
    pub slots: u32,
}

/// A page of licenses, the newest first.
pub fn page(
    reader: &Reader<'_>,
    query: &LicenseQuery,
    request: &PageRequest<LicenseId>,
    now: UnixMs,
) -> Result<Page<LicenseRow>> {
    let started_at = server_state::load(reader)?.started_at;
    let (low, high) = query.range.unwrap_or((LicenseId(0), LicenseId(i64::MAX)));
    let page_range = |low, high| store::PageRange {
        low,
        high,
        limit: request.rows_to_read(),
        now,
        started_at,
    };
    let rows = match request.from {
        Cursor::First => store::page_before(reader, query, &page_range(low, high)),
        Cursor::After(LicenseId(id)) => {
            let high = high.min(LicenseId(id.saturating_sub(1)));
            store::page_before(reader, query, &page_range(low, high))
        }
        Cursor::Before(LicenseId(id)) => {
            let low = low.max(LicenseId(id.saturating_add(1)));
            store::page_after(reader, query, &page_range(low, high))
        }
    };
    Ok(request.page(rows?))
}

/// One license as lists show it.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn find_row(reader: &Reader<'_>, id: LicenseId, now: UnixMs) -> Result<LicenseRow> {
    let started_at = server_state::load(reader)?.started_at;
    store::find_row(reader, id, started_at, now)?.ok_or_else(|| Error::not_found("license", id))
}

/// How many licenses match each filter, among those of the search and customer of `query`.
pub fn count_by_filter(
    reader: &Reader<'_>,
    query: &LicenseQuery,
    now: UnixMs,
) -> Result<LicenseCounts> {
    store::count_by_filter(reader, query, now)
}

/// How many licenses there are.
pub fn count(reader: &Reader<'_>) -> Result<u32> {
    store::count(reader)
}

/// Stops a license until it is reinstated. Its session ends within a second.
///
/// # Errors
/// `license_revoked`.
pub fn suspend(tx: &Tx<'_>, id: LicenseId, actor: &Actor, now: UnixMs) -> Result<License> {
    change_state(
        tx,
        id,
        LicenseState::Suspended,
        "licenses.suspend",
        actor,
        now,
    )
}

/// Puts a suspended license back into use.
///
/// # Errors
/// `license_revoked`.
pub fn reinstate(tx: &Tx<'_>, id: LicenseId, actor: &Actor, now: UnixMs) -> Result<License> {
    change_state(
        tx,
        id,
        LicenseState::Active,
        "licenses.reinstate",
        actor,
        now,
    )
}

/// Stops a license permanently. Its session ends within a second.
pub fn revoke(tx: &Tx<'_>, id: LicenseId, actor: &Actor, now: UnixMs) -> Result<License> {
    change_state(tx, id, LicenseState::Revoked, "licenses.revoke", actor, now)
}

/// [`revoke`], if the administrator confirmed it by typing the last group of the key.
///
/// # Errors
/// [`Error::Invalid`] if `typed` differs.
pub fn revoke_confirmed(
    tx: &Tx<'_>,
    id: LicenseId,
    typed: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<License> {
    let key = find(tx, id)?.key.formatted();
    let last_group = key.rsplit('-').next().unwrap_or_default();
    if key_part(typed) != key_part(last_group) {
        return Err(Error::invalid("typed", "is not the last group of the key"));
    }
    revoke(tx, id, actor, now)
}

fn change_state(
    tx: &Tx<'_>,
    id: LicenseId,
    to: LicenseState,
    action: &'static str,
    actor: &Actor,
    now: UnixMs,
) -> Result<License> {
    let mut license = find(tx, id)?;
    if license.state == to {
        return Ok(license);
    }
    if license.state == LicenseState::Revoked {
        return Err(Refused::plain(REVOKED).into());
    }
    let before = audit_json(&license);
    store::set_state(tx, id, to)?;
    license.state = to;
    note(tx, &license, before, action, actor, now)?;
    Ok(license)
}

/// [`extend`], unless the license was changed since a form was made from it: `seen` is
/// its [`License::revision`] then.
///
/// # Errors
/// As [`extend`], and `changed_meanwhile`.
pub fn extend_unchanged(
    tx: &Tx<'_>,
    id: LicenseId,
    extension: Extension,
    seen: &Revision,
    actor: &Actor,
    now: UnixMs,
) -> Result<License> {
    seen.check(&find(tx, id)?.revision())?;
    extend(tx, id, extension, actor, now)
}

/// Moves the expiry date of a license, forward or backward.
///
/// # Errors
/// [`Error::Invalid`] if the date is out of range, `license_without_end` for days on a license that does not expire,
/// `license_revoked`.
pub fn extend(
    tx: &Tx<'_>,
    id: LicenseId,
    extension: Extension,
    actor: &Actor,
    now: UnixMs,
) -> Result<License> {
    let mut license = find(tx, id)?;
    if license.state == LicenseState::Revoked {
        return Err(Refused::plain(REVOKED).into());
    }
    if let Extension::Days(days) = extension
        && !(1..=DAYS_MAX).contains(&days)
    {
        return Err(Error::invalid("days", format!("must be 1..{DAYS_MAX}")));
    }
    let until = match (extension, license.valid_until) {
        (Extension::Until(until), _) => until,
        (Extension::Days(days), Some(end)) => end
            .max(now)
            .plus(Duration::from_secs(u64::from(days) * 24 * 60 * 60)),
        (Extension::Days(_), None) => {
            return Err(Refused::plain("license_without_end").into());
        }
    };
    if until < license.valid_from {
        return Err(Error::invalid("until", "is before the license begins"));
    }
    if until > END_OF_DATES {
        return Err(Error::invalid("until", "is after the year 9999"));
    }
    let before = audit_json(&license);
    store::set_valid_until(tx, id, until)?;
    license.valid_until = Some(until);
    note(tx, &license, before, "licenses.extend", actor, now)?;
    Ok(license)
}

/// The terms of a license that administrators may edit, as typed.
#[derive(Clone, Debug)]
pub struct EditedTerms {
    /// Full or trial.
    pub kind: Kind,
    /// How many devices may hold a slot.
    pub device_limit: u32,
    /// The first day, such as 2026-12-01.
    pub valid_from: String,
    /// The last day; empty if it does not expire.
    pub valid_until: String,
    /// A note for administrators only.
    pub note: String,
}

impl License {
    /// The revision of everything that can be edited.
    pub fn revision(&self) -> Revision {
        Revision::of(&audit_json(self))
    }
}

/// Changes the terms of a license, unless it was changed since a form was made from it: `seen` is its
/// [`License::revision`] then.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], `changed_meanwhile`, and `slots_taken` if more devices hold a slot
/// than the new limit allows.
pub fn edit(
    tx: &Tx<'_>,
    id: LicenseId,
    terms: &EditedTerms,
    seen: &Revision,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let LicenseRow {
        license: old,
        taken,
        ..
    } = find_row(tx, id, now)?;
    seen.check(&old.revision())?;
    let note_text = text::clean_input(&terms.note);
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
        return Err(Error::invalid("valid-until", "is before the start date"));
    }
    store::edit(tx, &new)?;
    note(tx, &new, audit_json(&old), "licenses.edit", actor, now)
}

fn note(
    tx: &Tx<'_>,
    license: &License,
    before: Value,
    action: &'static str,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let subject = license.id.to_string();
    let after = audit_json(license);
    audit::note(
        tx,
        now,
        actor,
        &Change {
            action,
            subject: &subject,
            before,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(())
}

impl Kind {
    /// The word in the database and in responses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Trial => "trial",
        }
    }

    /// The kind for a word.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another word.
    pub fn from_word(word: &str) -> Result<Self> {
        match word {
            "full" => Ok(Self::Full),
            "trial" => Ok(Self::Trial),
            _ => Err(Error::invalid("kind", "must be full or trial")),
        }
    }
}

impl LicenseState {
    /// The word in the database and in lists.
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
        let stored = |typed| parse_domain(typed).unwrap().to_string();
        assert_eq!(stored(" Bücher.example "), "xn--bcher-kva.example");
        assert_eq!(stored("https://example.org./"), "example.org");
        for wrong in ["", ".", "localhost", "192.0.2.1.", "example.org.."] {
            assert!(parse_domain(wrong).is_err(), "{wrong}");
        }
    }
}
