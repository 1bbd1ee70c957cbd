//! The SQL calls for all that belongs to a person, whatever module owns the table.

use rusqlite::types::ValueRef;
use rusqlite::{Row, named_params};
use serde_json::{Map, Value};

use super::{Erasure, LicensePolicy};
use crate::audit::Entry;
use crate::clock::UnixMs;
use crate::db::{Reader, Tx, unknown_value};
use crate::error::Result;
use crate::id::{CustomerId, DeviceId, LicenseId};
use crate::licenses::LicenseKey;
use crate::sql;

pub(super) fn license_ids(reader: &Reader<'_>, id: CustomerId) -> Result<Vec<LicenseId>> {
    let params = named_params! { ":customer_id": id };
    reader.list(sql!("privacy/license_ids"), params, |row| row.get(0))
}

/// When the oldest license of the customer was made, if there is one.
pub(super) fn oldest_license(reader: &Reader<'_>, id: CustomerId) -> Result<Option<UnixMs>> {
    let params = named_params! { ":customer_id": id };
    reader.one(sql!("privacy/oldest_license"), params, |row| row.get(0))
}

/// The domains to which licenses of the customer are bound or are being transferred.
pub(super) fn domains(reader: &Reader<'_>, id: CustomerId) -> Result<Vec<String>> {
    let params = named_params! { ":customer_id": id };
    reader.list(sql!("privacy/domains"), params, |row| row.get(0))
}

/// Whether a license that never was the customer's is bound to the domain, or is being transferred to it.
pub(super) fn is_bound_to_another(
    reader: &Reader<'_>,
    domain: &str,
    id: CustomerId,
) -> Result<bool> {
    let params = named_params! { ":domain": domain, ":customer_id": id };
    reader.one(sql!("privacy/is_bound_to_another"), params, |row| {
        row.get(0)
    })
}

/// The audit entries about a customer who was added at `since`, about licenses while they were theirs, and about devices,
/// domains and sessions of these.
pub(super) fn audit_entries(
    reader: &Reader<'_>,
    id: CustomerId,
    since: UnixMs,
) -> Result<Vec<Entry>> {
    let params = named_params! { ":customer_id": id, ":since_ms": since };
    reader.list(sql!("privacy/audit_entries"), params, |row| row.try_into())
}

/// The audit entries about a domain itself while it was the customer's.
pub(super) fn audit_entries_of_domain(
    reader: &Reader<'_>,
    domain: &str,
    id: CustomerId,
) -> Result<Vec<Entry>> {
    let params = named_params! { ":domain": domain, ":customer_id": id };
    reader.list(sql!("privacy/audit_entries_of_domain"), params, |row| {
        row.try_into()
    })
}

/// Deletes the handshakes and refusals of a domain while it was the customer's, and the addresses that completed one.
pub(super) fn forget_domain(tx: &Tx<'_>, domain: &str, id: CustomerId) -> Result<()> {
    let params = named_params! { ":domain": domain, ":customer_id": id };
    tx.run(sql!("privacy/delete_handshakes"), params)?;
    tx.run(sql!("privacy/delete_domain_refusals"), params)?;
    tx.run(sql!("privacy/delete_sources"), params).map(drop)
}

/// Deletes the refused calls that named a license while it was the customer's, and those of devices that used one. To be
/// called while the devices are still known.
pub(super) fn forget_refusals(tx: &Tx<'_>, id: CustomerId) -> Result<()> {
    let params = named_params! { ":customer_id": id };
    tx.run(sql!("privacy/delete_device_refusals"), params)?;
    tx.run(sql!("privacy/delete_refusals"), params).map(drop)
}

/// Removes what names the person from the rows of the customer, the licenses, and their stored responses and history.
/// Returns how many rows of the history were cleared.
pub(super) fn clear(tx: &Tx<'_>, erasure: &Erasure) -> Result<usize> {
    let id = erasure.customer_id;
    let params = named_params! { ":customer_id": id };
    tx.run(sql!("privacy/delete_answers"), params)?;
    tx.run(sql!("privacy/delete_license_handshakes"), params)?;
    tx.run(sql!("privacy/clear_licenses"), params)?;
    tx.run(sql!("privacy/clear_trials"), params)?;
    if erasure.licenses == LicensePolicy::Revoke {
        tx.run(sql!("privacy/clear_domains"), params)?;
    }
    let sessions = tx.run(sql!("privacy/clear_history"), params)?;
    let params = named_params! {
        ":customer_id": id, ":name": format!("erased customer {id}"), ":erased_at_ms": erasure.erased_at,
    };
    tx.run(sql!("privacy/clear_customer"), params)?;
    Ok(sessions)
}

/// Whether this customer is in the database, and not erased there, or not again.
pub(super) fn must_be_erased(reader: &Reader<'_>, erasure: &Erasure) -> Result<bool> {
    let params = named_params! {
        ":customer_id": erasure.customer_id,
        ":created_at_ms": erasure.created_at,
        ":again_at_ms": erasure.again_at,
    };
    reader.one(sql!("privacy/must_be_erased"), params, |row| row.get(0))
}

/// Whether a customer was erased at or after this moment.
pub(super) fn was_erased_since(reader: &Reader<'_>, at: UnixMs) -> Result<bool> {
    let params = named_params! { ":at_ms": at };
    reader.one(sql!("privacy/was_erased_since"), params, |row| row.get(0))
}

pub(super) fn insert_erasure(tx: &Tx<'_>, erasure: &Erasure) -> Result<()> {
    let params = named_params! {
        ":customer_id": erasure.customer_id,
        ":created_at_ms": erasure.created_at,
        ":erased_at_ms": erasure.erased_at,
        ":again_at_ms": erasure.again_at,
        ":licenses": erasure.licenses.as_str(),
    };
    tx.run(sql!("privacy/insert_erasure"), params).map(drop)
}

/// Every erasure, by customer.
pub(super) fn erasures(reader: &Reader<'_>) -> Result<Vec<Erasure>> {
    reader.list(sql!("privacy/erasures"), [], |row| {
        let licenses = LicensePolicy::parse(row.get_ref("licenses")?.as_str()?);
        Ok(Erasure {
            customer_id: row.get("customer_id")?,
            created_at: row.get("created_at_ms")?,
            erased_at: row.get("erased_at_ms")?,
            again_at: row.get("again_at_ms")?,
            licenses: licenses.ok_or_else(|| unknown_value("license policy"))?,
        })
    })
}

/// Devices that were last seen before `before` and have no session, at most `limit`.
pub(super) fn unseen_devices(
    reader: &Reader<'_>,
    before: UnixMs,
    limit: u32,
) -> Result<Vec<DeviceId>> {
    let params = named_params! { ":before_ms": before, ":limit": limit };
    reader.list(sql!("privacy/unseen_devices"), params, |row| row.get(0))
}

/// The row of the customer.
pub(super) fn customer_row(reader: &Reader<'_>, id: CustomerId) -> Result<Value> {
    let params = named_params! { ":customer_id": id };
    reader.one(sql!("privacy/export_customer"), params, object)
}

/// The licenses of the customer, with their ids.
pub(super) fn license_rows(
    reader: &Reader<'_>,
    id: CustomerId,
) -> Result<Vec<(LicenseId, Map<String, Value>)>> {
    let params = named_params! { ":customer_id": id };
    reader.list(sql!("privacy/export_licenses"), params, |row| {
        Ok((row.get("license_id")?, members(row)?))
    })
}

/// The licenses that the customer gave away, with their ids.
pub(super) fn former_license_rows(
    reader: &Reader<'_>,
    id: CustomerId,
) -> Result<Vec<(LicenseId, Map<String, Value>)>> {
    let params = named_params! { ":customer_id": id };
    reader.list(sql!("privacy/export_former"), params, |row| {
        Ok((row.get("license_id")?, members(row)?))
    })
}

pub(super) fn device_rows(reader: &Reader<'_>, id: LicenseId) -> Result<Vec<Value>> {
    let params = named_params! { ":license_id": id };
    reader.list(sql!("privacy/export_devices"), params, object)
}

pub(super) fn running_session_rows(reader: &Reader<'_>, id: LicenseId) -> Result<Vec<Value>> {
    let params = named_params! { ":license_id": id };
    reader.list(sql!("privacy/export_sessions"), params, object)
}

/// The sessions that ended on a license while it was the customer's.
pub(super) fn ended_session_rows(
    reader: &Reader<'_>,
    id: LicenseId,
    owner: CustomerId,
) -> Result<Vec<Value>> {
    let params = named_params! { ":license_id": id, ":customer_id": owner };
    reader.list(sql!("privacy/export_history"), params, object)
}

pub(super) fn stored_response_rows(reader: &Reader<'_>, id: LicenseId) -> Result<Vec<Value>> {
    let params = named_params! { ":license_id": id };
    reader.list(sql!("privacy/export_answers"), params, object)
}

/// The handshakes that named a license while it was the customer's.
pub(super) fn license_handshake_rows(
    reader: &Reader<'_>,
    id: LicenseId,
    owner: CustomerId,
) -> Result<Vec<Value>> {
    let params = named_params! { ":license_id": id, ":customer_id": owner };
    reader.list(sql!("privacy/export_license_handshakes"), params, object)
}

/// The refused calls that named a license while it was the customer's.
pub(super) fn refusal_rows(
    reader: &Reader<'_>,
    id: LicenseId,
    owner: CustomerId,
) -> Result<Vec<Value>> {
    let params = named_params! { ":license_id": id, ":customer_id": owner };
    reader.list(sql!("privacy/export_refusals"), params, object)
}

/// The refused calls without a known license of devices that used a license of the customer.
pub(super) fn device_refusal_rows(reader: &Reader<'_>, owner: CustomerId) -> Result<Vec<Value>> {
    let params = named_params! { ":customer_id": owner };
    reader.list(sql!("privacy/export_device_refusals"), params, object)
}

/// The refused handshakes for a domain, without a known license, while it was the customer's.
pub(super) fn domain_refusal_rows(
    reader: &Reader<'_>,
    domain: &str,
    owner: CustomerId,
) -> Result<Vec<Value>> {
    let params = named_params! { ":domain": domain, ":customer_id": owner };
    reader.list(sql!("privacy/export_domain_refusals"), params, object)
}

pub(super) fn handshake_rows(
    reader: &Reader<'_>,
    domain: &str,
    owner: CustomerId,
) -> Result<Vec<Value>> {
    let params = named_params! { ":domain": domain, ":customer_id": owner };
    reader.list(sql!("privacy/export_handshakes"), params, object)
}

pub(super) fn source_rows(
    reader: &Reader<'_>,
    domain: &str,
    owner: CustomerId,
) -> Result<Vec<Value>> {
    let params = named_params! { ":domain": domain, ":customer_id": owner };
    reader.list(sql!("privacy/export_sources"), params, object)
}

/// A row as JSON, by its columns.
fn object(row: &Row<'_>) -> rusqlite::Result<Value> {
    members(row).map(Value::Object)
}

fn members(row: &Row<'_>) -> rusqlite::Result<Map<String, Value>> {
    let columns = row.as_ref().column_names();
    let mut members = Map::new();
    for (at, column) in columns.into_iter().enumerate() {
        let (name, value) = member(column, row.get_ref(at)?)?;
        members.insert(name.to_owned(), value);
    }
    Ok(members)
}

/// A moment as RFC 3339, a key in its groups, a list of words as a list; all else as it is.
fn member<'c>(column: &'c str, value: ValueRef<'_>) -> rusqlite::Result<(&'c str, Value)> {
    let moment = column.strip_suffix("_ms");
    Ok(match (moment, value) {
        (_, ValueRef::Null) => (moment.unwrap_or(column), Value::Null),
        (Some(name), ValueRef::Integer(at)) => (name, UnixMs(at).rfc3339().into()),
        (None, ValueRef::Integer(number)) => (column, number.into()),
        (_, text) => {
            let text = text.as_str()?;
            let value: Value = match column {
                "license_key" => LicenseKey::from_stored(text)
                    .ok_or_else(|| unknown_value("license key"))?
                    .formatted()
                    .into(),
                "features" => text.split_whitespace().map(Value::from).collect(),
                _ => Value::from(text),
            };
            (column, value)
        }
    })
}
