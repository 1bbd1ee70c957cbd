//! Whether a license can be used at a moment, and what its terms may be.

use std::time::Duration;

use super::{EditedTerms, Kind, License, LicenseState};
use crate::clock::UnixMs;
use crate::error::{Error, Faults, RefusalKind, Refused, Result};
use crate::text;

/// Why a license cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The key is unknown.
    NotFound,
    /// An administrator suspended or revoked it.
    Suspended,
    /// Its validity has not begun.
    NotYetValid {
        /// Its first moment.
        valid_from: UnixMs,
    },
    /// It has expired.
    Expired {
        /// Its last moment.
        valid_until: UnixMs,
    },
}

impl Refusal {
    /// The error code of the API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotFound => "license_not_found",
            Self::Suspended => "license_suspended",
            Self::NotYetValid { .. } => "license_not_yet_valid",
            Self::Expired { .. } => "license_expired",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::NotFound => RefusalKind::NotFound,
            Self::Suspended | Self::NotYetValid { .. } | Self::Expired { .. } => {
                RefusalKind::Forbidden
            }
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let plain = Self::new(refusal.kind(), refusal.code());
        match refusal {
            Refusal::NotFound | Refusal::Suspended => plain,
            Refusal::NotYetValid { valid_from } => plain.with("valid_from", valid_from.rfc3339()),
            Refusal::Expired { valid_until } => plain.with("valid_until", valid_until.rfc3339()),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// Whether `license` can be used at `now`.
///
/// # Errors
/// The [`Refusal`] if it cannot.
pub fn check_usable(license: &License, now: UnixMs) -> std::result::Result<(), Refusal> {
    if license.state != LicenseState::Active {
        return Err(Refusal::Suspended);
    }
    if now < license.valid_from {
        return Err(Refusal::NotYetValid {
            valid_from: license.valid_from,
        });
    }
    match license.valid_until {
        Some(valid_until) if now > valid_until => Err(Refusal::Expired { valid_until }),
        _ => Ok(()),
    }
}

const DAY: Duration = Duration::from_hours(24);
/// How long before its end a license is shown as expiring: enough time to write to the customer.
pub const EXPIRING_WITHIN: Duration = Duration::from_hours(24 * 30);

/// Licenses that expire by this moment are shown as expiring.
pub(super) fn soon(now: UnixMs) -> UnixMs {
    now.plus(EXPIRING_WITHIN)
}

const DEVICES_MAX: u32 = 100_000;
const NOTE_MAX: usize = 4000;

/// Whether a license may have this device limit and this note.
pub(super) fn check_terms(device_limit: u32, note: &str) -> Result<()> {
    let mut faults = Faults::default();
    if !(1..=DEVICES_MAX).contains(&device_limit) {
        let problem = format!("must be 1..{DEVICES_MAX}");
        faults.add(Error::invalid("device_limit", problem));
    }
    let is_control = |c: char| c.is_control() && c != '\n';
    if note.contains(is_control) || note.chars().count() > NOTE_MAX {
        let problem = format!("must be at most {NOTE_MAX} characters, no control characters");
        faults.add(Error::invalid("note", problem));
    }
    faults.finish()
}

/// Maximum days of a term, and of one extension: a hundred years.
const DAYS_MAX: u32 = 36_500;

/// `days`, if they are a term or an extension.
pub(super) fn check_days(field: &'static str, days: u32) -> Result<u32> {
    if (1..=DAYS_MAX).contains(&days) {
        Ok(days)
    } else {
        Err(Error::invalid(field, format!("must be 1..{DAYS_MAX}")))
    }
}

/// A term that has not begun, lengthened by `more` days.
pub(super) fn longer_term(days: u32, more: u32) -> Result<u32> {
    check_days("days", days.saturating_add(check_days("days", more)?))
}

/// The license with the changes of `terms`, except for its customer and for what is no change, which is kept in `faults`.
pub(super) fn edited(old: &License, terms: &EditedTerms, faults: &mut Faults) -> License {
    let mut moment = |field, typed: &Option<String>, old| match typed {
        Some(typed) => faults.keep(last_moment(field, typed)).unwrap_or(old),
        None => old,
    };
    let valid_until = moment("valid_until", &terms.valid_until, old.valid_until);
    let updates_until = moment("updates_until", &terms.updates_until, old.updates_until);
    let never_expires = terms.valid_until.as_deref() == Some("");
    let pending_days = match terms.pending_days.as_deref() {
        _ if valid_until.is_some() => None,
        None => old.pending_days.filter(|_| !never_expires),
        Some("") => None,
        Some(typed) => faults.keep(pending_days(typed, old)),
    };
    let valid_from = terms.valid_from.as_deref().map(first_moment);
    let valid_from = valid_from.and_then(|typed| faults.keep(typed));
    let plan = terms.plan.as_ref();
    License {
        kind: terms.kind.unwrap_or(old.kind),
        device_limit: terms.device_limit.unwrap_or(old.device_limit),
        valid_from: valid_from.unwrap_or(old.valid_from),
        valid_until,
        pending_days,
        plan: plan.map_or_else(
            || old.plan.clone(),
            |code| Some(code.clone()).filter(|code| !code.is_empty()),
        ),
        features: terms.features.as_ref().unwrap_or(&old.features).clone(),
        updates_until,
        note: terms
            .note
            .as_deref()
            .map_or_else(|| old.note.clone(), text::clean_input),
        ..old.clone()
    }
}

/// The typed days of a term that the first activation of `old` begins.
fn pending_days(typed: &str, old: &License) -> Result<u32> {
    if old.pending_days.is_none() {
        return Err(Error::invalid(
            "pending_days",
            "is the term of a license that has begun",
        ));
    }
    // No text that is not a number is a number of days.
    check_days("pending_days", typed.parse().unwrap_or_default())
}

/// Whether a license may be stored like this.
pub(super) fn check_edited(new: &License) -> Result<()> {
    let mut faults = Faults::default();
    faults.keep(check_terms(new.device_limit, &new.note));
    if new.valid_until.is_some_and(|until| until < new.valid_from) {
        faults.add(Error::invalid("valid_until", "is before the start date"));
    }
    if new.customer_id.is_none() && new.kind == Kind::Full {
        faults.add(Error::invalid("customer", "is needed for a full license"));
    }
    faults.finish()
}

/// `terms` from a form that showed `license`: it shows moments as days, and sends all of them back. Those that are
/// unchanged are no change.
pub(super) fn without_shown_days(license: &License, terms: &EditedTerms) -> EditedTerms {
    let changed = |typed: &Option<String>, moment: Option<UnixMs>| {
        let shown = moment.map(UnixMs::day);
        typed.clone().filter(|typed| Some(typed) != shown.as_ref())
    };
    EditedTerms {
        valid_from: changed(&terms.valid_from, Some(license.valid_from)),
        valid_until: changed(&terms.valid_until, license.valid_until),
        updates_until: changed(&terms.updates_until, license.updates_until),
        ..terms.clone()
    }
}

/// The first moment of a typed day.
fn first_moment(typed: &str) -> Result<UnixMs> {
    let last = UnixMs::parse(typed).map_err(|problem| Error::invalid("valid_from", problem))?;
    // `parse` returns the last second of a day without a time.
    Ok(if typed.len() == 10 {
        UnixMs(last.minus(DAY).0.saturating_add(1000))
    } else {
        last
    })
}

/// The last moment of a typed day; `None` if empty.
fn last_moment(field: &'static str, typed: &str) -> Result<Option<UnixMs>> {
    if typed.is_empty() {
        return Ok(None);
    }
    let last = UnixMs::parse(typed).map_err(|problem| Error::invalid(field, problem))?;
    Ok(Some(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::licenses::sample;

    #[test]
    fn a_day_means_its_first_or_last_second() {
        for (typed, from, until) in [
            ("2027-12-31", "2027-12-31T00:00:00Z", "2027-12-31T23:59:59Z"),
            ("2027-12-30", "2027-12-30T00:00:00Z", "2027-12-30T23:59:59Z"),
            (
                "2027-12-30T05:00:00Z",
                "2027-12-30T05:00:00Z",
                "2027-12-30T05:00:00Z",
            ),
        ] {
            assert_eq!(first_moment(typed).unwrap().rfc3339(), from);
            let last = last_moment("valid_until", typed).unwrap();
            assert_eq!(last.map(UnixMs::rfc3339).as_deref(), Some(until));
        }
        assert_eq!(last_moment("valid_until", "").unwrap(), None);
        assert!(first_moment("").is_err());
        assert!(last_moment("valid_until", "31.12.2027").is_err());
    }

    #[test]
    fn a_day_that_a_form_showed_and_sends_back_is_no_change() {
        let noon = UnixMs::parse("2027-12-31T12:00:00Z").unwrap();
        let shown = License {
            updates_until: Some(noon),
            ..sample(LicenseState::Active, noon.0, Some(noon.0))
        };
        for (typed, is_change) in [
            ("2027-12-31", false),
            ("2027-12-30", true),
            ("2027-12-31T12:00:00Z", true),
            ("", true),
        ] {
            let typed = Some(typed.to_owned());
            let sent = EditedTerms {
                valid_from: typed.clone(),
                valid_until: typed.clone(),
                updates_until: typed.clone(),
                note: typed.clone(),
                ..EditedTerms::default()
            };
            let left = without_shown_days(&shown, &sent);
            let expected = typed.clone().filter(|_| is_change);
            assert_eq!(left.valid_from, expected);
            assert_eq!(left.valid_until, expected);
            assert_eq!(left.updates_until, expected);
            assert_eq!(left.note, typed);
        }
    }

    #[test]
    fn days_that_wait_for_an_activation_end_with_a_date_and_without_an_end() {
        let pending = License {
            pending_days: Some(30),
            ..sample(LicenseState::Active, 0, None)
        };
        for (valid_until, pending_days, expected) in [
            (None, None, Some(30)),
            (Some(""), None, None),
            (Some("2027-12-31"), None, None),
            // The form of a term that has not begun.
            (Some(""), Some("30"), Some(30)),
            (Some(""), Some("7"), Some(7)),
            (Some(""), Some(""), None),
            (Some("2027-12-31"), Some("30"), None),
        ] {
            let terms = EditedTerms {
                valid_until: valid_until.map(str::to_owned),
                pending_days: pending_days.map(str::to_owned),
                ..EditedTerms::default()
            };
            let mut faults = Faults::default();
            let new = edited(&pending, &terms, &mut faults);
            faults.finish().unwrap();
            assert_eq!(new.pending_days, expected, "{terms:?}");
        }
    }

    #[test]
    fn a_license_can_be_used_from_its_first_to_its_last_moment() {
        use LicenseState::{Active, Revoked, Suspended};
        for (state, until, now, expected) in [
            (Active, None, 10, Ok(())),
            (Active, None, 9, Err("license_not_yet_valid")),
            (Active, Some(20), 20, Ok(())),
            (Active, Some(20), 21, Err("license_expired")),
            (Suspended, Some(20), 21, Err("license_suspended")),
            (Revoked, None, 9, Err("license_suspended")),
        ] {
            let license = sample(state, 10, until);
            let usable = check_usable(&license, UnixMs(now)).map_err(Refusal::code);
            assert_eq!(usable, expected);
        }
    }
}
