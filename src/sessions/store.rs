//! The SQL calls for running sessions.

use rusqlite::{Row, named_params};

use super::{LivenessCutoff, Order, StoredSession};
use crate::clock::UnixMs;
use crate::db::{Columns, FromColumns, Reader, Tx, from_row, id_list};
use crate::error::Result;
use crate::id::{CustomerId, DeviceId, LicenseId, ProductId, SessionId, SessionToken};
use crate::licenses::key_part;
use crate::live_sessions::{StoredHeartbeat, UnsavedHeartbeat};
use crate::session_history::{Position, SessionDetails};
use crate::sql;

pub(super) fn next_id(reader: &Reader<'_>) -> Result<SessionId> {
    reader.one(sql!("sessions/next_id"), [], |row| row.get(0))
}

/// Inserts a session, in place of `replaces` if given. Returns false and changes nothing if another session runs on the
/// license.
pub(super) fn insert_running(
    tx: &Tx<'_>,
    session: &StoredSession,
    replaces: Option<SessionId>,
) -> Result<bool> {
    let params = named_params! {
        ":session_id": session.id,
        ":session_token": session.token,
        ":license_id": session.license_id,
        ":device_id": session.device_id,
        ":client_version": session.version,
        ":address": session.address,
        ":now_ms": session.started_at,
        ":timeout_s": session.timeout_s,
        ":replaces": replaces,
    };
    tx.changes_license(session.license_id);
    Ok(tx.run(sql!("sessions/insert_running"), params)? == 1)
}

pub(super) fn remove(tx: &Tx<'_>, session: &StoredSession) -> Result<()> {
    tx.changes_license(session.license_id);
    let params = named_params! { ":session_id": session.id };
    tx.run(sql!("sessions/remove"), params).map(drop)
}

pub(super) fn by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<StoredSession>> {
    reader.maybe(
        sql!("sessions/by_id"),
        named_params! { ":session_id": id },
        from_row,
    )
}

pub(super) fn by_license(reader: &Reader<'_>, id: LicenseId) -> Result<Option<StoredSession>> {
    reader.maybe(
        sql!("sessions/by_license"),
        named_params! { ":license_id": id },
        from_row,
    )
}

pub(super) fn by_device(reader: &Reader<'_>, id: DeviceId) -> Result<Option<StoredSession>> {
    reader.maybe(
        sql!("sessions/by_device"),
        named_params! { ":device_id": id },
        from_row,
    )
}

pub(super) fn by_token(reader: &Reader<'_>, token: &SessionToken) -> Result<Option<StoredSession>> {
    reader.maybe(
        sql!("sessions/by_token"),
        named_params! { ":session_token": token },
        from_row,
    )
}

pub(super) fn save_heartbeat(tx: &Tx<'_>, heartbeat: &UnsavedHeartbeat) -> Result<()> {
    let params = named_params! {
        ":session_id": heartbeat.session_id, ":at_ms": heartbeat.at, ":timeout_s": heartbeat.timeout_s,
    };
    tx.run(sql!("sessions/save_heartbeat"), params).map(drop)
}

pub(super) fn with_unusable_license(
    reader: &Reader<'_>,
    now: UnixMs,
    limit: u32,
) -> Result<Vec<StoredSession>> {
    let params = named_params! { ":now_ms": now, ":limit": limit };
    reader.list(sql!("sessions/with_unusable_license"), params, from_row)
}

pub(super) fn maybe_timed_out(
    reader: &Reader<'_>,
    after: SessionId,
    now: UnixMs,
    limit: u32,
) -> Result<Vec<StoredSession>> {
    let params = named_params! { ":after": after, ":now_ms": now, ":limit": limit };
    reader.list(sql!("sessions/maybe_timed_out"), params, from_row)
}

pub(super) fn first(reader: &Reader<'_>, limit: u32) -> Result<Vec<StoredSession>> {
    let params = named_params! { ":limit": limit };
    reader.list(sql!("sessions/first"), params, from_row)
}

pub(super) fn latest(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    reader.one(sql!("sessions/latest"), [], |row| row.get(0))
}

pub(super) fn running(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<SessionDetails>> {
    let params = named_params! {
        ":runs_past_ms": cutoff.runs_past, ":product_id": product, ":limit": limit,
    };
    reader.list(sql!("sessions/running"), params, |row| row.try_into())
}

pub(super) fn running_on(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    id: LicenseId,
) -> Result<Option<SessionDetails>> {
    let params = named_params! {
        ":runs_past_ms": cutoff.runs_past, ":license_id": id,
    };
    reader.maybe(sql!("sessions/running_on"), params, |row| row.try_into())
}

/// Which sessions a list shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Narrowed {
    pub(super) product: Option<ProductId>,
    /// Those that a search found; `None` for all.
    pub(super) found: Option<Vec<SessionId>>,
    /// What each row is compared with, if the index finds too much; empty for all.
    pub(super) search: String,
}

/// Where the reading of a list begins: its order, and a position in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListStart {
    pub(super) order: Order,
    /// The position of the row before the first one that is read.
    pub(super) after: Position,
}

/// A row of a list of running sessions.
pub(super) struct RunningRow {
    pub(super) session: SessionDetails,
    pub(super) stored: StoredHeartbeat,
    /// The seconds between two heartbeats of its product's programs.
    pub(super) heartbeat_interval: u32,
}

impl RunningRow {
    /// Its position in the list.
    pub(super) fn position(&self) -> Position {
        Position {
            at: self.stored.last_heartbeat_at,
            id: self.session.id,
        }
    }
}

/// What a search found in the index: things whose sessions match.
pub(super) struct Found {
    pub(super) customers: Vec<CustomerId>,
    pub(super) licenses: Vec<LicenseId>,
    pub(super) devices: Vec<DeviceId>,
    /// A text that may be part of an address; empty if it cannot.
    pub(super) address: String,
}

/// The sessions that match a search.
pub(super) fn matching(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    found: &Found,
    limit: u32,
) -> Result<Vec<SessionId>> {
    let params = named_params! {
        ":product_id": product,
        ":customers": id_list(&found.customers),
        ":licenses": id_list(&found.licenses),
        ":devices": id_list(&found.devices),
        ":address": found.address,
        ":limit": limit,
    };
    reader.list(sql!("sessions/matching"), params, |row| row.get(0))
}

/// How many sessions have not ended, as the database counts them itself.
pub(super) fn count_stored(reader: &Reader<'_>, product: Option<ProductId>) -> Result<u32> {
    let params = named_params! { ":product_id": product.unwrap_or(ProductId(0)) };
    reader.one(sql!("sessions/count_stored"), params, |row| row.get(0))
}

/// Up to `limit` sessions from `ListStart`, including those that have timed out and await the sweep.
pub(super) fn page(
    reader: &Reader<'_>,
    narrowed: &Narrowed,
    ListStart { order, after }: ListStart,
    limit: u32,
) -> Result<Vec<RunningRow>> {
    let (product, search) = (narrowed.product, &narrowed.search);
    let (key_part, found) = (key_part(search), narrowed.found.as_ref());
    let found = found.map(|found| id_list(found));
    match order {
        Order::Newest | Order::Oldest => {
            let params = named_params! {
                ":product_id": product, ":found": found, ":search": search, ":key_part": key_part,
                ":id": after.id, ":limit": limit,
            };
            let sql = if order == Order::Newest {
                sql!("sessions/page_newest")
            } else {
                sql!("sessions/page_oldest")
            };
            reader.list(sql, params, running_row)
        }
        Order::LatestHeartbeat | Order::EarliestHeartbeat => {
            let params = named_params! {
                ":product_id": product, ":found": found, ":search": search, ":key_part": key_part,
                ":at_ms": after.at, ":id": after.id, ":limit": limit,
            };
            let sql = if order == Order::LatestHeartbeat {
                sql!("sessions/page_latest_heartbeat")
            } else {
                sql!("sessions/page_earliest_heartbeat")
            };
            reader.list(sql, params, running_row)
        }
    }
}

pub(super) fn heartbeats(
    reader: &Reader<'_>,
    product: Option<ProductId>,
) -> Result<Vec<StoredHeartbeat>> {
    let params = named_params! { ":product_id": product };
    reader.list(sql!("sessions/heartbeats"), params, from_row)
}

pub(super) fn running_by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<SessionDetails>> {
    let params = named_params! { ":session_id": id };
    reader.maybe(sql!("sessions/running_by_id"), params, |row| row.try_into())
}

pub(super) fn count(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    product: Option<ProductId>,
) -> Result<u32> {
    let params = named_params! { ":product_id": product, ":runs_past_ms": cutoff.runs_past };
    reader.one(sql!("sessions/count"), params, |row| row.get(0))
}

impl FromColumns for StoredSession {
    const COUNT: usize = 11;

    fn from_columns(columns: &mut Columns<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: columns.take("session_id")?,
            token: columns.take("session_token")?,
            license_id: columns.take("license_id")?,
            device_id: columns.take("device_id")?,
            hardware_id: columns.take("hardware_id")?,
            machine_id: columns.take("machine_id")?,
            version: columns.take("client_version")?,
            address: columns.take("address")?,
            started_at: columns.take("started_at_ms")?,
            last_heartbeat_at: columns.take("last_heartbeat_at_ms")?,
            timeout_s: columns.take("timeout_s")?,
        })
    }
}

fn running_row(row: &Row<'_>) -> rusqlite::Result<RunningRow> {
    Ok(RunningRow {
        session: SessionDetails::try_from(row)?,
        stored: StoredHeartbeat {
            token: row.get("session_token")?,
            started_at: row.get("started_at_ms")?,
            last_heartbeat_at: row.get("last_heartbeat_at_ms")?,
            timeout_s: row.get("timeout_s")?,
        },
        heartbeat_interval: row.get("heartbeat_interval")?,
    })
}

impl FromColumns for StoredHeartbeat {
    const COUNT: usize = 4;

    fn from_columns(columns: &mut Columns<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            token: columns.take("session_token")?,
            started_at: columns.take("started_at_ms")?,
            last_heartbeat_at: columns.take("last_heartbeat_at_ms")?,
            timeout_s: columns.take("timeout_s")?,
        })
    }
}
