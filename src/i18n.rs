//! Texts in German and English, from `assets/i18n`.

use std::collections::HashMap;

use rust_embed::RustEmbed;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::Language;
use crate::error::{Doing, Error, Result};

#[derive(RustEmbed)]
#[folder = "assets/i18n"]
struct Files;

/// What people are told about one `code`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    title: String,
    detail: String,
}

/// A text of the panel, perhaps another one for a single thing.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Phrase {
    Plain(String),
    Counted { one: String, other: String },
}

#[derive(Debug, Deserialize)]
struct Texts {
    problem: HashMap<String, Text>,
    /// `[room] page_thing`.
    #[serde(flatten)]
    rooms: HashMap<String, HashMap<String, Phrase>>,
}

/// Every text in every language, parsed once.
#[derive(Debug)]
pub struct Catalog {
    de: Texts,
    en: Texts,
    default: Language,
}

impl Language {
    /// The tag of RFC 5646.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::De => "de",
            Self::En => "en",
        }
    }
}

impl Language {
    /// The language of a tag, as a cookie or a form has it.
    pub fn of_tag(tag: &str) -> Option<Self> {
        [Self::De, Self::En]
            .into_iter()
            .find(|language| language.tag() == tag)
    }
}

impl Catalog {
    /// Parses the embedded files; `default` is for those who ask for neither language.
    ///
    /// # Errors
    /// When one is missing or does not parse.
    pub fn load(default: Language) -> Result<Self> {
        Ok(Self {
            de: texts("de.toml")?,
            en: texts("en.toml")?,
            default,
        })
    }

    /// The title and the sentence of `code`, with `{name}` filled in from `members`.
    pub fn problem(
        &self,
        language: Language,
        code: &str,
        members: &Map<String, Value>,
    ) -> (String, String) {
        let texts = self.texts(language);
        let Some(text) = texts.problem.get(code) else {
            return (code.to_owned(), code.to_owned()); // A test keeps this from happening.
        };
        (text.title.clone(), fill(&text.detail, members))
    }

    const fn texts(&self, language: Language) -> &Texts {
        match language {
            Language::De => &self.de,
            Language::En => &self.en,
        }
    }

    /// The text `key`, `room.page_thing`, with `{name}` filled in from `members`; of a text that counts,
    /// the form for the number in `n`. None where there is no such text.
    pub fn phrase(
        &self,
        language: Language,
        key: &str,
        members: &Map<String, Value>,
    ) -> Option<String> {
        let (room, name) = key.split_once('.')?;
        let text = match self.texts(language).rooms.get(room)?.get(name)? {
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

    /// The best match of an `Accept-Language` (RFC 9110 §12.5.4) among German and English.
    pub fn best(&self, accept: &str) -> Language {
        let mut best: Option<(f32, Language)> = None;
        for range in accept.split(',').take(20) {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let weight = weight.map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
            let language = match tag.split('-').next() {
                Some("de") => Language::De,
                Some("en") => Language::En,
                Some("*") => self.default,
                _ => continue,
            };
            if weight > 0.0 && best.is_none_or(|(so_far, _)| weight > so_far) {
                best = Some((weight, language));
            }
        }
        best.map_or(self.default, |(_, language)| language)
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
    let file = Files::get(name).ok_or_else(|| Error::not_found("text file", name))?;
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
        ] {
            assert_eq!(catalog.best(accept), expected, "{accept:?}");
        }
        assert_eq!(
            Catalog::load(Language::En).unwrap().best("fr"),
            Language::En
        );
    }

    #[test]
    fn both_languages_say_the_same_things_with_the_same_placeholders() {
        let catalog = Catalog::load(Language::De).unwrap();
        let holes = |text: &str| {
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
            assert_eq!(holes(&german.detail), holes(&english.detail), "{code}");
            assert_ne!(german.detail, english.detail, "{code}");
        }
        let spoken = |phrase: &Phrase| match phrase {
            Phrase::Plain(text) => vec![holes(text)],
            Phrase::Counted { one, other } => vec![holes(one), holes(other)],
        };
        let keys = |texts: &Texts| {
            let rooms = texts.rooms.iter();
            let mut keys: Vec<_> = rooms
                .flat_map(|(room, texts)| texts.keys().map(move |name| format!("{room}.{name}")))
                .collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&catalog.de), keys(&catalog.en));
        for (room, texts) in &catalog.de.rooms {
            for (name, german) in texts {
                let english = &catalog.en.rooms[room][name];
                assert_eq!(
                    spoken(german).last(),
                    spoken(english).last(),
                    "{room}.{name}"
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
}
