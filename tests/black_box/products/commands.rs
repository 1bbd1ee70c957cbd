//! The commands `product …`, and the option `--product` of the others.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::database;
use crate::inspect::error_of;
use crate::setup::{FIRST, SECOND, issue_of, two_products};
use crate::support::{Server, identity};

/// What a command prints for people.
fn text_of(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The error of a command that is used wrongly.
fn wrong_usage(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    error
}

/// Programs tell their product by its name, which is all that a lease says of it.
fn a_name_is_not_used_twice(server: &Server) {
    for command in [
        &["product", "add", "LEDGER 2"][..],
        &["product", "rename", "mueller-soehne", "Ledger 2"],
        &["product", "rename", "mueller-soehne", "Ｌｅｄｇｅｒ 2"],
        &[
            "config",
            "set",
            "client_name=ledger 2",
            "--product=my-program",
        ],
    ] {
        let error = error_of(server, command);
        assert!(error.contains("Another product is named"), "{error}");
    }
    server.json(&["product", "rename", "l2", "LEDGER 2"]);
}

fn slugs(server: &Server) -> Vec<String> {
    let listed = server.json(&["product", "list"]);
    let products = listed["products"].as_array().unwrap().iter();
    products
        .map(|product| product["slug"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_command_asks_before_programs_on_devices_are_refused() {
    let server = Server::start();
    let key = server.issue_license(2);
    server.json(&[
        "config",
        "set",
        "current_version=3.0.0",
        "minimum_version=0.1.0",
    ]);
    for device in ["laptop", "desktop"] {
        server.client().call("activate", &identity(&key, device));
    }
    let raise = ["config", "set", "minimum_version=2.0.0"];
    let answered = |answer: &str| {
        let mut command = server.command(&raise);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(answer.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), said)
    };
    let minimum = || server.json(&["config", "show"])["minimum_version"].clone();
    for answer in ["", "yes\n", "1.9.0\n"] {
        let (saved, said) = answered(answer);
        assert!(!saved, "{answer}: {said}");
        assert!(
            said.contains("2 devices last ran a version older than 2.0.0"),
            "{said}"
        );
    }
    assert_eq!(minimum(), "0.1.0");
    assert!(answered("2.0.0\n").0);
    assert_eq!(minimum(), "2.0.0");
    server.json(&["config", "set", "--yes", "minimum_version=2.1.0"]);
    assert_eq!(minimum(), "2.1.0");
    // A lower one refuses nothing.
    server.json(&["config", "set", "minimum_version=1.0.0"]);
    assert_eq!(minimum(), "1.0.0");
}

#[test]
fn a_product_is_added_renamed_and_listed_by_commands() {
    let server = Server::prepare(&[]);
    // The first command creates the database, with the first product.
    let added = server.json(&["product", "add", " Müller & Söhne  "]);
    assert_eq!(added["product"], "mueller-soehne");
    assert_eq!(added["client_name"], "Müller & Söhne");
    assert!(added["api_key"].as_str().unwrap().starts_with("lsk_"));
    let first = server.json(&["config", "show", "--product", "my-program"]);
    assert_ne!(added["api_key"], first["api_key"]);
    let again = server.json(&["product", "add", "Müller Söhne"]);
    assert_eq!(again["product"], "mueller-soehne-2");
    let shown = text_of(&server, &["product", "add", "Ledger", "--slug", "l2"]);
    assert!(shown.contains("lsk_") && shown.contains("l2"), "{shown}");
    let order = ["my-program", "mueller-soehne", "mueller-soehne-2", "l2"];
    assert_eq!(slugs(&server), order);

    for wrong in ["", "-a", "A", "a_b", "a b", "ü", &"a".repeat(41)] {
        let slug = format!("--slug={wrong}");
        let error = wrong_usage(&server, &["product", "add", "Other", &slug]);
        assert!(error.contains("a-z, 0-9"), "{error}");
    }
    for wrong in ["", " ", "a\tb", &"a".repeat(101)] {
        for command in [&["product", "add"][..], &["product", "rename", "l2"]] {
            let error = wrong_usage(&server, &[command, &[wrong]].concat());
            assert!(error.contains("name: must be 1..100"), "{error}");
        }
    }
    let error = error_of(&server, &["product", "add", "Other", "--slug", "l2"]);
    assert!(error.contains("short name l2"), "{error}");
    assert_eq!(slugs(&server), order, "nothing was added");

    let renamed = text_of(&server, &["product", "rename", "l2", "Ledger 2"]);
    assert_eq!(renamed, "product l2 is named Ledger 2\n");
    let listed = server.json(&["product", "list"]);
    let expected = json!({ "slug": "l2", "name": "Ledger 2", "archived_at": null });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&listed["products"][3][member], value);
    }
    // The same name again is no change.
    server.json(&["product", "rename", "l2", "Ledger 2"]);
    let entries = database::audited(&server, "products.rename");
    let [entry] = &entries[..] else {
        panic!("{entries:?}");
    };
    assert_eq!(entry.subject, "l2");
    assert_eq!(database::audited(&server, "products.add").len(), 3);
    let missing = error_of(&server, &["product", "rename", "l3", "Ledger 3"]);
    assert!(missing.contains("product list"), "{missing}");
    a_name_is_not_used_twice(&server);
}

#[test]
fn the_slug_of_the_first_product_follows_the_first_name_that_somebody_chose() {
    let server = Server::prepare(&[]);
    server.json(&["config", "set", "client_name=Notes"]);
    assert_eq!(slugs(&server), ["notes"]);
    server.json(&["config", "set", "client_name=Notes Pro"]);
    server.json(&["product", "rename", "notes", "Notes Max"]);
    assert_eq!(slugs(&server), ["notes"], "it never changes");
    let shown = server.json(&["config", "show"]);
    assert_eq!(shown["client_name"], "Notes Max");
}

#[test]
fn the_slug_that_the_first_product_was_served_by_is_given_to_no_other() {
    let server = Server::prepare(&[]);
    server.json(&["config", "set", "client_name=Foo"]);
    assert_eq!(slugs(&server), ["foo"]);
    let error = error_of(&server, &["product", "add", "Old", "--slug", "my-program"]);
    assert!(error.contains("short name my-program"), "{error}");
    let named = server.json(&["product", "add", "My program"]);
    assert_eq!(named["product"], "my-program-2");
    // Only the first one may have it.
    let server = Server::prepare(&[]);
    server.json(&["config", "set", "client_name=My Program"]);
    assert_eq!(slugs(&server), ["my-program"]);
}

/// Commands that need a product, each with arguments that fit it.
const OF_ONE_PRODUCT: &[&str] = &[
    "config show",
    "config set heartbeat_interval=20",
    "release add 1.1.0 --notes new",
    "release list",
    "release yank 1.1.0",
    "flag set dark --on",
    "flag list",
    "flag remove dark",
    "plan add basic --name Basic",
    "plan list",
    "license issue --customer Ada --plan basic",
    "config rotate-api-key",
];

#[test]
fn a_product_is_named_only_where_there_are_several() {
    let server = Server::prepare(&[]);
    server.json(&["config", "set", "client_name=Notes"]);
    server.json(&["customer", "add", "Ada"]);
    for command in OF_ONE_PRODUCT {
        let arguments: Vec<&str> = command.split(' ').collect();
        let text = text_of(&server, &arguments);
        let text = text.to_lowercase();
        assert!(!text.contains("product"), "{command}: {text}");
    }
    // It may be named, before the rest of the command and after it.
    for named in [
        ["config", "--product", FIRST, "show"],
        ["config", "show", "--product", FIRST],
    ] {
        assert_eq!(server.json(&named)["product"], FIRST);
    }
}

#[test]
fn where_there_are_several_the_error_names_them() {
    let (server, _) = two_products(&[], &[]);
    for command in OF_ONE_PRODUCT {
        let arguments: Vec<&str> = command.split(' ').collect();
        let error = wrong_usage(&server, &arguments);
        assert!(error.contains("--product notes|ledger"), "{error}");
        let named = [&arguments[..], &["--product", SECOND]].concat();
        let document = server.json(&named);
        let product = match arguments[0] {
            "license" => &document["licenses"][0]["product"],
            _ if document.get("product").is_none() => continue,
            _ => &document["product"],
        };
        assert_eq!(product, SECOND, "{command}");
        let unknown = [&arguments[..], &["--product", "unknown"]].concat();
        let error = error_of(&server, &unknown);
        assert!(error.contains("there is no product \"unknown\""), "{error}");
    }
    // Nothing of it concerned the first product.
    let shown = server.json(&["config", "show", "--product", FIRST]);
    assert_eq!(shown["heartbeat_interval"], 30);
    // The signing keys are those of the server.
    let rotated = server.json(&["config", "rotate-signing-key"]);
    assert!(rotated["signing_key_id"].is_string() && rotated["api_key"].is_null());
}

#[test]
fn lists_show_all_products_or_the_named_one() {
    let (server, [first, second]) = two_products(&[], &[]);
    let keys = [FIRST, SECOND].map(|product| issue_of(&server, product, &[]));
    first.session(&keys[0], "laptop");
    second.session(&keys[1], "laptop");
    for (command, member) in [("license", "licenses"), ("session", "sessions")] {
        let list = [command, "list"];
        let products = |more: &[&str]| -> Vec<Value> {
            let listed = server.json(&[&list, more].concat());
            let rows = listed[member].as_array().unwrap().iter();
            rows.map(|row| row["product"].clone()).collect()
        };
        assert_eq!(products(&[]), [SECOND, FIRST], "the newest first");
        for product in [FIRST, SECOND] {
            assert_eq!(products(&["--product", product]), [product]);
        }
        let text = text_of(&server, &list);
        let head = text.lines().next().unwrap();
        assert!(head.ends_with("PRODUCT"), "{text}");
        assert!(text.contains(FIRST) && text.contains(SECOND), "{text}");
        let unknown = [command, "list", "--product", "unknown"];
        assert!(error_of(&server, &unknown).contains("product list"));
    }
    let shown = text_of(&server, &["license", "show", &keys[1]]);
    assert!(shown.contains(SECOND), "{shown}");
}

#[test]
fn one_product_has_no_column_of_its_own() {
    let server = Server::start();
    let key = server.issue_license(1);
    server.client().session(&key, "laptop");
    for command in [
        &["license", "list"][..],
        &["license", "show", &key],
        &["session", "list"],
        &["session", "history"],
    ] {
        let text = text_of(&server, command).to_lowercase();
        assert!(!text.contains("product"), "{command:?}: {text}");
        assert!(!text.contains("my-program"), "{command:?}: {text}");
    }
    let listed = server.json(&["license", "list"]);
    assert_eq!(listed["licenses"][0]["product"], "my-program");
}
