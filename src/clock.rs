//! The only place that knows what time it is.
//!
//! Two kinds of time, never mixed: a [`Tick`] says how long this process has been running, and decides
//! who is alive; a [`UnixMs`] is a date, and decides what has expired. A jump of the machine's clock
//! moves dates at most, never a tick.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How far the machine's clock may leave its own pace and still be believed at once: what time
/// synchronisation does in its normal work.
const SLEW: Duration = Duration::from_mins(2);
/// How long a jump forward must last before it is believed.
const JUMP_CONFIRMED: Duration = Duration::from_mins(15);

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
#[serde(transparent)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// This moment plus `seconds`; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn plus_s(self, seconds: u32) -> Self {
        self.plus(Duration::from_secs(u64::from(seconds)))
    }

    /// This moment plus `span`; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// This moment less `span`; stays at the beginning of time instead of wrapping.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// RFC 3339 in UTC with seconds, as the wire has it: `2026-11-22T14:05:31Z`.
    pub fn rfc3339(self) -> String {
        const END: &str = "9999-12-31T23:59:59Z";
        let Ok(moment) = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000)) else {
            return END.to_owned();
        };
        moment.format(&Rfc3339).unwrap_or_else(|_| END.to_owned())
    }

    /// Its day in UTC, as a date field has it: `2026-11-22`.
    pub fn day(self) -> String {
        let text = self.rfc3339();
        text.split('T').next().unwrap_or_default().to_owned()
    }

    /// Reads RFC 3339, or a date alone, which stands for its last second: a license that is valid
    /// until a day is valid on that day.
    ///
    /// # Errors
    /// A sentence for the operator, when `text` is neither.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let whole = if text.len() == 10 {
            format!("{text}T23:59:59Z")
        } else {
            text.to_owned()
        };
        OffsetDateTime::parse(&whole, &Rfc3339)
            .map(|moment| Self(moment.unix_timestamp().saturating_mul(1000)))
            .or(Err(
                "must be a date like 2027-12-31 or a moment like 2027-12-31T12:00:00Z",
            ))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// How long this process had been running, on the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub Duration);

impl Tick {
    /// When the process began.
    pub const START: Self = Self(Duration::ZERO);

    /// How long ago `earlier` was; nothing, if it was not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The moment of a request, taken once when it arrives and handed down.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The date.
    pub wall: UnixMs,
    /// The age of the process.
    pub tick: Tick,
}

/// What the machine says.
pub trait Clock: Send + Sync {
    /// The machine's date, which may jump.
    fn wall(&self) -> UnixMs;
    /// The age of the process, which only grows.
    fn tick(&self) -> Tick;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    born: Instant,
}

impl Default for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn default() -> Self {
        let born = Instant::now();
        Self { born }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn wall(&self) -> UnixMs {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        UnixMs(since.map_or(0, millis))
    }

    fn tick(&self) -> Tick {
        Tick(self.born.elapsed())
    }
}

/// Lets something through once in a while: a line of the log that a flood would repeat.
#[derive(Debug)]
pub struct AtMost {
    span: Duration,
    clock: SystemClock,
    last: Mutex<Option<Tick>>,
}

impl AtMost {
    /// Once in a `span`, and at once for the first time.
    pub fn once_in(span: Duration) -> Self {
        Self {
            span,
            clock: SystemClock::default(),
            last: Mutex::default(),
        }
    }

    /// Whether it may happen now; then it has happened.
    pub fn is_due(&self) -> bool {
        self.is_due_at(self.clock.tick())
    }

    fn is_due_at(&self, now: Tick) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.since(last) >= self.span);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// Clocks turned by hand, for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    tick_ms: AtomicU64,
}

impl ManualClock {
    /// Clocks that stand at `wall`.
    pub fn at(wall: UnixMs) -> Self {
        Self {
            wall_ms: AtomicI64::new(wall.0),
            tick_ms: AtomicU64::new(0),
        }
    }

    /// Lets `span` pass on both clocks.
    pub fn advance(&self, span: Duration) {
        self.jump_ms(millis(span));
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.tick_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Turns the date by `by_ms`, forward or back, while no time passes.
    pub fn jump_ms(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> UnixMs {
        UnixMs(self.wall_ms.load(Ordering::SeqCst))
    }

    fn tick(&self) -> Tick {
        Tick(Duration::from_millis(self.tick_ms.load(Ordering::SeqCst)))
    }
}

/// The house's date: the machine's, except that it never goes back, and that a jump forward has to last
/// [`JUMP_CONFIRMED`] before it is believed. So a clock that is wrong for a moment expires no license,
/// and one that is turned back revives none.
#[derive(Clone)]
pub struct Calendar {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<Dates>>,
}

#[derive(Clone, Copy, Debug)]
struct Dates {
    wall: UnixMs,
    tick: Tick,
    /// Since when the machine has claimed to be far ahead.
    ahead_since: Option<Tick>,
}

impl Calendar {
    /// A calendar that begins at the machine's date, or at `high_water` where that is later: the latest
    /// date that the file has seen.
    pub fn new(clock: Arc<dyn Clock>, high_water: UnixMs) -> Self {
        let wall = clock.wall().max(high_water);
        Self::starting_at(clock, wall)
    }

    /// A calendar for a command beside a server, whose date was `high_water` at most `age` ago: it goes by
    /// the server's date where that does not believe the machine.
    pub fn beside(clock: Arc<dyn Clock>, high_water: UnixMs, age: Duration) -> Self {
        if clock.wall() > high_water.plus(age).plus(SLEW) {
            return Self::starting_at(clock, high_water);
        }
        Self::new(clock, high_water)
    }

    fn starting_at(clock: Arc<dyn Clock>, wall: UnixMs) -> Self {
        let dates = Dates {
            wall,
            tick: clock.tick(),
            ahead_since: None,
        };
        Self {
            clock,
            state: Arc::new(Mutex::new(dates)),
        }
    }

    /// This moment.
    pub fn now(&self) -> Now {
        let raw = self.clock.wall();
        let mut dates = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: two callers never see ticks in another order than dates.
        let tick = self.clock.tick();
        *dates = dates.follow(raw, tick);
        Now {
            wall: dates.wall,
            tick,
        }
    }

    /// What the machine says, whatever the house believes.
    pub fn machine(&self) -> UnixMs {
        self.clock.wall()
    }

    /// How far the machine's clock is from the house's date, in milliseconds; below zero when behind.
    pub fn drift_ms(&self) -> i64 {
        self.clock.wall().0.saturating_sub(self.now().wall.0)
    }
}

impl Dates {
    fn follow(self, raw: UnixMs, tick: Tick) -> Self {
        let paced = self.wall.plus(tick.since(self.tick));
        let slew = millis(SLEW);
        let ahead = raw.0.saturating_sub(paced.0);
        let (wall, ahead_since) = if ahead > slew {
            let since = self.ahead_since.unwrap_or(tick);
            if tick.since(since) >= JUMP_CONFIRMED {
                (raw, None)
            } else {
                (paced, Some(since))
            }
        } else if ahead < -slew {
            (paced, None)
        } else {
            (raw.max(self.wall), None)
        };
        Self {
            wall,
            tick: tick.max(self.tick),
            ahead_since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const NOON: UnixMs = UnixMs(1_800_000_000_000);

    fn calendar() -> (Arc<ManualClock>, Calendar) {
        let clock = Arc::new(ManualClock::at(NOON));
        (clock.clone(), Calendar::new(clock, UnixMs(0)))
    }

    #[test]
    fn what_happens_at_most_once_a_minute_happens_at_once_and_then_after_a_minute() {
        let at_most = AtMost::once_in(Duration::from_mins(1));
        let due = [0, 1, 59, 60, 61, 119, 120, 500]
            .map(|second| at_most.is_due_at(Tick(Duration::from_secs(second))));
        let expected = [true, false, false, true, false, false, true, true];
        assert_eq!(due, expected);
    }

    #[test]
    fn time_passes_at_the_machines_pace() {
        let (clock, calendar) = calendar();
        clock.advance(Duration::from_secs(90));
        assert_eq!(calendar.now().wall, NOON.plus_s(90));
        clock.jump_ms(1500); // what time synchronisation does
        assert_eq!(calendar.now().wall, UnixMs(NOON.0 + 91_500));
    }

    #[test]
    fn a_jump_of_400_days_and_back_is_not_believed() {
        let (clock, calendar) = calendar();
        clock.jump_ms(400 * DAY_MS);
        clock.advance(Duration::from_mins(1));
        assert_eq!(calendar.now().wall, NOON.plus_s(60));
        clock.jump_ms(-400 * DAY_MS);
        clock.advance(Duration::from_mins(1));
        assert_eq!(calendar.now().wall, NOON.plus_s(120));
    }

    #[test]
    fn a_jump_forward_that_lasts_is_believed() {
        let (clock, calendar) = calendar();
        clock.jump_ms(400 * DAY_MS);
        calendar.now();
        clock.advance(JUMP_CONFIRMED);
        assert_eq!(
            calendar.now().wall,
            UnixMs(NOON.0 + 400 * DAY_MS).plus(JUMP_CONFIRMED)
        );
    }

    #[test]
    fn a_clock_that_is_turned_back_turns_back_nothing() {
        let (clock, calendar) = calendar();
        clock.jump_ms(-DAY_MS);
        clock.advance(Duration::from_secs(5));
        assert_eq!(calendar.now().wall, NOON.plus_s(5));
        clock.jump_ms(DAY_MS - 500);
        assert_eq!(
            calendar.now().wall,
            NOON.plus_s(5),
            "stands until the machine catches up"
        );
        let later = Calendar::new(clock, UnixMs(NOON.0 + DAY_MS));
        assert_eq!(
            later.now().wall,
            UnixMs(NOON.0 + DAY_MS),
            "the file has seen tomorrow"
        );
    }

    #[test]
    fn a_command_goes_by_the_date_of_the_server_beside_it() {
        let (clock, server) = calendar();
        let seen = server.now().wall;
        clock.jump_ms(DAY_MS);
        let age = Duration::from_mins(1);
        assert_eq!(Calendar::beside(clock.clone(), seen, age).now().wall, NOON);
        clock.jump_ms(-DAY_MS);
        clock.advance(age);
        let beside = Calendar::beside(clock, seen, age).now().wall;
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
}
