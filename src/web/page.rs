//! Renders the templates in `assets/templates` with Tera. Each language has its own Tera instance, so that templates
//! refer to texts by key only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rust_embed::RustEmbed;
use serde::Serialize;
use serde_json::{Map, Value};
use tera::{Context, Tera};

use super::{assets, formatting};
use crate::config::Language;
use crate::error::{Doing, Error, Resource, Result};
use crate::i18n::Catalog;

#[derive(RustEmbed)]
#[folder = "assets/templates"]
struct Templates;

/// All templates. They are parsed once per language, when the first page in it is requested, so that a server whose
/// panel is not in use spends neither time nor memory on them.
pub struct Pages {
    de: Mutex<Option<Arc<Tera>>>,
    en: Mutex<Option<Arc<Tera>>>,
    /// See [`assets::fingerprint`]; available to every template.
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

/// All embedded templates, with the filters and functions for `language`. The filter `customer` shows a customer's name,
/// or a phrase if the license has no customer.
fn parse_templates(language: Language) -> Result<Tera> {
    // The default language is not used here: every text is looked up in `language`.
    let catalog = Catalog::load(Language::De)?;
    let mut tera = Tera::default();
    tera.autoescape_on(vec![".html.tera"]);
    tera.set_escape_fn(escape_html);
    let mut templates = Vec::new();
    for name in Templates::iter() {
        templates.push((name.to_string(), template_text(&name)?));
    }
    // All at once, because a template may extend one that comes later.
    tera.add_raw_templates(templates)
        .doing("parse a template")?;
    formatting::register(&mut tera, language);
    let no_customer = catalog.phrase(language, "trials.no_customer", &Map::new());
    tera.register_filter(
        "customer",
        move |name: &Value, _: &HashMap<String, Value>| {
            let name = name.as_str().filter(|name| !name.is_empty());
            Ok(name.or(no_customer.as_deref()).unwrap_or_default().into())
        },
    );
    tera.register_function("boxes", boxes);
    tera.register_function("t", move |args: &HashMap<String, Value>| {
        translate(&catalog, language, args)
    });
    Ok(tera)
}

fn template_text(name: &str) -> Result<String> {
    let file = Templates::get(name).ok_or_else(|| Error::not_found(Resource::Template, name))?;
    let text = std::str::from_utf8(&file.data).doing("read a template")?;
    Ok(text.to_owned())
}

/// Renders the template `name` as plain text for the operator's terminal, without a language.
///
/// # Errors
/// If the template does not parse, or uses a value that is missing in `values`.
pub fn render_text(name: &str, values: &impl Serialize) -> Result<String> {
    let mut tera = Tera::default();
    tera.add_raw_template(name, &template_text(name)?)
        .doing("parse a template")?;
    let context = Context::from_serialize(values).doing("fill a template")?;
    render(&tera, name, &context)
}

fn render(tera: &Tera, name: &str, context: &Context) -> Result<String> {
    tera.render(name, context).map_err(|error| {
        // Tera names the missing value only in the cause of its error.
        let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
        let message = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        Error::Internal {
            doing: "render a template",
            source: message.into(),
        }
    })
}

impl Pages {
    fn tera_for(&self, language: Language) -> Result<Arc<Tera>> {
        let cached = match language {
            Language::De => &self.de,
            Language::En => &self.en,
        };
        let mut cached = cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tera) = &*cached {
            return Ok(tera.clone());
        }
        let tera = Arc::new(parse_templates(language)?);
        *cached = Some(tera.clone());
        Ok(tera)
    }

    /// Renders the template `name` in `language` with `values`.
    ///
    /// # Errors
    /// If the template uses a value that is missing in `values`.
    pub fn render_in(
        &self,
        language: Language,
        name: &str,
        values: &impl Serialize,
    ) -> Result<String> {
        let mut context = Context::from_serialize(values).doing("fill a template")?;
        context.insert("fingerprint", &self.fingerprint);
        render(&*self.tera_for(language)?, name, &context)
    }
}

/// Maximum number of boxes of a slot meter. A license with more slots gets this many, filled in proportion.
const BOXES_MAX: i64 = 20;
/// Space between two boxes; the meter is 1000 wide.
const GAP: i64 = 14;

/// Template function `boxes(taken=, limit=, lit=)`: an SVG path with some boxes of a slot meter: the taken ones if `lit` is
/// true, otherwise the free ones.
fn boxes(args: &HashMap<String, Value>) -> tera::Result<Value> {
    let number = |name: &str| args.get(name).and_then(Value::as_i64);
    let (Some(taken), Some(limit)) = (number("taken"), number("limit").filter(|n| *n > 0)) else {
        return Err(tera::Error::msg("`boxes` needs taken= and limit="));
    };
    let lit = args.get("lit").and_then(Value::as_bool).unwrap_or(false);
    let shown = limit.min(BOXES_MAX);
    // With more slots than boxes, a single taken or free slot must still be visible.
    let taken = if limit > BOXES_MAX && taken < limit {
        (taken * BOXES_MAX / limit).clamp(i64::from(taken > 0), BOXES_MAX - 1)
    } else {
        taken.min(shown)
    };
    let width = 1000 / shown - GAP;
    let boxes = if lit { 0..taken } else { taken..shown };
    let path = boxes.fold(String::new(), |path, index| {
        let x = index * 1000 / shown + GAP / 2;
        path + &format!("M{x} 1h{width}v10h-{width}z")
    });
    Ok(path.into())
}

/// Escapes text for element content and quoted attributes. Tera's own function also escapes each `/` as six
/// characters, which would bloat pages full of paths.
fn escape_html(text: &str) -> String {
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

/// Template function `t(k="page.name", …)`: the text with that key, with the other arguments filled in;
/// `t(k="problem.code")`: the title of the problem with that code. `or=` is returned if there is no such text.
fn translate(
    catalog: &Catalog,
    language: Language,
    args: &HashMap<String, Value>,
) -> tera::Result<Value> {
    let key = args.get("k").and_then(Value::as_str).unwrap_or_default();
    let members: Map<String, Value> = args.clone().into_iter().collect();
    if let Some(code) = key.strip_prefix("problem.") {
        return Ok(catalog.problem(language, code, &members).0.into());
    }
    if let Some(text) = catalog.phrase(language, key, &members) {
        return Ok(text.into());
    }
    match args.get("or") {
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
            assert!(
                parse_templates(language)
                    .unwrap()
                    .get_template_names()
                    .count()
                    > 40
            );
        }
    }

    #[test]
    fn a_slot_meter_never_hides_a_single_taken_or_free_slot() {
        let count = |taken: i64, limit: i64, lit: bool| {
            let args = [
                ("taken", Value::from(taken)),
                ("limit", limit.into()),
                ("lit", lit.into()),
            ];
            let args = args.map(|(name, value)| (name.to_owned(), value));
            let path = boxes(&args.into_iter().collect()).unwrap();
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
