//! `kill -9` under load, again and again (D8).

use std::time::{Duration, Instant};

use crate::ack_log::{AckLog, is_sound};
use crate::history::History;
use crate::load::{Operation, Request, Worker, under_load};
use crate::support::{Server, heartbeat_body, identity, rounds};
use crate::{random_up_to, wait_for};

const LICENSES: u32 = 40;
const WORKERS: usize = 4;
/// One less than there are workers, so that they compete for the last slot of each license.
const DEVICE_LIMIT: u32 = 3;
const LONGEST: Duration = Duration::from_millis(1900);

#[test]
fn acknowledged_changes_survive_kill_9_and_nothing_else_appears() {
    kill_repeatedly(WORKERS, LICENSES, DEVICE_LIMIT, rounds(10));
}

/// As many programs as the API documents, on few licenses: most requests are refused.
#[test]
fn the_history_of_64_programs_and_several_kills_is_linearizable() {
    kill_repeatedly(64, 12, 64, rounds(2).min(50));
}

fn kill_repeatedly(programs: usize, licenses: u32, device_limit: u32, rounds: u32) {
    let mut server = Server::start();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.issue_licenses(device_limit, licenses);
    let mut ack_log = AckLog::new(&keys);
    let mut workers: Vec<Worker> = (0..programs).map(Worker::new).collect();
    for worker in &mut workers {
        worker.listener = Some(std::thread::current());
    }
    let (mut request_count, mut unanswered, mut done_unanswered) = (0, 0, 0);
    let mut history = History::new();
    for round in 0..rounds {
        let (requests, killed_at) = under_load(&mut server, &mut workers, &keys, |server| {
            wait_for(random_up_to(LONGEST));
            if round % 2 == 0 {
                // The critical moment: just after a response that acknowledges a write.
                std::thread::park_timeout(Duration::ZERO); // clears an earlier notification
                std::thread::park_timeout(Duration::from_millis(200));
            }
            let now = Instant::now();
            server.kill();
            now
        });
        let unresolved: Vec<Request> = requests
            .iter()
            .filter(|r| r.unresolved())
            .cloned()
            .collect();
        assert!(
            requests.iter().all(|request| !request.refused_for_now()),
            "round {round}: 503 from a healthy server"
        );
        request_count += requests.len();
        unanswered += unresolved.len();
        ack_log.note(&requests, killed_at);
        let down_at = Instant::now();
        history.note(&requests, down_at);
        server.run();
        done_unanswered += ack_log.compare(&server.database(), &unresolved);
        let repeated = repeat_unanswered_starts(&server, &mut ack_log, &keys, &unresolved);
        history.note(&repeated, down_at);
        for worker in &mut workers {
            ack_log.update_worker(worker);
        }
        assert_sessions_continue(&server, &ack_log, &keys);
    }
    ack_log.assert_no_overlap();
    history.check();
    assert!(is_sound(&server.database()));
    assert_eq!(server.stop(), Some(0));
    ack_log.compare(&server.database(), &[]);
    eprintln!(
        "{request_count} requests, {} sessions; {unanswered} requests were cut off, of which {done_unanswered} had \
         started a session",
        ack_log.count()
    );
}

/// Repeats each start whose response was lost; the program must get the session that it has. Returns the requests.
pub(crate) fn repeat_unanswered_starts(
    server: &Server,
    ack_log: &mut AckLog,
    keys: &[String],
    unresolved: &[Request],
) -> Vec<Request> {
    let mut sent_requests = Vec::new();
    let client = server.client();
    for lost in unresolved
        .iter()
        .filter(|request| request.operation == Operation::Start)
    {
        let key = &keys[lost.license];
        let body = identity(key, &Worker::new(lost.device).name());
        let headers = [("Idempotency-Key", lost.idempotency_key.as_str())];
        let (sent, before) = (Instant::now(), ack_log.running());
        let answer = client.call_with("session/start", &body, &headers);
        let mut request = lost.clone();
        request.sent = sent;
        request.response = Some(crate::load::Response {
            at: Instant::now(),
            status: answer.status,
            code: answer.code().to_owned(),
            token: answer.body["session_token"].as_str().map(str::to_owned),
            retry_after: None,
        });
        let blocking = before
            .iter()
            .find(|(license, _, _)| *license == lost.license);
        match blocking {
            // The log has no other start of this device on this license: it is the lost one, or the one that made
            // it fail.
            Some((_, device, token)) if answer.status == 201 => {
                assert_eq!((lost.device, &answer.token()), (*device, token));
            }
            Some(_) => assert_eq!(answer.status_and_code(), (409, "session_active")),
            None => {
                assert_eq!(answer.status, 201, "{answer:?}");
                ack_log.note(&[request.clone()], Instant::now());
            }
        }
        sent_requests.push(request);
    }
    sent_requests
}

pub(crate) fn assert_sessions_continue(server: &Server, ack_log: &AckLog, keys: &[String]) {
    let client = server.client();
    for (license, _, token) in ack_log.running() {
        let answer = client.call("session/heartbeat", &heartbeat_body(&keys[license], &token));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    if let Some((license, device, _)) = ack_log.running().first() {
        let second = identity(&keys[*license], &Worker::new(*device).name());
        let answer = client.call("session/start", &second);
        assert_eq!(answer.status_and_code(), (409, "session_active"));
    }
    for (license, token) in ack_log.ended(3) {
        let answer = client.call("session/heartbeat", &heartbeat_body(&keys[license], &token));
        assert_eq!(answer.status_and_code(), (410, "session_ended"));
        assert_eq!(answer.body["end_reason"], "normal");
    }
}
