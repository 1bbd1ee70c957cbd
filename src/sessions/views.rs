//! Read-only views for administrators: running sessions, ended sessions, and how many ran at a time.

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

/// Rows read at once at most, if many of them have timed out and await the sweep.
const BATCH_MAX: u32 = 2000;

/// A running session, as administrators see it.
#[derive(Clone, Debug)]
pub struct RunningSession {
    /// The id.
    pub id: SessionId,
    /// The license that it runs on.
    pub license_id: LicenseId,
    /// The key of that license.
    pub license_key: LicenseKey,
    /// The customer's name.
    pub customer: String,
    /// The device's fingerprint.
    pub hardware_id: String,
    /// The device's own name.
    pub machine_id: String,
    /// The program's version.
    pub version: Version,
    /// The IP address that started it.
    pub address: String,
    /// When it started.
    pub started_at: UnixMs,
    /// The last heartbeat; up to a second too old if read from the database alone.
    pub last_heartbeat_at: UnixMs,
}

/// An ended session, as administrators see it.
#[derive(Clone, Debug)]
pub struct EndedSession {
    /// The session as it was.
    pub session: RunningSession,
    /// When it ended; for a timeout the moment at which it timed out.
    pub ended_at: UnixMs,
    /// How it ended.
    pub reason: EndReason,
    /// How many sessions the row counts; if several, id and start are of the first one, everything else of the last.
    pub sessions: u32,
}

/// Which sessions count as running, if only the database is read: those whose timeout has not passed at `now`,
/// counted from the last heartbeat or the start of the server, whichever is later.
#[derive(Clone, Copy, Debug)]
pub struct LivenessCutoff {
    pub(super) started_at: UnixMs,
    pub(super) now: UnixMs,
}

impl LivenessCutoff {
    /// The moment at which sessions count as running.
    pub fn now(self) -> UnixMs {
        self.now
    }

    /// While a server runs on the database.
    pub fn while_served(started_at: UnixMs, now: UnixMs) -> Self {
        Self { started_at, now }
    }

    /// While no server runs: no session times out before the next start.
    pub fn without_server() -> Self {
        Self {
            started_at: UnixMs(0),
            now: UnixMs(0),
        }
    }
}

/// The running sessions, newest first.
pub fn running(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    limit: u32,
) -> Result<Vec<RunningSession>> {
    store::running(reader, cutoff, limit)
}

/// The running session of a license.
pub fn running_on(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    license_id: LicenseId,
) -> Result<Option<RunningSession>> {
    store::running_on(reader, cutoff, license_id)
}

/// Which ended sessions to return.
#[derive(Clone, Copy, Debug)]
pub struct HistoryQuery {
    /// Ended at this moment or later.
    pub since: UnixMs,
    /// Of this license only.
    pub license_id: Option<LicenseId>,
    /// The maximum number of rows.
    pub limit: u32,
}

/// Ended sessions, the latest end first.
pub fn history(reader: &Reader<'_>, span: &HistoryQuery) -> Result<Vec<EndedSession>> {
    store::history(reader, span)
}

/// How many sessions run, by the heartbeats in the database.
pub fn count(reader: &Reader<'_>, cutoff: LivenessCutoff) -> Result<u32> {
    store::count(reader, cutoff)
}

/// The position of a row in a list: what the list is ordered by, then the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last heartbeat or the end.
    pub at: UnixMs,
    /// The session's id.
    pub id: SessionId,
}

impl Position {
    /// Before the first row of an ascending list.
    const MIN: Self = Self {
        at: UnixMs(i64::MIN),
        id: SessionId(i64::MIN),
    };
    /// Before the first row of a descending list.
    const MAX: Self = Self {
        at: UnixMs(i64::MAX),
        id: SessionId(i64::MAX),
    };
}

/// Which page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// The first page.
    First,
    /// The page that follows this row.
    After(Position),
    /// The page that precedes this row.
    Before(Position),
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Its rows, in the order of the list.
    pub rows: Vec<T>,
    /// Whether rows precede it.
    pub has_previous: bool,
    /// Whether rows follow it.
    pub has_next: bool,
}

impl<T> Page<T> {
    /// The page from `rows` as they were read: in reverse for [`Cursor::Before`], and one more than `limit` if there
    /// are more.
    fn cut(mut rows: Vec<T>, from: Cursor, limit: usize) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        match from {
            Cursor::First | Cursor::After(_) => Self {
                rows,
                has_previous: from != Cursor::First,
                has_next: more,
            },
            Cursor::Before(_) => {
                rows.reverse();
                Self {
                    rows,
                    has_previous: more,
                    has_next: true,
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
    LatestHeartbeat,
    /// The earliest heartbeat first.
    EarliestHeartbeat,
}

impl Order {
    /// Every order; the first is the default.
    pub const ALL: [Self; 4] = [
        Self::Newest,
        Self::Oldest,
        Self::LatestHeartbeat,
        Self::EarliestHeartbeat,
    ];

    /// Its value in a URL query.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::LatestHeartbeat => "heard",
            Self::EarliestHeartbeat => "silent",
        }
    }

    /// The order for a value; `None` if unknown.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.word() == word)
    }

    const fn reversed(self) -> Self {
        match self {
            Self::Newest => Self::Oldest,
            Self::Oldest => Self::Newest,
            Self::LatestHeartbeat => Self::EarliestHeartbeat,
            Self::EarliestHeartbeat => Self::LatestHeartbeat,
        }
    }

    /// The position before the first row.
    const fn start(self) -> Position {
        match self {
            Self::Newest | Self::LatestHeartbeat => Position::MAX,
            Self::Oldest | Self::EarliestHeartbeat => Position::MIN,
        }
    }
}

/// Which running sessions to return.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Part of the key, customer, company, device or address; empty for all.
    pub search: String,
    /// The order of the list.
    pub order: Order,
    /// The page.
    pub from: Cursor,
    /// The maximum number of rows.
    pub limit: u32,
    /// The interval at which programs send heartbeats, in seconds.
    pub heartbeat_interval: u32,
}

/// A running session in a list.
#[derive(Clone, Debug)]
pub struct ListRow {
    /// The session, with its last heartbeat from memory.
    pub session: RunningSession,
    /// Its position in the list.
    pub position: Position,
    /// Whether its heartbeat is late.
    pub late: bool,
}

/// The last heartbeat of a session as stored; [`LiveSessions`] may know a later one.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredHeartbeat {
    pub(super) token: SessionToken,
    pub(super) started_at: UnixMs,
    pub(super) last_heartbeat_at: UnixMs,
    pub(super) timeout_s: u32,
}

/// A page of the running sessions, by the heartbeats in memory: those not written yet count, and sessions that only
/// await the sweep are left out.
pub fn page(
    reader: &Reader<'_>,
    live: &LiveSessions,
    query: &ListQuery,
    now: Now,
) -> Result<Page<ListRow>> {
    let (order, mut position) = match query.from {
        Cursor::First => (query.order, query.order.start()),
        Cursor::After(position) => (query.order, position),
        Cursor::Before(position) => (query.order.reversed(), position),
    };
    let (limit, mut batch) = (query.limit as usize, query.limit + 1);
    let mut rows = Vec::new();
    loop {
        let found = store::page(reader, order, &query.search, position, batch)?;
        let last_page = found.len() < batch as usize;
        for (mut session, stored) in found {
            position = Position {
                at: stored.last_heartbeat_at,
                id: session.id,
            };
            let last_heartbeat = live.last_heartbeat_of(&stored);
            if last_heartbeat.timed_out(now.tick) || rows.len() > limit {
                continue;
            }
            session.last_heartbeat_at = last_heartbeat.last_at;
            let late = rules::late(last_heartbeat.tick, query.heartbeat_interval, now.tick);
            rows.push(ListRow {
                session,
                position,
                late,
            });
        }
        if last_page || rows.len() > limit {
            break;
        }
        batch = (batch * 4).min(BATCH_MAX);
    }
    if matches!(query.from, Cursor::Before(_)) && rows.len() < limit {
        // Fewer rows precede than fill a page: show the first page.
        let from = Cursor::First;
        return page(
            reader,
            live,
            &ListQuery {
                from,
                ..query.clone()
            },
            now,
        );
    }
    Ok(Page::cut(rows, query.from, limit))
}

/// How many sessions run, by the heartbeats in memory.
pub fn live_count(reader: &Reader<'_>, live: &LiveSessions, now: Now) -> Result<u32> {
    let stored = store::heartbeats(reader)?;
    let running = stored
        .iter()
        .filter(|stored| !live.last_heartbeat_of(stored).timed_out(now.tick));
    Ok(u32::try_from(running.count()).unwrap_or(u32::MAX))
}

/// The ended session with this id; `None` if unknown.
pub fn ended_by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<EndedSession>> {
    store::ended_by_id(reader, id)
}

/// The running session with this id, even if it has timed out; `None` if it has ended or is unknown.
pub fn running_by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<RunningSession>> {
    store::running_by_id(reader, id)
}

/// Which ended sessions to return.
#[derive(Clone, Debug)]
pub struct HistoryFilter {
    /// Part of the license key; empty for any.
    pub key: String,
    /// Part of the customer's name or company; empty for any.
    pub customer: String,
    /// How it ended; `None` for any reason.
    pub reason: Option<EndReason>,
    /// Ended at this moment or later.
    pub since: UnixMs,
    /// Ended at this moment or earlier.
    pub until: UnixMs,
}

/// A page of the ended sessions, the latest end first.
pub fn history_page(
    reader: &Reader<'_>,
    filter: &HistoryFilter,
    from: Cursor,
    limit: u32,
) -> Result<Page<EndedSession>> {
    let full = limit as usize;
    let rows = match from {
        Cursor::Before(position) => store::history_before(reader, filter, position, limit + 1)?,
        Cursor::First => store::history_after(reader, filter, Position::MAX, limit + 1)?,
        Cursor::After(position) => store::history_after(reader, filter, position, limit + 1)?,
    };
    if matches!(from, Cursor::Before(_)) && rows.len() < full {
        return history_page(reader, filter, Cursor::First, limit);
    }
    Ok(Page::cut(rows, from, full))
}

impl EndedSession {
    /// Its position in the history.
    pub fn position(&self) -> Position {
        Position {
            at: self.ended_at,
            id: self.session.id,
        }
    }
}

/// The period for which session counts are shown.
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
    /// Every period; the first is the default.
    pub const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// Its length in days.
    pub const fn days(self) -> u32 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
        }
    }

    /// The time from one sample to the next.
    const fn step(self) -> Duration {
        match self {
            Self::Day => Duration::from_mins(10),
            Self::Week => Duration::from_hours(1),
            Self::Month => Duration::from_hours(4),
        }
    }
}

/// How many sessions ran at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The moment.
    pub at: UnixMs,
    /// The number of sessions.
    pub running: u32,
}

/// The session counts of each period, cached for a minute: a month of a busy shop has a million starts and ends.
#[derive(Debug, Default)]
pub struct UsageCache(Mutex<CachedSeries>);

/// When each series was computed, and its samples.
type CachedSeries = HashMap<Period, (Tick, Arc<Vec<Sample>>)>;

/// How long a series is cached.
const CACHE_TTL: Duration = Duration::from_mins(1);

impl UsageCache {
    /// How many sessions ran during `period`, in order of time; the last sample is now. Downtime of the server is not
    /// marked: no session starts or ends in it.
    pub fn get(
        &self,
        reader: &Reader<'_>,
        live: &LiveSessions,
        period: Period,
        now: Now,
    ) -> Result<Vec<Sample>> {
        let cached = self.entries().get(&period).cloned();
        let cached = cached.filter(|(computed, _)| now.tick.since(*computed) < CACHE_TTL);
        let series = if let Some((_, series)) = cached {
            series
        } else {
            let series = Arc::new(concurrency_series(reader, live, period, now)?);
            self.entries().insert(period, (now.tick, series.clone()));
            series
        };
        let past = series.iter().filter(|sample| sample.at < now.wall);
        let mut samples: Vec<Sample> = past.copied().collect();
        samples.push(Sample {
            at: now.wall,
            running: live_count(reader, live, now)?,
        });
        Ok(samples)
    }

    fn entries(&self) -> MutexGuard<'_, CachedSeries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted backwards from the sessions that run now, by the starts and ends in each step. Folded sessions have no
/// start and end of their own and are estimated.
fn concurrency_series(
    reader: &Reader<'_>,
    live: &LiveSessions,
    period: Period,
    now: Now,
) -> Result<Vec<Sample>> {
    let times = rules::sample_times(period.days(), period.step(), now.wall);
    let stored = store::heartbeats(reader)?;
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for stored in &stored {
        starts.push(stored.started_at);
        let last_heartbeat = live.last_heartbeat_of(stored);
        if last_heartbeat.timed_out(now.tick) {
            // Timed out, but the sweep has not moved it to the history yet.
            ends.push(last_heartbeat.times_out_at());
        }
    }
    let running = u32::try_from(stored.len() - ends.len()).unwrap_or(u32::MAX);
    starts.sort_unstable();
    ends.sort_unstable();
    let mut changes = Vec::with_capacity(times.len());
    for (after, until) in times.iter().zip(times.iter().skip(1)) {
        let (after, until) = (*after, *until);
        changes.push(CountChange {
            started: store::started_between(reader, after, until)? + between(&starts, after, until),
            ended: store::ended_between(reader, after, until)? + between(&ends, after, until),
        });
    }
    let folded = match times.first() {
        Some(first) => store::folded_since(reader, *first)?,
        None => Vec::new(),
    };
    let counts = rules::concurrent(running, &changes).into_iter();
    let counts = times.into_iter().zip(counts);
    let sample = |(at, running): (UnixMs, u32)| Sample {
        at,
        running: running.saturating_add(rules::estimate_folded(&folded, at)),
    };
    Ok(counts.map(sample).collect())
}

/// How many of the sorted `moments` lie after `after`, up to and including `until`.
fn between(moments: &[UnixMs], after: UnixMs, until: UnixMs) -> u32 {
    let below = |edge: UnixMs| moments.partition_point(|moment| *moment <= edge);
    u32::try_from(below(until).saturating_sub(below(after))).unwrap_or(u32::MAX)
}
