//! A customer with data in every table, in words that nothing else contains; and what files still hold of them.

use std::io::Write;
use std::process::{Output, Stdio};

use crate::database;
use crate::inspect::running;
use crate::setup::started;
use crate::support::{Server, files_below, heartbeat_body, identity};

pub const NAME: &str = "Quendoline Zzyzx";
/// What names the person. Each is somewhere in the database before an erasure.
pub const WORDS: &[&str] = &[
    NAME,
    "quendoline@zzyzx-mail.example",
    "Zzyzx Company",
    "Zzyzx customer note",
    "Zzyzx license note",
    "Zzyzx edited note",
    "zzyzx-domain.example",
    "zzyzx-earlier.example",
    "zzyzx-laptop",
    "zzyzx-desktop",
    "zzyzx-phone",
    "zzyzx-till",
    "203.0.113.77",
    "203.0.113.78",
    "203.0.113.79",
];
/// Words about the other customer.
pub const OTHER_WORDS: &[&str] = &[
    "Bob Yonder",
    "yonder-note",
    "yonder-domain.example",
    "yonder-laptop",
    "203.0.113.90",
];
/// Requests name their addresses themselves.
pub const BEHIND_A_PROXY: (&str, &str) = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");

pub struct Person {
    /// The keys of their licenses: one alone, and two issued together.
    pub keys: Vec<String>,
    /// The token of the running session, on the first license.
    pub token: String,
    /// The key of the other customer's license.
    pub other_key: String,
    /// The token of the other customer's session.
    pub other_token: String,
}

/// A running server with the person (customer 1) and another customer (2).
pub fn shop() -> (Server, Person) {
    shop_with(&[])
}

/// The same with these settings.
pub fn shop_with(settings: &[(&str, &str)]) -> (Server, Person) {
    let mut all = vec![BEHIND_A_PROXY];
    all.extend(settings);
    let server = started(&all, &[]);
    let person = add_person(&server);
    (server, person)
}

fn add_person(server: &Server) -> Person {
    server.json(&[
        "customer",
        "add",
        NAME,
        "--email",
        WORDS[1],
        "--company",
        WORDS[2],
        "--note",
        WORDS[3],
    ]);
    server.json(&["customer", "add", OTHER_WORDS[0], "--note", OTHER_WORDS[1]]);
    let mut keys = issue(
        server,
        &[
            "1",
            "--devices",
            "4",
            "--note",
            WORDS[4],
            "--domain",
            WORDS[7],
        ],
    );
    keys.extend(issue(
        server,
        &["1", "--devices", "2", "--note", WORDS[5], "--count", "2"],
    ));
    let other_key = issue(server, &["2", "--devices", "2", "--domain", OTHER_WORDS[2]]).remove(0);
    server.json(&["license", "free-domain", &keys[0]]);
    server.json(&["license", "bind-domain", &keys[0], WORDS[6]]);
    for (device, key) in [(WORDS[10], &keys[0]), (WORDS[11], &keys[1])] {
        let answer = server.client().call("activate", &identity(key, device));
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let phone = ["license", "release-device", &keys[0], WORDS[10]];
    server.json(&phone);
    start_and_end(server, &keys[0], WORDS[9], WORDS[12]);
    start(server, &keys[1], WORDS[11], WORDS[13]);
    let id = running(server)[0]["id"].to_string();
    server.json(&["session", "end", &id]);
    let token = start(server, &keys[0], WORDS[8], WORDS[13]);
    let other_token = start(server, &other_key, OTHER_WORDS[3], OTHER_WORDS[4]);
    for (domain, source) in [
        (WORDS[6], WORDS[14]),
        (WORDS[7], WORDS[14]),
        (OTHER_WORDS[2], OTHER_WORDS[4]),
    ] {
        database::add_handshake(server, domain, source);
    }
    Person {
        keys,
        token,
        other_key,
        other_token,
    }
}

/// Issues licenses; `arguments` follow `--customer`.
fn issue(server: &Server, arguments: &[&str]) -> Vec<String> {
    let mut words = vec!["license", "issue", "--customer"];
    words.extend(arguments);
    let issued = server.json(&words);
    let issued = issued["licenses"].as_array().unwrap();
    let keys = issued.iter().map(|license| license["license_key"].as_str());
    keys.map(|key| key.unwrap().to_owned()).collect()
}

/// Activates the device, starts a session on it from this address, and ends that.
pub fn start_and_end(server: &Server, key: &str, device: &str, address: &str) {
    let token = start(server, key, device, address);
    let ended = server
        .client()
        .call("session/end", &heartbeat_body(key, &token));
    assert_eq!(ended.status, 200, "{ended:?}");
}

/// Activates the device, which stores a response, and starts a session on it from this address.
fn start(server: &Server, key: &str, device: &str, address: &str) -> String {
    let client = server.client();
    let headers = [
        ("X-Forwarded-For", address),
        ("Idempotency-Key", "activate-1"),
    ];
    let activated = client.call_with("activate", &identity(key, device), &headers);
    assert!([200, 201].contains(&activated.status), "{activated:?}");
    let started = client.call_with("session/start", &identity(key, device), &headers[..1]);
    assert_eq!(started.status, 201, "{started:?}");
    started.token()
}

/// The files below `data` whose names contain `part`, and the words that each of them holds.
pub fn holders(server: &Server, part: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files_below(&server.path("data")) {
        let name = file.display().to_string();
        if !file.is_file() || !name.contains(part) {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        for word in words {
            let mut windows = bytes.windows(word.len());
            if windows.any(|window| window.eq_ignore_ascii_case(word.as_bytes())) {
                found.push(format!("{word} in {name}"));
            }
        }
    }
    found
}

/// Runs a command with this line on standard input.
pub fn with_input(server: &Server, arguments: &[&str], line: &str) -> Output {
    let mut child = server
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // A command that does not read its input has ended by then.
    drop(writeln!(input, "{line}"));
    drop(input);
    child.wait_with_output().unwrap()
}

/// The finding of `check` about the audit log.
pub fn audit_finding(server: &Server) -> String {
    let output = server.cli(&["--json", "check"]).stdout;
    let output: serde_json::Value = serde_json::from_slice(&output).unwrap();
    let checks = output["checks"].as_array().unwrap();
    let audit = checks.iter().find(|check| check["name"] == "audit log");
    audit.unwrap()["detail"].as_str().unwrap().to_owned()
}
