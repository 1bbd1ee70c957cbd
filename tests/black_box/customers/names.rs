//! Names of customers: equivalent spellings, and names that several customers have.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::database;
use crate::support::{Server, is_installed};
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
fn the_command_does_not_add_a_second_customer_with_a_name_by_mistake() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada", "--company", "Engines Ltd"]);
    let names_now = || -> Vec<String> {
        let listed = server.json(&["customer", "list"]);
        let listed = names(&listed["customers"]).into_iter();
        listed.map(str::to_owned).collect()
    };
    // Nobody is there to be asked.
    let refused = server.cli(&["customer", "add", " ada"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for text in ["Ada (#1), Engines Ltd, 0 licenses", "--another"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let faulty = server.cli(&["customer", "add", "ada", "--email", "nobody"]);
    let said = String::from_utf8_lossy(&faulty.stderr).into_owned();
    assert!(
        said.contains("name@example.org") && !said.contains("already"),
        "{said}"
    );
    assert_eq!(names_now(), ["Ada"]);
    if is_installed("script") {
        for (typed, done, count) in [
            ("#1", "customer 1 used: Ada", 1),
            ("yes", "nothing was added", 1),
            ("another", "customer 2 added: ADA", 2),
        ] {
            let said = type_at_terminal(&server, "customer add ADA", typed);
            assert!(said.contains("Use this one?"), "{said}");
            assert!(said.contains(done), "{done}: {said}");
            assert_eq!(names_now().len(), count, "{said}");
        }
    }
    server.json(&["customer", "add", "Ada", "--another"]);
    assert!(names_now().len() > 1);
}

/// What a command prints at a terminal at which `line` is typed.
fn type_at_terminal(server: &Server, command: &str, line: &str) -> String {
    let usual = server.command(&[]);
    let mut script = Command::new("script");
    for (name, value) in usual.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    if let Some(folder) = usual.get_current_dir() {
        script.current_dir(folder);
    }
    let command = format!("{} {command}", env!("CARGO_BIN_EXE_license-server"));
    script.args(["-qec", &command, "/dev/null"]);
    let pipes = script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_ambiguous_customer_is_refused_with_the_candidates() {
    let server = Server::start();
    for name in ["2", "Zwei", "Ada", "ADA", "#4", "7"] {
        server.json(&["customer", "add", name, "--another"]);
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
