//! The SQL calls for refused calls, and for the counts of refusals.

use rusqlite::{Row, named_params};

use super::queue::RecentRow;
use super::{Filter, Position, RecordedRefusal, RefusedCall, Resolved, Scope};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx, id_list, unknown_value};
use crate::error::Result;
use crate::id::{LicenseId, ProductId, SessionToken};
use crate::license_key::{LicenseKey, key_part};
use crate::metrics::{CountedAs, Refusals};
use crate::paging::Direction;
use crate::sql;
use crate::terms::Pattern;

/// Stands for the product of a refusal whose product is not known.
const NO_PRODUCT: ProductId = ProductId(0);

pub(super) fn add_count(tx: &Tx<'_>, refusals: &Refusals) -> Result<()> {
    let Refusals {
        at,
        product,
        code,
        count,
    } = refusals;
    let params = named_params! {
        ":product_id": product.unwrap_or(NO_PRODUCT), ":at_ms": at, ":code": code, ":count": count,
    };
    tx.run(sql!("refusals/add_count"), params).map(drop)
}

pub(super) fn counts_since(reader: &Reader<'_>, since: UnixMs) -> Result<Vec<(CountedAs, u32)>> {
    let params = named_params! { ":since_ms": since };
    reader.list(sql!("refusals/counts_since"), params, |row| {
        let product = Some(row.get("product_id")?).filter(|product| *product != NO_PRODUCT);
        Ok(((product, row.get("code")?), row.get("count")?))
    })
}

/// Adds a row, and returns its id.
pub(super) fn insert(tx: &Tx<'_>, row: &Resolved) -> Result<i64> {
    let RefusedCall {
        named,
        address,
        detail,
        ..
    } = &row.call;
    let params = named_params! {
        ":at_ms": row.call.at,
        ":last_at_ms": row.last_at,
        ":calls": row.calls,
        ":code": row.call.code,
        ":call": row.call.call,
        ":product_id": row.call.product,
        ":license_id": row.license,
        ":masked_key": named.masked_key,
        ":hardware_id": named.hardware_id,
        ":machine_id": named.machine_id,
        ":client_version": named.version,
        ":domain": named.domain,
        ":address": address.to_string(),
        ":network": row.call.network(),
        ":detail": detail,
    };
    tx.insert(sql!("refusals/insert"), params)
}

/// Adds the calls of `row` to an earlier row; false if that is gone.
pub(super) fn add_calls(tx: &Tx<'_>, to: RecentRow, row: &Resolved) -> Result<bool> {
    let params = named_params! {
        ":refusal_id": to.id, ":at_ms": to.at, ":code": to.code,
        ":calls": row.calls, ":last_at_ms": row.last_at,
    };
    Ok(tx.run(sql!("refusals/add_calls"), params)? > 0)
}

/// The license with this key, and its product; of the given one only, if any is given.
pub(super) fn license(
    reader: &Reader<'_>,
    key: &LicenseKey,
    product: Option<ProductId>,
) -> Result<Option<(LicenseId, ProductId)>> {
    let params = named_params! { ":license_key": key.stored(), ":product_id": product };
    reader.maybe(sql!("refusals/license"), params, |row| {
        Ok((row.get("license_id")?, row.get("product_id")?))
    })
}

/// What is known of a session.
pub(super) struct KnownSession {
    pub(super) license: LicenseId,
    pub(super) hardware_id: String,
    pub(super) machine_id: String,
    pub(super) version: String,
}

/// The session of a product with this token, whether it runs or has ended.
pub(super) fn session(
    reader: &Reader<'_>,
    token: &SessionToken,
    product: ProductId,
) -> Result<Option<KnownSession>> {
    let params = named_params! { ":session_token": token, ":product_id": product };
    reader.maybe(sql!("refusals/session"), params, |row| {
        Ok(KnownSession {
            license: row.get("license_id")?,
            hardware_id: row.get("hardware_id")?,
            machine_id: row.get("machine_id")?,
            version: row.get("client_version")?,
        })
    })
}

/// The license of the trial of a device, by the digest of its fingerprint.
pub(super) fn trial(
    reader: &Reader<'_>,
    product: ProductId,
    digest: &[u8; 32],
) -> Result<Option<LicenseId>> {
    let params = named_params! { ":product_id": product, ":fingerprint_digest": digest };
    reader.maybe(sql!("refusals/trial"), params, |row| row.get(0))
}

pub(super) fn product(reader: &Reader<'_>, license: LicenseId) -> Result<ProductId> {
    let params = named_params! { ":license_id": license };
    reader.one(sql!("refusals/product"), params, |row| row.get(0))
}

pub(super) fn trim_license(tx: &Tx<'_>, license: LicenseId, keep: u32) -> Result<()> {
    let params = named_params! { ":license_id": license, ":keep": keep };
    tx.run(sql!("refusals/trim_license"), params).map(drop)
}

pub(super) fn trim_network(tx: &Tx<'_>, network: &str, keep: u32) -> Result<()> {
    let params = named_params! { ":network": network, ":keep": keep };
    tx.run(sql!("refusals/trim_network"), params).map(drop)
}

pub(super) fn trim_without_license(tx: &Tx<'_>, keep: u32) -> Result<()> {
    let params = named_params! { ":keep": keep };
    tx.run(sql!("refusals/trim_without_license"), params)
        .map(drop)
}

pub(super) fn trim(tx: &Tx<'_>, keep: u32) -> Result<()> {
    let params = named_params! { ":keep": keep };
    tx.run(sql!("refusals/trim"), params).map(drop)
}

pub(super) fn purge(tx: &Tx<'_>, before: UnixMs, limit: u32) -> Result<usize> {
    let params = named_params! { ":before_ms": before, ":limit": limit };
    tx.run(sql!("refusals/purge"), params)
}

/// The parameters of a query with `$filter`.
macro_rules! filter_params {
    ($filter:ident $(, $name:literal: $value:expr)*) => {
        named_params! {
            ":code": $filter.code,
            ":product_id": $filter.product,
            ":key_part": key_part(&$filter.key),
            ":device": $filter.device.words().parts(),
            ":customer": $filter.customer.words().parts(),
            $($name: $value,)*
        }
    };
}

/// The rows that follow a position in this direction.
pub(super) fn page(
    reader: &Reader<'_>,
    (filter, scope): (&Filter, &Scope),
    (position, direction): (Position, Direction),
    limit: u32,
) -> Result<Vec<RecordedRefusal>> {
    let bound = match direction {
        Direction::Descending => filter.since,
        Direction::Ascending => filter.until,
    };
    let (at, id) = (position.at, position.id);
    if let Scope::Few(ids) = scope {
        let sign = match direction {
            Direction::Descending => -1,
            Direction::Ascending => 1,
        };
        let params = filter_params!(
            filter, ":direction": sign, ":bound_ms": bound, ":at_ms": at, ":id": id, ":ids": id_list(ids), ":limit": limit
        );
        return reader.list(sql!("refusals/few"), params, recorded);
    }
    let query = match direction {
        Direction::Descending => sql!("refusals/page_descending"),
        Direction::Ascending => sql!("refusals/page_ascending"),
    };
    let params =
        filter_params!(filter, ":bound_ms": bound, ":at_ms": at, ":id": id, ":limit": limit);
    reader.list(query, params, recorded)
}

/// How many of these rows match a filter.
pub(super) fn count_few(reader: &Reader<'_>, filter: &Filter, ids: &[i64]) -> Result<u32> {
    let params = filter_params!(
        filter, ":since_ms": filter.since, ":until_ms": filter.until, ":ids": id_list(ids)
    );
    reader.one(sql!("refusals/count_few"), params, |row| row.get(0))
}

/// How many of the latest `walked` rows match a filter; `limit` are counted at most.
pub(super) fn count_matching(
    reader: &Reader<'_>,
    filter: &Filter,
    walked: u32,
    limit: u32,
) -> Result<u32> {
    let params = filter_params!(
        filter, ":since_ms": filter.since, ":until_ms": filter.until, ":walked": walked, ":limit": limit
    );
    reader.one(sql!("refusals/count_matching"), params, |row| row.get(0))
}

/// The newest rows of which device and domain together have what `pattern` says.
pub(super) fn with_text(reader: &Reader<'_>, pattern: &Pattern, limit: u32) -> Result<Vec<i64>> {
    let params = named_params! {
        ":match": pattern.expression(), ":parts": pattern.parts(), ":limit": limit,
    };
    reader.list(sql!("refusals/with_text"), params, |row| row.get(0))
}

/// Rows of these licenses.
pub(super) fn of_licenses(
    reader: &Reader<'_>,
    licenses: &[LicenseId],
    limit: u32,
) -> Result<Vec<i64>> {
    let params = named_params! { ":licenses": id_list(licenses), ":limit": limit };
    reader.list(sql!("refusals/of_licenses"), params, |row| row.get(0))
}

/// The latest rows of a license, the latest first.
pub(super) fn of_license(
    reader: &Reader<'_>,
    license: LicenseId,
    since: UnixMs,
    limit: u32,
) -> Result<Vec<RecordedRefusal>> {
    let params = named_params! { ":license_id": license, ":since_ms": since, ":limit": limit };
    reader.list(sql!("refusals/of_license"), params, recorded)
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<RecordedRefusal> {
    let key: Option<String> = row.get("license_key")?;
    let key =
        key.map(|key| LicenseKey::from_stored(&key).ok_or_else(|| unknown_value("license key")));
    Ok(RecordedRefusal {
        id: row.get("refusal_id")?,
        at: row.get("at_ms")?,
        last_at: row.get("last_at_ms")?,
        calls: row.get("calls")?,
        code: row.get("code")?,
        call: row.get("call")?,
        product: row.get("product_id")?,
        license: row.get("license_id")?,
        license_key: key.transpose()?,
        customer_id: row.get("customer_id")?,
        customer: row.get("customer")?,
        masked_key: row.get("masked_key")?,
        hardware_id: row.get("hardware_id")?,
        machine_id: row.get("machine_id")?,
        version: row.get("client_version")?,
        domain: row.get("domain")?,
        address: row.get("address")?,
        detail: row.get("detail")?,
    })
}
