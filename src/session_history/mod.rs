//! The history of ended sessions: it is listed, folded (see `fold.rs`) and purged.

pub mod cli;
mod fold;
pub mod panel;
mod rules;
mod store;

pub use fold::{TOKEN_RETENTION, fold};
pub use rules::{EndReason, Foldable};

use std::time::Duration;

use tokio::time::sleep;

use crate::clock::{Now, UnixMs};
use crate::db::{Db, Reader, Tx};
use crate::error::{Error, Result};
use crate::id::{CustomerId, LicenseId, ProductId, SessionId, SessionToken};
use crate::licenses::{self, LicenseKey, LicenseText};
use crate::paging::{
    COUNTED_MAX, Cursor, Direction, Page, PageRequest, SORTED_MAX, SortPosition, Total,
};
use crate::terms::{Pattern, Terms};
use crate::version::Version;
use crate::{customers, idempotency, license_key};

/// Rows removed in one transaction; other writes wait meanwhile.
const PURGE_BATCH: u32 = 500;
/// Pause between two of them. Rows of one time lie together in the table, but everywhere in its indexes by license and by
/// token: the writer and the disk would do little else while a shop's first purge removes millions.
const PURGE_PAUSE: Duration = Duration::from_millis(100);

/// A session, as administrators see it.
#[derive(Clone, Debug)]
pub struct SessionDetails {
    /// The id.
    pub id: SessionId,
    /// The license that it runs on.
    pub license_id: LicenseId,
    /// The product of that license.
    pub product: ProductId,
    /// The key of that license.
    pub license_key: LicenseKey,
    /// The customer of that license; `None` for a trial that was not bought.
    pub customer_id: Option<CustomerId>,
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
    pub session: SessionDetails,
    /// When it ended; for a timeout the moment at which it timed out.
    pub ended_at: UnixMs,
    /// How it ended.
    pub reason: EndReason,
    /// How many sessions this stands for: several if they were folded into one row. Then id and start are those of the
    /// first one, everything else is of the last.
    pub session_count: u32,
}

/// A session that ends now, with everything that the history stores about it.
#[derive(Clone, Copy, Debug)]
pub struct HistoryEntry<'a> {
    /// The id.
    pub id: SessionId,
    /// The token, by which a later heartbeat of the program is told how the session ended.
    pub token: SessionToken,
    /// The license that it ran on.
    pub license_id: LicenseId,
    /// The device's fingerprint.
    pub hardware_id: &'a str,
    /// The device's own name.
    pub machine_id: &'a str,
    /// The program's version.
    pub version: Version,
    /// The IP address that started it.
    pub address: &'a str,
    /// When it started.
    pub started_at: UnixMs,
    /// Its last heartbeat.
    pub last_heartbeat_at: UnixMs,
    /// When it ended; for a timeout the moment at which it timed out.
    pub ended_at: UnixMs,
    /// How it ended.
    pub reason: EndReason,
}

/// Adds a session that was just removed from `active_sessions`.
pub fn add(tx: &Tx<'_>, entry: &HistoryEntry<'_>) -> Result<()> {
    store::add(tx, entry)
}

/// The license of the ended session with this token, and how it ended; `None` if no session with it has ended.
pub fn by_token(
    reader: &Reader<'_>,
    token: &SessionToken,
) -> Result<Option<(LicenseId, EndReason)>> {
    store::by_token(reader, token)
}

/// The ended session with this id; `None` if no session with it has ended.
pub fn by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<EndedSession>> {
    store::by_id(reader, id)
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
pub fn list(reader: &Reader<'_>, query: &HistoryQuery) -> Result<Vec<EndedSession>> {
    store::list(reader, query)
}

/// The position of a row in a list of running or ended sessions: by `at`, then by `id`. In a list of running sessions
/// in order of their starts, only `id` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The last heartbeat of a running session, the end of an ended one.
    pub at: UnixMs,
    /// The session's id.
    pub id: SessionId,
}

impl From<Position> for SortPosition {
    fn from(position: Position) -> Self {
        Self::number(position.at.0, position.id.0)
    }
}

impl TryFrom<&SortPosition> for Position {
    type Error = Error;

    fn try_from(position: &SortPosition) -> Result<Self> {
        Ok(Self {
            at: UnixMs(position.as_number()?),
            id: SessionId(position.id),
        })
    }
}

impl Position {
    /// Before the first row of an ascending list.
    pub const MIN: Self = Self {
        at: UnixMs(i64::MIN),
        id: SessionId(i64::MIN),
    };
    /// Before the first row of a descending list.
    pub const MAX: Self = Self {
        at: UnixMs(i64::MAX),
        id: SessionId(i64::MAX),
    };
}

/// Which ended sessions a page lists.
#[derive(Clone, Debug)]
pub struct HistoryFilter {
    /// Part of the license key; empty for any.
    pub key: String,
    /// Part of the customer's name or company; empty for any.
    pub customer: String,
    /// How it ended; `None` for any reason.
    pub reason: Option<EndReason>,
    /// Of this product only.
    pub product: Option<ProductId>,
    /// Ended at this moment or later.
    pub since: UnixMs,
    /// Ended at this moment or earlier.
    pub until: UnixMs,
    /// The column by which the list is sorted, and in which direction.
    pub order: (HistoryColumn, Direction),
}

/// A column by which the history can be sorted. Only ends have an index: by another column, a list of at most
/// [`SORTED_MAX`] rows is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryColumn {
    /// When the session ended.
    Ended,
    /// The customer's name.
    Customer,
    /// The device's name.
    Device,
    /// The address.
    Address,
    /// When the session started.
    Started,
    /// The word of the reason.
    Reason,
}

impl HistoryColumn {
    /// Every column.
    pub const ALL: [Self; 6] = [
        Self::Ended,
        Self::Customer,
        Self::Device,
        Self::Address,
        Self::Started,
        Self::Reason,
    ];
    /// The order if none is chosen: the latest end first.
    pub const DEFAULT: (Self, Direction) = (Self::Ended, Direction::Descending);

    /// The word in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Customer => "customer",
            Self::Device => "device",
            Self::Address => "address",
            Self::Started => "started",
            Self::Reason => "reason",
        }
    }

    /// The column for a word; `None` if unknown.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }
}

impl HistoryFilter {
    /// The position before the earliest session that the filter allows.
    fn lower_bound(&self) -> Position {
        Position {
            at: self.since,
            id: SessionId(i64::MIN),
        }
    }

    /// The position after the latest session that the filter allows.
    fn upper_bound(&self) -> Position {
        Position {
            at: self.until,
            id: SessionId(i64::MAX),
        }
    }
}

/// Whose sessions a filter matches.
#[derive(Clone, Debug)]
pub enum OfCustomers {
    /// Anybody's.
    Any,
    /// Those of these customers.
    Ids(Vec<CustomerId>),
    /// Those of customers who contain what the pattern says: too many for a list. These are some of them.
    Like(Pattern, Vec<CustomerId>),
}

impl OfCustomers {
    /// The customers that the search index finds for `words`.
    fn find(reader: &Reader<'_>, words: Pattern) -> Result<Self> {
        let found = customers::with_text(reader, &words, CUSTOMERS_MAX + 1)?;
        Ok(if found.len() > CUSTOMERS_MAX as usize {
            Self::Like(words, found)
        } else {
            Self::Ids(found)
        })
    }

    /// The customers that are known, perhaps not all; `None` for any.
    fn known(&self) -> Option<&[CustomerId]> {
        match self {
            Self::Any => None,
            Self::Ids(ids) | Self::Like(_, ids) => Some(ids),
        }
    }
}

/// How the sessions of a filter are found.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Those of each of these few licenses.
    Few(Vec<LicenseId>),
    /// In the order of time: each is compared until the page is full.
    Many {
        /// Part of the license key; empty for any.
        key_part: String,
        /// Whose they are.
        customers: OfCustomers,
    },
}

/// Licenses whose histories are looked up one by one. Of more, so many of all sessions are that a page is full soon.
const FEW_MAX: u32 = 3_000;
/// Licenses whose sessions are counted to say that there are more than so many.
const COUNTED_LICENSES: u32 = 500;
/// Customers that are listed by their ids. Of more, so many of all sessions are that a page is full soon.
const CUSTOMERS_MAX: u32 = 5_000;

/// How the sessions of `filter` are found.
pub fn scope(reader: &Reader<'_>, filter: &HistoryFilter) -> Result<Scope> {
    let key_part = licenses::key_part(&filter.key);
    let customers = Terms::parse(&filter.customer);
    let (licenses, customers) = if !customers.is_empty() {
        // All of them, if they are few: the latest sessions may be those of the oldest customers.
        let found = OfCustomers::find(reader, customers.words())?;
        let licenses = match &found {
            OfCustomers::Ids(ids) => Some(store::licenses_of(reader, filter, ids, FEW_MAX + 1)?),
            OfCustomers::Like(..) | OfCustomers::Any => None,
        };
        (licenses, found)
    } else if let Some(part) = license_key::searched_part(&filter.key) {
        let text = LicenseText {
            pattern: Pattern::of(None),
            key_part: Some(part),
        };
        let found = licenses::with_text(reader, &text, filter.product, FEW_MAX + 1)?;
        (Some(found), OfCustomers::Any)
    } else if let (Some(product), true) = (filter.product, key_part.is_empty()) {
        let found = store::licenses_of_product(reader, product, FEW_MAX + 1)?;
        (Some(found), OfCustomers::Any)
    } else {
        (None, OfCustomers::Any)
    };
    Ok(match licenses {
        Some(licenses) if licenses.len() <= FEW_MAX as usize => Scope::Few(licenses),
        _ => Scope::Many {
            key_part,
            customers,
        },
    })
}

/// A page of the ended sessions in the order of `filter`, whose [`scope`] is given; see [`Total::order`] for the orders in
/// which a list can be shown.
///
/// # Errors
/// [`Error::Invalid`] if the position is none in this order.
pub fn page(
    reader: &Reader<'_>,
    (filter, scope): (&HistoryFilter, &Scope),
    request: &PageRequest<SortPosition>,
) -> Result<Page<EndedSession>> {
    let (column, direction) = filter.order;
    if column == HistoryColumn::Ended {
        return page_by_end(reader, (filter, scope), (direction, request));
    }
    let all = PageRequest::first(SORTED_MAX);
    let all = page_by_end(reader, (filter, scope), (direction, &all))?;
    Ok(request.cut(all.rows, direction, |ended| ended.position(column)))
}

fn page_by_end(
    reader: &Reader<'_>,
    (filter, scope): (&HistoryFilter, &Scope),
    (direction, request): (Direction, &PageRequest<SortPosition>),
) -> Result<Page<EndedSession>> {
    let (position, towards) = request.start(direction);
    let position = position.map(Position::try_from).transpose()?;
    let position = position.unwrap_or(match towards {
        Direction::Descending => Position::MAX,
        Direction::Ascending => Position::MIN,
    });
    let limit = request.rows_to_read();
    let rows = store::page(reader, (filter, scope), position, (towards, limit))?;
    if matches!(request.from, Cursor::Before(_)) && rows.len() < request.limit as usize {
        // Not enough rows for a whole page precede the position: show the first page instead.
        let first = PageRequest::first(request.limit);
        return page_by_end(reader, (filter, scope), (direction, &first));
    }
    Ok(request.page(rows))
}

/// How many ended sessions match a filter, whose [`scope`] is given.
pub fn count_matching(reader: &Reader<'_>, filter: &HistoryFilter, scope: &Scope) -> Result<Total> {
    let limit = Total::ROWS_TO_COUNT;
    let (key_part, customers) = match scope {
        Scope::Few(licenses) => {
            return Ok(Total::counted(store::count_of(
                reader, filter, licenses, limit,
            )?));
        }
        Scope::Many {
            key_part,
            customers,
        } => (key_part, customers),
    };
    let Some(customers) = customers.known() else {
        return Ok(Total::counted(store::count(
            reader, filter, key_part, limit,
        )?));
    };
    let some = store::licenses_of(reader, filter, customers, COUNTED_LICENSES)?;
    // The other licenses have more.
    Ok(match store::count_of(reader, filter, &some, limit)? {
        0 => Total::Unknown,
        count => Total::MoreThan(count.min(COUNTED_MAX)),
    })
}

impl EndedSession {
    /// Its position in a list that is sorted by `column`.
    pub fn position(&self, column: HistoryColumn) -> SortPosition {
        let (session, id) = (&self.session, self.session.id.0);
        match column {
            HistoryColumn::Ended => SortPosition::number(self.ended_at.0, id),
            HistoryColumn::Started => SortPosition::number(session.started_at.0, id),
            HistoryColumn::Address => SortPosition::address(&session.address, id),
            HistoryColumn::Customer => SortPosition::text(&session.customer, id),
            HistoryColumn::Device => SortPosition::text(&session.machine_id, id),
            HistoryColumn::Reason => SortPosition::text(self.reason.as_str(), id),
        }
    }
}

/// Removes sessions that ended more than `retention` ago from the history, and stored responses that have expired.
/// Returns how many rows were removed. Removes fewer than 5,000 a second.
///
/// # Errors
/// If a write fails; rows already removed stay removed.
pub async fn purge(db: &Db, retention: Duration, now: Now) -> Result<usize> {
    let mut removed = 0;
    loop {
        let removed_in_batch = db
            .write("session_history.purge", move |tx| {
                let sessions = store::purge(tx, now.wall.minus(retention), PURGE_BATCH)?;
                Ok(sessions + idempotency::purge(tx, now.wall, PURGE_BATCH)?)
            })
            .await?;
        removed += removed_in_batch;
        if removed_in_batch < PURGE_BATCH as usize {
            return Ok(removed);
        }
        sleep(PURGE_PAUSE).await;
    }
}
