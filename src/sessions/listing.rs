//! Lists and counts running sessions for administrators.

use super::{rules, store};
use crate::clock::{Now, UnixMs};
use crate::db::Reader;
use crate::error::Result;
use crate::id::{LicenseId, ProductId, SessionId};
use crate::live_sessions::{LastHeartbeat, LiveSessions};
use crate::paging::{Cursor, Page, PageRequest, Total};
use crate::session_history::{Position, SessionDetails};

/// Maximum rows read at once. More than a page is read if many of its rows have timed out and await the sweep.
const BATCH_MAX: u32 = 2000;

/// Decides which sessions count as running if only the database is read: those whose `runs_until_ms` in the view
/// `running_sessions` is later than this moment.
#[derive(Clone, Copy, Debug)]
pub struct LivenessCutoff {
    pub(super) runs_past: UnixMs,
}

impl LivenessCutoff {
    /// For a database on which a server is running: the sessions that have not timed out at `now`.
    pub fn while_served(now: UnixMs) -> Self {
        Self { runs_past: now }
    }

    /// For a database on which no server is running: every session, since none times out before the next start.
    pub fn without_server() -> Self {
        Self {
            runs_past: UnixMs(0),
        }
    }
}

/// The running sessions of one product or (`None`) of all products, newest first.
pub fn running(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<SessionDetails>> {
    store::running(reader, cutoff, product, limit)
}

/// The running session of a license.
pub fn running_on(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    license_id: LicenseId,
) -> Result<Option<SessionDetails>> {
    store::running_on(reader, cutoff, license_id)
}

/// How many sessions run, of one product or (`None`) of all products; judged by the heartbeats in the database alone.
pub fn count(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    product: Option<ProductId>,
) -> Result<u32> {
    store::count(reader, cutoff, product)
}

/// The order of a list of running sessions.
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
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::LatestHeartbeat => "latest-heartbeat",
            Self::EarliestHeartbeat => "earliest-heartbeat",
        }
    }

    /// The order for a value; `None` if unknown.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.as_str() == text)
    }

    const fn reversed(self) -> Self {
        match self {
            Self::Newest => Self::Oldest,
            Self::Oldest => Self::Newest,
            Self::LatestHeartbeat => Self::EarliestHeartbeat,
            Self::EarliestHeartbeat => Self::LatestHeartbeat,
        }
    }

    /// The position before the first row of the list.
    const fn before_first_row(self) -> Position {
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
    /// The page of the list.
    pub page: PageRequest<Position>,
    /// Of this product only.
    pub product: Option<ProductId>,
}

/// A running session in a list.
#[derive(Clone, Debug)]
pub struct ListRow {
    /// The session, with its last heartbeat from memory.
    pub session: SessionDetails,
    /// Its position in the list.
    pub position: Position,
    /// Whether its heartbeat is late.
    pub late: bool,
}

/// A page of the running sessions, judged by the heartbeats in memory: sessions that have timed out are left out, even
/// if the sweep has not ended them yet.
pub fn page(
    reader: &Reader<'_>,
    live: &LiveSessions,
    query: &ListQuery,
    now: Now,
) -> Result<Page<ListRow>> {
    let rows = read_rows(reader, live, query, now)?;
    if matches!(query.page.from, Cursor::Before(_)) && rows.len() < query.page.limit as usize {
        // Not enough rows for a whole page precede the position: show the first page instead.
        let first = ListQuery {
            page: PageRequest::first(query.page.limit),
            ..query.clone()
        };
        return page(reader, live, &first, now);
    }
    Ok(query.page.page(rows))
}

/// The rows of a page as [`PageRequest::page`] expects them. Reads in batches until the page is full, since any number
/// of the rows may have timed out.
fn read_rows(
    reader: &Reader<'_>,
    live: &LiveSessions,
    query: &ListQuery,
    now: Now,
) -> Result<Vec<ListRow>> {
    let (order, after) = match query.page.from {
        Cursor::First => (query.order, query.order.before_first_row()),
        Cursor::After(position) => (query.order, position),
        Cursor::Before(position) => (query.order.reversed(), position),
    };
    let mut list_start = store::ListStart { order, after };
    let (limit, mut batch) = (query.page.limit as usize, query.page.rows_to_read());
    let mut rows = Vec::new();
    loop {
        let found = store::page(reader, query, list_start, batch)?;
        let was_last_batch = found.len() < batch as usize;
        for row in found {
            list_start.after = row.position();
            let last_heartbeat = live.last_heartbeat(&row.stored);
            if !last_heartbeat.timed_out(now.tick) && rows.len() <= limit {
                rows.push(list_row(row, &last_heartbeat, now));
            }
        }
        if was_last_batch || rows.len() > limit {
            return Ok(rows);
        }
        batch = (batch * 4).min(BATCH_MAX);
    }
}

/// A row of the list, with the last heartbeat from memory.
fn list_row(row: store::RunningRow, last_heartbeat: &LastHeartbeat, now: Now) -> ListRow {
    let position = row.position();
    let mut session = row.session;
    session.last_heartbeat_at = last_heartbeat.arrived_at;
    ListRow {
        session,
        position,
        late: rules::is_late(last_heartbeat.tick, row.heartbeat_interval, now.tick),
    }
}

/// How many sessions run, of one product or (`None`) of all products; judged by the heartbeats in memory.
pub fn live_count(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    live: &LiveSessions,
    now: Now,
) -> Result<u32> {
    let stored = store::heartbeats(reader, product)?;
    let running = stored
        .iter()
        .filter(|stored| !live.last_heartbeat(stored).timed_out(now.tick));
    Ok(u32::try_from(running.count()).unwrap_or(u32::MAX))
}

/// How many sessions run that match a search: some that have timed out and await the sweep are counted, too.
pub fn count_matching(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    search: &str,
) -> Result<Total> {
    let count = store::count_matching(reader, product, search, Total::ROWS_TO_COUNT)?;
    Ok(Total::counted(count))
}

/// The session with this id, unless it has ended; also if it has timed out and awaits the sweep.
pub fn running_by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<SessionDetails>> {
    store::running_by_id(reader, id)
}
