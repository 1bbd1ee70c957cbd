//! What can be saved of a list's URL.

use super::{NewFilter, SavedFilter};
use crate::error::{Error, RefusalKind, Refused, Result};
use crate::text;

/// The lists whose filters can be saved: their paths below the panel's.
pub const LISTS: [&str; 10] = [
    "licenses",
    "customers",
    "sessions",
    "sessions/history",
    "refusals",
    "sites",
    "sites/handshakes",
    "releases",
    "plans",
    "audit",
];

/// Parameters that say which page of a list is shown; and the product, which is chosen apart.
const NO_FILTERS: [&str; 7] = [
    "after",
    "after_id",
    "before",
    "before_id",
    "row",
    "part",
    "product",
];
const NAME_MAX: usize = 40;
const QUERY_MAX: usize = 1000;
/// Shorter words are too common to tell a person by.
const WORD_MIN: usize = 3;

/// Why a filter cannot be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The administrator has saved as many as a list takes.
    TooMany,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooMany => {
                Self::new(RefusalKind::Conflict, "too_many_filters").with("n", super::SAVED_MAX)
            }
        }
    }
}

/// What of the query of a list's URL filters and orders the list; empty if nothing does.
pub fn filter_of(query: &str) -> String {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let pairs = pairs
        .filter(|(name, value)| !value.trim().is_empty() && !NO_FILTERS.contains(&name.as_ref()));
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// `new` as it is stored.
pub(super) fn checked(new: &NewFilter) -> Result<NewFilter> {
    let name = text::clean_input(&new.name);
    if !(1..=NAME_MAX).contains(&name.chars().count()) || name.contains(char::is_control) {
        let problem = format!("must be 1..{NAME_MAX} characters without control characters");
        return Err(Error::invalid("name", problem));
    }
    if !LISTS.contains(&new.list.as_str()) {
        return Err(Error::invalid("list", "is unknown"));
    }
    let query = filter_of(&new.query);
    if !(1..=QUERY_MAX).contains(&query.len()) {
        let problem = format!("must be 1..{QUERY_MAX} bytes");
        return Err(Error::invalid("query", problem));
    }
    Ok(NewFilter {
        list: new.list.clone(),
        name,
        query,
    })
}

/// Whether a filter searches for one of these words, or for the licenses of the customer with this number, or has one of
/// the words in its name.
pub(super) fn is_about(filter: &SavedFilter, words: &[String], customer: &str) -> bool {
    let words = words.iter().map(|word| text::casefold(word));
    let words: Vec<String> = words
        .filter(|word| word.chars().count() >= WORD_MIN)
        .collect();
    let name = text::casefold(&filter.name);
    if words.iter().any(|word| name.contains(word)) {
        return true;
    }
    form_urlencoded::parse(filter.query.as_bytes()).any(|(name, value)| {
        let value = text::casefold(&value);
        let value = value.trim();
        let is_part = |word: &String| {
            word.contains(value) && value.chars().count() >= WORD_MIN || value.contains(word)
        };
        name == "customer" && value == customer || words.iter().any(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_the_query_without_the_page() {
        for (query, filter) in [
            ("", ""),
            ("state=expiring", "state=expiring"),
            ("q=a+b&state=&after=x&after_id=7&row=51&product=b", "q=a+b"),
            ("q=+&order=-customer&rows=100", "order=-customer&rows=100"),
            ("q=%C3%A4%26b", "q=%C3%A4%26b"),
        ] {
            assert_eq!(filter_of(query), filter, "{query}");
        }
    }

    #[test]
    fn a_filter_needs_a_name_a_list_and_a_query() {
        let new = |list: &str, name: &str, query: &str| NewFilter {
            list: list.to_owned(),
            name: name.to_owned(),
            query: query.to_owned(),
        };
        let long = "n".repeat(NAME_MAX + 1);
        for (new, valid) in [
            (new("licenses", " Soon ", "state=expiring"), true),
            (new("sessions/history", "x", "span=7"), true),
            (new("licenses", " ", "state=expiring"), false),
            (new("licenses", &long, "state=expiring"), false),
            (new("licenses", "a\u{7}b", "state=expiring"), false),
            (new("nothing", "x", "state=expiring"), false),
            (new("licenses", "x", "row=7"), false),
            (
                new("licenses", "x", &format!("q={}", "y".repeat(QUERY_MAX))),
                false,
            ),
        ] {
            assert_eq!(checked(&new).is_ok(), valid, "{new:?}");
        }
    }

    #[test]
    fn a_filter_that_names_a_person_is_recognized() {
        let words = ["K\u{e4}the Wei\u{df}", "kaethe@example.org", "", "AG"].map(str::to_owned);
        for (query, is_about_them) in [
            ("customer=7", true),
            ("customer=17", false),
            ("q=K%C3%84THE", true),
            ("q=kaethe%40example.org+x", true),
            ("q=ka", false),
            ("q=ag", false),
            ("state=expiring", false),
        ] {
            let mut filter = SavedFilter {
                id: 1,
                list: "licenses".to_owned(),
                name: "of K\u{e4}the".to_owned(),
                query: query.to_owned(),
            };
            assert_eq!(is_about(&filter, &words, "7"), is_about_them, "{query}");
            filter.name = "of k\u{e4}the wei\u{df}".to_owned();
            assert!(is_about(&filter, &words, "7"), "{query}");
        }
    }
}
