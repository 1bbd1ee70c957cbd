//! What code must not do. Handlers and rules: compose operations in a write, take parts of the server one by one, or know
//! paths of the panel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::source::{bare_code, brackets, functions};
use crate::{CORE, address, code, files, is_handler};

/// Rules that know paths of the panel, which their handlers are to add.
const RULES_WITH_PATHS: &[&str] = &[];

/// Handlers that take a part of the server on its own instead of `app: &App`.
const SINGLE_PARTS: &[&str] = &[];

/// The operations of core modules except `audit` that `code` calls, such as `licenses::issue` or, of the handler's own
/// module, `super::issue`; those that functions of the same file call included.
fn called_operations(
    code: &str,
    local: &BTreeMap<String, String>,
    imported: &BTreeSet<String>,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let (mut pending, mut seen) = (vec![code.to_owned()], BTreeSet::new());
    while let Some(code) = pending.pop() {
        for (at, _) in code.match_indices('(') {
            let path = path_before(&code[..at]);
            let (module, name) = path.rsplit_once("::").unwrap_or(("", path));
            let module = module.rsplit("::").next().unwrap_or_default();
            let is_operation = name.starts_with(|c: char| c.is_ascii_lowercase());
            let of_a_module = module != "audit" && CORE.contains(&module) || module == "super";
            if is_operation && (of_a_module || module.is_empty() && imported.contains(name)) {
                found.insert(path.to_owned());
            } else if let Some(body) = local.get(path).filter(|_| seen.insert(path.to_owned())) {
                pending.push(body.clone());
            }
        }
    }
    found
}

/// The path that ends where `code` ends; empty for a method.
fn path_before(code: &str) -> &str {
    let begin = code
        .rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
        .map_or(0, |at| at + 1);
    let is_method = code[..begin].ends_with('.');
    if is_method { "" } else { &code[begin..] }
}

/// The lower-case names that a handler imports from core modules, without the modules themselves.
fn imported_operations(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in code.split("use ").skip(1) {
        let line = line.split(';').next().unwrap_or_default();
        let from_core = line.starts_with("super::")
            || CORE
                .iter()
                .any(|module| line.starts_with(&format!("crate::{module}::")));
        let words = line
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .skip(2);
        let words =
            words.filter(|word| from_core && word.starts_with(|c: char| c.is_ascii_lowercase()));
        found.extend(words.filter(|word| !CORE.contains(word)).map(str::to_owned));
    }
    found
}

#[test]
fn a_write_of_a_handler_calls_one_operation() {
    let (mut violations, mut writes) = (Vec::new(), 0);
    for (path, text) in files("src", "rs") {
        let (module, file) = address(&path);
        if !CORE.contains(&module.as_str()) || !is_handler(&file) {
            continue;
        }
        let code = bare_code(&text);
        let local = functions(&code).into_iter();
        let local = local
            .map(|function| (function.name, function.body))
            .collect();
        let imported = imported_operations(&code);
        // The names of writes are strings, which `code` has no more: they are counted in the same order.
        let names: Vec<&str> = text
            .split("#[cfg(test)]")
            .next()
            .unwrap()
            .split(".write")
            .skip(1)
            .filter_map(|rest| rest.split('"').nth(1))
            .collect();
        for (number, (at, _)) in code.match_indices(".write").enumerate() {
            let call = &code[at..];
            let Some(open) = call.find('(') else { continue };
            writes += 1;
            let operations = called_operations(brackets(&call[open..]), &local, &imported);
            if operations.len() > 1 {
                let name = names.get(number).unwrap_or(&"?");
                violations.push(format!("{}: {name} calls {operations:?}", path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(writes > 50, "the test does not find the writes: {writes}");
}

#[test]
fn handlers_take_the_parts_of_the_server_together() {
    let (mut violations, mut found) = (Vec::new(), 0);
    for (path, text) in files("src", "rs") {
        let (code, name) = (bare_code(&text), path.display().to_string());
        found += code.matches("app: &App").count();
        if code.contains("&State<") && !SINGLE_PARTS.contains(&name.as_str()) {
            violations.push(name);
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(found > 50, "the test does not find the handlers: {found}");
}

#[test]
fn no_rule_knows_a_path_of_the_panel() {
    let routes: BTreeSet<&str> = CORE
        .iter()
        .copied()
        .chain(["login", "profile", "setup", "lizenzserver"])
        .collect();
    for (path, text) in files("src", "rs") {
        let (module, file) = address(&path);
        if !CORE.contains(&module.as_str()) || file != "rules" {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for quoted in code.split('"').skip(1).step_by(2) {
            let first = quoted
                .strip_prefix('/')
                .and_then(|rest| rest.split('/').next());
            let is_path = first.is_some_and(|first| routes.contains(first));
            let name = path.display().to_string();
            let is_listed = RULES_WITH_PATHS.contains(&name.as_str());
            assert!(!is_path || is_listed, "{name} knows the path {quoted}");
        }
    }
}

#[test]
fn black_box_tests_look_into_the_database_by_one_module() {
    for (path, text) in files("tests/black_box", "rs") {
        let name = path.display().to_string();
        let is_helper = name.contains("black_box/database");
        for word in ["rusqlite", "\"select ", "\"insert into ", "\"delete from "] {
            assert!(is_helper || !text.contains(word), "{name} has {word}");
        }
    }
}

#[test]
fn only_memory_is_unsafe() {
    let sources = files("src", "rs");
    let is_unsafe = |text: &str| {
        let code = bare_code(text);
        code.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word == "unsafe" || word == "unsafe_code")
    };
    let with_unsafe = sources.iter().filter(|(_, text)| is_unsafe(text));
    let with_unsafe: Vec<String> = with_unsafe.map(|(path, _)| address(path).0).collect();
    assert_eq!(with_unsafe, ["memory"]);
}

/// The strings in `text` between quotation marks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

/// The names of headers that `code` reads, as literals or as these constants of `security/signing`.
fn headers_read(code: &str) -> BTreeSet<String> {
    let code: String = code.split_whitespace().collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("headers") {
        let call = &code[at + "headers".len()..];
        let call = call.strip_prefix("()").unwrap_or(call);
        let reads = [".get_one(", ".get(", ".contains("];
        let argument = reads.iter().find_map(|read| call.strip_prefix(read));
        let argument = argument.and_then(|rest| rest.split(')').next());
        match argument.and_then(|argument| argument.rsplit("::").next()) {
            Some("NONCE") => drop(found.insert("signature-nonce".to_owned())),
            Some("CONTENT_DIGEST") => drop(found.insert("content-digest".to_owned())),
            Some(argument) => found.extend(quoted(argument).map(str::to_lowercase)),
            None => {}
        }
    }
    found
}

#[test]
fn the_front_passes_on_every_header_that_is_read() {
    let all = files("src", "rs");
    // These read the headers of responses, certificates, and the head itself.
    let others = ["src/front", "src/net", "src/tls", "src/security/pem.rs"];
    let of_rocket = all
        .iter()
        .filter(|(path, _)| !others.iter().any(|other| path.starts_with(other)));
    let mut read: BTreeSet<String> = of_rocket
        .flat_map(|(_, text)| headers_read(&code(text)))
        .collect();
    // Rocket reads it, as the cookies of the request.
    read.insert("cookie".to_owned());
    let (_, rest) = all[Path::new("src/front/forward.rs")]
        .split_once("const READ: ")
        .unwrap();
    let passed_on = quoted(rest.split(';').next().unwrap());
    let passed_on: BTreeSet<String> = passed_on.map(str::to_owned).collect();
    assert_eq!(read, passed_on);
}
