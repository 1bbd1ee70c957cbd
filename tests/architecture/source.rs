//! Reads Rust source as text: code without comments and strings, its functions, and the files that each file imports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::files;

/// The code of a file without its tests, its comments and the contents of its strings, line by line as in the file.
pub fn bare_code(text: &str) -> String {
    bare(text.split("#[cfg(test)]").next().unwrap_or_default())
}

/// The same with its tests.
pub fn bare(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(c) = chars.get(at) {
        let end = token_end(&chars, at);
        let token = &chars[at..end];
        if token.len() == 1 {
            kept.push(*c);
        } else {
            let is_comment = token.starts_with(&['/', '/']) || token.starts_with(&['/', '*']);
            kept.push_str(if is_comment { "" } else { "\"\"" });
            kept.extend(token.iter().filter(|c| **c == '\n'));
        }
        at = end;
    }
    kept
}

/// The end of the comment, string or character literal that begins at `at`; one more than `at` for other code.
fn token_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n'),
        ['/', '*', ..] => position(rest, &['*', '/']).map(|found| found + 2),
        ['r', '"' | '#', ..]
            if !at
                .checked_sub(1)
                .is_some_and(|before| is_word(chars[before])) =>
        {
            raw_string(rest)
        }
        ['"', ..] => Some(string(rest)),
        ['\'', '\\', ..] => rest
            .iter()
            .skip(3)
            .position(|c| *c == '\'')
            .map(|found| found + 4),
        ['\'', _, '\'', ..] => Some(3),
        _ => Some(1),
    };
    at + length.unwrap_or(rest.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn position(chars: &[char], sought: &[char]) -> Option<usize> {
    chars
        .windows(sought.len())
        .position(|found| found == sought)
}

/// The length of the raw string at the beginning of `rest`, or 1 if a raw identifier is there.
fn raw_string(rest: &[char]) -> Option<usize> {
    let marks = rest.iter().skip(1).take_while(|c| **c == '#').count();
    if rest.get(marks + 1) != Some(&'"') {
        return Some(1);
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', marks));
    let body = marks + 2;
    position(&rest[body..], &end).map(|found| body + found + end.len())
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while let Some(c) = rest.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A function with a body.
pub struct Function {
    pub name: String,
    /// Its parameters except `self`.
    pub parameters: Vec<String>,
    /// From `fn` to the closing brace.
    pub lines: usize,
    pub body: String,
}

/// The functions in code without comments and strings.
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = !code[..at].chars().next_back().is_some_and(is_word);
        let signature = &code[at + 3..];
        let name: String = signature.chars().take_while(|c| is_word(*c)).collect();
        if name.is_empty() || !starts_word {
            continue;
        }
        let generics = if signature[name.len()..].starts_with('<') {
            angle_brackets(&signature[name.len()..])
        } else {
            0
        };
        let list = &signature[name.len() + generics..];
        let inside = brackets(list);
        let behind = &list[inside.len() + 2..];
        let Some(body) = behind
            .find(['{', ';'])
            .filter(|end| behind[*end..].starts_with('{'))
        else {
            continue;
        };
        let content = brackets(&behind[body..]);
        let length = signature.len() - behind.len() + body + content.len();
        found.push(Function {
            parameters: split_at_commas(inside)
                .into_iter()
                .filter(|parameter| !is_receiver(parameter))
                .collect(),
            lines: signature[..length].lines().count(),
            body: content.to_owned(),
            name,
        });
    }
    found
}

fn is_receiver(parameter: &str) -> bool {
    let name = parameter.split(':').next().unwrap_or_default();
    name.split(|c| !is_word(c)).any(|word| word == "self")
}

/// The length of the generic parameters at the beginning of `text`.
fn angle_brackets(text: &str) -> usize {
    let mut depth = 0;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        before = c;
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// What is between the bracket at the beginning of `text` and the one that closes it.
pub fn brackets(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.get(1..at).unwrap_or_default();
        }
    }
    text
}

/// The parts of a list, without those that are empty.
fn split_at_commas(list: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth, mut before) = (Vec::new(), String::new(), 0, ' ');
    for c in list.chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if before != '-' && before != '=' => depth -= 1,
            _ => {}
        }
        before = c;
        if c == ',' && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// For each file of `src` the files that it imports, both as module paths such as `sessions::store`. A module and the
/// files that it declares may import each other, so these imports are left out.
pub fn file_imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources: BTreeMap<String, String> = files("src", "rs")
        .into_iter()
        .map(|(path, text)| (module_path(&path), bare_code(&text)))
        .collect();
    sources
        .iter()
        .map(|(module, code)| {
            let paths = imported_paths(code).into_iter();
            let imported = paths
                .filter_map(|path| absolute(&path, module))
                .filter_map(|path| file_of(&path, &sources))
                .filter(|file| !is_below(file, module) && !is_below(module, file))
                .collect();
            (module.clone(), imported)
        })
        .collect()
}

fn module_path(path: &Path) -> String {
    let path = path.strip_prefix("src").unwrap().with_extension("");
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let parts = parts.strip_suffix(&["mod"]).unwrap_or(&parts);
    parts.join("::")
}

fn is_below(module: &str, parent: &str) -> bool {
    module == parent
        || module
            .strip_prefix(parent)
            .is_some_and(|rest| rest.starts_with("::"))
}

/// The paths in the code that begin with `crate` or `super`, with the lists in `use` taken apart.
fn imported_paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| is_word(c) || c == ':') {
                continue;
            }
            let end = code[at..].find([';', '=']).unwrap_or(code.len() - at);
            found.extend(paths_of(&code[at..at + end]));
        }
    }
    found
}

/// The paths that `a::{b, c::d}` stands for.
fn paths_of(text: &str) -> Vec<String> {
    let length = text.find(|c| !is_word(c) && c != ':').unwrap_or(text.len());
    let (head, rest) = text.split_at(length);
    if !head.ends_with("::") || !rest.starts_with('{') {
        return vec![head.to_owned()];
    }
    let items = split_at_commas(brackets(rest));
    let items = items.iter().flat_map(|item| paths_of(item.trim()));
    items.map(|item| format!("{head}{item}")).collect()
}

/// A path from the root of the crate.
fn absolute(path: &str, module: &str) -> Option<Vec<String>> {
    let mut parts: Vec<&str> = module.split("::").collect();
    let mut rest: Vec<&str> = path.split("::").collect();
    if rest.first() == Some(&"crate") {
        parts.clear();
        rest.remove(0);
    }
    while rest.first() == Some(&"super") {
        parts.pop()?;
        rest.remove(0);
    }
    Some(parts.into_iter().chain(rest).map(str::to_owned).collect())
}

fn file_of(path: &[String], sources: &BTreeMap<String, String>) -> Option<String> {
    (1..=path.len())
        .rev()
        .map(|length| path[..length].join("::"))
        .find(|file| sources.contains_key(file))
}

/// The groups of nodes that can all reach each other, of at least two nodes each.
pub fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = graph
        .keys()
        .map(|start| {
            let (mut seen, mut pending) = (BTreeSet::new(), vec![start]);
            while let Some(node) = pending.pop() {
                for next in graph.get(node).into_iter().flatten() {
                    if seen.insert(next) {
                        pending.push(next);
                    }
                }
            }
            (start, seen)
        })
        .collect();
    let circle = |node: &String| -> BTreeSet<String> {
        let others = reached[node].iter();
        let others =
            others.filter(|other| reached.get(**other).is_some_and(|back| back.contains(node)));
        others.map(|other| (*other).clone()).collect()
    };
    let circles = graph.keys().map(circle);
    circles.filter(|circle| circle.len() > 1).collect()
}
