//! Text from `assets/templates`, by Tera.

use rust_embed::RustEmbed;
use serde::Serialize;
use tera::{Context, Tera};

use crate::error::{Doing, Result};

#[derive(RustEmbed)]
#[folder = "assets/templates"]
struct Templates;

/// Every template, parsed once.
pub struct Pages(Tera);

impl Pages {
    /// Parses every embedded template.
    ///
    /// # Errors
    /// When one is no UTF-8 or does not parse; the message names it.
    pub fn load() -> Result<Self> {
        let mut tera = Tera::default();
        tera.autoescape_on(vec![".html.tera"]);
        for name in Templates::iter() {
            let Some(file) = Templates::get(&name) else {
                continue;
            };
            let text = std::str::from_utf8(&file.data).doing("read a template")?;
            tera.add_raw_template(&name, text)
                .doing("parse a template")?;
        }
        Ok(Self(tera))
    }

    /// The text of `name`, with what `values` holds.
    ///
    /// # Errors
    /// When the template asks for something it was not given.
    pub fn render(&self, name: &str, values: &impl Serialize) -> Result<String> {
        let context = Context::from_serialize(values).doing("fill a template")?;
        self.0.render(name, &context).doing("render a template")
    }
}
