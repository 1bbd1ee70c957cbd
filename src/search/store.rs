//! SQL calls of the search; texts are looked up by the modules that own them.

use rusqlite::named_params;

use super::ReleasedDevice;
use crate::db::Reader;
use crate::error::Result;
use crate::id::{LicenseId, ProductId, SessionId, SessionToken};
use crate::sql;
use crate::terms::Pattern;

pub(super) fn session_of_token(
    reader: &Reader<'_>,
    token: &SessionToken,
) -> Result<Option<SessionId>> {
    let params = named_params! { ":session_token": token };
    reader.maybe(sql!("search/session_of_token"), params, |row| {
        row.get("session_id")
    })
}

/// The devices that were released and have what `pattern` says, each with its license; the last one first.
pub(super) fn released(
    reader: &Reader<'_>,
    pattern: &Pattern,
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<(LicenseId, ReleasedDevice)>> {
    let params = named_params! {
        ":match": pattern.expression(), ":parts": pattern.parts(), ":product_id": product, ":limit": limit,
    };
    reader.list(sql!("search/released"), params, |row| {
        let device = ReleasedDevice {
            machine_id: row.get("machine_id")?,
            hardware_id: row.get("hardware_id")?,
            released_at: row.get("at_ms")?,
        };
        Ok((row.get("license_id")?, device))
    })
}
