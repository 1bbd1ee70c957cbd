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
