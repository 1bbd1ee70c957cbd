//! The fields that an entry changed, as an administrator knows them: values in the reader's language, moments in the
//! reader's zone, and licenses and customers by key and name.

use serde_json::{Value, json};

use super::subject::{self, Subject};
use crate::audit::{Entry, changed_fields};
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::Result;

/// The fields whose values are words, and where their texts are: a section, and how its keys begin.
const WORDS: &[(&str, &str)] = &[
    ("kind", "licenses.kind_"),
    ("role", "admins.role_"),
    ("session_policy", "config.session_policy_"),
    ("term_starts", "plans.term_starts_"),
    ("end_reason", "sessions.reason_"),
    ("language", "admins.language_"),
    ("policy", "audit.policy_"),
    ("password", "audit.password_"),
    ("enabled", "audit.is_"),
    ("second_factor", "audit.is_"),
    ("single_keys", "audit.is_"),
];
/// The fields whose moments are the first or the last one of a day in UTC.
const DAYS: [&str; 3] = ["valid_from", "valid_until", "updates_until"];

/// The fields that `entry` changed, for templates.
pub fn of(reader: &Reader<'_>, entry: &Entry) -> Result<Vec<Value>> {
    let changes = changed_fields(&entry.before, &entry.after).into_iter();
    let changes = changes.map(|change| {
        let value = |text: &str| value(reader, (&entry.action, &change.field), text);
        Ok(json!({
            "field": change.field,
            "before": value(&change.before)?,
            "after": value(&change.after)?,
        }))
    });
    changes.collect()
}

/// A value of a field in an entry about `action`; null if it is empty.
fn value(reader: &Reader<'_>, (action, field): (&str, &str), text: &str) -> Result<Value> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let found = match field {
        "license" => subject::license(reader, text)?,
        "customer" => subject::customer(reader, text)?,
        _ => Subject::default(),
    };
    if found.url.is_some() {
        return Ok(json!({ "text": found.text, "url": found.url }));
    }
    Ok(match moment(text) {
        Some(at) if DAYS.contains(&field) => json!({ "day": at }),
        Some(at) => json!({ "at": at }),
        None => json!({ "text": text, "key": key(action, field, text) }),
    })
}

/// The key of the text of a value; `None` if it is no word.
fn key(action: &str, field: &str, value: &str) -> Option<String> {
    if field == "state" {
        let is_release = action.starts_with("releases.");
        let begin = if is_release {
            "releases."
        } else {
            "licenses.state_"
        };
        return Some(format!("{begin}{value}"));
    }
    let (_, begin) = WORDS.iter().find(|(name, _)| *name == field)?;
    Some(format!("{begin}{value}"))
}

/// The moment that entries write as text.
fn moment(text: &str) -> Option<UnixMs> {
    let is_moment = text.len() == "2026-12-31T23:59:59Z".len() && text.ends_with('Z');
    UnixMs::parse(text).ok().filter(|_| is_moment)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::admins::Role;
    use crate::config::Language;
    use crate::i18n::Catalog;
    use crate::licenses::{Kind, LicenseState};
    use crate::plans::TermStart;
    use crate::products::SessionPolicy;
    use crate::releases::ReleaseState;
    use crate::session_history::EndReason;

    #[test]
    fn every_word_has_a_text_in_both_languages() {
        let licenses = |field, words: Vec<&'static str>| ("licenses.edit", field, words);
        let all = [
            licenses("kind", vec![Kind::Full.as_str(), Kind::Trial.as_str()]),
            licenses(
                "state",
                [
                    LicenseState::Active,
                    LicenseState::Suspended,
                    LicenseState::Revoked,
                ]
                .map(LicenseState::as_str)
                .to_vec(),
            ),
            (
                "releases.yank",
                "state",
                [ReleaseState::Released, ReleaseState::Yanked]
                    .map(ReleaseState::as_str)
                    .to_vec(),
            ),
            licenses("role", Role::ALL.map(Role::as_str).to_vec()),
            licenses(
                "session_policy",
                SessionPolicy::ALL.map(SessionPolicy::as_str).to_vec(),
            ),
            licenses(
                "term_starts",
                TermStart::ALL.map(TermStart::as_str).to_vec(),
            ),
            licenses("end_reason", EndReason::ALL.map(EndReason::as_str).to_vec()),
            licenses("policy", vec!["revoke", "keep"]),
            licenses("language", vec![Language::De.tag(), Language::En.tag()]),
            licenses("password", vec!["set"]),
            licenses("enabled", vec!["true", "false"]),
            licenses("second_factor", vec!["true", "false"]),
            licenses("single_keys", vec!["true", "false"]),
        ];
        let catalog = Catalog::load(Language::De).unwrap();
        for language in [Language::De, Language::En] {
            for (action, field, words) in &all {
                for word in words {
                    let key = key(action, field, word).unwrap();
                    let text = catalog.phrase(language, &key, &Map::new());
                    assert!(text.is_some(), "{key}");
                }
            }
        }
        for (field, _) in WORDS {
            assert!(all.iter().any(|(_, name, _)| name == field), "{field}");
        }
    }

    #[test]
    fn only_moments_are_moments() {
        for (text, expected) in [
            ("2026-12-31T23:59:59Z", Some(UnixMs(1_798_761_599_000))),
            ("2026-12-31", None),
            ("1.2.0", None),
            ("twenty characters aZ", None),
        ] {
            assert_eq!(moment(text), expected, "{text}");
        }
    }
}
