//! Archived products: nothing of them is served, changed or sold.

use serde_json::json;

use crate::database;
use crate::handshake::products::start_two_products;
use crate::inspect::{error_of, running};
use crate::setup::{FIRST, SECOND, issue_of, two_products};
use crate::sites::{SiteClient, Sites, complete_handshake, id};
use crate::support::{eventually, identity};

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
        "config show",
        "config set heartbeat_interval=20",
        "config rotate-api-key",
        "release add 1.2.0 --notes new",
        "release list",
        "release yank 1.1.0",
        "flag set dark --off",
        "flag remove dark",
        "flag list",
        "plan add basic --name Basic",
        "plan list",
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
