//! SIGTERM under load (N8).

use std::time::{Duration, Instant};

use crate::book::{Book, is_sound};
use crate::load::{Request, Worker, under_load};
use crate::support::{Server, rounds};
use crate::{pass, up_to};

const PROMISED: Duration = Duration::from_secs(5);

#[test]
fn an_orderly_stop_under_load_answers_all_that_it_took_and_leaves_one_whole_file() {
    let mut server = Server::start();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.licenses(4, 40);
    let mut book = Book::new(&keys);
    let mut workers: Vec<Worker> = (0..4).map(Worker::new).collect();
    let (mut asked, mut unanswered) = (0, 0);
    for _ in 0..rounds(4).min(50) {
        let (requests, (asked_to_stop, status)) =
            under_load(&mut server, &mut workers, &keys, |server| {
                pass(Duration::from_millis(200) + up_to(Duration::from_millis(500)));
                let now = Instant::now();
                (now, server.stop())
            });
        let took = asked_to_stop.elapsed();
        assert_eq!(status, Some(0), "{}", server.log());
        assert!(took < PROMISED, "the stop took {took:?}");
        let wal = server.path("data/license-server.sqlite3-wal");
        let left = std::fs::metadata(&wal).map_or(0, |wal| wal.len());
        assert_eq!(left, 0, "the file was not checkpointed");
        let open: Vec<Request> = requests.iter().filter(|r| r.open()).cloned().collect();
        asked += requests.len();
        unanswered += open.len();
        // A request that reached a closing connection was never taken: there is no trace of it.
        book.note(&requests, Instant::now());
        let done = book.audit(&server.database(), &open);
        assert_eq!(done, 0, "a start was done and not answered");
        let ends = open.iter().filter(|request| {
            let token = request.token.as_ref();
            request.deed == crate::load::Deed::End && token.is_some_and(|token| book.is_over(token))
        });
        assert_eq!(ends.count(), 0, "an end was done and not answered");
        assert!(is_sound(&server.database()));
        for worker in &mut workers {
            book.teach(worker);
        }
        server.run();
    }
    book.no_two_lived_at_once();
    eprintln!("{asked} requests, {unanswered} found the door closed");
}
