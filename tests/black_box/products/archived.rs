//! Archived products: nothing of them is served, changed or sold.

use serde_json::json;

use crate::browser::field;
use crate::database;
use crate::handshake::products::start_two_products;
use crate::inspect::{error_of, running};
use crate::licenses::panel::licenses;
use crate::setup::{FIRST, SECOND, issue_of, two_products};
use crate::sites::{SiteClient, Sites, complete_handshake, id};
use crate::support::{eventually, identity};
use crate::trials::{OFFER, PLAN};

#[test]
fn an_archived_product_is_not_served() {
    let (server, [first, second]) = two_products(&[], &[]);
    let key = issue_of(&server, SECOND, &[]);
    assert_eq!(
        second.call("activate", &identity(&key, "laptop")).status,
        201
    );
    // A key that was rotated out and is still accepted.
    let rotated = server.json(&["config", "rotate-api-key", "--product", SECOND]);
    let third = second.with_key(rotated["api_key"].as_str().unwrap());
    let version = "/api/license/version?version=1.0.0";
    eventually("the new key", || third.get(version).status == 200);
    assert_eq!(second.get(version).status, 200);

    let archived = server.json(&["product", "archive", SECOND]);
    assert_eq!(archived["products"][0]["slug"], SECOND);
    assert!(archived["products"][0]["archived_at"].is_string());
    for client in [&second, &third] {
        eventually("the refusal", || client.get(version).status == 401);
        for endpoint in ["activate", "verify", "session/start"] {
            let refused = client.call(endpoint, &identity(&key, "laptop"));
            assert_eq!(refused.status_and_code(), (401, "invalid_api_key"));
        }
        // With the key of the other product it is none of its licenses.
        let foreign = first.call("session/start", &identity(&key, "laptop"));
        assert_eq!(foreign.status_and_code(), (404, "license_not_found"));
    }
    assert_eq!(first.get(version).status, 200);
    let entries = database::audited(&server, "products.archive");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].subject, SECOND);
}

#[test]
fn nothing_of_an_archived_product_is_changed_or_sold() {
    let (server, _) = two_products(&[], &[]);
    issue_of(&server, SECOND, &[]);
    server.json(&[
        "release",
        "add",
        "1.1.0",
        "--notes",
        "n",
        "--product",
        SECOND,
    ]);
    server.json(&["flag", "set", "dark", "--on", "--product", SECOND]);
    let text = server.cli(&["product", "archive", SECOND]).stdout;
    assert_eq!(text, b"product ledger archived\n");
    let rows = || {
        let mut rows = database::rows(&server.database());
        rows.retain(|table, _| table != "server_state");
        rows
    };
    let before = rows();
    for command in [
        "config set heartbeat_interval=20",
        "config rotate-api-key",
        "release add 1.2.0 --notes new",
        "release yank 1.1.0",
        "flag set dark --off",
        "flag remove dark",
        "plan add basic --name Basic",
        "plan edit basic --name Other",
        "plan apply basic --yes",
        "plan archive basic",
        "license issue --customer Ada",
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let named = [&arguments[..], &["--product", SECOND]].concat();
        let error = error_of(&server, &named);
        assert!(error.contains("ledger is archived"), "{command}: {error}");
    }
    for command in [
        &["product", "archive", SECOND][..],
        &["product", "rename", SECOND, "Other"],
    ] {
        let error = error_of(&server, command);
        assert!(error.contains("ledger is archived"), "{command:?}: {error}");
    }
    let taken = ["product", "add", "Ledger", "--slug", SECOND];
    assert!(error_of(&server, &taken).contains("short name ledger"));
    assert_eq!(rows(), before);
    // The only one in use needs no name; lists still show both.
    server.json(&["config", "set", "heartbeat_interval=20"]);
    assert_eq!(server.json(&["config", "show"])["product"], FIRST);
    let listed = server.json(&["license", "list", "--product", SECOND]);
    assert_eq!(listed["licenses"][0]["product"], SECOND);
    let next = server.json(&["product", "add", "Ledger"]);
    assert_eq!(next["product"], "ledger-2", "no slug is used twice");
}

#[test]
fn what_an_archived_product_had_can_still_be_read() {
    let (server, _) = two_products(&[], &[]);
    let of_second = |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        server.json(&[&words[..], &["--product", SECOND]].concat())
    };
    of_second("release add 1.1.0 --notes n");
    of_second("flag set dark --on");
    of_second("plan add basic --name Basic");
    let reads = [
        "config show",
        "release list",
        "flag list",
        "plan list",
        "plan show basic",
        "session list",
    ];
    let before = reads.map(of_second);
    server.json(&["product", "archive", SECOND]);
    assert_eq!(reads.map(of_second), before);
}

#[test]
fn a_license_of_an_archived_product_is_only_stopped_and_freed() {
    let (server, [_, second]) = two_products(&[], &[]);
    let (sold, other) = (
        issue_of(&server, SECOND, &["--valid-until", "2090-12-31"]),
        issue_of(&server, SECOND, &["--devices", "2"]),
    );
    for command in [PLAN, OFFER] {
        server.json(&[command, &["--product", SECOND]].concat());
    }
    let device = json!({ "machine_id": "m", "hardware_hash": "h", "version": "1.0.0" });
    let trial = second.call("trial", &device);
    assert_eq!(trial.status, 201, "{trial:?}");
    second.call("activate", &identity(&other, "laptop"));
    server.json(&["product", "archive", SECOND]);
    let mut panel = server.logged_in_browser("admin");
    let id = |key: &str| server.json(&["license", "show", key])["id"].to_string();
    let trial_key = trial.body["license_key"].as_str().unwrap();
    let trial = id(trial_key);
    let edit_page = panel.get(&format!("/licenses/{}/edit", id(&sold))).text;
    let seen = field(&edit_page, "seen");
    let extend_page = panel.get(&format!("/licenses/{}/extend", id(&sold))).text;
    let term_seen = field(&extend_page, "seen");
    let before = licenses(&server);
    for command in [
        &["license", "edit", &sold, "--note", "x"][..],
        &["license", "edit", &sold, "--customer", "Ada"],
        &["license", "extend", &sold, "--days", "3"],
        &["license", "sell", trial_key, "--customer", "Ada"],
        &["license", "extend", &sold, "--until", "2091-12-31"],
    ] {
        let error = error_of(&server, command);
        assert!(error.contains("ledger is archived"), "{command:?}: {error}");
    }
    let sell = format!("/licenses/{trial}/sell");
    let extend = format!("/licenses/{}/extend", id(&sold));
    let edit = format!("/licenses/{}/edit", id(&sold));
    let edited = [
        ("customer", "Ada"),
        ("kind", "full"),
        ("devices", "1"),
        ("valid_from", "2026-01-01"),
        ("valid_until", ""),
        ("note", "x"),
        ("seen", &seen),
    ];
    for (path, fields) in [
        (&sell, &[("customer", "Ada")][..]),
        (&extend, &[("days", "3"), ("seen", &term_seen)]),
        (&edit, &edited),
    ] {
        let refused = panel.post(path, fields);
        assert_eq!(refused.status, 422, "{path}: {}", refused.text);
        assert!(refused.text.contains("ledger is archived"), "{path}");
    }
    assert_eq!(licenses(&server), before);
    // The page says so, and offers none of it.
    for number in [&trial, &id(&sold)] {
        let page = panel.get(&format!("/licenses/{number}")).text;
        assert!(page.contains("Product archived"), "{page}");
        for action in ["edit", "extend", "sell"] {
            let link = format!("/licenses/{number}/{action}\"");
            assert!(!page.contains(&link), "{action}: {page}");
        }
        assert!(page.contains(&format!("/licenses/{number}/suspend\"")));
    }
    server.json(&["license", "suspend", &sold]);
    server.json(&["license", "reinstate", &sold]);
    server.json(&["license", "release-device", &other, "laptop"]);
    server.json(&["license", "revoke", "--yes", &sold]);
    server.json(&["customer", "erase", "1", "--yes"]);
}

#[test]
fn a_product_with_running_sessions_and_the_last_one_cannot_be_archived() {
    let (server, [first, second]) = two_products(&[], &[]);
    let archive = |slug| error_of(&server, &["product", "archive", slug]);
    let keys = [(); 2].map(|()| issue_of(&server, SECOND, &[]));
    first.session(&issue_of(&server, FIRST, &[]), "laptop");
    second.session(&keys[0], "laptop");
    assert!(archive(SECOND).contains("One program of this product is running"));
    second.session(&keys[1], "laptop");
    assert!(archive(SECOND).contains("2 programs of this product are running"));
    for session in running(&server) {
        server.json(&["session", "end", &session["id"].to_string()]);
    }
    server.json(&["product", "archive", SECOND]);
    let error = archive(FIRST);
    assert!(error.contains("the only product in use"), "{error}");
    assert!(archive("unknown").contains("there is no product"));
    let listed = server.json(&["product", "list"]);
    assert!(listed["products"][0]["archived_at"].is_null(), "{listed}");
}

#[test]
fn the_sites_of_an_archived_product_get_the_bare_503() {
    let (domain, other) = ("shop.localhost", "other.localhost");
    let sites = Sites::start(&[domain, other]);
    let server = start_two_products(&sites);
    let site_client = SiteClient::new(&server);
    let bound = issue_of(&server, SECOND, &["--domain", domain]);
    let free = issue_of(&server, SECOND, &[]);
    let request = |key: Option<&str>, domain: &str| {
        let mut body = json!({ "domain": domain, "request_id": id() });
        if let Some(key) = key {
            body["license_key"] = key.into();
        }
        body
    };
    complete_handshake(&sites, &site_client, domain, "versions", &json!({})).unwrap();
    server.json(&["product", "archive", SECOND]);
    for request in [
        request(None, domain),
        request(Some(&bound), domain),
        request(Some(&free), other),
    ] {
        assert_eq!(site_client.send_request(&request), 503, "{request}");
    }
    // A license of a product in use is served on the same domain, and reads nothing of the other one.
    let own = issue_of(&server, FIRST, &["--domain", domain]);
    let with_key = |key: &str| json!({ "license_key": key });
    complete_handshake(&sites, &site_client, domain, "license", &with_key(&own)).unwrap();
    for (operation, details) in [
        ("license", with_key(&bound)),
        ("versions", json!({ "product": SECOND })),
    ] {
        let done = complete_handshake(&sites, &site_client, domain, operation, &details);
        assert_eq!(done, None, "{operation}");
    }
}
