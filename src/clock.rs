//! The only place that knows what time it is.
//!
//! Two kinds of time, never mixed: a [`Tick`] says how long this process has been running, and decides
//! who is alive; a [`UnixMs`] is a date, and decides what has expired. A jump of the machine's clock
//! moves dates at most, never a tick.

mod pauses;
mod start;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Doing, Result};

pub use pauses::{Pause, Pauses};
pub use start::{Boot, Reason, STOP};

/// How far the machine's clock may leave its own pace and still be believed at once: what time
/// synchronisation does in its normal work.
const SLEW: Duration = Duration::from_mins(2);
/// How long a jump forward must last before it is believed.
const JUMP_CONFIRMED: Duration = Duration::from_mins(15);
/// Between two stamps of the thread that notices pauses.
const STAMP: Duration = Duration::from_millis(250);
/// Where systemd-timesyncd says when it has last set the clock right, and how old that may be: it asks at least
/// every 34 minutes.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
const SYNCHRONISED_FOR: Duration = Duration::from_mins(70);
/// Where Linux says which boot this is, also in a container.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// 2026-01-01: a clock that says less is certainly wrong, this program is newer.
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

/// How long ago this process began, on the monotonic clock that goes on while the machine is suspended: programs
/// elsewhere do not wait for it.
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
    /// How much of its age the process has run: not while it was stopped, or the machine suspended.
    pub awake: Duration,
}

/// What the machine says.
pub trait Clock: Send + Sync {
    /// The machine's date, which may jump.
    fn wall(&self) -> UnixMs;
    /// The age of the process, which only grows.
    fn tick(&self) -> Tick;
    /// Whether time synchronisation vouches for [`Clock::wall`]; false where that cannot be told.
    fn is_synchronised(&self) -> bool;
    /// When the machine booted, by [`Clock::wall`]; none where that cannot be told.
    fn boot(&self) -> Option<Boot>;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    born: Duration,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { born: since_boot() }
    }
}

/// Since the machine started, with the time in which it was suspended.
fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
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
        Tick(since_boot().saturating_sub(self.born))
    }

    /// The kernel's own word (`adjtimex`) cannot be had without unsafe code: what stands in for it is that the machine
    /// has not booted since its clock was believed, see [`Reason::SameBoot`].
    fn is_synchronised(&self) -> bool {
        // Of another clock than ours, or from before somebody turned it: then it vouches for nothing.
        rustix::fs::stat(SYNCHRONISED).is_ok_and(|stat| {
            let at = UnixMs(stat.st_mtime.saturating_mul(1000));
            let now = self.wall();
            now <= at.plus(SYNCHRONISED_FOR) && at <= now.plus(SLEW)
        })
    }

    fn boot(&self) -> Option<Boot> {
        let id = std::fs::read_to_string(BOOT_ID).ok()?;
        Boot::new(id.trim(), self.wall().minus(since_boot()))
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
    synchronised: AtomicBool,
    boots: AtomicU64,
}

impl ManualClock {
    /// Clocks that stand at `wall`.
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

    /// Turns the date by `by_ms`, forward or back, while no time passes.
    pub fn jump_ms(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Boots the machine: from now on it can tell which boot this is.
    pub fn boot_anew(&self) {
        self.boots.fetch_add(1, Ordering::SeqCst);
    }

    /// Has time synchronisation vouch for the date, or not.
    pub fn synchronise(&self, vouched_for: bool) {
        self.synchronised.store(vouched_for, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> UnixMs {
        UnixMs(self.wall_ms.load(Ordering::SeqCst))
    }

    fn tick(&self) -> Tick {
        Tick(Duration::from_millis(self.tick_ms.load(Ordering::SeqCst)))
    }

    fn is_synchronised(&self) -> bool {
        self.synchronised.load(Ordering::SeqCst)
    }

    fn boot(&self) -> Option<Boot> {
        let boots = self.boots.load(Ordering::SeqCst);
        let began = self.wall().minus(self.tick().0);
        Some(boots.to_string())
            .filter(|_| boots > 0)
            .and_then(|id| Boot::new(&id, began))
    }
}

/// The house's date: the machine's, except that it never goes back, and that a jump forward has to last
/// [`JUMP_CONFIRMED`] before it is believed, unless time synchronisation vouches for it. So a clock that is wrong
/// for a moment, or until it is set right after a start, expires no license, and one that is turned back revives
/// none.
#[derive(Clone)]
pub struct TrustedClock {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<Dates>>,
    pauses: Pauses,
    reason: Reason,
}

#[derive(Clone, Copy, Debug)]
struct Dates {
    wall: UnixMs,
    tick: Tick,
    /// Since when the machine has claimed to be far ahead.
    ahead_since: Option<Tick>,
    /// Whether somebody stamps so often that a gap means a pause.
    watched: bool,
    /// How much of `tick` were pauses.
    paused: Duration,
    counts: Counts,
}

/// What has happened to the date and the process so far; where it changes, there is something to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pauses of the process.
    pub pauses: u32,
    /// Jumps of the machine's clock that were believed.
    pub jumps: u32,
}

/// How the house's date stands to the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// They are the same.
    Same,
    /// The machine is behind what was seen before: the date goes on from there.
    Behind,
    /// The machine is far ahead, and not believed yet.
    Ahead,
}

/// Stamps until it is dropped.
#[derive(Debug)]
pub struct Watch {
    _stop: SyncSender<()>,
}

impl TrustedClock {
    /// As [`TrustedClock::start`], where no boot is known in which the clock was believed.
    pub fn new(clock: Arc<dyn Clock>, high_water: UnixMs) -> Self {
        Self::start(clock, high_water, None)
    }

    /// A calendar that begins at the machine's date, or at `high_water` where that is later: the latest date that
    /// the file has seen; 0 where there is none. Where the machine is far ahead of it and nothing explains that
    /// ([`Reason`]), it begins at `high_water` too. `believed` is the boot in which the clock was last believed.
    pub fn start(clock: Arc<dyn Clock>, high_water: UnixMs, believed: Option<Boot>) -> Self {
        let (machine, known) = (clock.wall(), high_water.max(BUILT_AFTER));
        let facts = start::Facts {
            machine,
            known: high_water,
            boot: clock.boot(),
            believed,
            is_synchronised: clock.is_synchronised(),
        };
        match Reason::of(&facts) {
            Reason::Doubted => Self::starting_at(clock, known, Reason::Doubted),
            reason => Self::starting_at(clock, machine.max(known), reason),
        }
    }

    /// A calendar for a command beside a server, whose date was `high_water` at most `age` ago: it goes by
    /// the server's date where that does not believe the machine.
    pub fn beside(clock: Arc<dyn Clock>, high_water: UnixMs, age: Duration) -> Self {
        let machine = clock.wall();
        if machine > high_water.plus(age).plus(SLEW) {
            return Self::starting_at(clock, high_water, Reason::Doubted);
        }
        Self::starting_at(clock, machine.max(high_water), Reason::Near)
    }

    fn starting_at(clock: Arc<dyn Clock>, wall: UnixMs, reason: Reason) -> Self {
        let tick = clock.tick();
        let ahead = clock.wall() > wall.plus(SLEW);
        let dates = Dates {
            wall,
            tick,
            ahead_since: ahead.then_some(tick),
            watched: false,
            paused: Duration::ZERO,
            counts: Counts::default(),
        };
        Self {
            clock,
            state: Arc::new(Mutex::new(dates)),
            pauses: Pauses::default(),
            reason,
        }
    }

    /// Why it began at the machine's date, or did not.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The boot of the machine, where its clock is believed now.
    pub fn believed_boot(&self) -> Option<Boot> {
        self.clock.boot().filter(|_| self.belief() == Belief::Same)
    }

    /// This moment. Where the process has stood still since the last one, that is noted first.
    pub fn now(&self) -> Now {
        let raw = self.clock.wall();
        let mut dates = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: two callers never see ticks in another order than dates.
        let tick = self.clock.tick();
        let before = *dates;
        *dates = before.follow(raw, tick, || self.clock.is_synchronised());
        let gap = tick.since(before.tick);
        if before.watched && gap >= pauses::STILL {
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

    /// Looks at the clock often from now on, from a thread of its own, so that a gap between two looks is one in
    /// which the process stood still.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn watch(&self) -> Result<Watch> {
        let (stop, stopped) = sync_channel::<()>(0);
        let calendar = self.clone();
        calendar.stamp();
        std::thread::Builder::new()
            .name("clock".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(STAMP) == Err(RecvTimeoutError::Timeout) {
                    calendar.now();
                }
            })
            .doing("start the thread that looks at the clock")?;
        Ok(Watch { _stop: stop })
    }

    /// Looks at the clock for somebody who does so often: from now on a gap between two looks is a pause.
    pub fn stamp(&self) {
        self.now();
        let mut dates = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        dates.watched = true;
    }

    /// What was asked of the disk at `asked` has just been answered: where that took very long, it counts as a
    /// pause. In between programs may have been heard, but none that had to be looked up.
    pub fn answered(&self, asked: Tick) {
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

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        let dates = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        dates.counts
    }

    /// How the house's date stands to the machine's at this moment.
    pub fn belief(&self) -> Belief {
        let drift = self.drift_ms();
        if drift > millis(SLEW) {
            Belief::Ahead
        } else if drift < -millis(SLEW) {
            Belief::Behind
        } else {
            Belief::Same
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
    fn awake(&self, tick: Tick) -> Duration {
        tick.0.saturating_sub(self.paused)
    }

    fn follow(self, raw: UnixMs, tick: Tick, is_synchronised: impl FnOnce() -> bool) -> Self {
        let paced = self.wall.plus(tick.since(self.tick));
        let slew = millis(SLEW);
        let ahead = raw.0.saturating_sub(paced.0);
        let mut counts = self.counts;
        let (wall, ahead_since) = if ahead > slew {
            let since = self.ahead_since.unwrap_or(tick);
            if tick.since(since) >= JUMP_CONFIRMED || is_synchronised() {
                counts.jumps += 1;
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
            counts,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const NOON: UnixMs = UnixMs(1_800_000_000_000);

    fn calendar() -> (Arc<ManualClock>, TrustedClock) {
        let clock = Arc::new(ManualClock::at(NOON));
        (clock.clone(), TrustedClock::new(clock, UnixMs(0)))
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
        let later = TrustedClock::new(clock, UnixMs(NOON.0 + DAY_MS));
        assert_eq!(
            later.now().wall,
            UnixMs(NOON.0 + DAY_MS),
            "the file has seen tomorrow"
        );
    }

    #[test]
    fn a_start_with_a_clock_far_ahead_goes_on_from_the_last_date_until_it_has_lasted() {
        for (ahead, doubted) in [
            (0, false),
            (millis(STOP), false),
            (millis(STOP) + 1, true),
            (21 * DAY_MS, true),
            (5000 * DAY_MS, true),
        ] {
            let clock = Arc::new(ManualClock::at(UnixMs(NOON.0 + ahead)));
            let calendar = TrustedClock::new(clock.clone(), NOON);
            let begins = if doubted {
                NOON
            } else {
                UnixMs(NOON.0 + ahead)
            };
            assert_eq!(calendar.now().wall, begins, "{ahead}");
            clock.advance(JUMP_CONFIRMED.saturating_sub(Duration::from_secs(1)));
            let on = JUMP_CONFIRMED.saturating_sub(Duration::from_secs(1));
            assert_eq!(calendar.now().wall, begins.plus(on), "{ahead}");
            clock.advance(Duration::from_secs(1));
            let now = UnixMs(NOON.0 + ahead).plus(JUMP_CONFIRMED);
            assert_eq!(calendar.now().wall, now, "{ahead}");
            assert_eq!(calendar.counts().jumps, u32::from(doubted), "{ahead}");
        }
    }

    #[test]
    fn a_clock_that_is_set_right_after_the_start_has_cost_nothing() {
        let clock = Arc::new(ManualClock::at(UnixMs(NOON.0 + 400 * DAY_MS)));
        let calendar = TrustedClock::new(clock.clone(), NOON);
        assert_eq!(calendar.belief(), Belief::Ahead);
        clock.advance(Duration::from_mins(14));
        assert_eq!(calendar.now().wall, NOON.plus(Duration::from_mins(14)));
        clock.jump_ms(-400 * DAY_MS);
        clock.advance(Duration::from_mins(14));
        assert_eq!(calendar.now().wall, NOON.plus(Duration::from_mins(28)));
        assert_eq!(calendar.belief(), Belief::Same);
    }

    #[test]
    fn time_synchronisation_is_believed_at_once() {
        let clock = Arc::new(ManualClock::at(UnixMs(NOON.0 + 21 * DAY_MS)));
        let calendar = TrustedClock::new(clock.clone(), NOON);
        assert_eq!(calendar.now().wall, NOON);
        clock.synchronise(true);
        assert_eq!(calendar.now().wall, UnixMs(NOON.0 + 21 * DAY_MS));
        let later = TrustedClock::new(clock, NOON);
        assert_eq!(later.now().wall, UnixMs(NOON.0 + 21 * DAY_MS));
    }

    #[test]
    fn a_restart_in_the_same_boot_believes_the_clock_however_long_the_stop_was() {
        let clock = Arc::new(ManualClock::at(NOON));
        clock.boot_anew();
        let before = TrustedClock::new(clock.clone(), UnixMs(0));
        let believed = before.believed_boot();
        assert!(believed.is_some());
        clock.advance(Duration::from_hours(21 * 24));
        let start = || TrustedClock::start(clock.clone(), NOON, believed);
        assert_eq!(start().now().wall, UnixMs(NOON.0 + 21 * DAY_MS));
        assert_eq!(start().reason(), Reason::SameBoot);
        clock.jump_ms(400 * DAY_MS);
        assert_eq!(start().now().wall, NOON, "somebody turned it meanwhile");
        assert_eq!(start().believed_boot(), None);
        clock.jump_ms(-400 * DAY_MS);
        clock.boot_anew();
        assert_eq!(start().now().wall, NOON, "the machine has booted meanwhile");
    }

    #[test]
    fn a_clock_from_before_this_program_is_never_believed() {
        for machine in [0, 1_000_000_000_000] {
            let clock = Arc::new(ManualClock::at(UnixMs(machine)));
            let calendar = TrustedClock::new(clock.clone(), UnixMs(0));
            clock.advance(Duration::from_hours(1));
            let hour = Duration::from_hours(1);
            assert_eq!(calendar.now().wall, BUILT_AFTER.plus(hour));
            clock.jump_ms(NOON.0 - machine);
            clock.synchronise(true);
            assert_eq!(calendar.now().wall, NOON.plus(hour));
        }
    }

    #[test]
    fn a_gap_between_two_stamps_is_a_pause_before_anybody_hears_the_time() {
        let (clock, calendar) = calendar();
        clock.advance(Duration::from_mins(10));
        calendar.stamp(); // nobody stamped before
        assert_eq!(calendar.pauses().latest(), Pause::default());
        clock.advance(pauses::STILL.saturating_sub(Duration::from_millis(1)));
        calendar.now();
        assert_eq!(calendar.counts().pauses, 0);
        let began = calendar.now();
        clock.advance(Duration::from_mins(3));
        let now = calendar.now();
        let pause = calendar.pauses().latest();
        assert_eq!((pause.began, pause.ended), (began.tick, now.tick));
        assert_eq!((pause.ended_at, pause.awake), (now.wall, began.awake));
        assert_eq!(now.awake, began.awake);
        clock.advance(Duration::from_secs(1));
        assert_eq!(calendar.now().awake, began.awake + Duration::from_secs(1));
        assert_eq!(calendar.counts().pauses, 1);
    }

    #[test]
    fn a_disk_that_does_not_answer_for_long_is_a_pause_in_which_time_goes_on() {
        let (clock, calendar) = calendar();
        calendar.stamp();
        let asked = calendar.now();
        for second in 1..=60 {
            clock.advance(Duration::from_secs(1));
            calendar.now();
            if second == 4 {
                calendar.answered(asked.tick);
                assert_eq!(calendar.counts().pauses, 0, "a foreign lock, say");
            }
        }
        calendar.answered(asked.tick);
        let (pause, now) = (calendar.pauses().latest(), calendar.now());
        assert_eq!((pause.began, pause.ended), (asked.tick, now.tick));
        assert_eq!(now.awake, asked.awake + Duration::from_mins(1));
        calendar.answered(asked.tick);
        assert_eq!(calendar.counts().pauses, 1, "noted once");
    }

    #[test]
    fn a_command_goes_by_the_date_of_the_server_beside_it() {
        let (clock, server) = calendar();
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
}
