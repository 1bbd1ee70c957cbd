//! Forms that meet what is there already: a change of somebody else, or a customer of the same name.

use super::forms::{linked_fields, made, marked_fields};
use crate::browser::{Browser, field};
use crate::support::{Response, Server};

#[test]
fn of_two_who_edit_only_what_both_changed_is_a_conflict() {
    let server = Server::start();
    server.json(&[
        "customer",
        "add",
        "Ada",
        "--company",
        "Old",
        "--email",
        "a@example.org",
    ]);
    let (mut one, mut other) = (
        server.logged_in_browser("admin"),
        server.logged_in_browser("owner"),
    );
    let page = one.get("/customers/1/edit").text;
    let fields = |page: &str, name: &'static str, company: &'static str, email: &'static str| {
        [
            ("seen", field(page, "seen")),
            ("was", field(page, "was")),
            ("name", name.to_owned()),
            ("company", company.to_owned()),
            ("email", email.to_owned()),
            ("note", String::new()),
        ]
    };
    let send = |panel: &mut Browser, fields: &[(&str, String)]| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        panel.post("/customers/1/edit", &fields)
    };
    let theirs = fields(&page, "Ada Lovelace", "New", "a@example.org");
    assert_eq!(send(&mut other, &theirs).status, 303);
    // Both changed the name, the other the company, and I the mail address.
    let late = send(&mut one, &fields(&page, "Augusta", "Old", "b@example.org"));
    assert_eq!(late.status, 422);
    assert_eq!(marked_fields(&late.text), ["name"]);
    assert_eq!(linked_fields(&late.text), ["name"]);
    assert!(
        late.text.contains("Saved meanwhile: Ada Lovelace"),
        "{}",
        late.text
    );
    assert_eq!(late.text.matches("Their value is taken over").count(), 1);
    for value in ["Augusta", "New", "b@example.org"] {
        let shown = format!("value=\"{value}\"");
        assert!(late.text.contains(&shown), "{value}: {}", late.text);
    }
    let again = fields(&late.text, "Augusta", "New", "b@example.org");
    assert_eq!(send(&mut one, &again).status, 303);
    let saved = server.json(&["customer", "list"])["customers"][0].clone();
    let saved = ["name", "company", "email"].map(|name| saved[name].as_str().unwrap().to_owned());
    assert_eq!(saved, ["Augusta", "New", "b@example.org"]);
}

#[test]
fn a_name_that_a_customer_has_is_asked_about_wherever_one_is_added() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada", "--company", "Engines Ltd"]);
    let mut panel = server.logged_in_browser("admin");
    let customers = || {
        let listed = server.json(&["customer", "list"]);
        listed["customers"].as_array().unwrap().len()
    };
    let license = |extra: &[(&'static str, &'static str)]| {
        let fields = [
            ("customer", " ada"),
            ("new_customer", "1"),
            ("kind", "full"),
            ("devices", "1"),
            ("count", "1"),
        ];
        [&fields, extra].concat()
    };
    for (path, fields, field) in [
        ("/customers/new", vec![("name", "ADA")], "name"),
        ("/licenses/new", license(&[]), "customer"),
        (
            "/setup/license",
            vec![("name", "Ada"), ("devices", "1")],
            "name",
        ),
    ] {
        let asked = panel.post(path, &fields);
        assert_eq!(asked.status, 422, "{path}");
        assert_eq!(linked_fields(&asked.text), [field], "{path}");
        for text in [
            "Use this one?",
            "Use Ada (#1)",
            "Engines Ltd",
            "value=\"1\" checked",
        ] {
            assert!(asked.text.contains(text), "{path}: {text}: {}", asked.text);
        }
        assert_eq!(customers(), 1, "{path}");
    }
    // The answer stays beside another fault.
    let both = license(&[
        ("asked", "Ada"),
        ("same_name", "another"),
        ("valid_until", "2001-01-01"),
    ]);
    let faulty = panel.post("/licenses/new", &both);
    assert_eq!(linked_fields(&faulty.text), ["valid_until"]);
    assert!(
        faulty.text.contains("value=\"another\" checked"),
        "{}",
        faulty.text
    );
    // This one: nobody is added, and it gets the license.
    let used = panel.post(
        "/customers/new",
        &[("name", "Ada"), ("asked", "ADA"), ("same_name", "1")],
    );
    assert_eq!(made(&used), "/lizenzserver/customers/1");
    assert!(!panel.follow(&used).text.contains("Saved."));
    let issued = panel.post(
        "/licenses/new",
        &license(&[("asked", "Ada"), ("same_name", "1")]),
    );
    assert_eq!(made(&issued), "/lizenzserver/licenses/issued/1/1");
    assert_eq!(customers(), 1);
    // An answer about another name is none.
    let other = panel.post(
        "/customers/new",
        &[("name", "Ada"), ("asked", "Eve"), ("same_name", "another")],
    );
    assert_eq!((other.status, customers()), (422, 1));
    let another = panel.post(
        "/customers/new",
        &[("name", "Ada"), ("asked", "Ada"), ("same_name", "another")],
    );
    assert_eq!(made(&another), "/lizenzserver/customers/2");
    assert_eq!(customers(), 2);
}

/// Two administrators on the same page: what the second one is told, who sends `mine` after the first one has sent `theirs`.
fn late(
    server: &Server,
    (page, path): (&str, &str),
    theirs: &[(&str, &str)],
    mine: &[(&str, &str)],
) -> Response {
    let mut one = server.logged_in_browser_as("ada", "owner");
    let mut other = server.logged_in_browser_as("ada", "owner");
    let text = one.get(page).text;
    let form = text
        .split(&format!("action=\"/lizenzserver{path}\""))
        .nth(1)
        .unwrap();
    let seen = field(form, "seen");
    let was = if form
        .split("</form>")
        .next()
        .unwrap()
        .contains("name=\"was\"")
    {
        field(form, "was")
    } else {
        String::new()
    };
    let send = |panel: &mut Browser, fields: &[(&str, &str)]| {
        let hidden = [("seen", &*seen), ("was", &*was)];
        panel.post(path, &[&hidden, fields].concat())
    };
    let first = send(&mut other, theirs);
    assert_eq!(first.status, 303, "{path}: {}", first.text);
    send(&mut one, mine)
}

#[test]
fn a_name_preferences_an_end_and_a_domain_are_not_overwritten_unseen() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    server.json(&[
        "license",
        "issue",
        "--customer",
        "1",
        "--valid-until",
        "2090-01-01",
    ]);
    server.json(&["config", "set", "client_name=Acme"]);
    let slug = server.json(&["product", "list"])["products"][0]["slug"].clone();
    let rename = format!("/products/{}/rename", slug.as_str().unwrap());
    let renamed = late(
        &server,
        (&rename, &rename),
        &[("name", "Theirs")],
        &[("name", "Mine")],
    );
    assert_eq!(renamed.status, 422);
    assert_eq!(marked_fields(&renamed.text), ["name"]);
    assert!(
        renamed.text.contains("Saved meanwhile: Theirs"),
        "{}",
        renamed.text
    );
    assert!(renamed.text.contains("value=\"Mine\""));
    // Each changed another preference: only what both changed is a conflict.
    let preferences = |language: &'static str, zone: &'static str| {
        [
            ("language", language),
            ("theme", "system"),
            ("time_zone", zone),
            ("single_keys", "1"),
        ]
    };
    let profile = ("/profile", "/profile/taste");
    let merged = late(
        &server,
        profile,
        &preferences("en", "Asia/Tokyo"),
        &preferences("browser", "Europe/Rome"),
    );
    assert_eq!(merged.status, 422, "{}", merged.text);
    assert_eq!(marked_fields(&merged.text), ["time_zone"]);
    assert!(
        merged.text.contains("Saved meanwhile: Asia/Tokyo"),
        "{}",
        merged.text
    );
    for shown in [
        "<option selected>Europe/Rome",
        "<option value=\"en\" selected>",
    ] {
        assert!(merged.text.contains(shown), "{shown}: {}", merged.text);
    }
    // An end that both move; a note that the other changed is no conflict.
    let extend = ("/licenses/1/extend", "/licenses/1/extend");
    let extended = late(&server, extend, &[("days", "10")], &[("days", "20")]);
    assert_eq!(extended.status, 422);
    assert!(
        extended
            .text
            .contains("Someone else has just changed this."),
        "{}",
        extended.text
    );
    assert!(extended.text.contains("value=\"20\""));
    let mut one = server.logged_in_browser_as("ada", "owner");
    let seen = field(&one.get("/licenses/1/extend").text, "seen");
    let edit = one.get("/licenses/1/edit").text;
    let edit_seen = field(&edit, "seen");
    let [valid_from, valid_until] = ["valid_from", "valid_until"].map(|name| {
        let input = edit.split(&format!("id=\"f-{name}\"")).nth(1).unwrap();
        let value = input.split("value=\"").nth(1).unwrap();
        value.split('"').next().unwrap()
    });
    let noted = one.post(
        "/licenses/1/edit",
        &[
            ("seen", &edit_seen),
            ("kind", "full"),
            ("devices", "1"),
            ("valid_from", valid_from),
            ("valid_until", valid_until),
            ("note", "A note"),
        ],
    );
    assert_eq!(noted.status, 303, "{}", noted.text);
    assert_eq!(
        one.post("/licenses/1/extend", &[("seen", &seen), ("days", "5")])
            .status,
        303
    );
    // A domain that both bind.
    let bind = ("/licenses/1/bind", "/licenses/1/bind");
    let bound = late(
        &server,
        bind,
        &[("domain", "theirs.example.org")],
        &[("domain", "mine.example.org")],
    );
    assert_eq!(bound.status, 422);
    for shown in [
        "theirs.example.org",
        "Someone else has just changed this.",
        "value=\"mine.example.org\"",
    ] {
        assert!(bound.text.contains(shown), "{shown}: {}", bound.text);
    }
}
