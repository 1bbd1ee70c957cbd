//! Names of customers: equivalent spellings, and names that several customers have.

use serde_json::Value;

use crate::database;
use crate::support::Server;
use crate::web::text::{COMPOSED, DECOMPOSED, names, percent_encode};

#[test]
fn a_name_is_stored_in_normal_form_and_found_in_every_spelling() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    server.json(&[
        "customer",
        "add",
        DECOMPOSED,
        "--note",
        "aus Ko\u{308}ln",
        "--company",
        "Wei\u{df}",
    ]);
    panel.post(
        "/customers/new",
        &[
            ("name", "\u{feff}Stra\u{df}e\u{a0}"),
            ("note", "Ko\u{308}ln"),
        ],
    );
    let stored = database::customer_names(&server.database());
    assert_eq!(stored[..2], [COMPOSED, "Stra\u{df}e"]);
    for (search, found) in [
        ("m\u{fc}ller", COMPOSED),
        ("mu\u{308}ller", COMPOSED),
        ("M\u{dc}LLER", COMPOSED),
        ("weiss", COMPOSED),
        ("WEI\u{1e9e}", COMPOSED),
        ("strasse", "Stra\u{df}e"),
        ("STRASSE", "Stra\u{df}e"),
    ] {
        let listed = server.json(&["customer", "list", "--search", search]);
        assert_eq!(names(&listed["customers"]), [found], "{search}");
        let page = panel
            .get(&format!("/customers?q={}", percent_encode(search)))
            .text;
        assert_eq!(page.matches("<th scope=\"row\">").count(), 1, "{search}");
    }
    let both = server.json(&["customer", "list", "--search", "k\u{f6}ln"]);
    assert_eq!(names(&both["customers"]).len(), 2);
    for name in [COMPOSED, DECOMPOSED, "M\u{dc}LLER GMBH"] {
        server.json(&[
            "license",
            "issue",
            "--customer",
            name,
            "--domain",
            "B\u{fc}cher.example",
        ]);
    }
    // A row that was not written by the server is found as well.
    database::rename_first_customer(&server, DECOMPOSED);
    for search in [
        "m\u{fc}ller",
        "b\u{fc}ch",
        "xn--bcher-kva",
        "BU\u{308}CHER.example",
    ] {
        let listed = server.json(&["license", "list", "--search", search]);
        assert_eq!(
            listed["licenses"].as_array().map(Vec::len),
            Some(3),
            "{search}"
        );
        for path in ["/licenses", "/sites"] {
            let page = panel
                .get(&format!("{path}?q={}", percent_encode(search)))
                .text;
            assert_eq!(
                page.matches("<th scope=\"row\">").count(),
                3,
                "{path} {search}"
            );
        }
    }
    server.json(&["license", "issue", "--customer", COMPOSED]);
    let key = server.json(&["license", "list"])["licenses"][0]["license_key"].clone();
    let client = server.client();
    client.session(key.as_str().unwrap(), "Bu\u{308}ro");
    let running = server.json(&["session", "list"]);
    assert_eq!(running["sessions"][0]["machine_id"], "B\u{fc}ro");
    let page = panel
        .get(&format!("/sessions?q={}", percent_encode("b\u{fc}ro")))
        .text;
    assert!(page.contains("B\u{fc}ro"), "{page}");
    let id = running["sessions"][0]["id"].to_string();
    server.json(&["session", "end", &id]);
    for (customer, found) in [
        ("mu\u{308}ller", true),
        ("M\u{dc}LLER", true),
        ("meier", false),
    ] {
        let customer = percent_encode(customer);
        let history = panel.get(&format!("/sessions/history?customer={customer}"));
        assert_eq!(history.status, 200);
        assert_eq!(
            history.text.contains("B\u{fc}ro"),
            found,
            "{customer}: {}",
            history.text
        );
    }
}

#[test]
fn an_ambiguous_customer_is_refused_with_the_candidates() {
    let server = Server::start();
    for name in ["2", "Zwei", "Ada", "ADA", "#4", "7"] {
        server.json(&["customer", "add", name]);
    }
    let issue = |customer: &str| {
        let output = server.cli(&["--json", "license", "issue", "--customer", customer]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let issued: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (
            output.status.code(),
            stderr,
            issued["licenses"][0]["customer_id"].as_i64(),
        )
    };
    for (customer, id) in [
        ("1", 1),
        ("#1", 1),
        ("#2", 2),
        ("Zwei", 2),
        ("Zwei (#2)", 2),
        ("2 (#1)", 1),
        // Two names that differ in case only: the exact match.
        ("Ada", 3),
        ("ADA", 4),
        ("7", 6),
        ("Ada (#3)", 3),
        ("#4 (#5)", 5),
    ] {
        let (status, stderr, issued) = issue(customer);
        assert_eq!(
            (status, issued),
            (Some(0), Some(id)),
            "{customer}: {stderr}"
        );
    }
    for (customer, status, hint) in [
        ("2", 2, "Zwei (#2), 2 (#1)"),
        ("#4", 2, "ADA (#4), #4 (#5)"),
        ("ada", 2, "3, 4"),
        ("Ada (#2)", 1, "customer list"),
        ("02", 1, "customer list"),
    ] {
        let (code, stderr, issued) = issue(customer);
        assert_eq!((code, issued), (Some(status), None), "{customer}: {stderr}");
        assert!(
            stderr.contains(hint) && stderr.trim_end().lines().count() == 1,
            "{stderr}"
        );
    }
    for (id, status) in [("2", Some(0)), ("99", Some(1)), ("x", Some(2))] {
        let output = server.cli(&["license", "issue", "--customer-id", id]);
        assert_eq!(output.status.code(), status, "{id}");
    }
    let mut panel = server.logged_in_browser("admin");
    let order = |customer| {
        [
            ("customer", customer),
            ("kind", "full"),
            ("devices", "1"),
            ("count", "1"),
        ]
    };
    let refused = panel.post("/licenses/new", &order("2"));
    assert!(
        refused.status == 422 && refused.text.contains("Zwei (#2), 2 (#1)"),
        "{}",
        refused.text
    );
    assert_eq!(panel.post("/licenses/new", &order("2 (#1)")).status, 303);
}
