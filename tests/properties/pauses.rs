//! A process that stands still: stopped, suspended, starved. Clocks are turned by hand.

use std::time::Duration;

use license_server::id::SessionToken;
use proptest::prelude::*;

use crate::house::{House, NOON, token_of};
use crate::rounds;

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT_S: u64 = 60;

/// Time in which the process runs: it looks at the clock again and again.
fn runs(house: &House, span: Duration) {
    let mut left = span;
    while !left.is_zero() {
        let step = left.min(SECOND);
        house.advance(step);
        house.now();
        left -= step;
    }
}

/// Time in which it does not.
fn stands_still(house: &House, seconds: u64) {
    house.advance(Duration::from_secs(seconds));
}

/// A session on a license that another device has a slot on as well.
fn with_session() -> (House, usize, SessionToken) {
    let mut house = House::new();
    house.calendar.stamp();
    let license = house.issue(2, None);
    house.activate(license, 0).unwrap();
    house.activate(license, 1).unwrap();
    let token = token_of(&house.start(license, 0, None).unwrap());
    (house, license, token)
}

fn refused() -> Result<String, String> {
    Err("session_active".to_owned())
}

#[test]
fn whoever_lived_when_the_process_stood_still_has_its_whole_timeout_from_then_on() {
    for (silent, still) in [(0, 61), (59, 2), (59, 3600), (30, 86_400), (1, 10)] {
        let (house, license, token) = with_session();
        runs(&house, SECOND * silent);
        stands_still(&house, still);
        // The very first request is judged right, also one that only looks and one that sweeps.
        assert_eq!(house.start(license, 1, None), refused());
        assert!(house.verify(license, 1).session_active);
        assert_eq!(house.sweep(), 0);
        runs(&house, Duration::from_millis(59_999));
        assert_eq!(house.start(license, 1, None), refused());
        runs(&house, Duration::from_millis(1));
        assert!(house.start(license, 1, None).is_ok(), "{silent} {still}");
        let told = house.heartbeat(token, house.key(license));
        assert_eq!(told, Err("session_ended timeout".to_owned()));
        let ended = house.tables(&house.look()).1;
        let over = NOON.plus_s(silent + u32::try_from(still).unwrap() + 60);
        assert_eq!(ended[0].ended_at, over.0);
        assert_eq!(ended[0].last_heartbeat_at, NOON.0);
    }
}

#[test]
fn a_session_that_was_over_stays_over_however_long_the_process_stands_still() {
    let (house, license, _) = with_session();
    runs(&house, SECOND * 60);
    stands_still(&house, 3600);
    assert!(!house.verify(license, 1).session_active);
    assert!(house.start(license, 1, None).is_ok());
    let ended = house.tables(&house.look()).1;
    assert_eq!(ended[0].ended_at, NOON.plus_s(60).0);
}

#[test]
fn sessions_that_were_not_heard_since_the_start_live_through_a_pause_too() {
    let (mut house, license, token) = with_session();
    house.flush();
    house.restart(Duration::from_secs(5));
    house.calendar.stamp();
    runs(&house, SECOND * 30);
    stands_still(&house, 600);
    assert_eq!(house.start(license, 1, None), refused());
    runs(&house, SECOND * 59);
    assert_eq!(house.heartbeat(token, house.key(license)), Ok(()));
    runs(&house, SECOND * 59);
    assert_eq!(house.start(license, 1, None), refused());
}

#[test]
fn a_heartbeat_that_came_before_the_pause_and_is_judged_after_it_counts() {
    let (house, license, token) = with_session();
    runs(&house, SECOND * 59);
    assert_eq!(house.heartbeat(token, house.key(license)), Ok(()));
    stands_still(&house, 300);
    assert_eq!(house.heartbeat(token, house.key(license)), Ok(()));
    runs(&house, SECOND * 59);
    assert_eq!(house.start(license, 1, None), refused());
    runs(&house, SECOND);
    assert!(house.start(license, 1, None).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(rounds(30)))]

    /// However the process stands still and runs: a session that is never heard again is over after twice its
    /// timeout of running at most, and after its timeout at least; one that is heard in each piece lives.
    #[test]
    fn no_row_of_pauses_ends_a_session_early_or_keeps_it_for_ever(
        pieces in proptest::collection::vec((1..50_u64, 2..500_u64), 1..12)
    ) {
        let (mut house, license, token) = with_session();
        let other = house.issue(1, None);
        house.activate(other, 0).unwrap();
        let heard = (other, token_of(&house.start(other, 0, None).unwrap()));
        let mut ran = 0;
        for (awake, still) in pieces {
            runs(&house, Duration::from_secs(awake));
            ran += awake;
            let lives = house.verify(license, 1).session_active;
            prop_assert!(lives || ran >= TIMEOUT_S, "over after {} s", ran);
            prop_assert!(!lives || ran < 2 * TIMEOUT_S, "alive after {} s", ran);
            prop_assert_eq!(house.heartbeat(heard.1, house.key(heard.0)), Ok(()));
            stands_still(&house, still);
            let after = house.verify(license, 1).session_active;
            prop_assert!(lives || !after, "nothing comes to life again");
            prop_assert!(after || ran >= TIMEOUT_S, "over by standing still");
        }
        runs(&house, Duration::from_secs(2 * TIMEOUT_S));
        prop_assert!(house.start(license, 1, None).is_ok());
        let told = house.heartbeat(token, house.key(license));
        prop_assert_eq!(told, Err("session_ended timeout".to_owned()));
    }
}
