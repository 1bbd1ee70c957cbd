//! The door for administrators in a browser: the overview, and the pages about one license and one customer,
//! on which several rooms stand side by side.

use std::sync::Arc;
use std::time::Duration;

use rocket::{Route, State, get, routes};
use serde_json::{Value, json};

use super::{Dashboard, HostFacts, InMemory, LicenseDetails};
use crate::admins::Role;
use crate::admins::panel::Support;
use crate::backups::{self, Age, BackupDir};
use crate::clock::{TrustedClock, UnixMs};
use crate::db::Db;
use crate::domain::Domain;
use crate::error::{Doing, Error, Result};
use crate::id::{CustomerId, LicenseId};
use crate::sessions::{Period, Sample};
use crate::tls::Certificates;
use crate::web::chart::{self, Point};
use crate::web::html::{HtmlReply, address};
use crate::{audit, handshake, licenses};

// ── The overview ─────────────────────────────────────────────────────────────────────────────────────────

const DAY_MS: i64 = 86_400_000;
const HOUR: Duration = Duration::from_hours(1);
/// Codes of refusals that are named; the others are added up.
const CODES: usize = 8;

/// How others find the server.
#[derive(Debug)]
pub struct Exposure {
    /// Whether the settings serve this machine alone: a certificate that nobody else knows, and no address to
    /// reach it at.
    pub only_here: bool,
    /// The certificate in use, unless TLS is off.
    pub certificates: Option<Arc<Certificates>>,
}

impl Exposure {
    /// Whole days for which an authority has given no new certificate, though one was asked for.
    fn certificate_days(&self, now: UnixMs) -> i64 {
        let standing = self.certificates.as_ref().and_then(|it| it.standing());
        let since = standing.and_then(|standing| standing.failing_since);
        since.map_or(0, |since| now.0.saturating_sub(since.0) / DAY_MS)
    }
}

/// The shop at a glance.
#[get("/?<days>")]
async fn home(
    who: Support<'_>,
    days: Option<u32>,
    db: &State<Db>,
    memory: &State<InMemory>,
    shelf: &State<BackupDir>,
    calendar: &State<TrustedClock>,
    outside: &State<Exposure>,
) -> HtmlReply {
    let reach = Period::ALL
        .into_iter()
        .find(|reach| Some(reach.days()) == days);
    let reach = reach.unwrap_or(Period::Day);
    let memory = memory.inner().clone();
    let (backup_overdue, backup_folder_away) = if who.may(Role::Owner) {
        backups_of(shelf, db, who.now.wall).await?
    } else {
        (false, false)
    };
    let machine = HostFacts {
        damaged: db.damage().is_some(),
        backup_overdue,
        backup_folder_away,
        drift_ms: calendar.drift_ms(),
        only_here: outside.only_here,
        certificate_days: outside.certificate_days(calendar.machine()),
    };
    let now = who.now;
    let dashboard = db
        .read(move |reader| super::dashboard(reader, &memory, machine, reach, now))
        .await?;
    who.page(
        "overview/home.html.tera",
        shown(&dashboard, reach, who.may(Role::Owner)),
    )
    .await
}

/// Whether a backup is overdue, and whether their folder is away.
async fn backups_of(shelf: &BackupDir, db: &Db, now: UnixMs) -> Result<(bool, bool)> {
    let (looked, db) = (shelf.clone(), db.clone());
    let look = move || Ok::<_, Error>((looked.list()?, looked.away(Some(&db))?.is_some()));
    let looked = rocket::tokio::task::spawn_blocking(look).await;
    let (list, away) = looked.doing("join a look at the backups")??;
    let newest = list.first().map(|backup| backup.made_at);
    let fresh = backups::age(newest, shelf.every(), now) == Age::Fresh;
    // One cause, one notice.
    Ok((!fresh && !away, away))
}

fn shown(dashboard: &Dashboard, reach: Period, owner: bool) -> Value {
    let notices = dashboard.notices.iter();
    let notices: Vec<_> = notices
        .filter(|notice| owner || !notice.for_owners)
        .collect();
    let total: u32 = dashboard.refused.iter().map(|(_, count)| *count).sum();
    let named = dashboard.refused.iter().take(CODES);
    let rest: u32 = dashboard.refused.iter().skip(CODES).map(|(_, n)| *n).sum();
    let points: Vec<Point> = dashboard.levels.iter().map(point).collect();
    json!({
        "live": dashboard.live,
        "licenses": dashboard.licenses,
        "refused": total,
        "refusals": named.map(|(code, count)| json!({ "code": code, "count": count })).collect::<Vec<_>>(),
        "rest": rest,
        "notices": notices,
        "days": reach.days(),
        "reaches": Period::ALL.map(Period::days),
        "chart": chart::draw(&points, row_ms(reach)),
    })
}

fn point(level: &Sample) -> Point {
    Point {
        at: level.at,
        value: level.running,
    }
}

/// What a row of the chart's table stands for: an hour, six of them, a day.
fn row_ms(reach: Period) -> i64 {
    let span = match reach {
        Period::Day => HOUR,
        Period::Week => HOUR * 6,
        Period::Month => HOUR * 24,
    };
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

// ── One license ──────────────────────────────────────────────────────────────────────────────────────────

/// Events on the page of a license.
const EVENTS_MAX: usize = 30;

/// All about one license.
#[get("/licenses/<id>")]
async fn license(who: Support<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let now = who.now.wall;
    let license_details = db
        .read(move |reader| super::license_details(reader, LicenseId(id), now))
        .await?;
    let license = &license_details.listed.license;
    let session = license_details.session.as_ref().map(|running| {
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
    let devices = license_details.devices.iter().map(|device| {
        json!({
            "id": device.id,
            "machine_id": device.machine_id,
            "hardware_id": device.hardware_id,
            "version": device.version,
            "activated_at": device.activated_at,
            "last_seen_at": device.last_seen_at,
        })
    });
    let flags = license_details.flags.iter().map(|flag| {
        json!({
            "name": flag.name,
            "description": flag.description,
            "on": flag.on_for(license.id.0),
        })
    });
    let key = license.key.shown();
    let number = id.to_string();
    let values = json!({
        "license": licenses::panel::shown(&license_details.listed, now),
        "state": license.state,
        "valid_from": license.valid_from,
        "created_at": license.created_at,
        "site": handshake::panel::binding(&license_details.bond, license_details.proved_at),
        "note": license.note,
        "session": session,
        "devices": devices.collect::<Vec<_>>(),
        "flags": flags.collect::<Vec<_>>(),
        "events": events(&license_details),
        "all_handshakes": address("/lizenzserver/sites/handshakes", &[("domain", license_details.bond.domain.as_ref().map_or("", Domain::as_str))]),
        "all_sessions": address("/lizenzserver/sessions/history", &[("license", part_of(&key)), ("span", "all")]),
        "all_deeds": address("/lizenzserver/audit", &[("room", "licenses"), ("subject", &number)]),
    });
    who.page("licenses/one.html.tera", values).await
}

/// A part of a key that tells licenses apart and opens nothing: addresses are kept by browsers and proxies.
fn part_of(key: &str) -> &str {
    key.split_once('-').map_or("", |(_, rest)| {
        rest.split_once('-')
            .map_or("", |(_, rest)| rest.get(..11).unwrap_or_default())
    })
}

/// What happened to a license, the latest first.
fn events(license_details: &LicenseDetails) -> Vec<Value> {
    let license = &license_details.listed.license;
    let mut events: Vec<(UnixMs, Value)> = vec![(license.created_at, json!({ "kind": "issued" }))];
    events.extend(license_details.devices.iter().map(|device| {
        let event = json!({ "kind": "activated", "device": device.machine_id });
        (device.activated_at, event)
    }));
    events.extend(license_details.session.iter().map(|running| {
        let event = json!({
            "kind": "started", "device": running.machine_id, "version": running.version,
        });
        (running.started_at, event)
    }));
    events.extend(license_details.history.iter().map(|ended| {
        let event = json!({
            "kind": "ended",
            "reason": ended.reason,
            "sessions": ended.sessions,
            "device": ended.session.machine_id,
            "version": ended.session.version,
            "started_at": ended.session.started_at,
        });
        (ended.ended_at, event)
    }));
    // That it was issued is there already, also where it was one of many.
    let deeds = license_details.entries.iter();
    let deeds = deeds.filter(|entry| entry.what != "licenses.issue");
    events.extend(deeds.map(|entry| {
        let event = json!({
            "kind": "deed",
            "word": entry.what.replace('.', "_"),
            "actor": audit::visible(&entry.actor.name),
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
    routes![home, license, customer]
}
