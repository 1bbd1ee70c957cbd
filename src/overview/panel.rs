//! The door for administrators in a browser: the overview, and the pages about one license and one customer,
//! on which several rooms stand side by side.

use rocket::{Route, State, get, routes};
use serde_json::{Value, json};

use super::Around;
use crate::admins::panel::Support;
use crate::clock::UnixMs;
use crate::db::Db;
use crate::id::{CustomerId, LicenseId};
use crate::web::html::{HtmlReply, address};
use crate::{audit, licenses};

// ── One license ──────────────────────────────────────────────────────────────────────────────────────────

/// Events on the page of a license.
const EVENTS_MAX: usize = 30;

/// All about one license.
#[get("/licenses/<id>")]
async fn license(who: Support<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let now = who.now.wall;
    let around = db
        .read(move |reader| super::around(reader, LicenseId(id), now))
        .await?;
    let license = &around.listed.license;
    let session = around.session.as_ref().map(|running| {
        json!({
            "id": running.id,
            "machine_id": running.machine_id,
            "hardware_id": running.hardware_id,
            "version": running.version,
            "address": running.address,
            "started_at": running.started_at,
            "last_heartbeat_at": running.last_heartbeat_at,
        })
    });
    let devices = around.devices.iter().map(|device| {
        json!({
            "id": device.id,
            "machine_id": device.machine_id,
            "hardware_id": device.hardware_id,
            "version": device.version,
            "activated_at": device.activated_at,
            "last_seen_at": device.last_seen_at,
        })
    });
    let flags = around.flags.iter().map(|flag| {
        json!({
            "name": flag.name,
            "description": flag.description,
            "on": flag.on_for(license.id.0),
        })
    });
    let key = license.key.shown();
    let number = id.to_string();
    let values = json!({
        "license": licenses::panel::shown(&around.listed, now),
        "state": license.state,
        "valid_from": license.valid_from,
        "created_at": license.created_at,
        "domain": license.domain,
        "note": license.note,
        "session": session,
        "devices": devices.collect::<Vec<_>>(),
        "flags": flags.collect::<Vec<_>>(),
        "events": events(&around),
        "all_sessions": address("/lizenzserver/sessions/history", &[("license", &key), ("span", "all")]),
        "all_deeds": address("/lizenzserver/audit", &[("room", "licenses"), ("subject", &number)]),
    });
    who.page("licenses/one.html.tera", values).await
}

/// What happened to a license, the latest first.
fn events(around: &Around) -> Vec<Value> {
    let license = &around.listed.license;
    let mut events: Vec<(UnixMs, Value)> = vec![(license.created_at, json!({ "kind": "issued" }))];
    events.extend(around.devices.iter().map(|device| {
        let event = json!({ "kind": "activated", "device": device.machine_id });
        (device.activated_at, event)
    }));
    events.extend(around.session.iter().map(|running| {
        let event = json!({
            "kind": "started", "device": running.machine_id, "version": running.version,
        });
        (running.started_at, event)
    }));
    events.extend(around.history.iter().map(|ended| {
        let event = json!({
            "kind": "ended",
            "reason": ended.reason,
            "device": ended.session.machine_id,
            "version": ended.session.version,
            "started_at": ended.session.started_at,
        });
        (ended.ended_at, event)
    }));
    // That it was issued is there already, also where it was one of many.
    let deeds = around.entries.iter();
    let deeds = deeds.filter(|entry| entry.what != "licenses.issue");
    events.extend(deeds.map(|entry| {
        let event = json!({
            "kind": "deed",
            "word": entry.what.replace('.', "_"),
            "actor": entry.actor.name,
            "changes": audit::changes(&entry.before, &entry.after),
        });
        (entry.at, event)
    }));
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

// ── One customer ─────────────────────────────────────────────────────────────────────────────────────────

/// A customer, and what was sold to him.
#[get("/customers/<id>")]
async fn customer(who: Support<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let now = who.now.wall;
    let (customer, rows) = db
        .read(move |reader| super::customer(reader, CustomerId(id), licenses::panel::PAGE, now))
        .await?;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| licenses::panel::shown(row, now))
        .collect();
    let values = json!({ "customer": customer, "created_at": customer.created_at, "rows": rows });
    who.page("customers/one.html.tera", values).await
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![license, customer]
}
