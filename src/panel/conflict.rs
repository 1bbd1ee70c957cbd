//! A form after an edit conflict, for its page.

use serde_json::{Map, Value};

use crate::config::Language;
use crate::i18n::Catalog;
use crate::web::form;
use crate::web::merge::Merged;

/// The form `merged` for a template, with these other `errors`. The fields that both changed are marked as faulty, with the
/// saved value beside them; those that only the other changed are marked as taken over.
pub(super) fn with_conflicts(
    language: (&Catalog, Language),
    section: &str,
    merged: &Merged,
    mut errors: Vec<(String, String)>,
) -> Value {
    let text = |key: &str, value: &str| {
        let mut members = Map::new();
        members.insert("value".to_owned(), value.into());
        let (catalog, language) = language;
        catalog.phrase(language, key, &members).unwrap_or_default()
    };
    let mut notes = Map::new();
    for (name, saved) in &merged.conflicts {
        if !errors.iter().any(|(field, _)| field == name) {
            errors.push((name.clone(), text("frame.changed_by_both", "")));
        }
        let shown = shown_value(language, &format!("{section}.{name}"), saved);
        notes.insert(name.clone(), text("frame.saved_value", &shown).into());
    }
    for name in &merged.taken {
        notes.insert(name.clone(), text("frame.taken_over", "").into());
    }
    let mut form = form::with_errors(&merged.fields, errors);
    if let Some(form) = form.as_object_mut() {
        form.insert("notes".to_owned(), notes.into());
    }
    form
}

/// A value of the field `field`, such as `licenses.kind`, as its page shows it.
fn shown_value((catalog, language): (&Catalog, Language), field: &str, value: &str) -> String {
    let word = |key: &str| catalog.phrase(language, key, &Map::new());
    let option = word(&format!("{field}_{value}"));
    match value {
        _ if option.is_some() => option.unwrap_or_default(),
        "" => word("frame.nothing").unwrap_or_default(),
        _ => value.to_owned(),
    }
}
