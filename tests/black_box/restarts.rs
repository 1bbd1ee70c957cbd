//! A stop of the server costs no client its session.

use std::time::Instant;

use serde_json::json;

use crate::scene::{
    AUTO_ACTIVATE, HURRY, NO_LIMIT, SILENCE, started, unless_too_slow, value, wait_until,
};
use crate::support::{Server, beat, claim};

const THREADS: usize = 8;

/// Asks for every pair of `keys` and a token by a few clients; how many got `status`.
fn beats(server: &Server, sessions: &[(String, String)], status: u16) -> usize {
    std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .chunks(sessions.len().div_ceil(THREADS))
            .map(|part| {
                scope.spawn(|| {
                    let client = server.client();
                    let told = |(key, token): &(String, String)| {
                        client.call("session/heartbeat", &beat(key, token)).status
                    };
                    part.iter()
                        .filter(|session| told(session) == status)
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

fn starts(server: &Server, keys: Vec<String>) -> Vec<(String, String)> {
    let size = keys.len().div_ceil(THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = keys
            .chunks(size)
            .map(|part| {
                scope.spawn(|| {
                    let client = server.client();
                    let start = |key: &String| {
                        let started = client.call("session/start", &claim(key, "laptop"));
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
fn after_a_restart_every_one_of_1000_live_sessions_goes_on() {
    let mut server = started(&[AUTO_ACTIVATE], &[NO_LIMIT]);
    let keys = server.licenses(1, 1000);
    let sessions = starts(&server, keys);
    assert_eq!(sessions.len(), 1000);
    server.restart();
    assert_eq!(beats(&server, &sessions, 200), 1000);
    server.kill();
    server.run();
    assert_eq!(beats(&server, &sessions, 200), 1000);
    let refused = server.call("session/start", &claim(&sessions[0].0, "laptop"));
    assert_eq!(
        refused.told(),
        (409, "session_active"),
        "a session that lives is still in the way"
    );
}

#[test]
fn time_in_which_the_server_was_down_counts_towards_no_timeout() {
    unless_too_slow(|| {
        let settings = [("SESSIONS__CLEANUP_INTERVAL", "1"), AUTO_ACTIVATE];
        let mut server = started(&settings, &[HURRY]);
        let begun = Instant::now();
        let mut sessions = starts(&server, server.licenses(1, 4));
        let (key, token) = sessions.pop().unwrap();
        server.call("session/end", &json!({ "session_token": token }));
        let mut in_time = begun.elapsed() < SILENCE;
        for stop in [Server::stop, killed] {
            let heard = Instant::now();
            let alive = beats(&server, &sessions, 200);
            stop(&mut server);
            if !in_time || heard.elapsed() >= SILENCE {
                return None;
            }
            assert_eq!(alive, 3);
            wait_until(Instant::now(), SILENCE + SILENCE / 4);
            let started = Instant::now();
            server.run();
            let alive = beats(&server, &sessions, 200);
            let over = server.call("session/heartbeat", &beat(&key, &token));
            assert_eq!(over.told(), (410, "session_ended"), "ended is ended");
            in_time = started.elapsed() < SILENCE;
            assert!(alive == 3 || !in_time, "{alive}");
        }
        // And then each has its whole timeout again, not more.
        wait_until(Instant::now(), SILENCE);
        assert_eq!(beats(&server, &sessions, 410), 3);
        let lost = "select count(*) from session_history where end_reason = 'timeout'";
        assert_eq!(value::<u32>(&server, lost), 3);
        in_time.then_some(())
    });
}

fn killed(server: &mut Server) -> Option<i32> {
    server.kill();
    None
}
