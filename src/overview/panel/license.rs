//! The page of one license.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use crate::app::App;
use crate::audit::{self, Entry};
use crate::clock::UnixMs;
use crate::devices::Device;
use crate::domain::Domain;
use crate::id::LicenseId;
use crate::overview::{self, LicenseDetails};
use crate::panel::Support;
use crate::refusals::RecordedRefusal;
use crate::session_history::{EndedSession, SessionDetails};
use crate::web::html::{HtmlReply, path_with_query};
use crate::{domains, licenses, refusals};

/// How many events the page of a license shows.
const EVENTS_MAX: usize = 30;

/// The page of a license.
#[get("/licenses/<id>")]
async fn license(request: Support<'_>, id: i64, app: &App) -> HtmlReply {
    let now = request.now.wall;
    let details = app
        .db
        .read(move |reader| overview::license_details(reader, LicenseId(id), now))
        .await?;
    let license = &details.row.license;
    let session = details.session.as_ref().map(session_json);
    let devices = details.devices.iter().map(device_json);
    let flags = details.flags.iter().map(|flag| {
        json!({
            "name": flag.name,
            "description": flag.description,
            "on": flag.is_on_for(license.id.0),
        })
    });
    let key = license.key.formatted();
    let number = id.to_string();
    let values = json!({
        "license": licenses::panel::row_with_product(&request, &details.row),
        "state": license.state,
        "product_archived": !details.product_in_use,
        "valid_from": license.valid_from,
        "created_at": license.created_at,
        "site": domains::panel::binding_json(&details.binding, details.last_handshake_at),
        "note": license.note,
        "session": session,
        "devices": devices.collect::<Vec<_>>(),
        "flags": flags.collect::<Vec<_>>(),
        "events": events(&details),
        "integrate": request.address_of("/lizenzserver/integrate/site", license.product),
        "config": request.address_of("/lizenzserver/config", license.product),
        "refusals": details.refusals.iter().map(|row| refusals::panel::refusal_json(&request, row)).collect::<Vec<_>>(),
        "all_refusals": refusals::panel::path_of_license(part_of(&key)),
        "all_handshakes": path_with_query("/lizenzserver/sites/handshakes", &[("domain", details.binding.domain.as_ref().map_or("", Domain::as_str))]),
        "all_sessions": path_with_query("/lizenzserver/sessions/history", &[("license", part_of(&key)), ("span", "all")]),
        "all_changes": path_with_query("/lizenzserver/audit", &[("room", "licenses"), ("subject", &number)]),
    });
    request.page("licenses/one.html.tera", values).await
}

fn session_json(running: &SessionDetails) -> Value {
    json!({
        "id": running.id,
        "machine_id": running.machine_id,
        "hardware_id": running.hardware_id,
        "version": running.version,
        "address": running.address,
        "started_at": running.started_at,
        "last_heartbeat_at": running.last_heartbeat_at,
    })
}

fn device_json(device: &Device) -> Value {
    json!({
        "id": device.id,
        "machine_id": device.machine_id,
        "hardware_id": device.hardware_id,
        "version": device.version,
        "activated_at": device.activated_at,
        "last_seen_at": device.last_seen_at,
    })
}

/// A part of a license key that identifies the license but is no secret: browsers and proxies store addresses.
fn part_of(key: &str) -> &str {
    key.split_once('-').map_or("", |(_, rest)| {
        rest.split_once('-')
            .map_or("", |(_, rest)| rest.get(..11).unwrap_or_default())
    })
}

/// The history of a license, newest event first.
fn events(details: &LicenseDetails) -> Vec<Value> {
    let license = &details.row.license;
    let mut events: Vec<(UnixMs, Value)> = vec![(license.created_at, json!({ "kind": "issued" }))];
    events.extend(details.devices.iter().map(|device| {
        let event = json!({ "kind": "activated", "device": device.machine_id });
        (device.activated_at, event)
    }));
    events.extend(details.session.iter().map(|running| {
        let event = json!({
            "kind": "started", "device": running.machine_id, "version": running.version,
        });
        (running.started_at, event)
    }));
    events.extend(details.history.iter().map(ended_event));
    events.extend(details.refusals.iter().map(refused_event));
    // The event "issued" comes from `created_at`: an audit entry about several licenses is not found by their ids.
    let entries = details.entries.iter();
    let entries = entries.filter(|entry| entry.action != "licenses.issue");
    events.extend(entries.map(audited_event));
    events.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    events.truncate(EVENTS_MAX);
    let dated = events.into_iter().map(|(at, mut event)| {
        if let Some(event) = event.as_object_mut() {
            event.insert("at".to_owned(), json!(at));
        }
        event
    });
    dated.collect()
}

fn ended_event(ended: &EndedSession) -> (UnixMs, Value) {
    let event = json!({
        "kind": "ended",
        "reason": ended.reason,
        "sessions": ended.session_count,
        "device": ended.session.machine_id,
        "version": ended.session.version,
        "started_at": ended.session.started_at,
    });
    (ended.ended_at, event)
}

fn refused_event(refused: &RecordedRefusal) -> (UnixMs, Value) {
    let event = json!({
        "kind": "refused",
        "code": refused.code,
        "calls": refused.calls,
        "device": refused.machine_id,
        "version": refused.version,
        "domain": refused.domain,
    });
    (refused.at, event)
}

fn audited_event(entry: &Entry) -> (UnixMs, Value) {
    let event = json!({
        "kind": "action",
        "word": entry.action.replace('.', "_"),
        "actor": audit::escape_invisible(&entry.actor),
        "changes": audit::changed_fields(&entry.before, &entry.after),
    });
    (entry.at, event)
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![license]
}
