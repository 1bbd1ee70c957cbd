//! What a shop with one product sends to its programs and sites, compared with a recording of the version before there
//! were several products: every call of the client API, every refusal that a test can cause, and every message of the
//! handshake. `tests/fixtures/README.md` says how the recording was made.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::database::{self, OtherProgram};
use crate::recording::{Exchange, assert_same_but_for_additions, from_text, to_text};
use crate::setup::{NO_LIMIT, NO_SWEEP, ONE_A_MINUTE, UNKNOWN};
use crate::sites::{ReceivedMessage, Sites, id};
use crate::support::{Server, eventually, heartbeat_body, identity};
use crate::wire;

/// The executable with which a new recording is made.
const RECORD: &str = "LICENSE_TEST_RECORD";
const OLD: &str = "shop.localhost";
const NEW: &str = "new.localhost";

/// The members that answers have gained since the recording.
const ADDED: &[&str] = &[
    // What was sold with a license.
    "information.features",
    "information.plan",
    "information.updates_until",
    "lease.claims.features",
    "lease.claims.plan",
    "lease.claims.updates_until",
    "license.features",
    "license.plan",
    "license.updates_until",
    "renewal_version",
    "version.renewal_version",
    // A verification has the members of its refusal.
    "current_version",
    "download_url",
    "minimum_version",
    "valid_from",
    "valid_until",
];

fn recording() -> PathBuf {
    let folder = env!("CARGO_MANIFEST_DIR");
    PathBuf::from(folder).join("tests/fixtures/wire/before_products.txt")
}

/// A server, and what it has sent.
struct Recorder {
    server: Server,
    exchanges: Vec<Exchange>,
}

impl Recorder {
    /// Prepares a server, of the executable that is to be recorded if there is one.
    fn prepare(settings: &[(&str, &str)]) -> Self {
        let mut server = Server::prepare(settings);
        if let Ok(executable) = std::env::var(RECORD) {
            let script = format!("exec '{executable}' \"$@\"");
            server.set_launcher(&["/bin/sh", "-c", &script]);
        }
        Self {
            server,
            exchanges: Vec::new(),
        }
    }

    /// Sends a request on a new connection, and records the response under `title`; its body.
    fn send(&mut self, title: &str, line: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut request = format!("{line} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        if line.starts_with("POST") {
            write!(request, "content-length: {}\r\n", body.len()).unwrap();
        }
        write!(request, "\r\n{body}").unwrap();
        let response = wire::exchange(&mut wire::tls(&self.server), request.as_bytes());
        let response = response.unwrap_or_else(|| panic!("{title}: no response"));
        let title = format!("{line}: {title}");
        let status = response.status.to_string();
        let exchange = Exchange::new(&title, &status, &response.headers, &response.body);
        self.exchanges.push(exchange);
        response.body
    }

    /// Calls an endpoint of the client API; the body of the response as JSON.
    fn call(&mut self, title: &str, endpoint: &str, body: &Value) -> Value {
        self.call_with(title, endpoint, body, &[])
    }

    /// The same with more headers.
    fn call_with(
        &mut self,
        title: &str,
        endpoint: &str,
        body: &Value,
        more: &[(&str, &str)],
    ) -> Value {
        let api_key = self.server.api_key().to_owned();
        let mut headers = vec![
            ("x-api-key", api_key.as_str()),
            ("content-type", "application/json"),
        ];
        headers.extend(more);
        let line = format!("POST /api/license/{endpoint}");
        let body = self.send(title, &line, &headers, &body.to_string());
        serde_json::from_str(&body).unwrap_or_default()
    }

    /// `GET` with the API key.
    fn get(&mut self, title: &str, path: &str, more: &[(&str, &str)]) {
        let api_key = self.server.api_key().to_owned();
        let mut headers = vec![("x-api-key", api_key.as_str())];
        headers.extend(more);
        self.send(title, &format!("GET {path}"), &headers, "");
    }

    /// Records what a site has received.
    fn received(&mut self, title: &str, message: &ReceivedMessage) {
        let headers = message.headers.as_slice();
        let exchange = Exchange::new(title, &message.line, headers, &message.text);
        self.exchanges.push(exchange);
    }
}

/// The keys of the licenses, by what they show.
struct Keys {
    /// Two slots.
    free: String,
    /// One slot.
    single: String,
    suspended: String,
    later: String,
    expired: String,
    trial: String,
}

/// A shop with one product, releases, flags and licenses in every state.
fn fill(server: &Server) -> Keys {
    for (version, notes) in [("1.0.0", "The first"), ("1.2.0", "Faster\nand nicer")] {
        let url = format!("https://example.org/program-{version}.zip");
        server.json(&["release", "add", version, "--notes", notes, "--url", &url]);
    }
    server.json(&[
        "config",
        "set",
        "client_name=Größe 3",
        "current_version=1.2.0",
        "minimum_version=0.5.0",
        "offline_days=7",
    ]);
    server.json(NO_LIMIT);
    server.json(&["limit", "set", "site", "--per-minute", "0"]);
    server.json(&["flag", "set", "dark_mode"]);
    server.json(&["flag", "set", "beta", "--off"]);
    let free = server.issue_license(2);
    let mut keys = server.issue_licenses(1, 4);
    let mut next = || keys.remove(0);
    let keys = Keys {
        free,
        single: next(),
        suspended: next(),
        later: next(),
        expired: next(),
        trial: issue(server, &["--kind", "trial"]),
    };
    server.json(&["license", "suspend", &keys.suspended]);
    database::set_license(server, 4, "valid_from_ms = valid_from_ms + 86400000");
    database::set_license(server, 5, "valid_from_ms = 0, valid_until_ms = 86400000");
    keys
}

/// Issues a license to the only customer; its key.
fn issue(server: &Server, more: &[&str]) -> String {
    let mut order = vec!["license", "issue", "--customer", "Ada"];
    order.extend(more);
    let issued = server.json(&order)["licenses"][0]["license_key"].clone();
    issued.as_str().unwrap().to_owned()
}

const GERMAN: &[(&str, &str)] = &[("accept-language", "de")];
const ENGLISH: &[(&str, &str)] = &[("accept-language", "en")];

/// What the device `laptop` with an old version sends.
fn old(key: &str) -> Value {
    let mut body = identity(key, "laptop");
    body["version"] = json!("0.4.9");
    body
}

fn versions(to: &mut Recorder) {
    for version in ["1.0.0", "1.2.0", "1.3.0", "0.4.9"] {
        let path = format!("/api/license/version?version={version}");
        to.get("a version", &path, &[]);
    }
    for wrong in ["", "?version=", "?version=1.0"] {
        let path = format!("/api/license/version{wrong}");
        to.get("invalid", &path, GERMAN);
        to.get("invalid, English", &path, ENGLISH);
    }
    for path in ["/versions.json", "/versions.txt"] {
        to.send("without a key", &format!("GET {path}"), &[], "");
    }
    for path in ["/api/license/nothing", "/versions.xml", "/versions/x.json"] {
        to.get("not served", path, &[]);
    }
}

fn activations(to: &mut Recorder, keys: &Keys) {
    let (laptop, desktop) = (
        identity(&keys.free, "laptop"),
        identity(&keys.free, "desktop"),
    );
    to.call("the first device", "activate", &laptop);
    to.call("the same device", "activate", &laptop);
    for _ in 0..2 {
        let repeated = [("idempotency-key", "a")];
        to.call_with("with a key", "activate", &desktop, &repeated);
    }
    let tablet = identity(&keys.free, "tablet");
    to.call("every slot is taken", "activate", &tablet);
    to.call_with("every slot is taken, English", "activate", &tablet, ENGLISH);
    to.call("one slot", "activate", &identity(&keys.single, "laptop"));
    to.call("one slot taken", "activate", &identity(&keys.single, "x"));
    to.call("a trial", "activate", &identity(&keys.trial, "laptop"));
    to.call("too old", "activate", &old(&keys.free));
}

fn refusals_of_licenses(to: &mut Recorder, keys: &Keys) {
    for (title, key) in [
        ("suspended", keys.suspended.as_str()),
        ("not yet valid", &keys.later),
        ("expired", &keys.expired),
        ("unknown", UNKNOWN),
        ("no key", "no key at all"),
    ] {
        for endpoint in ["activate", "verify", "session/start", "deactivate"] {
            let body = identity(key, "laptop");
            to.call_with(title, endpoint, &body, GERMAN);
            to.call_with(&format!("{title}, English"), endpoint, &body, ENGLISH);
        }
    }
}

fn verifications(to: &mut Recorder, keys: &Keys) {
    to.call("valid", "verify", &identity(&keys.free, "laptop"));
    to.call_with("valid", "verify", &identity(&keys.free, "laptop"), ENGLISH);
    to.call("a trial", "verify", &identity(&keys.trial, "laptop"));
    to.call("no slot", "verify", &identity(&keys.free, "tablet"));
    to.call("too old", "verify", &old(&keys.free));
}

fn sessions(to: &mut Recorder, keys: &Keys) {
    let laptop = identity(&keys.free, "laptop");
    let started = to.call("the first", "session/start", &laptop);
    let token = started["session_token"].as_str().unwrap().to_owned();
    to.call("one runs", "session/start", &laptop);
    to.call_with("one runs, English", "session/start", &laptop, ENGLISH);
    to.call("one runs", "verify", &laptop);
    to.call("no slot", "session/start", &identity(&keys.free, "tablet"));
    to.call("too old", "session/start", &old(&keys.free));
    let trial = identity(&keys.trial, "laptop");
    for _ in 0..2 {
        let repeated = [("idempotency-key", "b")];
        to.call_with("with a key", "session/start", &trial, &repeated);
    }
    let wrong = [("idempotency-key", "a b")];
    to.call_with("a wrong key", "session/start", &laptop, &wrong);
    let heartbeat = heartbeat_body(&keys.free, &token);
    to.call("running", "session/heartbeat", &heartbeat);
    let other = heartbeat_body(&keys.single, &token);
    to.call("another license", "session/heartbeat", &other);
    let unknown = heartbeat_body(&keys.free, "0b0e7a54-1c5e-4d3f-9a53-000000000000");
    to.call("an unknown token", "session/heartbeat", &unknown);
    to.call("an unknown token", "session/end", &unknown);
    let no_token = heartbeat_body(&keys.free, "no token");
    to.call("no token", "session/heartbeat", &no_token);
    for title in ["running", "ended"] {
        to.call(title, "session/end", &json!({ "session_token": token }));
    }
    to.call("ended", "session/heartbeat", &heartbeat);
    to.call_with("ended, English", "session/heartbeat", &heartbeat, ENGLISH);
    forced_end(to, &keys.single);
    to.call("a device", "deactivate", &laptop);
    to.call("no slot", "deactivate", &laptop);
}

/// An administrator ends a session.
fn forced_end(to: &mut Recorder, key: &str) {
    let started = to.call("another", "session/start", &identity(key, "laptop"));
    let heartbeat = heartbeat_body(key, started["session_token"].as_str().unwrap());
    let sessions = to.server.json(&["session", "list"])["sessions"].clone();
    let id = sessions[0]["id"].to_string();
    to.server.json(&["session", "end", &id]);
    let client = to.server.client();
    eventually("the end", || {
        client.call("session/heartbeat", &heartbeat).status == 410
    });
    to.call("forced", "session/heartbeat", &heartbeat);
    to.call("forced", "session/end", &heartbeat);
}

fn malformed_requests(to: &mut Recorder, keys: &Keys) {
    let api_key = to.server.api_key().to_owned();
    let api_key = ("x-api-key", api_key.as_str());
    let json_type = ("content-type", "application/json");
    let large = format!("{{\"note\":\"{}\"}}", "x".repeat(16 * 1024));
    let wrong = r#"{"license_key":"x","machine_id":7,"hardware_hash":"","version":"0.9"}"#;
    let whole = identity(&keys.free, "laptop").to_string();
    let digest = ("content-digest", "sha-256=:AAAA:");
    let start = "POST /api/license/session/start";
    for language in [GERMAN[0], ENGLISH[0]] {
        for (title, headers, body) in [
            ("no API key", vec![json_type], whole.as_str()),
            (
                "a wrong API key",
                vec![("x-api-key", "x"), json_type],
                &whole,
            ),
            ("no media type", vec![api_key], &whole),
            (
                "text",
                vec![api_key, ("content-type", "text/plain")],
                &whole,
            ),
            ("too large", vec![api_key, json_type], &large),
            ("no object", vec![api_key, json_type], "[]"),
            ("half an object", vec![api_key, json_type], "{"),
            ("no body", vec![api_key, json_type], ""),
            ("no fields", vec![api_key, json_type], "{}"),
            ("wrong fields", vec![api_key, json_type], wrong),
            ("a wrong digest", vec![api_key, json_type, digest], &whole),
        ] {
            let mut headers = headers;
            headers.push(language);
            let title = format!("{title}, {}", language.1);
            to.send(&title, start, &headers, body);
        }
    }
    let signed = [(
        "signature-nonce",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    )];
    to.call_with(
        "signed",
        "verify",
        &identity(&keys.trial, "laptop"),
        &signed,
    );
    to.call_with("signed", "verify", &json!({}), &signed);
    to.get("signed", "/api/license/version?version=1.0.0", &signed);
}

/// A handshake with all four messages; records them, with the delivery at the domain.
fn handshake(to: &mut Recorder, sites: &Sites, operation: &str, details: &Value) {
    let domain = details["from"].as_str().unwrap();
    let mut request = json!({ "domain": domain, "request_id": id() });
    let request_id = request["request_id"].as_str().unwrap().to_owned();
    sites.expect_challenge(&request_id);
    if operation == "register" {
        request["license_key"] = details["license_key"].clone();
    }
    let json_type = [("content-type", "application/json")];
    let title = format!("{operation} at {domain}");
    to.send(
        &title,
        "POST /api/site/request",
        &json_type,
        &request.to_string(),
    );
    let transaction_id = sites.wait_for_challenge(&request_id);
    let challenges = sites.received_messages();
    let challenge = challenges
        .iter()
        .find(|it| it.body["request_id"] == request_id);
    to.received(&format!("challenge: {title}"), challenge.unwrap());
    let mut transaction = details.clone();
    transaction.as_object_mut().unwrap().remove("from");
    transaction["transaction_id"] = json!(transaction_id);
    transaction["operation"] = json!(operation);
    let transaction = transaction.to_string();
    to.send(
        &title,
        "POST /api/site/transaction",
        &json_type,
        &transaction,
    );
    let delivery = sites.wait_for_delivery(&transaction_id);
    to.received(&format!("delivery: {title}"), &delivery);
}

fn handshakes(to: &mut Recorder, sites: &Sites, key: &str) {
    let moving = json!({ "from": OLD, "license_key": key, "new_domain": NEW });
    let freed = json!({ "from": OLD, "license_key": key, "domain": OLD });
    let with_key = |domain: &str| json!({ "from": domain, "license_key": key });
    for (operation, details) in [
        ("register", with_key(OLD)),
        ("versions", json!({ "from": OLD })),
        ("license", with_key(OLD)),
        ("transfer", moving),
        ("license", with_key(NEW)),
        ("register", with_key(NEW)),
        ("cancel_transfer", with_key(NEW)),
        ("deregister", freed),
    ] {
        handshake(to, sites, operation, &details);
    }
    for wrong in [json!({ "domain": OLD, "request_id": id() }), json!({})] {
        let json_type = [("content-type", "application/json")];
        let body = wrong.to_string();
        to.send("refused", "POST /api/site/request", &json_type, &body);
        to.send("refused", "POST /api/site/transaction", &json_type, &body);
    }
}

/// The refusals of a server whose database is locked, and of one that allows one call a minute.
fn unavailable(to: &mut Recorder, keys: &Keys) {
    let other_program = OtherProgram::lock(&to.server);
    let body = identity(&keys.trial, "desktop");
    to.call("locked", "activate", &body);
    other_program.release();
}

fn limited() -> Vec<Exchange> {
    let mut to = Recorder::prepare(&[]);
    to.server.json(ONE_A_MINUTE);
    to.server.run();
    let path = "/api/license/version?version=1.0.0";
    to.get("within the limit", path, &[]);
    to.get("over the limit", path, GERMAN);
    to.get("over the limit, English", path, ENGLISH);
    to.exchanges
}

/// Makes every call in a fixed order; what was sent.
fn make_every_call() -> Vec<Exchange> {
    let sites = Sites::start(&[OLD, NEW]);
    let settings = sites.settings();
    let mut settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    settings.push(NO_SWEEP);
    let mut to = Recorder::prepare(&settings);
    let keys = fill(&to.server);
    to.server.run();
    versions(&mut to);
    activations(&mut to, &keys);
    refusals_of_licenses(&mut to, &keys);
    verifications(&mut to, &keys);
    sessions(&mut to, &keys);
    malformed_requests(&mut to, &keys);
    handshakes(&mut to, &sites, &keys.free);
    unavailable(&mut to, &keys);
    let mut exchanges = to.exchanges;
    exchanges.extend(limited());
    exchanges
}

#[test]
fn a_shop_with_one_product_answers_as_before_there_were_several() {
    let current = make_every_call();
    if std::env::var(RECORD).is_ok() {
        std::fs::create_dir_all(recording().parent().unwrap()).unwrap();
        std::fs::write(recording(), to_text(&current)).unwrap();
        return;
    }
    let recorded = std::fs::read_to_string(recording()).unwrap();
    let added = assert_same_but_for_additions(&from_text(&recorded), &current);
    let mut expected = ADDED.to_vec();
    expected.sort_unstable();
    assert_eq!(added.into_iter().collect::<Vec<_>>(), expected);
}
