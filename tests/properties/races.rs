//! Concurrent requests: one wins, and the responses never contradict each other (C4).

use std::sync::Arc;
use std::time::Duration;

use license_server::clock::Now;
use license_server::error::Result;
use license_server::id::ProductId;
use license_server::sessions::{self, Credentials};

use crate::in_process::{InProcess, code_of, start_answer, token_of};

/// The number of concurrent starts that the API documents.
const RUNNERS: usize = 64;

/// Sends all starts at once, each by a device of its own; returns the responses.
fn race(server: &InProcess, license: usize, now: Now) -> Vec<Result<String>> {
    let starts = (0..RUNNERS).map(|device| {
        let (db, live) = (server.db().clone(), server.live.clone());
        let start_request = server.start_request(license, device, None);
        server.runtime.spawn(async move {
            db.write("t.start", move |tx| {
                sessions::start_once(tx, live.at(now), &start_request, start_answer)
            })
            .await
        })
    });
    let starts: Vec<_> = starts.collect();
    let all = starts
        .into_iter()
        .map(|start| server.runtime.block_on(start).unwrap());
    all.collect()
}

/// The one response with a token; all others must be `session_active`.
fn winner(results: Vec<Result<String>>) -> String {
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "the number of successful starts");
    for refusal in lost {
        assert_eq!(code_of(refusal.unwrap_err()), "session_active");
    }
    won.into_iter().next().unwrap().unwrap()
}

#[test]
fn of_64_concurrent_starts_one_wins_in_200_rounds_on_a_server_that_has_run_for_long() {
    let mut server = InProcess::new();
    let license = server.issue(u32::try_from(RUNNERS).unwrap(), None);
    for device in 0..RUNNERS {
        server.activate(license, device).unwrap();
    }
    for round in 0..crate::rounds(200) {
        // Longer than a timeout: sessions must not be judged by the age of the server.
        server.advance(Duration::from_secs(61));
        let answer = winner(race(&server, license, server.now()));
        let (running, ended) = server.tables(&server.connect());
        assert_eq!((running.len(), ended.len()), (1, round as usize));
        let token = token_of(&answer);
        assert_eq!(server.heartbeat(token, server.key(license)), Ok(()));
        // Every second winner ends its session; the others time out during the next race.
        if round % 2 == 0 {
            assert!(server.end(token, None).is_ok());
        }
        server.flush();
    }
    let reasons = server.tables(&server.connect()).1;
    assert!(
        reasons
            .iter()
            .all(|row| row.reason == "normal" || row.reason == "timeout")
    );
}

/// The clock stands still: the responses to a heartbeat and a start depend on when the requests arrived, not on
/// which is handled first.
#[test]
fn at_the_end_of_a_timeout_a_heartbeat_or_a_start_succeeds_and_never_both() {
    let mut server = InProcess::new();
    let license = server.issue(2, None);
    server.activate(license, 0).unwrap();
    server.activate(license, 1).unwrap();
    let (mut heartbeats_won, mut starts_won) = (0, 0);
    for round in 0..crate::rounds(400).max(100) {
        if round % 8 == 7 {
            // No heartbeat has reached this server yet, which takes another code path.
            server.restart(Duration::ZERO);
        }
        let token = token_of(&server.start(license, 0, None).unwrap());
        if round % 8 == 6 {
            server.restart(Duration::ZERO);
        }
        server.advance(Duration::from_millis(59_999));
        let in_time = server.now();
        server.advance(Duration::from_millis(1));
        let too_late = server.now();
        let settings = server
            .runtime
            .block_on(server.current.get(server.db(), ProductId::FIRST))
            .unwrap();
        let barrier = Arc::new(tokio::sync::Barrier::new(2));
        let heartbeat_task = {
            let (db, live, barrier) = (server.db().clone(), server.live.clone(), barrier.clone());
            let session = Credentials {
                product: ProductId::FIRST,
                token,
                key: server.key(license),
            };
            server.runtime.spawn(async move {
                barrier.wait().await;
                if round % 3 == 0 {
                    // Gives the start time to reach the writer thread.
                    tokio::task::yield_now().await;
                }
                sessions::heartbeat(&db, live.at(in_time), &settings, session).await
            })
        };
        let start = {
            let (db, live) = (server.db().clone(), server.live.clone());
            let start_request = server.start_request(license, 1, None);
            server.runtime.spawn(async move {
                barrier.wait().await;
                db.write("t.start", move |tx| {
                    sessions::start_once(tx, live.at(too_late), &start_request, start_answer)
                })
                .await
            })
        };
        let heartbeat = server.runtime.block_on(heartbeat_task).unwrap();
        let started = server.runtime.block_on(start).unwrap();
        match (heartbeat, started) {
            (Ok(_), Err(refusal)) => {
                assert_eq!(code_of(refusal), "session_active");
                heartbeats_won += 1;
                assert!(server.end(token, None).is_ok());
            }
            (Err(refusal), Ok(answer)) => {
                assert_eq!(code_of(refusal), "session_ended timeout");
                starts_won += 1;
                assert!(server.end(token_of(&answer), None).is_ok());
            }
            (heartbeat, started) => panic!(
                "round {round}: both have the same result: {heartbeat:?}, {:?}",
                started.map(drop)
            ),
        }
    }
    eprintln!("the heartbeat came first {heartbeats_won} times, the start {starts_won} times");
}

#[test]
fn of_eight_devices_that_race_for_the_last_slot_one_gets_it() {
    let mut server = InProcess::new();
    for _ in 0..crate::rounds(50) {
        let license = server.issue(1, None);
        let attempts: Vec<_> = (0..8)
            .map(|device| {
                let db = server.db().clone();
                let request = server.activation_request(license, device);
                server.runtime.spawn(async move {
                    db.write("t.activate", move |tx| {
                        license_server::activations::activate(tx, &request)
                    })
                    .await
                })
            })
            .collect();
        let mut won = 0;
        for result in attempts {
            match server.runtime.block_on(result).unwrap() {
                Ok(_) => won += 1,
                Err(refusal) => assert_eq!(code_of(refusal), "device_limit_reached"),
            }
        }
        assert_eq!(won, 1);
    }
}
