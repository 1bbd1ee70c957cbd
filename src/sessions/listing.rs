//! Lists and counts running sessions for administrators.

use super::{Order, SessionColumn, rules, store};
use crate::clock::{Now, UnixMs};
use crate::db::Reader;
use crate::error::Result;
use crate::id::{LicenseId, ProductId, SessionId};
use crate::license_key;
use crate::licenses::{self, LicenseText};
use crate::live_sessions::{LastHeartbeat, LiveSessions};
use crate::paging::{
    COUNTED_MAX, Cursor, Direction, Page, PageRequest, SORTED_MAX, SortPosition, Total,
};
use crate::session_history::SessionDetails;
use crate::terms::{FOUND_MAX, Pattern, Terms};
use crate::{customers, devices};

/// Maximum rows read at once. More than a page is read if many of its rows have timed out and await the sweep.
const BATCH_MAX: u32 = 2000;

/// Sessions whose heartbeats are compared with the clock to count those that run.
const EXAMINED_MAX: u32 = 5_000;

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
    match many(reader, product)? {
        Some(kept) => Ok(kept),
        None => store::count(reader, cutoff, product),
    }
}

/// How many sessions have not ended, if they are too many to look at the heartbeat of each: those that have timed out and
/// await the sweep are counted, too.
fn many(reader: &Reader<'_>, product: Option<ProductId>) -> Result<Option<u32>> {
    let stored = store::count_stored(reader, product)?;
    Ok(Some(stored).filter(|stored| *stored > EXAMINED_MAX))
}

/// Which running sessions to return.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Part of the key, customer, company, device or address; empty for all.
    pub search: String,
    /// The column by which the list is sorted, and in which direction.
    pub order: (SessionColumn, Direction),
    /// The page of the list.
    pub page: PageRequest<SortPosition>,
    /// Of this product only.
    pub product: Option<ProductId>,
}

/// A running session in a list.
#[derive(Clone, Debug)]
pub struct ListRow {
    /// The session, with its last heartbeat from memory.
    pub session: SessionDetails,
    /// Its position in the list.
    pub position: SortPosition,
    /// Whether its heartbeat is late.
    pub late: bool,
}

/// A page of a list of running sessions.
#[derive(Clone, Debug)]
pub struct ListPage {
    /// Its rows.
    pub page: Page<ListRow>,
    /// How many sessions the list has.
    pub total: Total,
    /// Its order, which is not the one that was asked for if the list has too many sessions for that.
    pub order: (SessionColumn, Direction),
}

/// A page of the running sessions, judged by the heartbeats in memory: sessions that have timed out are left out, even
/// if the sweep has not ended them yet.
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) if the position is none in the order of the list.
pub fn page(
    reader: &Reader<'_>,
    live: &LiveSessions,
    query: &ListQuery,
    now: Now,
) -> Result<ListPage> {
    let (narrowed, found) = narrow(reader, query)?;
    let total = match found {
        Some(total) => total,
        None => Total::Exactly(live_count(reader, query.product, live, now)?),
    };
    let order = match Order::of(query.order) {
        Some(_) => query.order,
        None => total.order(query.order, SessionColumn::DEFAULT),
    };
    let request = query.page.clone().in_order(query.order, order);
    let page = if let Some(read) = Order::of(order) {
        read_page(reader, live, (read, &narrowed, &request), now)?
    } else {
        let all = PageRequest::first(SORTED_MAX);
        let mut rows = read_rows(reader, live, (Order::Newest, &narrowed, &all), now)?;
        for row in &mut rows {
            row.position = position(&row.session, order.0);
        }
        request.cut(rows, order.1, |row| row.position.clone())
    };
    Ok(ListPage { page, total, order })
}

/// The position of a session in a list that is sorted by a column by which sessions are not read.
fn position(session: &SessionDetails, column: SessionColumn) -> SortPosition {
    let id = session.id.0;
    match column {
        SessionColumn::Customer => SortPosition::text(&session.customer, id),
        SessionColumn::Device => SortPosition::text(&session.machine_id, id),
        _ => SortPosition::address(&session.address, id),
    }
}

fn read_page(
    reader: &Reader<'_>,
    live: &LiveSessions,
    (order, narrowed, request): (Order, &store::Narrowed, &PageRequest<SortPosition>),
    now: Now,
) -> Result<Page<ListRow>> {
    let rows = read_rows(reader, live, (order, narrowed, request), now)?;
    if matches!(request.from, Cursor::Before(_)) && rows.len() < request.limit as usize {
        // Not enough rows for a whole page precede the position: show the first page instead.
        let first = PageRequest::first(request.limit);
        let rows = read_rows(reader, live, (order, narrowed, &first), now)?;
        return Ok(first.page(rows));
    }
    Ok(request.page(rows))
}

/// Which sessions a search finds, and how many; `None` without a search.
fn narrow(reader: &Reader<'_>, query: &ListQuery) -> Result<(store::Narrowed, Option<Total>)> {
    let narrowed = store::Narrowed {
        product: query.product,
        ..store::Narrowed::default()
    };
    let terms = Terms::parse(&query.search);
    if terms.is_empty() {
        return Ok((narrowed, None));
    }
    let (found, is_cut) = look_up(reader, &terms, query.product)?;
    let ids = store::matching(reader, query.product, &found, Total::ROWS_TO_COUNT)?;
    let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    if is_cut || count > COUNTED_MAX {
        let total = if count == 0 {
            Total::Unknown
        } else {
            Total::MoreThan(count.min(COUNTED_MAX))
        };
        let search = query.search.clone();
        return Ok((store::Narrowed { search, ..narrowed }, Some(total)));
    }
    let found = Some(ids);
    Ok((
        store::Narrowed { found, ..narrowed },
        Some(Total::Exactly(count)),
    ))
}

/// What a search finds in the index, and whether there may be more.
fn look_up(
    reader: &Reader<'_>,
    terms: &Terms,
    product: Option<ProductId>,
) -> Result<(store::Found, bool)> {
    let key = LicenseText {
        pattern: Pattern::of(None),
        key_part: license_key::searched_part(terms.typed()),
    };
    let customers = customers::with_text(reader, &terms.words(), FOUND_MAX)?;
    let licenses = licenses::with_text(reader, &key, product, FOUND_MAX)?;
    let devices = devices::with_text(reader, &terms.words(), product, FOUND_MAX)?;
    let is_cut = [customers.len(), licenses.len(), devices.len()]
        .iter()
        .any(|found| *found >= FOUND_MAX as usize);
    let may_be_address = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    let typed = terms.typed().to_ascii_lowercase();
    let address = Some(typed).filter(|typed| {
        typed.chars().all(may_be_address) && typed.contains(|c: char| !c.is_ascii_alphabetic())
    });
    let found = store::Found {
        customers,
        licenses,
        devices: devices.into_iter().map(|(_, device)| device.id).collect(),
        address: address.unwrap_or_default(),
    };
    Ok((found, is_cut))
}

/// The rows of a page as [`PageRequest::page`] expects them. Reads in batches until the page is full, since any number
/// of the rows may have timed out.
fn read_rows(
    reader: &Reader<'_>,
    live: &LiveSessions,
    (order, narrowed, request): (Order, &store::Narrowed, &PageRequest<SortPosition>),
    now: Now,
) -> Result<Vec<ListRow>> {
    let (order, after) = match &request.from {
        Cursor::First => (order, order.before_first_row()),
        Cursor::After(position) => (order, position.try_into()?),
        Cursor::Before(position) => (order.reversed(), position.try_into()?),
    };
    let mut list_start = store::ListStart { order, after };
    let (limit, mut batch) = (request.limit as usize, request.rows_to_read());
    let mut rows = Vec::new();
    loop {
        let found = store::page(reader, narrowed, list_start, batch)?;
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
    let position = row.position().into();
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
    if let Some(kept) = many(reader, product)? {
        return Ok(kept);
    }
    let stored = store::heartbeats(reader, product)?;
    let running = stored
        .iter()
        .filter(|stored| !live.last_heartbeat(stored).timed_out(now.tick));
    Ok(u32::try_from(running.count()).unwrap_or(u32::MAX))
}

/// The session with this id, unless it has ended; also if it has timed out and awaits the sweep.
pub fn running_by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<SessionDetails>> {
    store::running_by_id(reader, id)
}
