//! Jobs that write what is counted in memory, end what has timed out, and delete what is old.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Interval, sleep, timeout};

use super::{log_failure, time};

use crate::app::App;
use crate::clock::UnixMs;
use crate::error::Doing;
use crate::figures;
use crate::logging::counted;
use crate::logins;
use crate::memory;
use crate::privacy::{self, Retention};
use crate::refusals;
use crate::session_history::{self, Foldable};
use crate::sessions;

const DAY: Duration = Duration::from_hours(24);
/// Wait after a change by another process, so that many changes at once cause one sweep.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How long to wait until all threads that serve requests have been visited, and how long between two looks.
const VISIT_MAX: Duration = Duration::from_millis(50);
const VISIT_TURN: Duration = Duration::from_millis(1);
/// How far the next fold of the history reaches back before the end of the last one.
const FOLD_OVERLAP: Duration = Duration::from_mins(10);

pub(super) async fn write_heartbeats(app: &App) {
    // `db` has logged that writes fail; the heartbeats are written at the next tick.
    if let Err(error) = sessions::flush_heartbeats(&app.db, &app.live_sessions).await {
        log::debug!("could not write heartbeats: {error}");
    }
}

pub(super) async fn write_devices_seen(app: &App) {
    if let Err(error) = sessions::flush_devices_seen(&app.db, &app.live_sessions).await {
        log::debug!("could not write when devices were last seen: {error}");
    }
}

pub(super) async fn write_refusals(app: &App) {
    let now = app.clock.now().wall;
    // As above; the counts and calls are written at the next tick.
    if let Err(error) = refusals::flush(&app.db, &app.refusals, &app.refusal_queue, now).await {
        log::debug!("could not write refusals: {error}");
    }
}

/// Gives back what connections that ended took, and large pages.
pub(super) async fn give_memory_back() {
    on_each_worker(memory::give_back_of_thread).await;
    let given_back = spawn_blocking(memory::give_back).await;
    log_failure("give memory back", given_back.doing("wait for memory"));
}

/// Calls `act` once on each thread that serves requests; leaves out those that are busy for [`VISIT_MAX`].
async fn on_each_worker(act: fn()) {
    let workers = Handle::current().metrics().num_workers();
    let visited = Arc::new(Visited::default());
    let mut visits = JoinSet::new();
    // More tasks than threads, so that sleeping ones are woken to take some.
    for _ in 0..2 * workers {
        let visited = visited.clone();
        visits.spawn(async move {
            while visited.count() < workers {
                if visited.visit() {
                    act();
                }
                sleep(VISIT_TURN).await;
            }
        });
    }
    let all = async { while visits.join_next().await.is_some() {} };
    if timeout(VISIT_MAX, all).await.is_err() {
        log::debug!("{} of {workers} threads gave memory back", visited.count());
    }
}

/// Threads that have been visited.
#[derive(Default)]
struct Visited(Mutex<HashSet<ThreadId>>);

impl Visited {
    /// Visits the calling thread; false if it was visited before.
    fn visit(&self) -> bool {
        self.lock().insert(thread::current().id())
    }

    fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ThreadId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn sweep_handshakes(app: &App) {
    log_failure("sweep handshakes", app.handshakes.sweep().await);
}

/// Ends sessions, and folds the history of licenses with very many of them.
pub(super) async fn sweep_and_fold(app: &App, mut ticks: Interval) {
    let history_per_day = app.settings.sessions.history_per_day;
    // One day further back, for what ended before this start.
    let day_ago = app.clock.now().wall.minus(DAY);
    let mut folded_until = day_ago.minus(session_history::TOKEN_RETENTION);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // A license may have been suspended: its session must end within a second.
            () = app.db.generation_changed() => sleep(DEBOUNCE).await,
        }
        sweep(app).await;
        if history_per_day > 0 {
            folded_until = fold(app, history_per_day, folded_until).await;
        }
    }
}

async fn sweep(app: &App) {
    let now = app.clock.now();
    match sessions::sweep(&app.db, &app.live_sessions, now).await {
        Ok(0) => {}
        Ok(ended) => {
            let sessions = counted(ended, "session", "sessions");
            log::info!("the sweep ended {sessions}");
        }
        Err(error) => log_failure("sweep", Err(error)),
    }
    time::record_date(app, now.wall).await;
}

/// Folds the history of sessions that ended since `since`, keeping `kept` per license and day. Returns the time from
/// which the next fold starts.
async fn fold(app: &App, kept: u32, since: UnixMs) -> UnixMs {
    let until = app.clock.now().wall.minus(session_history::TOKEN_RETENTION);
    match session_history::fold(&app.db, Foldable { kept, since, until }).await {
        Ok(0) => {}
        Ok(folded) => {
            let rows = counted(folded, "row", "rows");
            log::info!("folded {rows} of the history of licenses with very many sessions");
        }
        Err(error) => {
            log::warn!("could not fold the history, will try again: {error}");
            return since;
        }
    }
    // The sweep detects a timeout later than it happens, so rows may still appear before `until`.
    until.minus(FOLD_OVERLAP)
}

/// Removes old history, what the settings keep for a time only, and expired logins.
pub(super) async fn purge(app: &App, mut ticks: Interval) {
    // Skip the immediate tick: a date that is wrong at the start must not delete history.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        purge_history(app).await;
        purge_refusals(app).await;
        delete_expired(app).await;
        purge_logins(app).await;
        let now = app.clock.now().wall;
        log_failure("delete old counts", figures::purge(&app.db, now).await);
    }
}

async fn purge_history(app: &App) {
    let retention = DAY * app.settings.sessions.history_days;
    match session_history::purge(&app.db, retention, app.clock.now()).await {
        Ok(0) => {}
        Ok(removed) => {
            let rows = counted(removed, "old row", "old rows");
            log::info!("removed {rows} from the history");
        }
        Err(error) => log_failure("purge the history", Err(error)),
    }
}

async fn purge_refusals(app: &App) {
    let retention = DAY * app.settings.privacy.refusal_days;
    match refusals::purge(&app.db, retention, app.clock.now().wall).await {
        Ok(0) => {}
        Ok(removed) => {
            let rows = counted(removed, "old row", "old rows");
            log::info!("removed {rows} about refused calls");
        }
        Err(error) => log_failure("remove old refusals", Err(error)),
    }
}

async fn delete_expired(app: &App) {
    let settings = &app.settings.privacy;
    let span = |days: u32| (days > 0).then(|| DAY * days);
    let retention = Retention {
        audit: span(settings.audit_days),
        unseen_devices: span(settings.unseen_device_days),
        zone: app.settings.panel.time_zone.clone(),
    };
    match privacy::delete_expired(&app.db, &retention, app.clock.now().wall).await {
        Ok(deleted) => {
            if deleted.devices > 0 {
                let devices = counted(deleted.devices, "device", "devices");
                log::info!("released {devices} not seen for a long time");
            }
            if deleted.audit_entries > 0 {
                let entries = counted(deleted.audit_entries, "old entry", "old entries");
                log::info!("erased {entries} of the audit log");
            }
        }
        Err(error) => log_failure("delete what is no longer kept", Err(error)),
    }
}

async fn purge_logins(app: &App) {
    let (lifetime, now) = (app.login_lifetime(), app.clock.now().wall);
    let purge = app
        .db
        .write("logins.purge", move |tx| logins::purge(tx, lifetime, now));
    match purge.await {
        Ok(0) => {}
        Ok(removed) => log::info!(
            "removed {}",
            counted(removed, "expired login", "expired logins")
        ),
        Err(error) => log_failure("remove expired logins", Err(error)),
    }
}
