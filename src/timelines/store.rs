//! The SQL calls for the table `timelines`.

use rusqlite::named_params;

use super::Timeline;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::sql;

pub(super) fn exists(reader: &Reader<'_>) -> Result<bool> {
    reader.one(sql!("timelines/exists"), [], |row| row.get(0))
}

pub(super) fn list(reader: &Reader<'_>) -> Result<Vec<Timeline>> {
    reader.list(sql!("timelines/list"), [], |row| {
        Ok(Timeline {
            identity: row.get("identity")?,
            began_at: row.get("began_at_ms")?,
            continues: row.get("continues_ms")?,
        })
    })
}

pub(super) fn insert(tx: &Tx<'_>, timeline: &Timeline) -> Result<()> {
    let params = named_params! {
        ":identity": timeline.identity,
        ":began_at_ms": timeline.began_at,
        ":continues_ms": timeline.continues,
    };
    tx.run(sql!("timelines/insert"), params).map(drop)
}

pub(super) fn clear(tx: &Tx<'_>) -> Result<()> {
    tx.run(sql!("timelines/clear"), []).map(drop)
}
