//! SQL calls for releases.

use rusqlite::{Row, named_params};

use super::{Release, ReleaseState};
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::ProductId;
use crate::sql;
use crate::version::Version;

pub(super) fn insert(tx: &Tx<'_>, product: ProductId, release: &Release) -> Result<()> {
    let params = named_params! {
        ":product_id": product,
        ":version": release.version,
        ":channel": release.channel,
        ":notes": release.notes,
        ":download_url": release.download_url,
        ":sha256": release.sha256,
        ":released_at_ms": release.released_at,
    };
    tx.run(sql!("releases/insert"), params).map(drop)
}

pub(super) fn update(tx: &Tx<'_>, product: ProductId, release: &Release) -> Result<()> {
    let params = named_params! {
        ":product_id": product,
        ":version": release.version,
        ":channel": release.channel,
        ":notes": release.notes,
        ":download_url": release.download_url,
        ":sha256": release.sha256,
    };
    tx.run(sql!("releases/update"), params).map(drop)
}

pub(super) fn by_version(
    reader: &Reader<'_>,
    product: ProductId,
    version: Version,
) -> Result<Option<Release>> {
    let params = named_params! { ":product_id": product, ":version": version };
    reader.maybe(sql!("releases/by_version"), params, release)
}

pub(super) fn yank(tx: &Tx<'_>, product: ProductId, version: Version) -> Result<()> {
    let params = named_params! { ":product_id": product, ":version": version };
    tx.run(sql!("releases/yank"), params).map(drop)
}

pub(super) fn count(reader: &Reader<'_>, product: ProductId) -> Result<u32> {
    let params = named_params! { ":product_id": product };
    reader.one(sql!("releases/count"), params, |row| row.get(0))
}

pub(super) fn list(reader: &Reader<'_>, product: ProductId, limit: u32) -> Result<Vec<Release>> {
    let params = named_params! { ":product_id": product, ":limit": limit };
    reader.list(sql!("releases/list"), params, release)
}

fn release(row: &Row<'_>) -> rusqlite::Result<Release> {
    Ok(Release {
        version: row.get("version")?,
        channel: row.get("channel")?,
        notes: row.get("notes")?,
        download_url: row.get("download_url")?,
        sha256: row.get("sha256")?,
        state: if row.get_ref("state")?.as_str()? == "yanked" {
            ReleaseState::Yanked
        } else {
            ReleaseState::Released
        },
        released_at: row.get("released_at_ms")?,
    })
}
