//! Plans in the database.

use rusqlite::{Row, named_params};

use super::{Plan, PlanFilter, PlanRow, PlanTerms, TermStart};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx, unknown_value};
use crate::error::Result;
use crate::features::Features;
use crate::id::{PlanId, ProductId};
use crate::licenses::Kind;
use crate::sql;

/// A plan that is to be stored.
pub(super) struct NewPlan<'a> {
    pub(super) product: ProductId,
    pub(super) code: &'a str,
    pub(super) terms: &'a PlanTerms,
}

pub(super) fn insert(tx: &Tx<'_>, new: &NewPlan<'_>, now: UnixMs) -> Result<()> {
    let params = named_params! {
        ":product_id": new.product,
        ":code": new.code,
        ":name": new.terms.name,
        ":kind": new.terms.kind.as_str(),
        ":device_limit": new.terms.device_limit,
        ":term_days": new.terms.term_days,
        ":term_starts": new.terms.term_starts.as_str(),
        ":features": new.terms.features.stored(),
        ":updates_days": new.terms.updates_days,
        ":now_ms": now,
    };
    tx.run(sql!("plans/insert"), params).map(drop)
}

pub(super) fn update(tx: &Tx<'_>, id: PlanId, terms: &PlanTerms) -> Result<()> {
    let params = named_params! {
        ":plan_id": id,
        ":name": terms.name,
        ":kind": terms.kind.as_str(),
        ":device_limit": terms.device_limit,
        ":term_days": terms.term_days,
        ":term_starts": terms.term_starts.as_str(),
        ":features": terms.features.stored(),
        ":updates_days": terms.updates_days,
    };
    tx.run(sql!("plans/update"), params).map(drop)
}

pub(super) fn archive(tx: &Tx<'_>, id: PlanId, now: UnixMs) -> Result<()> {
    let params = named_params! { ":plan_id": id, ":now_ms": now };
    tx.run(sql!("plans/archive"), params).map(drop)
}

/// Whether a product issues its trials by the plan.
pub(super) fn offers_trials(reader: &Reader<'_>, id: PlanId) -> Result<bool> {
    let params = named_params! { ":plan_id": id };
    reader.one(sql!("plans/offers_trials"), params, |row| row.get(0))
}

pub(super) fn by_code(reader: &Reader<'_>, product: ProductId, code: &str) -> Result<Option<Plan>> {
    let params = named_params! { ":product_id": product, ":code": code };
    reader.maybe(sql!("plans/by_code"), params, plan)
}

pub(super) fn by_id(reader: &Reader<'_>, id: PlanId) -> Result<Option<Plan>> {
    let params = named_params! { ":plan_id": id };
    reader.maybe(sql!("plans/by_id"), params, plan)
}

pub(super) fn list(
    reader: &Reader<'_>,
    product: ProductId,
    filter: PlanFilter,
    limit: u32,
) -> Result<Vec<PlanRow>> {
    let params = named_params! {
        ":product_id": product,
        ":filter": filter.as_str(),
        ":limit": limit,
    };
    reader.list(sql!("plans/list"), params, |row| {
        Ok(PlanRow {
            plan: plan(row)?,
            licenses: row.get("licenses")?,
        })
    })
}

pub(super) fn for_sale(reader: &Reader<'_>, product: ProductId, limit: u32) -> Result<Vec<Plan>> {
    let params = named_params! { ":product_id": product, ":limit": limit };
    reader.list(sql!("plans/for_sale"), params, plan)
}

/// How many licenses the plan would be applied to, and how many of them have more devices than it allows.
pub(super) fn count_licenses(reader: &Reader<'_>, plan: &Plan) -> Result<(u32, u32)> {
    let params = named_params! { ":plan_id": plan.id, ":device_limit": plan.terms.device_limit };
    reader.one(sql!("plans/count_licenses"), params, |row| {
        Ok((row.get("licenses")?, row.get("skipped")?))
    })
}

fn plan(row: &Row<'_>) -> rusqlite::Result<Plan> {
    let term_starts = TermStart::parse(row.get_ref("term_starts")?.as_str()?);
    Ok(Plan {
        id: row.get("plan_id")?,
        product: row.get("product_id")?,
        code: row.get("code")?,
        terms: PlanTerms {
            name: row.get("name")?,
            kind: match row.get_ref("kind")?.as_str()? {
                "full" => Kind::Full,
                "trial" => Kind::Trial,
                _ => return Err(unknown_value("kind")),
            },
            device_limit: row.get("device_limit")?,
            term_days: row.get("term_days")?,
            term_starts: term_starts.ok_or_else(|| unknown_value("start of a term"))?,
            features: Features::from_stored(row.get_ref("features")?.as_str()?),
            updates_days: row.get("updates_days")?,
        },
        created_at: row.get("created_at_ms")?,
        archived_at: row.get("archived_at_ms")?,
    })
}
