//! Lists of licenses.

use std::collections::BTreeSet;

use super::{License, LicenseFilter, store};
use crate::clock::UnixMs;
use crate::customers;
use crate::db::Reader;
use crate::error::{Error, Resource, Result};
use crate::id::{CustomerId, LicenseId, PlanId, ProductId, SessionId};
use crate::license_key;
use crate::paging::{Cursor, Direction, Page, PageRequest, SortPosition};
use crate::terms::{FOUND_MAX, Matches, Pattern, Terms};

/// Licenses that a list may have to be sorted by a column: each of them is compared for every page. A search or a filter
/// makes a longer list short enough.
pub const SORTED_MAX: u32 = 50_000;

/// Which licenses a command lists.
#[derive(Clone, Copy, Debug)]
pub struct LicenseSearch<'a> {
    /// What [`search`] finds; all if nothing was typed.
    pub search: &'a Terms,
    /// Of this product only.
    pub product: Option<ProductId>,
    /// The maximum number of licenses.
    pub limit: u32,
}

/// The licenses that match `query`, newest first.
pub fn list(reader: &Reader<'_>, query: LicenseSearch<'_>) -> Result<Vec<License>> {
    let found = find_up_to(reader, query.search, query.product, query.limit)?;
    store::list(reader, query, found.as_ref())
}

/// The newest licenses whose note or domain, or whose customer, `search` finds, or whose key contains what was typed: at
/// most [`FOUND_MAX`]. `None` if nothing was typed.
pub fn search(
    reader: &Reader<'_>,
    search: &Terms,
    product: Option<ProductId>,
) -> Result<Option<Matches<LicenseId>>> {
    find_up_to(reader, search, product, FOUND_MAX)
}

fn find_up_to(
    reader: &Reader<'_>,
    search: &Terms,
    product: Option<ProductId>,
    limit: u32,
) -> Result<Option<Matches<LicenseId>>> {
    if search.is_empty() {
        return Ok(None);
    }
    let text = LicenseText {
        pattern: search.words(),
        key_part: license_key::searched_part(search.typed()),
    };
    let named = with_text(reader, &text, product, limit)?;
    let customers = customers::with_text(reader, &search.words(), limit)?;
    let bought = of_customers(reader, &customers, product, limit)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_cut = [named.len(), customers.len(), bought.len()]
        .iter()
        .any(|found| *found >= limit);
    let all: BTreeSet<LicenseId> = named.into_iter().chain(bought).collect();
    Ok(Some(Matches {
        ids: all.into_iter().rev().take(limit).collect(),
        is_cut,
    }))
}

/// What a license must contain to be found.
#[derive(Clone, Debug)]
pub struct LicenseText {
    /// In note and domain.
    pub pattern: Pattern,
    /// Or else in the key.
    pub key_part: Option<String>,
}

/// The newest licenses that contain `text`, of one product or (`None`) of all products, at most `limit`.
pub fn with_text(
    reader: &Reader<'_>,
    text: &LicenseText,
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<LicenseId>> {
    store::with_text(reader, text, product, limit)
}

/// The newest licenses of these customers, of one product or (`None`) of all products, at most `limit`.
pub fn of_customers(
    reader: &Reader<'_>,
    customers: &[CustomerId],
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<LicenseId>> {
    store::of_customers(reader, customers, product, limit)
}

/// A license as a row of a list.
#[derive(Clone, Debug)]
pub struct LicenseRow {
    /// The license.
    pub license: License,
    /// The customer's company; may be empty.
    pub company: String,
    /// How many device slots are taken.
    pub taken: u32,
    /// The session that runs on it.
    pub session: Option<SessionId>,
}

/// The columns by which a list of licenses can be sorted, as URLs and queries call them. Licenses without an end come last
/// by `valid_until`.
pub const COLUMNS: [&str; 4] = ["customer", "key", "devices", "valid_until"];

/// Which licenses to list.
#[derive(Clone, Debug, Default)]
pub struct LicenseQuery {
    /// Only those that [`search`] found.
    pub found: Option<Matches<LicenseId>>,
    /// The state of the licenses.
    pub filter: LicenseFilter,
    /// Of this product only.
    pub product: Option<ProductId>,
    /// Of this customer only.
    pub customer_id: Option<CustomerId>,
    /// First and last id, both included: the licenses of one order.
    pub range: Option<(LicenseId, LicenseId)>,
    /// The column by which the list is sorted, one of [`COLUMNS`]; `None` for the newest license first.
    pub order: Option<(&'static str, Direction)>,
}

/// How many licenses match each filter, and their device slots.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct LicenseCounts {
    /// All of them.
    pub all: u32,
    /// In use now.
    pub active: u32,
    /// In use, owned by a customer, and expiring within 30 days.
    pub expiring: u32,
    /// In use, and no device has a slot.
    pub unused: u32,
    /// Suspended or revoked.
    pub stopped: u32,
    /// Expired.
    pub expired: u32,
    /// How many device slots are taken.
    pub taken: u32,
    /// How many device slots were sold.
    pub slots: u32,
}

/// A page of licenses in the order of `query`.
pub fn page(
    reader: &Reader<'_>,
    query: &LicenseQuery,
    request: &PageRequest<SortPosition>,
    now: UnixMs,
) -> Result<Page<LicenseRow>> {
    let (low, high) = query.range.unwrap_or((LicenseId(0), LicenseId(i64::MAX)));
    let range = store::PageRange {
        low,
        high,
        limit: request.rows_to_read(),
        now,
    };
    let rows = match query.order {
        None => newest_rows(reader, query, &request.from, range),
        Some((column, direction)) => {
            let (from, direction) = request.start(direction);
            let sorting = store::Sorting {
                column,
                direction,
                from,
            };
            store::page_sorted(reader, query, &range, &sorting)
        }
    };
    Ok(request.page(rows?))
}

/// The rows of a page, the newest first; the other way round before a position.
fn newest_rows(
    reader: &Reader<'_>,
    query: &LicenseQuery,
    from: &Cursor<SortPosition>,
    mut range: store::PageRange,
) -> Result<Vec<LicenseRow>> {
    match from {
        Cursor::First => {}
        Cursor::After(position) => {
            range.high = range.high.min(LicenseId(position.id.saturating_sub(1)));
        }
        Cursor::Before(position) => {
            range.low = range.low.max(LicenseId(position.id.saturating_add(1)));
            return store::page_after(reader, query, &range);
        }
    }
    store::page_before(reader, query, &range)
}

/// One license as lists show it.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn find_row(reader: &Reader<'_>, id: LicenseId, now: UnixMs) -> Result<LicenseRow> {
    store::find_row(reader, id, now)?.ok_or_else(|| Error::not_found(Resource::License, id))
}

/// Which licenses of a plan to read.
#[derive(Clone, Copy, Debug)]
pub struct PlanRange {
    /// Only licenses after this one; 0 for all.
    pub after: LicenseId,
    /// The maximum number of rows.
    pub limit: u32,
    /// Only licenses of which more devices hold a slot.
    pub more_devices_than: Option<u32>,
}

/// Licenses that were issued by a plan and are not revoked, by id. Running sessions are not looked up.
pub fn of_plan(reader: &Reader<'_>, plan: PlanId, range: &PlanRange) -> Result<Vec<LicenseRow>> {
    store::of_plan(reader, plan, range)
}

/// How many licenses match each filter, among those of the search, product and customer of `query`.
pub fn count_by_filter(
    reader: &Reader<'_>,
    query: &LicenseQuery,
    now: UnixMs,
) -> Result<LicenseCounts> {
    store::count_by_filter(reader, query, now)
}

/// How many licenses there are, of one product or of all.
pub fn count(reader: &Reader<'_>, product: Option<ProductId>) -> Result<u32> {
    store::count(reader, product)
}
