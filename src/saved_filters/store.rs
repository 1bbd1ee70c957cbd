//! SQL calls for saved filters.

use rusqlite::{Row, named_params};

use super::{NewFilter, SavedFilter};
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::AdminId;
use crate::sql;

pub(super) fn of_list(reader: &Reader<'_>, admin: AdminId, list: &str) -> Result<Vec<SavedFilter>> {
    let params = named_params! { ":admin_id": admin, ":list": list };
    reader.list(sql!("saved_filters/of_list"), params, saved_filter)
}

pub(super) fn by_id(reader: &Reader<'_>, admin: AdminId, id: i64) -> Result<Option<SavedFilter>> {
    let params = named_params! { ":admin_id": admin, ":saved_filter_id": id };
    reader.maybe(sql!("saved_filters/by_id"), params, saved_filter)
}

pub(super) fn all(reader: &Reader<'_>) -> Result<Vec<SavedFilter>> {
    reader.list(sql!("saved_filters/all"), [], saved_filter)
}

pub(super) fn save(tx: &Tx<'_>, admin: AdminId, new: &NewFilter) -> Result<()> {
    let params = named_params! {
        ":admin_id": admin, ":list": new.list, ":name": new.name, ":query": new.query,
    };
    tx.run(sql!("saved_filters/save"), params).map(drop)
}

pub(super) fn remove(tx: &Tx<'_>, id: i64) -> Result<()> {
    let params = named_params! { ":saved_filter_id": id };
    tx.run(sql!("saved_filters/remove"), params).map(drop)
}

fn saved_filter(row: &Row<'_>) -> rusqlite::Result<SavedFilter> {
    Ok(SavedFilter {
        id: row.get("saved_filter_id")?,
        list: row.get("list")?,
        name: row.get("name")?,
        query: row.get("query")?,
    })
}
