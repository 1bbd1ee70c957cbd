//! The page of one license.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use crate::app::App;
use crate::audit::{self, Entry};
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::devices::Device;
use crate::domain::Domain;
use crate::error::Result;
use crate::id::LicenseId;
use crate::overview::{self, LicenseDetails};
use crate::paging::{Direction, SortPosition, Total};
use crate::panel::Support;
use crate::refusals::RecordedRefusal;
use crate::session_history::{EndedSession, SessionDetails};
use crate::web::html::{HtmlReply, path_with_query};
use crate::web::pager::{ListParams, ListUrl};
use crate::{domains, licenses, refusals, text};

/// The columns by which the devices are sorted, the first one if none is chosen.
const DEVICE_COLUMNS: [&str; 5] = ["activated", "device", "fingerprint", "version", "seen"];
/// How many events the page of a license shows.
const EVENTS_MAX: usize = 30;

/// The devices on the page at `path`, which holds the license, with the heads and the pages of their list.
///
/// # Errors
/// [`crate::error::Error::Invalid`] for a parameter that cannot be parsed.
fn devices_list(path: &str, params: &ListParams<'_>, devices: Vec<Device>) -> Result<Value> {
    let parse = |word: &str| DEVICE_COLUMNS.into_iter().find(|name| *name == word);
    let sorting = params.sorting(parse)?;
    let (column, direction) = sorting.unwrap_or((DEVICE_COLUMNS[0], Direction::Ascending));
    let position = |device: &Device| position(device, column);
    let total = Total::Exactly(u32::try_from(devices.len()).unwrap_or(u32::MAX));
    let page = params.page()?.cut(devices, direction, position);
    let url = ListUrl {
        path,
        params,
        filter: &[],
        default_order: DEVICE_COLUMNS[0],
    };
    Ok(json!({
        "rows": page.rows.iter().map(device_json).collect::<Vec<_>>(),
        "heads": url.heads(&DEVICE_COLUMNS),
        "order": params.order,
        "pager": url.links(&page, total, position)?,
    }))
}

/// The position of a device in a list sorted by `column`.
fn position(device: &Device, column: &str) -> SortPosition {
    let id = device.id.0;
    let value = match column {
        "device" => text::sort_key(&device.machine_id),
        "fingerprint" => text::sort_key(&device.hardware_id),
        "version" => device.version.sort_key(),
        "seen" => return SortPosition::number(device.last_seen_at.0, id),
        _ => return SortPosition::number(device.activated_at.0, id),
    };
    SortPosition { value, id }
}

/// The page of a license.
#[get("/licenses/<id>")]
async fn license(request: Support<'_>, id: i64, params: ListParams<'_>, app: &App) -> HtmlReply {
    let now = request.now.wall;
    let (details, actions) = app
        .db
        .read(move |reader| {
            let details = overview::license_details(reader, LicenseId(id), now)?;
            let actions = audited_events(reader, &details.entries)?;
            Ok((details, actions))
        })
        .await?;
    let license = &details.row.license;
    let devices = devices_list(
        &format!("/lizenzserver/licenses/{id}"),
        &params,
        details.devices.clone(),
    )?;
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
        "session": details.session.as_ref().map(session_json),
        "devices": devices,
        "flags": flags(&details),
        "events": events(&details, actions),
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

fn flags(details: &LicenseDetails) -> Vec<Value> {
    let id = details.row.license.id.0;
    let flags = details.flags.iter().map(|flag| {
        json!({
            "name": flag.name,
            "description": flag.description,
            "on": flag.is_on_for(id),
        })
    });
    flags.collect()
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
fn events(details: &LicenseDetails, actions: Vec<(UnixMs, Value)>) -> Vec<Value> {
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
    events.extend(actions);
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

/// What the audit log says of the license. The event "issued" comes from `created_at`: an entry about several licenses is
/// not found by their ids.
fn audited_events(reader: &Reader<'_>, entries: &[Entry]) -> Result<Vec<(UnixMs, Value)>> {
    let entries = entries.iter();
    let entries = entries.filter(|entry| entry.action != "licenses.issue");
    let events = entries.map(|entry| {
        let event = json!({
            "kind": "action",
            "word": entry.action.replace('.', "_"),
            "actor": audit::escape_invisible(&entry.actor),
            "changes": audit::panel::changes(reader, entry)?,
        });
        Ok((entry.at, event))
    });
    events.collect()
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![license]
}
