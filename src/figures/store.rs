//! The SQL calls for figures.

use std::ops::Range;

use rusqlite::named_params;

use super::rules::QuarterCounts;
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::ProductId;
use crate::sql;

/// Stands for all products together in the counts of sessions.
const ALL_PRODUCTS: ProductId = ProductId(0);

pub(super) fn session_counts(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    since: UnixMs,
) -> Result<Vec<QuarterCounts>> {
    let params = named_params! {
        ":product_id": product.unwrap_or(ALL_PRODUCTS), ":since_ms": since,
    };
    reader.list(sql!("figures/session_counts"), params, |row| {
        Ok(QuarterCounts {
            at: row.get("at_ms")?,
            started: row.get("started")?,
            ended: row.get("ended")?,
            peak: row.get("peak")?,
        })
    })
}

pub(super) fn running(reader: &Reader<'_>, product: Option<ProductId>) -> Result<u32> {
    let params = named_params! { ":product_id": product.unwrap_or(ALL_PRODUCTS) };
    reader.one(sql!("figures/running"), params, |row| row.get(0))
}

pub(super) fn wrong_counts(reader: &Reader<'_>) -> Result<Vec<String>> {
    reader.list(sql!("figures/wrong_counts"), [], |row| row.get(0))
}

/// Calls `add` with each count since a moment: its kind and code, the quarter of an hour, and the number.
pub(super) fn activity(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    since: UnixMs,
    mut add: impl FnMut((&str, &str), UnixMs, u32),
) -> Result<()> {
    let params = named_params! { ":product_id": product, ":since_ms": since };
    let rows = reader.list(sql!("figures/activity"), params, |row| {
        let (kind, code) = (row.get_ref("kind")?, row.get_ref("code")?);
        let words = (kind.as_str()?, code.as_str()?);
        add(words, row.get("at_ms")?, row.get("count")?);
        Ok(())
    });
    rows.map(drop)
}

/// How many full licenses and trials expired.
pub(super) fn expired(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    span: &Range<UnixMs>,
) -> Result<[u32; 2]> {
    let params =
        named_params! { ":product_id": product, ":from_ms": span.start, ":until_ms": span.end };
    reader.one(sql!("figures/expired"), params, |row| {
        Ok([row.get("full")?, row.get("trials")?])
    })
}

pub(super) fn revoked(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    span: &Range<UnixMs>,
) -> Result<u32> {
    let params =
        named_params! { ":product_id": product, ":from_ms": span.start, ":until_ms": span.end };
    reader.one(sql!("figures/revoked"), params, |row| row.get("count"))
}

pub(super) fn purge(tx: &Tx<'_>, before: UnixMs) -> Result<()> {
    tx.run(
        sql!("figures/purge_activity"),
        named_params! { ":before_ms": before },
    )?;
    tx.run(
        sql!("figures/purge_sessions"),
        named_params! { ":before_ms": before },
    )
    .map(drop)
}
