//! Panel pages that combine several modules: the overview, and the pages about one license and one customer.

use std::sync::Arc;
use std::time::Duration;

use rocket::{Route, State, get, routes};
use serde_json::{Value, json};

use super::{Dashboard, HostFacts, InMemory, LicenseDetails, Period, Sample};
use crate::admins::Role;
use crate::audit::{self, Entry};
use crate::backups::{self, BackupAge, BackupDir};
use crate::clock::{TrustedClock, UnixMs};
use crate::db::Db;
use crate::devices::Device;
use crate::domain::Domain;
use crate::error::{Doing, Error, Result};
use crate::id::{CustomerId, LicenseId};
use crate::panel::Support;
use crate::session_history::{EndedSession, SessionDetails};
use crate::tls::Certificates;
use crate::web::chart::{self, Point};
use crate::web::html::{HtmlReply, path_with_query};
use crate::{domains, licenses};

// ── The overview ─────────────────────────────────────────────────────────────────────────────────────────

const DAY_MS: i64 = 86_400_000;
const HOUR: Duration = Duration::from_hours(1);
/// How many codes of refusals are listed; the others are added up.
const CODES: usize = 8;

/// Whether and how programs on other machines can use the server.
#[derive(Debug)]
pub struct Exposure {
    /// Whether the settings serve only this machine: a certificate that others do not trust, and no public address.
    pub only_here: bool,
    /// The certificate in use; `None` if TLS is off.
    pub certificates: Option<Arc<Certificates>>,
}

impl Exposure {
    /// For how many whole days the certificate could not be renewed.
    fn certificate_days(&self, now: UnixMs) -> i64 {
        let status = self.certificates.as_ref().and_then(|it| it.acme_status());
        let since = status.and_then(|status| status.failing_since);
        since.map_or(0, |since| now.0.saturating_sub(since.0) / DAY_MS)
    }
}

/// What the start page shows besides the contents of the database.
pub struct HomeSources {
    /// What the dashboard reads from the server's memory.
    pub memory: InMemory,
    /// Where the backups are.
    pub backup_dir: BackupDir,
    /// Whether and how programs on other machines can use the server.
    pub exposure: Exposure,
}

/// The start page of the panel.
#[get("/?<days>")]
async fn home(
    request: Support<'_>,
    days: Option<u32>,
    db: &State<Db>,
    sources: &State<HomeSources>,
    clock: &State<TrustedClock>,
) -> HtmlReply {
    let period = period_of(days);
    let HomeSources {
        memory,
        backup_dir,
        exposure,
    } = sources.inner();
    let memory = memory.clone();
    let (backup_overdue, backup_folder_away) = if request.may(Role::Owner) {
        backup_status(backup_dir, db, request.now.wall).await?
    } else {
        (false, false)
    };
    let host = HostFacts {
        damaged: db.damage().is_some(),
        backup_overdue,
        backup_folder_away,
        drift_ms: clock.drift_ms(),
        only_here: exposure.only_here,
        certificate_days: exposure.certificate_days(clock.system_date()),
    };
    let now = request.now;
    let dashboard = db
        .read(move |reader| super::dashboard(reader, &memory, host, period, now))
        .await?;
    request
        .page(
            "overview/home.html.tera",
            home_values(&dashboard, period, request.may(Role::Owner)),
        )
        .await
}

/// The period that the query names; a day by default.
fn period_of(days: Option<u32>) -> Period {
    let period = Period::ALL
        .into_iter()
        .find(|period| Some(period.days()) == days);
    period.unwrap_or(Period::Day)
}

/// Whether a backup is overdue, and whether the backup folder is missing.
async fn backup_status(backup_dir: &BackupDir, db: &Db, now: UnixMs) -> Result<(bool, bool)> {
    let (dir, db) = (backup_dir.clone(), db.clone());
    let read = move || Ok::<_, Error>((dir.list()?, dir.folder_fault(Some(&db))?.is_some()));
    let read = rocket::tokio::task::spawn_blocking(read).await;
    let (list, away) = read.doing("join the reading of the backup folder")??;
    let newest = list.first().map(|backup| backup.made_at);
    let fresh = backups::age(newest, backup_dir.every(), now) == BackupAge::Fresh;
    // If the folder is missing, that notice alone is enough.
    Ok((!fresh && !away, away))
}

fn home_values(dashboard: &Dashboard, period: Period, owner: bool) -> Value {
    let notices = dashboard.notices.iter();
    let notices: Vec<_> = notices
        .filter(|notice| owner || !notice.for_owners)
        .map(|notice| {
            json!({
                "tone": notice.tone,
                "name": notice.name,
                "n": notice.n,
                "link": link_of(notice.name),
            })
        })
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
        "days": period.days(),
        "reaches": Period::ALL.map(Period::days),
        "chart": chart::draw(&points, row_ms(period)),
    })
}

/// The page on which the reason for the notice `name` can be removed.
fn link_of(name: &str) -> &'static str {
    match name {
        "damage" | "backup_folder" | "backup" => "/lizenzserver/backups",
        "minimum" | "api_key" | "too_old" | "unreviewed" => "/lizenzserver/config",
        "logins" => "/lizenzserver/profile",
        "expired" => "/lizenzserver/licenses?state=expired",
        "suspended" => "/lizenzserver/licenses?state=stopped",
        "no_slot" => "/lizenzserver/licenses",
        "expiring" => "/lizenzserver/licenses?state=expiring",
        "owners" => "/lizenzserver/admins",
        // The clock, the certificate and the addresses of the server.
        _ => "/lizenzserver/integrate",
    }
}

fn point(level: &Sample) -> Point {
    Point {
        at: level.at,
        value: level.running,
    }
}

/// The time that a row of the chart's table covers, in milliseconds.
fn row_ms(period: Period) -> i64 {
    let span = match period {
        Period::Day => HOUR,
        Period::Week => HOUR * 6,
        Period::Month => HOUR * 24,
    };
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

// ── One license ──────────────────────────────────────────────────────────────────────────────────────────

/// How many events the page of a license shows.
const EVENTS_MAX: usize = 30;

/// The page of a license.
#[get("/licenses/<id>")]
async fn license(request: Support<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let now = request.now.wall;
    let details = db
        .read(move |reader| super::license_details(reader, LicenseId(id), now))
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
        "license": licenses::panel::row_json(&details.row, now),
        "state": license.state,
        "valid_from": license.valid_from,
        "created_at": license.created_at,
        "site": domains::panel::binding(&details.binding, details.last_handshake_at),
        "note": license.note,
        "session": session,
        "devices": devices.collect::<Vec<_>>(),
        "flags": flags.collect::<Vec<_>>(),
        "events": events(&details),
        "all_handshakes": path_with_query("/lizenzserver/sites/handshakes", &[("domain", details.binding.domain.as_ref().map_or("", Domain::as_str))]),
        "all_sessions": path_with_query("/lizenzserver/sessions/history", &[("license", part_of(&key)), ("span", "all")]),
        "all_deeds": path_with_query("/lizenzserver/audit", &[("room", "licenses"), ("subject", &number)]),
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
        "sessions": ended.sessions,
        "device": ended.session.machine_id,
        "version": ended.session.version,
        "started_at": ended.session.started_at,
    });
    (ended.ended_at, event)
}

fn audited_event(entry: &Entry) -> (UnixMs, Value) {
    let event = json!({
        "kind": "deed",
        "word": entry.action.replace('.', "_"),
        "actor": audit::escape_invisible(&entry.actor),
        "changes": audit::changed_fields(&entry.before, &entry.after),
    });
    (entry.at, event)
}

// ── One customer ─────────────────────────────────────────────────────────────────────────────────────────

/// The page of a customer, with their newest licenses.
#[get("/customers/<id>")]
async fn customer(request: Support<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let now = request.now.wall;
    let (customer, rows) = db
        .read(move |reader| super::customer(reader, CustomerId(id), licenses::panel::PAGE, now))
        .await?;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| licenses::panel::row_json(row, now))
        .collect();
    let values = json!({ "customer": customer, "created_at": customer.created_at, "rows": rows });
    request.page("customers/one.html.tera", values).await
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    routes![home, license, customer]
}
