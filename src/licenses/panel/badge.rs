//! The badge that shows the state of a license.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::licenses::{EXPIRING_WITHIN, Kind, License, LicenseState, Refusal, check_usable};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How long before its end a trial is shown as expiring: trials are short from the beginning.
const SOON_FOR_TRIALS: Duration = Duration::from_hours(24 * 7);

/// The badge that shows the state of a license: a word, its tone, and a number of days if the word has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Badge {
    /// `ok`, `info`, `warn`, `idle` or `bad`.
    pub(super) tone: &'static str,
    /// The key of its text, without `licenses.state_`.
    pub(super) word: &'static str,
    /// Days until it begins or expires; 0: today, or not applicable.
    pub(super) n: i64,
}

/// The badge of `license` at `now`, while `taken` devices hold a slot.
pub(super) fn badge(license: &License, taken: u32, now: UnixMs) -> Badge {
    let plain = |tone, word| Badge { tone, word, n: 0 };
    let days_to = |at: UnixMs| at.0.div_euclid(DAY_MS) - now.0.div_euclid(DAY_MS);
    let expires_soon = match license.kind {
        Kind::Full => EXPIRING_WITHIN,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::licenses::sample;

    #[test]
    fn the_badge_of_a_license_shows_its_most_important_state() {
        let days = |n: i64| Some(n * DAY_MS);
        let trial = |until| License {
            kind: Kind::Trial,
            ..sample(LicenseState::Active, 0, until)
        };
        for (license, taken, expected) in [
            (
                sample(LicenseState::Active, 0, None),
                1,
                ("ok", "active", 0),
            ),
            (
                sample(LicenseState::Active, 0, None),
                0,
                ("idle", "unused", 0),
            ),
            (
                sample(LicenseState::Active, 0, days(41)),
                1,
                ("ok", "active", 0),
            ),
            (
                sample(LicenseState::Active, 0, days(40)),
                0,
                ("warn", "expires", 30),
            ),
            (
                sample(LicenseState::Active, 0, days(11)),
                1,
                ("warn", "expires", 1),
            ),
            (
                sample(LicenseState::Active, 0, days(10)),
                1,
                ("warn", "expires_today", 0),
            ),
            (
                sample(LicenseState::Active, 0, days(9)),
                1,
                ("idle", "expired", 0),
            ),
            (
                sample(LicenseState::Active, 13 * DAY_MS, None),
                0,
                ("idle", "begins", 3),
            ),
            (
                sample(LicenseState::Suspended, 0, days(9)),
                1,
                ("bad", "suspended", 0),
            ),
            (
                sample(LicenseState::Revoked, 0, None),
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
}
