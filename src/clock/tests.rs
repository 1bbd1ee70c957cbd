//! Tests of clock.

use super::*;

const DAY_MS: i64 = 86_400_000;
const NOON: UnixMs = UnixMs(1_800_000_000_000);

fn trusted() -> (Arc<ManualClock>, TrustedClock) {
    let clock = Arc::new(ManualClock::at(NOON));
    (clock.clone(), TrustedClock::new(clock, UnixMs(0)))
}

#[test]
fn a_wait_in_turns_has_at_least_one_and_is_no_shorter_than_its_limit() {
    let ms = Duration::from_millis;
    for (limit, count, turn) in [(0, 1, 0), (30, 1, 30), (400, 4, 100), (450, 5, 100)] {
        let found: Vec<Duration> = turns(ms(limit)).collect();
        assert_eq!(found, vec![ms(turn); count], "{limit} ms");
    }
}

#[test]
fn at_most_once_a_minute_means_at_once_and_then_after_a_minute() {
    let at_most = AtMost::once_in(Duration::from_mins(1));
    let due = [0, 1, 59, 60, 61, 119, 120, 500]
        .map(|second| at_most.is_due_at(Tick(Duration::from_secs(second))));
    let expected = [true, false, false, true, false, false, true, true];
    assert_eq!(due, expected);
}

#[test]
fn time_passes_at_the_pace_of_the_system_clock() {
    let (clock, trusted) = trusted();
    clock.advance(Duration::from_secs(90));
    assert_eq!(trusted.now().wall, NOON.plus_s(90));
    clock.jump_ms(1500); // as time synchronization does
    assert_eq!(trusted.now().wall, UnixMs(NOON.0 + 91_500));
}

#[test]
fn a_jump_of_400_days_and_back_is_not_trusted() {
    let (clock, trusted) = trusted();
    clock.jump_ms(400 * DAY_MS);
    clock.advance(Duration::from_mins(1));
    assert_eq!(trusted.now().wall, NOON.plus_s(60));
    clock.jump_ms(-400 * DAY_MS);
    clock.advance(Duration::from_mins(1));
    assert_eq!(trusted.now().wall, NOON.plus_s(120));
}

#[test]
fn a_jump_forward_that_lasts_is_trusted() {
    let (clock, trusted) = trusted();
    clock.jump_ms(400 * DAY_MS);
    trusted.now();
    clock.advance(JUMP_CONFIRMED);
    assert_eq!(
        trusted.now().wall,
        UnixMs(NOON.0 + 400 * DAY_MS).plus(JUMP_CONFIRMED)
    );
}

#[test]
fn a_clock_that_is_set_back_does_not_set_the_date_back() {
    let (clock, trusted) = trusted();
    clock.jump_ms(-DAY_MS);
    clock.advance(Duration::from_secs(5));
    assert_eq!(trusted.now().wall, NOON.plus_s(5));
    clock.jump_ms(DAY_MS - 500);
    assert_eq!(
        trusted.now().wall,
        NOON.plus_s(5),
        "waits until the system clock catches up"
    );
    let later = TrustedClock::new(clock, UnixMs(NOON.0 + DAY_MS));
    assert_eq!(
        later.now().wall,
        UnixMs(NOON.0 + DAY_MS),
        "the stored date is tomorrow"
    );
}

#[test]
fn a_start_with_a_clock_far_ahead_continues_from_the_last_date_until_the_jump_is_confirmed() {
    for (ahead, unexplained) in [
        (0, false),
        (millis(JUMP_CONFIRMED), false),
        (millis(JUMP_CONFIRMED) + 1, true),
        (3 * DAY_MS, true),
        (21 * DAY_MS, true),
        (5000 * DAY_MS, true),
    ] {
        let clock = Arc::new(ManualClock::at(UnixMs(NOON.0 + ahead)));
        let trusted = TrustedClock::new(clock.clone(), NOON);
        let start_date = if unexplained {
            NOON
        } else {
            UnixMs(NOON.0 + ahead)
        };
        assert_eq!(trusted.now().wall, start_date, "{ahead}");
        clock.advance(JUMP_CONFIRMED.saturating_sub(Duration::from_secs(1)));
        let waited = JUMP_CONFIRMED.saturating_sub(Duration::from_secs(1));
        assert_eq!(trusted.now().wall, start_date.plus(waited), "{ahead}");
        clock.advance(Duration::from_secs(1));
        let now = UnixMs(NOON.0 + ahead).plus(JUMP_CONFIRMED);
        assert_eq!(trusted.now().wall, now, "{ahead}");
        assert_eq!(trusted.events().jumps, u32::from(unexplained), "{ahead}");
    }
}

#[test]
fn a_clock_that_is_corrected_after_the_start_has_no_effect() {
    let clock = Arc::new(ManualClock::at(UnixMs(NOON.0 + 400 * DAY_MS)));
    let trusted = TrustedClock::new(clock.clone(), NOON);
    assert_eq!(trusted.clock_state(), ClockState::Ahead);
    clock.advance(Duration::from_mins(14));
    assert_eq!(trusted.now().wall, NOON.plus(Duration::from_mins(14)));
    clock.jump_ms(-400 * DAY_MS);
    clock.advance(Duration::from_mins(14));
    assert_eq!(trusted.now().wall, NOON.plus(Duration::from_mins(28)));
    assert_eq!(trusted.clock_state(), ClockState::InSync);
}

#[test]
fn synchronized_time_is_trusted_at_once() {
    let clock = Arc::new(ManualClock::at(UnixMs(NOON.0 + 21 * DAY_MS)));
    let trusted = TrustedClock::new(clock.clone(), NOON);
    assert_eq!(trusted.now().wall, NOON);
    clock.set_synchronized();
    assert_eq!(trusted.now().wall, UnixMs(NOON.0 + 21 * DAY_MS));
    let later = TrustedClock::new(clock, NOON);
    assert_eq!(later.now().wall, UnixMs(NOON.0 + 21 * DAY_MS));
}

#[test]
fn a_restart_in_the_same_boot_trusts_the_clock_after_any_downtime() {
    let clock = Arc::new(ManualClock::at(NOON));
    clock.reboot();
    let before = TrustedClock::new(clock.clone(), UnixMs(0));
    let trusted_boot = before.trusted_boot();
    assert!(trusted_boot.is_some());
    clock.advance(Duration::from_hours(21 * 24));
    let start = || TrustedClock::start(clock.clone(), NOON, trusted_boot);
    assert_eq!(start().now().wall, UnixMs(NOON.0 + 21 * DAY_MS));
    assert_eq!(start().reason(), TrustReason::SameBoot);
    clock.jump_ms(400 * DAY_MS);
    assert_eq!(start().now().wall, NOON, "the clock was changed meanwhile");
    assert_eq!(start().trusted_boot(), None);
    clock.jump_ms(-400 * DAY_MS);
    clock.reboot();
    assert_eq!(start().now().wall, NOON, "the machine has booted meanwhile");
}

#[test]
fn a_clock_from_before_this_program_is_never_trusted() {
    for machine in [0, 1_000_000_000_000] {
        let clock = Arc::new(ManualClock::at(UnixMs(machine)));
        let trusted = TrustedClock::new(clock.clone(), UnixMs(0));
        clock.advance(Duration::from_hours(1));
        let hour = Duration::from_hours(1);
        assert_eq!(trusted.now().wall, BUILT_AFTER.plus(hour));
        clock.jump_ms(NOON.0 - machine);
        clock.set_synchronized();
        assert_eq!(trusted.now().wall, NOON.plus(hour));
    }
}

#[test]
fn a_gap_between_two_stamps_is_noted_as_a_pause_before_the_time_is_returned() {
    let (clock, trusted) = trusted();
    clock.advance(Duration::from_mins(10));
    trusted.stamp(); // not watched before
    assert_eq!(trusted.pauses().latest(), Pause::default());
    clock.advance(pauses::PAUSE_MIN.saturating_sub(Duration::from_millis(1)));
    trusted.now();
    assert_eq!(trusted.events().pauses, 0);
    let began = trusted.now();
    clock.advance(Duration::from_mins(3));
    let now = trusted.now();
    let pause = trusted.pauses().latest();
    assert_eq!((pause.began, pause.ended), (began.tick, now.tick));
    assert_eq!((pause.ended_at, pause.awake), (now.wall, began.awake));
    assert_eq!(now.awake, began.awake);
    clock.advance(Duration::from_secs(1));
    assert_eq!(trusted.now().awake, began.awake + Duration::from_secs(1));
    assert_eq!(trusted.events().pauses, 1);
}

#[test]
fn a_disk_that_does_not_answer_for_long_is_a_pause_in_which_time_passes() {
    let (clock, trusted) = trusted();
    trusted.stamp();
    let asked = trusted.now();
    for second in 1..=60 {
        clock.advance(Duration::from_secs(1));
        trusted.now();
        if second == 4 {
            trusted.note_disk_answer(asked.tick);
            assert_eq!(
                trusted.events().pauses,
                0,
                "as long as a foreign lock may last"
            );
        }
    }
    trusted.note_disk_answer(asked.tick);
    let (pause, now) = (trusted.pauses().latest(), trusted.now());
    assert_eq!((pause.began, pause.ended), (asked.tick, now.tick));
    assert_eq!(now.awake, asked.awake + Duration::from_mins(1));
    trusted.note_disk_answer(asked.tick);
    assert_eq!(trusted.events().pauses, 1, "noted once");
}

#[test]
fn a_command_follows_the_date_of_the_running_server() {
    let (clock, server) = trusted();
    let seen = server.now().wall;
    clock.jump_ms(DAY_MS);
    let age = Duration::from_mins(1);
    assert_eq!(
        TrustedClock::beside(clock.clone(), seen, age).now().wall,
        NOON
    );
    clock.jump_ms(-DAY_MS);
    clock.advance(age);
    let beside = TrustedClock::beside(clock, seen, age).now().wall;
    assert_eq!(beside, NOON.plus(age));
}

#[test]
fn moments_are_written_and_read_as_rfc_3339_in_utc() {
    for (text, ms) in [
        ("2026-11-22T14:05:31Z", 1_795_356_331_000),
        ("1970-01-01T00:00:00Z", 0),
        ("2024-02-29T23:59:59Z", 1_709_251_199_000),
    ] {
        assert_eq!(UnixMs::parse(text), Ok(UnixMs(ms)));
        assert_eq!(UnixMs(ms).rfc3339(), text);
    }
    assert_eq!(UnixMs::parse("2024-02-29"), Ok(UnixMs(1_709_251_199_000)));
    assert_eq!(
        UnixMs::parse("2026-11-22T15:05:31+01:00"),
        Ok(UnixMs(1_795_356_331_000))
    );
    for wrong in ["2023-02-29", "tomorrow", "", "2026-1-1", "20261122"] {
        assert!(UnixMs::parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(UnixMs(i64::MAX).rfc3339(), "9999-12-31T23:59:59Z");
}
