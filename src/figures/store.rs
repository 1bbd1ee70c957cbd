//! The SQL calls for figures.

use std::ops::Range;

use rusqlite::{Row, named_params};

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

pub(super) fn activity(
    reader: &Reader<'_>,
    kind: &str,
    product: Option<ProductId>,
    span: &Range<UnixMs>,
) -> Result<Vec<(String, u32)>> {
    let params = named_params! {
        ":kind": kind, ":product_id": product, ":from_ms": span.start, ":until_ms": span.end,
    };
    reader.list(sql!("figures/activity"), params, |row| counted(row, "code"))
}

pub(super) fn expired(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    span: &Range<UnixMs>,
) -> Result<Vec<(String, u32)>> {
    let params =
        named_params! { ":product_id": product, ":from_ms": span.start, ":until_ms": span.end };
    reader.list(sql!("figures/expired"), params, |row| counted(row, "kind"))
}

fn counted(row: &Row<'_>, word: &str) -> rusqlite::Result<(String, u32)> {
    Ok((row.get(word)?, row.get("count")?))
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
