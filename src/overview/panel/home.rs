//! The start page of the panel.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use crate::admins::Role;
use crate::app::App;
use crate::backups::{self, BackupAge, BackupDir};
use crate::clock::UnixMs;
use crate::config::{Config, TlsMode};
use crate::db::Db;
use crate::error::{Doing, Error, Result};
use crate::figures::{Bins, FiguresQuery, Period};
use crate::overview::{self, Dashboard, HostFacts, InMemory, Notice, RunningServer};
use crate::panel::Support;
use crate::refusals::panel::path_of_day;
use crate::tls::Certificates;
use crate::web::html::{HtmlReply, path_with_query};

const DAY_MS: i64 = 86_400_000;
/// How many codes of refusals are listed; the others are added up.
const CODES: usize = 4;
/// How many notices are shown at once; the others open below them.
const NOTICES: usize = 4;

/// Whether the settings serve only this machine: a certificate that others do not trust, and no public address.
fn serves_only_this_machine(settings: &Config) -> bool {
    settings.tls.mode == TlsMode::SelfSigned && settings.server.public_url.is_none()
}

/// For how many whole days the certificate could not be renewed; 0 if TLS is off.
fn failing_days(certificates: Option<&Certificates>, now: UnixMs) -> i64 {
    let status = certificates.and_then(Certificates::acme_status);
    let since = status.and_then(|status| status.failing_since);
    since.map_or(0, |since| now.0.saturating_sub(since.0) / DAY_MS)
}

/// What the dashboard reads from the server's memory.
fn in_memory(app: &App) -> InMemory {
    InMemory {
        live: app.live_sessions.clone(),
        refusals: app.refusals.clone(),
    }
}

/// The start page of the panel.
#[get("/?<days>")]
async fn home(request: Support<'_>, days: Option<u32>, app: &App) -> HtmlReply {
    let now = request.now;
    let query = FiguresQuery {
        product: request.chosen(),
        period: Period::of_days(days),
        zone: request.shop_zone().clone(),
    };
    let (bins, period) = (query.bins(now.wall), query.period);
    let (backup_overdue, backup_folder_away) = if request.may(Role::Owner) {
        backup_status(&app.backup_dir, &app.db, now.wall).await?
    } else {
        (false, false)
    };
    let host = HostFacts {
        damaged: app.db.damage().is_some(),
        backup_overdue,
        backup_folder_away,
        drift_ms: app.clock.drift_ms(),
        only_here: serves_only_this_machine(&app.settings),
        certificate_days: failing_days(app.certificates.as_deref(), app.clock.system_date()),
    };
    let server = RunningServer {
        memory: in_memory(app),
        host,
    };
    let mut dashboard = app
        .db
        .read(move |reader| overview::dashboard(reader, &server, &query, now))
        .await?;
    if !request.may(Role::Owner) {
        dashboard.notices.retain(|notice| !notice.for_owners);
    }
    let values = home_values(&dashboard, (&bins, period), &request.today());
    request.page("overview/home.html.tera", values).await
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

fn home_values(dashboard: &Dashboard, (bins, period): (&Bins, Period), today: &str) -> Value {
    let notices = dashboard.notices.iter();
    let notices: Vec<_> = notices
        .map(|notice| {
            json!({
                "tone": notice.tone,
                "name": notice.name,
                "n": notice.n,
                "product": notice.product.as_ref().map(|product| &product.name),
                "link": link_of(notice, today),
            })
        })
        .collect();
    let total: u32 = dashboard.refused.iter().map(|(_, count)| *count).sum();
    let named = dashboard.refused.iter().take(CODES);
    let rest: u32 = dashboard.refused.iter().skip(CODES).map(|(_, n)| *n).sum();
    let chart = super::figures::concurrency(bins, period, &dashboard.concurrency);
    json!({
        "live": dashboard.live,
        "licenses": dashboard.licenses,
        "refused": total,
        "refusals": named.map(|(code, count)| refused_json(code, *count, today)).collect::<Vec<_>>(),
        "rest": rest,
        "all_refusals": path_of_day("", today),
        "notices": notices,
        "notices_first": NOTICES,
        "days": period.days(),
        "reaches": Period::ALL.map(Period::days),
        "chart": chart,
    })
}

fn refused_json(code: &str, count: u32, today: &str) -> Value {
    json!({ "code": code, "count": count, "link": path_of_day(code, today) })
}

/// The code of the refusals that a notice counts; `None` if it is about something else.
fn code_of(notice: &Notice) -> Option<&'static str> {
    Some(match notice.name {
        "api_key" => "invalid_api_key",
        "expired" => "license_expired",
        "suspended" => "license_suspended",
        "too_old" => "version_too_old",
        "not_covered" => "version_not_covered",
        "no_slot" => "device_limit_reached",
        _ => return None,
    })
}

/// The page with what a notice counts, or on which its reason can be removed.
fn link_of(notice: &Notice, today: &str) -> String {
    if let Some(code) = code_of(notice) {
        return path_of_day(code, today);
    }
    let page = match notice.name {
        "damage" | "backup_folder" | "backup" => "/lizenzserver/backups",
        "minimum" | "unreviewed" => "/lizenzserver/config",
        "logins" => "/lizenzserver/profile",
        "expiring" => "/lizenzserver/licenses?state=expiring",
        "owners" => "/lizenzserver/admins",
        // The clock, the certificate and the addresses of the server.
        _ => "/lizenzserver/integrate",
    };
    let product = notice.product.as_ref();
    product.map_or_else(
        || page.to_owned(),
        |product| path_with_query(page, &[("product", &product.slug)]),
    )
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![home]
}
