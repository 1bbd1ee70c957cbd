//! Sessions in the database.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Row as SqlRow, named_params};

use super::fold::{Day, Foldable, Single};
use super::live::UnsavedHeartbeat;
use super::rules::Folded;
use super::views::StoredHeartbeat;
use super::{
    EndReason, EndedSession, HistoryFilter, HistoryQuery, LivenessCutoff, Order, Position, Row,
    RunningSession,
};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::{LicenseId, SessionId, SessionToken};
use crate::licenses::{LicenseKey, key_part};
use crate::sql;

pub(super) fn next_id(reader: &Reader<'_>) -> Result<SessionId> {
    reader.one(sql!("sessions/next_id"), [], |row| row.get(0))
}

/// False if a session other than `replaces` runs on the license.
pub(super) fn insert_running(
    tx: &Tx<'_>,
    session: &Row,
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
    Ok(tx.run(sql!("sessions/insert_running"), params)? == 1)
}

pub(super) fn remove(tx: &Tx<'_>, id: SessionId) -> Result<()> {
    tx.run(sql!("sessions/remove"), named_params! { ":session_id": id })
        .map(drop)
}

pub(super) fn add_to_history(
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
    tx.run(sql!("sessions/add_to_history"), params).map(drop)
}

pub(super) fn by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<Row>> {
    reader.maybe(
        sql!("sessions/by_id"),
        named_params! { ":session_id": id },
        session_row,
    )
}

pub(super) fn by_license(reader: &Reader<'_>, id: LicenseId) -> Result<Option<Row>> {
    reader.maybe(
        sql!("sessions/by_license"),
        named_params! { ":license_id": id },
        session_row,
    )
}

pub(super) fn by_token(reader: &Reader<'_>, token: &SessionToken) -> Result<Option<Row>> {
    reader.maybe(
        sql!("sessions/by_token"),
        named_params! { ":session_token": token },
        session_row,
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

pub(super) fn save_heartbeat(tx: &Tx<'_>, heartbeat: &UnsavedHeartbeat) -> Result<()> {
    let params = named_params! {
        ":session_id": heartbeat.session_id, ":at_ms": heartbeat.at, ":timeout_s": heartbeat.timeout_s,
    };
    tx.run(sql!("sessions/save_heartbeat"), params).map(drop)
}

pub(super) fn out_of_use(reader: &Reader<'_>, now: UnixMs, limit: u32) -> Result<Vec<Row>> {
    let params = named_params! { ":now_ms": now, ":limit": limit };
    reader.list(sql!("sessions/out_of_use"), params, session_row)
}

pub(super) fn maybe_timed_out(
    reader: &Reader<'_>,
    after: SessionId,
    now: UnixMs,
    limit: u32,
) -> Result<Vec<Row>> {
    let params = named_params! { ":after": after, ":now_ms": now, ":limit": limit };
    reader.list(sql!("sessions/maybe_timed_out"), params, session_row)
}

pub(super) fn first(reader: &Reader<'_>, limit: u32) -> Result<Vec<Row>> {
    let params = named_params! { ":limit": limit };
    reader.list(sql!("sessions/first"), params, session_row)
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

pub(super) fn busy_days(reader: &Reader<'_>, which: Foldable, limit: u32) -> Result<Vec<Day>> {
    let params = named_params! {
        ":since_ms": which.since, ":until_ms": which.until, ":kept": which.kept,
        ":first": which.first(), ":limit": limit,
    };
    reader.list(sql!("sessions/busy_days"), params, |row| {
        Ok(Day {
            license_id: row.get("license_id")?,
            number: row.get("day")?,
        })
    })
}

/// How many sessions of a day have a row of their own.
pub(super) fn count_unfolded(reader: &Reader<'_>, day: Day) -> Result<u32> {
    let (from, to) = day.span();
    let params = named_params! {
        ":license_id": day.license_id, ":from_ms": from, ":to_ms": to,
    };
    reader.one(sql!("sessions/count_unfolded"), params, |row| row.get(0))
}

/// Sessions of a day that have a row of their own and may be folded; the first ones of the day may not.
pub(super) fn foldable(
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
    reader.list(sql!("sessions/foldable"), params, |row| {
        Ok(Single {
            id: row.get("session_id")?,
            reason: reason(row)?,
        })
    })
}

/// The row that counts the folded sessions of a day with one end reason.
pub(super) fn folded_row(
    reader: &Reader<'_>,
    day: Day,
    reason: EndReason,
) -> Result<Option<SessionId>> {
    let (from, to) = day.span();
    let params = named_params! {
        ":license_id": day.license_id, ":end_reason": reason.word(),
        ":from_ms": from, ":to_ms": to,
    };
    reader.maybe(sql!("sessions/folded_row"), params, |row| row.get(0))
}

pub(super) fn begin_fold(tx: &Tx<'_>, id: SessionId) -> Result<()> {
    let params = named_params! { ":session_id": id };
    tx.run(sql!("sessions/begin_fold"), params).map(drop)
}

pub(super) fn add_to_fold(tx: &Tx<'_>, id: SessionId, into: SessionId) -> Result<()> {
    let params = named_params! { ":session_id": id, ":into": into };
    tx.run(sql!("sessions/add_to_fold"), params).map(drop)
}

pub(super) fn remove_from_history(tx: &Tx<'_>, id: SessionId) -> Result<()> {
    let params = named_params! { ":session_id": id };
    tx.run(sql!("sessions/remove_from_history"), params)
        .map(drop)
}

pub(super) fn running(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    limit: u32,
) -> Result<Vec<RunningSession>> {
    let params = named_params! {
        ":started_at_ms": cutoff.started_at, ":now_ms": cutoff.now, ":limit": limit,
    };
    reader.list(sql!("sessions/running"), params, running_session)
}

pub(super) fn running_on(
    reader: &Reader<'_>,
    cutoff: LivenessCutoff,
    id: LicenseId,
) -> Result<Option<RunningSession>> {
    let params = named_params! {
        ":started_at_ms": cutoff.started_at, ":now_ms": cutoff.now, ":license_id": id,
    };
    reader.maybe(sql!("sessions/running_on"), params, running_session)
}

pub(super) fn history(reader: &Reader<'_>, span: &HistoryQuery) -> Result<Vec<EndedSession>> {
    let (since, limit) = (span.since, span.limit);
    match span.license_id {
        None => {
            let params = named_params! { ":since_ms": since, ":limit": limit };
            reader.list(sql!("sessions/history"), params, ended_session)
        }
        Some(id) => {
            let params = named_params! { ":license_id": id, ":since_ms": since, ":limit": limit };
            reader.list(sql!("sessions/history_of_license"), params, ended_session)
        }
    }
}

/// Sessions in this order after a position, including those that have timed out and await the sweep.
pub(super) fn page(
    reader: &Reader<'_>,
    order: Order,
    search: &str,
    after: Position,
    limit: u32,
) -> Result<Vec<(RunningSession, StoredHeartbeat)>> {
    let key_part = key_part(search);
    let row = |row: &SqlRow<'_>| Ok((running_session(row)?, heartbeat_row(row)?));
    match order {
        Order::Newest | Order::Oldest => {
            let params = named_params! {
                ":search": search, ":key_part": key_part, ":id": after.id, ":limit": limit,
            };
            let sql = if order == Order::Newest {
                sql!("sessions/page_newest")
            } else {
                sql!("sessions/page_oldest")
            };
            reader.list(sql, params, row)
        }
        Order::LatestHeartbeat | Order::EarliestHeartbeat => {
            let params = named_params! {
                ":search": search, ":key_part": key_part, ":at_ms": after.at, ":id": after.id,
                ":limit": limit,
            };
            let sql = if order == Order::LatestHeartbeat {
                sql!("sessions/page_heard")
            } else {
                sql!("sessions/page_silent")
            };
            reader.list(sql, params, row)
        }
    }
}

pub(super) fn heartbeats(reader: &Reader<'_>) -> Result<Vec<StoredHeartbeat>> {
    reader.list(sql!("sessions/heartbeats"), [], heartbeat_row)
}

pub(super) fn running_by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<RunningSession>> {
    let params = named_params! { ":session_id": id };
    reader.maybe(sql!("sessions/running_by_id"), params, running_session)
}

pub(super) fn ended_by_id(reader: &Reader<'_>, id: SessionId) -> Result<Option<EndedSession>> {
    let params = named_params! { ":session_id": id };
    reader.maybe(sql!("sessions/ended_by_id"), params, ended_session)
}

/// Ended sessions that follow a position, the latest end first.
pub(super) fn history_after(
    reader: &Reader<'_>,
    filter: &HistoryFilter,
    after: Position,
    limit: u32,
) -> Result<Vec<EndedSession>> {
    let key_part = key_part(&filter.key);
    // At the end of the span, any id follows.
    let (at, id) = if after.at > filter.until {
        (filter.until, SessionId(i64::MAX))
    } else {
        (after.at, after.id)
    };
    let (customer, from) = (&filter.customer, filter.since);
    match filter.reason {
        Some(reason) => {
            let params = named_params! {
                ":key_part": key_part, ":customer": customer, ":reason": reason.word(),
                ":from_ms": from, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(
                sql!("sessions/history_by_reason_older"),
                params,
                ended_session,
            )
        }
        None if key_part.is_empty() && customer.is_empty() => {
            let params = named_params! {
                ":from_ms": from, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_older"), params, ended_session)
        }
        None => {
            let params = named_params! {
                ":key_part": key_part, ":customer": customer,
                ":from_ms": from, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_search_older"), params, ended_session)
        }
    }
}

/// Ended sessions that precede a position, the earliest end first.
pub(super) fn history_before(
    reader: &Reader<'_>,
    filter: &HistoryFilter,
    before: Position,
    limit: u32,
) -> Result<Vec<EndedSession>> {
    let key_part = key_part(&filter.key);
    let (at, id) = if before.at < filter.since {
        (filter.since, SessionId(i64::MIN))
    } else {
        (before.at, before.id)
    };
    let (customer, until) = (&filter.customer, filter.until);
    match filter.reason {
        Some(reason) => {
            let params = named_params! {
                ":key_part": key_part, ":customer": customer, ":reason": reason.word(),
                ":until_ms": until, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(
                sql!("sessions/history_by_reason_newer"),
                params,
                ended_session,
            )
        }
        None if key_part.is_empty() && customer.is_empty() => {
            let params = named_params! {
                ":until_ms": until, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_newer"), params, ended_session)
        }
        None => {
            let params = named_params! {
                ":key_part": key_part, ":customer": customer,
                ":until_ms": until, ":at_ms": at, ":id": id, ":limit": limit,
            };
            reader.list(sql!("sessions/history_search_newer"), params, ended_session)
        }
    }
}

/// How many of the ended sessions started after `after`, up to and including `until`.
pub(super) fn started_between(reader: &Reader<'_>, after: UnixMs, until: UnixMs) -> Result<u32> {
    let params = named_params! { ":after_ms": after, ":until_ms": until };
    reader.one(sql!("sessions/started_between"), params, |row| row.get(0))
}

/// Rows that count several sessions of which one ended after `after`.
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

/// How many ended after `after`, up to and including `until`.
pub(super) fn ended_between(reader: &Reader<'_>, after: UnixMs, until: UnixMs) -> Result<u32> {
    let params = named_params! { ":after_ms": after, ":until_ms": until };
    reader.one(sql!("sessions/ended_between"), params, |row| row.get(0))
}

pub(super) fn count(reader: &Reader<'_>, cutoff: LivenessCutoff) -> Result<u32> {
    let params = named_params! { ":started_at_ms": cutoff.started_at, ":now_ms": cutoff.now };
    reader.one(sql!("sessions/count"), params, |row| row.get(0))
}

fn session_row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
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

fn ended_session(row: &SqlRow<'_>) -> rusqlite::Result<EndedSession> {
    Ok(EndedSession {
        session: running_session(row)?,
        ended_at: row.get("ended_at_ms")?,
        reason: reason(row)?,
        sessions: row.get::<_, Option<u32>>("sessions")?.unwrap_or(1),
    })
}

fn running_session(row: &SqlRow<'_>) -> rusqlite::Result<RunningSession> {
    let key = LicenseKey::from_stored(row.get_ref("license_key")?.as_str()?);
    Ok(RunningSession {
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
    EndReason::from_word(row.get_ref("end_reason")?.as_str()?).ok_or_else(|| unknown("end reason"))
}

fn unknown(what: &str) -> rusqlite::Error {
    let cause = FromSqlError::Other(format!("an unknown {what}").into());
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, cause.into())
}
