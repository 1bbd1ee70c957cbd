//! Validation of a customer's data, and how input refers to a customer.

use super::CustomerData;
use crate::error::{Error, Faults, Result};
use crate::id::CustomerId;

const NAME_MAX: usize = 200;
const NOTE_MAX: usize = 4000;

/// Checks the fields.
pub(super) fn check(new: &CustomerData) -> Result<()> {
    let CustomerData {
        name,
        email,
        company,
        note,
    } = new;
    let mut faults = Faults::default();
    if name.trim().is_empty() {
        faults.add(Error::invalid("name", "is empty"));
    }
    faults.keep(check_email(email));
    for (field, text, max) in [
        ("name", name, NAME_MAX),
        ("email", email, NAME_MAX),
        ("company", company, NAME_MAX),
        ("note", note, NOTE_MAX),
    ] {
        faults.keep(check_text(field, text, max));
    }
    faults.finish()
}

fn check_email(email: &str) -> Result<()> {
    let parts = email.split_once('@');
    let has_parts = parts.is_some_and(|(local, host)| !local.is_empty() && !host.is_empty());
    if email.is_empty() || has_parts {
        Ok(())
    } else {
        Err(Error::invalid("email", "must be like name@example.org"))
    }
}

fn check_text(field: &'static str, text: &str, max: usize) -> Result<()> {
    if text.chars().count() > max {
        let problem = format!("is longer than {max} characters");
        return Err(Error::invalid(field, problem));
    }
    if text.contains(|c: char| c.is_control() && !(field == "note" && c == '\n')) {
        return Err(Error::invalid(field, "holds a control character"));
    }
    Ok(())
}

/// Parses `12`, `#12` or `Ada Lovelace (#12)` into the name, if any, and the id. `None` for anything else: `012` is a
/// name, since ids are written without leading zeros.
pub(super) fn parse_reference(input: &str) -> Option<(Option<&str>, CustomerId)> {
    let (name, digits) = match input
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once(" (#"))
    {
        Some((name, digits)) => (Some(name), digits),
        None => (None, input.strip_prefix('#').unwrap_or(input)),
    };
    let id = digits.parse::<CustomerId>().ok()?;
    (id.to_string() == digits).then_some((name, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_parsed_alone_or_after_a_name() {
        for (input, expected) in [
            ("12", Some((None, 12))),
            ("#12", Some((None, 12))),
            ("Ada Lovelace (#12)", Some((Some("Ada Lovelace"), 12))),
            ("Ada (#1) (#2)", Some((Some("Ada (#1)"), 2))),
            ("Ada", None),
            ("Ada (12)", None),
            ("Ada (#12", None),
            ("012", None),
            ("+12", None),
            ("##12", None),
            ("", None),
        ] {
            let parsed = parse_reference(input).map(|(name, id)| (name, id.0));
            assert_eq!(parsed, expected, "{input}");
        }
    }

    #[test]
    fn every_invalid_field_is_named() {
        let new = |name: &str, email: &str, note: &str| CustomerData {
            name: name.to_owned(),
            email: email.to_owned(),
            note: note.to_owned(),
            ..CustomerData::default()
        };
        for (customer, expected) in [
            (new("Ada", "", ""), &[][..]),
            (new("Ada", "ada@example.org", "two\nlines"), &[]),
            (new(&"ä".repeat(200), "", ""), &[]),
            (new(&"ä".repeat(201), "", ""), &["name"]),
            (new(" ", "", ""), &["name"]),
            (new("A\nB", "", ""), &["name"]),
            (new("Ada", "ada", ""), &["email"]),
            (new("Ada", "@x", ""), &["email"]),
            (new("Ada", "", "\u{1b}[2J"), &["note"]),
            (new(" ", "ada", "\u{1b}"), &["name", "email", "note"]),
        ] {
            let errors = check(&customer).err().map(Error::into_each);
            let invalid: Vec<_> = errors.iter().flatten().filter_map(Error::field).collect();
            assert_eq!(invalid, expected, "{customer:?}");
        }
    }
}
