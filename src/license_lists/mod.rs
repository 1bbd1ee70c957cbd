//! Which licenses come next in an order of their list. Each order and each rare state has an index, so that no list is
//! sorted as a whole, however many licenses there are. What is shown of them is read by `licenses`.

mod rules;
mod store;

pub use rules::{LicenseFilter, customer_value};

use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::Result;
use crate::id::{LicenseId, ProductId};
use crate::paging::{Direction, SortPosition};

/// Which licenses to find.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// Of this product only.
    pub product: Option<ProductId>,
    /// In this state.
    pub filter: LicenseFilter,
    /// First and last id, both included; counts for lists by age only.
    pub range: (LicenseId, LicenseId),
    /// The moment of the states.
    pub now: UnixMs,
    /// Licenses that end by then expire soon.
    pub soon: UnixMs,
    /// The column by which the list is sorted, one of [`crate::licenses::COLUMNS`]; `None`: by age.
    pub column: Option<&'a str>,
    /// The direction.
    pub direction: Direction,
    /// The position that they follow.
    pub from: Option<&'a SortPosition>,
    /// How many.
    pub limit: u32,
}

impl Walk<'_> {
    /// First and last id of the licenses that follow the position in a list by age.
    pub fn ids(&self) -> (LicenseId, LicenseId) {
        let (low, high) = self.range;
        match (self.from, self.direction) {
            (None, _) => (low, high),
            (Some(from), Direction::Ascending) => {
                (low.max(LicenseId(from.id.saturating_add(1))), high)
            }
            (Some(from), Direction::Descending) => {
                (low, high.min(LicenseId(from.id.saturating_sub(1))))
            }
        }
    }
}

/// The ids of the licenses that come next, and perhaps of some that come after them, in no order that counts.
///
/// # Errors
/// [`crate::error::Error::Invalid`] if the position is none of this order.
pub fn next(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    match walk.column {
        None => by_age(reader, walk),
        // No device has a slot of any of them.
        Some("devices") if walk.filter == LicenseFilter::Unused => by_age(reader, walk),
        Some("devices") => store::by_devices(reader, walk),
        Some("customer") => store::by_customer(reader, walk),
        Some("key") => store::by_key(reader, walk),
        Some(_) => store::by_end(reader, walk),
    }
}

fn by_age(reader: &Reader<'_>, walk: &Walk<'_>) -> Result<Vec<LicenseId>> {
    let walk = Walk {
        range: walk.ids(),
        ..*walk
    };
    match walk.filter {
        LicenseFilter::All | LicenseFilter::Active => store::by_age(reader, &walk),
        LicenseFilter::Unused => store::unused(reader, &walk),
        LicenseFilter::Stopped => store::stopped(reader, &walk),
        LicenseFilter::Expiring | LicenseFilter::Expired => store::ended(reader, &walk),
    }
}
