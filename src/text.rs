//! User input: how text is normalized for storage and for searches, and which characters are invisible. The same
//! visible text can have several encodings (`ü` as one character or as two), and text from mails, PDF files and
//! word processors often contains invisible characters.

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use icu_properties::CodePointSetData;
use icu_properties::props::{Dash, DefaultIgnorableCodePoint, QuotationMark, WhiteSpace};

/// The byte order mark, which some programs write in front of every text.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// `text` as it is stored: with composed characters (NFC).
pub fn to_nfc(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc()
        .normalize(text)
        .into_owned()
}

/// User input as it is stored: composed, and without spaces and invisible characters at its ends.
pub fn clean_input(text: &str) -> String {
    to_nfc(text.trim_matches(is_trimmed))
}

/// `text` without a leading byte order mark.
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// `text` as searches compare it. Compatibility forms, case (`ß` is `ss`) and characters without width are ignored
/// (Unicode, `toNFKC_Casefold`).
pub fn casefold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let plain = to_nfkc(text);
    let visible = plain.chars().filter(|c| !has_no_width(*c));
    // Lower case turns ẞ into ß; upper case then turns ß into SS, and both forms of the small sigma into Σ.
    let letters = visible
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase);
    to_nfkc(&letters.collect::<String>())
}

/// `text` as lists sort it: letters with marks beside those without (`Ä` like `a`), no case.
pub fn sort_key(text: &str) -> String {
    let plain = |c: char| if c.is_ascii() { c } else { without_marks(c) };
    casefold(text).chars().map(plain).collect()
}

/// `text` with plain characters instead of their variants in width or style (NFKC): `Ａ` becomes `A`.
pub fn to_nfkc(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfkc()
        .normalize(text)
        .into_owned()
}

/// The longest slug, in characters.
pub const SLUG_MAX: usize = 40;

/// A short name for addresses and commands, made from the name of a thing: `Müller & Söhne 2` becomes
/// `mueller-soehne-2`. Consists of `a-z`, `0-9` and hyphens, and does not begin with one; `product` if nothing is left.
pub fn slug_of(name: &str) -> String {
    let name = casefold(&to_nfc(name));
    let mut slug = String::new();
    for c in name.chars() {
        match c {
            'ä' => slug.push_str("ae"),
            'ö' => slug.push_str("oe"),
            'ü' => slug.push_str("ue"),
            _ => {
                let base = without_marks(c);
                if base.is_ascii_alphanumeric() {
                    slug.push(base);
                } else if !slug.is_empty() && !slug.ends_with('-') {
                    slug.push('-');
                }
            }
        }
    }
    let cut: String = slug.chars().take(SLUG_MAX).collect();
    match cut.trim_end_matches('-') {
        "" => "product".to_owned(),
        slug => slug.to_owned(),
    }
}

/// The letter that `c` is made from: `e` for `é`.
fn without_marks(c: char) -> char {
    let mut buffer = [0; 4];
    let parts = DecomposingNormalizerBorrowed::new_nfd().normalize(c.encode_utf8(&mut buffer));
    parts.chars().next().unwrap_or(c)
}

/// Whether `text` is a slug: 1 to [`SLUG_MAX`] characters `a-z`, `0-9` and hyphens, the first of them no hyphen.
pub fn is_slug(text: &str) -> bool {
    let valid = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=SLUG_MAX).contains(&text.len()) && text.bytes().all(valid) && !text.starts_with('-')
}

/// Whether `c` only separates or encloses words, by Unicode's properties: a space, a line end, a dash, a quotation
/// mark, or an invisible character.
pub fn is_separator(c: char) -> bool {
    // Nearly all characters of what is looked through here; the tables take longer.
    if c.is_ascii() {
        return matches!(c, '\t'..='\r' | ' ' | '"' | '\'' | '-');
    }
    separates_by_properties(c)
}

fn separates_by_properties(c: char) -> bool {
    CodePointSetData::new::<WhiteSpace>().contains(c)
        || CodePointSetData::new::<Dash>().contains(c)
        || CodePointSetData::new::<QuotationMark>().contains(c)
        || has_no_width(c)
}

/// Whether `c` is invisible: soft hyphens, joiners, direction marks, byte order marks.
pub fn has_no_width(c: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// Whether `c` is trimmed from the ends of user input: white space and what copying adds. Other characters without
/// width have a meaning there, such as the last one of an emoji.
pub fn is_trimmed(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            BYTE_ORDER_MARK | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_separators_are_those_of_unicode() {
        for c in '\0'..='\x7f' {
            assert_eq!(is_separator(c), separates_by_properties(c), "{c:?}");
        }
    }

    #[test]
    fn text_that_looks_the_same_is_stored_the_same() {
        for (text, stored) in [
            ("Mu\u{308}ller", "M\u{fc}ller"),
            ("M\u{fc}ller", "M\u{fc}ller"),
            ("\u{feff} A\u{30a}sa\u{a0}\n", "\u{c5}sa"),
            ("\u{2764}\u{fe0f}", "\u{2764}\u{fe0f}"),
            // Styled characters are stored as they are; only searches ignore the style.
            ("\u{ff21}\u{fb01}", "\u{ff21}\u{fb01}"),
            ("a\nb", "a\nb"),
        ] {
            assert_eq!(clean_input(text), stored, "{text:?}");
        }
    }

    #[test]
    fn searches_ignore_case_style_and_composition() {
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
                assert_eq!(casefold(text), casefold(group[0]), "{text:?}");
            }
        }
        assert_ne!(casefold("Muller"), casefold("M\u{fc}ller"));
    }

    #[test]
    fn a_slug_is_made_from_every_name() {
        for (name, slug) in [
            ("My program", "my-program"),
            ("Mu\u{308}ller & S\u{f6}hne 2", "mueller-soehne-2"),
            ("Stra\u{df}e", "strasse"),
            ("\u{c9}diteur+", "editeur"),
            ("  --a--  b ", "a-b"),
            ("\u{65e5}\u{672c}", "product"),
            ("", "product"),
        ] {
            assert_eq!(slug_of(name), slug, "{name:?}");
            assert!(is_slug(&slug_of(name)), "{name:?}");
        }
        assert_eq!(
            slug_of(&"abcd ".repeat(40)).len(),
            SLUG_MAX - 1,
            "no hyphen at the end"
        );
        for wrong in ["", "-a", "A", "a_b", "a b", &"a".repeat(SLUG_MAX + 1)] {
            assert!(!is_slug(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn separators_are_recognized_by_their_properties() {
        for c in " \t\r\n\u{85}\u{a0}\u{202f}\u{3000}\u{2028}-\u{2010}\u{2011}\u{2013}\u{2014}\u{2212}\u{ff0d}\"'\u{ab}\u{bb}\u{2018}\u{201e}\u{201c}\u{300c}\u{ad}\u{200b}\u{200d}\u{200e}\u{2060}\u{feff}".chars() {
            assert!(is_separator(c), "{c:?}");
        }
        for c in "A0\u{e4}._+#\u{0}\u{1b}\u{7f}".chars() {
            assert!(!is_separator(c), "{c:?}");
        }
    }
}
