//! Daily counts of refusals in the database.

use rusqlite::named_params;

use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::metrics::Refusals;
use crate::sql;

pub(super) fn add_refusals(tx: &Tx<'_>, refusals: &Refusals) -> Result<()> {
    let Refusals { day, code, count } = refusals;
    let params = named_params! { ":day": day, ":code": code, ":refused": count };
    tx.run(sql!("overview/add_refusals"), params).map(drop)
}

pub(super) fn refusals_on(reader: &Reader<'_>, day: i64) -> Result<Vec<(String, u32)>> {
    let params = named_params! { ":day": day };
    reader.list(sql!("overview/refusals_on"), params, |row| {
        Ok((row.get("code")?, row.get("refused")?))
    })
}

pub(super) fn delete_refusals(tx: &Tx<'_>, before: i64) -> Result<()> {
    let params = named_params! { ":before": before };
    tx.run(sql!("overview/delete_refusals"), params).map(drop)
}
