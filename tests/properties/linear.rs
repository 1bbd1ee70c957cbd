//! The judge of histories is judged first, and then judges one of 64 programs at once.

use std::sync::Mutex;
use std::time::Instant;

use license_server::sessions;

use crate::house::{House, token_of, told};
use crate::judge::What::{Alive, Ended, MayHaveEnded, MayHaveStarted, Over, Refused, Started};
use crate::judge::{Event, check};

const PROGRAMS: usize = 64;
const LICENSES: usize = 4;

/// Histories that can have happened. An event is the time of its call, that of its answer, and a letter for what
/// came of it: `S1` session 1 was started, `N` a start was refused, `s1` a start was not answered; `A1` it was
/// told alive, `O1` over; `E1` it was ended, `e1` an end was not answered.
const POSSIBLE: &str = "a life: 0-1 S1, 2-3 A1, 4-5 E1, 6-7 O1
one after the other: 0-1 S1, 2-3 E1, 4-5 S2
the loser was asked first: 0-9 N, 1-8 S1
two ends: 0-1 S1, 2-5 E1, 3-4 E1
an end and a start at once: 0-1 S1, 2-9 S2, 3-8 E1
refused before the end that is under way: 0-1 S1, 2-9 E1, 3-4 N, 5-6 S2
an unheard start that was done: 0-5 s1, 6-7 N
an unheard start that was not: 0-5 s1, 6-7 S2
an unheard start that is told again: 0-5 s1, 6-7 S1, 8-9 A1, 10-11 E1
an unheard end that was done: 0-1 S1, 2-5 e1, 6-7 S2
an unheard end that was not: 0-1 S1, 2-5 e1, 6-7 A1
unheard ones in a row: 0-1 S1, 2-9 e1, 2-9 s2, 2-9 s3, 10-11 N, 12-13 A3";

/// And histories that cannot.
const IMPOSSIBLE: &str = "two one after the other: 0-1 S1, 2-3 S2
two side by side: 0-9 S1, 1-8 S2, 10-11 A1, 10-11 A2
refused by nobody: 0-1 N
refused after the end: 0-1 S1, 2-3 E1, 4-5 N
a lost start: 0-1 S1, 2-3 O1, 4-5 S2, 6-7 A1
a lost start, found by a second one: 0-1 S1, 2-3 S2
a lost end: 0-1 S1, 2-3 E1, 4-5 A1
alive before it was asked for: 0-1 A1, 2-3 S1
alive beside the next: 0-1 S1, 2-9 E1, 3-4 S2, 5-6 A1
ended and never begun: 0-1 E1, 2-3 S1
an unheard start that came after the death: 0-5 s1, 6-7 S2, 8-9 E2, 10-11 N
an unheard end that was done and was not: 0-1 S1, 2-5 e1, 6-7 S2, 8-9 A1
refused by an invented session: 0-1 S1, 2-3 E1, 4-5 e1, 6-7 N";

fn judged(line: &str) -> Result<(), String> {
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
fn what_can_have_happened_is_believed_and_what_cannot_is_found() {
    for line in POSSIBLE.lines() {
        assert_eq!(judged(line), Ok(()), "{line}");
    }
    for line in IMPOSSIBLE.lines() {
        assert!(judged(line).is_err(), "{line}");
    }
    assert_eq!(check(Vec::new()), Ok(()));
}

/// Starts, heartbeats and ends of a program on one license, and what it was told.
async fn live(house: &House, program: usize, began: Instant, told_all: &Mutex<Vec<Event>>) {
    let license = program % LICENSES;
    let at = || began.elapsed().as_nanos();
    let note = |call, what| {
        let event = Event {
            call,
            back: at(),
            what,
        };
        told_all.lock().unwrap().push(event);
    };
    for turn in 0..6 {
        let id = program * 100 + turn;
        let (db, live, now) = (house.db(), house.live.clone(), house.now());
        let (current, wish) = (house.current.clone(), house.wish(license, program, None));
        let call = at();
        let started = db
            .write("t.start", move |tx| {
                sessions::start(tx, &live, &current, &wish, now)
            })
            .await;
        let token = match started {
            Ok(answer) => token_of(&answer),
            Err(refusal) => {
                assert_eq!(told(refusal), "session_active");
                note(call, Refused);
                continue;
            }
        };
        note(call, Started(id));
        let settings = house.current.get(house.db()).await.unwrap();
        let (call, now) = (at(), house.now());
        let beat = (token, house.key(license));
        sessions::heartbeat(house.db(), &house.live, &settings, beat, now)
            .await
            .unwrap();
        note(call, Alive(id));
        let (live, call) = (house.live.clone(), at());
        house
            .db()
            .write("t.end", move |tx| {
                sessions::end(tx, &live, &token, &sessions::GivenKey::None, now)
            })
            .await
            .unwrap();
        note(call, Ended(id));
        let call = at();
        let over = sessions::heartbeat(house.db(), &house.live, &settings, beat, now).await;
        assert_eq!(told(over.unwrap_err()), "session_ended normal");
        note(call, Over(id));
    }
}

#[test]
fn a_history_of_64_programs_at_once_is_one_of_deeds_one_after_another() {
    let mut house = House::new();
    for license in 0..LICENSES {
        house.issue(u32::try_from(PROGRAMS).unwrap(), None);
        for program in (license..PROGRAMS).step_by(LICENSES) {
            house.activate(license, program).unwrap();
        }
    }
    let house = std::sync::Arc::new(house);
    let mut started = 0;
    for _ in 0..crate::rounds(5) {
        let all: [std::sync::Arc<Mutex<Vec<Event>>>; LICENSES] = Default::default();
        let began = Instant::now();
        let programs: Vec<_> = (0..PROGRAMS)
            .map(|program| {
                let (house, told_all) = (house.clone(), all[program % LICENSES].clone());
                house.clone().runtime.spawn(async move {
                    live(&house, program, began, &told_all).await;
                })
            })
            .collect();
        for program in programs {
            house.runtime.block_on(program).unwrap();
        }
        for told_all in &all {
            let events = told_all.lock().unwrap().clone();
            started += events
                .iter()
                .filter(|event| matches!(event.what, Started(_)))
                .count();
            check(events).unwrap();
        }
    }
    assert!(started > LICENSES, "nobody ever started");
}
