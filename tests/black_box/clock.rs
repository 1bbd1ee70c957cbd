//! Clocks that are wrong when the server starts. The machine's own is not touched: libfaketime gives the process
//! another one.

use std::path::{Path, PathBuf};

use license_server::clock::UnixMs;
use rusqlite::{Connection, named_params};
use serde_json::{Value, json};

use crate::scene::{AUTO_ACTIVATE, NO_LIMIT, now_ms, started, value};
use crate::support::{Server, beat, claim, eventually, is_there};

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// libfaketime; none where it is not there, which is said aloud.
fn library() -> Option<PathBuf> {
    is_there("faketime").then(|| {
        let found = LIBRARIES.iter().map(Path::new).find(|path| path.exists());
        found.unwrap().to_owned()
    })
}

/// From now on the server and its commands have this clock, such as `+400d`.
fn set_clock(server: &mut Server, library: &Path, clock: &str) {
    let (preload, clock) = (
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME={clock}"),
    );
    server.launch_by(&[
        "env",
        &preload,
        &clock,
        // Waits are measured by a clock that cannot be wrong.
        "DONT_FAKE_MONOTONIC=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "NO_FAKE_STAT=1",
    ]);
}

/// What `check` says of the clock.
fn clock_line(server: &Server) -> (bool, String) {
    let output = server.cli(&["--json", "check"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut checks = told["checks"].as_array().unwrap().iter();
    let clock = checks.find(|check| check["name"] == "clock").unwrap();
    (
        clock["ok"].as_bool().unwrap(),
        clock["detail"].as_str().unwrap().to_owned(),
    )
}

/// The day that is so many days away, by a clock that is right.
fn in_days(days: i64) -> String {
    UnixMs(now_ms() + days * 86_400_000).day()
}

#[test]
fn a_clock_that_is_far_ahead_at_the_start_ends_no_session_and_no_license() {
    let Some(library) = library() else { return };
    let mut server = started(&[AUTO_ACTIVATE], &[NO_LIMIT]);
    let key = server.license(1);
    server.json(&["license", "extend", &key, "--until", &in_days(30)]);
    let token = server.client().session(&key, "laptop");
    assert_eq!(server.stop(), Some(0));
    set_clock(&mut server, &library, "+400d");
    server.run();
    // The certificate is made by the machine's clock, and clients judge it by theirs: not what is tried here.
    let trusting = Blind::of(&server);
    let beaten = trusting.post("session/heartbeat", &beat(&key, &token));
    assert_eq!(beaten["status"], "ok", "{beaten}");
    let verified = trusting.post("verify", &claim(&key, "laptop"));
    assert_eq!(verified["code"], "valid", "{verified}");
    eventually("a line in the log", || {
        server.log().contains("far ahead of the latest known date")
    });
    let (ok, told) = clock_line(&server);
    assert!(!ok && told.contains("15 minutes"), "{told}");
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["session"]["machine_id"], "laptop", "{shown}");
    server.kill();
    // A command without a server goes by the same rule.
    let (ok, told) = clock_line(&server);
    assert!(
        !ok && told.contains("does not appear to be synchronized"),
        "{told}"
    );
    let issued = server.cli(&["license", "list"]);
    let warned = String::from_utf8(issued.stderr).unwrap();
    assert!(
        warned.contains("this command uses") && warned.contains("--accept-clock"),
        "{warned}"
    );
    server.launch_by(&[]);
    server.run();
    let beaten = server
        .client()
        .call("session/heartbeat", &beat(&key, &token));
    assert_eq!(beaten.status, 200, "{beaten:?}");
    let year = "select count(*) from session_history";
    assert_eq!(value::<u32>(&server, year), 0);
    // Nothing of the wrong year is left in the file.
    let high = "select high_water_ms - (select max(created_at_ms) from licenses) from server_state";
    assert!(value::<i64>(&server, high) < 86_400_000);
    let (ok, told) = clock_line(&server);
    assert!(ok, "{told}");
}

/// The date that a new license of 30 days ends on, as a command without a server issues it.
fn trial_until(server: &Server) -> String {
    let issued = server.json(&["license", "issue", "--customer", "1", "--kind", "trial"]);
    let until = issued["licenses"][0]["valid_until"].as_str().unwrap();
    until.split('T').next().unwrap().to_owned()
}

#[test]
fn a_stop_costs_nothing_where_it_explains_how_far_ahead_the_clock_is() {
    let mut server = started(&[AUTO_ACTIVATE], &[NO_LIMIT]);
    server.license(1);
    assert_eq!(server.stop(), Some(0));
    // Both the database and the note beside it.
    let lock = server.path("data/license-server.sqlite3.lock");
    let back = |days: i64| {
        let moved = now_ms() - days * 86_400_000;
        let file = Connection::open(server.database()).unwrap();
        let sql = "update server_state set high_water_ms = :moved";
        file.execute(sql, named_params! { ":moved": moved })
            .unwrap();
        let note = std::fs::read_to_string(&lock).unwrap();
        let (before, rest) = note.split_once("seen=").unwrap();
        let (_, after) = rest.split_once(' ').unwrap();
        std::fs::write(&lock, format!("{before}seen={moved} {after}")).unwrap();
    };
    // The same boot, and the clock went on by itself: however long ago it was.
    back(60);
    let (ok, told) = clock_line(&server);
    assert!(ok && told.contains("has not rebooted"), "{told}");
    assert_eq!(trial_until(&server), in_days(30));
    // Another boot: by the length of the stop.
    let note = std::fs::read_to_string(&lock).unwrap();
    assert!(note.contains("boot="), "{note}");
    let other = "boot=00000000-0000-0000-0000-000000000000";
    let at = note.find("boot=").unwrap();
    let note = format!("{}{other}{}", &note[..at], &note[at + other.len()..]);
    std::fs::write(&lock, note).unwrap();
    back(3);
    let (ok, told) = clock_line(&server);
    assert!(ok && told.contains("is at most 5 days ago"), "{told}");
    assert_eq!(trial_until(&server), in_days(30));
    back(60);
    let (ok, told) = clock_line(&server);
    assert!(!ok && told.contains("more than 5 days earlier"), "{told}");
    assert_eq!(trial_until(&server), in_days(-30));
}

#[test]
fn an_operator_may_have_a_clock_believed_at_once() {
    let Some(library) = library() else { return };
    let mut server = started(&[AUTO_ACTIVATE], &[NO_LIMIT]);
    let key = server.license(1);
    server.json(&["license", "extend", &key, "--until", &in_days(30)]);
    assert_eq!(server.stop(), Some(0));
    set_clock(&mut server, &library, "+400d");
    server.cli(&["check", "--accept-clock"]);
    server.run();
    let verified = Blind::of(&server).post("verify", &claim(&key, "laptop"));
    assert_eq!(verified["code"], "license_expired", "{verified}");
    assert!(!server.log().contains("far ahead"), "{}", server.log());
}

#[test]
fn a_first_start_in_1970_makes_what_is_valid_when_the_clock_is_right() {
    let Some(library) = library() else { return };
    let mut server = Server::prepare(&[AUTO_ACTIVATE]);
    set_clock(&mut server, &library, "@1970-01-02 03:04:05");
    server.run();
    let (ok, told) = clock_line(&server);
    assert!(!ok && told.contains("1970"), "{told}");
    let key = server.license(1);
    server.json(&["license", "extend", &key, "--until", &in_days(3650)]);
    // By the right clock: the authority and its certificate are good already.
    let token = server.client().session(&key, "laptop");
    let authority = std::fs::read(server.path("data/tls/ca.pem")).unwrap();
    assert_eq!(server.stop(), Some(0));
    server.launch_by(&[]);
    server.run();
    // The clock is far ahead of 1970, and of this program: that it was wrong then is no reason to doubt it now.
    server.json(&["session", "list"]);
    let beaten = server
        .client()
        .call("session/heartbeat", &beat(&key, &token));
    assert_eq!(beaten.status, 200, "{beaten:?}");
    let verified = server.client().call("verify", &claim(&key, "laptop"));
    assert_eq!(verified.code(), "valid", "{verified:?}");
    assert_eq!(
        std::fs::read(server.path("data/tls/ca.pem")).unwrap(),
        authority
    );
}

/// A program that looks at no certificate: the server's is of another year than the test.
struct Blind {
    agent: ureq::Agent,
    url: String,
    api_key: String,
}

impl Blind {
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

    fn post(&self, deed: &str, body: &Value) -> Value {
        let request = self.agent.post(format!("{}/{deed}", self.url));
        let request = request.header("X-API-Key", &self.api_key);
        let answered = request.send_json(body).unwrap().body_mut().read_json();
        answered.unwrap_or(json!(null))
    }
}
