//! The operation `versions` of websites where there are several products.

use serde_json::{Value, json};

use crate::database;
use crate::setup::{FIRST, SECOND, issue_of, two_products};
use crate::sites::{SiteClient, Sites, complete_handshake, start_handshake};
use crate::support::{Server, eventually};

/// A server with two products, of which the second one offers version 2.0.0, that may call `sites`.
pub fn start_two_products(sites: &Sites) -> Server {
    let settings = sites.settings();
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let set = [
        "config",
        "set",
        "current_version=2.0.0",
        "--product",
        SECOND,
    ];
    let no_limit = ["limit", "set", "site", "--per-minute", "0"];
    two_products(&settings, &[&set, &no_limit]).0
}

const CURRENT_OF_FIRST: &str = "1.0.0";
const CURRENT_OF_SECOND: &str = "2.0.0";

#[test]
fn a_site_reads_the_versions_of_the_named_product_or_of_its_oldest_license() {
    let domain = "shop.localhost";
    let sites = Sites::start(&[domain]);
    let server = start_two_products(&sites);
    let site_client = SiteClient::new(&server);
    let current = |details: Value| {
        let read = complete_handshake(&sites, &site_client, domain, "versions", &details);
        read.unwrap()["current_version"].clone()
    };
    let older = issue_of(&server, SECOND, &["--domain", domain]);
    issue_of(&server, FIRST, &["--domain", domain]);
    assert_eq!(current(json!({})), CURRENT_OF_SECOND);
    assert_eq!(current(json!({ "product": null })), CURRENT_OF_SECOND);
    assert_eq!(current(json!({ "product": SECOND })), CURRENT_OF_SECOND);
    assert_eq!(current(json!({ "product": FIRST })), CURRENT_OF_FIRST);
    let entries = database::audited(&server, "handshake.versions");
    assert_eq!(entries.len(), 4);
    assert!(entries.iter().all(|entry| entry.subject == domain));
    server.json(&["license", "suspend", &older]);
    assert_eq!(
        current(json!({})),
        CURRENT_OF_FIRST,
        "of the oldest usable license"
    );
}

#[test]
fn a_product_that_the_domain_has_no_usable_license_of_ends_the_handshake() {
    let domains = ["a.localhost", "b.localhost"];
    let sites = Sites::start(&domains);
    let server = start_two_products(&sites);
    let site_client = SiteClient::new(&server);
    for domain in domains {
        issue_of(&server, FIRST, &["--domain", domain]);
        let suspended = issue_of(&server, SECOND, &["--domain", domain]);
        server.json(&["license", "suspend", &suspended]);
        let own = json!({ "product": FIRST });
        let read = complete_handshake(&sites, &site_client, domain, "versions", &own);
        assert_eq!(read.unwrap()["current_version"], CURRENT_OF_FIRST);
    }
    issue_of(&server, SECOND, &["--domain", "other.localhost"]);
    // A known source may begin six handshakes a minute for a domain.
    eventually("two completed handshakes", || {
        database::handshakes_with_outcome(&server, "delivered") == 2
    });
    let long = "a".repeat(41);
    let refused = [
        json!(SECOND),
        json!("unknown"),
        json!("NOTES"),
        json!(""),
        json!(long),
        json!(1),
        json!([FIRST]),
    ];
    for (number, product) in refused.iter().enumerate() {
        let domain = domains[number % domains.len()];
        let transaction_id = start_handshake(&sites, &site_client, domain, None);
        let with = |product: &Value| json!({ "transaction_id": transaction_id, "operation": "versions", "product": product });
        let sent = site_client.send_transaction(&with(product));
        assert_eq!(sent, 503, "{product}");
        let again = site_client.send_transaction(&with(&json!(FIRST)));
        assert_eq!(again, 503, "{product} ends the handshake");
    }
    assert_eq!(database::audited(&server, "handshake.versions").len(), 2);
}
