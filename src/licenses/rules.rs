//! The format of license keys, and whether a license can be used at a moment.

use std::time::Duration;

use super::{Kind, License, LicenseState};
use crate::clock::UnixMs;
use crate::error::{Error, Refused, Result};
use crate::security::secret;
use crate::text;

/// Characters of a key: 24 random ones and a check character, 5 bits each.
const KEY_LEN: usize = 25;
/// Maximum length of a typed key, in characters, without ignored ones such as spaces and hyphens.
pub const KEY_TEXT_MAX: usize = 64;
/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A license key: 25 characters of [`ALPHABET`]. `Debug` does not show it, so that logs do not leak it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LicenseKey([u8; KEY_LEN]);

impl LicenseKey {
    /// A new key from the operating system's generator.
    ///
    /// # Errors
    /// If the generator fails.
    pub fn new() -> Result<Self> {
        // 32 divides 256: the low five bits of a random byte are as random as the byte.
        let random: [u8; KEY_LEN - 1] = secret::random()?;
        let values = random.map(|byte| byte & 31);
        let mut key = [b'0'; KEY_LEN];
        for (place, value) in key
            .iter_mut()
            .zip(values.into_iter().chain([check_value(&values)]))
        {
            *place = character(value);
        }
        Ok(Self(key))
    }

    /// Parses a typed or pasted key, normalised by [`key_part`]. `None` if the text cannot be a key; a single wrong
    /// character is always detected.
    pub fn parse(text: &str) -> Option<Self> {
        let key: [u8; KEY_LEN] = key_part(text).into_bytes().try_into().ok()?;
        let mut values = [0; KEY_LEN];
        for (place, character) in values.iter_mut().zip(key) {
            *place = value(character)?;
        }
        let (check, random) = values.split_last()?;
        (check_value(random) == *check).then_some(Self(key))
    }

    /// Reads a key as it is stored.
    pub fn from_stored(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    /// The key as it is stored: no hyphens.
    pub fn stored(&self) -> String {
        self.0.iter().copied().map(char::from).collect()
    }

    /// The stored form as bytes, for comparison.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key for display: five groups of five, with hyphens.
    pub fn formatted(&self) -> String {
        let groups: Vec<String> = self
            .0
            .chunks(5)
            .map(|group| group.iter().copied().map(char::from).collect())
            .collect();
        groups.join("-")
    }
}

impl std::fmt::Debug for LicenseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LicenseKey(…)")
    }
}

impl serde::Serialize for LicenseKey {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.formatted())
    }
}

fn character(value: u8) -> u8 {
    ALPHABET.get(usize::from(value)).copied().unwrap_or(b'0')
}

fn value(character: u8) -> Option<u8> {
    ALPHABET
        .iter()
        .position(|known| *known == character)
        .and_then(|at| u8::try_from(at).ok())
}

/// The check character: a weighted sum over the field of 32 elements (polynomial x⁵ + x² + 1). The weights are powers
/// of its generator x: they are all different and none is 0, so that one wrong character, or two swapped ones, always
/// change the sum.
fn check_value(values: &[u8]) -> u8 {
    // Horner's rule: each step multiplies the sum by x. The last step does too, so that no other character has the
    // weight 1 of the check character, and a swap with it is detected as well.
    values.iter().fold(0, |sum, value| {
        let doubled = (sum ^ value) << 1;
        if doubled & 32 == 0 {
            doubled
        } else {
            doubled ^ 0b10_0101
        }
    })
}

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
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let plain = Self::plain(refusal.code());
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
    pub const fn word(self) -> &'static str {
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
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.word() == word)
    }
}

/// Licenses that expire by this moment are shown as expiring.
pub(super) fn soon(now: UnixMs) -> UnixMs {
    now.plus(SOON)
}

/// Normalises a typed key, or a part of one, to the form in which keys are stored. Case and full-width forms are
/// folded; spaces, line ends, dashes, quotation marks and invisible characters are dropped; `O` becomes `0`, `I` and
/// `L` become `1`.
///
/// Every key is read through this function: mail programs turn hyphens into dashes and put no-break spaces around a
/// key.
pub fn key_part(typed: &str) -> String {
    let plain = if typed.is_ascii() {
        typed.to_owned()
    } else {
        text::to_nfkc(typed)
    };
    let characters = plain.chars().filter(|c| !text::is_separator(*c));
    characters
        .flat_map(char::to_uppercase)
        .map(|c| match c {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
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

/// The first moment of a typed day; `old`, if the day is unchanged.
pub(super) fn first_moment(typed: &str, old: UnixMs) -> Result<UnixMs> {
    if typed == old.day() {
        return Ok(old);
    }
    let last = UnixMs::parse(typed).map_err(|problem| Error::invalid("valid-from", problem))?;
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
    let last = UnixMs::parse(typed).map_err(|problem| Error::invalid("valid-until", problem))?;
    Ok(Some(last))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::id::{CustomerId, LicenseId};

    #[test]
    fn keys_are_unique_and_unbiased_and_can_be_parsed_again() {
        let keys: Vec<LicenseKey> = (0..10_000).map(|_| LicenseKey::new().unwrap()).collect();
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        let mut counts = [0_u32; 32];
        for key in &keys {
            assert_eq!(LicenseKey::parse(&key.formatted()), Some(*key));
            assert_eq!(LicenseKey::from_stored(&key.stored()), Some(*key));
            key.0
                .iter()
                .for_each(|byte| counts[usize::from(value(*byte).unwrap())] += 1);
        }
        // 250,000 characters, 7,812 of each expected, standard deviation 87: six of them in both directions.
        assert!(
            counts.iter().all(|count| (7290..8335).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn one_wrong_character_and_two_swapped_ones_are_detected() {
        for _ in 0..50 {
            let key = LicenseKey::new().unwrap();
            for place in 0..KEY_LEN {
                for other in ALPHABET.iter().filter(|other| **other != key.0[place]) {
                    let mut wrong = key;
                    wrong.0[place] = *other;
                    assert_eq!(LicenseKey::parse(&wrong.formatted()), None);
                }
                for second in 0..place {
                    let mut wrong = key;
                    wrong.0.swap(place, second);
                    assert!(wrong == key || LicenseKey::parse(&wrong.formatted()).is_none());
                }
            }
        }
    }

    #[test]
    fn keys_are_parsed_as_people_type_them() {
        let values = [24_u8, 0, 1, 1].into_iter().chain([0; 20]);
        let values: Vec<u8> = values.collect();
        let text: String = values
            .iter()
            .chain([&check_value(&values)])
            .map(|v| char::from(character(*v)))
            .collect();
        let key = LicenseKey::parse(&text).unwrap();
        let rest = text.strip_prefix("R011").unwrap();
        for sloppy in [
            format!(" roil-{rest} "),
            format!("roil\u{2013}{rest}\r\n"),
            format!("\u{201e}roil\u{2011}{rest}\u{201c}"),
            format!("\u{feff}\"R\u{ad}O\u{200b}I L{rest}\"\t"),
            format!("\u{ff32}\u{ff2f}\u{ff11}\u{ff0d}\u{ff2c}{rest}\u{2028}"),
        ] {
            assert_eq!(LicenseKey::parse(&sloppy), Some(key), "{sloppy:?}");
        }
        for wrong in [
            "",
            "-",
            text.strip_prefix("R").unwrap(),
            &format!("{text}0"),
            &text.replace('R', "U"),
            "Ä",
            &"0".repeat(64),
        ] {
            assert_eq!(LicenseKey::parse(wrong), None, "{wrong}");
        }
    }

    fn license(state: LicenseState, from: i64, until: Option<i64>) -> License {
        License {
            id: LicenseId(1),
            key: LicenseKey::new().unwrap(),
            customer_id: CustomerId(1),
            customer: String::new(),
            kind: Kind::Full,
            state,
            device_limit: 1,
            valid_from: UnixMs(from),
            valid_until: until.map(UnixMs),
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
    fn parts_of_keys_are_normalised_like_keys() {
        for (typed, part) in [
            ("7k2-q", "7K2Q"),
            (" roi l", "R011"),
            ("Käthe", "KÄTHE"),
            ("-", ""),
            ("\u{201e}7k2\u{2011}q\u{201c}\r\n", "7K2Q"),
            ("\u{feff}7\u{200b}k\u{ad}2\u{a0}\u{2212}q\t", "7K2Q"),
            ("\u{ff17}\u{ff4b}\u{ff12}\u{ff0d}\u{ff31}", "7K2Q"),
            ("7k2\u{0}q", "7K2\u{0}Q"),
        ] {
            assert_eq!(key_part(typed), part);
        }
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
