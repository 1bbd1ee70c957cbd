//! Words that no identifier and no public documentation has: they are images, or names that say nothing.

use std::collections::BTreeSet;

use crate::files;
use crate::source::{bare, functions};

/// Words that name no thing in the code.
const IN_NAMES: &[&str] = &[
    "beat", "bond", "deed", "desk", "door", "doubt", "house", "kept", "nobody", "pulse", "room",
    "scene", "shelf", "story", "tidy", "told", "who", "whoever",
];
/// Names that no function has: the text of an enum is `as_str`, and `parse` reads it.
const NOT_FUNCTIONS: &[&str] = &["word", "from_word"];
/// Words that public documentation does without. `kept` and `told` are allowed as verbs.
const IN_DOCS: &[&str] = &[
    "beat", "bond", "deed", "desk", "door", "doubt", "he", "him", "his", "house", "nobody",
    "pulse", "shelf", "tidy", "whoever",
];
/// Names with such a word: a member of JSON documents, which stays.
const ALLOWED: &[&str] = &["kept"];

/// The words of an identifier in lower case, such as `live` and `sessions` of `LiveSessions`; plurals without their s.
fn words_of(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let is_constant = !identifier.chars().any(|c| c.is_ascii_lowercase());
    for c in identifier.chars() {
        if c == '_' || (c.is_ascii_uppercase() && !is_constant) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().push(c.to_ascii_lowercase());
        }
    }
    words
}

fn is_listed(word: &str, list: &[&str]) -> bool {
    let singular = match word.strip_suffix("ves") {
        Some(stem) => format!("{stem}f"),
        None => word.strip_suffix('s').unwrap_or(word).to_owned(),
    };
    list.contains(&word) || list.contains(&singular.as_str())
}

#[test]
fn no_identifier_is_an_image() {
    let mut violations = BTreeSet::new();
    for (path, text) in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        let code = bare(&text);
        let names = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        for name in names.filter(|name| !name.is_empty()) {
            // The name of a test is a sentence.
            let is_sentence = name.matches('_').count() > 3;
            let has_image = words_of(name).iter().any(|word| is_listed(word, IN_NAMES));
            if has_image && !is_sentence && !ALLOWED.contains(&name) {
                violations.insert(format!("{}: {name}", path.display()));
            }
        }
        let functions = functions(&code).into_iter();
        for function in functions.filter(|it| NOT_FUNCTIONS.contains(&it.name.as_str())) {
            violations.insert(format!("{}: fn {}", path.display(), function.name));
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn documentation_has_neither_images_nor_persons_without_a_name() {
    let mut violations = Vec::new();
    for (path, text) in files("src", "rs") {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let Some(doc) = line
                .strip_prefix("///")
                .or_else(|| line.strip_prefix("//!"))
            else {
                continue;
            };
            let doc = doc
                .split('`')
                .step_by(2)
                .collect::<Vec<_>>()
                .join(" ")
                .to_lowercase();
            let mut words = doc.split(|c: char| !c.is_alphabetic());
            if let Some(word) = words.find(|word| is_listed(word, IN_DOCS)) {
                violations.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}
