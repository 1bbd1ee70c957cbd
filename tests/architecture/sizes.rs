//! The sizes of files, modules and functions: printed, and held to limits.

use std::collections::BTreeMap;

use crate::source::{Function, bare, bare_code, circles, file_imports, functions};
use crate::{CORE, address, files, is_handler};

/// Lines of a file.
const FILE_LINES_MAX: usize = 600;
/// Lines of a core module without its handlers.
const MODULE_LINES_MAX: usize = 1800;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 40;
const PARAMETERS_MAX: usize = 4;

/// Characters in a line of a template.
const TEMPLATE_LINE_MAX: usize = 160;

/// Larger files, with the lines that each may have. They are to be split; none is to be added.
const LARGER_FILES: &[(&str, usize)] = &[];
/// Larger modules.
const LARGER_MODULES: &[(&str, usize)] = &[];
/// The functions that may have a `bool` parameter.
const BOOL_FUNCTIONS: &[&str] = &[
    // The signature is that of the trait `serde::de::Visitor`.
    "src/web/body.rs: visit_bool",
];
/// The functions that may have more parameters.
const WIDE_FUNCTIONS: &[&str] = &[
    // The signature is that of the trait `rustls::client::danger::ServerCertVerifier`.
    "src/doctor/health.rs: verify_server_cert",
];

/// Lines of each core module without its handlers.
fn module_lines() -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for (path, text) in files("src", "rs") {
        let (module, file) = address(&path);
        if CORE.contains(&module.as_str()) && !is_handler(&file) {
            *lines.entry(module).or_default() += text.lines().count();
        }
    }
    lines
}

/// Every function of the sources, as `src/id.rs: new`.
fn all_functions() -> Vec<(String, Function)> {
    let mut all = Vec::new();
    for (path, text) in files("src", "rs") {
        let found = functions(&bare_code(&text)).into_iter();
        all.extend(
            found.map(|function| (format!("{}: {}", path.display(), function.name), function)),
        );
    }
    all
}

fn limit(table: &[(&str, usize)], name: &str, usual: usize) -> usize {
    let listed = table.iter().find(|(listed, _)| *listed == name);
    listed.map_or(usual, |(_, lines)| *lines)
}

/// The entries of a table that are no longer needed.
fn unneeded<'a>(
    table: &'a [(&str, usize)],
    sizes: &BTreeMap<String, usize>,
    usual: usize,
) -> Vec<&'a str> {
    let names = table.iter().map(|(name, _)| *name);
    names
        .filter(|name| sizes.get(*name).is_none_or(|lines| *lines <= usual))
        .collect()
}

#[test]
fn no_file_and_no_module_is_longer_than_the_limit() {
    let mut sizes = BTreeMap::new();
    for folder in ["src", "tests", "benches"] {
        for (path, text) in files(folder, "rs") {
            sizes.insert(path.display().to_string(), text.lines().count());
        }
    }
    let modules = module_lines();
    let (largest, lines) = sizes.iter().max_by_key(|(_, lines)| **lines).unwrap();
    println!("largest file: {largest} with {lines} lines");
    let (largest, lines) = modules.iter().max_by_key(|(_, lines)| **lines).unwrap();
    println!("largest module without its handlers: {largest} with {lines} lines");
    for (table, sizes, usual) in [
        (LARGER_FILES, &sizes, FILE_LINES_MAX),
        (LARGER_MODULES, &modules, MODULE_LINES_MAX),
    ] {
        println!(
            "may be removed from the table: {:?}",
            unneeded(table, sizes, usual)
        );
        for (name, lines) in sizes {
            let limit = limit(table, name, usual);
            assert!(
                *lines <= limit,
                "{name} has {lines} lines, more than {limit}"
            );
        }
    }
}

#[test]
fn no_function_is_too_long_has_too_many_parameters_or_takes_a_bool() {
    let all = all_functions();
    assert!(all.len() > 1000, "the test does not find the functions");
    let found = |counts: &dyn Fn(&Function) -> bool| -> Vec<&str> {
        let found = all.iter().filter(|(_, function)| counts(function));
        found.map(|(name, _)| name.as_str()).collect()
    };
    let long = found(&|function| function.lines > FUNCTION_LINES_MAX);
    assert!(
        long.is_empty(),
        "over {FUNCTION_LINES_MAX} lines: {long:#?}"
    );
    let wide = found(&|function| function.parameters.len() > PARAMETERS_MAX);
    assert_eq!(wide, WIDE_FUNCTIONS, "over {PARAMETERS_MAX} parameters");
    let with_bool = found(&|function| {
        let mut parameters = function.parameters.iter();
        parameters.any(|parameter| parameter.trim_end().ends_with(": bool"))
    });
    assert_eq!(with_bool, BOOL_FUNCTIONS, "functions with a bool parameter");
}

#[test]
fn no_files_import_each_other_in_circles() {
    let graph = file_imports();
    let found = circles(&graph);
    println!("circles of files: {}", found.len());
    assert!(found.is_empty(), "{found:#?}");
    let edges: usize = graph.values().map(std::collections::BTreeSet::len).sum();
    assert!(edges > 500, "the test does not find the imports");
}

#[test]
fn no_line_of_a_template_is_longer_than_the_limit() {
    for (path, text) in files("assets/templates", "tera") {
        for (number, line) in text.lines().enumerate() {
            let length = line.chars().count();
            let name = path.display();
            assert!(length <= TEMPLATE_LINE_MAX, "{name}:{}", number + 1);
        }
    }
}

#[test]
fn code_is_read_without_comments_strings_and_tests() {
    let text = "fn a<T: Fn(u8) -> u8>(&self, b: (u8, u8), c: &'static str) -> char { // fn x() {}\n '\"' }\n\
                /* fn y() {} */ fn b() { let r = r#\"fn z() { \"quoted\" }\"#; '\\'' }\n#[cfg(test)]\nfn c() {}";
    let found = functions(&bare_code(text));
    let found: Vec<_> = found
        .iter()
        .map(|function| {
            (
                function.name.as_str(),
                function.parameters.len(),
                function.lines,
            )
        })
        .collect();
    assert_eq!(found, [("a", 2, 2), ("b", 0, 1)]);
    assert_eq!(bare("\"a\n\\\"b\" 'c' r\"d\""), "\"\"\n \"\" \"\"");
}
