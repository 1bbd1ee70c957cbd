//! Versions of the licensed programs: `MAJOR.MINOR.PATCH`.

use std::fmt;
use std::str::FromStr;

use crate::text;

/// Maximum length of a version, in characters.
pub const VERSION_LEN_MAX: usize = 20;

/// Three decimal numbers, compared as numbers: `1.10.0` is newer than `1.9.9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u64,
    minor: u64,
    patch: u64,
}

impl Version {
    /// Text whose bytes sort like versions.
    pub fn sort_key(self) -> String {
        format!("{:020}.{:020}.{:020}", self.major, self.minor, self.patch)
    }

    /// A version of these three numbers.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl Version {
    /// Parses user input, which may be a tag of version control (`v1.4.0`) or have spaces around it.
    ///
    /// # Errors
    /// As [`Version::from_str`].
    pub fn from_input(text: &str) -> Result<Self, &'static str> {
        let text = text.trim_matches(text::is_trimmed);
        text.strip_prefix(['v', 'V']).unwrap_or(text).parse()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "must be three decimal numbers like 1.4.0, at most 20 characters";
        if text.len() > VERSION_LEN_MAX {
            return Err(WRONG);
        }
        let mut numbers = text.split('.').map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if digits {
                part.parse::<u64>().or(Err(WRONG))
            } else {
                Err(WRONG)
            }
        });
        let mut next = || numbers.next().unwrap_or(Err(WRONG));
        let version = Self::new(next()?, next()?, next()?);
        if numbers.next().is_some() {
            Err(WRONG)
        } else {
            Ok(version)
        }
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let ordered = [
            "0.0.0", "0.0.1", "0.9.12", "1.9.9", "1.10.0", "2.0.0", "10.0.0",
        ];
        for pair in ordered.windows(2) {
            let (older, newer): (Version, Version) =
                (pair[0].parse().unwrap(), pair[1].parse().unwrap());
            assert!(older < newer, "{older} < {newer}");
            assert_eq!(older.to_string(), pair[0]);
        }
    }

    #[test]
    fn user_input_may_be_a_tag() {
        for typed in ["1.4.0", " v1.4.0", "V1.4.0\n", "\u{feff}1.4.0\u{a0}"] {
            assert_eq!(
                Version::from_input(typed),
                Ok(Version::new(1, 4, 0)),
                "{typed:?}"
            );
        }
        for wrong in [
            "",
            "v",
            "vv1.4.0",
            "1.4",
            "v 1.4.0",
            "1.4.0-rc.1",
            "version 1.4.0",
        ] {
            assert!(Version::from_input(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn anything_but_three_decimal_numbers_is_rejected() {
        for wrong in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "v1.2.3",
            "1.2.3-beta",
            "1.2.x",
            "1..3",
            ".1.2",
            "1.2.",
            " 1.2.3",
            "1.2.3 ",
            "+1.2.3",
            "-1.2.3",
            "1,2,3",
            "١.٢.٣",
            "1111111111.1111111.1111",
            "1.2.99999999999999999",
        ] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong:?}");
        }
        assert!(
            "99999.99999.99999999".parse::<Version>().is_ok(),
            "20 characters"
        );
    }
}
