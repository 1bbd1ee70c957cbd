//! Sessions in the database.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Row as SqlRow, named_params};

use super::fold::{Day, Foldable, Single};
use super::live::Beat;
use super::rules::Folded;
use super::views::StoredHeartbeat;
use super::{EndReason, Ended, Filter, LivenessCutoff, Order, Place, Row, Running, Span};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::{LicenseId, SessionId, SessionToken};
use crate::licenses::{LicenseKey, key_part};
use crate::sql;

pub(super) fn next_id(reader: &Reader<'_>) -> Result<SessionId> {
    reader.one(sql!("sessions/next_id"), [], |row| row.get(0))
}

/// Whether the place was free, or held by `instead_of`.
pub(super) fn place(tx: &Tx<'_>, session: &Row, instead_of: Option<SessionId>) -> Result<bool> {
    let params = named_params! {
        ":session_id": session.id,
        ":session_token": session.token,
        ":license_id": session.license_id,
        ":device_id": session.device_id,
        ":client_version": session.version,
        ":address": session.address,
        ":now_ms": session.started_at,
        ":timeout_s": session.timeout_s,
        ":instead_of": instead_of,
    };
    Ok(tx.run(sql!("sessions/place"), params)? == 1)
}

pub(super) fn remove(tx: &Tx<'_>, id: SessionId) -> Result<()> {
    tx.run(sql!("sessions/remove"), named_params! { ":session_id": id })
        .map(drop)
}

pub(super) fn record(
    tx: &Tx<'_>,
    session: &Row,
    last_heartbeat_at: UnixMs,
    ended_at: UnixMs,
    reason: EndReason,
) -> Result<()> {
    let params = named_params! {
        ":session_id": session.id,
        ":session_token": session.token,
        ":license_id": session.license_id,
        ":hardware_id": session.hardware_id,
        ":machine_id": session.machine_id,
        ":client_version": session.version,
        ":address": session.address,
        ":started_at_ms": session.started_at,
        ":last_heartbeat_at_ms": last_heartbeat_at,
        ":ended_at_ms": ended_at,
        ":end_reason": reason.word(),
    };
    tx.run(sql!("sessions/record"), params).map(drop)
}

pub(super) fn by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<Row>> {
    reader.maybe(
        sql!("sessions/by_id"),
        named_params! { ":session_id": id },
        session,
    )
}

pub(super) fn by_license(reader: &Reader<'_>, id: LicenseId) -> Result<Option<Row>> {
    reader.maybe(
        sql!("sessions/by_license"),
        named_params! { ":license_id": id },
        session,
    )
}

pub(super) fn by_token(reader: &Reader<'_>, token: &SessionToken) -> Result<Option<Row>> {
    reader.maybe(
        sql!("sessions/by_token"),
        named_params! { ":session_token": token },
        session,
    )
}

pub(super) fn ended_by_token(
    reader: &Reader<'_>,
    token: &SessionToken,
) -> Result<Option<(LicenseId, EndReason)>> {
    let params = named_params! { ":session_token": token };
    reader.maybe(sql!("sessions/ended_by_token"), params, |row| {
        Ok((row.get("license_id")?, reason(row)?))
    })
}

pub(super) fn beat(tx: &Tx<'_>, beat: &Beat) -> Result<()> {
    let params = named_params! {
        ":session_id": beat.session_id, ":at_ms": beat.at, ":timeout_s": beat.timeout_s,
    };
    tx.run(sql!("sessions/beat"), params).map(drop)
}

pub(super) fn out_of_use(reader: &Reader<'_>, now: UnixMs, limit: u32) -> Result<Vec<Row>> {
    let params = named_params! { ":now_ms": now, ":limit": limit };
    reader.list(sql!("sessions/out_of_use"), params, session)
}

pub(super) fn silent(
    reader: &Reader<'_>,
    after: SessionId,
    now: UnixMs,
    limit: u32,
) -> Result<Vec<Row>> {
    let params = named_params! { ":after": after, ":now_ms": now, ":limit": limit };
    reader.list(sql!("sessions/silent"), params, session)
}

pub(super) fn first(reader: &Reader<'_>, limit: u32) -> Result<Vec<Row>> {
    let params = named_params! { ":limit": limit };
    reader.list(sql!("sessions/first"), params, session)
}

pub(super) fn latest(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    reader.one(sql!("sessions/latest"), [], |row| row.get(0))
}

pub(super) fn purge(tx: &Tx<'_>, before: UnixMs, limit: u32) -> Result<usize> {
    tx.run(
        sql!("sessions/purge"),
        named_params! { ":before_ms": before, ":limit": limit },
    )
}

pub(super) fn crowded(reader: &Reader<'_>, which: Foldable, limit: u32) -> Result<Vec<Day>> {
    let params = named_params! {
        ":since_ms": which.since, ":until_ms": which.until, ":kept": which.kept,
        ":first": which.first(), ":limit": limit,
    };
    reader.list(sql!("sessions/crowded"), params, |row| {
        Ok(Day {
            license_id: row.get("license_id")?,
            number: row.get("day")?,
        })
    })
}

/// How many sessions of a day stand by themselves.
pub(super) fn single(reader: &Reader<'_>, day: Day) -> Result<u32> {
    let (from, to) = day.span();
    let params = named_params! {
        ":license_id": day.license_id, ":from_ms": from, ":to_ms": to,
    };
    reader.one(sql!("sessions/single"), params, |row| row.get(0))
}

/// Sessions of a day that stand by themselves and may be folded, without the first ones of the day.
pub(super) fn middle(
    reader: &Reader<'_>,
    day: Day,
    which: Foldable,
    limit: u32,
) -> Result<Vec<Single>> {
    let (from, to) = day.span();
    let params = named_params! {
        ":license_id": day.license_id, ":from_ms": from, ":to_ms": to,
        ":until_ms": which.until, ":first": which.first(), ":limit": limit,
    };
    reader.list(sql!("sessions/middle"), params, |row| {
        Ok(Single {
            id: row.get("session_id")?,
            reason: reason(row)?,
        })
    })
}

/// The row in which sessions of a day are counted that ended in one way.
pub(super) fn folded(
    reader: &Reader<'_>,
    day: Day,
    reason: EndReason,
) -> Result<Option<SessionId>> {
    let (from, to) = day.span();
    let params = named_params! {
        ":license_id": day.license_id, ":end_reason": reason.word(),
        ":from_ms": from, ":to_ms": to,
    };
    reader.maybe(sql!("sessions/folded"), params, |row| row.get(0))
}

pub(super) fn begin_fold(tx: &Tx<'_>, id: SessionId) -> Result<()> {
    let params = named_params! { ":session_id": id };
    tx.run(sql!("sessions/begin_fold"), params).map(drop)
}

pub(super) fn fold(tx: &Tx<'_>, id: SessionId, into: SessionId) -> Result<()> {
    let params = named_params! { ":session_id": id, ":into": into };
    tx.run(sql!("sessions/fold"), params).map(drop)
}

pub(super) fn remove_ended(tx: &Tx<'_>, id: SessionId) -> Result<()> {
    let params = named_params! { ":session_id": id };
    tx.run(sql!("sessions/remove_ended"), params).map(drop)
}

pub(super) fn running(
    reader: &Reader<'_>,
    alive: LivenessCutoff,
    limit: u32,
) -> Result<Vec<Running>> {
    let params = named_params! {
        ":started_at_ms": alive.started_at, ":now_ms": alive.now, ":limit": limit,
    };
    reader.list(sql!("sessions/running"), params, shown)
}

pub(super) fn running_on(
    reader: &Reader<'_>,
    alive: LivenessCutoff,
    id: LicenseId,
) -> Result<Option<Running>> {
    let params = named_params! {
        ":started_at_ms": alive.started_at, ":now_ms": alive.now, ":license_id": id,
    };
    reader.maybe(sql!("sessions/running_on"), params, shown)
}

pub(super) fn history(reader: &Reader<'_>, span: &Span) -> Result<Vec<Ended>> {
    let (since, limit) = (span.since, span.limit);
    match span.license_id {
        None => {
            let params = named_params! { ":since_ms": since, ":limit": limit };
            reader.list(sql!("sessions/history"), params, past)
        }
        Some(id) => {
            let params = named_params! { ":license_id": id, ":since_ms": since, ":limit": limit };
            reader.list(sql!("sessions/history_of_license"), params, past)
        }
    }
}

/// Running sessions in this order, below a place, whether they still live or not.
pub(super) fn page(
    reader: &Reader<'_>,
    order: Order,
    search: &str,
    below: Place,
    limit: u32,
) -> Result<Vec<(Running, StoredHeartbeat)>> {
    let key_part = key_part(search);
    let row = |row: &SqlRow<'_>| Ok((shown(row)?, heartbeat_row(row)?));
    match order {
        Order::Newest | Order::Oldest => {
            let params = named_params! {
                ":search": search, ":key_part": key_part, ":id": below.id, ":limit": limit,
            };
            let sql = if order == Order::Newest {
                sql!("sessions/page_newest")
            } else {
                sql!("sessions/page_oldest")
            };
            reader.list(sql, params, row)
        }
        Order::Heard | Order::Silent => {
            let params = named_params! {
                ":search": search, ":key_part": key_part, ":at_ms": below.at, ":id": below.id,
                ":limit": limit,
            };
            let sql = if order == Order::Heard {
                sql!("sessions/page_heard")
            } else {
                sql!("sessions/page_silent")
            };
            reader.list(sql, params, row)
        }
    }
}

pub(super) fn said(reader: &Reader<'_>) -> Result<Vec<StoredHeartbeat>> {
    reader.list(sql!("sessions/said"), [], heartbeat_row)
}

pub(super) fn running_by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<Running>> {
    let params = named_params! { ":session_id": id };
    reader.maybe(sql!("sessions/running_by_id"), params, shown)
}

pub(super) fn ended(reader: &Reader<'_>, id: SessionId) -> Result<Option<Ended>> {
    let params = named_params! { ":session_id": id };
    reader.maybe(sql!("sessions/ended"), params, past)
}

/// Ended sessions below a place, the latest first.
pub(super) fn history_below(
    reader: &Reader<'_>,
    filter: &Filter,
    below: Place,
    limit: u32,
) -> Result<Vec<Ended>> {
    let key_part = key_part(&filter.key);
    // At the end of the span, every number is below.
    let (at, id) = if below.at > filter.until {
        (filter.until, SessionId(i64::MAX))
    } else {
        (below.at, below.id)
    };
    let (customer, from) = (&filter.customer, filter.since);
    match filter.reason {
        Some(reason) => {
            let params = named_params! {
                ":key_part": key_part, ":customer": customer, ":reason": reason.word(),
                ":from_ms": from, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_why_older"), params, past)
        }
        None if key_part.is_empty() && customer.is_empty() => {
            let params = named_params! {
                ":from_ms": from, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_older"), params, past)
        }
        None => {
            let params = named_params! {
                ":key_part": key_part, ":customer": customer,
                ":from_ms": from, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_of_older"), params, past)
        }
    }
}

/// Ended sessions above a place, the earliest first.
pub(super) fn history_above(
    reader: &Reader<'_>,
    filter: &Filter,
    above: Place,
    limit: u32,
) -> Result<Vec<Ended>> {
    let key_part = key_part(&filter.key);
    let (at, id) = if above.at < filter.since {
        (filter.since, SessionId(i64::MIN))
    } else {
        (above.at, above.id)
    };
    let (customer, until) = (&filter.customer, filter.until);
    match filter.reason {
        Some(reason) => {
            let params = named_params! {
                ":key_part": key_part, ":customer": customer, ":reason": reason.word(),
                ":until_ms": until, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_why_newer"), params, past)
        }
        None if key_part.is_empty() && customer.is_empty() => {
            let params = named_params! {
                ":until_ms": until, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_newer"), params, past)
        }
        None => {
            let params = named_params! {
                ":key_part": key_part, ":customer": customer,
                ":until_ms": until, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_of_newer"), params, past)
        }
    }
}

/// How many of those that ended started after a moment, until another.
pub(super) fn started_between(reader: &Reader<'_>, after: UnixMs, until: UnixMs) -> Result<u32> {
    let params = named_params! { ":after_ms": after, ":until_ms": until };
    reader.one(sql!("sessions/started_between"), params, |row| row.get(0))
}

/// Rows that stand for several sessions, of which one ended after a moment.
pub(super) fn folded_since(reader: &Reader<'_>, after: UnixMs) -> Result<Vec<Folded>> {
    let params = named_params! { ":after_ms": after };
    reader.list(sql!("sessions/folded_since"), params, |row| {
        Ok(Folded {
            started_at: row.get("started_at_ms")?,
            ended_at: row.get("ended_at_ms")?,
            ran_ms: row.get("ran_ms")?,
        })
    })
}

/// How many ended after a moment, until another.
pub(super) fn ended_between(reader: &Reader<'_>, after: UnixMs, until: UnixMs) -> Result<u32> {
    let params = named_params! { ":after_ms": after, ":until_ms": until };
    reader.one(sql!("sessions/ended_between"), params, |row| row.get(0))
}

pub(super) fn count(reader: &Reader<'_>, alive: LivenessCutoff) -> Result<u32> {
    let params = named_params! { ":started_at_ms": alive.started_at, ":now_ms": alive.now };
    reader.one(sql!("sessions/count"), params, |row| row.get(0))
}

fn session(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        id: row.get("session_id")?,
        token: row.get("session_token")?,
        license_id: row.get("license_id")?,
        device_id: row.get("device_id")?,
        hardware_id: row.get("hardware_id")?,
        machine_id: row.get("machine_id")?,
        version: row.get("client_version")?,
        address: row.get("address")?,
        started_at: row.get("started_at_ms")?,
        last_heartbeat_at: row.get("last_heartbeat_at_ms")?,
        timeout_s: row.get("timeout_s")?,
    })
}

fn heartbeat_row(row: &SqlRow<'_>) -> rusqlite::Result<StoredHeartbeat> {
    Ok(StoredHeartbeat {
        token: row.get("session_token")?,
        started_at: row.get("started_at_ms")?,
        last_heartbeat_at: row.get("last_heartbeat_at_ms")?,
        timeout_s: row.get("timeout_s")?,
    })
}

fn past(row: &SqlRow<'_>) -> rusqlite::Result<Ended> {
    Ok(Ended {
        session: shown(row)?,
        ended_at: row.get("ended_at_ms")?,
        reason: reason(row)?,
        sessions: row.get::<_, Option<u32>>("sessions")?.unwrap_or(1),
    })
}

fn shown(row: &SqlRow<'_>) -> rusqlite::Result<Running> {
    let key = LicenseKey::from_stored(row.get_ref("license_key")?.as_str()?);
    Ok(Running {
        id: row.get("session_id")?,
        license_id: row.get("license_id")?,
        license_key: key.ok_or_else(|| unknown("license key"))?,
        customer: row.get("customer")?,
        hardware_id: row.get("hardware_id")?,
        machine_id: row.get("machine_id")?,
        version: row.get("client_version")?,
        address: row.get("address")?,
        started_at: row.get("started_at_ms")?,
        last_heartbeat_at: row.get("last_heartbeat_at_ms")?,
    })
}

fn reason(row: &SqlRow<'_>) -> rusqlite::Result<EndReason> {
    EndReason::of_word(row.get_ref("end_reason")?.as_str()?).ok_or_else(|| unknown("end reason"))
}

fn unknown(what: &str) -> rusqlite::Error {
    let cause = FromSqlError::Other(format!("an unknown {what}").into());
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, cause.into())
}
