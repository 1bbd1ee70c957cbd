//! What is typed into a search, and the form in which texts are indexed for it. The index holds every sequence of three
//! characters (trigram) of a text; whether a text contains a word is then decided by the text itself.

use crate::domain::Domain;
use crate::id::ProductId;
use crate::text::{self, casefold};

/// Maximum length of what is typed, in characters; the rest is ignored.
const INPUT_MAX: usize = 200;
/// Maximum number of words; further ones are ignored.
const WORDS_MAX: usize = 8;
/// How many trigrams of a word are looked up in the index, at most: enough to find few texts, and quick for the 64
/// characters of a fingerprint.
const TRIGRAMS_MAX: usize = 8;
/// How many things a search finds for a list, at most: the newest ones.
pub const FOUND_MAX: u32 = 5_000;
/// Two spaces begin each field in the index, and a line end ends it, so that a trigram can tell where a field begins and
/// ends. Within a field, only single spaces separate words.
const FIELD_BEGIN: &str = "  ";
const FIELD_END: char = '\n';

/// What a search found for a list.
#[derive(Clone, Debug)]
pub struct Matches<Id> {
    /// The ids, in no order that counts.
    pub ids: Vec<Id>,
    /// Whether there may be more, which are older.
    pub is_cut: bool,
}

/// What was typed into a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    typed: String,
    words: Vec<String>,
}

impl Terms {
    /// Reads what was typed. A text in quotation marks is one word. Of an address pasted from a browser only the host name
    /// counts, and of a sender (`Ada <ada@example.org>`) only the mail address.
    pub fn parse(input: &str) -> Self {
        let typed: String = input
            .trim_matches(text::is_trimmed)
            .chars()
            .take(INPUT_MAX)
            .collect();
        let pieces = pieces(&typed);
        let addresses: Vec<&String> = pieces
            .iter()
            .filter(|piece| is_mail_address(piece))
            .collect();
        let counted = if addresses.is_empty() {
            pieces.iter().collect()
        } else {
            addresses
        };
        let words = counted
            .into_iter()
            .map(|piece| folded(piece))
            .filter(|word| !word.is_empty());
        let words = words.take(WORDS_MAX).collect();
        Self { typed, words }
    }

    /// Whether nothing was typed; a list shows everything then.
    pub fn is_empty(&self) -> bool {
        self.typed.is_empty()
    }

    /// What was typed, without spaces at its ends.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// Texts that contain every word. A word of one or two characters must begin a word of the text; alone, a single
    /// character must begin a field.
    pub fn words(&self) -> Pattern {
        let alone = self.words.len() == 1;
        let part = |word: &String| match word.chars().nth(2) {
            Some(_) => word.clone(),
            None if alone && word.chars().nth(1).is_none() => format!("{FIELD_BEGIN}{word}"),
            None => format!(" {word}"),
        };
        Pattern {
            parts: self.words.iter().map(part).collect(),
        }
    }

    /// Texts with a field that begins with what was typed.
    pub fn field_beginning(&self) -> Pattern {
        Pattern::of(
            (!self.words.is_empty()).then(|| format!("{FIELD_BEGIN}{}", self.words.join(" "))),
        )
    }

    /// Texts with a field that is what was typed.
    pub fn whole_field(&self) -> Pattern {
        let field = || format!("{FIELD_BEGIN}{}{FIELD_END}", self.words.join(" "));
        Pattern::of((!self.words.is_empty()).then(field))
    }
}

/// What an indexed text must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<String>,
}

impl Pattern {
    /// Texts that contain `part`; none at all if it is `None`.
    pub fn of(part: Option<String>) -> Self {
        Self {
            parts: part.into_iter().collect(),
        }
    }

    /// The fields that are exactly `field`.
    pub fn exactly(field: &str) -> Self {
        Self {
            parts: vec![indexed(field)],
        }
    }

    /// Whether a text, in the form of [`indexed`], contains all that it must; for texts outside the index.
    pub fn is_found_in(&self, indexed: &str) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|part| indexed.contains(part))
    }

    /// The expression that looks up candidates in the index.
    pub fn expression(&self) -> String {
        or_nothing(self.trigrams())
    }

    /// The trigrams that candidates must have; empty if the index cannot tell any.
    fn trigrams(&self) -> String {
        let mut found: Vec<String> = Vec::new();
        for trigram in self.parts.iter().flat_map(|part| trigrams(part)) {
            let quoted = format!("\"{}\"", trigram.replace('"', "\"\""));
            if !found.contains(&quoted) {
                found.push(quoted);
            }
        }
        found.join(" AND ")
    }

    /// The parts as a JSON array: a candidate must contain each of them.
    pub fn parts(&self) -> String {
        serde_json::Value::from(self.parts.clone()).to_string()
    }
}

/// The expression that looks up candidates of one of two patterns, of one product or of all.
pub fn either(one: &Pattern, other: &Pattern, product: Option<ProductId>) -> String {
    let expressions = [one.trigrams(), other.trigrams()];
    let expressions = expressions
        .iter()
        .filter(|expression| !expression.is_empty());
    let any: Vec<String> = expressions
        .map(|expression| format!("({expression})"))
        .collect();
    let any = or_nothing(any.join(" OR "));
    match product {
        Some(product) => {
            let of_product = Pattern::of(Some(product_mark(product))).expression();
            format!("({any}) AND {of_product}")
        }
        None => any,
    }
}

/// `expression`, or one that finds nothing if it is empty, which the index would refuse.
fn or_nothing(expression: String) -> String {
    if expression.is_empty() {
        "\"\u{e001}\u{e001}\u{e001}\"".to_owned()
    } else {
        expression
    }
}

/// The mark in the index of what belongs to a product. Private characters, which are not typed.
pub fn product_mark(product: ProductId) -> String {
    format!("\u{e000}{product}\u{e001}")
}

/// A text as the index holds it: as searches compare it, on one line, and marked as a field. Empty if the text is.
pub fn indexed(text: &str) -> String {
    let words = folded(text);
    if words.is_empty() {
        return String::new();
    }
    format!("{FIELD_BEGIN}{words}{FIELD_END}")
}

/// A domain as the index holds it: in ASCII and in its own script.
pub fn indexed_domain(ascii: &str) -> String {
    let unicode = Domain::from_stored(ascii).to_unicode();
    indexed(ascii) + &unicode.map_or_else(String::new, |unicode| indexed(&unicode))
}

/// `text` as searches compare it, with single spaces.
fn folded(text: &str) -> String {
    let text = casefold(text);
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c == '\0')
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

/// Some trigrams of `part`, its first and last among them.
fn trigrams(part: &str) -> Vec<String> {
    let chars: Vec<char> = part.chars().collect();
    let all: Vec<String> = chars
        .windows(3)
        .map(|window| window.iter().collect())
        .collect();
    let Some(last) = all
        .len()
        .checked_sub(1)
        .filter(|last| *last >= TRIGRAMS_MAX)
    else {
        return all;
    };
    let spread = (0..TRIGRAMS_MAX).map(|number| number * last / (TRIGRAMS_MAX - 1));
    spread.filter_map(|at| all.get(at).cloned()).collect()
}

/// What was typed, cut at spaces outside quotation marks, and freed of what encloses words.
fn pieces(typed: &str) -> Vec<String> {
    let marks = typed.chars().filter(|c| is_quotation_mark(*c)).count();
    let (mut pieces, mut piece, mut quoted) = (Vec::new(), String::new(), false);
    for c in typed.chars() {
        // A single mark is a character like any other, such as the inches of a display.
        if is_quotation_mark(c) && marks % 2 == 0 {
            quoted = !quoted;
            pieces.push(std::mem::take(&mut piece));
        } else if c.is_whitespace() && !quoted {
            pieces.push(std::mem::take(&mut piece));
        } else {
            piece.push(c);
        }
    }
    pieces.push(piece);
    pieces
        .iter()
        .map(|piece| bare(piece))
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// A piece without what encloses it, and the host name of an address of the web. A piece of nothing else stays as it is.
fn bare(piece: &str) -> String {
    let inner = piece.trim_matches(|c| {
        "<>()[]{}\"'\u{201e}\u{201c}\u{201d}\u{ab}\u{bb},;".contains(c) || text::is_trimmed(c)
    });
    let inner = inner.trim_end_matches(['.', ':']);
    let inner = inner.strip_prefix("mailto:").unwrap_or(inner);
    let pasted = inner
        .contains('/')
        .then(|| Domain::from_input(inner))
        .flatten();
    match (pasted, inner) {
        (Some(domain), _) => domain.as_str().to_owned(),
        (None, "") => piece.trim().to_owned(),
        (None, inner) => inner.to_owned(),
    }
}

fn is_quotation_mark(c: char) -> bool {
    matches!(
        c,
        '"' | '\u{201e}' | '\u{201c}' | '\u{201d}' | '\u{ab}' | '\u{bb}'
    )
}

fn is_mail_address(piece: &str) -> bool {
    let parts = piece.split_once('@');
    parts.is_some_and(|(local, host)| {
        !local.is_empty() && host.contains('.') && !piece.contains(' ')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a search for `typed` finds a text with these fields, by the index and then by the text.
    fn finds(typed: &str, fields: &[&str]) -> bool {
        let pattern = Terms::parse(typed).words();
        let text: String = fields.iter().map(|field| indexed(field)).collect();
        let wanted = pattern.parts.iter().flat_map(|part| trigrams(part));
        let contains = |part: &String| text.contains(part.as_str());
        !pattern.trigrams().is_empty()
            && wanted.collect::<Vec<_>>().iter().all(contains)
            && pattern.parts.iter().all(contains)
    }

    #[test]
    fn a_text_is_found_by_its_words_however_they_are_typed() {
        let fields = [
            "M\u{fc}ller  & S\u{f6}hne\n\"Wei\u{df}\" GmbH",
            "ada.l@example.org",
        ];
        for typed in [
            "m\u{fc}ller",
            "MU\u{308}LLER",
            "s\u{f6}hne m\u{fc}ller",
            "weiss",
            "\"m\u{fc}ller & s\u{f6}hne\"",
            "m\u{fc} gm",
            "\u{201e}Wei\u{df}\u{201c} GmbH",
            "ada.l@example.org",
            "Ada Lovelace <ada.l@example.org>",
            "mailto:ada.l@example.org",
            "\"Somebody\" <ADA.L@EXAMPLE.ORG>;",
            "m",
            "a",
            "\u{fc}ll",
            "weis GM",
            "m\u{fc}ller & s\u{f6}hne",
        ] {
            assert!(finds(typed, &fields), "{typed}");
        }
        for typed in [
            "&",
            "https://www.example.org@",
            "ex\"ample",
            "",
            " ",
            "muller",
            "\"s\u{f6}hne m\u{fc}ller\"",
            "\u{fc}l",
            "s",
            "gmbhx",
            "%",
            "*",
            "NOT",
            "m\u{fc}ller*",
            "\0",
        ] {
            assert!(!finds(typed, &fields), "{typed}");
        }
    }

    #[test]
    fn fields_are_told_by_their_beginning_and_end() {
        let text = indexed("Ada Lovelace") + &indexed("Ada");
        for (typed, whole, beginning) in [
            ("ada", true, true),
            ("Ada Love", false, true),
            ("lovelace", false, false),
        ] {
            let terms = Terms::parse(typed);
            let holds = |pattern: Pattern| pattern.parts.iter().all(|part| text.contains(part));
            assert_eq!(
                (holds(terms.whole_field()), holds(terms.field_beginning())),
                (whole, beginning),
                "{typed}"
            );
        }
    }

    #[test]
    fn an_expression_quotes_every_trigram_and_names_few_of_them() {
        for (typed, expression) in [
            ("ada", "\"ada\""),
            ("ad", "\" ad\""),
            ("a", "\"  a\""),
            ("abab", "\"aba\" AND \"bab\""),
            ("a\"b\"", ""),
            ("5\"x", "\"5\"\"x\""),
            ("", ""),
        ] {
            assert_eq!(
                Terms::parse(typed).words().trigrams(),
                expression,
                "{typed}"
            );
        }
        let long = Terms::parse(&"0123456789abcdef".repeat(4))
            .words()
            .expression();
        assert_eq!(long.matches(" AND ").count(), TRIGRAMS_MAX - 1);
        let words = Terms::parse("one two three four five six seven eight nine");
        assert_eq!(words.words.len(), WORDS_MAX);
    }

    #[test]
    fn domains_are_indexed_in_both_spellings() {
        assert_eq!(
            indexed_domain("xn--bcher-kva.example"),
            "  xn--bcher-kva.example\n  b\u{fc}cher.example\n"
        );
        assert_eq!(indexed_domain("example.org"), "  example.org\n");
        assert_eq!(indexed_domain(""), "");
    }
}
