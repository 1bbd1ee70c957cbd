//! Pauses of the process: stopped, suspended, starved. Clocks are set by hand.

use std::time::Duration;

use license_server::id::SessionToken;
use proptest::prelude::*;

use crate::in_process::{InProcess, NOON, token_of};
use crate::rounds;

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT_S: u64 = 60;

/// Lets the process run for `span`: it reads the clock again and again.
fn run(server: &InProcess, span: Duration) {
    let mut left = span;
    while !left.is_zero() {
        let step = left.min(SECOND);
        server.advance(step);
        server.now();
        left -= step;
    }
}

/// Lets time pass in which the process does not run.
fn pause(server: &InProcess, seconds: u64) {
    server.advance(Duration::from_secs(seconds));
}

/// A session on a license that another device is activated on as well.
fn with_session() -> (InProcess, usize, SessionToken) {
    let mut server = InProcess::new();
    server.trusted_clock.stamp();
    let license = server.issue(2, None);
    server.activate(license, 0).unwrap();
    server.activate(license, 1).unwrap();
    let token = token_of(&server.start(license, 0, None).unwrap());
    (server, license, token)
}

fn refused() -> Result<String, String> {
    Err("session_active".to_owned())
}

#[test]
fn sessions_that_were_active_before_a_pause_have_their_whole_timeout_after_it() {
    for (silent, pause_s) in [(0, 61), (59, 2), (59, 3600), (30, 86_400), (1, 10)] {
        let (server, license, token) = with_session();
        run(&server, SECOND * silent);
        pause(&server, pause_s);
        // Already the first request is answered correctly, also one that only reads, and a sweep.
        assert_eq!(server.start(license, 1, None), refused());
        assert!(server.verify(license, 1).session_active);
        assert_eq!(server.sweep(), 0);
        run(&server, Duration::from_millis(59_999));
        assert_eq!(server.start(license, 1, None), refused());
        run(&server, Duration::from_millis(1));
        assert!(server.start(license, 1, None).is_ok(), "{silent} {pause_s}");
        let result = server.heartbeat(token, server.key(license));
        assert_eq!(result, Err("session_ended timeout".to_owned()));
        let ended = server.tables(&server.connect()).1;
        let ended_at = NOON.plus_s(silent + u32::try_from(pause_s).unwrap() + 60);
        assert_eq!(ended[0].ended_at, ended_at.0);
        assert_eq!(ended[0].last_heartbeat_at, NOON.0);
    }
}

#[test]
fn a_session_that_had_timed_out_stays_timed_out_however_long_the_pause() {
    let (server, license, _) = with_session();
    run(&server, SECOND * 60);
    pause(&server, 3600);
    assert!(!server.verify(license, 1).session_active);
    assert!(server.start(license, 1, None).is_ok());
    let ended = server.tables(&server.connect()).1;
    assert_eq!(ended[0].ended_at, NOON.plus_s(60).0);
}

#[test]
fn sessions_without_a_heartbeat_since_the_start_survive_a_pause_too() {
    let (mut server, license, token) = with_session();
    server.flush();
    server.restart(Duration::from_secs(5));
    server.trusted_clock.stamp();
    run(&server, SECOND * 30);
    pause(&server, 600);
    assert_eq!(server.start(license, 1, None), refused());
    run(&server, SECOND * 59);
    assert_eq!(server.heartbeat(token, server.key(license)), Ok(()));
    run(&server, SECOND * 59);
    assert_eq!(server.start(license, 1, None), refused());
}

#[test]
fn heartbeats_before_and_after_a_pause_keep_a_session_active() {
    let (server, license, token) = with_session();
    run(&server, SECOND * 59);
    assert_eq!(server.heartbeat(token, server.key(license)), Ok(()));
    pause(&server, 300);
    assert_eq!(server.heartbeat(token, server.key(license)), Ok(()));
    run(&server, SECOND * 59);
    assert_eq!(server.start(license, 1, None), refused());
    run(&server, SECOND);
    assert!(server.start(license, 1, None).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(rounds(30)))]

    /// For any sequence of pauses: a session without heartbeats times out after at most twice its timeout of
    /// running time, and not before its timeout; one with a heartbeat in each piece stays active.
    #[test]
    fn no_sequence_of_pauses_ends_a_session_early_or_keeps_it_active_forever(
        pieces in proptest::collection::vec((1..50_u64, 2..500_u64), 1..12)
    ) {
        let (mut server, license, token) = with_session();
        let other = server.issue(1, None);
        server.activate(other, 0).unwrap();
        let with_heartbeats = (other, token_of(&server.start(other, 0, None).unwrap()));
        let mut ran = 0;
        for (awake, pause_s) in pieces {
            run(&server, Duration::from_secs(awake));
            ran += awake;
            let active = server.verify(license, 1).session_active;
            prop_assert!(active || ran >= TIMEOUT_S, "timed out after {} s", ran);
            prop_assert!(!active || ran < 2 * TIMEOUT_S, "still active after {} s", ran);
            prop_assert_eq!(server.heartbeat(with_heartbeats.1, server.key(with_heartbeats.0)), Ok(()));
            pause(&server, pause_s);
            let after = server.verify(license, 1).session_active;
            prop_assert!(active || !after, "no ended session becomes active again");
            prop_assert!(after || ran >= TIMEOUT_S, "timed out during a pause");
        }
        run(&server, Duration::from_secs(2 * TIMEOUT_S));
        prop_assert!(server.start(license, 1, None).is_ok());
        let result = server.heartbeat(token, server.key(license));
        prop_assert_eq!(result, Err("session_ended timeout".to_owned()));
    }
}
