//! Wrong system clocks at the start of the server, simulated for the process by libfaketime.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use license_server::clock::UnixMs;
use serde_json::{Value, json};

use crate::database;
use crate::setup::{AUTO_ACTIVATE, NO_LIMIT, started};
use crate::support::{Server, eventually, heartbeat_body, identity, is_installed};
use crate::timing::now_ms;

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// The path of libfaketime; `None`, with a printed line, if it is not installed.
pub fn library() -> Option<PathBuf> {
    is_installed("faketime").then(|| {
        let found = LIBRARIES.iter().map(Path::new).find(|path| path.exists());
        found.unwrap().to_owned()
    })
}

/// Writes a program that says in place of `timedatectl` whether the kernel's clock is synchronized, `yes` or `no`.
/// Returns the assignment with which `env` makes the server find it.
pub fn write_word_of_kernel(server: &Server, word: &str) -> String {
    let folder = server.path("bin");
    std::fs::create_dir_all(&folder).unwrap();
    // Renamed into place: the server may run it at any time.
    let (draft, program) = (folder.join("draft"), folder.join("timedatectl"));
    std::fs::write(&draft, format!("#!/bin/sh\necho {word}\n")).unwrap();
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&draft, program).unwrap();
    let others = std::env::var("PATH").unwrap();
    format!("PATH={}:{others}", folder.display())
}

/// Sets the clock of the server and its commands, such as `+400d`, from the next start on; the kernel does not
/// confirm it.
pub fn set_clock(server: &mut Server, library: &Path, clock: &str) {
    let path = write_word_of_kernel(server, "no");
    let (preload, clock) = (
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME={clock}"),
    );
    server.set_launcher(&[
        "env",
        &path,
        &preload,
        &clock,
        // The monotonic clock stays real, since waits are measured with it.
        "DONT_FAKE_MONOTONIC=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "NO_FAKE_STAT=1",
    ]);
}

/// The result of `check` for the clock: whether it is ok, and the detail.
fn clock_line(server: &Server) -> (bool, String) {
    let output = server.cli(&["--json", "check"]);
    let output: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut checks = output["checks"].as_array().unwrap().iter();
    let clock = checks.find(|check| check["name"] == "clock").unwrap();
    (
        clock["ok"].as_bool().unwrap(),
        clock["detail"].as_str().unwrap().to_owned(),
    )
}

/// The date in `days` days, by the real clock.
fn in_days(days: i64) -> String {
    UnixMs(now_ms() + days * 86_400_000).day()
}

#[test]
fn a_clock_far_ahead_at_the_start_ends_no_session_and_expires_no_license() {
    let Some(library) = library() else { return };
    let mut server = started(&[AUTO_ACTIVATE], &[NO_LIMIT]);
    let key = server.issue_license(1);
    server.json(&["license", "extend", &key, "--until", &in_days(30)]);
    let token = server.client().session(&key, "laptop");
    assert_eq!(server.stop(), Some(0));
    set_clock(&mut server, &library, "+400d");
    server.run();
    // The certificate is dated by the wrong clock, so this client does not verify it.
    let client = UnverifyingClient::of(&server);
    let heartbeat = client.post("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat["status"], "ok", "{heartbeat}");
    let verified = client.post("verify", &identity(&key, "laptop"));
    assert_eq!(verified["code"], "valid", "{verified}");
    eventually("a line in the log", || {
        server.log().contains("far ahead of the latest known date")
    });
    let (ok, detail) = clock_line(&server);
    assert!(!ok && detail.contains("15 minutes"), "{detail}");
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["session"]["machine_id"], "laptop", "{shown}");
    server.kill();
    // A command without a running server follows the same rule.
    let (ok, detail) = clock_line(&server);
    assert!(
        !ok && detail.contains("does not appear to be synchronized"),
        "{detail}"
    );
    let issued = server.cli(&["license", "list"]);
    let warned = String::from_utf8(issued.stderr).unwrap();
    assert!(
        warned.contains("this command uses") && warned.contains("--accept-clock"),
        "{warned}"
    );
    server.set_launcher(&[]);
    server.run();
    let heartbeat = server
        .client()
        .call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    assert_eq!(database::count(&server, "session_history"), 0);
    // Nothing in the database is dated by the wrong clock.
    assert!(database::latest_date_since_last_license_ms(&server) < 86_400_000);
    let (ok, detail) = clock_line(&server);
    assert!(ok, "{detail}");
}

/// The expiry date of a new trial license of 30 days, issued by a command without a running server.
fn trial_until(server: &Server) -> String {
    let issued = server.json(&["license", "issue", "--customer", "1", "--kind", "trial"]);
    let until = issued["licenses"][0]["valid_until"].as_str().unwrap();
    until.split('T').next().unwrap().to_owned()
}

/// Moves the last seen time back, both in the database and in the lock file.
fn move_latest_date_back(server: &Server, days: i64) {
    let lock = lock_file(server);
    let moved = now_ms() - days * 86_400_000;
    database::set_latest_date(server, moved);
    let note = std::fs::read_to_string(&lock).unwrap();
    let (before, rest) = note.split_once("seen=").unwrap();
    let (_, after) = rest.split_once(' ').unwrap();
    std::fs::write(&lock, format!("{before}seen={moved} {after}")).unwrap();
}

/// Replaces the boot in the lock file, as if the machine had rebooted since the server stopped.
fn reboot(server: &Server) {
    let lock = lock_file(server);
    let note = std::fs::read_to_string(&lock).unwrap();
    assert!(note.contains("boot="), "{note}");
    let other = "boot=00000000-0000-0000-0000-000000000000";
    let at = note.find("boot=").unwrap();
    let note = format!("{}{other}{}", &note[..at], &note[at + other.len()..]);
    std::fs::write(&lock, note).unwrap();
}

fn lock_file(server: &Server) -> PathBuf {
    server.path("data/license-server.sqlite3.lock")
}

#[test]
fn after_a_reboot_a_clock_ahead_is_trusted_only_if_the_kernel_confirms_it() {
    let mut server = started(&[AUTO_ACTIVATE], &[NO_LIMIT]);
    server.issue_license(1);
    assert_eq!(server.stop(), Some(0));
    let path = write_word_of_kernel(&server, "no");
    server.set_launcher(&["env", &path]);
    // The same boot: the clock has run without a break, so any distance is accepted.
    move_latest_date_back(&server, 60);
    let (ok, detail) = clock_line(&server);
    assert!(ok && detail.contains("has not rebooted"), "{detail}");
    assert_eq!(trial_until(&server), in_days(30));
    reboot(&server);
    for days in [1, 60] {
        move_latest_date_back(&server, days);
        let (ok, detail) = clock_line(&server);
        assert!(
            !ok && detail.contains("does not appear to be synchronized"),
            "{detail}"
        );
        assert_eq!(trial_until(&server), in_days(30 - days));
    }
    move_latest_date_back(&server, 60);
    write_word_of_kernel(&server, "yes");
    let (ok, detail) = clock_line(&server);
    assert!(ok && detail.contains("it is synchronized"), "{detail}");
    assert_eq!(trial_until(&server), in_days(30));
}

#[test]
fn a_server_that_waits_for_its_clock_trusts_it_once_the_kernel_confirms_it() {
    let mut server = started(&[AUTO_ACTIVATE], &[NO_LIMIT]);
    assert_eq!(server.stop(), Some(0));
    let path = write_word_of_kernel(&server, "no");
    server.set_launcher(&["env", &path]);
    move_latest_date_back(&server, 3);
    reboot(&server);
    server.run();
    eventually("it waits", || {
        server.log().contains("far ahead of the latest known date")
    });
    write_word_of_kernel(&server, "yes");
    eventually("the clock is trusted", || {
        server.log().contains("the system clock is trusted again")
    });
    // Commands learn it from the database, where it is written a moment later.
    eventually("a command trusts it too", || clock_line(&server).0);
}

#[test]
fn an_operator_can_have_a_clock_accepted_at_once() {
    let Some(library) = library() else { return };
    let mut server = started(&[AUTO_ACTIVATE], &[NO_LIMIT]);
    let key = server.issue_license(1);
    server.json(&["license", "extend", &key, "--until", &in_days(30)]);
    assert_eq!(server.stop(), Some(0));
    set_clock(&mut server, &library, "+400d");
    server.cli(&["check", "--accept-clock"]);
    server.run();
    let verified = UnverifyingClient::of(&server).post("verify", &identity(&key, "laptop"));
    assert_eq!(verified["code"], "license_expired", "{verified}");
    assert!(!server.log().contains("far ahead"), "{}", server.log());
}

#[test]
fn a_first_start_in_1970_creates_a_certificate_that_is_valid_by_the_right_clock() {
    let Some(library) = library() else { return };
    let mut server = Server::prepare(&[AUTO_ACTIVATE]);
    set_clock(&mut server, &library, "@1970-01-02 03:04:05");
    server.run();
    let (ok, detail) = clock_line(&server);
    assert!(!ok && detail.contains("1970"), "{detail}");
    let key = server.issue_license(1);
    server.json(&["license", "extend", &key, "--until", &in_days(3650)]);
    // The client has the right clock: the authority and its certificate are valid already.
    let token = server.client().session(&key, "laptop");
    let authority = std::fs::read(server.path("data/tls/ca.pem")).unwrap();
    assert_eq!(server.stop(), Some(0));
    server.set_launcher(&[]);
    server.run();
    // The clock is far ahead of the last seen time, but a last seen time of 1970 is no reason to doubt the clock.
    server.json(&["session", "list"]);
    let heartbeat = server
        .client()
        .call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
    let verified = server.client().call("verify", &identity(&key, "laptop"));
    assert_eq!(verified.code(), "valid", "{verified:?}");
    assert_eq!(
        std::fs::read(server.path("data/tls/ca.pem")).unwrap(),
        authority
    );
}

/// A client that does not verify the certificate, whose dates may be those of a wrong clock.
struct UnverifyingClient {
    agent: ureq::Agent,
    url: String,
    api_key: String,
}

impl UnverifyingClient {
    fn of(server: &Server) -> Self {
        let tls = ureq::tls::TlsConfig::builder()
            .disable_verification(true)
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.into(),
            url: format!("https://localhost:{}/api/license", server.port()),
            api_key: server.api_key().to_owned(),
        }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.agent.post(format!("{}/{path}", self.url));
        let request = request.header("X-API-Key", &self.api_key);
        let response = request.send_json(body).unwrap().body_mut().read_json();
        response.unwrap_or(json!(null))
    }
}
