//! Text from `assets/templates`, by Tera: one set a language, so that a template only names a text.

use std::collections::HashMap;
use std::sync::Arc;

use rust_embed::RustEmbed;
use serde::Serialize;
use serde_json::{Map, Value};
use tera::{Context, Tera};

use super::{assets, words};
use crate::config::Language;
use crate::error::{Doing, Result};
use crate::i18n::Catalog;

#[derive(RustEmbed)]
#[folder = "assets/templates"]
struct Templates;

/// Every template, parsed once a language.
pub struct Pages {
    de: Tera,
    en: Tera,
    /// What the addresses of styles and scripts end on; every template may use it.
    fingerprint: String,
}

impl Pages {
    /// Parses every embedded template.
    ///
    /// # Errors
    /// When one is no UTF-8 or does not parse; the message names it.
    pub fn load() -> Result<Self> {
        let catalog = Arc::new(Catalog::load(Language::De)?);
        let mut tera = Tera::default();
        tera.autoescape_on(vec![".html.tera"]);
        tera.set_escape_fn(escaped);
        let mut texts = Vec::new();
        for name in Templates::iter() {
            let Some(file) = Templates::get(&name) else {
                continue;
            };
            let text = std::str::from_utf8(&file.data).doing("read a template")?;
            texts.push((name.to_string(), text.to_owned()));
        }
        // All at once: a template may build on one that comes later.
        tera.add_raw_templates(texts).doing("parse a template")?;
        let speaking = |language: Language| {
            let mut tera = tera.clone();
            words::register(&mut tera, language);
            let catalog = catalog.clone();
            tera.register_function("t", move |words: &HashMap<String, Value>| {
                said(&catalog, language, words)
            });
            tera
        };
        Ok(Self {
            de: speaking(Language::De),
            en: speaking(Language::En),
            fingerprint: assets::fingerprint(),
        })
    }

    /// The text of `name` in English, for the operator's terminal.
    ///
    /// # Errors
    /// When the template asks for something it was not given.
    pub fn render(&self, name: &str, values: &impl Serialize) -> Result<String> {
        self.render_in(Language::En, name, values)
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
        let tera = match language {
            Language::De => &self.de,
            Language::En => &self.en,
        };
        tera.render(name, &context).map_err(|error| {
            // Tera says what was missing only in the cause of its error.
            let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
            let told = causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"));
            crate::error::Error::Internal {
                doing: "render a template",
                source: told.into(),
            }
        })
    }
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

/// `t(k="room.name", …)`: the text of that key, with what else was given filled in.
fn said(
    catalog: &Catalog,
    language: Language,
    words: &HashMap<String, Value>,
) -> tera::Result<Value> {
    let key = words.get("k").and_then(Value::as_str).unwrap_or_default();
    let members: Map<String, Value> = words.clone().into_iter().collect();
    if let Some(text) = catalog.phrase(language, key, &members) {
        return Ok(text.into());
    }
    match words.get("or") {
        Some(other) => Ok(other.clone()),
        None => Err(tera::Error::msg(format!("there is no text {key:?}"))),
    }
}
