//! What people are shown of sessions: those that run, those that ended, and how many at a time. Looks,
//! never changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::rules::CountChange;
use super::{EndReason, LiveSessions, rules, store};
use crate::clock::{Now, Tick, UnixMs};
use crate::db::Reader;
use crate::error::Result;
use crate::id::{LicenseId, SessionId, SessionToken};
use crate::licenses::LicenseKey;
use crate::version::Version;

/// Rows that are read at once where many of them are over and wait for the sweep.
const BATCH_MAX: u32 = 2000;

/// A session that runs, as an operator sees it.
#[derive(Clone, Debug)]
pub struct Running {
    /// The number.
    pub id: SessionId,
    /// The license that it runs on.
    pub license_id: LicenseId,
    /// The key of that license.
    pub license_key: LicenseKey,
    /// Whose it is.
    pub customer: String,
    /// The device's fingerprint.
    pub hardware_id: String,
    /// The device's own name.
    pub machine_id: String,
    /// The program's version.
    pub version: Version,
    /// Where the start came from.
    pub address: String,
    /// When it started.
    pub started_at: UnixMs,
    /// When it was last heard; up to a second older than it really was, where only the file was asked.
    pub last_heartbeat_at: UnixMs,
}

/// A session that ended, as an operator sees it.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What it was.
    pub session: Running,
    /// When it ended; for a timeout the moment of the timeout.
    pub ended_at: UnixMs,
    /// How it ended.
    pub reason: EndReason,
    /// How many sessions this stands for: number and start are of the first of them, all else of the last.
    pub sessions: u32,
}

/// Which sessions count as running, for those who only read the file: of these, it has heard within their
/// timeout, counted from the start of the server at the earliest.
#[derive(Clone, Copy, Debug)]
pub struct LivenessCutoff {
    pub(super) started_at: UnixMs,
    pub(super) now: UnixMs,
}

impl LivenessCutoff {
    /// The moment that it is about.
    pub fn now(self) -> UnixMs {
        self.now
    }

    /// While a server has the file.
    pub fn served(started_at: UnixMs, now: UnixMs) -> Self {
        Self { started_at, now }
    }

    /// While no server has it: every session waits for the next start.
    pub fn waiting() -> Self {
        Self {
            started_at: UnixMs(0),
            now: UnixMs(0),
        }
    }
}

/// Every session that runs, newest first.
///
/// # Errors
/// When SQLite fails.
pub fn running(reader: &Reader<'_>, alive: LivenessCutoff, limit: u32) -> Result<Vec<Running>> {
    store::running(reader, alive, limit)
}

/// The session that runs on a license.
///
/// # Errors
/// When SQLite fails.
pub fn running_on(
    reader: &Reader<'_>,
    alive: LivenessCutoff,
    license_id: LicenseId,
) -> Result<Option<Running>> {
    store::running_on(reader, alive, license_id)
}

/// Which ended sessions to show.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Ended at this moment or later.
    pub since: UnixMs,
    /// Of this license only.
    pub license_id: Option<LicenseId>,
    /// At most so many.
    pub limit: u32,
}

/// Sessions that ended, the latest first.
///
/// # Errors
/// When SQLite fails.
pub fn history(reader: &Reader<'_>, span: &Span) -> Result<Vec<Ended>> {
    store::history(reader, span)
}

/// How many sessions run, as far as the file knows.
///
/// # Errors
/// When SQLite fails.
pub fn count(reader: &Reader<'_>, alive: LivenessCutoff) -> Result<u32> {
    store::count(reader, alive)
}

/// A row's place in a list: what it is ordered by, and its number among equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When it was heard, or ended.
    pub at: UnixMs,
    /// The number.
    pub id: SessionId,
}

impl Place {
    /// Before every row of an ascending list.
    const FIRST: Self = Self {
        at: UnixMs(i64::MIN),
        id: SessionId(i64::MIN),
    };
    /// Before every row of a descending list.
    const LAST: Self = Self {
        at: UnixMs(i64::MAX),
        id: SessionId(i64::MAX),
    };
}

/// Where a page of a list begins, or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// At the top.
    Top,
    /// Below this row.
    After(Place),
    /// Above this row.
    Before(Place),
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What is on it.
    pub rows: Vec<T>,
    /// Whether there is more above it.
    pub above: bool,
    /// Whether there is more below it.
    pub below: bool,
}

impl<T> Page<T> {
    /// The page of `rows`, of which one more than `limit` was looked for, in the order of looking.
    fn cut(mut rows: Vec<T>, from: Edge, limit: usize) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        match from {
            Edge::Top | Edge::After(_) => Self {
                rows,
                above: from != Edge::Top,
                below: more,
            },
            Edge::Before(_) => {
                rows.reverse();
                Self {
                    rows,
                    above: more,
                    below: true,
                }
            }
        }
    }
}

/// How running sessions are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The latest start first.
    Newest,
    /// The earliest start first.
    Oldest,
    /// The latest heartbeat first.
    Heard,
    /// The longest silence first.
    Silent,
}

impl Order {
    /// Every order; the first is the usual one.
    pub const ALL: [Self; 4] = [Self::Newest, Self::Oldest, Self::Heard, Self::Silent];

    /// Its word in an address.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Heard => "heard",
            Self::Silent => "silent",
        }
    }

    /// The order of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.word() == word)
    }

    const fn reversed(self) -> Self {
        match self {
            Self::Newest => Self::Oldest,
            Self::Oldest => Self::Newest,
            Self::Heard => Self::Silent,
            Self::Silent => Self::Heard,
        }
    }

    /// Before every row of this order.
    const fn top(self) -> Place {
        match self {
            Self::Newest | Self::Heard => Place::LAST,
            Self::Oldest | Self::Silent => Place::FIRST,
        }
    }
}

/// Which running sessions to show.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// A part of key, customer, device or address; empty: all.
    pub search: String,
    /// In which order.
    pub order: Order,
    /// From where.
    pub from: Edge,
    /// At most so many.
    pub limit: u32,
    /// How often programs are asked to let themselves be heard, in seconds.
    pub heartbeat_interval: u32,
}

/// A running session in a list.
#[derive(Clone, Debug)]
pub struct ListRow {
    /// The session, as the server's own memory knows it.
    pub session: Running,
    /// Its place in the list.
    pub place: Place,
    /// Whether it owes a heartbeat.
    pub silent: bool,
}

/// What the file says of a running session, for the memory to judge.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredHeartbeat {
    pub(super) token: SessionToken,
    pub(super) started_at: UnixMs,
    pub(super) last_heartbeat_at: UnixMs,
    pub(super) timeout_s: u32,
}

/// A page of the sessions that live by the server's own memory: what the file does not know yet counts,
/// and what is only waiting for the sweep does not.
///
/// # Errors
/// When SQLite fails.
pub fn page(
    reader: &Reader<'_>,
    live: &LiveSessions,
    look: &ListQuery,
    now: Now,
) -> Result<Page<ListRow>> {
    let (order, mut place) = match look.from {
        Edge::Top => (look.order, look.order.top()),
        Edge::After(place) => (look.order, place),
        Edge::Before(place) => (look.order.reversed(), place),
    };
    let (limit, mut batch) = (look.limit as usize, look.limit + 1);
    let mut rows = Vec::new();
    loop {
        let some = store::page(reader, order, &look.search, place, batch)?;
        let last_page = some.len() < batch as usize;
        for (mut session, said) in some {
            place = Place {
                at: said.last_heartbeat_at,
                id: session.id,
            };
            let last_heartbeat = live.vital_of(&said);
            if last_heartbeat.timed_out(now.tick) || rows.len() > limit {
                continue;
            }
            session.last_heartbeat_at = last_heartbeat.last_at;
            let silent = rules::silent(last_heartbeat.last, look.heartbeat_interval, now.tick);
            rows.push(ListRow {
                session,
                place,
                silent,
            });
        }
        if last_page || rows.len() > limit {
            break;
        }
        batch = (batch * 4).min(BATCH_MAX);
    }
    if matches!(look.from, Edge::Before(_)) && rows.len() < limit {
        // So near the top that it is the first page.
        let from = Edge::Top;
        return page(
            reader,
            live,
            &ListQuery {
                from,
                ..look.clone()
            },
            now,
        );
    }
    Ok(Page::cut(rows, look.from, limit))
}

/// How many sessions live by the server's own memory.
///
/// # Errors
/// When SQLite fails.
pub fn live_count(reader: &Reader<'_>, live: &LiveSessions, now: Now) -> Result<u32> {
    let said = store::said(reader)?;
    let lives = said
        .iter()
        .filter(|said| !live.vital_of(said).timed_out(now.tick));
    Ok(u32::try_from(lives.count()).unwrap_or(u32::MAX))
}

/// The session of this number, running or ended; nothing, if there is none.
///
/// # Errors
/// When SQLite fails.
pub fn ended(reader: &Reader<'_>, id: SessionId) -> Result<Option<Ended>> {
    store::ended(reader, id)
}

/// The running session of this number, in whatever state; nothing, if it does not run.
///
/// # Errors
/// When SQLite fails.
pub fn running_by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<Running>> {
    store::running_by_id(reader, id)
}

/// Which ended sessions to show, and from where.
#[derive(Clone, Debug)]
pub struct Filter {
    /// A part of the license key; empty: any.
    pub key: String,
    /// A part of the customer's name or company; empty: any.
    pub customer: String,
    /// How it ended; none: however.
    pub reason: Option<EndReason>,
    /// Ended at this moment or later.
    pub since: UnixMs,
    /// Ended at this moment or earlier.
    pub until: UnixMs,
}

/// A page of the sessions that ended, the latest first.
///
/// # Errors
/// When SQLite fails.
pub fn history_page(
    reader: &Reader<'_>,
    filter: &Filter,
    from: Edge,
    limit: u32,
) -> Result<Page<Ended>> {
    let all = limit as usize;
    let rows = match from {
        Edge::Before(place) => store::history_above(reader, filter, place, limit + 1)?,
        Edge::Top => store::history_below(reader, filter, Place::LAST, limit + 1)?,
        Edge::After(place) => store::history_below(reader, filter, place, limit + 1)?,
    };
    if matches!(from, Edge::Before(_)) && rows.len() < all {
        return history_page(reader, filter, Edge::Top, limit);
    }
    Ok(Page::cut(rows, from, all))
}

impl Ended {
    /// Its place in the history.
    pub fn place(&self) -> Place {
        Place {
            at: self.ended_at,
            id: self.session.id,
        }
    }
}

/// How far back a look at the number of sessions goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// 24 hours, every ten minutes.
    Day,
    /// 7 days, every hour.
    Week,
    /// 30 days, every four hours.
    Month,
}

impl Period {
    /// Every reach; the first is the usual one.
    pub const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// The days of it.
    pub const fn days(self) -> u32 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
        }
    }

    /// From one look to the next.
    const fn step(self) -> Duration {
        match self {
            Self::Day => Duration::from_mins(10),
            Self::Week => Duration::from_hours(1),
            Self::Month => Duration::from_hours(4),
        }
    }
}

/// How many sessions ran at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: UnixMs,
    /// How many.
    pub running: u32,
}

/// How many sessions ran in the course of a while, kept for a minute: a month of a busy shop has a million
/// starts and ends.
#[derive(Debug, Default)]
pub struct UsageCache(Mutex<Kept>);

/// What was found, and when.
type Kept = HashMap<Period, (Tick, Arc<Vec<Sample>>)>;

/// How long a course is kept.
const USAGE_CACHED: Duration = Duration::from_mins(1);

impl UsageCache {
    /// How many sessions ran in the course of `reach`, in order of time; the last one is now. Time in which
    /// the server was down is not told apart: nobody was heard then, and nobody's session ended.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn get(
        &self,
        reader: &Reader<'_>,
        live: &LiveSessions,
        reach: Period,
        now: Now,
    ) -> Result<Vec<Sample>> {
        let kept = self.kept().get(&reach).cloned();
        let kept = kept.filter(|(since, _)| now.tick.since(*since) < USAGE_CACHED);
        let before = if let Some((_, levels)) = kept {
            levels
        } else {
            let levels = Arc::new(concurrency_series(reader, live, reach, now)?);
            self.kept().insert(reach, (now.tick, levels.clone()));
            levels
        };
        let before = before.iter().filter(|level| level.at < now.wall);
        let mut levels: Vec<Sample> = before.copied().collect();
        levels.push(Sample {
            at: now.wall,
            running: live_count(reader, live, now)?,
        });
        Ok(levels)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted back from the sessions that run now, by the starts and ends of each step; those that are counted in one row
/// with others are added by the time that they ran.
fn concurrency_series(
    reader: &Reader<'_>,
    live: &LiveSessions,
    reach: Period,
    now: Now,
) -> Result<Vec<Sample>> {
    let bounds = rules::bounds(reach.days(), reach.step(), now.wall);
    let said = store::said(reader)?;
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for said in &said {
        starts.push(said.started_at);
        let last_heartbeat = live.vital_of(said);
        if last_heartbeat.timed_out(now.tick) {
            // It is over, and the sweep has not moved it to the history yet.
            ends.push(last_heartbeat.times_out_at());
        }
    }
    let running = u32::try_from(said.len() - ends.len()).unwrap_or(u32::MAX);
    starts.sort_unstable();
    ends.sort_unstable();
    let mut changes = Vec::with_capacity(bounds.len());
    for (after, until) in bounds.iter().zip(bounds.iter().skip(1)) {
        let (after, until) = (*after, *until);
        changes.push(CountChange {
            started: store::started_between(reader, after, until)? + between(&starts, after, until),
            ended: store::ended_between(reader, after, until)? + between(&ends, after, until),
        });
    }
    let folded = match bounds.first() {
        Some(first) => store::folded_since(reader, *first)?,
        None => Vec::new(),
    };
    let levels = rules::concurrent(running, &changes).into_iter();
    let levels = bounds.into_iter().zip(levels);
    let level = |(at, running): (UnixMs, u32)| Sample {
        at,
        running: running.saturating_add(rules::spread(&folded, at)),
    };
    Ok(levels.map(level).collect())
}

/// How many of `moments`, which are in order, lie after one and not after another.
fn between(moments: &[UnixMs], after: UnixMs, until: UnixMs) -> u32 {
    let below = |edge: UnixMs| moments.partition_point(|moment| *moment <= edge);
    u32::try_from(below(until).saturating_sub(below(after))).unwrap_or(u32::MAX)
}
