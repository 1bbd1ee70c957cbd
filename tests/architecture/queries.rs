//! Whether every query is used once, is one statement, and is served by an index.

use crate::files;

/// The views of the database.
const VIEWS: &[&str] = &["license_details", "running_sessions"];

/// Whether a step of a plan reads an array of the caller, or candidates that the search index finds (`M`).
fn is_looked_up(step: &str) -> bool {
    let index = step.split("VIRTUAL TABLE INDEX ").nth(1);
    let plan = index.and_then(|index| index.split_once(':'));
    plan.is_some_and(|(number, plan)| number == "1" || plan.starts_with('M'))
}

#[test]
fn every_query_is_used_once_prepares_and_is_served_by_an_index() {
    let source: String = files("src", "rs").into_values().collect();
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    license_server::db::register_functions(&conn).unwrap();
    for text in files("sql/migrations", "sql").into_values() {
        conn.execute_batch(&text).unwrap();
    }
    let mut violations = Vec::new();
    for (path, text) in files("sql/queries", "sql") {
        let name = path.strip_prefix("sql/queries").unwrap().with_extension("");
        let uses = source
            .matches(&format!("sql!(\"{}\")", name.display()))
            .count();
        if uses != 1 {
            violations.push(format!("{} is used {uses} times", name.display()));
        }
        if !text.starts_with("-- ") {
            violations.push(format!(
                "{} does not begin with its purpose",
                name.display()
            ));
        }
        let statement: String = text
            .lines()
            .filter(|line| !line.starts_with("--"))
            .collect();
        if statement.trim_end().find(';') != Some(statement.trim_end().len() - 1) {
            violations.push(format!("{} is not one statement", name.display()));
        }
        if ["datetime(", "strftime(", "current_timestamp", "unixepoch("]
            .iter()
            .any(|w| text.contains(w))
        {
            violations.push(format!("{} asks for the time", name.display()));
        }
        let mut plan = conn.prepare(&format!("explain query plan {text}")).unwrap();
        let steps: Vec<String> = plan
            .raw_query()
            .mapped(|row| row.get(3))
            .collect::<Result<_, _>>()
            .unwrap();
        let scans = steps.iter().any(|s| {
            s.starts_with("SCAN")
                && !s.contains("USING")
                && !s.contains("CONSTANT")
                && !is_looked_up(s)
        });
        if scans && !text.contains("-- scan ok: ") {
            violations.push(format!("{} scans: {steps:?}", name.display()));
        }
        // A view must become part of the query: otherwise all its rows are made before the first one is found.
        let uses_view = VIEWS.iter().any(|view| statement.contains(view));
        let is_separate =
            |step: &String| step.starts_with("CO-ROUTINE") || step.starts_with("MATERIALIZE");
        if uses_view && steps.iter().any(is_separate) {
            violations.push(format!("{} evaluates a view: {steps:?}", name.display()));
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}
