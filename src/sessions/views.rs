//! What people are shown of sessions: those that run, those that ended, and how many at a time. Looks,
//! never changes.

use super::{EndReason, Live, rules, store};
use crate::clock::{Now, UnixMs};
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
}

/// Which sessions count as running, for those who only read the file: of these, it has heard within their
/// timeout, counted from the start of the server at the earliest.
#[derive(Clone, Copy, Debug)]
pub struct Alive {
    pub(super) started_at: UnixMs,
    pub(super) now: UnixMs,
}

impl Alive {
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
pub fn running(reader: &Reader<'_>, alive: Alive, limit: u32) -> Result<Vec<Running>> {
    store::running(reader, alive, limit)
}

/// The session that runs on a license.
///
/// # Errors
/// When SQLite fails.
pub fn running_on(
    reader: &Reader<'_>,
    alive: Alive,
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
pub fn count(reader: &Reader<'_>, alive: Alive) -> Result<u32> {
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
pub struct Look {
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
pub struct Listed {
    /// The session, as the server's own memory knows it.
    pub session: Running,
    /// Its place in the list.
    pub place: Place,
    /// Whether it owes a heartbeat.
    pub silent: bool,
}

/// What the file says of a running session, for the memory to judge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
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
pub fn page(reader: &Reader<'_>, live: &Live, look: &Look, now: Now) -> Result<Page<Listed>> {
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
            let vital = live.vital_of(&said);
            if vital.over(now.tick) || rows.len() > limit {
                continue;
            }
            session.last_heartbeat_at = vital.last_at;
            let silent = rules::silent(vital.last, look.heartbeat_interval, now.tick);
            rows.push(Listed {
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
        return page(reader, live, &Look { from, ..look.clone() }, now);
    }
    Ok(Page::cut(rows, look.from, limit))
}

/// How many sessions live by the server's own memory.
///
/// # Errors
/// When SQLite fails.
pub fn live_count(reader: &Reader<'_>, live: &Live, now: Now) -> Result<u32> {
    let said = store::said(reader)?;
    let lives = said.iter().filter(|said| !live.vital_of(said).over(now.tick));
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
