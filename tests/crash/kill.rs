//! `kill -9` under load, again and again (D8).

use std::time::{Duration, Instant};

use crate::book::{Book, is_sound};
use crate::load::{Deed, Request, Worker, under_load};
use crate::support::{Server, beat, claim, rounds};
use crate::{pass, up_to};

const LICENSES: u32 = 40;
const WORKERS: usize = 4;
/// One less than there are workers: the last slot of each license is contested.
const DEVICE_LIMIT: u32 = 3;
const LONGEST: Duration = Duration::from_millis(1900);

#[test]
fn what_was_acknowledged_outlives_kill_9_and_nothing_else_comes_to_be() {
    let mut server = Server::start();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.licenses(DEVICE_LIMIT, LICENSES);
    let mut book = Book::new(&keys);
    let mut workers: Vec<Worker> = (0..WORKERS).map(Worker::new).collect();
    for worker in &mut workers {
        worker.listener = Some(std::thread::current());
    }
    let (mut asked, mut unanswered, mut done_unanswered) = (0, 0, 0);
    for round in 0..rounds(20) {
        let (requests, killed) = under_load(&mut server, &mut workers, &keys, |server| {
            pass(up_to(LONGEST));
            if round % 2 == 0 {
                // The worst moment: somebody has just been told yes.
                std::thread::park_timeout(Duration::ZERO); // forgets who was told before
                std::thread::park_timeout(Duration::from_millis(200));
            }
            let now = Instant::now();
            server.kill();
            now
        });
        let open: Vec<Request> = requests.iter().filter(|r| r.open()).cloned().collect();
        assert!(
            requests.iter().all(|request| !request.refused_for_now()),
            "round {round}: 503 from a healthy server"
        );
        asked += requests.len();
        unanswered += open.len();
        book.note(&requests, killed);
        server.run();
        done_unanswered += book.audit(&server.database(), &open);
        lost_answers_are_given_again(&server, &mut book, &keys, &open);
        for worker in &mut workers {
            book.teach(worker);
        }
        everybody_lives_on(&server, &book, &keys);
    }
    book.no_two_lived_at_once();
    assert!(is_sound(&server.database()));
    assert_eq!(server.stop(), Some(0));
    book.audit(&server.database(), &[]);
    eprintln!(
        "{asked} requests, {} sessions; {unanswered} requests were cut off, of which {done_unanswered} had \
         started a session",
        book.count()
    );
}

/// A program that lost the answer to its start asks again, and gets the session that it has.
pub(crate) fn lost_answers_are_given_again(
    server: &Server,
    book: &mut Book,
    keys: &[String],
    open: &[Request],
) {
    let client = server.client();
    for lost in open.iter().filter(|request| request.deed == Deed::Start) {
        let key = &keys[lost.license];
        let body = claim(key, &Worker::new(lost.device).name());
        let headers = [("Idempotency-Key", lost.idempotency_key.as_str())];
        let (sent, before) = (Instant::now(), book.running());
        let answer = client.call_with("session/start", &body, &headers);
        let in_the_way = before
            .iter()
            .find(|(license, _, _)| *license == lost.license);
        match in_the_way {
            // The book knows no other start by this device on this license: it is the lost one, or the
            // one that was in its way.
            Some((_, device, token)) if answer.status == 201 => {
                assert_eq!((lost.device, &answer.token()), (*device, token));
            }
            Some(_) => assert_eq!(answer.told(), (409, "session_active")),
            None => {
                assert_eq!(answer.status, 201, "{answer:?}");
                let mut request = lost.clone();
                request.sent = sent;
                request.heard = Some(crate::load::Heard {
                    at: Instant::now(),
                    status: 201,
                    code: String::new(),
                    token: Some(answer.token()),
                    retry_after: None,
                });
                book.note(&[request], Instant::now());
            }
        }
    }
}

pub(crate) fn everybody_lives_on(server: &Server, book: &Book, keys: &[String]) {
    let client = server.client();
    for (license, _, token) in book.running() {
        let answer = client.call("session/heartbeat", &beat(&keys[license], &token));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    if let Some((license, device, _)) = book.running().first() {
        let second = claim(&keys[*license], &Worker::new(*device).name());
        let answer = client.call("session/start", &second);
        assert_eq!(answer.told(), (409, "session_active"));
    }
    for (license, token) in book.over(3) {
        let answer = client.call("session/heartbeat", &beat(&keys[license], &token));
        assert_eq!(answer.told(), (410, "session_ended"));
        assert_eq!(answer.body["end_reason"], "normal");
    }
}
