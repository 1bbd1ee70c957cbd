//! A process that stood still was down: no session is lost by it (client-api.md, *Clock and restarts*).

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::scene::{
    AUTO_ACTIVATE, NO_LIMIT, NO_SWEEP, running, started, together, unless_too_slow, value,
    wait_until,
};
use crate::support::{Answer, Client, Server, beat, claim, eventually};

/// A timeout that a busy machine reaches with many programs, and how long the server is stopped.
const TIMEOUT: Duration = Duration::from_secs(6);
const QUICK: &[&str] = &["config", "set", "heartbeat_interval=1", "session_timeout=6"];
const STOPPED: Duration = Duration::from_secs(7);
const PROGRAMS: usize = 64;

/// A program that runs, and another device that wants its license, each on a connection of its own.
struct Pair {
    key: String,
    token: String,
    owner: Client,
    other: Client,
}

impl Pair {
    fn open(server: &Server, key: &str) -> Self {
        let (owner, other) = (server.client(), server.client());
        let started = owner.call("session/start", &claim(key, "owner"));
        let refused = other.call("session/start", &claim(key, "other"));
        assert_eq!(refused.told(), (409, "session_active"));
        Self {
            key: key.to_owned(),
            token: started.token(),
            owner,
            other,
        }
    }

    fn beats(&self) -> u16 {
        let beat = beat(&self.key, &self.token);
        self.owner.call("session/heartbeat", &beat).status
    }

    fn other_starts(&self) -> Answer {
        self.other.call("session/start", &claim(&self.key, "other"))
    }
}

fn open(server: &Server) -> Vec<Pair> {
    let keys = server.licenses(2, u32::try_from(PROGRAMS).unwrap());
    together(8, |thread| {
        let own = keys.iter().skip(thread).step_by(8);
        own.map(|key| Pair::open(server, key)).collect::<Vec<_>>()
    })
    .into_iter()
    .flatten()
    .collect()
}

/// What `of` gives for every pair, all at once.
fn all<T: Send>(pairs: &[Pair], of: impl Fn(&Pair) -> T + Sync) -> Vec<T> {
    together(pairs.len(), |number| of(&pairs[number]))
}

#[test]
fn a_server_that_was_stopped_for_longer_than_the_timeout_goes_on_with_every_session() {
    unless_too_slow(|| {
        let server = started(&[AUTO_ACTIVATE], &[QUICK, NO_LIMIT]);
        let begun = Instant::now();
        let pairs = open(&server);
        let beaten = all(&pairs, Pair::beats);
        server.signal("STOP");
        if begun.elapsed() >= TIMEOUT {
            return None;
        }
        assert_eq!(beaten, [200; PROGRAMS]);
        // What the other devices ask lies there when the server runs again: it is the first that it reads.
        let (told, thawed) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| all(&pairs, Pair::other_starts));
            wait_until(Instant::now(), STOPPED);
            let thawed = Instant::now();
            server.signal("CONT");
            (asking.join().unwrap(), thawed)
        });
        let in_time = thawed.elapsed() < TIMEOUT;
        for answer in &told {
            assert!(
                answer.told() == (409, "session_active") || !in_time,
                "{answer:?}"
            );
        }
        // The file says the same to everybody else, by the server's new start.
        eventually("the file knows", || {
            running(&server).len() == PROGRAMS || thawed.elapsed() >= TIMEOUT
        });
        let beaten = all(&pairs, Pair::beats);
        if thawed.elapsed() >= TIMEOUT {
            return None;
        }
        assert_eq!(beaten, [200; PROGRAMS]);
        assert!(server.log().contains("stood still"), "{}", server.log());
        assert_eq!(
            value::<u32>(&server, "select count(*) from session_history"),
            0
        );
        Some(())
    });
}

#[test]
fn after_a_stop_a_silent_session_has_its_timeout_once_and_no_longer() {
    unless_too_slow(|| {
        // The sweep does not matter: whoever asks is told right.
        let server = started(&[AUTO_ACTIVATE, NO_SWEEP], &[QUICK, NO_LIMIT]);
        let key = server.license(2);
        let heard = Instant::now();
        let pair = Pair::open(&server, &key);
        assert_eq!(pair.beats(), 200);
        server.signal("STOP");
        let stopped_at = Instant::now();
        wait_until(stopped_at, STOPPED);
        server.signal("CONT");
        let thawed = Instant::now();
        if stopped_at.duration_since(heard) > TIMEOUT / 2 {
            return None;
        }
        wait_until(thawed, Duration::from_secs(4));
        let refused = pair.other_starts();
        if thawed.elapsed() >= Duration::from_secs(5) {
            return None;
        }
        assert_eq!(refused.told(), (409, "session_active"));
        wait_until(thawed, TIMEOUT + Duration::from_secs(1));
        assert_eq!(pair.other_starts().status, 201, "{}", server.log());
        assert_eq!(pair.beats(), 410);
        let ended = server.json(&["session", "history"]);
        let ended: &Value = &ended["sessions"][0];
        assert_eq!(ended["end_reason"], "timeout", "{ended}");
        let silent = "select ended_at_ms - last_heartbeat_at_ms from session_history";
        let silent = Duration::from_millis(u64::from(value::<u32>(&server, silent)));
        assert!(silent >= Duration::from_secs(12), "{silent:?}");
        Some(())
    });
}
