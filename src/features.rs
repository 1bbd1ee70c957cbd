//! What a license or a plan allows a program to do, as words: `export`, `pro`, `seats.50`.

use crate::error::{Error, Result};

/// Most features of one license.
const COUNT_MAX: usize = 50;
/// The longest feature, in characters.
const LENGTH_MAX: usize = 40;

/// The features of a license or plan: up to 50 different words of 1 to 40 characters `a-z`, `0-9`, `_`, `.` and `-`,
/// sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(Vec<String>);

impl Features {
    /// Features as typed: words separated by spaces, commas or line ends.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn from_input(text: &str) -> Result<Self> {
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';'));
        Self::from_words(words.filter(|word| !word.is_empty()))
    }

    /// Features as single words.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn from_words<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self> {
        let mut features: Vec<String> = words.map(str::to_owned).collect();
        features.sort_unstable();
        features.dedup();
        if let Some(wrong) = features.iter().find(|word| !is_feature(word)) {
            let problem = format!(
                "{wrong:?} must be 1..{LENGTH_MAX} characters a-z, 0-9, \"_\", \".\" or \"-\""
            );
            return Err(Error::invalid("features", problem));
        }
        if features.len() > COUNT_MAX {
            return Err(Error::invalid(
                "features",
                format!("must be at most {COUNT_MAX} words"),
            ));
        }
        Ok(Self(features))
    }

    /// Features as [`Features::stored`] writes them.
    pub fn from_stored(text: &str) -> Self {
        Self(text.split_whitespace().map(str::to_owned).collect())
    }

    /// The form in the database: separated by spaces.
    pub fn stored(&self) -> String {
        self.0.join(" ")
    }

    /// The words, sorted.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

fn is_feature(word: &str) -> bool {
    let allowed =
        |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'.' | b'-');
    (1..=LENGTH_MAX).contains(&word.len()) && word.bytes().all(allowed)
}

impl serde::Serialize for Features {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_sorted_words() {
        let words = |text: &str| Features::from_input(text).unwrap().stored();
        assert_eq!(words(" pro, export\nseats.50 pro"), "export pro seats.50");
        assert_eq!(words(""), "");
        let stored = Features::from_stored("export pro");
        assert_eq!(stored.words(), ["export", "pro"]);
        for wrong in ["Pro", "a/b", "größe", &"a".repeat(LENGTH_MAX + 1)] {
            assert!(Features::from_input(wrong).is_err(), "{wrong:?}");
        }
        let many = |count: usize| {
            let words: Vec<String> = (0..count).map(|n| format!("f{n}")).collect();
            words.join(" ")
        };
        assert!(Features::from_input(&many(COUNT_MAX)).is_ok());
        assert!(Features::from_input(&many(COUNT_MAX + 1)).is_err());
    }
}
