//! SQL calls for products and their settings.

use rusqlite::{Row, named_params};

use super::{Product, ProductSettings, SessionPolicy, TrialPlan};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx, unknown_value};
use crate::error::Result;
use crate::id::ProductId;
use crate::security::secret::Secret;
use crate::sql;

pub(super) fn list(reader: &Reader<'_>) -> Result<Vec<Product>> {
    reader.list(sql!("products/list"), [], product)
}

pub(super) fn by_id(reader: &Reader<'_>, id: ProductId) -> Result<Option<Product>> {
    let params = named_params! { ":product_id": id };
    reader.maybe(sql!("products/by_id"), params, product)
}

pub(super) fn by_slug(reader: &Reader<'_>, slug: &str) -> Result<Option<Product>> {
    let params = named_params! { ":slug": slug };
    reader.maybe(sql!("products/by_slug"), params, product)
}

pub(super) fn insert(tx: &Tx<'_>, slug: &str, now: UnixMs) -> Result<ProductId> {
    let params = named_params! { ":slug": slug, ":now_ms": now };
    tx.insert(sql!("products/insert"), params).map(ProductId)
}

pub(super) fn set_slug(tx: &Tx<'_>, id: ProductId, slug: &str) -> Result<()> {
    let params = named_params! { ":product_id": id, ":slug": slug };
    tx.run(sql!("products/set_slug"), params).map(drop)
}

pub(super) fn archive(tx: &Tx<'_>, id: ProductId, now: UnixMs) -> Result<()> {
    let params = named_params! { ":product_id": id, ":now_ms": now };
    tx.run(sql!("products/archive"), params).map(drop)
}

pub(super) fn count_sessions(reader: &Reader<'_>, id: ProductId) -> Result<u32> {
    let params = named_params! { ":product_id": id };
    reader.one(sql!("products/count_sessions"), params, |row| row.get(0))
}

fn product(row: &Row<'_>) -> rusqlite::Result<Product> {
    Ok(Product {
        id: row.get("product_id")?,
        slug: row.get("slug")?,
        name: row.get("client_name")?,
        created_at: row.get("created_at_ms")?,
        archived_at: row.get("archived_at_ms")?,
    })
}

pub(super) fn product_settings(
    reader: &Reader<'_>,
    product: ProductId,
) -> Result<Option<ProductSettings>> {
    let params = named_params! { ":product_id": product };
    reader.maybe(sql!("products/find"), params, config)
}

pub(super) fn insert_settings(tx: &Tx<'_>, config: &ProductSettings, now: UnixMs) -> Result<()> {
    save(tx, sql!("products/insert_settings"), config, now)
}

pub(super) fn update(tx: &Tx<'_>, config: &ProductSettings, now: UnixMs) -> Result<()> {
    save(tx, sql!("products/update"), config, now)
}

fn save(tx: &Tx<'_>, sql: &'static str, config: &ProductSettings, now: UnixMs) -> Result<()> {
    let params = named_params! {
        ":product_id": config.product,
        ":client_name": config.client_name,
        ":api_key": config.api_key.reveal(),
        ":heartbeat_interval": config.heartbeat_interval,
        ":session_timeout": config.session_timeout,
        ":current_version": config.current_version,
        ":minimum_version": config.minimum_version,
        ":session_policy": config.session_policy.as_str(),
        ":offline_days": config.offline_days,
        ":trial_plan_id": config.trial_plan.as_ref().map(|plan| plan.id),
        ":now_ms": now,
    };
    tx.run(sql, params).map(drop)
}

pub(super) fn review(tx: &Tx<'_>, product: ProductId) -> Result<()> {
    let params = named_params! { ":product_id": product };
    tx.run(sql!("products/review"), params).map(drop)
}

pub(super) fn reviewed(reader: &Reader<'_>, product: ProductId) -> Result<bool> {
    let params = named_params! { ":product_id": product };
    reader.one(sql!("products/reviewed"), params, |row| row.get(0))
}

fn config(row: &Row<'_>) -> rusqlite::Result<ProductSettings> {
    Ok(ProductSettings {
        product: row.get("product_id")?,
        client_name: row.get("client_name")?,
        api_key: Secret::new(row.get("api_key")?),
        heartbeat_interval: row.get("heartbeat_interval")?,
        session_timeout: row.get("session_timeout")?,
        current_version: row.get("current_version")?,
        minimum_version: row.get("minimum_version")?,
        session_policy: SessionPolicy::parse(row.get_ref("session_policy")?.as_str()?)
            .ok_or_else(|| unknown_value("session policy"))?,
        offline_days: row.get("offline_days")?,
        trial_plan: match row.get("trial_plan_id")? {
            None => None,
            Some(id) => Some(TrialPlan {
                id,
                code: row.get("trial_plan")?,
            }),
        },
    })
}
