//! Command line: `license-server license show`.

use serde_json::{Value, json};

use super::{HISTORY_MAX, LicenseReport};
use crate::clock::UnixMs;
use crate::console::{Console, Extent, Table};
use crate::devices::Device;
use crate::domain::Domain;
use crate::error::Result;
use crate::licenses::License;
use crate::products::Slugs;
use crate::session_history::{EndedSession, SessionDetails};
use crate::{domains, licenses, refusals, session_history, sessions};

/// Prints a license with its domain, devices, running session, latest ended sessions and latest refused calls.
///
/// # Errors
/// If the key is unknown.
pub fn show(console: &Console, key: &str) -> Result<()> {
    let cutoff = sessions::cli::StoredLiveness::load(console)?.cutoff;
    let now = console.now().wall;
    let (mut details, slugs) = console.db.read_blocking(|reader| {
        let details = super::license_report(reader, key, cutoff, now)?;
        Ok((details, Slugs::read(reader)?))
    })?;
    let extent = Extent::truncate(&mut details.history, HISTORY_MAX);
    let mut document = to_json(&details, &slugs);
    let mut rows = facts(&details);
    if extent != Extent::Complete {
        let key = details.license.key.formatted();
        let rest = format!("more: license-server session history --license {key} --hours 8760");
        rows.push(fact("ended", rest));
        if let Some(members) = document.as_object_mut() {
            members.insert("history_truncated".to_owned(), true.into());
        }
    }
    if slugs.are_several() {
        let slug = slugs.of(details.license.product).to_owned();
        rows.insert(1, fact("product", slug));
    }
    let table = Table::new(&["fact", "value"]).with(rows);
    console.show(&document, &table)
}

fn to_json(details: &LicenseReport, slugs: &Slugs) -> Value {
    let LicenseReport {
        license,
        binding,
        devices,
        session,
        history,
        refusals: refused,
    } = details;
    let mut document = licenses::cli::to_json(license, slugs);
    if let Some(map) = document.as_object_mut() {
        // That of the binding: the license itself may name the domain before a transfer that is over.
        map.insert(
            "domain".to_owned(),
            json!(binding.domain.as_ref().map(Domain::as_str)),
        );
        map.insert("transfer".to_owned(), domains::cli::transfer_json(binding));
        map.insert("devices".to_owned(), devices.iter().map(device).collect());
        map.insert(
            "session".to_owned(),
            session.as_ref().map_or(Value::Null, |session| {
                session_history::cli::to_json(session, slugs)
            }),
        );
        map.insert(
            "history".to_owned(),
            history
                .iter()
                .map(|ended| session_history::cli::ended_to_json(ended, slugs))
                .collect(),
        );
        let refused = refused.iter();
        let refused = refused.map(|row| refusals::cli::to_json(row, slugs));
        map.insert("refusals".to_owned(), refused.collect());
    }
    document
}

fn facts(details: &LicenseReport) -> Vec<Vec<String>> {
    let mut rows = license_facts(details);
    rows.extend(details.devices.iter().flat_map(device_facts));
    rows.push(session_fact(details.session.as_ref()));
    rows.extend(details.history.iter().map(ended_fact));
    let refused = details.refusals.iter();
    rows.extend(refused.map(|row| fact("refused", refusals::cli::line(row))));
    rows
}

fn fact(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}

fn license_facts(details: &LicenseReport) -> Vec<Vec<String>> {
    let LicenseReport {
        license,
        binding,
        devices,
        ..
    } = details;
    let mut rows = vec![
        fact("license key", license.key.formatted()),
        fact(
            "customer",
            license.customer_id.map_or_else(
                || licenses::cli::customer_cell(""),
                |id| format!("{} ({id})", license.customer),
            ),
        ),
        fact("kind", license.kind.as_str().to_owned()),
        fact("state", license.state.as_str().to_owned()),
        fact("valid", licenses::cli::validity(license)),
        fact("domain", domains::cli::describe(binding)),
        fact("note", license.note.clone()),
        fact(
            "device slots",
            format!("{} of {} in use", devices.len(), license.device_limit),
        ),
    ];
    rows.extend(sold_facts(license));
    rows
}

/// What was sold by a plan; none for a license without plan, features and an end of updates.
fn sold_facts(license: &License) -> Vec<Vec<String>> {
    let features = Some(license.features.stored()).filter(|words| !words.is_empty());
    let updates = license.updates_until.map(UnixMs::rfc3339);
    let facts = [
        ("plan", license.plan.clone()),
        ("features", features),
        ("updates until", updates),
    ];
    facts
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| fact(name, value)))
        .collect()
}

/// Two rows: one of its own for the fingerprint, so that a terminal shows all of it and it can be copied.
fn device_facts(device: &Device) -> [Vec<String>; 2] {
    let seen = device.last_seen_at.rfc3339();
    [
        fact("device", format!("{}, last seen {seen}", device.machine_id)),
        fact("fingerprint", device.hardware_id.clone()),
    ]
}

fn session_fact(session: Option<&SessionDetails>) -> Vec<String> {
    let Some(session) = session else {
        return fact("session", "none".to_owned());
    };
    let last_heartbeat = session.last_heartbeat_at.rfc3339();
    fact(
        "session",
        format!(
            "{} on {}, last heartbeat {last_heartbeat}",
            session.id, session.machine_id
        ),
    )
}

fn ended_fact(ended: &EndedSession) -> Vec<String> {
    let (id, at) = (ended.session.id, ended.ended_at.rfc3339());
    fact(
        "ended",
        format!(
            "{id} on {}, {at}, {}",
            ended.session.machine_id,
            ended.reason.as_str()
        ),
    )
}

fn device(device: &Device) -> Value {
    json!({
        "hardware_id": device.hardware_id,
        "machine_id": device.machine_id,
        "version": device.version,
        "activated_at": device.activated_at.rfc3339(),
        "last_seen_at": device.last_seen_at.rfc3339(),
    })
}
