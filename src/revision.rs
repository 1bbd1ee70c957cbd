//! Edit conflicts: a caller who changes something sends the revision that the change is based on, and the change is
//! refused if the state has another one by then. Forms send it in a hidden field, scripts in `If-Match`.

use serde_json::Value;

use crate::error::{CHANGED_MEANWHILE, Error, Refused, Result};

/// Identifies one state of something that can be edited: the SHA-256 of that state as hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Revision(String);

impl Revision {
    /// The revision of `state`, which contains everything that can be edited.
    pub fn of(state: &Value) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, state.to_string().as_bytes());
        let digits = digest.as_ref().iter().flat_map(|byte| {
            [byte >> 4, byte & 15].map(|half| char::from_digit(u32::from(half), 16).unwrap_or('0'))
        });
        Self(digits.collect())
    }

    /// The revision that a caller sent: the value of a form field, or of `If-Match` with its quotation marks. Any
    /// other text is a revision that no state has.
    pub fn parse(text: &str) -> Self {
        let unquoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        Self(unquoted.unwrap_or(text).to_owned())
    }

    /// Whether the caller sent none.
    pub const fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses a change that is based on this revision, unless it still is the `current` one.
    ///
    /// # Errors
    /// `changed_meanwhile`.
    pub fn check(&self, current: &Self) -> Result<()> {
        if self == current {
            Ok(())
        } else {
            Err(Refused::changed_meanwhile().into())
        }
    }

    /// The revision for a form that is shown again with `error`. After a conflict it is the `current` one, so that
    /// the form overwrites the other change if it is sent again; after any other error it stays the same.
    #[must_use]
    pub fn after(self, error: &Error, current: Self) -> Self {
        if is_conflict(error) { current } else { self }
    }
}

/// Whether `error` is the refusal of [`Revision::check`].
pub fn is_conflict(error: &Error) -> bool {
    error.is(CHANGED_MEANWHILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_is_refused_if_it_is_based_on_another_state() {
        let current = Revision::of(&json!({ "name": "Ada", "note": "" }));
        let sent = serde_json::to_value(&current).unwrap();
        let sent = sent.as_str().unwrap();
        assert_eq!(sent.len(), 64);
        for (text, accepted) in [
            (sent.to_owned(), true),
            (format!("\"{sent}\""), true),
            (sent.to_uppercase(), false),
            (format!("\"{sent}"), false),
            (String::new(), false),
        ] {
            let checked = Revision::parse(&text).check(&current);
            assert_eq!(checked.is_ok(), accepted, "{text}");
            assert!(checked.err().is_none_or(|error| is_conflict(&error)));
        }
        let other = Revision::of(&json!({ "name": "Ada", "note": "new" }));
        assert!(other.check(&current).is_err());
    }

    #[test]
    fn a_form_overwrites_after_a_conflict_only() {
        let (seen, current) = (Revision::parse("1"), Revision::parse("2"));
        let conflict = seen.check(&current).unwrap_err();
        assert_eq!(seen.clone().after(&conflict, current.clone()), current);
        let other = Error::invalid("note", "is too long");
        assert_eq!(seen.clone().after(&other, current), seen);
    }
}
