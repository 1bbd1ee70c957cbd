//! The SQL call for former owners of a license.

use rusqlite::named_params;

use crate::clock::UnixMs;
use crate::db::Tx;
use crate::error::Result;
use crate::id::{CustomerId, LicenseId};
use crate::sql;

/// Notes that a license belonged to this customer until `now`.
pub(super) fn insert_former_owner(
    tx: &Tx<'_>,
    id: LicenseId,
    former: CustomerId,
    now: UnixMs,
) -> Result<()> {
    let params = named_params! { ":license_id": id, ":customer_id": former, ":now_ms": now };
    tx.run(sql!("activations/insert_former_owner"), params)
        .map(drop)
}
