//! The counts beside the entries of the panel's navigation.

use serde_json::{Value, json};

use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::Result;
use crate::id::ProductId;
use crate::sessions::{self, LivenessCutoff};
use crate::{customers, domains, licenses, releases};

/// The counts beside the entries of the panel's navigation.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Counts {
    licenses: u32,
    customers: u32,
    releases: u32,
    /// Running sessions.
    sessions: u32,
    /// Licenses that are bound to a domain.
    sites: u32,
}

/// Counts for the panel's navigation: of the `chosen` product, or of all; those of releases always of `product`.
pub(super) fn counts(
    reader: &Reader<'_>,
    chosen: Option<ProductId>,
    product: ProductId,
    now: UnixMs,
) -> Result<Counts> {
    Ok(Counts {
        licenses: licenses::count(reader, chosen)?,
        customers: customers::count(reader)?,
        releases: releases::count(reader, product)?,
        sessions: sessions::count(reader, LivenessCutoff::while_served(now), chosen)?,
        sites: domains::count_bound(reader, chosen)?,
    })
}

/// No counts: the navigation shows none.
pub(super) fn none() -> Value {
    json!({ "licenses": -1, "customers": -1, "releases": -1, "sessions": -1, "sites": -1 })
}
