//! Text as people type and paste it: how it is stored, how a search compares it, and which characters are
//! only there for the eye. One look can have several spellings (`ü` as one character or as two), and much of
//! what comes out of mails, PDF files and word processors cannot be seen at all.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointSetData;
use icu_properties::props::{Dash, DefaultIgnorableCodePoint, QuotationMark, WhiteSpace};

/// The byte order mark, as some programs write it in front of every text.
pub const MARK: char = '\u{feff}';

/// `text` in the one spelling that is stored: composed characters (NFC).
pub fn composed(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc()
        .normalize(text)
        .into_owned()
}

/// What a person typed into a field: composed, without what copying leaves at its ends.
pub fn typed(text: &str) -> String {
    composed(text.trim_matches(is_leftover))
}

/// `text` without a byte order mark in front.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// `text` as searches compare it: two texts that people take for the same are the same then. Compatibility
/// forms, case (`ß` is `ss`) and characters without width do not count (Unicode, `toNFKC_Casefold`).
pub fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let plain = compatible(text);
    let visible = plain.chars().filter(|c| !has_no_width(*c));
    // Lower case makes ß of ẞ, upper case SS of ß, and Σ of both small sigmas.
    let letters = visible
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase);
    compatible(&letters.collect::<String>())
}

/// `text` with plain characters for those of another width or style (NFKC): `Ａ` is `A`.
pub fn compatible(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfkc()
        .normalize(text)
        .into_owned()
}

/// Whether `c` only separates or surrounds what is written, by Unicode's properties: a space, a line end, a
/// dash, a quotation mark, or nothing that can be seen.
pub fn is_separator(c: char) -> bool {
    CodePointSetData::new::<WhiteSpace>().contains(c)
        || CodePointSetData::new::<Dash>().contains(c)
        || CodePointSetData::new::<QuotationMark>().contains(c)
        || has_no_width(c)
}

/// Whether `c` is not shown: soft hyphens, joiners, marks of direction, byte order marks.
pub fn has_no_width(c: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// Whether `c` at an end of a text is a leftover of copying. Other characters without width have a meaning
/// there: the last one of an emoji says that it is one.
pub fn is_leftover(c: char) -> bool {
    c.is_whitespace() || matches!(c, MARK | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_the_same_is_stored_the_same() {
        for (text, stored) in [
            ("Mu\u{308}ller", "M\u{fc}ller"),
            ("M\u{fc}ller", "M\u{fc}ller"),
            ("\u{feff} A\u{30a}sa\u{a0}\n", "\u{c5}sa"),
            ("\u{2764}\u{fe0f}", "\u{2764}\u{fe0f}"),
            // Style is kept, only searches pass over it.
            ("\u{ff21}\u{fb01}", "\u{ff21}\u{fb01}"),
            ("a\nb", "a\nb"),
        ] {
            assert_eq!(typed(text), stored, "{text:?}");
        }
    }

    #[test]
    fn what_people_take_for_the_same_is_found() {
        for group in [
            &[
                "M\u{fc}ller",
                "Mu\u{308}ller",
                "M\u{dc}LLER",
                "MU\u{308}LLER",
            ][..],
            &["Wei\u{df}", "WEISS", "weiss", "WEI\u{1e9e}", "Weiß"],
            &[
                "\u{3a3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}",
                "\u{3c3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c3}",
            ],
            &["Gri\u{fb03}n", "griffin", "Grif\u{ad}fin", "\u{ff27}riffin"],
            &["a b", "A\u{a0}b"],
        ] {
            for text in group {
                assert_eq!(folded(text), folded(group[0]), "{text:?}");
            }
        }
        assert_ne!(folded("Muller"), folded("M\u{fc}ller"));
    }

    #[test]
    fn separators_are_known_by_their_properties() {
        for c in " \t\r\n\u{85}\u{a0}\u{202f}\u{3000}\u{2028}-\u{2010}\u{2011}\u{2013}\u{2014}\u{2212}\u{ff0d}\"'\u{ab}\u{bb}\u{2018}\u{201e}\u{201c}\u{300c}\u{ad}\u{200b}\u{200d}\u{200e}\u{2060}\u{feff}".chars() {
            assert!(is_separator(c), "{c:?}");
        }
        for c in "A0\u{e4}._+#\u{0}\u{1b}\u{7f}".chars() {
            assert!(!is_separator(c), "{c:?}");
        }
    }
}
