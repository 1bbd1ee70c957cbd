//! Clocks that are wrong: what expires, and what does not (C8).

use std::time::Duration;

use crate::house::{DAY_MS, House, NOON, token_of};

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn an_expired_license_stays_expired_when_the_clock_is_turned_back_even_over_a_restart() {
    let mut house = House::new();
    let license = house.issue(1, Some(NOON.plus_s(3600)));
    house.activate(license, 0).unwrap();
    house.advance(Duration::from_secs(3601));
    assert_eq!(
        house.start(license, 0, None),
        Err("license_expired".to_owned())
    );
    house.clock.jump_ms(-30 * DAY_MS);
    assert_eq!(
        house.start(license, 0, None),
        Err("license_expired".to_owned())
    );
    house.sweep(); // writes the latest date, as it does every minute
    house.restart(Duration::ZERO);
    assert_eq!(
        house.start(license, 0, None),
        Err("license_expired".to_owned())
    );
    house.advance(10 * MINUTE);
    let code = house.verify(license, 0).refusal.unwrap().code;
    assert_eq!(code, "license_expired");
}

#[test]
fn a_jump_forward_is_believed_once_it_has_lasted_a_quarter_of_an_hour() {
    let mut house = House::new();
    let license = house.issue(1, Some(NOON.plus_s(86_400)));
    house.activate(license, 0).unwrap();
    let token = token_of(&house.start(license, 0, None).unwrap());
    let beat = |house: &House| house.heartbeat(token, house.key(license));
    house.clock.jump_ms(400 * DAY_MS);
    for minute in 0..15 {
        assert_eq!(beat(&house), Ok(()), "after {minute} minutes");
        house.advance(MINUTE / 2);
        assert_eq!(beat(&house), Ok(()), "after {minute} minutes and a half");
        house.advance(MINUTE / 2);
    }
    assert_eq!(beat(&house), Err("license_expired".to_owned()));
    assert_eq!(beat(&house), Err("license_expired".to_owned()));
    let (running, ended) = house.tables(&house.look());
    assert!(running.is_empty());
    assert_eq!(ended[0].reason, "forced");
}

#[test]
fn a_jump_that_is_taken_back_expires_nothing_and_ends_no_session() {
    let mut house = House::new();
    let license = house.issue(1, Some(NOON.plus_s(86_400)));
    house.activate(license, 0).unwrap();
    let token = token_of(&house.start(license, 0, None).unwrap());
    for _ in 0..20 {
        house.clock.jump_ms(400 * DAY_MS);
        house.advance(MINUTE / 2);
        assert_eq!(house.heartbeat(token, house.key(license)), Ok(()));
        assert_eq!(house.sweep(), 0);
        house.clock.jump_ms(-400 * DAY_MS);
        house.advance(MINUTE / 3);
        assert_eq!(house.heartbeat(token, house.key(license)), Ok(()));
        assert_eq!(house.sweep(), 0);
    }
}

#[test]
fn no_jump_keeps_a_silent_session_alive() {
    for jump in [-400 * DAY_MS, 400 * DAY_MS] {
        let mut house = House::new();
        let license = house.issue(2, None);
        house.activate(license, 0).unwrap();
        house.activate(license, 1).unwrap();
        house.start(license, 0, None).unwrap();
        house.clock.jump_ms(jump);
        house.advance(Duration::from_millis(59_999));
        assert_eq!(
            house.start(license, 1, None),
            Err("session_active".to_owned())
        );
        house.advance(Duration::from_millis(1));
        assert!(house.start(license, 1, None).is_ok());
        let ended = house.tables(&house.look()).1;
        assert_eq!(
            (ended[0].reason.as_str(), ended[0].ended_at),
            ("timeout", NOON.plus_s(60).0)
        );
    }
}
