//! All that the database holds of a customer, in one document.

use serde_json::{Map, Value, json};

use super::erase::{own_domains, words_about};
use super::store;
use crate::audit::{Act, Actor, Change, Entry};
use crate::clock::UnixMs;
use crate::customers;
use crate::db::{Db, Reader};
use crate::error::Result;
use crate::id::CustomerId;
use crate::saved_filters;

/// A document about a person.
#[derive(Clone, Debug)]
pub struct PersonalData {
    /// The customer.
    pub customer_id: CustomerId,
    /// The document.
    pub document: Value,
}

/// All that the database holds of a customer: the customer, licenses with devices, sessions, stored responses and refused
/// calls, sessions on licenses that are another customer's now, the websites, filters that administrators saved, and the
/// audit log. Tokens, which are secrets of programs, are left out. The export is noted in the audit log, since it takes the data out of the database.
///
/// # Errors
/// [`Error::NotFound`](crate::error::Error::NotFound) if the id is unknown.
pub fn export(db: &Db, actor: &Actor, id: CustomerId, now: UnixMs) -> Result<PersonalData> {
    let data = db.read_blocking(|reader| collect(reader, id, now))?;
    let actor = actor.clone();
    db.write_blocking("privacy.export", move |tx| {
        Act::new(tx, &actor, now).note(&Change {
            action: "customers.export",
            subject: &id.to_string(),
            before: Value::Null,
            after: Value::Null,
        })
    })?;
    Ok(data)
}

/// The document; the addresses of administrators are left out.
fn collect(reader: &Reader<'_>, id: CustomerId, now: UnixMs) -> Result<PersonalData> {
    let customer = customers::get(reader, id)?;
    let mut entries = store::audit_entries(reader, id, customer.created_at)?;
    let mut websites = Vec::new();
    let mut words = words_about(reader, &customer)?;
    for domain in own_domains(reader, id, &entries)? {
        entries.extend(store::audit_entries_of_domain(reader, &domain, id)?);
        websites.push(json!({
            "domain": domain,
            "handshakes": store::handshake_rows(reader, &domain, id)?,
            "addresses": store::source_rows(reader, &domain, id)?,
            "refusals": store::domain_refusal_rows(reader, &domain, id)?,
        }));
        words.push(domain);
    }
    entries.sort_by_key(|entry| entry.id);
    entries.dedup_by_key(|entry| entry.id);
    let filters = saved_filters::about(reader, &words, &id.to_string())?;
    let filters = filters
        .iter()
        .map(|filter| json!({ "list": filter.list, "name": filter.name, "query": filter.query }));
    let document = json!({
        "exported_at": now.rfc3339(),
        "customer": store::customer_row(reader, id)?,
        "licenses": licenses(reader, id)?,
        "former_licenses": former_licenses(reader, id)?,
        "websites": websites,
        "refusals_without_license": store::device_refusal_rows(reader, id)?,
        "saved_filters": filters.collect::<Vec<_>>(),
        "audit_log": entries.iter().map(|entry| entry_json(entry, id)).collect::<Vec<_>>(),
    });
    Ok(PersonalData {
        customer_id: id,
        document,
    })
}

/// The licenses, each with its devices, sessions, stored responses and refused calls.
fn licenses(reader: &Reader<'_>, owner: CustomerId) -> Result<Vec<Value>> {
    let licenses = store::license_rows(reader, owner)?.into_iter();
    let with_rows = licenses.map(|(id, mut license)| {
        let rows = [
            ("devices", store::device_rows(reader, id)?),
            ("sessions", store::running_session_rows(reader, id)?),
            ("history", store::ended_session_rows(reader, id, owner)?),
            ("stored_responses", store::stored_response_rows(reader, id)?),
            (
                "handshakes",
                store::license_handshake_rows(reader, id, owner)?,
            ),
            ("refusals", store::refusal_rows(reader, id, owner)?),
        ];
        license.extend(rows.map(|(name, rows)| (name.to_owned(), Value::Array(rows))));
        Ok(Value::Object(license))
    });
    with_rows.collect()
}

/// The licenses that the customer gave away, each with the sessions and refused calls until then.
fn former_licenses(reader: &Reader<'_>, owner: CustomerId) -> Result<Vec<Value>> {
    let licenses = store::former_license_rows(reader, owner)?.into_iter();
    let with_history = licenses.map(|(id, mut license)| {
        let rows = store::ended_session_rows(reader, id, owner)?;
        license.insert("history".to_owned(), Value::Array(rows));
        let rows = store::license_handshake_rows(reader, id, owner)?;
        license.insert("handshakes".to_owned(), Value::Array(rows));
        let rows = store::refusal_rows(reader, id, owner)?;
        license.insert("refusals".to_owned(), Value::Array(rows));
        Ok(Value::Object(license))
    });
    with_history.collect()
}

/// An audit entry. The address of an administrator is not the customer's, nor is what a license was with another one.
fn entry_json(entry: &Entry, owner: CustomerId) -> Value {
    let mut members = Map::new();
    let values = |text: &str| {
        let values = serde_json::from_str::<Value>(text).unwrap_or_else(|_| Value::from(text));
        let customer = values.get("customer").and_then(Value::as_i64);
        if customer.is_none_or(|id| id == owner.0) {
            values
        } else {
            Value::Null
        }
    };
    members.extend(
        [
            ("at", entry.at.rfc3339().into()),
            ("action", entry.action.as_str().into()),
            ("actor", entry.actor.as_str().into()),
            ("subject", entry.subject.as_str().into()),
            ("before", values(&entry.before)),
            ("after", values(&entry.after)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let is_site = entry.actor.starts_with(&format!("{} ", Actor::SITE));
    if is_site || entry.actor == Actor::SERVER {
        members.insert("source".to_owned(), entry.source.as_str().into());
    }
    Value::Object(members)
}
