//! Sessions survive a restart of the server.

use std::time::Instant;

use serde_json::json;

use crate::database;
use crate::setup::{AUTO_ACTIVATE, NO_LIMIT, SESSION_TIMEOUT, SHORT_TIMEOUT, started};
use crate::support::{Server, heartbeat_body, identity};
use crate::timing::{retry_while_too_slow, wait_until};

const THREADS: usize = 8;

/// Sends a heartbeat for each session (license key and token) with a few clients, and returns how many got `status`.
fn heartbeats_with_status(server: &Server, sessions: &[(String, String)], status: u16) -> usize {
    std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .chunks(sessions.len().div_ceil(THREADS))
            .map(|part| {
                scope.spawn(|| {
                    let client = server.client();
                    let heartbeat = |(key, token): &(String, String)| {
                        client
                            .call("session/heartbeat", &heartbeat_body(key, token))
                            .status
                    };
                    part.iter()
                        .filter(|session| heartbeat(session) == status)
                        .count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

/// Starts a session for each key, and returns keys and tokens.
fn start_sessions(server: &Server, keys: Vec<String>) -> Vec<(String, String)> {
    let size = keys.len().div_ceil(THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = keys
            .chunks(size)
            .map(|part| {
                scope.spawn(|| {
                    let client = server.client();
                    let start = |key: &String| {
                        let started = client.call("session/start", &identity(key, "laptop"));
                        (key.clone(), started.token())
                    };
                    part.iter().map(start).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn all_of_1000_sessions_continue_after_a_restart_and_after_a_kill() {
    let mut server = started(&[AUTO_ACTIVATE], &[NO_LIMIT]);
    let keys = server.issue_licenses(1, 1000);
    let sessions = start_sessions(&server, keys);
    assert_eq!(sessions.len(), 1000);
    server.restart();
    assert_eq!(heartbeats_with_status(&server, &sessions, 200), 1000);
    server.kill();
    server.run();
    assert_eq!(heartbeats_with_status(&server, &sessions, 200), 1000);
    let refused = server.call("session/start", &identity(&sessions[0].0, "laptop"));
    assert_eq!(
        refused.status_and_code(),
        (409, "session_active"),
        "the session still occupies the license"
    );
}

#[test]
fn downtime_of_the_server_does_not_count_towards_the_timeout() {
    retry_while_too_slow(|| {
        let settings = [("SESSIONS__CLEANUP_INTERVAL", "1"), AUTO_ACTIVATE];
        let mut server = started(&settings, &[SHORT_TIMEOUT]);
        let begun = Instant::now();
        let mut sessions = start_sessions(&server, server.issue_licenses(1, 4));
        let (key, token) = sessions.pop().unwrap();
        server.call("session/end", &json!({ "session_token": token }));
        let mut in_time = begun.elapsed() < SESSION_TIMEOUT;
        for stop in [Server::stop, kill] {
            let last_heartbeat = Instant::now();
            let alive = heartbeats_with_status(&server, &sessions, 200);
            stop(&mut server);
            if !in_time || last_heartbeat.elapsed() >= SESSION_TIMEOUT {
                return None;
            }
            assert_eq!(alive, 3);
            wait_until(Instant::now(), SESSION_TIMEOUT + SESSION_TIMEOUT / 4);
            let started = Instant::now();
            server.run();
            let alive = heartbeats_with_status(&server, &sessions, 200);
            let ended = server.call("session/heartbeat", &heartbeat_body(&key, &token));
            assert_eq!(
                ended.status_and_code(),
                (410, "session_ended"),
                "an ended session stays ended"
            );
            in_time = started.elapsed() < SESSION_TIMEOUT;
            assert!(alive == 3 || !in_time, "{alive}");
        }
        // After the restart each session has its whole timeout again, but not more.
        wait_until(Instant::now(), SESSION_TIMEOUT);
        assert_eq!(heartbeats_with_status(&server, &sessions, 410), 3);
        assert_eq!(database::timed_out_sessions(&server), 3);
        in_time.then_some(())
    });
}

/// Kills the server, with the signature of [`Server::stop`].
fn kill(server: &mut Server) -> Option<i32> {
    server.kill();
    None
}
