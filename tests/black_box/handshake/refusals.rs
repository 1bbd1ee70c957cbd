//! Requests of sites that are refused: all with the same response, and without a call.

use serde_json::{Value, json};

use crate::database;
use crate::handshake::messages::{domains_of, issue_license, start_server};
use crate::setup::UNKNOWN;
use crate::sites::{Behavior, SiteClient, Sites, complete_handshake, id, start_handshake};
use crate::support::eventually;

#[test]
fn every_request_that_is_refused_gets_the_same_response_and_causes_no_call() {
    let names = [
        "known.localhost",
        "expired.localhost",
        "suspended.localhost",
        "unknown.localhost",
        "revoked.localhost",
    ];
    let sites = Sites::start(&names);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    let unbound = issue_license(&server, None);
    let bound = issue_license(&server, Some("elsewhere.localhost"));
    issue_license(&server, Some("known.localhost"));
    let expired = issue_license(&server, Some("expired.localhost"));
    database::expire_license_on(&server, "expired.localhost");
    let suspended = issue_license(&server, Some("suspended.localhost"));
    server.json(&["license", "suspend", &suspended]);
    server.json(&[
        "license",
        "revoke",
        "--yes",
        &issue_license(&server, Some("revoked.localhost")),
    ]);
    let request = |domain: &str| json!({ "domain": domain, "request_id": id() });
    let keyed = |domain: &str, key: &str| json!({ "domain": domain, "request_id": id(), "license_key": key });
    let not_served = site_client.send("/nothing/at/all", b"");
    assert_eq!((not_served.status, not_served.text.as_str()), (503, ""));
    let headers = |response: &crate::support::Response| {
        let mut headers = response.headers.clone();
        headers.retain(|(name, _)| name != "date");
        headers
    };
    let long = format!("{}.localhost", "a".repeat(300));
    for body in [
        request("unknown.localhost"),
        request("expired.localhost"),
        request("suspended.localhost"),
        request("revoked.localhost"),
        request("localhost"),
        request("127.0.0.1"),
        request("127.1"),
        request("known.localhost."),
        request("known.localhost:443"),
        request("known.localhost/x"),
        request("a@known.localhost"),
        request(&long),
        keyed("unknown.localhost", UNKNOWN),
        keyed("unknown.localhost", "nonsense"),
        keyed("unknown.localhost", &bound),
        keyed("unknown.localhost", &expired),
        keyed("known.localhost", UNKNOWN),
        keyed("known.localhost", &bound),
        json!({ "domain": "known.localhost" }),
        json!({ "request_id": id() }),
        json!({ "domain": "known.localhost", "request_id": id().to_uppercase() }),
        json!({ "domain": "known.localhost", "request_id": "1" }),
        json!({ "domain": "known.localhost", "request_id": 1 }),
        json!({ "domain": ["known.localhost"], "request_id": id() }),
        json!({ "domain": "known.localhost", "request_id": id(), "note": "\u{1}" }),
        json!([]),
        json!(null),
    ] {
        let response = site_client.send("/api/site/request", body.to_string().as_bytes());
        assert_eq!(
            (response.status, headers(&response), response.text),
            (503, headers(&not_served), String::new()),
            "{body}"
        );
    }
    let valid = request("known.localhost").to_string();
    for (path, body) in [
        ("/api/site/request", "{"),
        ("/api/site/request", ""),
        (
            "/api/site/request",
            &format!("{valid}{}", " ".repeat(17_000)),
        ),
        (
            "/api/site/request",
            &format!("{}{valid}", &valid[..valid.len() - 1]),
        ),
        ("/api/site/request/", &valid),
        ("/api/site/Request", &valid),
        ("/api/site", &valid),
        ("/api/site/transaction", &valid),
        ("/api/site/transaction", "{}"),
        ("/api/site/transaction", "garbage"),
    ] {
        let response = site_client.send(path, body.as_bytes());
        assert_eq!(
            (response.status, headers(&response), response.text),
            (503, headers(&not_served), String::new()),
            "{path} {body}"
        );
    }
    assert_eq!(server.client().get("/api/site/request").status, 503);
    // An accepted request differs only in the status.
    let response = site_client.send("/api/site/request", valid.as_bytes());
    assert_eq!(
        (response.status, headers(&response), response.text),
        (202, headers(&not_served), String::new())
    );
    eventually("the one call", || sites.received_messages().len() == 1);
    let response = site_client.send(
        "/api/site/request",
        keyed("unknown.localhost", &unbound).to_string().as_bytes(),
    );
    assert_eq!(
        response.status, 202,
        "an unbound license may cause a call to an unknown domain"
    );
    eventually("the second call", || sites.received_messages().len() == 2);
    assert_eq!(sites.connections(), 2, "no other domain was called");
}

#[test]
fn a_domain_without_a_license_may_only_register() {
    let (early, fresh, bound) = ("early.localhost", "fresh.localhost", "bound.localhost");
    let sites = Sites::start(&[early, fresh, bound]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    let (key, other) = (issue_license(&server, None), issue_license(&server, None));
    let taken = issue_license(&server, Some(bound));
    let (third, last) = (issue_license(&server, None), issue_license(&server, None));
    // The second value is the key in the request. To a domain that has not completed a handshake, a license may cause
    // one call per minute, and more only while fewer than three were made.
    for (domain, request_key, body) in [
        (early, &key, json!({ "operation": "versions" })),
        (
            early,
            &key,
            json!({ "operation": "license", "license_key": key }),
        ),
        (
            early,
            &key,
            json!({ "operation": "transfer", "license_key": key, "new_domain": bound }),
        ),
        (
            fresh,
            &other,
            json!({ "operation": "deregister", "license_key": taken, "domain": bound }),
        ),
        (
            fresh,
            &third,
            json!({ "operation": "register", "license_key": key }),
        ),
    ] {
        let mut body = body;
        body["transaction_id"] =
            start_handshake(&sites, &site_client, domain, Some(request_key)).into();
        assert_eq!(site_client.send_transaction(&body), 503, "{body}");
    }
    assert_eq!(domains_of(&server, &taken).0, bound);
    assert_eq!(domains_of(&server, &key).0, Value::Null);
    // The third call to this domain within the minute.
    assert!(
        complete_handshake(
            &sites,
            &site_client,
            fresh,
            "register",
            &json!({ "license_key": last })
        )
        .is_some()
    );
    assert_eq!(domains_of(&server, &last).0, fresh);
}

#[test]
fn a_handshake_that_fails_counts_at_once_among_the_refusals_of_the_day() {
    let sites = Sites::start(&["closed.localhost"]);
    let server = start_server(&sites);
    issue_license(&server, Some("closed.localhost"));
    sites.behave("closed.localhost", Behavior::Status(403));
    let request = json!({ "domain": "closed.localhost", "request_id": id() });
    assert_eq!(SiteClient::new(&server).send_request(&request), 202);
    let mut panel = server.logged_in_browser("support");
    eventually("the handshake is counted", || {
        let page = panel.get("").text;
        page.contains("<code>handshake_unanswered</code>")
    });
    let metrics = server.client().get("/metrics").text;
    let metric = "license_server_refusals_total{code=\"handshake_unanswered\"} 1";
    assert!(metrics.contains(metric), "{metrics}");
}
