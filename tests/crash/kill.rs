//! `kill -9` under load, again and again (D8).

use std::time::{Duration, Instant};

use crate::book::{Book, is_sound};
use crate::history::History;
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
    again_and_again(WORKERS, LICENSES, DEVICE_LIMIT, rounds(10));
}

/// As many programs as the contract names, on few licenses: most of what they are told is no.
#[test]
fn the_history_of_64_programs_and_a_few_deaths_is_one_of_deeds_one_after_another() {
    again_and_again(64, 12, 64, rounds(2).min(50));
}

fn again_and_again(programs: usize, licenses: u32, device_limit: u32, rounds: u32) {
    let mut server = Server::start();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.licenses(device_limit, licenses);
    let mut book = Book::new(&keys);
    let mut workers: Vec<Worker> = (0..programs).map(Worker::new).collect();
    for worker in &mut workers {
        worker.listener = Some(std::thread::current());
    }
    let (mut asked, mut unanswered, mut done_unanswered) = (0, 0, 0);
    let mut history = History::new();
    for round in 0..rounds {
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
        let dead = Instant::now();
        history.note(&requests, dead);
        server.run();
        done_unanswered += book.audit(&server.database(), &open);
        let again = lost_answers_are_given_again(&server, &mut book, &keys, &open);
        history.note(&again, dead);
        for worker in &mut workers {
            book.teach(worker);
        }
        everybody_lives_on(&server, &book, &keys);
    }
    book.no_two_lived_at_once();
    history.judge();
    assert!(is_sound(&server.database()));
    assert_eq!(server.stop(), Some(0));
    book.audit(&server.database(), &[]);
    eprintln!(
        "{asked} requests, {} sessions; {unanswered} requests were cut off, of which {done_unanswered} had \
         started a session",
        book.count()
    );
}

/// A program that lost the answer to its start asks again, and gets the session that it has. What was asked.
pub(crate) fn lost_answers_are_given_again(
    server: &Server,
    book: &mut Book,
    keys: &[String],
    open: &[Request],
) -> Vec<Request> {
    let mut asked = Vec::new();
    let client = server.client();
    for lost in open.iter().filter(|request| request.deed == Deed::Start) {
        let key = &keys[lost.license];
        let body = claim(key, &Worker::new(lost.device).name());
        let headers = [("Idempotency-Key", lost.idempotency_key.as_str())];
        let (sent, before) = (Instant::now(), book.running());
        let answer = client.call_with("session/start", &body, &headers);
        let mut request = lost.clone();
        request.sent = sent;
        request.heard = Some(crate::load::Heard {
            at: Instant::now(),
            status: answer.status,
            code: answer.code().to_owned(),
            token: answer.body["session_token"].as_str().map(str::to_owned),
            retry_after: None,
        });
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
                book.note(&[request.clone()], Instant::now());
            }
        }
        asked.push(request);
    }
    asked
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
