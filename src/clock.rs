//! Time: the only module that reads the clocks.
//!
//! Two kinds of time, never mixed: a [`Tick`] is the age of this process, and decides which sessions are active; a
//! [`UnixMs`] is a date, and decides what has expired. A jump of the system clock affects dates at most, never
//! ticks.

mod pauses;
mod start;
mod synchronization;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Doing, Result};

pub use pauses::{Pause, Pauses};
pub use start::{Boot, TrustReason};
use synchronization::Synchronization;

/// How far the system clock may deviate from its pace and still be trusted at once: time synchronization adjusts
/// it by as much in normal operation.
const SLEW: Duration = Duration::from_mins(2);
/// How long a jump forward must last before it is trusted.
const JUMP_CONFIRMED: Duration = Duration::from_mins(15);
/// Interval at which the thread that detects pauses reads the clock.
const STAMP: Duration = Duration::from_millis(250);
/// A part of a wait; see [`turns`].
const TURN: Duration = Duration::from_millis(100);
/// How long a start waits to be told whether the clock is synchronized.
const SYNCHRONIZATION_PATIENCE: Duration = Duration::from_secs(3);
/// The id of the current boot; also available in containers.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// 2026-01-01: a clock before this date is certainly wrong, since this program is newer.
pub const BUILT_AFTER: UnixMs = UnixMs(1_767_225_600_000);

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Deserialize,
    serde::Serialize,
)]
#[serde(transparent)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// This moment plus `seconds`; saturates instead of wrapping.
    #[must_use]
    pub fn plus_s(self, seconds: u32) -> Self {
        self.plus(Duration::from_secs(u64::from(seconds)))
    }

    /// This moment plus `span`; saturates instead of wrapping.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// This moment minus `span`; saturates instead of wrapping.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// RFC 3339 in UTC with seconds, as in the API: `2026-11-22T14:05:31Z`.
    pub fn rfc3339(self) -> String {
        const END: &str = "9999-12-31T23:59:59Z";
        let Ok(moment) = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000)) else {
            return END.to_owned();
        };
        moment.format(&Rfc3339).unwrap_or_else(|_| END.to_owned())
    }

    /// Its day in UTC, as in fields for the dates of licenses: `2026-11-22`.
    pub fn day(self) -> String {
        let text = self.rfc3339();
        text.split('T').next().unwrap_or_default().to_owned()
    }

    /// Parses RFC 3339, or a date alone, which means its last second: a license that is valid until a day is valid
    /// on that day.
    ///
    /// # Errors
    /// A message for the operator, if `text` is neither.
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

/// The age of this process, on the monotonic clock that includes the time in which the machine is suspended:
/// programs elsewhere go on meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub Duration);

impl Tick {
    /// The start of the process.
    pub const START: Self = Self(Duration::ZERO);

    /// The time since `earlier`; zero if that is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The moment of a request, taken once when it arrives and passed down.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The date.
    pub wall: UnixMs,
    /// The age of the process.
    pub tick: Tick,
    /// The part of its age in which the process ran: without the time in which it was stopped, or the machine
    /// suspended.
    pub awake: Duration,
}

/// A wait of at most `limit`, in turns. While the process is stopped, or its machine suspended, one turn passes at most: what
/// is waited for could not happen in that time either.
pub fn turns(limit: Duration) -> impl Iterator<Item = Duration> {
    let count = limit.as_millis().div_ceil(TURN.as_millis()).max(1);
    (0..count).map(move |_| limit.min(TURN))
}

/// The clocks of the machine.
pub trait Clock: Send + Sync {
    /// The system clock's date, which may jump.
    fn wall(&self) -> UnixMs;
    /// The age of the process, which only grows.
    fn tick(&self) -> Tick;
    /// Whether time synchronization confirms [`Clock::wall`]; false if that is not known within `patience`.
    fn is_synchronized(&self, patience: Duration) -> bool;
    /// When the machine booted, by [`Clock::wall`]; `None` if that is unknown.
    fn boot(&self) -> Option<Boot>;
}

/// The real clocks.
#[derive(Debug)]
pub struct SystemClock {
    born: Duration,
    synchronization: Synchronization,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            born: since_boot(),
            synchronization: Synchronization::default(),
        }
    }
}

/// Time since the machine booted, including the time in which it was suspended.
fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the only place that reads the system clock"
    )]
    fn wall(&self) -> UnixMs {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        UnixMs(since.map_or(0, millis))
    }

    fn tick(&self) -> Tick {
        Tick(since_boot().saturating_sub(self.born))
    }

    fn is_synchronized(&self, patience: Duration) -> bool {
        self.synchronization.confirms(self.wall(), patience)
    }

    fn boot(&self) -> Option<Boot> {
        let id = std::fs::read_to_string(BOOT_ID).ok()?;
        Boot::new(id.trim(), self.wall().minus(since_boot()))
    }
}

/// Limits how often something happens: a log line that would otherwise be repeated constantly.
#[derive(Debug)]
pub struct AtMost {
    span: Duration,
    clock: SystemClock,
    last: Mutex<Option<Tick>>,
}

impl AtMost {
    /// At most once per `span`; the first time at once.
    pub fn once_in(span: Duration) -> Self {
        Self {
            span,
            clock: SystemClock::default(),
            last: Mutex::default(),
        }
    }

    /// Whether it may happen now; `true` counts as having happened.
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

/// Clocks that are set by hand, for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    tick_ms: AtomicU64,
    synchronized: AtomicBool,
    boots: AtomicU64,
}

impl ManualClock {
    /// Clocks that stand still at `wall`.
    pub fn at(wall: UnixMs) -> Self {
        Self {
            wall_ms: AtomicI64::new(wall.0),
            ..Self::default()
        }
    }

    /// Lets `span` pass on both clocks.
    pub fn advance(&self, span: Duration) {
        self.jump_ms(millis(span));
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.tick_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Changes the date by `by_ms`, forward or back, without time passing.
    pub fn jump_ms(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Simulates a reboot: from now on [`Clock::boot`] returns a boot, another one each time.
    pub fn reboot(&self) {
        self.boots.fetch_add(1, Ordering::SeqCst);
    }

    /// From now on, time synchronization confirms the date.
    pub fn set_synchronized(&self) {
        self.synchronized.store(true, Ordering::SeqCst);
    }

    /// From now on, time synchronization does not confirm the date.
    pub fn set_unsynchronized(&self) {
        self.synchronized.store(false, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> UnixMs {
        UnixMs(self.wall_ms.load(Ordering::SeqCst))
    }

    fn tick(&self) -> Tick {
        Tick(Duration::from_millis(self.tick_ms.load(Ordering::SeqCst)))
    }

    fn is_synchronized(&self, _patience: Duration) -> bool {
        self.synchronized.load(Ordering::SeqCst)
    }

    fn boot(&self) -> Option<Boot> {
        let boots = self.boots.load(Ordering::SeqCst);
        let began = self.wall().minus(self.tick().0);
        Some(boots.to_string())
            .filter(|_| boots > 0)
            .and_then(|id| Boot::new(&id, began))
    }
}

/// The server's trusted date: that of the system clock, except that it never goes back, and that a jump forward
/// must last [`JUMP_CONFIRMED`] before it is trusted, unless time synchronization confirms it. So a clock that is
/// wrong for a moment, or until it is corrected after a start, expires no license, and one that is set back makes
/// no expired license valid again.
#[derive(Clone)]
pub struct TrustedClock {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<Dates>>,
    pauses: Pauses,
    reason: TrustReason,
}

#[derive(Clone, Copy, Debug)]
struct Dates {
    wall: UnixMs,
    tick: Tick,
    /// Since when the system clock has been far ahead.
    ahead_since: Option<Tick>,
    /// Whether the clock is read so often that a gap means a pause; see [`TrustedClock::stamp`].
    watched: bool,
    /// The sum of all pauses in `tick`.
    paused: Duration,
    counts: ClockEvents,
}

/// Events of the clock and the process so far; a change is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockEvents {
    /// Pauses of the process.
    pub pauses: u32,
    /// Jumps of the system clock that were trusted after all.
    pub jumps: u32,
}

/// How the trusted date relates to the system clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockState {
    /// They are the same.
    InSync,
    /// The system clock is behind dates seen before: the trusted date continues from those.
    Behind,
    /// The system clock is far ahead, and not trusted yet.
    Ahead,
}

/// The thread that detects pauses; ends when this is dropped.
#[derive(Debug)]
pub struct PauseDetector {
    _stop: SyncSender<()>,
}

impl TrustedClock {
    /// As [`TrustedClock::start`], if no trusted boot is known.
    pub fn new(clock: Arc<dyn Clock>, high_water: UnixMs) -> Self {
        Self::start(clock, high_water, None)
    }

    /// Starts at the system clock's date, or at `high_water` if that is later: the latest date stored in the
    /// database, 0 if there is none. If the system clock is far ahead of it and nothing explains that
    /// ([`TrustReason`]), it starts at `high_water`, too. `trusted_boot` is the boot in which the system clock was last
    /// trusted.
    pub fn start(clock: Arc<dyn Clock>, high_water: UnixMs, trusted_boot: Option<Boot>) -> Self {
        let (machine, known) = (clock.wall(), high_water.max(BUILT_AFTER));
        let facts = start::Facts {
            machine,
            known: high_water,
            boot: clock.boot(),
            trusted_boot,
        };
        let is_synchronized = || clock.is_synchronized(SYNCHRONIZATION_PATIENCE);
        match TrustReason::of(&facts, is_synchronized) {
            TrustReason::Unexplained => Self::starting_at(clock, known, TrustReason::Unexplained),
            reason => Self::starting_at(clock, machine.max(known), reason),
        }
    }

    /// For a command beside a running server, whose date was `high_water` at most `age` ago: follows the server's
    /// date if the server does not trust the system clock.
    pub fn beside(clock: Arc<dyn Clock>, high_water: UnixMs, age: Duration) -> Self {
        let machine = clock.wall();
        if machine > high_water.plus(age).plus(SLEW) {
            return Self::starting_at(clock, high_water, TrustReason::Unexplained);
        }
        Self::starting_at(clock, machine.max(high_water), TrustReason::Near)
    }

    fn starting_at(clock: Arc<dyn Clock>, wall: UnixMs, reason: TrustReason) -> Self {
        let tick = clock.tick();
        let ahead = clock.wall() > wall.plus(SLEW);
        let dates = Dates {
            wall,
            tick,
            ahead_since: ahead.then_some(tick),
            watched: false,
            paused: Duration::ZERO,
            counts: ClockEvents::default(),
        };
        Self {
            clock,
            state: Arc::new(Mutex::new(dates)),
            pauses: Pauses::default(),
            reason,
        }
    }

    /// Why it started at the system clock's date, or did not.
    pub fn reason(&self) -> TrustReason {
        self.reason
    }

    /// The boot of the machine, if its clock is trusted now.
    pub fn trusted_boot(&self) -> Option<Boot> {
        self.clock
            .boot()
            .filter(|_| self.clock_state() == ClockState::InSync)
    }

    /// The current moment. Notes a pause first, if the process stood still since the last call.
    pub fn now(&self) -> Now {
        let raw = self.clock.wall();
        let mut dates = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that ticks and dates increase in the same order for all callers.
        let tick = self.clock.tick();
        let before = *dates;
        *dates = before.follow(raw, tick, || self.clock.is_synchronized(Duration::ZERO));
        let gap = tick.since(before.tick);
        if before.watched && gap >= pauses::PAUSE_MIN {
            dates.paused += gap;
            dates.counts.pauses += 1;
            let awake = dates.awake(tick);
            self.pauses.note(before.tick, tick, dates.wall, awake);
        }
        Now {
            wall: dates.wall,
            tick,
            awake: dates.awake(tick),
        }
    }

    /// Starts a thread that reads the clock often, so that a gap between two reads means that the process stood
    /// still.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn detect_pauses(&self) -> Result<PauseDetector> {
        let (stop, stopped) = sync_channel::<()>(0);
        let trusted = self.clone();
        trusted.stamp();
        std::thread::Builder::new()
            .name("clock".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(STAMP) == Err(RecvTimeoutError::Timeout) {
                    trusted.now();
                }
            })
            .doing("start the thread that reads the clock")?;
        Ok(PauseDetector { _stop: stop })
    }

    /// Reads the clock for a caller that does so often: from now on a gap between two reads is a pause.
    pub fn stamp(&self) {
        self.now();
        let mut dates = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        dates.watched = true;
    }

    /// Notes that the disk has just answered a request of `asked`: if that took very long, it counts as a pause.
    /// Heartbeats may have been received meanwhile, but none that needed the database.
    pub fn note_disk_answer(&self, asked: Tick) {
        let now = self.now();
        if self.pauses.note_stall(asked, now) {
            let mut dates = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            dates.counts.pauses += 1;
        }
    }

    /// The pauses of this process.
    pub fn pauses(&self) -> Pauses {
        self.pauses.clone()
    }

    /// The events so far.
    pub fn events(&self) -> ClockEvents {
        let dates = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        dates.counts
    }

    /// How the trusted date relates to the system clock now.
    pub fn clock_state(&self) -> ClockState {
        let drift = self.drift_ms();
        if drift > millis(SLEW) {
            ClockState::Ahead
        } else if drift < -millis(SLEW) {
            ClockState::Behind
        } else {
            ClockState::InSync
        }
    }

    /// The system clock's date, trusted or not.
    pub fn system_date(&self) -> UnixMs {
        self.clock.wall()
    }

    /// The system clock's lead over the trusted date, in milliseconds; negative if it is behind.
    pub fn drift_ms(&self) -> i64 {
        self.clock.wall().0.saturating_sub(self.now().wall.0)
    }
}

impl Dates {
    fn awake(&self, tick: Tick) -> Duration {
        tick.0.saturating_sub(self.paused)
    }

    fn follow(self, raw: UnixMs, tick: Tick, is_synchronized: impl FnOnce() -> bool) -> Self {
        let expected = self.wall.plus(tick.since(self.tick));
        let slew = millis(SLEW);
        let ahead = raw.0.saturating_sub(expected.0);
        let mut counts = self.counts;
        let (wall, ahead_since) = if ahead > slew {
            let since = self.ahead_since.unwrap_or(tick);
            if tick.since(since) >= JUMP_CONFIRMED || is_synchronized() {
                counts.jumps += 1;
                (raw, None)
            } else {
                (expected, Some(since))
            }
        } else if ahead < -slew {
            (expected, None)
        } else {
            (raw.max(self.wall), None)
        };
        Self {
            wall,
            tick: tick.max(self.tick),
            ahead_since,
            counts,
            ..self
        }
    }
}

#[cfg(test)]
mod tests;
