//! Handshakes for a domain that no license is bound to belong to the customer whose license the request named.

use std::time::Duration;

use serde_json::json;

use super::person::{Person, shop_with};
use crate::database;
use crate::sites::{Behavior, SiteClient, Sites, id};
use crate::support::{Server, eventually};

const DOMAINS: [&str; 2] = ["zzyzx-new.localhost", "zzyzx-slow.localhost"];
const ADDRESSES: [&str; 2] = ["203.0.113.80", "203.0.113.81"];

fn shop_of(sites: &Sites) -> (Server, Person) {
    let settings = sites.settings();
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    shop_with(&settings)
}

/// Asks for a call to an unbound domain with the key of a license.
fn request(server: &Server, key: &str, number: usize) {
    let body = json!({ "domain": DOMAINS[number], "request_id": id(), "license_key": key });
    let site = SiteClient::new(server).from(ADDRESSES[number]);
    assert_eq!(site.send_request(&body), 202);
}

#[test]
fn a_handshake_for_an_unbound_domain_is_exported_and_erased_also_while_it_is_open() {
    let sites = Sites::start(&DOMAINS);
    let (server, person) = shop_of(&sites);
    request(&server, &person.keys[1], 0);
    eventually("the end of the handshake", || {
        database::handshakes_with_outcome(&server, "unanswered") == 1
    });
    let exported = server.json(&["customer", "export", "1"]).to_string();
    assert!(
        exported.contains(DOMAINS[0]) && exported.contains(ADDRESSES[0]),
        "{exported}"
    );
    let other = server.json(&["customer", "export", "2"]).to_string();
    assert!(!other.contains(ADDRESSES[0]), "{other}");
    sites.behave(DOMAINS[1], Behavior::Held);
    request(&server, &person.keys[2], 1);
    server.json(&["customer", "erase", "1", "--yes"]);
    sites.behave(DOMAINS[1], Behavior::Honest);
    // What would be stored of its end is stored by then, and the test could only miss it otherwise.
    std::thread::sleep(Duration::from_secs(2));
    let left = format!("{:?}", database::rows(&server.database()));
    for word in DOMAINS.iter().chain(&ADDRESSES) {
        assert!(!left.contains(word), "{word} in {left}");
    }
}
