//! The form of an API key, how long a rotated one stays valid, and the refusal.

use std::time::Duration;

use crate::error::{Error, RefusalKind, Refused, Result};
use crate::security::secret::Secret;

/// Most days for which an API key that was rotated out may stay valid.
const OVERLAP_DAYS_MAX: u32 = 3650;
/// Characters of a masked key that are shown at each end.
const KEY_ENDS: usize = 4;

/// Why a program is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The API key is missing or wrong.
    InvalidApiKey,
}

impl Refusal {
    /// The error code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidApiKey => "invalid_api_key",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::InvalidApiKey => RefusalKind::Unauthorized,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::new(refusal.kind(), refusal.code()).into()
    }
}

/// Checks the form of a key that a shop brings along.
///
/// # Errors
/// [`Error::Invalid`].
pub(super) fn check(key: &Secret<String>) -> Result<()> {
    let key = key.reveal();
    if !(20..=200).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let problem = "must be 20..200 visible characters; `config rotate-api-key` makes one";
        return Err(Error::invalid("api_key", problem));
    }
    Ok(())
}

/// How long an API key that was rotated out stays valid.
///
/// # Errors
/// [`Error::Invalid`] for more than ten years.
pub fn overlap(days: u32) -> Result<Duration> {
    if days > OVERLAP_DAYS_MAX {
        let problem = format!("must be 0..{OVERLAP_DAYS_MAX}");
        return Err(Error::invalid("overlap_days", problem));
    }
    Ok(Duration::from_hours(24) * days)
}

/// A key with only its ends visible: enough to recognize it, but not to use it.
pub fn masked(key: &Secret<String>) -> String {
    let chars: Vec<char> = key.reveal().chars().collect();
    let hidden = chars.len().saturating_sub(2 * KEY_ENDS);
    let first = chars.iter().take(KEY_ENDS);
    let last = chars.iter().skip(KEY_ENDS + hidden);
    first.chain(['…'].iter()).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_key_shows_its_ends_only() {
        let masked = |key: &str| masked(&Secret::new(key.to_owned()));
        assert_eq!(masked("lsk_0123456789abcdef"), "lsk_…cdef");
        assert_eq!(masked("ab"), "ab…", "a short key does not get longer");
    }

    #[test]
    fn an_old_key_stays_valid_for_ten_years_at_most() {
        assert_eq!(overlap(0).unwrap(), Duration::ZERO);
        assert_eq!(overlap(7).unwrap(), Duration::from_hours(7 * 24));
        assert!(overlap(3650).is_ok() && overlap(3651).is_err());
    }
}
