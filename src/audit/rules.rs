//! The difference between the two states of an entry, and how text from outside is shown.

use serde_json::{Map, Value};

/// A field that changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldChange {
    /// Its name; empty if the states are no JSON objects.
    pub field: String,
    /// The old value; empty for none.
    pub before: String,
    /// The new value; empty for none.
    pub after: String,
}

/// The fields that differ between `before` and `after`, both JSON as stored.
pub fn changed_fields(before: &str, after: &str) -> Vec<FieldChange> {
    let read = |text: &str| serde_json::from_str(text).unwrap_or(Value::String(text.to_owned()));
    match (read(before), read(after)) {
        (Value::Null, Value::Null) => Vec::new(),
        (Value::Object(before), Value::Object(after)) => fields(&before, &after),
        (Value::Null, Value::Object(after)) => fields(&Map::new(), &after),
        (Value::Object(before), Value::Null) => fields(&before, &Map::new()),
        (before, after) => vec![FieldChange {
            field: String::new(),
            before: display(Some(&before)),
            after: display(Some(&after)),
        }],
    }
}

fn fields(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<FieldChange> {
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    let names = after.keys().chain(removed);
    let change = |name: &String| {
        let (before, after) = (display(before.get(name)), display(after.get(name)));
        (before != after).then(|| FieldChange {
            field: name.clone(),
            before,
            after,
        })
    };
    names.filter_map(change).collect()
}

fn display(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => escape_invisible(text),
        Some(other) => escape_invisible(&other.to_string()),
    }
}

/// `text` with direction marks and zero-width characters replaced by their code points, such as `[U+202E]`: they could
/// make one name look like another, or display an entry in another order than it was written.
pub fn escape_invisible(text: &str) -> String {
    let is_invisible = |c| {
        matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
    };
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        if is_invisible(c) {
            let code = u32::from(c);
            all.extend(["[U+", &format!("{code:04X}"), "]"]);
        } else {
            all.push(c);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_replaced_by_their_code_points() {
        for (text, display) in [
            ("ada", "ada"),
            (
                "k\u{e4}the \u{1f469}\u{200d}\u{1f4bb}",
                "k\u{e4}the \u{1f469}\u{200d}\u{1f4bb}",
            ),
            ("\u{202e}revres", "[U+202E]revres"),
            ("ser\u{200b}ver", "ser[U+200B]ver"),
            (
                "\u{feff}\u{ad}\u{2066}x\u{2069}",
                "[U+FEFF][U+00AD][U+2066]x[U+2069]",
            ),
        ] {
            assert_eq!(escape_invisible(text), display);
        }
    }

    #[test]
    fn only_fields_that_differ_are_returned() {
        let change = |field: &str, before: &str, after: &str| FieldChange {
            field: field.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        };
        for (before, after, expected) in [
            ("null", "null", vec![]),
            ("null", r#"{"a":1,"b":null}"#, vec![change("a", "", "1")]),
            (r#"{"a":"x"}"#, "null", vec![change("a", "x", "")]),
            (
                r#"{"a":1,"b":2,"c":3}"#,
                r#"{"a":1,"b":"two","d":true}"#,
                vec![
                    change("b", "2", "two"),
                    change("d", "", "true"),
                    change("c", "3", ""),
                ],
            ),
            ("1", "2", vec![change("", "1", "2")]),
            ("torn {", "null", vec![change("", "torn {", "")]),
        ] {
            assert_eq!(changed_fields(before, after), expected, "{before} {after}");
        }
    }
}
