//! The German and English texts in `assets/i18n`, and the choice of the language.

mod dates;

pub use dates::{day, moment, moment_in_utc};

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use rust_embed::RustEmbed;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::Language;
use crate::error::{Doing, Error, Fault, Refused, Resource, Result};

#[derive(RustEmbed)]
#[folder = "assets/i18n"]
struct Files;

/// The texts of one problem `code`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    title: String,
    detail: String,
    /// Another `detail` in the singular.
    one: Option<One>,
}

/// The `detail` to use if the member named by `count` is 1.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    count: String,
    detail: String,
}

/// A text of the panel, perhaps with a singular form.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Phrase {
    Plain(String),
    Counted { one: String, other: String },
}

#[derive(Debug, Deserialize)]
struct Texts {
    problem: HashMap<String, Text>,
    /// The other tables of the file, such as `[licenses]`, by name and key.
    #[serde(flatten)]
    sections: HashMap<String, HashMap<String, Phrase>>,
}

/// All texts in both languages.
#[derive(Debug)]
pub struct Catalog {
    de: Texts,
    en: Texts,
    /// The language for requests that accept neither of the two. The set-up asks for it while the server runs.
    default: RwLock<Language>,
}

impl Language {
    /// The language tag (RFC 5646): `de` or `en`.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::De => "de",
            Self::En => "en",
        }
    }
}

impl Language {
    /// The language of the tag `de` or `en`, as in cookies and forms.
    pub fn from_tag(tag: &str) -> Option<Self> {
        [Self::De, Self::En]
            .into_iter()
            .find(|language| language.tag() == tag)
    }
}

impl Catalog {
    /// Parses the embedded files. `default` is the language for requests that accept neither of the two.
    ///
    /// # Errors
    /// If a file is missing or does not parse.
    pub fn load(default: Language) -> Result<Self> {
        Ok(Self {
            de: texts("de.toml")?,
            en: texts("en.toml")?,
            default: RwLock::new(default),
        })
    }

    /// Changes the language for requests that accept neither of the two.
    pub fn set_default(&self, default: Language) {
        *self.default.write().unwrap_or_else(PoisonError::into_inner) = default;
    }

    /// The title and the detail of the problem `code`. Placeholders like `{name}` are replaced from `members`, moments as
    /// dates in the language.
    pub fn problem(
        &self,
        language: Language,
        code: &str,
        members: &Map<String, Value>,
    ) -> (String, String) {
        let texts = self.texts(language);
        let Some(text) = texts.problem.get(code) else {
            return (code.to_owned(), code.to_owned()); // A test ensures that every code has its texts.
        };
        let singular = text.one.as_ref().filter(|one| {
            let count = members.get(&one.count);
            count.and_then(Value::as_i64) == Some(1)
        });
        let detail = singular.map_or(&text.detail, |one| &one.detail);
        (
            text.title.clone(),
            fill(detail, &dates::for_people(members, language)),
        )
    }

    /// The title and the detail of `refused`. The detail is the more exact one in `[why]`, if `refused` has a reason.
    pub fn refusal(&self, language: Language, refused: &Refused) -> (String, String) {
        let (title, detail) = self.problem(language, refused.code, &refused.members);
        let exact = refused.why.and_then(|why| {
            let key = format!("why.{why}");
            self.phrase(
                language,
                &key,
                &dates::for_people(&refused.members, language),
            )
        });
        (title, exact.unwrap_or(detail))
    }

    /// The sentence that says what is wrong with `field` and what is valid. `None` if `[form]` does not describe the
    /// field.
    pub fn fault(&self, language: Language, field: &str, fault: Fault) -> Option<String> {
        let key = field.to_ascii_lowercase().replace('-', "_");
        let form = self.phrase(language, &format!("form.{key}"), &Map::new())?;
        let mut members = Map::new();
        members.insert("field".to_owned(), field.into());
        members.insert("form".to_owned(), form.into());
        if let Fault::TooLong(max) = fault {
            members.insert("max".to_owned(), max.into());
        }
        self.phrase(language, &format!("fault.{}", fault.as_str()), &members)
    }

    const fn texts(&self, language: Language) -> &Texts {
        match language {
            Language::De => &self.de,
            Language::En => &self.en,
        }
    }

    /// The text with the key `section.name`. Placeholders like `{name}` are replaced from `members`, whose `n` selects
    /// the singular or the plural. `None` if there is no such text.
    pub fn phrase(
        &self,
        language: Language,
        key: &str,
        members: &Map<String, Value>,
    ) -> Option<String> {
        let (section, name) = key.split_once('.')?;
        let text = match self.texts(language).sections.get(section)?.get(name)? {
            Phrase::Plain(text) => text,
            Phrase::Counted { one, other } => {
                if members.get("n").and_then(Value::as_i64) == Some(1) {
                    one
                } else {
                    other
                }
            }
        };
        Some(fill(text, members))
    }

    /// The better of German and English for an `Accept-Language` header (RFC 9110, 12.5.4). Names of locales of POSIX,
    /// Java, Qt and Windows, which some programs send instead, are understood as well.
    pub fn negotiate(&self, accept: &str) -> Language {
        let mut weights = Weights::default();
        for range in accept.split([',', ':']).take(RANGES_MAX) {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default();
            let weight = parts.find_map(weight_of).unwrap_or(1.0);
            if tag == "*" {
                weights.any.get_or_insert(weight);
            } else if let Some(language) = Language::of_locale(tag) {
                weights.add(language, weight);
            }
        }
        weights.best(*self.default.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Maximum number of language ranges that are read from one header.
const RANGES_MAX: usize = 20;

/// The weight in a parameter like `q=0.5`; 0 if it is invalid; `None` if the parameter is not `q`.
fn weight_of(part: &str) -> Option<f32> {
    let (name, value) = part.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let weight = value.trim().parse::<f32>().unwrap_or(0.0);
    Some(if (0.0..=1.0).contains(&weight) {
        weight
    } else {
        0.0
    })
}

/// The weights of an `Accept-Language` header.
#[derive(Default)]
struct Weights {
    /// By first appearance; a repeated language has its highest weight.
    named: Vec<(Language, f32)>,
    /// The weight of `*`, which applies to all languages that are not named.
    any: Option<f32>,
}

impl Weights {
    fn add(&mut self, language: Language, weight: f32) {
        match self.named.iter_mut().find(|(named, _)| *named == language) {
            Some((_, highest)) => *highest = highest.max(weight),
            None => self.named.push((language, weight)),
        }
    }

    /// The language with the highest weight, the first of equals. If no language is accepted: `default`, unless it is
    /// excluded (`q=0`) and the other one is not.
    fn best(mut self, default: Language) -> Language {
        let other = match default {
            Language::De => Language::En,
            Language::En => Language::De,
        };
        for language in [default, other] {
            let is_unnamed = self.named.iter().all(|(named, _)| *named != language);
            if let Some(weight) = self.any.filter(|_| is_unnamed) {
                self.named.push((language, weight));
            }
        }
        let mut best: Option<(Language, f32)> = None;
        for (language, weight) in &self.named {
            if *weight > 0.0 && best.is_none_or(|(_, highest)| *weight > highest) {
                best = Some((*language, *weight));
            }
        }
        let is_excluded = |language| self.named.iter().any(|(named, _)| *named == language);
        match best {
            Some((language, _)) => language,
            None if is_excluded(default) && !is_excluded(other) => other,
            None => default,
        }
    }
}

fn fill(text: &str, members: &Map<String, Value>) -> String {
    members.iter().fold(text.to_owned(), |text, (name, value)| {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        text.replace(&format!("{{{name}}}"), &value)
    })
}

fn texts(name: &'static str) -> Result<Texts> {
    let file = Files::get(name).ok_or_else(|| Error::not_found(Resource::TextFile, name))?;
    let text = std::str::from_utf8(&file.data).doing("read the texts")?;
    toml::from_str(text).doing("parse the texts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_language_is_chosen() {
        let catalog = Catalog::load(Language::De).unwrap();
        for (accept, expected) in [
            ("", Language::De),
            ("en", Language::En),
            ("en-GB,de;q=0.9", Language::En),
            ("fr, en;q=0.4, de;q=0.5", Language::De),
            ("de;q=0, en;q=0.1", Language::En),
            ("fr", Language::De),
            ("*", Language::De),
            ("EN-us", Language::En),
            ("en;q=x, de;q=0.1", Language::De),
            // Names of locales.
            ("en_US", Language::En),
            ("en_GB.UTF-8", Language::En),
            ("en_US.UTF-8@euro", Language::En),
            ("de_AT@euro", Language::De),
            ("fr_FR, en_US;q=0.8", Language::En),
            ("en_US:en", Language::En),
            ("de_CH:en", Language::De),
            (
                "LC_CTYPE=en_US.UTF-8;LC_NUMERIC=C;LC_TIME=de_DE.UTF-8",
                Language::En,
            ),
            ("English_United States.1252", Language::En),
            ("German_Austria.1252", Language::De),
            ("eng", Language::En),
            (" en-US ", Language::En),
            ("C", Language::De),
            ("C.UTF-8", Language::De),
            ("POSIX", Language::De),
            ("english", Language::En),
            ("enm", Language::De),
            // Weights.
            ("de;Q=0.5,en ; q = 0.6", Language::En),
            ("en;q=2, de;q=0.1", Language::De),
            ("en;q=inf, de;q=0.1", Language::De),
            ("en;q=NaN, de;q=0.1", Language::De),
            ("de-DE;q=0.3, en;q=0.4, de;q=0.5", Language::De),
            ("en, de", Language::En),
            ("de;q=0", Language::En),
            ("de;q=0, *", Language::En),
            ("en;q=0.5, *", Language::De),
            ("*;q=0.1, en", Language::En),
            ("*;q=0", Language::De),
            (",,;q=1,;", Language::De),
        ] {
            assert_eq!(catalog.negotiate(accept), expected, "{accept:?}");
        }
        let english = Catalog::load(Language::En).unwrap();
        for accept in ["fr", "C", "*", "de;q=0.5, *", ""] {
            assert_eq!(english.negotiate(accept), Language::En, "{accept:?}");
        }
        let long = format!("{}en", "fr,".repeat(5000));
        assert_eq!(
            catalog.negotiate(&long),
            Language::De,
            "the header is read up to its 20th range"
        );
    }

    #[test]
    fn both_languages_have_the_same_texts_with_the_same_placeholders() {
        let catalog = Catalog::load(Language::De).unwrap();
        let placeholders = |text: &str| {
            let mut names: Vec<_> = text
                .split('{')
                .skip(1)
                .map(|t| t.split('}').next().unwrap().to_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(catalog.de.problem.len(), catalog.en.problem.len());
        for (code, german) in &catalog.de.problem {
            let english = &catalog.en.problem[code];
            assert_eq!(
                placeholders(&german.detail),
                placeholders(&english.detail),
                "{code}"
            );
            assert_ne!(german.detail, english.detail, "{code}");
            let counts = |text: &Text| text.one.as_ref().map(|one| one.count.clone());
            assert_eq!(counts(german), counts(english), "{code}");
        }
        let placeholders_of = |phrase: &Phrase| match phrase {
            Phrase::Plain(text) => vec![placeholders(text)],
            Phrase::Counted { one, other } => vec![placeholders(one), placeholders(other)],
        };
        let keys = |texts: &Texts| {
            let sections = texts.sections.iter();
            let mut keys: Vec<_> = sections
                .flat_map(|(section, texts)| {
                    texts.keys().map(move |name| format!("{section}.{name}"))
                })
                .collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&catalog.de), keys(&catalog.en));
        for (section, texts) in &catalog.de.sections {
            for (name, german) in texts {
                let english = &catalog.en.sections[section][name];
                assert_eq!(
                    placeholders_of(german).last(),
                    placeholders_of(english).last(),
                    "{section}.{name}"
                );
            }
        }
    }

    #[test]
    fn placeholders_are_filled() {
        let catalog = Catalog::load(Language::De).unwrap();
        let members = Map::from_iter([("device_limit".to_owned(), Value::from(3))]);
        let (_, detail) = catalog.problem(Language::En, "device_limit_reached", &members);
        assert!(detail.starts_with("All 3 device slots"), "{detail}");
    }

    #[test]
    fn a_count_of_one_has_a_text_in_the_singular() {
        let catalog = Catalog::load(Language::De).unwrap();
        for (code, count, text) in [
            ("device_limit_reached", "device_limit", "The device slot of"),
            ("rate_limited", "retry_after", "in one second"),
            ("slots_taken", "n", "at least 1"),
        ] {
            let members = Map::from_iter([(count.to_owned(), Value::from(1))]);
            let (_, detail) = catalog.problem(Language::En, code, &members);
            assert!(detail.contains(text), "{detail}");
            let (_, german) = catalog.problem(Language::De, code, &members);
            assert!(
                !german.contains("Sekunden") && !german.contains("Alle 1"),
                "{german}"
            );
        }
    }
}
