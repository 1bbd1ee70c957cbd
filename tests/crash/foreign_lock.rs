//! Another process holds the database's lock for ten seconds (D4).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::ack_log::{AckLog, is_sound};
use crate::load::{Request, Worker, under_load};
use crate::support::{Client, Server, eventually, heartbeat_body, identity, stalls};
use crate::wait_for;

const HELD: Duration = Duration::from_secs(10);
/// A write waits three seconds for the lock, and before that for the writes ahead of it.
const LONGEST: Duration = Duration::from_secs(8);

#[test]
fn a_foreign_lock_of_ten_seconds_leaves_no_request_hanging_or_half_done() {
    let mut server = Server::start();
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.issue_licenses(6, 40);
    let survivor = server.issue_license(1);
    let client = server.client();
    let token = client.session(&survivor, "survivor");
    client.call("session/heartbeat", &heartbeat_body(&survivor, &token));
    let mut ack_log = AckLog::new(&keys);
    let mut workers: Vec<Worker> = (0..6).map(Worker::new).collect();
    let heartbeats = AtomicUsize::new(0);
    let (requests, (from, to)) = under_load(&mut server, &mut workers, &keys, |server| {
        wait_for(Duration::from_millis(300));
        let foreign = lock_from_outside(server);
        let from = Instant::now();
        while from.elapsed() < HELD {
            expect_service_without_writes(&client, &survivor, &token);
            heartbeats.fetch_add(1, Ordering::SeqCst);
            wait_for(Duration::from_millis(20));
        }
        let to = Instant::now();
        foreign.execute_batch("rollback").unwrap();
        drop(foreign);
        // All waiting requests are answered before the load ends.
        let free = server.issue_licenses(1, 1).remove(0);
        eventually("a start succeeds again", || {
            client.call("activate", &identity(&free, "next"));
            client
                .call("session/start", &identity(&free, "next"))
                .status
                == 201
        });
        (from, to)
    });
    let longest = requests.iter().filter_map(waited).max().unwrap();
    assert!(longest < LONGEST, "a request hung for {longest:?}");
    let refused_requests = requests.iter().filter(|r| r.refused_for_now());
    let refused_requests: Vec<Request> = refused_requests.cloned().collect();
    assert!(
        refused_requests.len() >= workers.len(),
        "each worker was refused: {}",
        refused_requests.len()
    );
    for request in requests
        .iter()
        .filter(|request| is_within(request, from, to))
    {
        let is_write = request.operation != crate::load::Operation::Heartbeat;
        assert!(
            !(is_write && request.granted()),
            "an acknowledged write that cannot be stored: {request:?}"
        );
    }
    ack_log.note(&requests, Instant::now());
    let done = ack_log.compare(&server.database(), &refused_requests);
    assert_eq!(done, 0, "refused starts have no session");
    assert!(is_sound(&server.database()));
    server.restart();
    ack_log.compare(&server.database(), &[]);
    let (all, refused, heartbeats) = (
        requests.len(),
        refused_requests.len(),
        heartbeats.into_inner(),
    );
    eprintln!(
        "{all} requests, {refused} refused for now, none waited longer than {longest:?}; {heartbeats} heartbeats"
    );
}

/// Opens the database as another program does, and locks it for writing.
fn lock_from_outside(server: &Server) -> Connection {
    let foreign = Connection::open(server.database()).unwrap();
    foreign.busy_timeout(Duration::from_secs(5)).unwrap();
    foreign.execute_batch("begin immediate").unwrap();
    foreign
}

fn is_within(request: &Request, from: Instant, to: Instant) -> bool {
    let response = request.response.as_ref();
    request.sent > from && response.is_some_and(|response| response.at < to)
}

/// Checks that heartbeats and verifications are answered in time, though nothing can be written.
fn expect_service_without_writes(client: &Client, key: &str, token: &str) {
    let sent = Instant::now();
    let answer = client.call("session/heartbeat", &heartbeat_body(key, token));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = client.call("verify", &identity(key, "survivor"));
    assert_eq!((answer.status, answer.code()), (200, "valid"));
    let waited = stalls::awake_since(sent);
    assert!(
        waited < LONGEST,
        "a heartbeat and a verification took {waited:?}"
    );
}

fn waited(request: &Request) -> Option<Duration> {
    let response = request.response.as_ref()?;
    Some(stalls::awake_between(request.sent, response.at))
}

#[test]
fn health_reports_the_reason_before_a_start_that_waits_for_the_same_lock_is_refused() {
    let server = Server::start();
    let key = server.issue_license(1);
    let (starting, healthy) = (server.client(), server.client());
    // Both clients open their connection.
    assert_eq!(starting.get("/health").status, 200);
    assert_eq!(healthy.get("/health").status, 200);
    let foreign = Connection::open(server.database()).unwrap();
    foreign.execute_batch("begin exclusive").unwrap();
    let (send, refused) = std::sync::mpsc::channel();
    let start = std::thread::spawn(move || {
        let answer = starting.call("activate", &identity(&key, "laptop"));
        send.send(answer.status).unwrap();
    });
    let health = healthy.get("/health");
    assert!(refused.try_recv().is_err(), "the start was answered first");
    assert_eq!(health.status, 503, "{health:?}");
    let reason = health.body["reason"].as_str().unwrap();
    assert!(reason.contains("locked"), "{reason}");
    assert_eq!(refused.recv(), Ok(503));
    start.join().unwrap();
    foreign.execute_batch("rollback").unwrap();
    eventually("the server is healthy again", || {
        healthy.get("/health").status == 200
    });
}
