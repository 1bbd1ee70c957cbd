//! Licenses in the database.

use rusqlite::{Row, named_params};

use super::{
    Features, Kind, License, LicenseCounts, LicenseKey, LicenseQuery, LicenseRow, LicenseSearch,
    LicenseState, LicenseText, Order, PlanRange, rules,
};
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::db::{Columns, FromColumns, Reader, Tx, from_row, id_list, unknown_value};
use crate::domain::Domain;
use crate::error::Result;
use crate::id::{CustomerId, LicenseId, PlanId, ProductId};
use crate::license_lists::Walk;
use crate::paging::Direction;
use crate::sql;
use crate::terms::{self, Matches, Pattern};

/// A license that is to be stored.
pub(super) struct NewLicense<'a> {
    pub(super) key: LicenseKey,
    /// `None` for a trial that was not bought.
    pub(super) customer_id: Option<CustomerId>,
    /// The order, with its note as it is stored, and with the expiry date of a trial.
    pub(super) order: &'a Order,
    /// The domain of the order.
    pub(super) domain: Option<&'a Domain>,
}

pub(super) fn insert(tx: &Tx<'_>, new: &NewLicense<'_>, now: UnixMs) -> Result<LicenseId> {
    let params = named_params! {
        ":license_key": new.key.stored(),
        ":product_id": new.order.product,
        ":plan_id": new.order.plan,
        ":customer_id": new.customer_id,
        ":kind": new.order.kind.as_str(),
        ":device_limit": new.order.device_limit,
        ":valid_until_ms": new.order.term.valid_until(),
        ":pending_days": new.order.term.pending_days(),
        ":features": new.order.features.stored(),
        ":updates_until_ms": new.order.updates_until,
        ":domain": new.domain,
        ":note": new.order.note,
        ":now_ms": now,
    };
    tx.insert(sql!("licenses/insert"), params).map(LicenseId)
}

pub(super) fn by_id(reader: &Reader<'_>, id: LicenseId) -> Result<Option<License>> {
    reader.maybe(
        sql!("licenses/by_id"),
        named_params! { ":license_id": id },
        from_row,
    )
}

pub(super) fn by_key(
    reader: &Reader<'_>,
    product: ProductId,
    key: &LicenseKey,
) -> Result<Option<License>> {
    let params = named_params! { ":product_id": product, ":license_key": key.stored() };
    reader.maybe(sql!("licenses/by_key"), params, from_row)
}

pub(super) fn by_key_of_any_product(
    reader: &Reader<'_>,
    key: &LicenseKey,
) -> Result<Option<License>> {
    let params = named_params! { ":license_key": key.stored() };
    reader.maybe(sql!("licenses/by_key_of_any_product"), params, from_row)
}

pub(super) fn count(reader: &Reader<'_>, product: Option<ProductId>) -> Result<u32> {
    let params = named_params! { ":product_id": product };
    reader.one(sql!("licenses/count"), params, |row| row.get(0))
}

pub(super) fn list(
    reader: &Reader<'_>,
    query: LicenseSearch<'_>,
    found: Option<&Matches<LicenseId>>,
) -> Result<Vec<License>> {
    let params = named_params! {
        ":found": found.map(|found| id_list(&found.ids)),
        ":product_id": query.product,
        ":limit": query.limit,
    };
    reader.list(sql!("licenses/list"), params, from_row)
}

/// The newest licenses that contain `text`.
pub(super) fn with_text(
    reader: &Reader<'_>,
    text: &LicenseText,
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<LicenseId>> {
    let key = Pattern::of(text.key_part.clone());
    let params = named_params! {
        ":match": terms::either(&text.pattern, &key, product),
        ":parts": text.pattern.parts(),
        ":key_part": text.key_part.as_deref().unwrap_or_default(),
        ":product_mark": product.map(terms::product_mark),
        ":limit": limit,
    };
    reader.list(sql!("licenses/with_text"), params, |row| {
        row.get("license_id")
    })
}

/// The newest licenses of these customers.
pub(super) fn of_customers(
    reader: &Reader<'_>,
    customers: &[CustomerId],
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<LicenseId>> {
    let params = named_params! {
        ":customers": id_list(customers), ":product_id": product, ":limit": limit,
    };
    reader.list(sql!("licenses/of_customers"), params, |row| {
        row.get("license_id")
    })
}

/// The parameters of a page of `$ids`, which `$walk` describes.
macro_rules! page_params {
    ($ids:ident, $walk:ident, $customer:expr $(, $name:literal: $value:expr)*) => {
        named_params! {
            $($name: $value,)*
            ":found": id_list($ids),
            ":product_id": $walk.product,
            ":customer_id": $customer,
            ":filter": $walk.filter.as_str(),
            ":now_ms": $walk.now,
            ":soon_ms": $walk.soon,
            ":limit": $walk.limit,
        }
    };
}

/// The page of those licenses with the `ids` that `walk` describes, as rows of a list.
pub(super) fn page(
    reader: &Reader<'_>,
    customer: Option<CustomerId>,
    walk: &Walk<'_>,
    ids: &[LicenseId],
) -> Result<Vec<LicenseRow>> {
    let Some(column) = walk.column else {
        return page_by_age(reader, customer, walk, ids);
    };
    let (low, high) = walk.range;
    let params = page_params!(
        ids, walk, customer,
        ":low": low, ":high": high, ":column": column,
        ":from_value": walk.from.map(|from| from.value.as_str()),
        ":from_id": walk.from.map(|from| from.id)
    );
    match walk.direction {
        Direction::Ascending => reader.list(sql!("licenses/page_ascending"), params, license_row),
        Direction::Descending => reader.list(sql!("licenses/page_descending"), params, license_row),
    }
}

fn page_by_age(
    reader: &Reader<'_>,
    customer: Option<CustomerId>,
    walk: &Walk<'_>,
    ids: &[LicenseId],
) -> Result<Vec<LicenseRow>> {
    let (low, high) = walk.ids();
    let params = page_params!(ids, walk, customer, ":low": low, ":high": high);
    match walk.direction {
        Direction::Ascending => reader.list(sql!("licenses/found_after"), params, license_row),
        Direction::Descending => reader.list(sql!("licenses/found_before"), params, license_row),
    }
}

pub(super) fn find_row(
    reader: &Reader<'_>,
    id: LicenseId,
    now: UnixMs,
) -> Result<Option<LicenseRow>> {
    let params = named_params! { ":license_id": id, ":now_ms": now };
    reader.maybe(sql!("licenses/listed"), params, license_row)
}

pub(super) fn count_by_filter(
    reader: &Reader<'_>,
    query: &LicenseQuery,
    now: UnixMs,
) -> Result<LicenseCounts> {
    let soon = rules::soon(now);
    if let Some(found) = query.found.as_ref().map(|found| id_list(&found.ids)) {
        let params = named_params! {
            ":found": found, ":product_id": query.product, ":customer_id": query.customer_id,
            ":now_ms": now, ":soon_ms": soon,
        };
        return reader.one(sql!("licenses/found_tally"), params, counts);
    }
    if query.customer_id.is_some() {
        let params = named_params! {
            ":customer_id": query.customer_id, ":product_id": query.product,
            ":now_ms": now, ":soon_ms": soon,
        };
        return reader.one(sql!("licenses/customer_tally"), params, counts);
    }
    let params = named_params! { ":product_id": query.product, ":now_ms": now, ":soon_ms": soon };
    reader.one(sql!("licenses/tally"), params, counts)
}

fn counts(row: &Row<'_>) -> rusqlite::Result<LicenseCounts> {
    Ok(LicenseCounts {
        all: row.get("every")?,
        active: row.get("active")?,
        expiring: row.get("expiring")?,
        unused: row.get("unused")?,
        stopped: row.get("stopped")?,
        expired: row.get("expired")?,
        taken: row.get("taken")?,
        slots: row.get("slots")?,
    })
}

pub(super) fn edit(tx: &Tx<'_>, new: &License) -> Result<()> {
    let params = named_params! {
        ":license_id": new.id,
        ":plan": new.plan,
        ":customer_id": new.customer_id,
        ":kind": new.kind.as_str(),
        ":device_limit": new.device_limit,
        ":valid_from_ms": new.valid_from,
        ":valid_until_ms": new.valid_until,
        ":pending_days": new.pending_days,
        ":features": new.features.stored(),
        ":updates_until_ms": new.updates_until,
        ":note": new.note,
    };
    tx.changes_license(new.id);
    tx.run(sql!("licenses/edit"), params).map(drop)
}

pub(super) fn set_customer(tx: &Tx<'_>, id: LicenseId, customer: CustomerId) -> Result<()> {
    let params = named_params! { ":license_id": id, ":customer_id": customer };
    tx.changes_license(id);
    tx.run(sql!("licenses/set_customer"), params).map(drop)
}

/// Sets everything that an order says, except for the domain and the note.
pub(super) fn apply_order(tx: &Tx<'_>, id: LicenseId, order: &Order) -> Result<()> {
    let params = named_params! {
        ":license_id": id,
        ":plan_id": order.plan,
        ":kind": order.kind.as_str(),
        ":device_limit": order.device_limit,
        ":valid_until_ms": order.term.valid_until(),
        ":pending_days": order.term.pending_days(),
        ":features": order.features.stored(),
        ":updates_until_ms": order.updates_until,
    };
    tx.changes_license(id);
    tx.run(sql!("licenses/apply_order"), params).map(drop)
}

pub(super) fn set_state(act: &Act<'_>, id: LicenseId, state: LicenseState) -> Result<()> {
    let params = named_params! {
        ":license_id": id, ":state": state.as_str(), ":now_ms": act.now,
    };
    act.tx.changes_license(id);
    act.tx.run(sql!("licenses/set_state"), params).map(drop)
}

pub(super) fn set_term(tx: &Tx<'_>, new: &License) -> Result<()> {
    let params = named_params! {
        ":license_id": new.id,
        ":valid_until_ms": new.valid_until,
        ":pending_days": new.pending_days,
    };
    tx.changes_license(new.id);
    tx.run(sql!("licenses/set_term"), params).map(drop)
}

/// Whether a product has a plan with this code, archived or not.
pub(super) fn has_plan(reader: &Reader<'_>, product: ProductId, code: &str) -> Result<bool> {
    let params = named_params! { ":product_id": product, ":code": code };
    reader.one(sql!("licenses/has_plan"), params, |row| row.get(0))
}

pub(super) fn of_plan(
    reader: &Reader<'_>,
    plan: PlanId,
    range: &PlanRange,
) -> Result<Vec<LicenseRow>> {
    let params = named_params! {
        ":plan_id": plan,
        ":after": range.after,
        ":limit": range.limit,
        ":more_than": range.more_devices_than,
    };
    reader.list(sql!("licenses/of_plan"), params, license_row)
}

pub(super) fn begin_term(tx: &Tx<'_>, id: LicenseId, until: UnixMs) -> Result<()> {
    let params = named_params! { ":license_id": id, ":valid_until_ms": until };
    tx.changes_license(id);
    tx.run(sql!("licenses/begin_term"), params).map(drop)
}

pub(super) fn undo_begin_term(tx: &Tx<'_>, id: LicenseId, pending_days: u32) -> Result<()> {
    let params = named_params! { ":license_id": id, ":pending_days": pending_days };
    tx.changes_license(id);
    tx.run(sql!("licenses/undo_begin_term"), params).map(drop)
}

fn license_row(row: &Row<'_>) -> rusqlite::Result<LicenseRow> {
    let mut columns = Columns::of(row);
    Ok(LicenseRow {
        license: License::from_columns(&mut columns)?,
        company: columns.take("company")?,
        taken: columns.take("taken")?,
        session: columns.take("session_id")?,
    })
}

impl FromColumns for License {
    const COUNT: usize = 17;

    fn from_columns(columns: &mut Columns<'_>) -> rusqlite::Result<Self> {
        let id = columns.take("license_id")?;
        let key = LicenseKey::from_stored(columns.take_ref("license_key")?.as_str()?);
        Ok(Self {
            id,
            key: key.ok_or_else(|| unknown_value("key"))?,
            product: columns.take("product_id")?,
            plan: columns.take("plan")?,
            customer_id: columns.take("customer_id")?,
            customer: columns.take("customer")?,
            kind: match columns.take_ref("kind")?.as_str()? {
                "full" => Kind::Full,
                "trial" => Kind::Trial,
                _ => return Err(unknown_value("kind")),
            },
            state: match columns.take_ref("state")?.as_str()? {
                "active" => LicenseState::Active,
                "suspended" => LicenseState::Suspended,
                "revoked" => LicenseState::Revoked,
                _ => return Err(unknown_value("state")),
            },
            device_limit: columns.take("device_limit")?,
            valid_from: columns.take("valid_from_ms")?,
            valid_until: columns.take("valid_until_ms")?,
            pending_days: columns.take("pending_days")?,
            features: Features::from_stored(columns.take_ref("features")?.as_str()?),
            updates_until: columns.take("updates_until_ms")?,
            domain: columns.take("domain")?,
            note: columns.take("note")?,
            created_at: columns.take("created_at_ms")?,
        })
    }
}
