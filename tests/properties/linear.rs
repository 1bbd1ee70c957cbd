//! Tests the checker of histories first, and then checks the histories of 64 programs at once with it.

use std::sync::Mutex;
use std::time::Instant;

use license_server::id::ProductId;
use license_server::sessions::{self, Credentials};

use crate::in_process::{InProcess, code_of, start_answer, token_of};
use crate::judge::What::{Alive, Ended, MayHaveEnded, MayHaveStarted, Over, Refused, Started};
use crate::judge::{Event, check};

const PROGRAMS: usize = 64;
const LICENSES: usize = 4;

/// Histories that can have happened. An event is the time of its call, that of its response, and a letter for the
/// result: `S1` session 1 was started, `N` a start was refused, `s1` a start was not answered; a heartbeat found
/// it active (`A1`) or ended (`O1`); `E1` it was ended, `e1` an end was not answered.
const POSSIBLE: &str = "one session: 0-1 S1, 2-3 A1, 4-5 E1, 6-7 O1
one after the other: 0-1 S1, 2-3 E1, 4-5 S2
the refused start was sent first: 0-9 N, 1-8 S1
ended twice: 0-1 S1, 2-5 E1, 3-4 E1
an end and a start at once: 0-1 S1, 2-9 S2, 3-8 E1
refused during an end that takes longer: 0-1 S1, 2-9 E1, 3-4 N, 5-6 S2
an unanswered start that took effect: 0-5 s1, 6-7 N
an unanswered start that did not: 0-5 s1, 6-7 S2
an unanswered start that is repeated: 0-5 s1, 6-7 S1, 8-9 A1, 10-11 E1
an unanswered end that took effect: 0-1 S1, 2-5 e1, 6-7 S2
an unanswered end that did not: 0-1 S1, 2-5 e1, 6-7 A1
unanswered ones in a row: 0-1 S1, 2-9 e1, 2-9 s2, 2-9 s3, 10-11 N, 12-13 A3";

/// Histories that cannot have happened.
const IMPOSSIBLE: &str = "two one after the other: 0-1 S1, 2-3 S2
two side by side: 0-9 S1, 1-8 S2, 10-11 A1, 10-11 A2
refused without a session: 0-1 N
refused after the end: 0-1 S1, 2-3 E1, 4-5 N
a lost start: 0-1 S1, 2-3 O1, 4-5 S2, 6-7 A1
a lost start, found by a second one: 0-1 S1, 2-3 S2
a lost end: 0-1 S1, 2-3 E1, 4-5 A1
active before it was started: 0-1 A1, 2-3 S1
active beside the next: 0-1 S1, 2-9 E1, 3-4 S2, 5-6 A1
ended and never started: 0-1 E1, 2-3 S1
an unanswered start that took effect too late: 0-5 s1, 6-7 S2, 8-9 E2, 10-11 N
an unanswered end that took effect and did not: 0-1 S1, 2-5 e1, 6-7 S2, 8-9 A1
refused because of a session that never was: 0-1 S1, 2-3 E1, 4-5 e1, 6-7 N";

fn check_line(line: &str) -> Result<(), String> {
    let events = line.split_once(": ").unwrap().1.split(", ").map(|event| {
        let (span, what) = event.split_once(' ').unwrap();
        let (call, back) = span.split_once('-').unwrap();
        let (letter, id) = what.split_at(1);
        let id = || id.parse().unwrap();
        let what = match letter {
            "S" => Started(id()),
            "s" => MayHaveStarted(id()),
            "N" => Refused,
            "A" => Alive(id()),
            "O" => Over(id()),
            "E" => Ended(id()),
            "e" => MayHaveEnded(id()),
            other => panic!("{other}"),
        };
        Event {
            call: call.parse().unwrap(),
            back: back.parse().unwrap(),
            what,
        }
    });
    check(events.collect())
}

#[test]
fn possible_histories_are_accepted_and_impossible_ones_are_found() {
    for line in POSSIBLE.lines() {
        assert_eq!(check_line(line), Ok(()), "{line}");
    }
    for line in IMPOSSIBLE.lines() {
        assert!(check_line(line).is_err(), "{line}");
    }
    assert_eq!(check(Vec::new()), Ok(()));
}

/// Sends starts, heartbeats and ends of one program on one license, and records the responses.
async fn run_program(
    server: &InProcess,
    program: usize,
    began: Instant,
    events: &Mutex<Vec<Event>>,
) {
    let license = program % LICENSES;
    let at = || began.elapsed().as_nanos();
    let note = |call, what| {
        let event = Event {
            call,
            back: at(),
            what,
        };
        events.lock().unwrap().push(event);
    };
    for round in 0..6 {
        let id = program * 100 + round;
        let (db, live, now) = (server.db(), server.live.clone(), server.now());
        let start_request = server.start_request(license, program, None);
        let call = at();
        let started = db
            .write("t.start", move |tx| {
                sessions::start_once(tx, live.at(now), &start_request, start_answer)
            })
            .await;
        let token = match started {
            Ok(answer) => token_of(&answer),
            Err(refusal) => {
                assert_eq!(code_of(refusal), "session_active");
                note(call, Refused);
                continue;
            }
        };
        note(call, Started(id));
        let settings = server
            .current
            .get(server.db(), ProductId::FIRST)
            .await
            .unwrap();
        let (call, now) = (at(), server.now());
        let session = Credentials {
            product: ProductId::FIRST,
            token,
            key: server.key(license),
        };
        sessions::heartbeat(server.db(), server.live.at(now), &settings, session)
            .await
            .unwrap();
        note(call, Alive(id));
        let (live, call) = (server.live.clone(), at());
        server
            .db()
            .write("t.end", move |tx| {
                let request = sessions::EndRequest {
                    product: ProductId::FIRST,
                    token,
                    key: sessions::GivenKey::NotSent,
                };
                sessions::end(tx, live.at(now), &request)
            })
            .await
            .unwrap();
        note(call, Ended(id));
        let call = at();
        let over = sessions::heartbeat(server.db(), server.live.at(now), &settings, session).await;
        assert_eq!(code_of(over.unwrap_err()), "session_ended normal");
        note(call, Over(id));
    }
}

#[test]
fn the_history_of_64_concurrent_programs_is_linearizable() {
    let mut server = InProcess::new();
    for license in 0..LICENSES {
        server.issue(u32::try_from(PROGRAMS).unwrap(), None);
        for program in (license..PROGRAMS).step_by(LICENSES) {
            server.activate(license, program).unwrap();
        }
    }
    let server = std::sync::Arc::new(server);
    let mut started = 0;
    for _ in 0..crate::rounds(5) {
        let all: [std::sync::Arc<Mutex<Vec<Event>>>; LICENSES] = Default::default();
        let began = Instant::now();
        let programs: Vec<_> = (0..PROGRAMS)
            .map(|program| {
                let (server, events) = (server.clone(), all[program % LICENSES].clone());
                server.clone().runtime.spawn(async move {
                    run_program(&server, program, began, &events).await;
                })
            })
            .collect();
        for program in programs {
            server.runtime.block_on(program).unwrap();
        }
        for events in &all {
            let events = events.lock().unwrap().clone();
            started += events
                .iter()
                .filter(|event| matches!(event.what, Started(_)))
                .count();
            check(events).unwrap();
        }
    }
    assert!(started > LICENSES, "no session was started");
}
