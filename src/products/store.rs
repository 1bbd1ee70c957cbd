//! SQL calls: the product's settings, feature flags, rate limits and retired API keys.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Row, named_params};

use super::{Flag, Limit, ProductSettings, RetiredKey, SessionPolicy};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
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
        ":session_policy": config.session_policy.word(),
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

pub(super) fn retired(reader: &Reader<'_>) -> Result<Vec<RetiredKey>> {
    reader.list(sql!("products/retired"), [], |row| {
        Ok(RetiredKey {
            key: Secret::new(row.get("api_key")?),
            valid_until: row.get("valid_until_ms")?,
        })
    })
}

pub(super) fn retire(tx: &Tx<'_>, key: &RetiredKey) -> Result<()> {
    let params = named_params! { ":api_key": key.key.reveal(), ":valid_until_ms": key.valid_until };
    tx.run(sql!("products/retire"), params).map(drop)
}

pub(super) fn forget_retired(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    tx.run(
        sql!("products/forget_retired"),
        named_params! { ":now_ms": now },
    )
    .map(drop)
}

pub(super) fn limits(reader: &Reader<'_>) -> Result<Vec<Limit>> {
    reader.list(sql!("products/limits"), [], |row| {
        Ok(Limit {
            name: row.get("name")?,
            per_minute: row.get("per_minute")?,
            burst: row.get("burst")?,
        })
    })
}

pub(super) fn set_limit(tx: &Tx<'_>, limit: &Limit, now: UnixMs) -> Result<()> {
    let params = named_params! {
        ":name": limit.name, ":per_minute": limit.per_minute, ":burst": limit.burst, ":now_ms": now,
    };
    tx.run(sql!("products/set_limit"), params).map(drop)
}

pub(super) fn flags(reader: &Reader<'_>) -> Result<Vec<Flag>> {
    reader.list(sql!("products/flags"), [], |row| {
        Ok(Flag {
            name: row.get("name")?,
            description: row.get("description")?,
            enabled: row.get("enabled")?,
            share_percent: row.get("share_percent")?,
        })
    })
}

pub(super) fn set_flag(tx: &Tx<'_>, flag: &Flag, now: UnixMs) -> Result<()> {
    let params = named_params! {
        ":name": flag.name,
        ":description": flag.description,
        ":enabled": flag.enabled,
        ":share_percent": flag.share_percent,
        ":now_ms": now,
    };
    tx.run(sql!("products/set_flag"), params).map(drop)
}

pub(super) fn remove_flag(tx: &Tx<'_>, name: &str) -> Result<()> {
    tx.run(
        sql!("products/remove_flag"),
        named_params! { ":name": name },
    )
    .map(drop)
}

fn config(row: &Row<'_>) -> rusqlite::Result<ProductSettings> {
    let unknown = || {
        let cause = FromSqlError::Other("an unknown session policy".into());
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, cause.into())
    };
    Ok(ProductSettings {
        client_name: row.get("client_name")?,
        api_key: Secret::new(row.get("api_key")?),
        heartbeat_interval: row.get("heartbeat_interval")?,
        session_timeout: row.get("session_timeout")?,
        current_version: row.get("current_version")?,
        minimum_version: row.get("minimum_version")?,
        session_policy: SessionPolicy::from_word(row.get_ref("session_policy")?.as_str()?)
            .ok_or_else(unknown)?,
        offline_days: row.get("offline_days")?,
    })
}
