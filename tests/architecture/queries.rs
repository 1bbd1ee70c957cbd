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
                && !s.starts_with("SCAN (subquery")
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

/// Tables with a row for each license, customer, device, session or refused call.
const LARGE: &[&str] = &[
    "licenses",
    "customers",
    "devices",
    "active_sessions",
    "session_history",
    "refusals",
    "audit_log",
    "license_texts",
    "customer_texts",
    "device_texts",
    "refusal_texts",
    "released_texts",
    "handshakes",
];

/// Queries of the panel's pages, which a shop with a million licenses asks too: those of a module, or those that begin with
/// this.
const PAGES: &[&str] = &[
    "license_lists/",
    "licenses/found_",
    "licenses/page_",
    "licenses/listed",
    "licenses/tally",
    "licenses/customer_tally",
    "licenses/count",
    "licenses/with_text",
    "licenses/of_customers",
    "customers/page_",
    "customers/next_",
    "customers/count",
    "customers/by_id",
    "customers/with_text",
    "devices/with_text",
    "devices/versions",
    "devices/list",
    "search/",
    "refusals/few_",
    "refusals/page_",
    "refusals/count_few",
    "refusals/with_text",
    "refusals/of_licenses",
    "audit/page_of_",
    "audit/count_of_",
    "session_history/newer",
    "session_history/older",
    "session_history/of_reason_",
    "session_history/search_",
    "session_history/count",
    "session_history/licenses",
    "figures/activity",
    "figures/expired",
    "figures/revoked",
    "figures/running",
    "figures/session_counts",
    "sessions/count_stored",
    "sessions/running_on",
];

/// The table that a step of a plan reads from its first row to its last, through an index or not; by the names of the tables
/// in `statement`.
fn scanned<'a>(step: &str, statement: &str, tables: &[&'a str]) -> Option<&'a str> {
    let name = step.strip_prefix("SCAN ")?.split(' ').next()?;
    if is_looked_up(step) {
        return None;
    }
    let is_named = |table: &&str| {
        let alias = format!("{table} {name} ");
        *table == name
            || statement.contains(&alias)
            || statement.contains(&format!("{table} {name}\n"))
    };
    tables.iter().copied().find(|table| is_named(table))
}

#[test]
fn no_page_of_the_panel_reads_a_whole_large_table() {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    license_server::db::register_functions(&conn).unwrap();
    for text in files("sql/migrations", "sql").into_values() {
        conn.execute_batch(&text).unwrap();
    }
    let (mut seen, mut violations) = (0, Vec::new());
    for (path, text) in files("sql/queries", "sql") {
        let name = path.strip_prefix("sql/queries").unwrap().with_extension("");
        let name = name.display().to_string();
        if !PAGES.iter().any(|page| name.starts_with(page)) {
            continue;
        }
        seen += 1;
        let mut plan = conn.prepare(&format!("explain query plan {text}")).unwrap();
        let steps = plan.raw_query().mapped(|row| row.get::<_, String>(3));
        let steps = steps.collect::<Result<Vec<_>, _>>().unwrap();
        let scans = steps.iter().filter_map(|step| scanned(step, &text, LARGE));
        violations.extend(scans.map(|table| format!("{name} reads all {table}: {steps:?}")));
    }
    assert!(seen > 50, "{seen}");
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn a_scan_is_seen_under_any_name_of_its_table() {
    for (step, statement, expected) in [
        ("SCAN licenses", "select 1 from licenses", Some("licenses")),
        (
            "SCAN l",
            "select 1 from licenses l where 1",
            Some("licenses"),
        ),
        (
            "SCAN l USING COVERING INDEX license_taken",
            "select 1\nfrom licenses l\nwhere 1",
            Some("licenses"),
        ),
        ("SCAN p", "select 1 from products p where 1", None),
        (
            "SEARCH l USING INDEX license_taken (taken=?)",
            "select 1 from licenses l where 1",
            None,
        ),
        (
            "SCAN l VIRTUAL TABLE INDEX 0:M1",
            "select 1 from license_texts l where 1",
            None,
        ),
    ] {
        assert_eq!(scanned(step, statement, LARGE), expected, "{step}");
    }
}
