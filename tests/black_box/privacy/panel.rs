//! Export and erasure in the panel, and what the audit log shows of erased entries.

use serde_json::Value;

use super::person::{NAME, WORDS, shop};
use crate::database;
use crate::inspect::running;

#[test]
fn the_page_of_a_customer_downloads_the_data() {
    let (server, _) = shop();
    let mut panel = server.logged_in_browser("admin");
    let page = panel.get("/customers/1").text;
    assert!(
        page.contains("/customers/1/export") && !page.contains("/customers/1/erase"),
        "{page}"
    );
    let file = panel.post("/customers/1/export", &[]);
    let name = file.header("content-disposition").unwrap();
    assert!(
        name.contains("attachment; filename=\"customer-1-"),
        "{name}"
    );
    let document: Value = serde_json::from_str(&file.text).unwrap();
    assert_eq!(document["customer"]["name"], NAME);
    for word in WORDS {
        assert!(file.text.contains(word), "{word}");
    }
    let noted = database::audited(&server, "customers.export").remove(0);
    assert_eq!(
        (noted.actor.as_str(), noted.subject.as_str()),
        ("admin", "1")
    );
}

#[test]
fn an_owner_erases_a_customer_by_typing_the_name() {
    let (server, person) = shop();
    let mut panel = server.logged_in_browser("owner");
    assert_eq!(panel.post("/backups", &[]).status, 303);
    let page = panel.get("/customers/1").text;
    assert!(page.contains("/customers/1/erase"), "{page}");
    let asked = panel.get("/customers/1/erase").text;
    for part in [
        "Permanently erase all data about Quendoline Zzyzx",
        "3 licenses are revoked",
        "data-match",
    ] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    let wrong = panel.post("/customers/1/erase", &[("typed", "Quendoline")]);
    assert_eq!(wrong.status, 422, "{wrong:?}");
    assert!(wrong.text.contains("This is not the name of the customer."));
    assert!(database::audited(&server, "customers.erase").is_empty());
    let erased = panel.post("/customers/1/erase", &[("typed", NAME)]);
    assert_eq!(erased.status, 303, "{erased:?}");
    let page = panel.follow(&erased).text;
    for part in [
        "erased customer 1",
        "Customer data erased.",
        "license-server vacuum",
        "backups/license-server-",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    for part in ["/customers/1/edit", "licenses/new?customer=1"] {
        assert!(!page.contains(part), "{part}: {page}");
    }
    // What licenses collect that were kept is erased again.
    let again = panel.get("/customers/1/erase");
    assert!(again.text.contains("erased customer 1"), "{again:?}");
    let sessions = running(&server);
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!(sessions[0]["license_key"], person.other_key.as_str());
    let list = std::fs::read_to_string(server.path("data/license-server.sqlite3.erased")).unwrap();
    assert_eq!(list.lines().count(), 1, "{list}");
    let audit = panel.get("/audit").text;
    assert!(
        audit.contains("<em>erased</em>") && audit.contains("Erased on"),
        "{audit}"
    );
    assert!(audit.contains("Customer data erased"), "{audit}");
    let table = panel.get("/audit.csv").text;
    assert!(table.contains("\"after\",\"erased\""), "{table}");
    let first = table.lines().last().unwrap();
    assert!(
        first.starts_with("\"1\",") && first.contains("customers.add"),
        "{first}"
    );
    assert!(first.contains("\"\",\"\",\"\",\"20"), "{first}");
}

#[test]
fn an_owner_may_keep_the_licenses_of_an_erased_customer() {
    let (server, person) = shop();
    server.json(&["customer", "add", "Carl"]);
    let mut panel = server.logged_in_browser("owner");
    assert!(
        !panel
            .get("/customers/3/erase")
            .text
            .contains("keep_licenses"),
        "there is none to keep"
    );
    let asked = panel.get("/customers/1/erase").text;
    for part in ["name=\"keep_licenses\"", "Keep the licenses usable"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    let keep = ("keep_licenses", "1");
    let wrong = panel.post("/customers/1/erase", &[("typed", "Quendoline"), keep]);
    assert_eq!(wrong.status, 422, "{wrong:?}");
    let field = wrong.text.split("name=\"keep_licenses\"").nth(1).unwrap();
    assert!(field.split('>').next().unwrap().contains(" checked"));
    let erased = panel.post("/customers/1/erase", &[("typed", NAME), keep]);
    assert_eq!(erased.status, 303, "{erased:?}");
    let license = server.json(&["license", "show", &person.keys[0]]);
    assert_eq!(license["state"], "active", "{license}");
    assert_eq!(license["devices"], Value::Array(Vec::new()), "{license}");
    assert_eq!(license["domain"], WORDS[6], "{license}");
    let audited = database::audited(&server, "customers.erase");
    assert!(audited[0].after.contains(r#""policy":"keep""#));
}
