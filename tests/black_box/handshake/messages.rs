//! The domain handshake: its four messages, its six operations, and invalid requests.

use base64::Engine;
use std::time::{Duration, Instant};

use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};

use crate::database::{self, Handshake};
use crate::setup::UNKNOWN;
use crate::sites::{
    Behavior, CALLBACK, SiteClient, Sites, complete_handshake, id, start_handshake,
};
use crate::support::{Server, eventually, stalls};
use crate::timing::wait_until;

/// Starts a server that may call `sites`, without a rate limit for sites.
pub fn start_server(sites: &Sites) -> Server {
    let settings = sites.settings();
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    crate::setup::started(
        &settings,
        &[
            &["limit", "set", "site", "--per-minute", "0"],
            &["customer", "add", "Ada"],
        ],
    )
}

/// Issues a license, bound to `domain` or to none, and returns its key.
pub fn issue_license(server: &Server, domain: Option<&str>) -> String {
    let mut order = vec!["license", "issue", "--customer", "Ada"];
    order.extend(domain.iter().flat_map(|domain| ["--domain", *domain]));
    let issued = server.json(&order);
    issued["licenses"][0]["license_key"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The domain of a license, and the target of its transfer.
pub fn domains_of(server: &Server, key: &str) -> (Value, Value) {
    let shown = server.json(&["license", "show", key]);
    (shown["domain"].clone(), shown["transfer"]["target"].clone())
}

#[test]
fn every_operation_is_delivered_to_the_domain_that_asked() {
    let (old, new) = ("shop.localhost", "new.localhost");
    let sites = Sites::start(&[old, new]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    server.json(&[
        "release",
        "add",
        "1.1.0",
        "--notes",
        "Faster",
        "--url",
        "https://example.org/1.1.0.zip",
    ]);
    server.json(&[
        "release",
        "add",
        "1.10.0",
        "--notes",
        "Faster still",
        "--channel",
        "beta",
    ]);
    server.json(&["release", "add", "1.9.0", "--notes", "A mistake"]);
    server.json(&["release", "yank", "1.9.0"]);
    server.json(&["config", "set", "current_version=1.10.0"]);
    let key = issue_license(&server, None);
    let with_key = json!({ "license_key": key });

    let registered = complete_handshake(&sites, &site_client, old, "register", &with_key).unwrap();
    assert_eq!(
        (&registered["kind"], &registered["domain"]),
        (&json!("full"), &json!(old))
    );
    assert_eq!(domains_of(&server, &key), (json!(old), Value::Null));

    let information =
        complete_handshake(&sites, &site_client, old, "versions", &json!({})).unwrap();
    assert_eq!(
        (
            &information["current_version"],
            &information["minimum_version"]
        ),
        (&json!("1.10.0"), &json!("0.0.0"))
    );
    let versions: Vec<&Value> = information["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["version"])
        .collect();
    assert_eq!(versions, ["1.10.0", "1.1.0"]);
    let second = &information["versions"][1];
    assert_eq!(second["whats_new"], "Faster");
    assert_eq!(second["download_url"], "https://example.org/1.1.0.zip");
    for name in ["channel", "released_at", "sha256", "size"] {
        assert!(second.get(name).is_some(), "{name}");
    }

    let information = complete_handshake(&sites, &site_client, old, "license", &with_key).unwrap();
    let names: Vec<&String> = information.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "kind",
            "valid_from",
            "valid_until",
            "domain",
            "transfer",
            "plan",
            "features",
            "updates_until"
        ]
    );
    assert_eq!(
        (&information["domain"], &information["transfer"]),
        (&json!(old), &Value::Null)
    );

    let moving = json!({ "license_key": key, "new_domain": "NEW.localhost" });
    let information = complete_handshake(&sites, &site_client, old, "transfer", &moving).unwrap();
    assert_eq!(
        (&information["domain"], &information["transfer"]["target"]),
        (&json!(old), &json!(new))
    );
    assert_eq!(domains_of(&server, &key), (json!(old), json!(new)));
    // Both domains are served now; the new one confirms the transfer.
    for domain in [old, new] {
        assert!(
            complete_handshake(&sites, &site_client, domain, "license", &with_key).is_some(),
            "{domain}"
        );
    }
    complete_handshake(&sites, &site_client, new, "register", &with_key).unwrap();
    let shown = server.json(&["license", "show", &key]);
    assert!(shown["transfer"]["confirmed_at"].is_string(), "{shown}");

    let information =
        complete_handshake(&sites, &site_client, new, "cancel_transfer", &with_key).unwrap();
    assert_eq!(
        (&information["domain"], &information["transfer"]),
        (&json!(old), &Value::Null)
    );
    let freed = json!({ "license_key": key, "domain": old });
    let information = complete_handshake(&sites, &site_client, old, "deregister", &freed).unwrap();
    assert_eq!(information["domain"], Value::Null);
    assert_eq!(domains_of(&server, &key), (Value::Null, Value::Null));
    // The domain is unknown again.
    assert_eq!(
        site_client.send_request(&json!({ "domain": old, "request_id": id() })),
        503
    );
}

#[test]
fn a_site_reads_what_was_sold_with_a_license() {
    let domain = "shop.localhost";
    let sites = Sites::start(&[domain]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    let plan = ["plan", "add", "pro", "--name", "Pro", "--updates-days", "9"];
    let features = ["--feature", "pro", "--feature", "export"];
    server.json(&[&plan[..], &features].concat());
    let read = |sale: &[&str]| {
        let issue = ["license", "issue", "--customer", "Ada", "--domain", domain];
        let sold = server.json(&[&issue[..], sale].concat())["licenses"][0].clone();
        let key = json!({ "license_key": sold["license_key"] });
        let done = complete_handshake(&sites, &site_client, domain, "license", &key);
        (sold, done.unwrap())
    };
    let (sold, read_values) = read(&["--plan", "pro"]);
    assert_eq!(read_values["plan"], "pro");
    assert_eq!(read_values["features"], json!(["export", "pro"]));
    assert!(read_values["updates_until"].is_string(), "{read_values}");
    for name in [
        "plan",
        "features",
        "updates_until",
        "kind",
        "valid_from",
        "valid_until",
    ] {
        assert_eq!(read_values[name], sold[name], "{name}");
    }
    let (_, read_values) = read(&[]);
    let expected = [Value::Null, json!([]), Value::Null];
    assert_eq!(
        ["plan", "features", "updates_until"].map(|name| read_values[name].clone()),
        expected
    );
}

#[test]
fn every_operation_is_in_the_audit_log_and_in_the_handshake_log() {
    let domain = "shop.localhost";
    let sites = Sites::start(&[domain]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    let key = issue_license(&server, Some(domain));
    for operation in ["versions", "license", "register"] {
        complete_handshake(
            &sites,
            &site_client,
            domain,
            operation,
            &json!({ "license_key": key }),
        )
        .unwrap();
        let entries = database::audited(&server, &format!("handshake.{operation}"));
        assert_eq!(entries.len(), 1, "{operation}");
        assert_eq!(entries[0].actor, format!("site {domain}"));
        assert_eq!(entries[0].source, "127.0.0.1");
        assert!(["1", domain].contains(&&*entries[0].subject), "{entries:?}");
        let is_logged = |entry: &Handshake| {
            entry.operation.as_deref() == Some(operation)
                && entry.domain == domain
                && entry.outcome == "delivered"
                && entry.source == "127.0.0.1"
        };
        eventually("the log entry", || {
            database::handshakes(&server)
                .iter()
                .filter(|entry| is_logged(entry))
                .count()
                == 1
        });
    }
    sites.behave(domain, Behavior::Refuses(500));
    let transaction_id = start_handshake(&sites, &site_client, domain, None);
    assert_eq!(
        site_client.send_transaction(
            &json!({ "transaction_id": transaction_id, "operation": "versions" })
        ),
        202
    );
    eventually("the log entry of the failure", || {
        database::handshakes_with_reason(&server, "undelivered", "status_500") == 1
    });
    let deliveries = sites
        .received_messages()
        .iter()
        .filter(|letter| letter.step() == "delivery")
        .count();
    assert_eq!(deliveries, 4, "a failed delivery is not repeated");
    assert!(server.cli(&["check"]).stdout.starts_with(b"ok"));
}

#[test]
fn every_message_to_a_site_is_signed() {
    let domain = "shop.localhost";
    let sites = Sites::start(&[domain]);
    let server = start_server(&sites);
    issue_license(&server, Some(domain));
    complete_handshake(
        &sites,
        &SiteClient::new(&server),
        domain,
        "versions",
        &json!({}),
    )
    .unwrap();
    let shown = server.json(&["config", "show"]);
    let text = |name: &str| shown[name].as_str().unwrap().to_owned();
    let public = STANDARD.decode(text("signing_public_key")).unwrap();
    let letters = sites.received_messages();
    assert_eq!(letters.len(), 2);
    for letter in letters {
        assert_eq!(letter.line, format!("POST {CALLBACK} HTTP/1.1"));
        assert_eq!(letter.header("content-type"), "application/json");
        let digest = ring::digest::digest(&ring::digest::SHA256, letter.text.as_bytes());
        let digest = format!("sha-256=:{}:", STANDARD.encode(digest));
        assert_eq!(letter.header("content-digest"), digest);
        let params = letter
            .header("signature-input")
            .strip_prefix("sig1=")
            .unwrap();
        let begin = "(\"@method\" \"@target-uri\" \"content-digest\");created=";
        let rest = params.strip_prefix(begin).unwrap();
        let created: i64 = rest.split(';').next().unwrap().parse().unwrap();
        assert!((crate::timing::now_ms() / 1000 - created).abs() < 30);
        assert!(
            rest.contains(&format!(
                ";keyid=\"{}\";alg=\"ed25519\"",
                text("signing_key_id")
            )),
            "{rest}"
        );
        let target = format!("https://{domain}:{}{CALLBACK}", sites.port);
        let base = format!(
            "\"@method\": POST\n\"@target-uri\": {target}\n\"content-digest\": {digest}\n\"@signature-params\": {params}"
        );
        let signature = letter
            .header("signature")
            .strip_prefix("sig1=:")
            .unwrap()
            .strip_suffix(':')
            .unwrap();
        let signature = STANDARD.decode(signature).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, &public);
        assert!(
            key.verify(base.as_bytes(), &signature).is_ok(),
            "{letter:?}"
        );
    }
}

#[test]
fn the_challenge_comes_within_a_second_and_the_information_soon_after() {
    let domain = "shop.localhost";
    let sites = Sites::start(&[domain]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    issue_license(&server, Some(domain));
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let asked = Instant::now();
        let transaction_id = start_handshake(&sites, &site_client, domain, None);
        let challenged = sites.received_messages().last().unwrap().at;
        let took = stalls::awake_between(asked, challenged);
        assert!(took < Duration::from_secs(1), "{took:?}");
        let wanted = Instant::now();
        assert_eq!(
            site_client.send_transaction(
                &json!({ "transaction_id": transaction_id, "operation": "versions" })
            ),
            202
        );
        let delivered = sites.wait_for_delivery(&transaction_id).at;
        // The time that the site itself takes in between is not counted.
        quickest = quickest.min((challenged - asked) + (delivered - wanted));
    }
    // Far above the 100 ms of an idle machine.
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    println!("request to information: {quickest:?}");
}

#[test]
fn an_id_is_valid_once_in_its_step_and_for_its_domain() {
    let (domain, other) = ("shop.localhost", "other.localhost");
    let sites = Sites::start(&[domain, other]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    let key = issue_license(&server, Some(domain));
    issue_license(&server, Some(other));
    let versions =
        |transaction_id: &str| json!({ "transaction_id": transaction_id, "operation": "versions" });
    // A third message without a first one, and one with the request id instead of the transaction id.
    assert_eq!(site_client.send_transaction(&versions(&id())), 503);
    let request_id = id();
    sites.expect_challenge(&request_id);
    let request = json!({ "domain": domain, "request_id": request_id });
    assert_eq!(site_client.send_request(&request), 202);
    assert_eq!(site_client.send_transaction(&versions(&request_id)), 503);
    let transaction_id = sites.wait_for_challenge(&request_id);
    // The first message again.
    assert_eq!(
        site_client.send_request(&request),
        503,
        "a request id is valid once"
    );
    assert_eq!(
        site_client.send_transaction(&versions(&transaction_id.to_uppercase())),
        503,
        "ids are lower-case"
    );
    assert_eq!(
        site_client.send_transaction(&versions(&transaction_id)),
        202
    );
    assert_eq!(
        site_client.send_transaction(&versions(&transaction_id)),
        503,
        "a transaction id is valid once"
    );
    sites.wait_for_delivery(&transaction_id);
    assert_eq!(
        site_client.send_transaction(&versions(&transaction_id)),
        503,
        "also after its delivery"
    );
    // An invalid parameter uses up the transaction id.
    for wrong in [
        json!({ "operation": "nonsense" }),
        json!({ "operation": "license", "license_key": UNKNOWN }),
        json!({ "operation": "license" }),
    ] {
        let transaction_id = start_handshake(&sites, &site_client, domain, None);
        let mut body = wrong.clone();
        body["transaction_id"] = transaction_id.clone().into();
        assert_eq!(site_client.send_transaction(&body), 503, "{wrong}");
        let right =
            json!({ "transaction_id": transaction_id, "operation": "license", "license_key": key });
        assert_eq!(
            site_client.send_transaction(&right),
            503,
            "{wrong} used it up"
        );
        assert!(sites.delivered(&transaction_id).is_none());
    }
    // With a stolen transaction id, the delivery still goes to the domain only.
    let transaction_id = start_handshake(&sites, &site_client, other, None);
    let attacker = SiteClient::new(&server);
    assert_eq!(attacker.send_transaction(&versions(&transaction_id)), 202);
    assert_eq!(sites.wait_for_delivery(&transaction_id).host, other);
    let transaction_id = start_handshake(&sites, &site_client, other, None);
    let foreign =
        json!({ "transaction_id": transaction_id, "operation": "license", "license_key": key });
    assert_eq!(
        attacker.send_transaction(&foreign),
        503,
        "the license of another domain"
    );
    eventually("the end of every handshake", || {
        database::count(&server, "handshakes") == 6
    });
    let deliveries = sites
        .received_messages()
        .iter()
        .filter(|letter| letter.step() == "delivery")
        .count();
    assert_eq!(deliveries, 2);
}

#[test]
fn a_site_that_does_not_know_the_request_id_ends_the_handshake() {
    let (domain, attacker) = ("victim.localhost", "attacker.localhost");
    let sites = Sites::start(&[domain, attacker]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    issue_license(&server, Some(domain));
    issue_license(&server, Some(attacker));
    // The attacker names the victim's domain; the victim does not know the request id.
    let request_id = id();
    assert_eq!(
        site_client.send_request(&json!({ "domain": domain, "request_id": request_id })),
        202
    );
    let transaction_id = sites.wait_for_challenge(&request_id);
    eventually("the end of the handshake", || {
        database::handshakes_with_reason(&server, "unanswered", "status_404") == 1
    });
    let body = json!({ "transaction_id": transaction_id, "operation": "versions" });
    assert_eq!(site_client.send_transaction(&body), 503);
    // The attacker sends the third message before the victim rejects the challenge.
    sites.behave(domain, Behavior::Held);
    let request_id = id();
    assert_eq!(
        site_client.send_request(&json!({ "domain": domain, "request_id": request_id })),
        202
    );
    let transaction_id = sites.wait_for_challenge(&request_id);
    let body = json!({ "transaction_id": transaction_id, "operation": "versions" });
    assert_eq!(
        site_client.send_transaction(&body),
        202,
        "the transaction id is valid until the challenge fails"
    );
    sites.behave(domain, Behavior::Honest);
    eventually("the end of the handshake", || {
        database::handshakes_with_outcome(&server, "unanswered") == 2
    });
    assert!(
        sites
            .received_messages()
            .iter()
            .all(|letter| letter.step() == "challenge" && letter.host == domain)
    );
}

#[test]
fn a_transaction_id_expires_after_30_seconds() {
    let domain = "shop.localhost";
    let sites = Sites::start(&[domain]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    issue_license(&server, Some(domain));
    let begun = Instant::now();
    let (early, late) = (
        start_handshake(&sites, &site_client, domain, None),
        start_handshake(&sites, &site_client, domain, None),
    );
    let answered = Instant::now();
    let versions =
        |transaction_id: &str| json!({ "transaction_id": transaction_id, "operation": "versions" });
    wait_until(begun, Duration::from_secs(28));
    let status = site_client.send_transaction(&versions(&early));
    // A machine that stalls at the wrong moment proves nothing about the first one.
    let in_time = begun.elapsed() < Duration::from_secs(30);
    assert!(status == 202 || !in_time, "{status} in time");
    wait_until(answered, Duration::from_secs(31));
    assert_eq!(
        site_client.send_transaction(&versions(&late)),
        503,
        "too late"
    );
    let abandoned = if status == 202 {
        sites.wait_for_delivery(&early);
        1
    } else {
        2
    };
    eventually("the other one to expire", || {
        database::handshakes_with_outcome(&server, "abandoned") == abandoned
    });
    assert!(sites.delivered(&late).is_none());
}
