//! Whether a license can be used at a moment, and how its state is shown.

use std::time::Duration;

use super::{Kind, License, LicenseState};
use crate::clock::UnixMs;
use crate::error::{Error, RefusalKind, Refused, Result};

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
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How long before its end a license is shown as expiring: enough time to write to the customer.
const SOON: Duration = Duration::from_hours(24 * 30);
/// The same for trials, which are short from the beginning.
const SOON_FOR_TRIALS: Duration = Duration::from_hours(24 * 7);

/// Which licenses a list shows, by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LicenseFilter {
    /// All of them.
    #[default]
    All,
    /// In use now.
    Active,
    /// In use, and expiring within 30 days.
    Expiring,
    /// In use, and no device has a slot.
    Unused,
    /// Suspended or revoked.
    Stopped,
    /// Expired.
    Expired,
}

impl LicenseFilter {
    /// Every filter, in the order of the panel.
    pub const ALL: [Self; 6] = [
        Self::All,
        Self::Active,
        Self::Expiring,
        Self::Unused,
        Self::Stopped,
        Self::Expired,
    ];

    /// The word in URLs and SQL queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Active => "active",
            Self::Expiring => "expiring",
            Self::Unused => "unused",
            Self::Stopped => "stopped",
            Self::Expired => "expired",
        }
    }

    /// The filter for a word; `None` if unknown.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.as_str() == text)
    }
}

/// Licenses that expire by this moment are shown as expiring.
pub(super) fn soon(now: UnixMs) -> UnixMs {
    now.plus(SOON)
}

/// The badge that shows the state of a license: a word, its tone, and a number of days if the word has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Badge {
    /// `ok`, `info`, `warn`, `idle` or `bad`.
    pub tone: &'static str,
    /// The key of its text, without `licenses.state_`.
    pub word: &'static str,
    /// Days until it begins or expires; 0: today, or not applicable.
    pub n: i64,
}

/// The badge of `license` at `now`, while `taken` devices hold a slot.
pub fn badge(license: &License, taken: u32, now: UnixMs) -> Badge {
    let plain = |tone, word| Badge { tone, word, n: 0 };
    let days_to = |at: UnixMs| at.0.div_euclid(DAY_MS) - now.0.div_euclid(DAY_MS);
    let expires_soon = match license.kind {
        Kind::Full => SOON,
        Kind::Trial => SOON_FOR_TRIALS,
    };
    match (license.state, check_usable(license, now)) {
        (LicenseState::Revoked, _) => plain("bad", "revoked"),
        (LicenseState::Suspended, _) => plain("bad", "suspended"),
        (_, Err(Refusal::NotYetValid { valid_from })) => Badge {
            n: days_to(valid_from),
            ..plain("idle", "begins")
        },
        (_, Err(_)) => plain("idle", "expired"),
        (_, Ok(())) => match license.valid_until {
            Some(until) if until <= now.plus(expires_soon) => match days_to(until) {
                0 => plain("warn", "expires_today"),
                n => Badge {
                    n,
                    ..plain("warn", "expires")
                },
            },
            _ if taken == 0 => plain("idle", "unused"),
            _ if license.kind == Kind::Trial => plain("info", "trial"),
            _ => plain("ok", "active"),
        },
    }
}

const DEVICES_MAX: u32 = 100_000;
const NOTE_MAX: usize = 4000;

/// Whether a license may have this device limit and this note.
pub(super) fn check_terms(device_limit: u32, note: &str) -> Result<()> {
    if !(1..=DEVICES_MAX).contains(&device_limit) {
        return Err(Error::invalid(
            "device_limit",
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

/// The first moment of a typed day; `old`, if the day is unchanged.
pub(super) fn first_moment(typed: &str, old: UnixMs) -> Result<UnixMs> {
    if typed == old.day() {
        return Ok(old);
    }
    let last = UnixMs::parse(typed).map_err(|problem| Error::invalid("valid_from", problem))?;
    // `parse` returns the last second of a day without a time.
    Ok(if typed.len() == 10 {
        UnixMs(last.minus(DAY).0.saturating_add(1000))
    } else {
        last
    })
}

/// The last moment of a typed day; `None` if empty; `old`, if the day is unchanged.
pub(super) fn last_moment(typed: &str, old: Option<UnixMs>) -> Result<Option<UnixMs>> {
    if typed.is_empty() {
        return Ok(None);
    }
    if let Some(old) = old
        && typed == old.day()
    {
        return Ok(Some(old));
    }
    let last = UnixMs::parse(typed).map_err(|problem| Error::invalid("valid_until", problem))?;
    Ok(Some(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CustomerId, LicenseId, ProductId};
    use crate::licenses::{Features, LicenseKey};

    fn license(state: LicenseState, from: i64, until: Option<i64>) -> License {
        License {
            id: LicenseId(1),
            key: LicenseKey::new().unwrap(),
            product: ProductId::FIRST,
            plan: None,
            customer_id: Some(CustomerId(1)),
            customer: String::new(),
            kind: Kind::Full,
            state,
            device_limit: 1,
            valid_from: UnixMs(from),
            valid_until: until.map(UnixMs),
            pending_days: None,
            features: Features::default(),
            updates_until: None,
            domain: None,
            note: String::new(),
            created_at: UnixMs(0),
        }
    }

    #[test]
    fn the_badge_of_a_license_shows_its_most_important_state() {
        let days = |n: i64| Some(n * DAY_MS);
        let trial = |until| License {
            kind: Kind::Trial,
            ..license(LicenseState::Active, 0, until)
        };
        for (license, taken, expected) in [
            (
                license(LicenseState::Active, 0, None),
                1,
                ("ok", "active", 0),
            ),
            (
                license(LicenseState::Active, 0, None),
                0,
                ("idle", "unused", 0),
            ),
            (
                license(LicenseState::Active, 0, days(41)),
                1,
                ("ok", "active", 0),
            ),
            (
                license(LicenseState::Active, 0, days(40)),
                0,
                ("warn", "expires", 30),
            ),
            (
                license(LicenseState::Active, 0, days(11)),
                1,
                ("warn", "expires", 1),
            ),
            (
                license(LicenseState::Active, 0, days(10)),
                1,
                ("warn", "expires_today", 0),
            ),
            (
                license(LicenseState::Active, 0, days(9)),
                1,
                ("idle", "expired", 0),
            ),
            (
                license(LicenseState::Active, 13 * DAY_MS, None),
                0,
                ("idle", "begins", 3),
            ),
            (
                license(LicenseState::Suspended, 0, days(9)),
                1,
                ("bad", "suspended", 0),
            ),
            (
                license(LicenseState::Revoked, 0, None),
                1,
                ("bad", "revoked", 0),
            ),
            (trial(days(30)), 1, ("info", "trial", 0)),
            (trial(days(30)), 0, ("idle", "unused", 0)),
            (trial(days(17)), 1, ("warn", "expires", 7)),
        ] {
            let badge = badge(&license, taken, UnixMs(10 * DAY_MS));
            assert_eq!(
                (badge.tone, badge.word, badge.n),
                expected,
                "{license:?} {taken}"
            );
        }
    }

    #[test]
    fn a_day_means_its_first_or_last_second_unless_it_is_unchanged() {
        let noon = UnixMs::parse("2027-12-31T12:00:00Z").unwrap();
        for (typed, from, until) in [
            ("2027-12-31", "2027-12-31T12:00:00Z", "2027-12-31T12:00:00Z"),
            ("2027-12-30", "2027-12-30T00:00:00Z", "2027-12-30T23:59:59Z"),
            (
                "2027-12-30T05:00:00Z",
                "2027-12-30T05:00:00Z",
                "2027-12-30T05:00:00Z",
            ),
        ] {
            assert_eq!(first_moment(typed, noon).unwrap().rfc3339(), from);
            let last = last_moment(typed, Some(noon)).unwrap();
            assert_eq!(last.map(UnixMs::rfc3339).as_deref(), Some(until));
        }
        assert_eq!(last_moment("", Some(noon)).unwrap(), None);
        assert!(first_moment("", noon).is_err() && last_moment("31.12.2027", None).is_err());
    }

    #[test]
    fn a_license_can_be_used_from_its_first_to_its_last_moment() {
        for (license, now, expected) in [
            (license(LicenseState::Active, 10, None), 10, Ok(())),
            (
                license(LicenseState::Active, 10, None),
                9,
                Err("license_not_yet_valid"),
            ),
            (license(LicenseState::Active, 10, Some(20)), 20, Ok(())),
            (
                license(LicenseState::Active, 10, Some(20)),
                21,
                Err("license_expired"),
            ),
            (
                license(LicenseState::Suspended, 10, Some(20)),
                21,
                Err("license_suspended"),
            ),
            (
                license(LicenseState::Revoked, 10, None),
                9,
                Err("license_suspended"),
            ),
        ] {
            assert_eq!(
                check_usable(&license, UnixMs(now)).map_err(Refusal::code),
                expected
            );
        }
    }
}
