//! Background jobs, and their intervals.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::admins::{self, SessionLifetime};
use crate::audit::Actor;
use crate::backups::{self, BackupDir, BackupEvent};
use crate::clock::{ClockEvents, ClockState, TrustedClock, UnixMs};
use crate::config::Config;
use crate::db::{Db, Inspected};
use crate::error::Error;
use crate::front::Proxies;
use crate::handshake::Handshakes;
use crate::logging::counted;
use crate::metrics::RefusalCounter;
use crate::overview;
use crate::products::ProgramSettingsCache;
use crate::security::signing::Signer;
use crate::server_state;
use crate::sessions::{self, Foldable, LiveSessions};
use crate::signing_keys;
use crate::tls::Certificates;

/// Interval at which new heartbeats are written: they must be in the database within a second.
const FLUSH: Duration = Duration::from_millis(400);
/// Interval at which counted refusals are written: a crash loses at most this much.
const REFUSALS: Duration = Duration::from_secs(3);
/// Interval at which certificate files are checked for changes.
const CERTIFICATE: Duration = Duration::from_secs(5);
/// Interval at which expired handshakes and transfers that are due are processed.
const HANDSHAKES: Duration = Duration::from_secs(2);
/// Interval at which a change of the signing key is detected: a command's change takes effect within a second.
const SIGNER: Duration = Duration::from_millis(300);
/// Interval at which a pause of the process or a jump of the clock is detected.
const CLOCK: Duration = Duration::from_millis(250);
/// Interval at which the disk is probed.
const DISK: Duration = Duration::from_secs(1);
/// Interval at which the history is purged.
const PURGE: Duration = Duration::from_hours(1);
/// Wait after a change by another process, so that many changes at once cause one sweep.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Interval at which observations about proxies are stored.
const PROXIES: Duration = Duration::from_secs(2);
/// Interval at which it is checked whether a backup is due.
const BACKUP: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// Interval at which it is checked whether the nightly integrity check is due.
const INSPECTION: Duration = Duration::from_secs(30);
/// Most log lines about damage that one integrity check found.
const DAMAGE_LINES_MAX: usize = 20;
/// How far the next fold of the history reaches back before the end of the last one.
const FOLD_OVERLAP: Duration = Duration::from_mins(10);

/// What the jobs need.
#[derive(Clone)]
pub struct JobContext {
    /// The database.
    pub db: Db,
    /// The last heartbeat of each running session.
    pub live_sessions: Arc<LiveSessions>,
    /// The clock whose date never goes back.
    pub clock: TrustedClock,
    /// Handshakes with customers' sites.
    pub handshakes: Arc<Handshakes>,
    /// Signs leases and responses.
    pub signer: Arc<Signer>,
    /// Product settings, as programs get them.
    pub program_settings: Arc<ProgramSettingsCache>,
    /// The certificate, unless TLS is off.
    pub certificates: Option<Arc<Certificates>>,
    /// The backup folder.
    pub backup_dir: BackupDir,
    /// Counts refused requests by code.
    pub refusals: Arc<RefusalCounter>,
    /// When logins of administrators expire.
    pub login_lifetime: SessionLifetime,
    /// Which proxies are trusted, and what was observed of them.
    pub proxies: Proxies,
}

/// Starts every job; each ends when `stop` becomes true.
pub fn start(context: &JobContext, settings: &Config, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    let mut jobs = JoinSet::new();
    let sweep = Duration::from_secs(u64::from(settings.sessions.cleanup_interval));
    let history_per_day = settings.sessions.history_per_day;
    let retention = DAY * settings.sessions.history_days;
    let (w, s) = (context.clone(), stop.clone());
    jobs.spawn(until(s, async move { w.write_heartbeats().await }));
    let (w, s) = (context.clone(), stop.clone());
    jobs.spawn(until(s, async move {
        w.sweep_periodically(sweep, history_per_day).await;
    }));
    let (w, s) = (context.clone(), stop.clone());
    jobs.spawn(until(s, async move {
        let mut ticks = every(REFUSALS);
        loop {
            ticks.tick().await;
            w.write_refusals().await;
        }
    }));
    let (w, s) = (context.clone(), stop.clone());
    jobs.spawn(until(s, async move {
        let mut ticks = every(PURGE);
        // Skip the immediate tick: a date that is wrong at the start must not delete history.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            match sessions::purge(&w.db, retention, w.clock.now()).await {
                Ok(0) => {}
                Ok(removed) => {
                    let rows = counted(removed, "old row", "old rows");
                    log::info!("removed {rows} from the history");
                }
                Err(error) => log_failure("purge the history", Err(error)),
            }
            w.purge_logins().await;
        }
    }));
    let (w, s) = (context.clone(), stop.clone());
    jobs.spawn(until(s, async move {
        let mut ticks = every(BACKUP);
        loop {
            ticks.tick().await;
            w.back_up().await;
        }
    }));
    let (w, s) = (context.clone(), stop.clone());
    let check_at = settings.database.integrity_check_minute();
    let check_at = check_at.unwrap_or_default();
    jobs.spawn(until(s, async move { w.inspect_nightly(check_at).await }));
    let (w, s) = (context.clone(), stop.clone());
    jobs.spawn(until(s, async move { w.sweep_handshakes().await }));
    let (w, s) = (context.clone(), stop.clone());
    jobs.spawn(until(s, async move { w.watch_clock_and_disk().await }));
    let (w, s) = (context.clone(), stop.clone());
    jobs.spawn(until(s, async move { w.note_proxies().await }));
    let (w, s, data) = (context.clone(), stop.clone(), settings.data_folder());
    jobs.spawn(until(s, async move { w.refresh_keys(data).await }));
    if let Some(certificates) = context.certificates.clone() {
        let (w, s) = (context.clone(), stop.clone());
        jobs.spawn(until(s, async move {
            w.maintain_certificate(&certificates).await;
        }));
    }
    jobs
}

/// Ticks at once, then every `span`; missed ticks are skipped.
fn every(span: Duration) -> Interval {
    let mut ticks = interval(span);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl JobContext {
    async fn write_heartbeats(&self) {
        let mut ticks = every(FLUSH);
        loop {
            ticks.tick().await;
            // `db` has logged that writes fail; the heartbeats are written at the next tick.
            if let Err(error) = sessions::flush(&self.db, &self.live_sessions).await {
                log::debug!("could not write heartbeats: {error}");
            }
        }
    }

    /// Reloads and renews the certificate, both by the system clock, since clients judge a certificate by theirs:
    /// the trusted date may be far ahead.
    async fn maintain_certificate(&self, certificates: &Certificates) {
        let reload = async {
            let mut ticks = every(CERTIFICATE);
            loop {
                ticks.tick().await;
                certificates.refresh(self.clock.system_date());
            }
        };
        tokio::select! {
            () = reload => {}
            () = certificates.run_acme(|| self.clock.system_date()) => {}
        }
    }

    async fn watch_clock_and_disk(&self) {
        tokio::join!(self.record_start_times(), self.probe_disk());
    }

    /// Records the time from which silence counts, after each pause of the process or jump of the clock: commands
    /// judge sessions by the database alone.
    async fn record_start_times(&self) {
        let mut ticks = every(CLOCK);
        let (mut written, mut logged) = (ClockEvents::default(), ClockEvents::default());
        let mut belief = ClockState::InSync;
        loop {
            ticks.tick().await;
            let (counts, now) = (self.clock.events(), self.clock.now().wall);
            self.log_clock_changes(&mut logged, &mut belief);
            if counts == written {
                continue;
            }
            let recorded = self
                .db
                .write("server_state.begin", move |tx| {
                    server_state::note_start(tx, now)
                })
                .await;
            match recorded {
                Ok(()) => written = counts,
                // `db` has logged that writes fail; the next tick tries again.
                Err(error) => {
                    log::debug!("could not record the time from which silence counts: {error}");
                }
            }
        }
    }

    fn log_clock_changes(&self, logged: &mut ClockEvents, last_belief: &mut ClockState) {
        let (counts, belief) = (self.clock.events(), self.clock.clock_state());
        if counts.pauses != logged.pauses {
            let pause = self.clock.pauses().latest();
            log::warn!(
                "the server stood still for {} s (stopped, suspended, or its disk did not answer): the timeout of \
                 every session starts again",
                pause.ended.since(pause.began).as_secs()
            );
        }
        let (machine, date) = (self.clock.system_date(), self.clock.now().wall);
        let (machine, date) = (machine.rfc3339(), date.rfc3339());
        if counts.jumps != logged.jumps {
            log::info!("the system clock is trusted again: it is {machine}");
        }
        if belief != *last_belief {
            match belief {
                ClockState::Ahead => log::warn!(
                    "the system clock says {machine}, far ahead of the latest known date: the server continues from {date} \
                     until the clock has said so for 15 minutes or is synchronised; see `check`"
                ),
                ClockState::Behind => log::warn!(
                    "the system clock says {machine}, earlier than the latest known date: the server continues from \
                     {date}; see `check`"
                ),
                ClockState::InSync => {
                    log::info!("the system clock and the server's date agree again");
                }
            }
        }
        (*logged, *last_belief) = (counts, belief);
    }

    /// Probes the disk periodically: while it does not answer, no license can be looked up, so that time must not
    /// count as silence of sessions.
    async fn probe_disk(&self) {
        let mut ticks = every(DISK);
        loop {
            ticks.tick().await;
            let (sent_at, clock) = (self.clock.now().tick, self.clock.clone());
            let answered = self.db.read_on_writer("jobs.time_the_disk", move |_| {
                clock.note_disk_answer(sent_at);
                Ok(())
            });
            if let Err(error) = answered.await {
                log::debug!("the disk does not answer: {error}");
            }
        }
    }

    /// Checks the integrity of the whole database once a day, at this minute after midnight UTC.
    async fn inspect_nightly(&self, check_at: Option<u16>) {
        let Some(check_at) = check_at else {
            return std::future::pending().await;
        };
        let (mut ticks, mut last) = (every(INSPECTION), None);
        loop {
            ticks.tick().await;
            let now = self.clock.system_date();
            if !inspection_is_due(check_at, last, now) {
                continue;
            }
            last = Some(now);
            match self.db.inspect().await {
                Ok(Inspected { tables, found }) if found.is_empty() => {
                    log::info!(
                        "the integrity check of the database found no damage in {tables} tables"
                    );
                }
                Ok(Inspected { found, .. }) => {
                    for line in found.iter().take(DAMAGE_LINES_MAX) {
                        log::error!("the database is damaged: {}", line.replace('\n', " "));
                    }
                }
                Err(Error::Damaged { found }) => {
                    log::error!(
                        "the database is damaged, and the integrity check did not finish: {found}"
                    );
                }
                Err(error) => log::warn!(
                    "the integrity check of the database did not finish, so damage may stay undetected until tomorrow: \
                     {error}"
                ),
            }
        }
    }

    async fn sweep_handshakes(&self) {
        let mut ticks = every(HANDSHAKES);
        loop {
            ticks.tick().await;
            log_failure("sweep handshakes", self.handshakes.sweep().await);
        }
    }

    /// Reloads the current signing key whenever the database's generation has changed.
    async fn refresh_keys(&self, data: PathBuf) {
        let (mut ticks, mut known) = (every(SIGNER), 0);
        loop {
            ticks.tick().await;
            let generation = self.db.generation();
            if generation == known {
                continue;
            }
            // Reloads the settings now, not at the next call, so that a change of the API key is logged at once.
            if let Err(error) = self.program_settings.get(&self.db).await {
                log::debug!("could not read the product settings: {error}");
            }
            let (w, data) = (self.clone(), data.clone());
            let now = w.clock.now().wall;
            let refreshed =
                spawn_blocking(move || signing_keys::refresh(&w.db, &data, &w.signer, now)).await;
            match refreshed {
                Ok(Ok(())) => known = generation,
                Ok(Err(Error::Unavailable { .. } | Error::Damaged { .. })) => {
                    log::debug!("the signing key is unchanged: the database cannot be read");
                }
                Ok(Err(error)) => log::error!("the signing key is unchanged: {error}"),
                Err(error) => log::error!("reloading the signing key failed: {error}"),
            }
        }
    }

    /// Records the date in the database, and in the lock file that the database has it.
    async fn record_date(&self, now: UnixMs) {
        let recorded = self
            .db
            .write("server_state.advance", move |tx| {
                server_state::advance(tx, now)
            })
            .await;
        if recorded.is_ok() {
            self.db.note_latest_date(now);
            self.db.note_trusted_boot(self.clock.trusted_boot());
        }
        log_failure("record the date", recorded);
    }

    async fn sweep_periodically(&self, span: Duration, history_per_day: u32) {
        let mut ticks = every(span);
        // One day further back, for what ended before this start.
        let day_ago = self.clock.now().wall.minus(DAY);
        let mut folded_until = day_ago.minus(sessions::TOKEN_RETENTION);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // A license may have been suspended: its session must end within a second.
                () = self.db.generation_changed() => sleep(DEBOUNCE).await,
            }
            self.sweep().await;
            if history_per_day > 0 {
                folded_until = self.fold(history_per_day, folded_until).await;
            }
        }
    }

    async fn sweep(&self) {
        let now = self.clock.now();
        match sessions::sweep(&self.db, &self.live_sessions, now).await {
            Ok(0) => {}
            Ok(ended) => {
                let sessions = counted(ended, "session", "sessions");
                log::info!("the sweep ended {sessions}");
            }
            Err(error) => log_failure("sweep", Err(error)),
        }
        self.record_date(now.wall).await;
    }

    /// Stores observations about proxies at once, so that `check` shows them while an operator sets one up.
    async fn note_proxies(&self) {
        loop {
            self.proxies.changed().await;
            let Some(seen) = self.proxies.take_observations() else {
                continue;
            };
            let again = seen.clone();
            let noted = self.db.write("server_state.note_proxies", move |tx| {
                server_state::note_proxies(tx, &seen)
            });
            let noted = noted.await;
            if noted.is_err() {
                self.proxies.put_back(again);
            }
            log_failure("store observations about proxies", noted);
            sleep(PROXIES).await;
        }
    }

    /// Folds the history of sessions that ended since `since`, keeping `kept` per license and day. Returns the time
    /// from which the next fold starts.
    async fn fold(&self, kept: u32, since: UnixMs) -> UnixMs {
        let until = self.clock.now().wall.minus(sessions::TOKEN_RETENTION);
        match sessions::fold(&self.db, Foldable { kept, since, until }).await {
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

    /// Makes a backup if one is due.
    async fn back_up(&self) {
        let (context, now) = (self.clone(), self.clock.now().wall);
        let made = spawn_blocking(move || {
            let due = context.backup_dir.is_due(now)?;
            due.then(|| context.backup_dir.make(&context.db, now))
                .transpose()
        });
        match made.await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(backup))) => {
                log::info!("backup {} made", backup.name);
                let noted = self.db.write("backups.make", move |tx| {
                    let (name, bytes) = (&backup.name, backup.bytes);
                    backups::note(tx, BackupEvent::Made, name, bytes, &Actor::server(), now)
                });
                log_failure("record a backup", noted.await);
            }
            Ok(Err(error)) => log::error!("could not make a backup: {error}"),
            Err(error) => log::error!("a backup failed: {error}"),
        }
    }

    async fn write_refusals(&self) {
        let now = self.clock.now().wall;
        // `db` has logged that writes fail; the counts are written at the next tick.
        if let Err(error) = overview::flush(&self.db, &self.refusals, now).await {
            log::debug!("could not write refusals: {error}");
        }
    }

    /// Removes expired logins.
    async fn purge_logins(&self) {
        let (lifetime, now) = (self.login_lifetime, self.clock.now().wall);
        let purge = self
            .db
            .write("admins.purge", move |tx| admins::purge(tx, lifetime, now));
        match purge.await {
            Ok(0) => {}
            Ok(removed) => log::info!(
                "removed {}",
                counted(removed, "expired login", "expired logins")
            ),
            Err(error) => log_failure("remove expired logins", Err(error)),
        }
    }

    /// Writes what is not in the database yet; the last step before it is closed.
    pub async fn finish(&self) {
        if self.db.disk_has_failed() {
            return;
        }
        let flushed = sessions::flush(&self.db, &self.live_sessions).await;
        log_failure("write the last heartbeats", flushed);
        let now = self.clock.now().wall;
        self.write_refusals().await;
        self.record_date(now).await;
    }
}

/// Whether the check's time of day was reached within the last hour and no check ran since.
fn inspection_is_due(at_minute: u16, last: Option<UnixMs>, now: UnixMs) -> bool {
    let day = DAY_MS * now.0.div_euclid(DAY_MS);
    let since = now.0 - (day + i64::from(at_minute) * 60_000);
    (0..HOUR_MS).contains(&since) && last.is_none_or(|last| last.0 < now.0 - since)
}

async fn until(mut stop: watch::Receiver<bool>, job: impl Future<Output = ()>) {
    tokio::select! {
        () = job => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integrity_check_is_due_once_a_day_within_an_hour_of_its_time() {
        let at = 150;
        let moment = |day: i64, minute: i64| UnixMs(day * DAY_MS + minute * 60_000);
        for (last, now, due) in [
            (None, moment(9, 149), false),
            (None, moment(9, 150), true),
            (None, moment(9, 209), true),
            (None, moment(9, 210), false),
            (Some(moment(9, 150)), moment(9, 151), false),
            (Some(moment(9, 150)), moment(10, 149), false),
            (Some(moment(9, 160)), moment(10, 150), true),
        ] {
            assert_eq!(inspection_is_due(at, last, now), due, "{last:?} {now:?}");
        }
    }
}
