//! SQL calls: bindings.

use rusqlite::named_params;

use super::{BoundPosition, DomainBinding, Transfer};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::domain::Domain;
use crate::error::Result;
use crate::id::{LicenseId, ProductId};
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

/// A license, its binding, and when a handshake for its domain was last completed.
pub(super) type BindingRow = (LicenseId, DomainBinding, Option<UnixMs>);

fn row_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<BindingRow> {
    Ok((
        row.get("license_id")?,
        binding_of(row)?,
        row.get("last_handshake_at_ms")?,
    ))
}

/// Maximum length of a search text, in characters; the rest is cut off.
const SEARCH_LEN_MAX: usize = 100;

/// Which bound licenses to list.
pub(super) struct BoundFilter<'a> {
    /// Of this product only.
    pub(super) product: Option<ProductId>,
    /// A part of a domain, customer or company; empty for any.
    pub(super) search: &'a str,
}

pub(super) fn bound_licenses(
    reader: &Reader<'_>,
    filter: &BoundFilter<'_>,
    after: Option<&BoundPosition>,
    limit: u32,
) -> Result<Vec<BindingRow>> {
    let search = filter.search.trim().chars();
    let search: String = search.take(SEARCH_LEN_MAX).collect();
    let params = named_params! {
        ":product_id": filter.product,
        ":search": Domain::search_term(&search),
        ":after_domain": after.map_or("", |position| &position.domain),
        ":after_id": after.map_or(LicenseId(0), |position| position.id),
        ":limit": limit,
    };
    reader.list(sql!("domains/bound_licenses"), params, row_of)
}

pub(super) fn transfers_in_progress(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<BindingRow>> {
    let params = named_params! { ":product_id": product, ":limit": limit };
    reader.list(sql!("domains/transfers_in_progress"), params, row_of)
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
