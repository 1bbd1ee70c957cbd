//! What a customer's data may look like.

use super::NewCustomer;
use crate::error::{Error, Result};

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

/// The number in `Ada Lovelace (#12)`.
pub(super) fn number_in(named: &str) -> Option<&str> {
    let (_, number) = named.strip_suffix(')')?.rsplit_once("(#")?;
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_customer_is_known_by_the_number_behind_the_name() {
        for (named, number) in [
            ("Ada Lovelace (#12)", Some("12")),
            ("Ada (#1) (#2)", Some("2")),
            ("Ada", None),
            ("Ada (12)", None),
            ("Ada (#12", None),
        ] {
            assert_eq!(number_in(named), number, "{named}");
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
