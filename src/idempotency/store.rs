//! The SQL calls for stored responses.

use rusqlite::named_params;

use super::{RequestKey, StoredResponse};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::LicenseId;
use crate::sql;

/// The response to an earlier request with the same key, if it has a session or is not older than `since`.
pub(super) fn find(
    reader: &Reader<'_>,
    request: &RequestKey<'_>,
    since: UnixMs,
) -> Result<Option<StoredResponse>> {
    let params = named_params! {
        ":license_id": request.license_id,
        ":hardware_id": request.hardware_id,
        ":operation": request.operation.as_str(),
        ":idempotency_key": request.key,
        ":since_ms": since,
    };
    reader.maybe(sql!("idempotency/find"), params, |row| {
        Ok(StoredResponse {
            body: row.get("answer")?,
            session_id: row.get("session_id")?,
        })
    })
}

pub(super) fn save(tx: &Tx<'_>, request: &RequestKey<'_>, response: &StoredResponse) -> Result<()> {
    let params = named_params! {
        ":license_id": request.license_id,
        ":hardware_id": request.hardware_id,
        ":operation": request.operation.as_str(),
        ":idempotency_key": request.key,
        ":answer": response.body,
        ":session_id": response.session_id,
        ":now_ms": request.at,
    };
    tx.run(sql!("idempotency/save"), params).map(drop)
}

pub(super) fn purge(tx: &Tx<'_>, before: UnixMs, limit: u32) -> Result<usize> {
    tx.run(
        sql!("idempotency/purge"),
        named_params! { ":before_ms": before, ":limit": limit },
    )
}

pub(super) fn forget(tx: &Tx<'_>, license_id: LicenseId) -> Result<()> {
    let params = named_params! { ":license_id": license_id };
    tx.run(sql!("idempotency/forget"), params).map(drop)
}
