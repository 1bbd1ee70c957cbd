//! Recordings of what a server sends: exchanges without what differs from run to run (times, ids, tokens, signatures),
//! as text, and the comparison with a recording that an earlier version made.

use std::collections::BTreeSet;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// One message that the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What was asked for, and in which situation.
    title: String,
    /// The status or the request line, and the headers in their order.
    head: Vec<String>,
    /// The body as it was sent, apart from what differs from run to run.
    body: String,
}

/// Headers that differ from run to run, and what stands for their values.
const VARYING_HEADERS: &[(&str, &str)] = &[
    ("content-digest", "<digest>"),
    ("signature", "<signature>"),
    ("retry-after", "<seconds>"),
];

/// Texts that differ from run to run, and what stands for them: `#` is a decimal digit, `%` a hexadecimal one, `@` a
/// letter. Sentences had moments as in members when the recording was made, and have dates of their language now.
const VARYING_TEXTS: &[(&str, &str)] = &[
    ("####-##-##T##:##:##Z", "<time>"),
    ("##.##.####, ##:## UTC", "<time>"),
    ("##.##.####", "<time>"),
    ("## @@@ ####, ##:## UTC", "<time>"),
    ("# @@@ ####, ##:## UTC", "<time>"),
    ("## @@@ ####", "<time>"),
    ("# @@@ ####", "<time>"),
    ("%%%%%%%%-%%%%-%%%%-%%%%-%%%%%%%%%%%%", "<uuid>"),
    (
        "%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%",
        "<id>",
    ),
    ("created=##########", "created=<time>"),
    ("keyid=\"%%%%%%%%%%%%%%%%\"", "keyid=\"<key>\""),
    (".localhost:#####", ".localhost:<port>"),
    (".localhost:####", ".localhost:<port>"),
];

impl Exchange {
    /// A message with this status or request line, these headers, and this body.
    pub fn new(title: &str, first_line: &str, headers: &[(String, String)], body: &str) -> Self {
        let mut head = vec![first_line.to_owned()];
        for (name, value) in headers {
            let varying = VARYING_HEADERS.iter().find(|(known, _)| known == name);
            let value = match varying {
                Some((_, placeholder)) => (*placeholder).to_owned(),
                None if name == "content-length" && *value == body.len().to_string() => {
                    "<length of the body>".to_owned()
                }
                None => without_varying_texts(value),
            };
            head.push(format!("{name}: {value}"));
        }
        Self {
            title: title.to_owned(),
            head,
            body: normalized_body(body),
        }
    }

    fn body_as_json(&self) -> Option<Value> {
        let document: Value = serde_json::from_str(&self.body).ok()?;
        document.is_object().then_some(document)
    }
}

/// A body without what differs from run to run; a JSON document in the form in which it was sent: compact, its members
/// in their order.
fn normalized_body(body: &str) -> String {
    let Ok(mut document @ Value::Object(_)) = serde_json::from_str(body) else {
        return without_varying_texts(body);
    };
    assert_eq!(document.to_string(), body, "the body is compact JSON");
    normalize(&mut document);
    document.to_string()
}

fn normalize(value: &mut Value) {
    if let Some(seconds @ 0..) = value["retry_after"].as_i64() {
        let detail = value["detail"].as_str().unwrap_or_default();
        let detail = detail.replace(&seconds.to_string(), "<seconds>");
        value["detail"] = json!(detail);
        value["retry_after"] = json!("<seconds>");
    }
    match value {
        Value::String(text) => *text = without_varying_texts(text),
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), &value) {
                    ("lease", Value::String(token)) => *value = decoded(token),
                    _ => normalize(value),
                }
            }
        }
        _ => {}
    }
}

/// The header and the claims of a signed token, whose expiry date is shown as the seconds that it lasts.
fn decoded(token: &str) -> Value {
    let mut parts = token.split('.').map(|part| {
        let text = URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice::<Value>(&text)
    });
    let mut header = parts.next().unwrap().unwrap();
    header["kid"] = json!("<key>");
    let mut claims = parts.next().unwrap().unwrap();
    let seconds = |name: &str| claims[name].as_i64().unwrap();
    let lasts = seconds("exp") - seconds("iat");
    claims["license"] = json!("<license key>");
    claims["iat"] = json!("<time>");
    claims["exp"] = json!(format!("<time> + {lasts}"));
    json!({ "header": header, "claims": claims })
}

fn without_varying_texts(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, placeholder) in VARYING_TEXTS {
        let mut at = 0;
        while at + pattern.len() <= text.len() {
            if fits(&text.as_bytes()[at..], pattern) {
                text.replace_range(at..at + pattern.len(), placeholder);
                at += placeholder.len();
            } else {
                at += 1;
            }
        }
    }
    text
}

/// Whether `bytes` begin with the pattern.
fn fits(bytes: &[u8], pattern: &str) -> bool {
    pattern
        .bytes()
        .zip(bytes)
        .all(|(wanted, byte)| match wanted {
            b'#' => byte.is_ascii_digit(),
            b'@' => byte.is_ascii_alphabetic(),
            b'%' => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
            _ => wanted == *byte,
        })
}

/// The file with these exchanges.
pub fn to_text(exchanges: &[Exchange]) -> String {
    let mut text = String::new();
    for exchange in exchanges {
        writeln!(text, "## {}", exchange.title).unwrap();
        for line in &exchange.head {
            writeln!(text, "{line}").unwrap();
        }
        writeln!(text, "\n{}\n", exchange.body).unwrap();
    }
    text
}

/// The exchanges of a file.
pub fn from_text(text: &str) -> Vec<Exchange> {
    let mut exchanges = text.split("## ");
    assert_eq!(
        exchanges.next(),
        Some(""),
        "the file begins with an exchange"
    );
    let exchanges = exchanges.map(|exchange| {
        let (head, body) = exchange.split_once("\n\n").unwrap();
        let mut lines = head.lines().map(str::to_owned);
        Exchange {
            title: lines.next().unwrap(),
            head: lines.collect(),
            body: body.strip_suffix("\n\n").unwrap().to_owned(),
        }
    });
    exchanges.collect()
}

/// Asserts that the exchanges are those of the recording, except that objects have gained members; the paths of these.
pub fn assert_same_but_for_additions(
    recorded: &[Exchange],
    current: &[Exchange],
) -> BTreeSet<String> {
    let titles = |exchanges: &[Exchange]| -> Vec<String> {
        exchanges.iter().map(|one| one.title.clone()).collect()
    };
    assert_eq!(titles(current), titles(recorded));
    let mut added = BTreeSet::new();
    for (before, now) in recorded.iter().zip(current) {
        let title = &before.title;
        assert_eq!(now.head, before.head, "{title}");
        let body = match (before.body_as_json(), now.body_as_json()) {
            (Some(before), Some(mut now)) => {
                take_additions(&before, &mut now, "", &mut added);
                now.to_string()
            }
            _ => now.body.clone(),
        };
        assert_eq!(body, before.body, "{title}");
    }
    added
}

/// Removes from `now` what `before` does not have, and notes its path.
fn take_additions(before: &Value, now: &mut Value, path: &str, added: &mut BTreeSet<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            now.retain(|name, value| {
                let path = format!("{path}{name}");
                let Some(before) = before.get(name) else {
                    added.insert(path);
                    return false;
                };
                take_additions(before, value, &format!("{path}."), added);
                true
            });
        }
        (Value::Array(before), Value::Array(now)) => {
            for (before, now) in before.iter().zip(now) {
                take_additions(before, now, path, added);
            }
        }
        _ => {}
    }
}

#[test]
fn a_recording_tells_an_addition_from_a_change() {
    let sent = |body: &str| [Exchange::new("one", "200", &[], body)];
    let before = sent(r#"{"a":{"b":1},"at":"2026-11-22T14:05:31Z"}"#);
    assert_eq!(before[0].body, r#"{"a":{"b":1},"at":"<time>"}"#);
    assert_eq!(from_text(&to_text(&before)), before);
    let more = sent(r#"{"a":{"b":1,"c":null},"at":"2027-01-01T00:00:00Z","d":[]}"#);
    let added = assert_same_but_for_additions(&before, &more);
    assert_eq!(added.into_iter().collect::<Vec<_>>(), ["a.c", "d"]);
    for changed in [
        r#"{"at":"x","a":{"b":1}}"#,
        r#"{"a":{"b":2},"at":"2026-11-22T14:05:31Z"}"#,
    ] {
        let changed = sent(changed);
        let compared =
            std::panic::catch_unwind(|| assert_same_but_for_additions(&before, &changed));
        assert!(compared.is_err(), "{changed:?}");
    }
}
