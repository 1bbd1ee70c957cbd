//! Domains of licenses: the operator's commands, and transfers that end automatically.

use serde_json::{Value, json};

use crate::database;
use crate::handshake::messages::{domains_of, issue_license, start_server};
use crate::sites::{SiteClient, Sites, complete_handshake, id};
use crate::support::{Server, eventually};
use crate::timing::now_ms;

#[test]
fn an_operator_binds_transfers_and_unbinds_a_license() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    let key = issue_license(&server, None);
    let run = |arguments: &[&str]| {
        let output = server.cli(arguments);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for (arguments, expected) in [
        (
            &["license", "free-domain", &key][..],
            "not bound to any domain",
        ),
        (
            &["license", "transfer-domain", &key, "new.example"],
            "not bound to any domain",
        ),
        (
            &["license", "cancel-transfer", &key],
            "not being transferred",
        ),
    ] {
        let (code, text) = run(arguments);
        assert!(code == Some(1) && text.contains(expected), "{text}");
    }
    for wrong in [
        "localhost",
        "192.0.2.1",
        "127.1",
        "a b.example",
        "x.example:80",
    ] {
        assert_eq!(
            run(&["license", "bind-domain", &key, wrong]).0,
            Some(2),
            "{wrong}"
        );
    }
    let bound = server.json(&["license", "bind-domain", &key, "Bücher.example"]);
    assert_eq!(
        bound,
        json!({ "domain": "xn--bcher-kva.example", "transfer": null, "license_key": key })
    );
    let (code, text) = run(&["license", "bind-domain", &key, "other.example"]);
    assert!(code == Some(1) && text.contains("another domain"), "{text}");
    let moving = server.json(&["license", "transfer-domain", &key, "new.example"]);
    assert_eq!(moving["transfer"]["target"], "new.example");
    let days = database::transfer_until_ms(&server) - now_ms();
    assert!((days - 14 * 86_400_000).abs() < 60_000, "{days}");
    let (code, text) = run(&["license", "transfer-domain", &key, "third.example"]);
    assert!(
        code == Some(1) && text.contains("Cancel that transfer first"),
        "{text}"
    );
    assert_eq!(
        domains_of(&server, &key),
        (json!("xn--bcher-kva.example"), json!("new.example"))
    );
    let shown = server.cli(&["license", "show", &key]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("xn--bcher-kva.example, being transferred to new.example"),
        "{shown}"
    );
    server.json(&["license", "cancel-transfer", &key]);
    assert_eq!(
        domains_of(&server, &key),
        (json!("xn--bcher-kva.example"), Value::Null)
    );
    server.json(&["license", "free-domain", &key]);
    assert_eq!(domains_of(&server, &key), (Value::Null, Value::Null));
    let mut actions = database::audited_actions(&server);
    actions.retain(|action| action.starts_with("handshake."));
    let expected = [
        "handshake.bind",
        "handshake.transfer",
        "handshake.cancel_transfer",
        "handshake.free",
    ];
    assert_eq!(actions, expected);
}

#[test]
fn after_the_grace_period_of_a_transfer_only_the_new_domain_is_served() {
    let (old, new) = ("old.localhost", "new.localhost");
    let sites = Sites::start(&[old, new]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    let key = issue_license(&server, Some(old));
    let moving = json!({ "license_key": key, "new_domain": new });
    assert!(complete_handshake(&sites, &site_client, old, "transfer", &moving).is_some());
    database::end_transfers_at(&server, now_ms());
    // At once, even before the job has stored it.
    assert_eq!(
        site_client.send_request(&json!({ "domain": old, "request_id": id() })),
        503
    );
    let information = complete_handshake(
        &sites,
        &site_client,
        new,
        "license",
        &json!({ "license_key": key }),
    )
    .unwrap();
    assert_eq!(
        (&information["domain"], &information["transfer"]),
        (&json!(new), &Value::Null)
    );
    eventually("the job", || {
        domains_of(&server, &key) == (json!(new), Value::Null)
    });
    let back = json!({ "license_key": key });
    assert!(
        complete_handshake(&sites, &site_client, new, "cancel_transfer", &back).is_none(),
        "too late"
    );
}

#[test]
fn a_job_completes_a_transfer_after_its_grace_period() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    let key = issue_license(&server, Some("old.example"));
    server.json(&["license", "transfer-domain", &key, "new.example"]);
    database::end_transfers_at(&server, now_ms());
    // Commands judge a transfer by the time; what the job has done is in the audit log.
    let ended = || database::audited(&server, "handshake.end_transfer");
    eventually("the job", || !ended().is_empty());
    assert_eq!(
        domains_of(&server, &key),
        (json!("new.example"), Value::Null)
    );
    let ended = ended();
    assert!(ended.len() == 1 && ended[0].actor == "server", "{ended:?}");
}

#[test]
fn without_a_server_a_command_counts_a_transfer_after_its_grace_period_as_completed() {
    let mut server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    let key = issue_license(&server, Some("old.example"));
    server.json(&["license", "transfer-domain", &key, "new.example"]);
    assert_eq!(server.stop(), Some(0));
    database::end_transfers_at(&server, now_ms() - 1);
    assert_eq!(
        domains_of(&server, &key),
        (json!("new.example"), Value::Null)
    );
}

#[test]
fn a_domain_may_have_several_licenses_and_a_license_one_domain() {
    let domain = "shop.localhost";
    let sites = Sites::start(&[domain]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    let (first, second) = (
        issue_license(&server, Some(domain)),
        issue_license(&server, None),
    );
    let foreign = issue_license(&server, Some("elsewhere.localhost"));
    assert!(
        complete_handshake(
            &sites,
            &site_client,
            domain,
            "register",
            &json!({ "license_key": second })
        )
        .is_some()
    );
    assert_eq!(
        (
            domains_of(&server, &first).0,
            domains_of(&server, &second).0
        ),
        (json!(domain), json!(domain))
    );
    let request = json!({ "domain": domain, "request_id": id(), "license_key": foreign });
    assert_eq!(
        site_client.send_request(&request),
        503,
        "it is bound to another domain"
    );
    // Any site may unbind a license if it knows the key and the domain of the license.
    let wrong = json!({ "license_key": foreign, "domain": domain });
    assert!(complete_handshake(&sites, &site_client, domain, "deregister", &wrong).is_none());
    let right = json!({ "license_key": foreign, "domain": "elsewhere.localhost" });
    assert!(complete_handshake(&sites, &site_client, domain, "deregister", &right).is_some());
    assert_eq!(domains_of(&server, &foreign).0, Value::Null);
    // One license in use is enough for the domain, even if the other one is suspended.
    server.json(&["license", "suspend", &first]);
    assert!(
        complete_handshake(
            &sites,
            &site_client,
            domain,
            "license",
            &json!({ "license_key": second })
        )
        .is_some()
    );
    assert!(
        complete_handshake(
            &sites,
            &site_client,
            domain,
            "license",
            &json!({ "license_key": first })
        )
        .is_none()
    );
}

#[test]
fn unbinding_a_license_cancels_its_transfer() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    let key = issue_license(&server, Some("old.example"));
    server.json(&["license", "transfer-domain", &key, "new.example"]);
    let output = server.cli(&["license", "free-domain", &key]);
    assert!(output.status.success());
    assert_eq!(domains_of(&server, &key), (Value::Null, Value::Null));
}
