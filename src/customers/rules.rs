//! What a customer's data may look like.

use super::NewCustomer;
use crate::error::{Error, Result};
use crate::id::CustomerId;

const NAME_MAX: usize = 200;
const NOTE_MAX: usize = 4000;

/// Refuses what cannot be stored or shown.
pub(super) fn check(new: &NewCustomer) -> Result<()> {
    let NewCustomer {
        name,
        email,
        company,
        note,
    } = new;
    if name.trim().is_empty() {
        return Err(Error::invalid("name", "is empty"));
    }
    if !email.is_empty()
        && !email
            .split_once('@')
            .is_some_and(|(who, host)| !who.is_empty() && !host.is_empty())
    {
        return Err(Error::invalid("email", "must be like name@example.org"));
    }
    for (field, text, max) in [
        ("name", name, NAME_MAX),
        ("email", email, NAME_MAX),
        ("company", company, NAME_MAX),
        ("note", note, NOTE_MAX),
    ] {
        if text.chars().count() > max {
            return Err(Error::invalid(
                field,
                format!("is longer than {max} characters"),
            ));
        }
        if text.contains(|c: char| c.is_control() && !(field == "note" && c == '\n')) {
            return Err(Error::invalid(field, "holds a control character"));
        }
    }
    Ok(())
}

/// The number in `12`, `#12` or `Ada Lovelace (#12)`, with the name before it. Written in one way only: `012`
/// is a name.
pub(super) fn number_in(meant: &str) -> Option<(Option<&str>, CustomerId)> {
    let (name, digits) = match meant
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once(" (#"))
    {
        Some((name, digits)) => (Some(name), digits),
        None => (None, meant.strip_prefix('#').unwrap_or(meant)),
    };
    let id = digits.parse::<CustomerId>().ok()?;
    (id.to_string() == digits).then_some((name, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_is_known_by_a_number_alone_or_behind_the_name() {
        for (meant, number) in [
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
            let read = number_in(meant).map(|(name, id)| (name, id.0));
            assert_eq!(read, number, "{meant}");
        }
    }

    #[test]
    fn only_what_can_be_shown_is_stored() {
        let new = |name: &str, email: &str, note: &str| NewCustomer {
            name: name.to_owned(),
            email: email.to_owned(),
            note: note.to_owned(),
            ..NewCustomer::default()
        };
        for (customer, field) in [
            (new("Ada", "", ""), None),
            (new("Ada", "ada@example.org", "two\nlines"), None),
            (new(&"ä".repeat(200), "", ""), None),
            (new(&"ä".repeat(201), "", ""), Some("name")),
            (new(" ", "", ""), Some("name")),
            (new("A\nB", "", ""), Some("name")),
            (new("Ada", "ada", ""), Some("email")),
            (new("Ada", "@x", ""), Some("email")),
            (new("Ada", "", "\u{1b}[2J"), Some("note")),
        ] {
            let told = match check(&customer) {
                Ok(()) => None,
                Err(Error::Invalid { field, .. }) => Some(field),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(told, field, "{customer:?}");
        }
    }
}
