//! What the README, CONTRIBUTING.md and the list of guarantees must say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{CORE, files, root};

#[test]
fn the_readme_names_the_commands_and_the_files() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for word in [
        "cargo run --release",
        "cargo test",
        "cargo bench",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "license-server.toml",
    ] {
        assert!(readme.contains(word), "{word}");
    }
    let words = readme.split_whitespace().count();
    assert!(words < 900, "the README has {words} words");
}

#[test]
fn every_link_between_documents_leads_to_a_file() {
    for document in [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "tests/README.md",
    ] {
        let path = root().join(document);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            let is_elsewhere = link.is_empty() || link.starts_with("https://");
            let exists = path.parent().unwrap().join(link).exists();
            assert!(is_elsewhere || exists, "{document}: {link}");
        }
    }
}

#[test]
fn the_manual_has_what_operators_and_programs_must_know() {
    let pages = files("assets/manual", "md");
    for word in [
        "data/tls",
        "data/signing",
        "Idempotency-Key",
        "Signature-Nonce",
        "trusted_proxies",
        "X-Forwarded-For",
        "monitor_networks",
        "failregex",
        "check --accept-database",
        "check --accept-clock",
        "customer erase",
        "vacuum",
        "rotate-signing-key",
        "session_policy",
        "litestream restore",
    ] {
        for language in [".en.md", ".de.md"] {
            let mut pages = pages.iter();
            let found = pages.any(|(path, text)| {
                path.to_string_lossy().ends_with(language) && text.contains(word)
            });
            assert!(found, "{word} in {language}");
        }
    }
}

#[test]
fn contributors_find_the_benchmarks_and_every_core_module() {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    assert!(text.contains("cargo bench"));
    for module in CORE {
        assert!(
            text.contains(&format!("`{module}`")),
            "CONTRIBUTING.md does not name the module {module}"
        );
    }
}

/// Every row of guarantees that `tests/README.md` must have, by letter and number.
const ROWS: &[(char, u32)] = &[('N', 8), ('C', 8), ('K', 6), ('P', 11), ('D', 8)];

#[test]
fn every_guarantee_names_tests_that_exist() {
    let table = fs::read_to_string(root().join("tests/README.md")).unwrap();
    let rows: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .flat_map(|(names, rest)| names.split(", ").map(move |name| (name, rest)))
        .collect();
    let mut violations = Vec::new();
    for (letter, count) in ROWS {
        for number in 1..=*count {
            let row = format!("{letter}{number}");
            match rows.get(row.as_str()) {
                Some(tests) if tests.contains("::") => {}
                _ => violations.push(format!("{row} names no test")),
            }
        }
    }
    let sources: Vec<_> = ["src", "tests"]
        .map(|root| files(root, "rs"))
        .into_iter()
        .flatten()
        .collect();
    for named in table.split('`').filter(|piece| piece.contains("::")) {
        let (file, test) = named.split_once("::").unwrap();
        let file = if file.starts_with("src/") {
            file.to_owned()
        } else {
            format!("tests/{file}")
        };
        let exists = sources.iter().any(|(path, text)| {
            let stem = path.with_extension("");
            let same_file = stem == Path::new(&file) || stem == Path::new(&file).join("mod");
            same_file && text.contains(&format!("fn {test}("))
        });
        if !exists {
            violations.push(format!("there is no test {named}"));
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}
