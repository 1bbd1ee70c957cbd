//! The texts of the demo's sample data, in both languages.

use crate::config::Language;

/// A text in English and in German.
pub(super) type Phrase = (&'static str, &'static str);

/// The text in `language`.
pub(super) const fn phrase(language: Language, (english, german): Phrase) -> &'static str {
    match language {
        Language::De => german,
        Language::En => english,
    }
}
