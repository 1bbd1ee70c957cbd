//! The graceful stop.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::database;
use crate::setup::{AUTO_ACTIVATE, MANY_STARTS, NO_LIMIT, WHOLE_HISTORY, started};
use crate::support::{Server, eventually, heartbeat_body, identity, stalls};
use crate::timing::retry_while_too_slow;
use crate::wire;

/// Maximum duration of a stop, as specified.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long requests in progress are awaited: a little less than `server.shutdown_grace`.
const AWAITED: Duration = Duration::from_millis(3500);

/// Starts and ends sessions until the server no longer answers; returns the number of starts that it answered.
fn start_and_end_sessions(server: &Server, key: &str, answered: &AtomicUsize) -> u32 {
    let mut tls = wire::tls(server);
    // This panics if a response is incomplete.
    let mut ask = |endpoint: &str, body: &Value| {
        let body = body.to_string();
        let request = wire::post(
            server,
            &format!("/api/license/{endpoint}"),
            body.len(),
            &body,
        );
        wire::exchange(&mut tls, &request)
    };
    let mut starts = 0;
    while let Some(start) = ask("session/start", &identity(key, "laptop")) {
        assert_eq!(start.status, 201, "{start:?}");
        starts += 1;
        answered.fetch_add(1, Ordering::Relaxed);
        let token: Value = serde_json::from_str(&start.body).unwrap();
        let heartbeat = heartbeat_body(key, token["session_token"].as_str().unwrap());
        for endpoint in ["session/heartbeat", "session/end"] {
            let Some(response) = ask(endpoint, &heartbeat) else {
                return starts;
            };
            assert_eq!(response.status, 200, "{response:?}");
        }
    }
    starts
}

#[test]
fn every_response_is_completed_when_the_server_stops_under_load() {
    for signal in ["TERM", "INT"] {
        let mut server = started(&[AUTO_ACTIVATE, MANY_STARTS, WHOLE_HISTORY], &[NO_LIMIT]);
        let keys = server.issue_licenses(1, 8);
        let answered = AtomicUsize::new(0);
        let (started_at, starts) = std::thread::scope(|scope| {
            let (server, answered) = (&server, &answered);
            let programs: Vec<_> = keys
                .iter()
                .map(|key| scope.spawn(move || start_and_end_sessions(server, key, answered)))
                .collect();
            eventually("load", || answered.load(Ordering::Relaxed) > 50);
            server.signal(signal);
            let started_at = Instant::now();
            let starts: u32 = programs
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum();
            (started_at, starts)
        });
        assert_eq!(server.wait(), Some(0), "{signal}: {}", server.log());
        let duration = stalls::awake_since(started_at);
        assert!(duration < STOP_MAX, "{signal}: {duration:?}");
        let wal = server.path("data/license-server.sqlite3-wal");
        assert!(
            !wal.exists() || wal.metadata().unwrap().len() == 0,
            "checkpointed"
        );
        // Every answered start is in the database. The one in progress on each connection may be.
        server.run();
        let running = database::count(&server, "active_sessions");
        let sessions = database::count(&server, "session_history") + running;
        assert!(
            (starts..=starts + 8).contains(&sessions),
            "{starts} answered, {sessions} stored"
        );
    }
}

/// Waits until the server has read what another connection has sent before: it has, once a later request on `idle` has been
/// answered.
fn wait_until_read(server: &Server, idle: &mut wire::Tls) {
    let version = wire::get(server, "/api/license/version?version=1.0.0", "");
    eventually("the beginning to be read", || {
        std::thread::park_timeout(Duration::from_millis(200));
        wire::exchange(idle, &version).is_some_and(|response| response.status == 200)
    });
}

/// Sends SIGTERM, and waits until the server has noticed it.
fn begin_stop(server: &Server) -> Instant {
    let asked_at = Instant::now();
    server.signal("TERM");
    eventually("the log line", || {
        server.log().contains("no more requests are taken")
    });
    asked_at
}

#[test]
fn a_request_in_progress_is_completed_and_no_connection_is_accepted() {
    retry_while_too_slow(|| {
        let mut server = started(&[AUTO_ACTIVATE], &[]);
        let body = identity(&server.issue_license(1), "laptop").to_string();
        let request = wire::post(&server, "/api/license/session/start", body.len(), &body);
        let (first, rest) = request.split_at(request.len() - 10);
        let (mut in_progress, mut idle) = (wire::tls(&server), wire::tls(&server));
        wait_until_read(&server, &mut idle);
        in_progress.write_all(first).unwrap();
        in_progress.flush().unwrap();
        wait_until_read(&server, &mut idle);
        let asked_at = begin_stop(&server);
        assert!(wire::closes(&mut idle), "an idle connection ends at once");
        eventually("the port to be closed", || {
            std::net::TcpStream::connect(("127.0.0.1", server.port())).is_err()
        });
        let response = wire::exchange(&mut in_progress, rest);
        if asked_at.elapsed() >= AWAITED {
            return None;
        }
        let response = response.unwrap();
        assert_eq!(response.status, 201, "{}", response.body);
        assert!(wire::closes(&mut in_progress), "after its last response");
        assert_eq!(server.wait(), Some(0), "{}", server.log());
        Some(())
    });
}

#[test]
fn slow_clients_do_not_delay_the_stop() {
    let mut server = Server::start();
    let half = wire::post(&server, "/api/license/activate", 100, "{");
    let mut tls = wire::tls(&server);
    tls.write_all(&half).unwrap();
    tls.flush().unwrap();
    let silent: Vec<_> = (0..5).map(|_| wire::connect(&server)).collect();
    let idle: Vec<_> = (0..5).map(|_| wire::tls(&server)).collect();
    let started_at = Instant::now();
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    let took = stalls::awake_since(started_at);
    assert!(took < STOP_MAX, "{took:?}");
    drop((silent, idle));
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    retry_while_too_slow(|| {
        let mut server = Server::start();
        let (mut tls, mut idle) = (wire::tls(&server), wire::tls(&server));
        tls.write_all(&wire::post(&server, "/api/license/activate", 100, "{"))
            .unwrap();
        tls.flush().unwrap();
        wait_until_read(&server, &mut idle);
        let asked_at = begin_stop(&server);
        server.signal("INT");
        // A graceful stop would exit with 0.
        let status = server.wait();
        if asked_at.elapsed() >= AWAITED {
            return None;
        }
        assert_eq!(status, Some(1), "{}", server.log());
        server.run();
        let sessions = server.json(&["session", "list"]);
        assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(0));
        Some(())
    });
}
