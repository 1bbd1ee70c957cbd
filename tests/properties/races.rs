//! Many at once: one wins, and nobody is told two stories (C4).

use std::sync::Arc;
use std::time::Duration;

use license_server::clock::Now;
use license_server::error::Result;
use license_server::security::rate_limit::Quota;
use license_server::sessions;

use crate::house::{House, token_of, told};

/// As many starts at once as the contract names.
const RUNNERS: usize = 64;

/// Every start at once, each by a device of its own; what each was told.
fn race(house: &House, license: usize, now: Now) -> Vec<Result<String>> {
    let starts = (0..RUNNERS).map(|device| {
        let (db, live) = (house.db().clone(), house.live.clone());
        let (current, wish) = (house.current.clone(), house.wish(license, device, None));
        house.runtime.spawn(async move {
            db.write("t.start", move |tx| {
                sessions::start(tx, &live, &current, &wish, now)
            })
            .await
        })
    });
    let starts: Vec<_> = starts.collect();
    let all = starts
        .into_iter()
        .map(|start| house.runtime.block_on(start).unwrap());
    all.collect()
}

/// The one token that was given out; everybody else heard that a session is active.
fn winner(told_all: Vec<Result<String>>) -> String {
    let (won, lost): (Vec<_>, Vec<_>) = told_all.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "so many were told yes");
    for refusal in lost {
        assert_eq!(told(refusal.unwrap_err()), "session_active");
    }
    won.into_iter().next().unwrap().unwrap()
}

#[test]
fn of_64_starts_at_once_one_wins_in_200_rounds_on_a_server_that_has_run_for_long() {
    let mut house = House::new();
    let license = house.issue(u32::try_from(RUNNERS).unwrap(), None);
    for device in 0..RUNNERS {
        house.activate(license, device).unwrap();
    }
    for round in 0..crate::rounds(200) {
        // Longer than a timeout: whoever is judged by the age of the server is judged dead.
        house.advance(Duration::from_secs(61));
        let answer = winner(race(&house, license, house.now()));
        let (running, ended) = house.tables(&house.look());
        assert_eq!((running.len(), ended.len()), (1, round as usize));
        let token = token_of(&answer);
        assert_eq!(house.heartbeat(token, house.key(license)), Ok(()));
        // Every second winner leaves; the others fall silent, and lie in the way of the next race.
        if round % 2 == 0 {
            assert!(house.end(token, None).is_ok());
        }
        house.flush();
    }
    let reasons = house.tables(&house.look()).1;
    assert!(
        reasons
            .iter()
            .all(|row| row.reason == "normal" || row.reason == "timeout")
    );
}

/// The clock stands: what a heartbeat and a start are told rests on when they arrived, not on who was
/// served first.
#[test]
fn at_the_border_of_a_timeout_a_heartbeat_or_a_start_is_told_yes_and_never_both() {
    let mut house = House::new();
    let license = house.issue(2, None);
    house.activate(license, 0).unwrap();
    house.activate(license, 1).unwrap();
    let (mut beaten, mut replaced) = (0, 0);
    for round in 0..crate::rounds(400).max(100) {
        if round % 8 == 7 {
            // Nobody has been heard by this server yet: another way through.
            house.restart(Duration::ZERO);
        }
        let token = token_of(&house.start(license, 0, None).unwrap());
        if round % 8 == 6 {
            house.restart(Duration::ZERO);
        }
        house.advance(Duration::from_millis(59_999));
        let in_time = house.now();
        house.advance(Duration::from_millis(1));
        let too_late = house.now();
        let settings = house
            .runtime
            .block_on(house.current.get(house.db()))
            .unwrap();
        let gate = Arc::new(tokio::sync::Barrier::new(2));
        let beat = {
            let (db, live, gate) = (house.db().clone(), house.live.clone(), gate.clone());
            let beat = (token, house.key(license));
            house.runtime.spawn(async move {
                gate.wait().await;
                if round % 3 == 0 {
                    // A start takes its time on the way to the file.
                    tokio::task::yield_now().await;
                }
                sessions::heartbeat(&db, &live, &settings, beat, in_time).await
            })
        };
        let start = {
            let (db, live) = (house.db().clone(), house.live.clone());
            let (current, wish) = (house.current.clone(), house.wish(license, 1, None));
            house.runtime.spawn(async move {
                gate.wait().await;
                db.write("t.start", move |tx| {
                    sessions::start(tx, &live, &current, &wish, too_late)
                })
                .await
            })
        };
        let heard = house.runtime.block_on(beat).unwrap();
        let started = house.runtime.block_on(start).unwrap();
        match (heard, started) {
            (Ok(_), Err(refusal)) => {
                assert_eq!(told(refusal), "session_active");
                beaten += 1;
                assert!(house.end(token, None).is_ok());
            }
            (Err(refusal), Ok(answer)) => {
                assert_eq!(told(refusal), "session_ended timeout");
                replaced += 1;
                assert!(house.end(token_of(&answer), None).is_ok());
            }
            (heard, started) => panic!(
                "round {round}: both were told the same: {heard:?}, {:?}",
                started.map(drop)
            ),
        }
    }
    eprintln!("the heartbeat came first {beaten} times, the start {replaced} times");
}

#[test]
fn two_devices_that_race_for_the_last_slot_one_gets_it() {
    let mut house = House::new();
    for _ in 0..crate::rounds(50) {
        let license = house.issue(1, None);
        let now = house.now();
        let tries: Vec<_> = (0..8)
            .map(|device| {
                let (db, claim) = (house.db().clone(), house.claim(license, device));
                house.runtime.spawn(async move {
                    db.write("t.activate", move |tx| {
                        let quota = Quota::unlimited();
                        license_server::devices::activate(tx, &claim, None, &quota, now)
                    })
                    .await
                })
            })
            .collect();
        let mut won = 0;
        for tried in tries {
            match house.runtime.block_on(tried).unwrap() {
                Ok(_) => won += 1,
                Err(refusal) => assert_eq!(told(refusal), "device_limit_reached"),
            }
        }
        assert_eq!(won, 1);
    }
}
