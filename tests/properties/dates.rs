//! Wrong clocks: what expires, and what does not (C8).

use std::time::Duration;

use crate::in_process::{DAY_MS, InProcess, NOON, token_of};

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn an_expired_license_stays_expired_when_the_clock_is_set_back_even_across_a_restart() {
    let mut server = InProcess::new();
    let license = server.issue(1, Some(NOON.plus_s(3600)));
    server.activate(license, 0).unwrap();
    server.advance(Duration::from_secs(3601));
    assert_eq!(
        server.start(license, 0, None),
        Err("license_expired".to_owned())
    );
    server.clock.jump_ms(-30 * DAY_MS);
    assert_eq!(
        server.start(license, 0, None),
        Err("license_expired".to_owned())
    );
    server.sweep(); // stores the latest date, as it does every minute
    server.restart(Duration::ZERO);
    assert_eq!(
        server.start(license, 0, None),
        Err("license_expired".to_owned())
    );
    server.advance(10 * MINUTE);
    let code = server.verify(license, 0).refusal.unwrap().code;
    assert_eq!(code, "license_expired");
}

#[test]
fn a_jump_forward_is_trusted_once_it_has_lasted_a_quarter_of_an_hour() {
    let mut server = InProcess::new();
    let license = server.issue(1, Some(NOON.plus_s(86_400)));
    server.activate(license, 0).unwrap();
    let token = token_of(&server.start(license, 0, None).unwrap());
    let heartbeat = |server: &InProcess| server.heartbeat(token, server.key(license));
    server.clock.jump_ms(400 * DAY_MS);
    for minute in 0..15 {
        assert_eq!(heartbeat(&server), Ok(()), "after {minute} minutes");
        server.advance(MINUTE / 2);
        assert_eq!(
            heartbeat(&server),
            Ok(()),
            "after {minute} minutes and a half"
        );
        server.advance(MINUTE / 2);
    }
    assert_eq!(heartbeat(&server), Err("license_expired".to_owned()));
    assert_eq!(heartbeat(&server), Err("license_expired".to_owned()));
    let (running, ended) = server.tables(&server.connect());
    assert!(running.is_empty());
    assert_eq!(ended[0].reason, "forced");
}

#[test]
fn a_jump_that_is_reverted_expires_nothing_and_ends_no_session() {
    let mut server = InProcess::new();
    let license = server.issue(1, Some(NOON.plus_s(86_400)));
    server.activate(license, 0).unwrap();
    let token = token_of(&server.start(license, 0, None).unwrap());
    for _ in 0..20 {
        server.clock.jump_ms(400 * DAY_MS);
        server.advance(MINUTE / 2);
        assert_eq!(server.heartbeat(token, server.key(license)), Ok(()));
        assert_eq!(server.sweep(), 0);
        server.clock.jump_ms(-400 * DAY_MS);
        server.advance(MINUTE / 3);
        assert_eq!(server.heartbeat(token, server.key(license)), Ok(()));
        assert_eq!(server.sweep(), 0);
    }
}

#[test]
fn no_jump_keeps_a_silent_session_alive() {
    for jump in [-400 * DAY_MS, 400 * DAY_MS] {
        let mut server = InProcess::new();
        let license = server.issue(2, None);
        server.activate(license, 0).unwrap();
        server.activate(license, 1).unwrap();
        server.start(license, 0, None).unwrap();
        server.clock.jump_ms(jump);
        server.advance(Duration::from_millis(59_999));
        assert_eq!(
            server.start(license, 1, None),
            Err("session_active".to_owned())
        );
        server.advance(Duration::from_millis(1));
        assert!(server.start(license, 1, None).is_ok());
        let ended = server.tables(&server.connect()).1;
        assert_eq!(
            (ended[0].reason.as_str(), ended[0].ended_at),
            ("timeout", NOON.plus_s(60).0)
        );
    }
}
