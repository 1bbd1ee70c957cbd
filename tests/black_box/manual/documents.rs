//! The list of JSON documents in the manual, compared with what the commands print.

use std::collections::BTreeMap;

use clap::CommandFactory;
use license_server::cli::Arguments;
use serde_json::{Map, Value};

/// Commands without a document, or with one that the manual describes in words.
const IN_WORDS: &[&str] = &["demo", "completions", "man", "settings", "customer export"];

/// The documents that were printed, by command. Values are `null`: only the members count.
#[derive(Default)]
pub struct Printed(BTreeMap<String, Value>);

impl Printed {
    /// Adds what the command line `words` printed.
    pub fn add(&mut self, words: &[&str], document: &Value) {
        let mut command = Arguments::command();
        let mut path = Vec::new();
        for word in words {
            let Some(found) = command.find_subcommand(word) else {
                break;
            };
            path.push(*word);
            command = found.clone();
        }
        let known = self.0.entry(path.join(" ")).or_default();
        *known = merged(std::mem::take(known), members(document));
    }

    /// Fails if the manual says anything else. With `LICENSE_TEST_WRITE=1` its list is written instead.
    pub fn compare(&self) {
        let lines = self.0.iter();
        let lines = lines.map(|(command, members)| format!("{command}: {}\n", text(members)));
        let lines: String = lines.collect();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/documents.txt");
        if std::env::var("LICENSE_TEST_WRITE").is_ok() {
            std::fs::write(file, &lines).unwrap();
        }
        let described = std::fs::read_to_string(file).unwrap();
        for (printed, described) in lines.lines().zip(described.lines()) {
            assert_eq!(printed, described, "assets/documents.txt");
        }
        assert_eq!(lines.lines().count(), described.lines().count());
        let mut missing = Vec::new();
        leaves(&Arguments::command(), "", &mut missing);
        missing.retain(|command| !self.0.contains_key(command));
        let mut in_words = IN_WORDS.to_vec();
        in_words.sort_unstable();
        assert_eq!(missing, in_words, "commands without a description");
    }
}

/// The commands without subcommands, sorted.
fn leaves(command: &clap::Command, path: &str, found: &mut Vec<String>) {
    for one in command
        .get_subcommands()
        .filter(|one| one.get_name() != "help")
    {
        let path = format!("{path} {}", one.get_name()).trim().to_owned();
        if one.has_subcommands() {
            leaves(one, &path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

/// The members of a document: of a list those of all elements together.
fn members(document: &Value) -> Value {
    match document {
        Value::Object(map) => {
            let map = map
                .iter()
                .map(|(name, value)| (name.clone(), members(value)));
            Value::Object(map.collect())
        }
        Value::Array(list) => {
            let all = list.iter().map(members).fold(Value::Null, merged);
            Value::Array(vec![all])
        }
        _ => Value::Null,
    }
}

fn merged(known: Value, more: Value) -> Value {
    match (known, more) {
        (Value::Object(mut known), Value::Object(more)) => {
            for (name, value) in more {
                let old = known.remove(&name).unwrap_or_default();
                known.insert(name, merged(old, value));
            }
            Value::Object(known.into_iter().collect::<Map<_, _>>())
        }
        (Value::Array(mut known), Value::Array(mut more)) => {
            let (known, more) = (known.pop(), more.pop());
            Value::Array(vec![merged(
                known.unwrap_or_default(),
                more.unwrap_or_default(),
            )])
        }
        (Value::Null, other) | (other, _) => other,
    }
}

/// Members in one line, sorted: `{licenses: [{id, key}]}`.
fn text(members: &Value) -> String {
    match members {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let parts = sorted.into_iter().map(|(name, value)| match text(value) {
                inner if inner.is_empty() => name.clone(),
                inner => format!("{name}: {inner}"),
            });
            format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
        }
        Value::Array(list) => {
            let inner = list.first().map(text).unwrap_or_default();
            let inner = if inner.is_empty() {
                "…".to_owned()
            } else {
                inner
            };
            format!("[{inner}]")
        }
        _ => String::new(),
    }
}
