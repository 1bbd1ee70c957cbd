//! Changes licenses that were issued: their state, their end and their terms.

use std::time::Duration;

use serde_json::Value;

use super::{
    Features, Kind, License, LicenseRow, LicenseState, audit_json, find, find_row, key_part, rules,
    store,
};
use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::customers;
use crate::db::{Reader, Tx};
use crate::error::{Error, Faults, RefusalKind, Refused, Resource, Result};
use crate::id::{CustomerId, LicenseId};
use crate::product_state;
use crate::revision::Revision;

/// 9999-12-31T23:59:59Z, the latest date that RFC 3339 can express.
const END_OF_DATES: UnixMs = UnixMs(253_402_300_799_000);
const DAY: Duration = Duration::from_hours(24);
/// The refusal of a change to a revoked license.
const REVOKED: &str = "license_revoked";

/// How a license is extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub fn suspend(act: &Act<'_>, id: LicenseId) -> Result<License> {
    change_state(act, id, LicenseState::Suspended, "licenses.suspend")
}

/// Puts a suspended license back into use.
///
/// # Errors
/// `license_revoked`.
pub fn reinstate(act: &Act<'_>, id: LicenseId) -> Result<License> {
    change_state(act, id, LicenseState::Active, "licenses.reinstate")
}

/// Stops a license permanently. Its session ends within a second.
pub fn revoke(act: &Act<'_>, id: LicenseId) -> Result<License> {
    change_state(act, id, LicenseState::Revoked, "licenses.revoke")
}

/// [`revoke`], if the administrator confirmed it by typing the last group of the key.
///
/// # Errors
/// [`Error::Invalid`] if `typed` differs.
pub fn revoke_confirmed(act: &Act<'_>, id: LicenseId, typed: &str) -> Result<License> {
    let key = find(act.tx, id)?.key.formatted();
    let last_group = key.rsplit('-').next().unwrap_or_default();
    if key_part(typed) != key_part(last_group) {
        return Err(Error::invalid("typed", "is not the last group of the key"));
    }
    revoke(act, id)
}

fn change_state(
    act: &Act<'_>,
    id: LicenseId,
    to: LicenseState,
    action: &'static str,
) -> Result<License> {
    let mut license = find(act.tx, id)?;
    if license.state == to {
        return Ok(license);
    }
    if license.state == LicenseState::Revoked {
        return Err(Refused::new(RefusalKind::Conflict, REVOKED).into());
    }
    let before = audit_json(&license);
    store::set_state(act, id, to)?;
    license.state = to;
    changed(act, action, before, &license)?;
    Ok(license)
}

/// [`extend`], unless its end was changed since a form was made from it: `seen` is its [`License::end_revision`] then.
///
/// # Errors
/// As [`extend`], and `changed_meanwhile`.
pub fn extend_unchanged(
    act: &Act<'_>,
    id: LicenseId,
    extension: Extension,
    seen: &Revision,
) -> Result<License> {
    seen.check(&find(act.tx, id)?.end_revision())?;
    extend(act, id, extension)
}

/// Moves the expiry date of a license, forward or backward. Days lengthen a term that its first activation begins; a
/// date ends it without waiting for that.
///
/// # Errors
/// [`Error::Invalid`] if the date is out of range, `license_without_end` for days on a license that does not expire,
/// `product_archived`, `license_revoked`.
pub fn extend(act: &Act<'_>, id: LicenseId, extension: Extension) -> Result<License> {
    let mut license = find(act.tx, id)?;
    product_state::check_in_use(act.tx, license.product)?;
    if license.state == LicenseState::Revoked {
        return Err(Refused::new(RefusalKind::Conflict, REVOKED).into());
    }
    let before = audit_json(&license);
    if let (Extension::Days(more), Some(days)) = (extension, license.pending_days) {
        license.pending_days = Some(rules::longer_term(days, more)?);
    } else {
        license.valid_until = Some(extension.end_of(&license, act.now)?);
        license.pending_days = None;
    }
    store::set_term(act.tx, &license)?;
    changed(act, "licenses.extend", before, &license)?;
    Ok(license)
}

impl Extension {
    /// The new last moment of `license`.
    fn end_of(self, license: &License, now: UnixMs) -> Result<UnixMs> {
        let until = match self {
            Self::Until(until) => until,
            Self::Days(days) => {
                let end = license.valid_until;
                let end =
                    end.ok_or_else(|| Refused::new(RefusalKind::Conflict, "license_without_end"))?;
                end.max(now).plus(DAY * rules::check_days("days", days)?)
            }
        };
        if until < license.valid_from {
            return Err(Error::invalid("until", "is before the license begins"));
        }
        if until > END_OF_DATES {
            return Err(Error::invalid("until", "is after the year 9999"));
        }
        Ok(until)
    }
}

/// Begins the term of a license that its first activation begins; returns the license as it is now.
pub fn begin_term(tx: &Tx<'_>, license: License, now: UnixMs) -> Result<License> {
    let Some(days) = license.pending_days else {
        return Ok(license);
    };
    let until = now.plus(DAY * days);
    store::begin_term(tx, license.id, until)?;
    Ok(License {
        valid_until: Some(until),
        pending_days: None,
        ..license
    })
}

/// Takes back [`begin_term`] after an activation that was only tried; `license` is as it was before.
pub fn undo_begin_term(tx: &Tx<'_>, license: &License) -> Result<()> {
    let undo = |days| store::undo_begin_term(tx, license.id, days);
    license.pending_days.map_or(Ok(()), undo)
}

/// Changes to the terms of a license, as typed; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditedTerms {
    /// Full or trial.
    pub kind: Option<Kind>,
    /// How many devices may hold a slot.
    pub device_limit: Option<u32>,
    /// The first day, such as 2026-12-01.
    pub valid_from: Option<String>,
    /// The last day; empty if it does not expire, or if its first activation begins its term.
    pub valid_until: Option<String>,
    /// The days of a term that has not begun; empty to have none.
    pub pending_days: Option<String>,
    /// The code of the plan that it was sold by, whose values are not copied; empty for none.
    pub plan: Option<String>,
    /// What it allows a program to do, all of it.
    pub features: Option<Features>,
    /// The last day of the releases that it covers; empty for all releases.
    pub updates_until: Option<String>,
    /// The customer who owns it, as in [`customers::find`].
    pub customer: Option<String>,
    /// A note for administrators only.
    pub note: Option<String>,
}

/// A change to the terms of a license.
#[derive(Clone, Debug)]
pub struct LicenseEdit {
    /// The license.
    pub id: LicenseId,
    /// What changes.
    pub terms: EditedTerms,
    /// The [`License::revision`] that a form showed; its days stand for the moments of the license if they are unchanged.
    /// `None` if the change applies to any.
    pub seen: Option<Revision>,
}

/// The customer whose license `edit` gives to another.
///
/// # Errors
/// As [`edit`].
pub fn former_owner(reader: &Reader<'_>, edit: &LicenseEdit) -> Result<Option<CustomerId>> {
    let owner = find(reader, edit.id)?.customer_id;
    let new = new_owner(reader, &edit.terms)?;
    Ok(owner.filter(|_| new.is_some() && new != owner))
}

/// The customer to whom a license is given, if to any.
fn new_owner(reader: &Reader<'_>, terms: &EditedTerms) -> Result<Option<CustomerId>> {
    let named = terms.customer.as_deref().filter(|text| !text.is_empty());
    let found = named.map(|text| customers::find_not_erased(reader, text));
    found.transpose()
}

/// Changes the terms of a license; one with a [`former_owner`] only as `activations::edit_license`, which takes from it what
/// is that one's. Its note is, too, unless it is changed.
///
/// # Errors
/// [`Error::NotFound`] for the license, its new plan or customer, [`Error::Invalid`], `customer_erased`,
/// `changed_meanwhile`, `product_archived`, and `slots_taken` if more devices hold a slot than the new limit allows.
pub fn edit(act: &Act<'_>, edit: &LicenseEdit) -> Result<License> {
    let LicenseRow {
        license: old,
        taken,
        ..
    } = find_row(act.tx, edit.id, act.now)?;
    product_state::check_in_use(act.tx, old.product)?;
    let mut terms = edit.terms.clone();
    if let Some(seen) = &edit.seen {
        seen.check(&old.revision())?;
        terms = rules::without_shown_days(&old, &terms);
    }
    let mut faults = Faults::default();
    if old.customer_id.is_some() && terms.customer.as_deref() == Some("") {
        faults.add(Error::invalid("customer", "must be an id or a name"));
    }
    let mut new = rules::edited(&old, &terms, &mut faults);
    if let Some(code) = new.plan.as_deref().filter(|_| new.plan != old.plan)
        && !store::has_plan(act.tx, old.product, code)?
    {
        faults.add(Error::not_found(Resource::Plan, code));
    }
    let owner = faults.keep(new_owner(act.tx, &terms)).flatten();
    new.customer_id = owner.or(old.customer_id);
    if old.customer_id.is_some() && new.customer_id != old.customer_id && new.note == old.note {
        new.note.clear();
    }
    faults.keep(rules::check_edited(&new));
    if new.device_limit < taken {
        let refused = Refused::new(RefusalKind::Conflict, "slots_taken");
        faults.add(refused.about("device_limit").with("n", taken));
    }
    faults.finish()?;
    change_terms(act, &old, &new)?;
    find(act.tx, edit.id)
}

/// Stores the terms of `new`, which is `old` with other terms.
pub fn change_terms(act: &Act<'_>, old: &License, new: &License) -> Result<()> {
    store::edit(act.tx, new)?;
    changed(act, "licenses.edit", audit_json(old), new)
}

fn changed(act: &Act<'_>, action: &'static str, before: Value, license: &License) -> Result<()> {
    act.changed(&Change {
        action,
        subject: &license.id.to_string(),
        before,
        after: audit_json(license),
    })
}
