//! The erasure of a customer.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::store;
use super::{Erasure, LicensePolicy};
use crate::activations;
use crate::audit::{self, Act, Actor, Change, Entry};
use crate::customers::{self, Customer};
use crate::db::{Reader, Tx};
use crate::error::{Error, Result};
use crate::id::{CustomerId, LicenseId};
use crate::licenses;
use crate::live_sessions::LiveNow;
use crate::saved_filters;
use crate::text;

/// Members of audit entries that hold domains of a license.
const DOMAIN_MEMBERS: &[&str] = &["domain", "moves_to"];

/// A request to erase a customer.
#[derive(Clone, Debug)]
pub struct ErasureRequest {
    /// The customer.
    pub customer_id: CustomerId,
    /// The name as typed to confirm; `None` if a script confirmed in another way.
    pub typed: Option<String>,
    /// What becomes of the licenses.
    pub licenses: LicensePolicy,
}

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Erased {
    /// How many licenses the customer has.
    pub licenses: usize,
    /// How many devices were released.
    pub devices: usize,
    /// How many sessions in the history lost device and address.
    pub sessions: usize,
    /// How many entries of the audit log were erased.
    pub audit_entries: usize,
}

/// Erases a customer for ever: name, email, company and notes, and the devices, addresses and domains of their licenses,
/// from every table. Ids, keys, dates and what was sold stay. An erased customer can be erased again, since licenses that were
/// kept collect data.
///
/// # Errors
/// [`Error::NotFound`], and [`Error::Invalid`] if what was typed is not the customer's name.
pub fn erase(act: &Act<'_>, live: LiveNow<'_>, request: &ErasureRequest) -> Result<Erased> {
    let customer = customers::get(act.tx, request.customer_id)?;
    if let Some(typed) = &request.typed
        && text::clean_input(typed) != text::clean_input(&customer.name)
    {
        return Err(Error::invalid(
            "typed",
            "is not the name of the customer; see `license-server customer list`",
        ));
    }
    let erasure = Erasure {
        customer_id: customer.id,
        created_at: customer.created_at,
        erased_at: customer.erased_at.unwrap_or(act.now),
        again_at: customer.erased_at.map(|_| act.now),
        licenses: request.licenses,
    };
    erase_person(act, live, &erasure)
}

/// Erases a customer to whom nothing was sold, who is in no list then. The id is not given to another customer.
///
/// # Errors
/// As [`customers::removable`].
pub fn remove(act: &Act<'_>, live: LiveNow<'_>, id: CustomerId) -> Result<Erased> {
    let customer = customers::removable(act.tx, id)?;
    let erasure = Erasure {
        customer_id: id,
        created_at: customer.created_at,
        erased_at: act.now,
        again_at: None,
        licenses: LicensePolicy::Revoke,
    };
    erase_person(act, live, &erasure)
}

/// Erases the customer of `erasure`, who exists.
pub(super) fn erase_person(act: &Act<'_>, live: LiveNow<'_>, erasure: &Erasure) -> Result<Erased> {
    let tx = act.tx;
    // Before the devices are released, whose names are among the words.
    let mut words = words_about(tx, &customers::get(tx, erasure.customer_id)?)?;
    let license_ids = store::license_ids(tx, erasure.customer_id)?;
    let device_count = release_devices(act, live, (erasure.customer_id, &license_ids))?;
    let entries = store::audit_entries(tx, erasure.customer_id, erasure.created_at)?;
    let domains = own_domains(tx, erasure.customer_id, &entries)?;
    let mut entry_ids: Vec<i64> = entries.iter().map(|entry| entry.id).collect();
    entry_ids.extend(forget_domains(tx, erasure.customer_id, &domains)?);
    words.extend(domains);
    saved_filters::forget(tx, &words, &erasure.customer_id.to_string())?;
    let audit_entries = audit::erase(tx, &entry_ids, act.now)?;
    let sessions = store::clear(tx, erasure)?;
    if erasure.licenses == LicensePolicy::Revoke {
        for id in &license_ids {
            licenses::revoke(act, *id)?;
        }
    }
    store::insert_erasure(tx, erasure)?;
    let erased = Erased {
        licenses: license_ids.len(),
        devices: device_count,
        sessions,
        audit_entries,
    };
    act.changed(&Change {
        action: "customers.erase",
        subject: &erasure.customer_id.to_string(),
        before: Value::Null,
        after: json!({
            "licenses": erased.licenses,
            "policy": erasure.licenses.as_str(),
            "devices": erased.devices,
            "sessions": erased.sessions,
            "audit_entries": erased.audit_entries,
        }),
    })?;
    Ok(erased)
}

/// What a saved filter about the customer contains, besides the websites: name, mail address, company, and the devices.
pub(super) fn words_about(reader: &Reader<'_>, customer: &Customer) -> Result<Vec<String>> {
    let Customer {
        name,
        email,
        company,
        ..
    } = customer;
    let mut words = [name, email, company].map(String::clone).to_vec();
    for license in store::license_ids(reader, customer.id)? {
        for device in store::device_rows(reader, license)? {
            let names = ["machine_id", "hardware_id"].map(|name| device.get(name).cloned());
            let names = names.into_iter().flatten();
            words.extend(names.filter_map(|name| name.as_str().map(str::to_owned)));
        }
    }
    Ok(words)
}

/// Deletes what handshakes for these domains left; the audit entries about them.
fn forget_domains(tx: &Tx<'_>, id: CustomerId, domains: &[String]) -> Result<Vec<i64>> {
    let mut entries = Vec::new();
    for domain in domains {
        let about_domain = store::audit_entries_of_domain(tx, domain, id)?;
        entries.extend(about_domain.iter().map(|entry| entry.id));
        store::forget_domain(tx, domain, id)?;
    }
    Ok(entries)
}

/// Ends the sessions of a customer's licenses, and frees their slots. First deletes the refused calls of the customer, of
/// which some are known by these devices only.
fn release_devices(
    act: &Act<'_>,
    live: LiveNow<'_>,
    (customer, ids): (CustomerId, &[LicenseId]),
) -> Result<usize> {
    store::forget_refusals(act.tx, customer)?;
    let mut released = 0;
    for id in ids {
        released += activations::free_all_slots(act.tx, live, *id)?.len();
    }
    Ok(released)
}

/// The domains to which licenses of the customer are or were bound, and none that always was of another customer.
pub(super) fn own_domains(
    reader: &Reader<'_>,
    id: CustomerId,
    entries: &[Entry],
) -> Result<Vec<String>> {
    let mut domains: BTreeSet<String> = store::domains(reader, id)?.into_iter().collect();
    for entry in entries {
        domains.extend(domains_in(entry));
    }
    let mut own = Vec::new();
    for domain in domains {
        if !store::is_bound_to_another(reader, &domain, id)? {
            own.push(domain);
        }
    }
    Ok(own)
}

/// The domains that an audit entry names: in its values, and the site that caused it.
fn domains_in(entry: &Entry) -> Vec<String> {
    let site = entry.actor.strip_prefix(Actor::SITE);
    let site = site.and_then(|rest| rest.strip_prefix(' '));
    let mut found: Vec<String> = site.map(str::to_owned).into_iter().collect();
    for values in [&entry.before, &entry.after] {
        // Values that are no JSON object name no domain.
        let values: Value = serde_json::from_str(values).unwrap_or_default();
        let members = DOMAIN_MEMBERS.iter().filter_map(|name| values.get(name));
        found.extend(members.filter_map(Value::as_str).map(str::to_owned));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domains_of_an_entry_are_those_of_its_site_and_of_its_values() {
        for (actor, before, after, expected) in [
            ("ada", "null", r#"{"domain":null,"note":"x"}"#, vec![]),
            (
                "site a.example",
                r#"{"domain":"b.example","moves_to":"c.example"}"#,
                r#"{"domain":"c.example"}"#,
                vec!["a.example", "b.example", "c.example", "c.example"],
            ),
            ("sites", "torn {", "", vec![]),
        ] {
            let entry = Entry {
                actor: actor.to_owned(),
                before: before.to_owned(),
                after: after.to_owned(),
                ..Entry::default()
            };
            assert_eq!(domains_in(&entry), expected, "{actor}");
        }
    }
}
