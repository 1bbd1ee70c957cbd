//! The orderly stop.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::scene::{AUTO_ACTIVATE, MANY_STARTS, NO_LIMIT, WHOLE_HISTORY, started, value};
use crate::support::{Server, beat, claim, eventually};
use crate::wire;

/// Longest stop of the contract.
const STOP: Duration = Duration::from_secs(5);

/// Starts and ends sessions until the server does not answer any more; how many starts it answered.
fn busy(server: &Server, key: &str, answered: &AtomicUsize) -> u32 {
    let mut tls = wire::tls(server);
    // An answer that was begun and breaks off would panic in here.
    let mut ask = |deed: &str, body: &Value| {
        let body = body.to_string();
        let request = wire::post(server, &format!("/api/license/{deed}"), body.len(), &body);
        wire::ask(&mut tls, &request)
    };
    let mut starts = 0;
    while let Some(start) = ask("session/start", &claim(key, "laptop")) {
        assert_eq!(start.status, 201, "{start:?}");
        starts += 1;
        answered.fetch_add(1, Ordering::Relaxed);
        let token: Value = serde_json::from_str(&start.body).unwrap();
        let beat = beat(key, token["session_token"].as_str().unwrap());
        for deed in ["session/heartbeat", "session/end"] {
            let Some(told) = ask(deed, &beat) else {
                return starts;
            };
            assert_eq!(told.status, 200, "{told:?}");
        }
    }
    starts
}

#[test]
fn under_load_every_answer_that_was_begun_is_finished() {
    for signal in ["TERM", "INT"] {
        let mut server = started(&[AUTO_ACTIVATE, MANY_STARTS, WHOLE_HISTORY], &[NO_LIMIT]);
        let keys = server.licenses(1, 8);
        let answered = AtomicUsize::new(0);
        let (span, starts) = std::thread::scope(|scope| {
            let (server, answered) = (&server, &answered);
            let programs: Vec<_> = keys
                .iter()
                .map(|key| scope.spawn(move || busy(server, key, answered)))
                .collect();
            eventually("load", || answered.load(Ordering::Relaxed) > 50);
            server.signal(signal);
            let begun = Instant::now();
            let starts: u32 = programs
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum();
            (begun.elapsed(), starts)
        });
        let begun = Instant::now();
        assert_eq!(server.wait(), Some(0), "{signal}: {}", server.log());
        let span = span + begun.elapsed();
        assert!(span < STOP, "{signal}: {span:?}");
        let wal = server.path("data/license-server.sqlite3-wal");
        assert!(
            !wal.exists() || wal.metadata().unwrap().len() == 0,
            "checkpointed"
        );
        // What was answered yes is in the file; what was not, may be.
        let kept = "select (select count(*) from session_history) + (select count(*) from active_sessions)";
        server.run();
        let kept = value::<u32>(&server, kept);
        assert!(
            (starts..=starts + 8).contains(&kept),
            "{starts} answered, {kept} kept"
        );
    }
}

#[test]
fn a_request_under_way_is_finished_and_nobody_new_is_let_in() {
    let mut server = started(&[AUTO_ACTIVATE], &[]);
    let body = claim(&server.license(1), "laptop").to_string();
    let request = wire::post(&server, "/api/license/session/start", body.len(), &body);
    let (first, rest) = request.split_at(request.len() - 10);
    let (mut under_way, mut idle) = (wire::tls(&server), wire::tls(&server));
    let version = wire::get(&server, "/api/license/version?version=1.0.0", "");
    assert_eq!(wire::ask(&mut idle, &version).unwrap().status, 200);
    under_way.write_all(first).unwrap();
    under_way.flush().unwrap();
    // It has surely been read when a later one on another connection was answered.
    eventually("the begin of it to be read", || {
        std::thread::park_timeout(Duration::from_millis(200));
        wire::ask(&mut idle, &version).is_some_and(|heard| heard.status == 200)
    });
    server.signal("TERM");
    eventually("a word about it", || {
        server.log().contains("no more requests are taken")
    });
    assert!(wire::closes(&mut idle), "an idle connection ends at once");
    eventually("closed doors", || {
        std::net::TcpStream::connect(("127.0.0.1", server.port())).is_err()
    });
    let heard = wire::ask(&mut under_way, rest).unwrap();
    assert_eq!(heard.status, 201, "{}", heard.body);
    assert!(wire::closes(&mut under_way), "its last one");
    assert_eq!(server.wait(), Some(0), "{}", server.log());
}

#[test]
fn nobody_who_dawdles_delays_the_stop() {
    let mut server = Server::start();
    let half = wire::post(&server, "/api/license/activate", 100, "{");
    let mut tls = wire::tls(&server);
    tls.write_all(&half).unwrap();
    tls.flush().unwrap();
    let silent: Vec<_> = (0..5).map(|_| wire::patient(&server)).collect();
    let idle: Vec<_> = (0..5).map(|_| wire::tls(&server)).collect();
    let begun = Instant::now();
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    assert!(begun.elapsed() < STOP, "{:?}", begun.elapsed());
    drop((silent, idle));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start();
    let mut tls = wire::tls(&server);
    tls.write_all(&wire::post(&server, "/api/license/activate", 100, "{"))
        .unwrap();
    tls.flush().unwrap();
    std::thread::park_timeout(Duration::from_millis(200));
    server.signal("TERM");
    eventually("a word about it", || {
        server.log().contains("no more requests are taken")
    });
    server.signal("INT");
    // An orderly stop would have ended with 0.
    assert_eq!(server.wait(), Some(1), "{}", server.log());
    server.run();
    assert_eq!(
        server.json(&["session", "list"])["sessions"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
}
