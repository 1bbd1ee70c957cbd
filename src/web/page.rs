//! Text from `assets/templates`, by Tera: one set a language, so that a template only names a text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rust_embed::RustEmbed;
use serde::Serialize;
use serde_json::{Map, Value};
use tera::{Context, Tera};

use super::{assets, words};
use crate::config::Language;
use crate::error::{Doing, Error, Result};
use crate::i18n::Catalog;

#[derive(RustEmbed)]
#[folder = "assets/templates"]
struct Templates;

/// Every template, parsed once a language, when somebody first asks for a page in it: a server without visitors
/// spends neither time nor memory on them.
pub struct Pages {
    de: Mutex<Option<Arc<Tera>>>,
    en: Mutex<Option<Arc<Tera>>>,
    /// What the addresses of styles and scripts end on; every template may use it.
    fingerprint: String,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            de: Mutex::default(),
            en: Mutex::default(),
            fingerprint: assets::fingerprint(),
        }
    }
}

/// Every embedded template, speaking `language`.
fn parsed(language: Language) -> Result<Tera> {
    let catalog = Catalog::load(Language::De)?;
    let mut tera = Tera::default();
    tera.autoescape_on(vec![".html.tera"]);
    tera.set_escape_fn(escaped);
    let mut texts = Vec::new();
    for name in Templates::iter() {
        texts.push((name.to_string(), text_of(&name)?));
    }
    // All at once: a template may build on one that comes later.
    tera.add_raw_templates(texts).doing("parse a template")?;
    words::register(&mut tera, language);
    tera.register_function("boxes", boxes);
    tera.register_function("t", move |words: &HashMap<String, Value>| {
        said(&catalog, language, words)
    });
    Ok(tera)
}

fn text_of(name: &str) -> Result<String> {
    let file = Templates::get(name).ok_or_else(|| Error::not_found("template", name))?;
    let text = std::str::from_utf8(&file.data).doing("read a template")?;
    Ok(text.to_owned())
}

/// The text of the template `name` for the operator's terminal.
///
/// # Errors
/// When the template does not parse, or asks for something it was not given.
pub fn text(name: &str, values: &impl Serialize) -> Result<String> {
    let mut tera = Tera::default();
    tera.add_raw_template(name, &text_of(name)?)
        .doing("parse a template")?;
    let context = Context::from_serialize(values).doing("fill a template")?;
    rendered(&tera, name, &context)
}

fn rendered(tera: &Tera, name: &str, context: &Context) -> Result<String> {
    tera.render(name, context).map_err(|error| {
        // Tera says what was missing only in the cause of its error.
        let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
        let told = causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"));
        Error::Internal {
            doing: "render a template",
            source: told.into(),
        }
    })
}

impl Pages {
    fn speaking(&self, language: Language) -> Result<Arc<Tera>> {
        let held = match language {
            Language::De => &self.de,
            Language::En => &self.en,
        };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tera) = &*held {
            return Ok(tera.clone());
        }
        let tera = Arc::new(parsed(language)?);
        *held = Some(tera.clone());
        Ok(tera)
    }

    /// The text of `name` in `language`, with what `values` holds.
    ///
    /// # Errors
    /// When the template asks for something it was not given.
    pub fn render_in(
        &self,
        language: Language,
        name: &str,
        values: &impl Serialize,
    ) -> Result<String> {
        let mut context = Context::from_serialize(values).doing("fill a template")?;
        context.insert("fingerprint", &self.fingerprint);
        rendered(&*self.speaking(language)?, name, &context)
    }
}

/// Boxes of a seat meter; a license with more slots gets a bar of so many in proportion.
const BOXES: i64 = 20;
/// Between two of them, of a thousand.
const GAP: i64 = 14;

/// `boxes(taken=, limit=, lit=)`: the path of those boxes of a seat meter, 1000 wide, that are taken, or
/// of the others.
fn boxes(words: &HashMap<String, Value>) -> tera::Result<Value> {
    let number = |name: &str| words.get(name).and_then(Value::as_i64);
    let (Some(taken), Some(limit)) = (number("taken"), number("limit").filter(|n| *n > 0)) else {
        return Err(tera::Error::msg("`boxes` needs taken= and limit="));
    };
    let lit = words.get("lit").and_then(Value::as_bool).unwrap_or(false);
    let shown = limit.min(BOXES);
    // A slot that is taken is seen, and so is one that is free.
    let taken = if limit > BOXES && taken < limit {
        (taken * BOXES / limit).clamp(i64::from(taken > 0), BOXES - 1)
    } else {
        taken.min(shown)
    };
    // In tenths, without fractions.
    let wide = 1000 / shown - GAP;
    let numbers = if lit { 0..taken } else { taken..shown };
    let path = numbers.fold(String::new(), |path, seat| {
        let x = seat * 1000 / shown + GAP / 2;
        path + &format!("M{x} 1h{wide}v10h-{wide}z")
    });
    Ok(path.into())
}

/// Text as it may stand between tags and in quoted attributes. Tera's own also writes each `/` as six
/// characters, of which a page of addresses is full.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// `t(k="room.name", …)`: the text of that key, with what else was given filled in; `t(k="problem.code")`: the
/// title of what programs hear with that code.
fn said(
    catalog: &Catalog,
    language: Language,
    words: &HashMap<String, Value>,
) -> tera::Result<Value> {
    let key = words.get("k").and_then(Value::as_str).unwrap_or_default();
    let members: Map<String, Value> = words.clone().into_iter().collect();
    if let Some(code) = key.strip_prefix("problem.") {
        return Ok(catalog.problem(language, code, &members).0.into());
    }
    if let Some(text) = catalog.phrase(language, key, &members) {
        return Ok(text.into());
    }
    match words.get("or") {
        Some(other) => Ok(other.clone()),
        None => Err(tera::Error::msg(format!("there is no text {key:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_parses_in_both_languages() {
        for language in [Language::De, Language::En] {
            assert!(parsed(language).unwrap().get_template_names().count() > 40);
        }
    }

    #[test]
    fn a_seat_meter_has_a_box_a_slot_and_never_hides_the_first_or_the_last() {
        let count = |taken: i64, limit: i64, lit: bool| {
            let words = [
                ("taken", Value::from(taken)),
                ("limit", limit.into()),
                ("lit", lit.into()),
            ];
            let words = words.map(|(name, value)| (name.to_owned(), value));
            let path = boxes(&words.into_iter().collect()).unwrap();
            path.as_str().unwrap().matches('M').count()
        };
        for (taken, limit, on, off) in [
            (0, 1, 0, 1),
            (1, 1, 1, 0),
            (3, 5, 3, 2),
            (7, 5, 5, 0),
            (20, 20, 20, 0),
            (1, 1000, 1, 19),
            (999, 1000, 19, 1),
            (1000, 1000, 20, 0),
            (50, 100, 10, 10),
        ] {
            assert_eq!(
                (count(taken, limit, true), count(taken, limit, false)),
                (on, off)
            );
        }
    }
}
