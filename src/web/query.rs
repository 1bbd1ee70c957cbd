//! The query of a page's address, read or refused. Rocket takes a value that it cannot read for one that is not
//! there, and a filter that is not there shows everything.

use crate::clock::UnixMs;
use crate::error::{Error, Result};

/// What `name` says, without spaces at its ends; `None` where it says nothing.
pub fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

/// The whole number in `name`, where one is given.
///
/// # Errors
/// [`Error::Invalid`] for a text that is none.
pub fn number(name: &'static str, text: Option<&str>) -> Result<Option<i64>> {
    read(name, text, "must be a whole number", |text| {
        text.parse().ok()
    })
}

/// The first moment of the day in `name`, where one is given.
///
/// # Errors
/// [`Error::Invalid`] for a text that is no day.
pub fn day(name: &'static str, text: Option<&str>) -> Result<Option<UnixMs>> {
    read(name, text, "must be a date like 2026-12-31", |text| {
        let first = UnixMs::parse(&format!("{text}T00:00:00Z")).ok();
        first.filter(|_| text.len() == 10)
    })
}

/// What `known` makes of `name`, where something is given: one of few words, or where a page begins.
///
/// # Errors
/// [`Error::Invalid`] where it makes nothing of it.
pub fn known<T>(
    name: &'static str,
    text: Option<&str>,
    known: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    read(name, text, "is unknown", known)
}

fn read<T>(
    name: &'static str,
    text: Option<&str>,
    problem: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    let Some(text) = given(text) else {
        return Ok(None);
    };
    read(text)
        .map(Some)
        .ok_or_else(|| Error::invalid(name, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        for (text, read) in [
            (None, Some(None)),
            (Some(" "), Some(None)),
            (Some(" 12 "), Some(Some(12))),
            (Some("-3"), Some(Some(-3))),
            (Some("x"), None),
            (Some("99999999999999999999"), None),
        ] {
            assert_eq!(number("n", text).ok(), read, "{text:?}");
        }
        for (text, good) in [
            ("2026-12-31", true),
            ("2026-02-30", false),
            ("31.12.2026", false),
            ("2026-12-31T00:00:00Z", false),
        ] {
            assert_eq!(day("d", Some(text)).is_ok(), good, "{text}");
        }
        assert!(known("k", Some("x"), |_| None::<()>).is_err());
    }
}
