//! Parses query parameters of pages, and refuses invalid ones. Rocket would treat an unparsable parameter as missing, and
//! a page without the filter would show everything.

use crate::error::{Error, Result};
use crate::zone::{Day, Zone};

/// `text` without white space at its ends; `None` if nothing is left.
pub fn non_empty(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

/// `text` without white space at its ends; empty if it is missing.
pub fn trimmed(text: Option<&str>) -> &str {
    text.unwrap_or_default().trim()
}

/// The integer in the parameter `name`; `None` if it is missing or empty.
///
/// # Errors
/// [`Error::Invalid`] if it is not an integer.
pub fn number(name: &'static str, text: Option<&str>) -> Result<Option<i64>> {
    read(name, text, "must be a whole number", |text| {
        text.parse().ok()
    })
}

/// The day of `zone` in the parameter `name`; `None` if it is missing or empty.
///
/// # Errors
/// [`Error::Invalid`] if it is not a date like `2026-12-31`.
pub fn day(name: &'static str, text: Option<&str>, zone: &Zone) -> Result<Option<Day>> {
    read(name, text, "must be a date like 2026-12-31", |text| {
        zone.parse_day(text)
    })
}

/// The parameter `name` as parsed by `parse`, such as a keyword or the cursor of a page; `None` if it is missing or
/// empty.
///
/// # Errors
/// [`Error::Invalid`] if `parse` returns `None`.
pub fn parsed<T>(
    name: &'static str,
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    read(name, text, "is unknown", parse)
}

fn read<T>(
    name: &'static str,
    text: Option<&str>,
    problem: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    let Some(text) = non_empty(text) else {
        return Ok(None);
    };
    parse(text)
        .map(Some)
        .ok_or_else(|| Error::invalid(name, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_parameter_is_not_treated_as_missing() {
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
            let day = day("d", Some(text), &Zone::default());
            assert_eq!(day.is_ok(), good, "{text}");
        }
        assert!(parsed("k", Some("x"), |_| None::<()>).is_err());
    }
}
