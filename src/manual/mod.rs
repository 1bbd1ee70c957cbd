//! The manual: the pages of `assets/manual`, rendered once, shown in the panel and found by its search. The lists of settings
//! and commands on them are made from the settings' own file and the command line's own help.

mod markdown;
pub mod panel;
mod reference;

use std::sync::OnceLock;

use rust_embed::RustEmbed;

use crate::config::{self, Language};
use crate::terms::{self, Pattern};

pub use markdown::escape;

#[derive(RustEmbed)]
#[folder = "assets/manual"]
struct Files;

/// The pages in the order of the contents, by the beginning of their files' names: `start.en.md`, `start.de.md`.
pub const PAGES: &[&str] = &[
    "start", "program", "websites", "internet", "keep", "policies", "privacy", "scale", "settings",
    "commands",
];

/// What each command prints with `--json`, one a line; a test compares it with what they print.
const DOCUMENTS: &str = include_str!("../../assets/documents.txt");

/// The manual in both languages.
#[derive(Debug)]
pub struct Manual {
    commands: fn() -> String,
    de: LazyPages,
    en: LazyPages,
}

type LazyPages = OnceLock<Vec<Page>>;

/// A page of the manual.
#[derive(Debug)]
pub struct Page {
    /// The last part of its address.
    pub name: &'static str,
    /// Its title.
    pub title: String,
    /// Its first paragraph.
    pub lead: String,
    /// What is below the title, as HTML.
    pub html: String,
    /// Its parts: what is above the first heading, and what is below each one.
    pub sections: Vec<Section>,
}

/// A part of a page.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The level of its heading, from 2; 1 for what is below the title.
    pub level: u8,
    /// The `id` of its heading; empty for what is below the title.
    pub id: String,
    /// Its heading.
    pub heading: String,
    /// Its text without markup.
    pub text: String,
    /// Heading and text in the form in which texts are searched.
    indexed: String,
}

/// A part of the manual that a search found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The page.
    pub page: &'a Page,
    /// The part of it.
    pub section: &'a Section,
}

impl Manual {
    /// The manual; `commands` writes the list of commands as Markdown. Nothing is rendered before the first page is shown.
    pub const fn new(commands: fn() -> String) -> Self {
        Self {
            commands,
            de: LazyPages::new(),
            en: LazyPages::new(),
        }
    }

    /// All pages in a language, in the order of the contents.
    pub fn pages(&self, language: Language) -> &[Page] {
        let pages = match language {
            Language::De => &self.de,
            Language::En => &self.en,
        };
        pages.get_or_init(|| self.render(language))
    }

    /// The page with this name; `None` if there is none.
    pub fn page(&self, language: Language, name: &str) -> Option<&Page> {
        let mut pages = self.pages(language).iter();
        pages.find(|page| page.name == name)
    }

    /// Parts of pages with all words of a search: first those with the words in their heading, then in the order of the
    /// contents.
    pub fn search(&self, language: Language, words: &Pattern) -> Vec<Found<'_>> {
        let pages = self.pages(language).iter();
        let mut found: Vec<Found<'_>> = pages
            .flat_map(|page| {
                let sections = page.sections.iter();
                sections.map(move |section| Found { page, section })
            })
            .filter(|found| words.is_found_in(&found.section.indexed))
            .collect();
        found.sort_by_key(|found| !words.is_found_in(&terms::indexed(&found.section.heading)));
        found
    }

    fn render(&self, language: Language) -> Vec<Page> {
        let names = PAGES.iter();
        let pages = names.filter_map(|name| {
            let text = text_of(name, language)?;
            let text = reference::fill(&text, |part| match part {
                "settings" => Some(reference::settings(config::SHIPPED, language)),
                "commands" => Some((self.commands)()),
                "documents" => Some(reference::documents(DOCUMENTS)),
                _ => None,
            });
            Some(markdown::page(name, &text))
        });
        pages.collect()
    }
}

/// The file of a page.
fn text_of(name: &str, language: Language) -> Option<String> {
    let file = Files::get(&format!("{name}.{}.md", language.tag()))?;
    String::from_utf8(file.data.into_owned()).ok()
}

impl Section {
    /// Completes it for the search.
    fn index(mut self, page: &str) -> Self {
        self.indexed = terms::indexed(&format!("{page} {} {}", self.heading, self.text));
        self
    }
}
