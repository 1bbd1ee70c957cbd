//! Changes licenses that were issued: their state, their end and their terms.

use std::time::Duration;

use serde_json::Value;

use super::{
    Kind, License, LicenseRow, LicenseState, audit_json, find, find_row, key_part, rules, store,
};
use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::Tx;
use crate::error::{Error, RefusalKind, Refused, Result};
use crate::id::LicenseId;
use crate::revision::Revision;
use crate::text;

/// 9999-12-31T23:59:59Z, the latest date that RFC 3339 can express.
const END_OF_DATES: UnixMs = UnixMs(253_402_300_799_000);
/// Maximum days of one extension: a hundred years.
const DAYS_MAX: u32 = 36_500;
/// The refusal of a change to a revoked license.
const REVOKED: &str = "license_revoked";

/// How a license is extended.
#[derive(Clone, Copy, Debug)]
pub enum Extension {
    /// To this last moment.
    Until(UnixMs),
    /// By this many days, from the expiry date or from now if it has passed.
    Days(u32),
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
        return Err(Refused::new(RefusalKind::Conflict, REVOKED).into());
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
        return Err(Refused::new(RefusalKind::Conflict, REVOKED).into());
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
            return Err(Refused::new(RefusalKind::Conflict, "license_without_end").into());
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
    rules::check_terms(terms.device_limit, &note_text)?;
    if terms.device_limit < taken {
        return Err(Refused::new(RefusalKind::Conflict, "slots_taken")
            .with("n", taken)
            .into());
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
