//! First answers in the database.

use rusqlite::named_params;

use super::{RequestKey, StoredResponse};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::sql;

pub(super) fn find(
    reader: &Reader<'_>,
    asked: &RequestKey<'_>,
    since: UnixMs,
) -> Result<Option<StoredResponse>> {
    let params = named_params! {
        ":license_id": asked.license_id,
        ":hardware_id": asked.hardware_id,
        ":operation": asked.deed.word(),
        ":idempotency_key": asked.key,
        ":since_ms": since,
    };
    reader.maybe(sql!("idempotency/find"), params, |row| {
        Ok(StoredResponse {
            answer: row.get("answer")?,
            session_id: row.get("session_id")?,
        })
    })
}

pub(super) fn keep(
    tx: &Tx<'_>,
    asked: &RequestKey<'_>,
    first: &StoredResponse,
    now: UnixMs,
) -> Result<()> {
    let params = named_params! {
        ":license_id": asked.license_id,
        ":hardware_id": asked.hardware_id,
        ":operation": asked.deed.word(),
        ":idempotency_key": asked.key,
        ":answer": first.answer,
        ":session_id": first.session_id,
        ":now_ms": now,
    };
    tx.run(sql!("idempotency/keep"), params).map(drop)
}

pub(super) fn forget(tx: &Tx<'_>, before: UnixMs, limit: u32) -> Result<usize> {
    tx.run(
        sql!("idempotency/forget"),
        named_params! { ":before_ms": before, ":limit": limit },
    )
}
