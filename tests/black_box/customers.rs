//! The panel's customers: added, found, changed, and not overwritten unseen.

use crate::support::Server;

#[test]
fn a_customer_is_added_found_and_changed() {
    let server = Server::start();
    let mut panel = server.panel("admin");
    let faulty = panel.post("/customers/new", &[("name", ""), ("note", "kept <b>")]);
    assert_eq!(faulty.status, 422);
    assert!(faulty.text.contains("kept &lt;b&gt;") && faulty.text.contains("Please enter a name"));
    let added = panel.post("/customers/new", &[("name", "K\u{e4}the Wei\u{df}")]);
    assert_eq!(added.status, 303, "{added:?}");
    let found = panel.get("/customers?q=wei%C3%9F");
    assert!(
        found
            .text
            .contains("/lizenzserver/customers/1\">Käthe Weiß"),
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
fn the_second_of_two_who_edit_the_same_customer_is_told() {
    let server = Server::start();
    let (mut one, mut other) = (server.panel("admin"), server.panel("owner"));
    one.post("/customers/new", &[("name", "Ada")]);
    let seen = |page: &str| {
        let rest = page.split("name=\"seen\" value=\"").nth(1).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let first = seen(&one.get("/customers/1/edit").text);
    let saved = other.post("/customers/1/edit", &[("name", "Ada L."), ("seen", &first)]);
    assert_eq!(saved.status, 303);
    let late = one.post(
        "/customers/1/edit",
        &[("name", "Augusta"), ("seen", &first)],
    );
    assert_eq!(late.status, 422);
    assert!(late.text.contains("Someone else changed this") && late.text.contains("Augusta"));
    assert!(one.get("/customers").text.contains("Ada L."));
    let again = [("name", "Augusta"), ("seen", &*seen(&late.text))];
    assert_eq!(one.post("/customers/1/edit", &again).status, 303);
}

#[test]
fn the_page_of_a_customer_shows_his_licenses_and_he_is_removed_only_without_one() {
    let server = Server::start();
    let mut panel = server.panel("admin");
    for name in ["Ada", "Bob"] {
        panel.post(
            "/customers/new",
            &[("name", name), ("note", "two\r\nlines")],
        );
    }
    let words = ["license", "issue", "--customer", "1", "--count", "22"];
    server.json(&words);
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
    assert_eq!(panel.get("/customers/2").status, 404);
    let audit = panel.get("/audit?room=customers").text;
    for deed in ["Customer added", "Customer removed"] {
        assert!(audit.contains(deed), "{deed}");
    }
}

#[test]
fn the_page_of_a_customer_leads_to_his_mail() {
    let server = Server::start();
    let mut panel = server.panel("support");
    server.json(&["customer", "add", "Ada", "--email", "ada@example.org"]);
    let page = panel.get("/customers/1");
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.text.contains("<a href=\"mailto:ada@example.org\">"));
}

/// Commands list so many customers at most.
const LISTED: i64 = 10_000;

#[test]
fn a_list_that_ends_before_its_end_says_so_and_no_other_does() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    let fill = |count: i64| {
        let conn = rusqlite::Connection::open(server.database()).unwrap();
        let sql = "with recursive n(i) as (select 2 union all select i + 1 from n where i < ?1) \
                   insert or ignore into customers (customer_id, name, created_at_ms) \
                   select i, 'customer ' || i, 0 from n";
        conn.execute(sql, [count]).unwrap();
    };
    for (count, cut) in [(LISTED, false), (LISTED + 1, true)] {
        fill(count);
        let listed = server.json(&["customer", "list"]);
        let rows = listed["customers"].as_array().unwrap().len();
        assert_eq!(i64::try_from(rows).unwrap(), LISTED);
        assert_eq!(listed["truncated"] == true, cut, "{count}");
        let said = server.cli(&["customer", "list"]).stderr;
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said.contains("only the first 10000"), cut, "{said}");
        assert_eq!(said.contains("--search"), cut, "{said}");
    }
}
