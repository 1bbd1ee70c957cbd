//! Customers in the panel: add, search, edit, remove, and edit conflicts.

use crate::database;
use crate::support::Server;

#[test]
fn a_customer_is_added_found_and_changed() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let faulty = panel.post("/customers/new", &[("name", ""), ("note", "kept <b>")]);
    assert_eq!(faulty.status, 422);
    assert!(faulty.text.contains("kept &lt;b&gt;") && faulty.text.contains("Please enter a name"));
    let added = panel.post("/customers/new", &[("name", "K\u{e4}the Wei\u{df}")]);
    assert_eq!(added.status, 303, "{added:?}");
    let found = panel.get("/customers?q=wei%C3%9F");
    assert!(
        found
            .text
            .contains("/lizenzserver/customers/1\" class=\"clip\">Käthe Weiß"),
        "{}",
        found.text
    );
    assert!(
        panel
            .get("/customers?q=nobody")
            .text
            .contains("Nothing matches")
    );
}

#[test]
fn an_edit_conflict_of_a_customer_is_reported() {
    let server = Server::start();
    let (mut one, mut other) = (
        server.logged_in_browser("admin"),
        server.logged_in_browser("owner"),
    );
    one.post("/customers/new", &[("name", "Ada")]);
    let seen = |page: &str| {
        let rest = page.split("name=\"seen\" value=\"").nth(1).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let first = seen(&one.get("/customers/1/edit").text);
    let saved = other.post("/customers/1/edit", &[("name", "Ada L."), ("seen", &first)]);
    assert_eq!(saved.status, 303);
    let conflict = one.post(
        "/customers/1/edit",
        &[("name", "Augusta"), ("seen", &first)],
    );
    assert_eq!(conflict.status, 422);
    assert!(
        conflict.text.contains("Someone else changed this") && conflict.text.contains("Augusta")
    );
    assert!(one.get("/customers").text.contains("Ada L."));
    let again = [("name", "Augusta"), ("seen", &*seen(&conflict.text))];
    assert_eq!(one.post("/customers/1/edit", &again).status, 303);
}

#[test]
fn the_page_of_a_customer_shows_the_licenses_and_only_a_customer_without_one_can_be_removed() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    for name in ["Ada", "Bob"] {
        panel.post(
            "/customers/new",
            &[("name", name), ("note", "two\r\nlines")],
        );
    }
    let arguments = ["license", "issue", "--customer", "1", "--count", "22"];
    server.json(&arguments);
    let page = panel.get("/customers/1");
    assert!(page.text.contains("<h1>Ada</h1>"), "{}", page.text);
    assert!(page.text.contains("22 licenses") && page.text.contains("?customer=1\">Show all"));
    assert_eq!(page.text.matches("<th scope=\"row\">").count(), 20);
    assert!(!page.text.contains("/customers/1/remove"));
    let all = panel.get("/licenses?customer=1");
    assert!(all.text.contains("Only licenses for") && all.text.contains("<span>22</span>"));
    let refused = panel.post("/customers/1/remove", &[]);
    assert_eq!(refused.status, 409);
    assert!(refused.text.contains("(22)"), "{}", refused.text);
    let page = panel.get("/customers/2");
    assert!(page.text.contains("This customer has no licenses."));
    assert!(
        panel
            .get("/customers/2/remove")
            .text
            .contains("Remove the customer Bob?")
    );
    assert_eq!(panel.post("/customers/2/remove", &[]).status, 303);
    let gone = panel.get("/customers/2").text;
    assert!(
        gone.contains("erased customer 2") && !gone.contains("Bob"),
        "{gone}"
    );
    let list = panel.get("/customers").text;
    assert!(
        list.contains("Ada") && !list.contains("erased customer"),
        "{list}"
    );
    let audit = panel.get("/audit?room=customers").text;
    for action in ["Customer added", "Customer data erased"] {
        assert!(audit.contains(action), "{action}");
    }
}

#[test]
fn the_page_of_a_customer_links_to_the_email_address() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    server.json(&["customer", "add", "Ada", "--email", "ada@example.org"]);
    let page = panel.get("/customers/1");
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.text.contains("<a href=\"mailto:ada@example.org\">"));
}

/// How many customers `customer list` prints at most.
const LIST_MAX: i64 = 10_000;

#[test]
fn only_a_truncated_list_says_that_it_is_truncated() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    for (count, truncated) in [(LIST_MAX, false), (LIST_MAX + 1, true)] {
        database::fill_customers(&server, count);
        let listed = server.json(&["customer", "list"]);
        let rows = listed["customers"].as_array().unwrap().len();
        assert_eq!(i64::try_from(rows).unwrap(), LIST_MAX);
        assert_eq!(listed["truncated"] == true, truncated, "{count}");
        let message = server.cli(&["customer", "list"]).stderr;
        let message = String::from_utf8(message).unwrap();
        assert_eq!(
            message.contains("only the first 10000"),
            truncated,
            "{message}"
        );
        assert_eq!(message.contains("--search"), truncated, "{message}");
    }
}

#[test]
fn the_csv_of_the_customers_has_those_of_the_list_in_its_order() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    for name in ["Zoe", "\u{c4}rzte", "arm", "=1+1"] {
        server.json(&[
            "customer",
            "add",
            name,
            "--email",
            "a@example.org",
            "--company",
            "Co",
        ]);
    }
    let head =
        "\u{feff}\"id\",\"name\",\"company\",\"email\",\"note\",\"licenses\",\"created_at\"\n";
    let file = panel.get("/customers.csv?order=-name").text;
    let rows = file.strip_prefix(head).unwrap().lines();
    let rows: Vec<&str> = rows
        .map(|row| {
            row.split(",\"Co\",\"a@example.org\",\"\",\"0\",\"2")
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(
        rows,
        [
            "\"1\",\"Zoe\"",
            "\"2\",\"\u{c4}rzte\"",
            "\"3\",\"arm\"",
            "\"4\",\"'=1+1\""
        ],
        "{file}"
    );
    let some = panel.get("/customers.csv?q=arm").text;
    assert!(some.contains("arm") && !some.contains("Zoe"), "{some}");
}
