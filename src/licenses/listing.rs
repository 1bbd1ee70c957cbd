//! Lists of licenses.

use std::collections::BTreeSet;

use super::{License, LicenseFilter, rules, store};
use crate::clock::UnixMs;
use crate::customers;
use crate::db::Reader;
use crate::error::{Error, Resource, Result};
use crate::id::{CustomerId, LicenseId, PlanId, ProductId, SessionId};
use crate::license_key;
use crate::license_lists::{self, Walk};
use crate::paging::{Direction, Page, PageRequest, SortPosition};
use crate::terms::{FOUND_MAX, Matches, Pattern, Terms};
use crate::text;

/// Licenses in a rare state that are all compared for a page of a sorted list: among so few, following the order of the
/// column to the next one would take longer.
const COLLECTED_MAX: u32 = 5_000;

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

impl LicenseRow {
    /// The position in a list in this order, as the queries compare it.
    pub fn position(&self, order: Option<(&str, Direction)>) -> SortPosition {
        let (license, id) = (&self.license, self.license.id.0);
        let value = match order.map(|(column, _)| column) {
            Some("customer") => {
                let name = text::sort_key(&license.customer);
                license_lists::customer_value(license.customer_id.map(|id| (name.as_str(), id.0)))
            }
            Some("key") => license.key.stored(),
            Some("devices") => return SortPosition::number(self.taken.into(), id),
            Some("valid_until") => {
                let until = license.valid_until.map_or(i64::MAX, |until| until.0);
                return SortPosition::number(until, id);
            }
            _ => String::new(),
        };
        SortPosition { value, id }
    }
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

impl LicenseCounts {
    /// How many licenses match `filter`.
    pub const fn matching(&self, filter: LicenseFilter) -> u32 {
        match filter {
            LicenseFilter::All => self.all,
            LicenseFilter::Active => self.active,
            LicenseFilter::Expiring => self.expiring,
            LicenseFilter::Unused => self.unused,
            LicenseFilter::Stopped => self.stopped,
            LicenseFilter::Expired => self.expired,
        }
    }
}

/// A page of licenses in the order of `query`.
pub fn page(
    reader: &Reader<'_>,
    query: &LicenseQuery,
    request: &PageRequest<SortPosition>,
    now: UnixMs,
) -> Result<Page<LicenseRow>> {
    let (column, direction) = match query.order {
        Some((column, direction)) => (Some(column), direction),
        None => (None, Direction::Descending),
    };
    let (from, direction) = request.start(direction);
    let walk = Walk {
        product: query.product,
        filter: query.filter,
        range: query.range.unwrap_or((LicenseId(0), LicenseId(i64::MAX))),
        now,
        soon: rules::soon(now),
        column,
        direction,
        from,
        limit: request.rows_to_read(),
    };
    let ids = match few(reader, query, &walk)? {
        Some(ids) => ids,
        None => license_lists::next(reader, &walk)?,
    };
    Ok(request.page(store::page(reader, query.customer_id, &walk, &ids)?))
}

/// The licenses of which the page is one, if they are so few that they are read at once; `None` if the page is found by
/// following the order of the list.
fn few(
    reader: &Reader<'_>,
    query: &LicenseQuery,
    walk: &Walk<'_>,
) -> Result<Option<Vec<LicenseId>>> {
    if let Some(found) = &query.found {
        return Ok(Some(found.ids.clone()));
    }
    if let Some(id) = query.customer_id {
        return of_customers(reader, &[id], query.product, u32::MAX).map(Some);
    }
    if walk.column.is_none() {
        return Ok(None);
    }
    let is_few = match query.filter {
        _ if query.range.is_some() => true,
        LicenseFilter::All | LicenseFilter::Active => false,
        filter => count_by_filter(reader, query, walk.now)?.matching(filter) <= COLLECTED_MAX,
    };
    let all = Walk {
        column: None,
        from: None,
        limit: u32::MAX,
        ..*walk
    };
    is_few
        .then(|| license_lists::next(reader, &all))
        .transpose()
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
