//! Background jobs: one table of what runs when.

mod keys;
mod storage;
mod time;
mod upkeep;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::app::App;
use crate::config::Config;
use crate::error::Error;
use crate::sessions;

/// A background job.
struct Job {
    /// What it does, for the log.
    name: &'static str,
    period: fn(&Config) -> Duration,
    run: Run,
}

type Work<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// How a job uses its period.
#[derive(Clone, Copy)]
enum Run {
    /// The function runs at the start, and then once a period.
    EachTick(for<'a> fn(&'a App) -> Work<'a>),
    /// The function never returns: it keeps a state between ticks, or also waits for something else.
    Loop(for<'a> fn(&'a App, Interval) -> Work<'a>),
}

/// Every job.
const JOBS: &[Job] = &[
    Job {
        name: "write heartbeats",
        // They must be in the database within a second, and writing those of a large shop takes a part of it. Seldom, because
        // rows that share a page are written together.
        period: |_| Duration::from_millis(700),
        run: Run::EachTick(|app| Box::pin(upkeep::write_heartbeats(app))),
    },
    Job {
        name: "write when devices were last seen",
        // To the minute is enough, and the more at once, the more of them share a page. A crash loses at most this much.
        period: |_| Duration::from_secs(5),
        run: Run::EachTick(|app| Box::pin(upkeep::write_devices_seen(app))),
    },
    Job {
        name: "end sessions",
        period: |settings| Duration::from_secs(u64::from(settings.sessions.cleanup_interval)),
        run: Run::Loop(|app, ticks| Box::pin(upkeep::sweep_and_fold(app, ticks))),
    },
    Job {
        name: "write refusals",
        // A crash loses at most this much.
        period: |_| Duration::from_secs(3),
        run: Run::EachTick(|app| Box::pin(upkeep::write_refusals(app))),
    },
    Job {
        name: "purge the history",
        period: |_| Duration::from_hours(1),
        run: Run::Loop(|app, ticks| Box::pin(upkeep::purge(app, ticks))),
    },
    Job {
        name: "sweep handshakes",
        period: |_| Duration::from_secs(2),
        run: Run::EachTick(|app| Box::pin(upkeep::sweep_handshakes(app))),
    },
    Job {
        name: "make a backup",
        // How often it is checked whether one is due.
        period: |_| Duration::from_mins(1),
        run: Run::EachTick(|app| Box::pin(storage::back_up(app))),
    },
    Job {
        name: "check the database",
        // How often it is checked whether the nightly check is due.
        period: |_| Duration::from_secs(30),
        run: Run::Loop(|app, ticks| Box::pin(storage::inspect_nightly(app, ticks))),
    },
    Job {
        name: "probe the disk",
        period: |_| Duration::from_secs(1),
        run: Run::EachTick(|app| Box::pin(time::probe_disk(app))),
    },
    Job {
        name: "detect pauses and clock jumps",
        period: |_| Duration::from_millis(250),
        run: Run::Loop(|app, ticks| Box::pin(time::record_start_times(app, ticks))),
    },
    Job {
        name: "give memory back",
        period: |_| Duration::from_secs(15),
        run: Run::EachTick(|_| Box::pin(upkeep::give_memory_back())),
    },
    Job {
        name: "note proxies",
        // At most so often, and only if something was observed.
        period: |_| Duration::from_secs(2),
        run: Run::Loop(|app, ticks| Box::pin(storage::note_proxies(app, ticks))),
    },
    Job {
        name: "reload keys",
        // A command's change takes effect within a second.
        period: |_| Duration::from_millis(300),
        run: Run::Loop(|app, ticks| Box::pin(keys::reload_when_changed(app, ticks))),
    },
    Job {
        name: "reload and renew the certificate",
        // How often certificate files are checked for changes.
        period: |_| Duration::from_secs(5),
        run: Run::Loop(|app, ticks| Box::pin(keys::maintain_certificate(app, ticks))),
    },
];

/// Starts every job; each ends when `stop` becomes true, and returns its name.
pub fn start(app: &Arc<App>, stop: &watch::Receiver<bool>) -> JoinSet<&'static str> {
    let mut jobs = JoinSet::new();
    for job in JOBS {
        let (app, mut stop) = (app.clone(), stop.clone());
        jobs.spawn(async move {
            tokio::select! {
                () = run(job, &app) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            job.name
        });
    }
    jobs
}

/// Runs `job` until it is dropped.
async fn run(job: &Job, app: &App) {
    let mut ticks = interval((job.period)(&app.settings));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    match job.run {
        Run::EachTick(run) => loop {
            ticks.tick().await;
            run(app).await;
        },
        Run::Loop(run) => run(app, ticks).await,
    }
}

/// Writes what is not in the database yet; the last step before it is closed.
pub async fn finish(app: &App) {
    if app.db.disk_has_failed() {
        return;
    }
    let flushed = sessions::flush_heartbeats(&app.db, &app.live_sessions).await;
    log_failure("write the last heartbeats", flushed);
    upkeep::write_devices_seen(app).await;
    let now = app.clock.now().wall;
    upkeep::write_refusals(app).await;
    time::record_date(app, now).await;
}

/// Logs a failure of a job, which is tried again at its next tick. Unavailable and damaged databases are logged by
/// `db` once for all jobs, so here only at debug level.
fn log_failure(what: &str, done: Result<(), Error>) {
    match done {
        Ok(()) => {}
        Err(error @ (Error::Unavailable { .. } | Error::Damaged { .. })) => {
            log::debug!("could not {what}, will try again: {error}");
        }
        Err(error) => log::warn!("could not {what}, will try again: {error}"),
    }
}
