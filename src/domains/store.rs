//! SQL calls: bindings.

use rusqlite::named_params;

use super::{BoundQuery, DomainBinding, Transfer};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::domain::Domain;
use crate::error::Result;
use crate::id::{LicenseId, ProductId};
use crate::paging::{Direction, SortPosition};
use crate::sql;

pub(super) fn is_served(reader: &Reader<'_>, domain: &Domain, now: UnixMs) -> Result<bool> {
    let params = named_params! { ":domain": domain, ":now_ms": now };
    reader.one(sql!("domains/is_served"), params, |row| row.get(0))
}

pub(super) fn product(
    reader: &Reader<'_>,
    domain: &Domain,
    slug: Option<&str>,
    now: UnixMs,
) -> Result<Option<ProductId>> {
    let params = named_params! { ":domain": domain, ":slug": slug, ":now_ms": now };
    reader.maybe(sql!("domains/product"), params, |row| row.get(0))
}

pub(super) fn binding(reader: &Reader<'_>, id: LicenseId) -> Result<Option<DomainBinding>> {
    reader.maybe(
        sql!("domains/binding"),
        named_params! { ":license_id": id },
        binding_of,
    )
}

pub(super) fn set_binding(tx: &Tx<'_>, id: LicenseId, binding: &DomainBinding) -> Result<()> {
    let transfer = binding.transfer.as_ref();
    let params = named_params! {
        ":license_id": id,
        ":domain": binding.domain,
        ":transfer_domain": transfer.map(|transfer| &transfer.domain),
        ":transfer_until_ms": transfer.map(|transfer| transfer.until),
        ":confirmed_at_ms": transfer.and_then(|transfer| transfer.confirmed_at),
    };
    tx.changes_license(id);
    tx.run(sql!("domains/set_binding"), params).map(drop)
}

fn binding_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<DomainBinding> {
    let to: Option<Domain> = row.get("transfer_domain")?;
    let until: Option<UnixMs> = row.get("transfer_until_ms")?;
    let confirmed_at = row.get("transfer_confirmed_at_ms")?;
    Ok(DomainBinding {
        domain: row.get("domain")?,
        transfer: to.zip(until).map(|(domain, until)| Transfer {
            domain,
            until,
            confirmed_at,
        }),
    })
}

/// A license and its binding.
pub(super) struct BindingRow {
    pub(super) id: LicenseId,
    /// The name of its customer; empty if it has none.
    pub(super) customer: String,
    pub(super) binding: DomainBinding,
    /// When a handshake for its domain was last completed.
    pub(super) last_handshake_at: Option<UnixMs>,
}

fn row_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<BindingRow> {
    Ok(BindingRow {
        id: row.get("license_id")?,
        customer: row.get("customer")?,
        binding: binding_of(row)?,
        last_handshake_at: row.get("last_handshake_at_ms")?,
    })
}

/// Maximum length of a search text, in characters; the rest is cut off.
const SEARCH_LEN_MAX: usize = 100;

/// From after which license on, in which order, and how many at most.
pub(super) struct BoundRange<'a> {
    pub(super) from: Option<&'a SortPosition>,
    pub(super) direction: Direction,
    pub(super) limit: u32,
}

fn search_term(query: &BoundQuery) -> String {
    let search = query.search.trim().chars();
    Domain::search_term(&search.take(SEARCH_LEN_MAX).collect::<String>())
}

pub(super) fn bound_licenses(
    reader: &Reader<'_>,
    query: &BoundQuery,
    range: &BoundRange<'_>,
) -> Result<Vec<BindingRow>> {
    let params = named_params! {
        ":product_id": query.product,
        ":search": search_term(query),
        ":from_domain": range.from.map(|position| position.value.as_str()),
        ":from_id": range.from.map(|position| position.id),
        ":limit": range.limit,
    };
    match range.direction {
        Direction::Ascending => reader.list(sql!("domains/bound_ascending"), params, row_of),
        Direction::Descending => reader.list(sql!("domains/bound_descending"), params, row_of),
    }
}

/// How many bound licenses match a search; `limit` are counted at most.
pub(super) fn count_matching(reader: &Reader<'_>, query: &BoundQuery, limit: u32) -> Result<u32> {
    let params = named_params! {
        ":product_id": query.product, ":search": search_term(query), ":limit": limit,
    };
    reader.one(sql!("domains/count_matching"), params, |row| row.get(0))
}

/// Transfers in progress that follow the end of a grace period and a license in this direction.
pub(super) fn transfers_in_progress(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    ((from_ms, from_id), direction): ((i64, i64), Direction),
    limit: u32,
) -> Result<Vec<BindingRow>> {
    let params = named_params! {
        ":product_id": product, ":from_ms": from_ms, ":from_id": from_id, ":limit": limit,
    };
    let sql = match direction {
        Direction::Ascending => sql!("domains/transfers_in_progress"),
        Direction::Descending => sql!("domains/transfers_before"),
    };
    reader.list(sql, params, row_of)
}

/// How many transfers are in progress; `limit` are counted at most.
pub(super) fn count_transfers(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    limit: u32,
) -> Result<u32> {
    let params = named_params! { ":product_id": product, ":limit": limit };
    reader.one(sql!("domains/count_transfers"), params, |row| row.get(0))
}

pub(super) fn count_bound(reader: &Reader<'_>, product: Option<ProductId>) -> Result<u32> {
    let params = named_params! { ":product_id": product };
    reader.one(sql!("domains/count_bound"), params, |row| row.get(0))
}

pub(super) fn ended_transfers(reader: &Reader<'_>, now: UnixMs) -> Result<Vec<LicenseId>> {
    let params = named_params! { ":now_ms": now };
    reader.list(sql!("domains/ended_transfers"), params, |row| {
        row.get("license_id")
    })
}
