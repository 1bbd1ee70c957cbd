//! License keys: their format, and how they are read as people type them.

use crate::error::Result;
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
    pub fn parse(typed: &str) -> Option<Self> {
        Self::of_part(&key_part(typed))
    }

    /// [`LicenseKey::parse`] of what [`key_part`] returned.
    pub fn of_part(part: &str) -> Option<Self> {
        let key: [u8; KEY_LEN] = part.as_bytes().try_into().ok()?;
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

/// The place of a character in [`ALPHABET`].
const fn value(character: u8) -> Option<u8> {
    Some(match character {
        b'0'..=b'9' => character - b'0',
        b'A'..=b'H' => character - b'A' + 10,
        b'J'..=b'K' => character - b'J' + 18,
        b'M'..=b'N' => character - b'M' + 20,
        b'P'..=b'T' => character - b'P' + 22,
        b'V'..=b'Z' => character - b'V' + 27,
        _ => return None,
    })
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

/// Normalises a typed key, or a part of one, to the form in which keys are stored. Case and full-width forms are
/// folded; spaces, line ends, dashes, quotation marks and invisible characters are dropped; `O` becomes `0`, `I` and
/// `L` become `1`.
///
/// Every key is read through this function: mail programs turn hyphens into dashes and put no-break spaces around a
/// key.
pub fn key_part(typed: &str) -> String {
    let mut part = String::with_capacity(typed.len());
    if typed.is_ascii() {
        // Nearly every key of a program: without the tables of Unicode.
        let upper = kept(typed).map(|c| c.to_ascii_uppercase());
        part.extend(upper.map(unambiguous));
    } else {
        // Full-width forms and the like are mostly those of ASCII characters.
        let plain = text::to_nfkc(typed);
        part.extend(kept(&plain).flat_map(char::to_uppercase).map(unambiguous));
    }
    part
}

fn kept(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !text::is_separator(*c))
}

fn unambiguous(character: char) -> char {
    match character {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    }
}

/// What was typed into a search as a part of a key, normalised by [`key_part`]; `None` if it is shorter than the
/// sequences of characters that the search index holds, or if no key contains it.
pub fn searched_part(typed: &str) -> Option<String> {
    let part = key_part(typed);
    let fits = (3..=KEY_LEN).contains(&part.len()) && part.bytes().all(|c| ALPHABET.contains(&c));
    fits.then_some(part)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

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
    fn the_value_of_a_character_is_its_place_in_the_alphabet() {
        for byte in 0..=u8::MAX {
            let place = ALPHABET.iter().position(|known| *known == byte);
            assert_eq!(value(byte).map(usize::from), place, "{byte}");
        }
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
}
