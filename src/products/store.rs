//! SQL calls for the settings of the product.

use rusqlite::{Row, named_params};

use super::{ProductSettings, SessionPolicy};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx, unknown_value};
use crate::error::Result;
use crate::security::secret::Secret;
use crate::sql;

pub(super) fn product_settings(reader: &Reader<'_>) -> Result<Option<ProductSettings>> {
    reader.maybe(sql!("products/find"), [], config)
}

pub(super) fn insert(tx: &Tx<'_>, config: &ProductSettings, now: UnixMs) -> Result<()> {
    save(tx, sql!("products/insert"), config, now)
}

pub(super) fn update(tx: &Tx<'_>, config: &ProductSettings, now: UnixMs) -> Result<()> {
    save(tx, sql!("products/update"), config, now)
}

fn save(tx: &Tx<'_>, sql: &'static str, config: &ProductSettings, now: UnixMs) -> Result<()> {
    let params = named_params! {
        ":client_name": config.client_name,
        ":api_key": config.api_key.reveal(),
        ":heartbeat_interval": config.heartbeat_interval,
        ":session_timeout": config.session_timeout,
        ":current_version": config.current_version,
        ":minimum_version": config.minimum_version,
        ":session_policy": config.session_policy.as_str(),
        ":offline_days": config.offline_days,
        ":now_ms": now,
    };
    tx.run(sql, params).map(drop)
}

pub(super) fn review(tx: &Tx<'_>) -> Result<()> {
    tx.run(sql!("products/review"), []).map(drop)
}

pub(super) fn reviewed(reader: &Reader<'_>) -> Result<bool> {
    reader.one(sql!("products/reviewed"), [], |row| row.get(0))
}

fn config(row: &Row<'_>) -> rusqlite::Result<ProductSettings> {
    Ok(ProductSettings {
        client_name: row.get("client_name")?,
        api_key: Secret::new(row.get("api_key")?),
        heartbeat_interval: row.get("heartbeat_interval")?,
        session_timeout: row.get("session_timeout")?,
        current_version: row.get("current_version")?,
        minimum_version: row.get("minimum_version")?,
        session_policy: SessionPolicy::parse(row.get_ref("session_policy")?.as_str()?)
            .ok_or_else(|| unknown_value("session policy"))?,
        offline_days: row.get("offline_days")?,
    })
}
