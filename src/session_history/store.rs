//! The SQL calls for the session history.

use rusqlite::{Row, named_params};

use super::rules::{BusyDay, Foldable, UnfoldedSession};
use super::{
    EndReason, EndedSession, HistoryEntry, HistoryFilter, HistoryQuery, OfCustomers, Position,
    Scope, SessionDetails,
};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx, id_list, unknown_value};
use crate::error::Result;
use crate::id::{CustomerId, LicenseId, ProductId, SessionId, SessionToken};
use crate::licenses::{LicenseKey, key_part};
use crate::paging::Direction;
use crate::sql;
use crate::terms::Pattern;

pub(super) fn add(tx: &Tx<'_>, entry: &HistoryEntry<'_>) -> Result<()> {
    let params = named_params! {
        ":session_id": entry.id,
        ":session_token": entry.token,
        ":license_id": entry.license_id,
        ":hardware_id": entry.hardware_id,
        ":machine_id": entry.machine_id,
        ":client_version": entry.version,
        ":address": entry.address,
        ":started_at_ms": entry.started_at,
        ":last_heartbeat_at_ms": entry.last_heartbeat_at,
        ":ended_at_ms": entry.ended_at,
        ":end_reason": entry.reason.as_str(),
    };
    tx.run(sql!("session_history/add"), params).map(drop)
}

pub(super) fn by_token(
    reader: &Reader<'_>,
    token: &SessionToken,
) -> Result<Option<(LicenseId, EndReason)>> {
    let params = named_params! { ":session_token": token };
    reader.maybe(sql!("session_history/by_token"), params, |row| {
        Ok((row.get("license_id")?, end_reason(row)?))
    })
}

pub(super) fn purge(tx: &Tx<'_>, before: UnixMs, limit: u32) -> Result<usize> {
    tx.run(
        sql!("session_history/purge"),
        named_params! { ":before_ms": before, ":limit": limit },
    )
}

pub(super) fn busy_days(reader: &Reader<'_>, which: Foldable, limit: u32) -> Result<Vec<BusyDay>> {
    let params = named_params! {
        ":since_ms": which.since, ":until_ms": which.until, ":kept": which.kept,
        ":first": which.first_of_day(), ":limit": limit,
    };
    reader.list(sql!("session_history/busy_days"), params, |row| {
        Ok(BusyDay {
            license_id: row.get("license_id")?,
            day: row.get("day")?,
        })
    })
}

/// How many sessions of a day have a row of their own.
pub(super) fn count_unfolded(reader: &Reader<'_>, day: BusyDay) -> Result<u32> {
    let (from, to) = day.span();
    let params = named_params! {
        ":license_id": day.license_id, ":from_ms": from, ":to_ms": to,
    };
    reader.one(sql!("session_history/count_unfolded"), params, |row| {
        row.get(0)
    })
}

/// Sessions of a day that may be folded, by their ends. The first ones of the day, which are kept, are left out; the
/// caller's `limit` leaves out the last ones.
pub(super) fn foldable(
    reader: &Reader<'_>,
    day: BusyDay,
    which: Foldable,
    limit: u32,
) -> Result<Vec<UnfoldedSession>> {
    let (from, to) = day.span();
    let params = named_params! {
        ":license_id": day.license_id, ":from_ms": from, ":to_ms": to,
        ":until_ms": which.until, ":first": which.first_of_day(), ":limit": limit,
    };
    reader.list(sql!("session_history/foldable"), params, |row| {
        Ok(UnfoldedSession {
            id: row.get("session_id")?,
            reason: end_reason(row)?,
        })
    })
}

/// The row into which the sessions of a day with this end reason are folded; `None` before the first one is.
pub(super) fn folded_row(
    reader: &Reader<'_>,
    day: BusyDay,
    reason: EndReason,
) -> Result<Option<SessionId>> {
    let (from, to) = day.span();
    let params = named_params! {
        ":license_id": day.license_id, ":end_reason": reason.as_str(),
        ":from_ms": from, ":to_ms": to,
    };
    reader.maybe(sql!("session_history/folded_row"), params, |row| row.get(0))
}

/// Makes the row of a session the one into which others are folded.
pub(super) fn begin_fold(tx: &Tx<'_>, id: SessionId) -> Result<()> {
    let params = named_params! { ":session_id": id };
    tx.run(sql!("session_history/begin_fold"), params).map(drop)
}

/// Counts the session `id` in the row `into`; the caller removes its own row.
pub(super) fn add_to_fold(tx: &Tx<'_>, id: SessionId, into: SessionId) -> Result<()> {
    let params = named_params! { ":session_id": id, ":into": into };
    tx.run(sql!("session_history/add_to_fold"), params)
        .map(drop)
}

pub(super) fn remove(tx: &Tx<'_>, id: SessionId) -> Result<()> {
    let params = named_params! { ":session_id": id };
    tx.run(sql!("session_history/remove"), params).map(drop)
}

pub(super) fn list(reader: &Reader<'_>, query: &HistoryQuery) -> Result<Vec<EndedSession>> {
    let (since, limit) = (query.since, query.limit);
    match query.license_id {
        None => {
            let params = named_params! { ":since_ms": since, ":limit": limit };
            reader.list(sql!("session_history/list"), params, ended_session)
        }
        Some(id) => {
            let params = named_params! { ":license_id": id, ":since_ms": since, ":limit": limit };
            reader.list(sql!("session_history/of_license"), params, ended_session)
        }
    }
}

pub(super) fn by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<EndedSession>> {
    let params = named_params! { ":session_id": id };
    reader.maybe(sql!("session_history/by_id"), params, ended_session)
}

/// Where the reading of a page begins and ends, in which direction it goes, and how many rows it gives at most.
struct Stretch {
    from: Position,
    bound: UnixMs,
    direction: Direction,
    limit: u32,
}

/// Ended sessions that follow a position in a direction of time.
pub(super) fn page(
    reader: &Reader<'_>,
    (filter, scope): (&HistoryFilter, &Scope),
    position: Position,
    (direction, limit): (Direction, u32),
) -> Result<Vec<EndedSession>> {
    let (from, bound) = match direction {
        Direction::Descending => (position.min(filter.upper_bound()), filter.since),
        Direction::Ascending => (position.max(filter.lower_bound()), filter.until),
    };
    let stretch = Stretch {
        from,
        bound,
        direction,
        limit,
    };
    match scope {
        Scope::Few(licenses) => of_licenses(reader, filter, licenses, &stretch),
        Scope::Many {
            key_part,
            customers,
        } => in_order_of_time(reader, filter, (key_part, customers), &stretch),
    }
}

fn of_licenses(
    reader: &Reader<'_>,
    filter: &HistoryFilter,
    licenses: &[LicenseId],
    stretch: &Stretch,
) -> Result<Vec<EndedSession>> {
    let params = named_params! {
        ":licenses": id_list(licenses), ":reason": filter.reason.map(EndReason::as_str),
        ":bound_ms": stretch.bound, ":at_ms": stretch.from.at, ":id": stretch.from.id,
        ":limit": stretch.limit,
    };
    let sql = match stretch.direction {
        Direction::Descending => sql!("session_history/search_older"),
        Direction::Ascending => sql!("session_history/search_newer"),
    };
    reader.list(sql, params, ended_session)
}

/// Those of licenses with this part of their key, and of these customers.
fn in_order_of_time(
    reader: &Reader<'_>,
    filter: &HistoryFilter,
    (key_part, customers): (&str, &OfCustomers),
    stretch: &Stretch,
) -> Result<Vec<EndedSession>> {
    let (customers, texts) = match customers {
        OfCustomers::Any => (None, Pattern::of(None)),
        OfCustomers::Ids(ids) => (Some(id_list(ids)), Pattern::of(None)),
        OfCustomers::Like(pattern, _) => (None, pattern.clone()),
    };
    let texts = texts.parts();
    let Some(reason) = filter.reason.map(EndReason::as_str) else {
        let params = named_params! {
            ":product_id": filter.product, ":key_part": key_part, ":customers": customers,
            ":texts": texts, ":bound_ms": stretch.bound, ":at_ms": stretch.from.at, ":id": stretch.from.id,
            ":limit": stretch.limit,
        };
        let sql = match stretch.direction {
            Direction::Descending => sql!("session_history/older"),
            Direction::Ascending => sql!("session_history/newer"),
        };
        return reader.list(sql, params, ended_session);
    };
    let params = named_params! {
        ":product_id": filter.product, ":key_part": key_part, ":customers": customers,
        ":texts": texts, ":reason": reason, ":bound_ms": stretch.bound, ":at_ms": stretch.from.at,
        ":id": stretch.from.id, ":limit": stretch.limit,
    };
    let sql = match stretch.direction {
        Direction::Descending => sql!("session_history/of_reason_older"),
        Direction::Ascending => sql!("session_history/of_reason_newer"),
    };
    reader.list(sql, params, ended_session)
}

/// How many ended sessions match a filter on many licenses, or on all; `limit` are counted at most.
pub(super) fn count(
    reader: &Reader<'_>,
    filter: &HistoryFilter,
    key_part: &str,
    limit: u32,
) -> Result<u32> {
    let reason = filter.reason.map(EndReason::as_str);
    let number = |row: &Row<'_>| row.get(0);
    if filter.product.is_some() || !key_part.is_empty() {
        let params = named_params! {
            ":product_id": filter.product, ":key_part": key_part, ":reason": reason,
            ":from_ms": filter.since, ":until_ms": filter.until, ":limit": limit,
        };
        return reader.one(sql!("session_history/count_walked"), params, number);
    }
    let Some(reason) = reason else {
        let params = named_params! {
            ":from_ms": filter.since, ":until_ms": filter.until, ":limit": limit,
        };
        return reader.one(sql!("session_history/count"), params, number);
    };
    let params = named_params! {
        ":reason": reason, ":from_ms": filter.since, ":until_ms": filter.until, ":limit": limit,
    };
    reader.one(sql!("session_history/count_of_reason"), params, number)
}

/// How many ended sessions of these licenses match a filter; `limit` are counted at most.
pub(super) fn count_of(
    reader: &Reader<'_>,
    filter: &HistoryFilter,
    licenses: &[LicenseId],
    limit: u32,
) -> Result<u32> {
    let params = named_params! {
        ":licenses": id_list(licenses), ":reason": filter.reason.map(EndReason::as_str),
        ":from_ms": filter.since, ":until_ms": filter.until, ":limit": limit,
    };
    reader.one(sql!("session_history/count_search"), params, |row| {
        row.get(0)
    })
}

/// Licenses of these customers that match the product and the key of a filter.
pub(super) fn licenses_of(
    reader: &Reader<'_>,
    filter: &HistoryFilter,
    customers: &[CustomerId],
    limit: u32,
) -> Result<Vec<LicenseId>> {
    let params = named_params! {
        ":customers": id_list(customers), ":product_id": filter.product,
        ":key_part": key_part(&filter.key), ":limit": limit,
    };
    reader.list(sql!("session_history/licenses"), params, |row| row.get(0))
}

/// Licenses of a product.
pub(super) fn licenses_of_product(
    reader: &Reader<'_>,
    product: ProductId,
    limit: u32,
) -> Result<Vec<LicenseId>> {
    let params = named_params! { ":product_id": product, ":limit": limit };
    let sql = sql!("session_history/licenses_of_product");
    reader.list(sql, params, |row| row.get(0))
}

fn ended_session(row: &Row<'_>) -> rusqlite::Result<EndedSession> {
    Ok(EndedSession {
        session: row.try_into()?,
        ended_at: row.get("ended_at_ms")?,
        reason: end_reason(row)?,
        session_count: row.get::<_, Option<u32>>("sessions")?.unwrap_or(1),
    })
}

impl TryFrom<&Row<'_>> for SessionDetails {
    type Error = rusqlite::Error;

    fn try_from(row: &Row<'_>) -> rusqlite::Result<Self> {
        let key = LicenseKey::from_stored(row.get_ref("license_key")?.as_str()?);
        Ok(Self {
            id: row.get("session_id")?,
            license_id: row.get("license_id")?,
            product: row.get("product_id")?,
            license_key: key.ok_or_else(|| unknown_value("license key"))?,
            customer_id: row.get("customer_id")?,
            customer: row.get("customer")?,
            hardware_id: row.get("hardware_id")?,
            machine_id: row.get("machine_id")?,
            version: row.get("client_version")?,
            address: row.get("address")?,
            started_at: row.get("started_at_ms")?,
            last_heartbeat_at: row.get("last_heartbeat_at_ms")?,
        })
    }
}

fn end_reason(row: &Row<'_>) -> rusqlite::Result<EndReason> {
    EndReason::parse(row.get_ref("end_reason")?.as_str()?)
        .ok_or_else(|| unknown_value("end reason"))
}
