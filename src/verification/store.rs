//! What a verification reads from the database, in one statement.

use rusqlite::{Row, named_params};

use crate::clock::UnixMs;
use crate::db::{Columns, FromColumns, Reader};
use crate::devices::ClientIdentity;
use crate::error::Result;
use crate::id::{DeviceId, ProductId};
use crate::licenses::License;
use crate::live_sessions::StoredHeartbeat;
use crate::sql;

/// A license, as seen from one of its devices.
#[derive(Debug)]
pub(super) struct Found {
    /// Without the customer's name and the note, which a verification does not tell: it is kept in memory.
    pub(super) license: License,
    /// How many of its slots are taken.
    pub(super) taken: u32,
    /// `None` if the device holds no slot.
    pub(super) slot: Option<Slot>,
    /// The last heartbeat of its session, which may have timed out; `None` if there is none.
    pub(super) session: Option<StoredHeartbeat>,
}

/// The slot that a device holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) device_id: DeviceId,
    pub(super) last_seen_at: UnixMs,
}

/// The license of a product with the key of `client`, and what belongs to its device; `None` if the key is unknown.
pub(super) fn look_up(
    reader: &Reader<'_>,
    product: ProductId,
    client: &ClientIdentity,
) -> Result<Option<Found>> {
    let Some(key) = &client.license_key else {
        return Ok(None);
    };
    let params = named_params! {
        ":product_id": product, ":license_key": key.stored(), ":hardware_id": client.hardware_id,
    };
    reader.maybe(sql!("verification/look_up"), params, found)
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    let mut columns = Columns::of(row);
    Ok(Found {
        license: License::from_columns(&mut columns)?,
        taken: columns.take("taken")?,
        slot: columns.take_joined()?,
        session: columns.take_joined()?,
    })
}

impl FromColumns for Slot {
    const COUNT: usize = 2;

    fn from_columns(columns: &mut Columns<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            device_id: columns.take("device_id")?,
            last_seen_at: columns.take("last_seen_at_ms")?,
        })
    }
}
