//! What verifications found lately, in memory, so that a repeated one reads nothing from the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use quick_cache::sync::Cache;

use super::store::Found;
use crate::clock::UnixMs;
use crate::db::{Db, ReadPoint};
use crate::devices::{self, ClientIdentity};
use crate::id::{DeviceId, ProductId};
use crate::security::secret;

/// Devices that are kept; beyond it, one that has not been asked for lately makes room. Each takes some 500 bytes.
const ENTRIES_MAX: usize = 1 << 17;

/// What was found about devices and their licenses lately.
#[derive(Debug)]
pub(super) struct Recent {
    entries: Cache<Place, Arc<Known>>,
}

/// A digest of the product, the license key and the fingerprint of the device.
pub(super) type Place = [u8; 16];

/// What was found about a device and its license.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) found: Found,
    /// When the device was last seen, in Unix ms; without a device, no number that counts.
    last_seen_at: AtomicI64,
    /// Taken before it was read.
    point: ReadPoint,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            entries: Cache::new(ENTRIES_MAX),
        }
    }
}

impl Recent {
    /// What was found at a place, if it is still true.
    pub(super) fn get(&self, db: &Db, place: &Place) -> Option<Arc<Known>> {
        let known = self.entries.get(place)?;
        let is_current = db.is_current(known.found.license.id, known.point);
        is_current.then_some(known)
    }

    /// Keeps what was read after `point`, if the device has a slot: anyone with a license key can name any number of
    /// others.
    pub(super) fn insert(&self, place: Place, point: ReadPoint, found: Found) -> Arc<Known> {
        let known = Arc::new(Known::new(found, point));
        if known.found.slot.is_some() {
            self.entries.insert(place, known.clone());
        }
        known
    }
}

/// The place of a device, if the text of its license key can be a key.
pub(super) fn place(product: ProductId, client: &ClientIdentity) -> Option<Place> {
    let key = client.license_key.as_ref()?;
    let product = product.0.to_be_bytes();
    let parts = [&product[..], key.as_bytes(), client.hardware_id.as_bytes()];
    secret::sha256(&parts.concat()).first_chunk().copied()
}

impl Known {
    fn new(found: Found, point: ReadPoint) -> Self {
        let last_seen_at = found.slot.map_or(0, |slot| slot.last_seen_at.0);
        Self {
            found,
            last_seen_at: AtomicI64::new(last_seen_at),
            point,
        }
    }

    /// The device, if a verification at `now` moves when it was last seen; it counts as seen at `now` from then on.
    pub(super) fn seen_again(&self, now: UnixMs) -> Option<DeviceId> {
        let slot = self.found.slot?;
        let last_seen_at = UnixMs(self.last_seen_at.load(Ordering::Relaxed));
        devices::is_seen_again(last_seen_at, now).then(|| {
            self.last_seen_at.store(now.0, Ordering::Relaxed);
            slot.device_id
        })
    }
}
