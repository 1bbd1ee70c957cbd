//! Signed responses and leases, verified by third-party libraries; rotation and loss of signing keys.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::database::{self, OtherProgram};
use crate::setup::{MANY_STARTS, NO_LIMIT, NO_SWEEP, ONE_A_MINUTE, UNKNOWN, started};
use crate::support::{Client, Response, Server, eventually, heartbeat_body, identity};
use crate::timing::now_ms;

/// No limit on failed requests.
const NO_FAILURES: &[&str] = &["limit", "set", "client_failures", "--per-minute", "0"];
/// The headers of a signed response.
const SIGNATURE_HEADERS: [&str; 3] = ["content-digest", "signature-input", "signature"];

/// The Python environment that `.ci/run` installs, with the two libraries. `None`, and a message, if it is missing.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/py/bin/python");
    let libraries = ["-c", "import http_message_signatures, jwt, cryptography"];
    let tried = Command::new(&python).args(libraries).output();
    if tried.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(!ci, "target/py is missing: .ci/run installs it");
    // Write to stderr directly: the test harness hides what a passing test prints.
    let skipped = "SKIPPED: no http-message-signatures and PyJWT in target/py; see .ci/run\n";
    std::io::stderr().write_all(skipped.as_bytes()).unwrap();
    None
}

/// The verdict of the libraries on `lines`, of which the first contains the keys.
fn verified(python: &Path, server: &Server, what: &str, lines: &[Value]) -> Value {
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    let file = server.path(what);
    std::fs::write(&file, text).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/verify.py");
    let mut command = Command::new(python);
    let output = command.arg(script).arg(what).arg(&file).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All published keys by key id; `form` is `public_key` or `pem`.
fn keys(server: &Server, form: &str) -> BTreeMap<String, String> {
    let shown = server.json(&["config", "show"]);
    let keys = &shown["signing_keys"];
    let previous = keys["previous"].as_array().unwrap();
    let all = [&keys["current"], &keys["next"]]
        .into_iter()
        .chain(previous);
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    all.map(|key| (text(key, "key_id"), text(key, form)))
        .collect()
}

/// A nonce of 16 to 64 bytes that depends on `number`.
fn nonce(number: usize) -> String {
    let mut bytes = vec![0xa5; 16 + number % 49];
    for (place, byte) in bytes.iter_mut().zip(number.to_be_bytes()) {
        *place = byte;
    }
    STANDARD.encode(bytes)
}

/// A program that asks for signatures and records requests and responses.
struct Recorder<'a> {
    client: &'a Client,
    exchanges: Vec<Value>,
}

impl Recorder<'_> {
    fn record(&mut self, method: &str, target: &str, sent: &str, nonce: &str, answer: &Response) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers: BTreeMap<&str, &str> = SIGNATURE_HEADERS
            .iter()
            .map(|name| {
                let line = answer.header(name);
                (
                    *name,
                    line.unwrap_or_else(|| panic!("{path}: no {name} in {answer:?}")),
                )
            })
            .collect();
        self.exchanges.push(json!({
            "method": method, "path": path, "query": query, "sent": sent, "nonce": nonce,
            "status": answer.status, "headers": headers, "answer": answer.text,
        }));
    }

    fn send(&mut self, endpoint: &str, sent: &str, more: &[(&str, &str)]) -> Response {
        let nonce = nonce(self.exchanges.len());
        let mut headers = vec![("Signature-Nonce", nonce.as_str())];
        headers.extend(more);
        let answer = self.client.send(endpoint, sent.as_bytes(), &headers);
        let path = format!("/api/license/{endpoint}");
        self.record("POST", &path, sent, &nonce, &answer);
        answer
    }

    fn get(&mut self, path: &str, query: &str) -> Response {
        let nonce = nonce(self.exchanges.len());
        let headers = [("Signature-Nonce", nonce.as_str())];
        let answer = self.client.get_with(&format!("{path}{query}"), &headers);
        self.record("GET", &format!("{path}{query}"), "", &nonce, &answer);
        answer
    }

    /// Requests of all kinds; 14 exchanges.
    fn round(&mut self, in_use: &str, free: &str, suspended: &str, number: usize) {
        let device = identity(free, "laptop").to_string();
        self.send("activate", &device, &[]);
        let started = self.send("session/start", &device, &[]);
        let token = started.token();
        self.send(
            "session/heartbeat",
            &heartbeat_body(free, &token).to_string(),
            &[],
        );
        self.send("session/start", &identity(in_use, "desk").to_string(), &[]);
        self.send(
            "session/end",
            &heartbeat_body(free, &token).to_string(),
            &[],
        );
        self.send(
            "session/heartbeat",
            &heartbeat_body(free, &token).to_string(),
            &[],
        );
        self.send("verify", &identity(suspended, "desk").to_string(), &[]);
        self.send("activate", &identity(suspended, "desk").to_string(), &[]);
        self.send("verify", &identity(UNKNOWN, "desk").to_string(), &[]);
        self.send("activate", &identity(UNKNOWN, "desk").to_string(), &[]);
        self.send("activate", "{\"license_key\": 1", &[]);
        self.send(
            "deactivate",
            &json!({ "license_key": number }).to_string(),
            &[],
        );
        self.send("verify", &device, &[("Content-Type", "text/plain")]);
        self.get("/api/license/version", "?version=1.0.0");
    }
}

#[test]
fn a_thousand_signatures_verify_and_none_after_a_changed_bit() {
    let Some(python) = python() else { return };
    let server = started(&[NO_SWEEP, MANY_STARTS], &[NO_LIMIT, NO_FAILURES]);
    let keys_held = server.issue_licenses(1, 3);
    let [in_use, free, suspended] = keys_held.as_slice() else {
        panic!("three");
    };
    let client = server.client();
    client.session(in_use, "desk");
    server.json(&["license", "suspend", suspended]);
    let mut recorder = Recorder {
        client: &client,
        exchanges: Vec::new(),
    };
    let round = |recorder: &mut Recorder<'_>| {
        let number = recorder.exchanges.len();
        recorder.round(in_use, free, suspended, number);
    };
    while recorder.exchanges.len() < 980 {
        round(&mut recorder);
    }
    // Requests that are rejected before the body is read.
    let with_wrong_key = client.with_key("another key");
    let mut others = Recorder {
        client: &with_wrong_key,
        exchanges: std::mem::take(&mut recorder.exchanges),
    };
    others.send("verify", &identity(free, "laptop").to_string(), &[]);
    others.get("/api/license/version", "");
    recorder.exchanges = others.exchanges;
    recorder.send("verify", &" ".repeat(17_000), &[]);
    recorder.get("/api/license/version", "?version=x");
    round(&mut recorder);
    server.json(ONE_A_MINUTE);
    eventually("the limit", || {
        recorder
            .get("/api/license/version", "?version=1.0.0")
            .status
            == 429
    });
    recorder.send("activate", &identity(free, "laptop").to_string(), &[]);
    let count = recorder.exchanges.len();
    assert!(count >= 1000, "{count}");
    let mut lines = vec![json!(keys(&server, "public_key"))];
    lines.extend(recorder.exchanges);
    let found = verified(&python, &server, "answers", &lines);
    let current = server.json(&["config", "show"])["signing_key_id"].clone();
    assert_eq!(
        found["signers"],
        json!({ current.as_str().unwrap(): count })
    );
    for status in [200, 201, 400, 401, 403, 404, 409, 410, 413, 415, 422, 429] {
        let times = found["statuses"][status.to_string()].as_u64();
        assert!(times > Some(0), "{status}: {found}");
    }
    for part in [
        "status", "method", "path", "query", "sent", "answer", "nonce",
    ]
    .into_iter()
    .chain(SIGNATURE_HEADERS)
    {
        assert!(found["forged"][part].as_u64() > Some(9), "{part}: {found}");
    }
}

#[test]
fn the_response_of_a_server_that_cannot_write_is_signed_too() {
    let Some(python) = python() else { return };
    let server = started(&[NO_SWEEP], &[NO_LIMIT]);
    let key = server.issue_license(1);
    let client = server.client();
    // Another process holds the write lock: the server gives up after a while.
    let other_program = OtherProgram::lock(&server);
    let mut recorder = Recorder {
        client: &client,
        exchanges: Vec::new(),
    };
    let response = recorder.send("activate", &identity(&key, "laptop").to_string(), &[]);
    assert_eq!(
        response.status_and_code(),
        (503, "unavailable"),
        "{response:?}"
    );
    other_program.release();
    let mut lines = vec![json!(keys(&server, "public_key"))];
    lines.extend(recorder.exchanges);
    let found = verified(&python, &server, "answers", &lines);
    assert_eq!(found["statuses"], json!({ "503": 1 }));
}

#[test]
fn only_responses_of_the_client_api_are_signed_and_only_on_request() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let device = identity(&key, "laptop");
    let unsigned = |answer: &Response| {
        SIGNATURE_HEADERS
            .iter()
            .all(|name| answer.header(name).is_none())
    };
    assert!(unsigned(&client.call("activate", &device)));
    assert!(unsigned(&client.call("verify", &json!({}))));
    let one = nonce(1);
    let with_nonce = [("Signature-Nonce", one.as_str())];
    for path in [
        "/versions.json",
        "/api/license/nothing",
        "/nothing",
        "/lizenzserver",
    ] {
        assert!(unsigned(&client.get_with(path, &with_nonce)), "{path}");
    }
    let answer = client.call_with("verify", &device, &with_nonce);
    let input = answer.header("signature-input").unwrap();
    assert!(input.ends_with(&format!(";nonce=\"{one}\"")), "{input}");
    // The headers of an unknown path do not depend on whether a signature was requested.
    let unknown_path = client.get_with("/api/license/nothing", &with_nonce);
    let other = client.get("/nothing");
    let names = |answer: &Response| -> Vec<String> {
        let names = answer.headers.iter().map(|(name, _)| name.clone());
        names.collect()
    };
    assert_eq!(
        (unknown_path.status, names(&unknown_path)),
        (503, names(&other))
    );
}

#[test]
fn an_invalid_nonce_or_digest_is_refused_in_the_documented_order() {
    let server = started(&[], &[NO_FAILURES]);
    let key = server.issue_license(1);
    let client = server.client();
    let device = identity(&key, "laptop").to_string();
    let invalid = |answer: &Response, field: &str| {
        assert_eq!(
            answer.status_and_code(),
            (422, "invalid_field"),
            "{answer:?}"
        );
        assert_eq!(answer.body["field"], field, "{answer:?}");
    };
    let (short, long) = (STANDARD.encode([1; 15]), STANDARD.encode([1; 65]));
    for bad in ["", "!", "c2hvcnQ=", &short, &long, "é"] {
        let headers = [("Signature-Nonce", bad)];
        let answer = client.send("verify", device.as_bytes(), &headers);
        invalid(&answer, "Signature-Nonce");
        assert!(answer.header("signature").is_none());
        let path = "/api/license/version?version=1.0.0";
        invalid(&client.get_with(path, &headers), "Signature-Nonce");
        // Errors that come first in the documented order are reported first.
        let with_wrong_key = client.with_key("another key");
        let response = with_wrong_key.send("verify", device.as_bytes(), &headers);
        assert_eq!(response.status_and_code(), (401, "invalid_api_key"));
        let response = client.send("verify", b"{", &headers);
        assert_eq!(response.status_and_code(), (400, "malformed_json"));
        invalid(&client.send("verify", b"{}", &headers), "license_key");
    }
    let good = nonce(1);
    let twice = [("Signature-Nonce", good.as_str()); 2];
    invalid(
        &client.send("verify", device.as_bytes(), &twice),
        "Signature-Nonce",
    );
    // A digest of another body: the body was changed in transit.
    let digest = |body: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
        format!("sha-256=:{}:", STANDARD.encode(digest))
    };
    let (right, wrong) = (digest(&device), digest("{}"));
    for (digest, is_right) in [(&right, true), (&wrong, false)] {
        let headers = [
            ("Signature-Nonce", good.as_str()),
            ("Content-Digest", digest),
        ];
        let answer = client.send("verify", device.as_bytes(), &headers);
        assert!(answer.header("signature").is_some());
        if is_right {
            assert_eq!(answer.status, 200);
        } else {
            invalid(&answer, "Content-Digest");
        }
    }
    // Without a nonce the digest is not checked.
    let response = client.send("verify", device.as_bytes(), &[("Content-Digest", &wrong)]);
    assert_eq!(response.status, 200);
}

#[test]
fn a_running_server_uses_a_rotated_key_and_programs_that_pin_both_keys_accept_it() {
    let Some(python) = python() else { return };
    let mut server = started(&[], &[NO_LIMIT]);
    let key = server.issue_license(1);
    let client = server.client();
    let before = server.json(&["config", "show"]);
    // The keys that a program pins which was shipped before the rotation.
    let pinned = keys(&server, "public_key");
    assert_eq!(pinned.len(), 2);
    let file = |id: &Value| server.path(&format!("data/signing/{}.pem", id.as_str().unwrap()));
    let (old, next) = (
        file(&before["signing_key_id"]),
        file(&before["next_signing_key_id"]),
    );
    assert!(old.exists() && next.exists());
    let mut recorder = Recorder {
        client: &client,
        exchanges: Vec::new(),
    };
    let device = identity(&key, "laptop").to_string();
    recorder.send("activate", &device, &[]);
    let after = server.json(&["config", "rotate-signing-key"]);
    assert_eq!(after["signing_key_id"], before["next_signing_key_id"]);
    assert_eq!(
        after["signing_keys"]["previous"][0]["key_id"],
        before["signing_key_id"]
    );
    assert!(!old.exists() && next.exists() && file(&after["next_signing_key_id"]).exists());
    let new = after["signing_key_id"].as_str().unwrap();
    eventually("the next key", || {
        let answer = recorder.send("verify", &device, &[]);
        let input = answer.header("signature-input").unwrap();
        input.contains(&format!("keyid=\"{new}\""))
    });
    let mut lines = vec![json!(pinned)];
    lines.extend(recorder.exchanges);
    let found = verified(&python, &server, "answers", &lines);
    assert_eq!(found["signers"].as_object().unwrap().len(), 2, "{found}");
    assert_eq!(database::audited(&server, "keys.rotate").len(), 1);
    let mut panel = server.logged_in_browser("support");
    let page = panel.get("/integrate").text;
    for key in keys(&server, "public_key").values() {
        assert!(page.contains(key), "{key}");
    }
    for id in ["current", "next"] {
        let pem = after["signing_keys"][id]["pem"].as_str().unwrap();
        assert!(page.contains(pem.trim()), "{pem}");
    }
    // The keys stay the same after a restart, which also deletes a key file that a crash has left.
    std::fs::write(&old, "left behind").unwrap();
    server.restart();
    let shown = server.json(&["config", "show"]);
    assert_eq!(shown["signing_keys"], after["signing_keys"]);
    assert!(
        !server
            .path(&format!("data/signing/{}.pem", before["signing_key_id"]))
            .exists()
    );
    // 90 days after its retirement no lease is left that the key has signed.
    database::age_previous_signing_keys(&server);
    let shown = server.json(&["config", "show"]);
    assert_eq!(shown["signing_keys"]["previous"], json!([]));
    server.json(&["config", "rotate-signing-key"]);
    assert_eq!(database::count(&server, "signing_keys"), 3);
}

#[test]
fn the_server_does_not_start_without_its_keys_and_says_what_to_do() {
    let mut server = Server::start();
    let shown = server.json(&["config", "show"]);
    let file = |name: &str, shown: &Value| {
        let id = shown[name].as_str().unwrap();
        PathBuf::from(format!("data/signing/{id}.pem"))
    };
    assert_eq!(server.stop(), Some(0));
    let refused = |server: &Server, words: &[&str], missing: &Path| {
        let output = server.cli(words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        if words == ["serve"] {
            assert!(
                error.contains(missing.to_str().unwrap()) && error.contains("is missing"),
                "{error}"
            );
        }
        error
    };
    // The current key is lost: the next one, which programs pin, replaces it.
    let current = file("signing_key_id", &shown);
    std::fs::remove_file(server.path(current.to_str().unwrap())).unwrap();
    let checked = String::from_utf8(server.cli(&["check"]).stdout).unwrap();
    let line = checked.lines().find(|line| line.contains("signing keys"));
    assert!(line.unwrap().starts_with("TODO"), "{checked}");
    let error = refused(&server, &["serve"], &current);
    assert!(
        error.contains("config rotate-signing-key`") && !error.contains("--lost"),
        "{error}"
    );
    let rotated = server.json(&["config", "rotate-signing-key"]);
    assert_eq!(rotated["signing_key_id"], shown["next_signing_key_id"]);
    server.run();
    assert_eq!(server.stop(), Some(0));
    // The next key is lost: it is not replaced silently.
    let next = file("next_signing_key_id", &rotated);
    std::fs::remove_file(server.path(next.to_str().unwrap())).unwrap();
    let error = refused(&server, &["serve"], &next);
    assert!(error.contains("rotate-signing-key --lost"), "{error}");
    let error = refused(&server, &["config", "rotate-signing-key"], &next);
    assert!(error.contains("--lost"), "{error}");
    let renewed = server.json(&["config", "rotate-signing-key", "--lost"]);
    assert_eq!(renewed["signing_key_id"], rotated["signing_key_id"]);
    assert_ne!(
        renewed["next_signing_key_id"],
        rotated["next_signing_key_id"]
    );
    server.run();
    assert_eq!(server.stop(), Some(0));
    // Both are lost, as on another machine with a copy of only the database.
    std::fs::remove_dir_all(server.path("data/signing")).unwrap();
    let error = refused(&server, &["serve"], &file("signing_key_id", &renewed));
    assert!(error.contains("rotate-signing-key --lost"), "{error}");
    let regenerated = server.json(&["config", "rotate-signing-key", "--lost"]);
    assert_ne!(regenerated["signing_key_id"], renewed["signing_key_id"]);
    assert_ne!(
        regenerated["signing_key_id"],
        renewed["next_signing_key_id"]
    );
    server.run();
    // A file with another key in its place is rejected.
    assert_eq!(server.stop(), Some(0));
    let current = file("signing_key_id", &regenerated);
    let foreign = file("next_signing_key_id", &regenerated);
    std::fs::copy(
        server.path(foreign.to_str().unwrap()),
        server.path(current.to_str().unwrap()),
    )
    .unwrap();
    let error = String::from_utf8(server.cli(&["serve"]).stderr).unwrap();
    assert!(error.contains("restore it from a copy"), "{error}");
}

#[test]
fn leases_are_issued_if_offline_days_are_set_and_libraries_verify_them() {
    let Some(python) = python() else { return };
    let server = Server::start();
    let keys_sold = server.issue_licenses(2, 2);
    let (key, short) = (&keys_sold[0], &keys_sold[1]);
    let client = server.client();
    let device = identity(key, "laptop");
    client.call("activate", &device);
    assert_eq!(client.call("verify", &device).body["lease"], Value::Null);
    let response = client.call("session/start", &device);
    assert!(response.body.as_object().unwrap().contains_key("lease"));
    assert_eq!(response.body["lease"], Value::Null, "not by default");
    client.call("session/end", &heartbeat_body(key, &response.token()));
    server.json(&["config", "set", "offline_days=7", "client_name=Größe 3"]);
    server.json(&["flag", "set", "dark_mode", "--on"]);
    let ends = now_ms() + 2 * 24 * 60 * 60 * 1000;
    database::set_license(&server, 2, &format!("valid_until_ms = {ends}"));
    eventually("the setting takes effect", || {
        !client.call("verify", &device).body["lease"].is_null()
    });
    let mut leases = Vec::new();
    let mut lease = |answer: &Response| {
        let lease = answer.body["lease"].clone();
        assert!(lease.is_string(), "{answer:?}");
        leases.push(lease);
    };
    let again = ("Idempotency-Key", "once");
    let response = client.call_with("session/start", &device, &[again]);
    lease(&response);
    let same = client.call_with("session/start", &device, &[again]);
    assert_eq!(same.body, response.body, "the stored response again");
    lease(&client.call("verify", &device));
    let other = identity(short, "laptop");
    client.call("activate", &other);
    lease(&client.call("session/start", &other));
    // No lease for a device that may not run the program.
    let other_device = identity(key, "other");
    let response = client.call("verify", &other_device).body;
    assert_eq!(
        (&response["code"], &response["lease"]),
        (&json!("device_not_activated"), &Value::Null)
    );
    assert_eq!(
        client.call("verify", &identity(UNKNOWN, "x")).body["lease"],
        Value::Null
    );
    // A lease that was signed before a rotation verifies after it.
    let rotated = server.json(&["config", "rotate-signing-key"]);
    let new = rotated["signing_key_id"].as_str().unwrap().to_owned();
    let mut lines = vec![json!(keys(&server, "pem"))];
    lines.extend(leases);
    eventually("a lease with the next key", || {
        let response = client.call("verify", &device).body["lease"].clone();
        let header = response
            .as_str()
            .unwrap()
            .split('.')
            .next()
            .unwrap()
            .to_owned();
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header);
        lines.truncate(4);
        lines.push(response);
        String::from_utf8(header.unwrap()).unwrap().contains(&new)
    });
    let claims = verified(&python, &server, "leases", &lines);
    let plain = |key: &str| key.replace('-', "");
    for (number, sold) in [key, key, short, key].into_iter().enumerate() {
        let claims = &claims[number];
        assert_eq!(claims["license"], plain(sold), "{claims}");
        assert_eq!(claims["product"], "Größe 3");
        assert_eq!(claims["hardware_hash"], "hash of laptop");
        assert_eq!(claims["feature_flags"], json!({ "dark_mode": true }));
        let (iat, exp) = (
            claims["iat"].as_i64().unwrap(),
            claims["exp"].as_i64().unwrap(),
        );
        if sold == short {
            assert_eq!(exp, ends / 1000, "not after the end of the license");
        } else {
            assert_eq!(exp - iat, 7 * 24 * 60 * 60);
        }
    }
    assert_eq!(
        claims[0]["kid"],
        rotated["signing_keys"]["previous"][0]["key_id"]
    );
    assert_eq!(claims[3]["kid"], new);
    server.json(&["license", "suspend", key]);
    eventually("no lease", || {
        let response = client.call("verify", &device).body;
        response["code"] == "license_suspended" && response["lease"].is_null()
    });
}
