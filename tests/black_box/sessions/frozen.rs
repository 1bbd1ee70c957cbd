//! A suspended server process (SIGSTOP) loses no session, as if it had been down (client-api.md, *Clock and
//! restarts*).

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::database;
use crate::inspect::running;
use crate::setup::{AUTO_ACTIVATE, NO_LIMIT, NO_SWEEP, started};
use crate::support::{Client, Response, Server, eventually, heartbeat_body, identity};
use crate::timing::{retry_while_too_slow, run_together, wait_until};

/// A timeout long enough to start many programs on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(6);
const SHORT_TIMEOUT: &[&str] = &["config", "set", "heartbeat_interval=1", "session_timeout=6"];
/// How long the server is stopped.
const STOPPED: Duration = Duration::from_secs(7);
const PROGRAMS: usize = 64;

/// A program with a session, and another device that tries to start on its license, each on its own connection.
struct Pair {
    key: String,
    token: String,
    owner: Client,
    other: Client,
}

impl Pair {
    fn open(server: &Server, key: &str) -> Self {
        let (owner, other) = (server.client(), server.client());
        let started = owner.call("session/start", &identity(key, "owner"));
        let refused = other.call("session/start", &identity(key, "other"));
        assert_eq!(refused.status_and_code(), (409, "session_active"));
        Self {
            key: key.to_owned(),
            token: started.token(),
            owner,
            other,
        }
    }

    fn heartbeat(&self) -> u16 {
        let heartbeat = heartbeat_body(&self.key, &self.token);
        self.owner.call("session/heartbeat", &heartbeat).status
    }

    fn start_other(&self) -> Response {
        self.other
            .call("session/start", &identity(&self.key, "other"))
    }
}

fn open_pairs(server: &Server) -> Vec<Pair> {
    let keys = server.issue_licenses(2, u32::try_from(PROGRAMS).unwrap());
    run_together(8, |thread| {
        let own = keys.iter().skip(thread).step_by(8);
        own.map(|key| Pair::open(server, key)).collect::<Vec<_>>()
    })
    .into_iter()
    .flatten()
    .collect()
}

/// Calls `call` for every pair, all at once.
fn for_all<T: Send>(pairs: &[Pair], call: impl Fn(&Pair) -> T + Sync) -> Vec<T> {
    run_together(pairs.len(), |number| call(&pairs[number]))
}

#[test]
fn a_server_stopped_for_longer_than_the_timeout_keeps_every_session() {
    retry_while_too_slow(|| {
        let server = started(&[AUTO_ACTIVATE], &[SHORT_TIMEOUT, NO_LIMIT]);
        let first_start = Instant::now();
        let pairs = open_pairs(&server);
        let heartbeats = for_all(&pairs, Pair::heartbeat);
        server.signal("STOP");
        if first_start.elapsed() >= TIMEOUT {
            return None;
        }
        assert_eq!(heartbeats, [200; PROGRAMS]);
        // The requests of the other devices are waiting when the server resumes: they are the first that it reads.
        let (answers, resumed) = std::thread::scope(|scope| {
            let starts = scope.spawn(|| for_all(&pairs, Pair::start_other));
            wait_until(Instant::now(), STOPPED);
            let resumed = Instant::now();
            server.signal("CONT");
            (starts.join().unwrap(), resumed)
        });
        let in_time = resumed.elapsed() < TIMEOUT;
        for answer in &answers {
            assert!(
                answer.status_and_code() == (409, "session_active") || !in_time,
                "{answer:?}"
            );
        }
        // Commands see the same in the database, which has a new start of the server.
        eventually("commands list every session", || {
            running(&server).len() == PROGRAMS || resumed.elapsed() >= TIMEOUT
        });
        let heartbeats = for_all(&pairs, Pair::heartbeat);
        if resumed.elapsed() >= TIMEOUT {
            return None;
        }
        assert_eq!(heartbeats, [200; PROGRAMS]);
        assert!(server.log().contains("stood still"), "{}", server.log());
        assert_eq!(database::count(&server, "session_history"), 0);
        Some(())
    });
}

#[test]
fn after_a_stop_a_session_without_heartbeats_gets_its_timeout_once_more_and_no_longer() {
    retry_while_too_slow(|| {
        // Without a sweep: each request must notice the timeout itself.
        let server = started(&[AUTO_ACTIVATE, NO_SWEEP], &[SHORT_TIMEOUT, NO_LIMIT]);
        let key = server.issue_license(2);
        let before_start = Instant::now();
        let pair = Pair::open(&server, &key);
        assert_eq!(pair.heartbeat(), 200);
        server.signal("STOP");
        let stopped_at = Instant::now();
        wait_until(stopped_at, STOPPED);
        server.signal("CONT");
        let resumed = Instant::now();
        if stopped_at.duration_since(before_start) > TIMEOUT / 2 {
            return None;
        }
        wait_until(resumed, Duration::from_secs(4));
        let refused = pair.start_other();
        if resumed.elapsed() >= Duration::from_secs(5) {
            return None;
        }
        assert_eq!(refused.status_and_code(), (409, "session_active"));
        wait_until(resumed, TIMEOUT + Duration::from_secs(1));
        assert_eq!(pair.start_other().status, 201, "{}", server.log());
        assert_eq!(pair.heartbeat(), 410);
        let ended = server.json(&["session", "history"]);
        let ended: &Value = &ended["sessions"][0];
        assert_eq!(ended["end_reason"], "timeout", "{ended}");
        let lasted = database::ended_sessions(&server)[0].silent_ms();
        assert!(lasted >= 12_000, "{lasted}");
        Some(())
    });
}
