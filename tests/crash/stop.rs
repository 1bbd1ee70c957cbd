//! SIGTERM under load (N8).

use std::time::{Duration, Instant};

use crate::ack_log::{AckLog, is_sound};
use crate::load::{Request, Worker, under_load};
use crate::support::{Server, rounds, stalls};
use crate::{random_up_to, wait_for};

const STOP_MAX: Duration = Duration::from_secs(5);

#[test]
fn an_orderly_stop_under_load_answers_all_accepted_requests_and_leaves_one_complete_file() {
    let mut server = Server::start();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.issue_licenses(4, 40);
    let mut ack_log = AckLog::new(&keys);
    let mut workers: Vec<Worker> = (0..4).map(Worker::new).collect();
    let (mut asked, mut unanswered) = (0, 0);
    for _ in 0..rounds(4).min(50) {
        let (requests, (asked_to_stop, status)) =
            under_load(&mut server, &mut workers, &keys, |server| {
                wait_for(Duration::from_millis(200) + random_up_to(Duration::from_millis(500)));
                let now = Instant::now();
                (now, server.stop())
            });
        let took = stalls::awake_since(asked_to_stop);
        assert_eq!(status, Some(0), "{}", server.log());
        assert!(took < STOP_MAX, "the stop took {took:?}");
        let wal = server.path("data/license-server.sqlite3-wal");
        let left = std::fs::metadata(&wal).map_or(0, |wal| wal.len());
        assert_eq!(left, 0, "the database was not checkpointed");
        let unresolved: Vec<Request> = requests
            .iter()
            .filter(|r| r.unresolved())
            .cloned()
            .collect();
        asked += requests.len();
        unanswered += unresolved.len();
        // A request on a closing connection was never accepted: it must have had no effect.
        ack_log.note(&requests, Instant::now());
        let done = ack_log.compare(&server.database(), &unresolved);
        assert_eq!(done, 0, "a start took effect without a response");
        let ends = unresolved.iter().filter(|request| {
            let token = request.token.as_ref();
            request.operation == crate::load::Operation::End
                && token.is_some_and(|token| ack_log.has_ended(token))
        });
        assert_eq!(ends.count(), 0, "an end took effect without a response");
        assert!(is_sound(&server.database()));
        for worker in &mut workers {
            ack_log.update_worker(worker);
        }
        server.run();
    }
    ack_log.assert_no_overlap();
    eprintln!("{asked} requests, {unanswered} met a closed connection");
}
