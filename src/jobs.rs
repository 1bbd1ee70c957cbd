//! What the server does by itself, and when.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::admins::{self, SessionLifetime};
use crate::audit::Actor;
use crate::backups::{self, BackupDir, Done};
use crate::client_config::ProgramSettingsCache;
use crate::clock::{Belief, Counts, TrustedClock, UnixMs};
use crate::config::Config;
use crate::db::{Db, Inspected};
use crate::error::Error;
use crate::front::Proxies;
use crate::handshake::Handshakes;
use crate::logging::counted;
use crate::metrics::RefusalCounter;
use crate::overview;
use crate::security::signing::Signer;
use crate::server_state;
use crate::sessions::{self, Foldable, LiveSessions};
use crate::signing_keys;
use crate::tls::Certificates;

/// Between two looks at heartbeats that are not in the file yet: they must be there within a second.
const FLUSH: Duration = Duration::from_millis(400);
/// Between two writes of the refusals that were counted: a crash costs no more than these.
const TALLY: Duration = Duration::from_secs(3);
/// Between two looks at the certificate.
const CERTIFICATE: Duration = Duration::from_secs(5);
/// Between two looks at handshakes that came to nothing, and at transfers whose time has come.
const HANDSHAKES: Duration = Duration::from_secs(2);
/// Between two looks whether another signing key is in force: a command's change holds within a second.
const SIGNER: Duration = Duration::from_millis(300);
/// Between two looks whether the process stood still, or the date has jumped.
const CLOCK: Duration = Duration::from_millis(250);
/// Between two looks whether the disk answers.
const DISK: Duration = Duration::from_secs(1);
/// Between two purges of the history.
const PURGE: Duration = Duration::from_hours(1);
/// After a change from outside: so many of them at once make one sweep.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two notes of what proxies do.
const PROXIES: Duration = Duration::from_secs(2);
/// Between two looks whether a backup is due.
const BACKUP: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// Between two looks whether the time has come to look over the whole file.
const INSPECTION: Duration = Duration::from_secs(30);
/// Lines of the log about what is wrong with the file.
const FOUND_MAX: usize = 20;
/// How far back a look for days with very much history goes, again and again.
const FOLD_AGAIN: Duration = Duration::from_mins(10);

/// What the jobs work with.
#[derive(Clone)]
pub struct Work {
    /// The file.
    pub db: Db,
    /// Who is alive.
    pub live: Arc<LiveSessions>,
    /// The date.
    pub calendar: TrustedClock,
    /// Sites.
    pub handshakes: Arc<Handshakes>,
    /// What is signed with.
    pub signer: Arc<Signer>,
    /// What programs are told.
    pub current: Arc<ProgramSettingsCache>,
    /// The certificate, unless TLS is off.
    pub certificates: Option<Arc<Certificates>>,
    /// Where backups are kept.
    pub shelf: BackupDir,
    /// How often programs were refused.
    pub tally: Arc<RefusalCounter>,
    /// How long logins last.
    pub lasting: SessionLifetime,
    /// What is believed of proxies, and was seen of them.
    pub proxies: Proxies,
}

/// Starts every job; each ends when `stop` turns true.
pub fn start(work: &Work, settings: &Config, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    let mut jobs = JoinSet::new();
    let sweep = Duration::from_secs(u64::from(settings.sessions.cleanup_interval));
    let history_per_day = settings.sessions.history_per_day;
    let kept = DAY * settings.sessions.history_days;
    let (w, s) = (work.clone(), stop.clone());
    jobs.spawn(until(s, async move { w.write_heartbeats().await }));
    let (w, s) = (work.clone(), stop.clone());
    jobs.spawn(until(s, async move {
        w.sweep_again_and_again(sweep, history_per_day).await;
    }));
    let (w, s) = (work.clone(), stop.clone());
    jobs.spawn(until(s, async move {
        let mut ticks = every(TALLY);
        loop {
            ticks.tick().await;
            w.write_refusals().await;
        }
    }));
    let (w, s) = (work.clone(), stop.clone());
    jobs.spawn(until(s, async move {
        let mut ticks = every(PURGE);
        // Not at once: a date that is wrong at the start must not cost the history.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            match sessions::purge(&w.db, kept, w.calendar.now()).await {
                Ok(0) => {}
                Ok(removed) => {
                    let rows = counted(removed, "old row", "old rows");
                    log::info!("removed from the history: {rows}");
                }
                Err(error) => tell("purge the history", Err(error)),
            }
            w.purge_logins().await;
        }
    }));
    let (w, s) = (work.clone(), stop.clone());
    jobs.spawn(until(s, async move {
        let mut ticks = every(BACKUP);
        loop {
            ticks.tick().await;
            w.back_up().await;
        }
    }));
    let (w, s) = (work.clone(), stop.clone());
    let at = settings.database.integrity_check_minute();
    let at = at.unwrap_or_default();
    jobs.spawn(until(s, async move { w.inspect_nightly(at).await }));
    let (w, s) = (work.clone(), stop.clone());
    jobs.spawn(until(s, async move { w.tidy_handshakes().await }));
    let (w, s) = (work.clone(), stop.clone());
    jobs.spawn(until(s, async move { w.keep_time().await }));
    let (w, s) = (work.clone(), stop.clone());
    jobs.spawn(until(s, async move { w.note_proxies().await }));
    let (w, s, data) = (work.clone(), stop.clone(), settings.data_folder());
    jobs.spawn(until(s, async move { w.take_up_keys(data).await }));
    if let Some(certificates) = work.certificates.clone() {
        let (w, s) = (work.clone(), stop.clone());
        jobs.spawn(until(
            s,
            async move { w.keep_certificate(&certificates).await },
        ));
    }
    jobs
}

/// A turn at once, and then one each `span`; turns that were missed are not caught up with.
fn every(span: Duration) -> Interval {
    let mut ticks = interval(span);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Work {
    async fn write_heartbeats(&self) {
        let mut ticks = every(FLUSH);
        loop {
            ticks.tick().await;
            // That the file takes nothing has been said; the heartbeats are kept for the next turn.
            if let Err(error) = sessions::flush(&self.db, &self.live).await {
                log::debug!("could not write heartbeats: {error}");
            }
        }
    }

    /// Both by the machine's date, as clients judge a certificate by theirs: the house's may be ahead for long.
    async fn keep_certificate(&self, certificates: &Certificates) {
        let looks = async {
            let mut ticks = every(CERTIFICATE);
            loop {
                ticks.tick().await;
                certificates.refresh(self.calendar.machine());
            }
        };
        tokio::select! {
            () = looks => {}
            () = certificates.keep(|| self.calendar.machine()) => {}
        }
    }

    async fn keep_time(&self) {
        tokio::join!(self.write_starts(), self.time_the_disk());
    }

    /// Writes down from when silence counts, each time that the process ran again after a pause or the date has
    /// jumped: others judge sessions by the file alone.
    async fn write_starts(&self) {
        let mut ticks = every(CLOCK);
        let (mut written, mut told) = (Counts::default(), Counts::default());
        let mut belief = Belief::Same;
        loop {
            ticks.tick().await;
            let (counts, now) = (self.calendar.counts(), self.calendar.now().wall);
            self.tell_of_time(&mut told, &mut belief);
            if counts == written {
                continue;
            }
            let begun = self
                .db
                .write("server_state.begin", move |tx| server_state::begin(tx, now))
                .await;
            match begun {
                Ok(()) => written = counts,
                // That the file takes nothing has been said; this is tried again at the next turn.
                Err(error) => log::debug!("could not write from when silence counts: {error}"),
            }
        }
    }

    fn tell_of_time(&self, told: &mut Counts, before: &mut Belief) {
        let (counts, belief) = (self.calendar.counts(), self.calendar.belief());
        if counts.pauses != told.pauses {
            let pause = self.calendar.pauses().latest();
            log::warn!(
                "the server stood still for {} s (stopped, suspended, or its disk did not answer): every session \
                 has its whole timeout from now on",
                pause.ended.since(pause.began).as_secs()
            );
        }
        let (machine, date) = (self.calendar.machine(), self.calendar.now().wall);
        let (machine, date) = (machine.rfc3339(), date.rfc3339());
        if counts.jumps != told.jumps {
            log::info!("the machine's clock is believed: it is {machine}");
        }
        if belief != *before {
            match belief {
                Belief::Ahead => log::warn!(
                    "the machine's clock says {machine}, far ahead of what was seen before: dates go on from {date}, \
                     until it has said so for 15 minutes or is synchronised; see `check`"
                ),
                Belief::Behind => log::warn!(
                    "the machine's clock says {machine}, which is behind what was seen before: dates go on from \
                     {date}; see `check`"
                ),
                Belief::Same => {
                    log::info!("the machine's clock and the server's date are the same again");
                }
            }
        }
        (*told, *before) = (counts, belief);
    }

    /// Asks the disk again and again: while it does not answer, no program can be looked up.
    async fn time_the_disk(&self) {
        let mut ticks = every(DISK);
        loop {
            ticks.tick().await;
            let (asked, calendar) = (self.calendar.now().tick, self.calendar.clone());
            let answered = self.db.read_on_writer("jobs.time_the_disk", move |_| {
                calendar.answered(asked);
                Ok(())
            });
            if let Err(error) = answered.await {
                log::debug!("the disk does not answer: {error}");
            }
        }
    }

    /// Looks over the whole file once a day, at this minute after midnight UTC.
    async fn inspect_nightly(&self, at: Option<u16>) {
        let Some(at) = at else {
            return std::future::pending().await;
        };
        let (mut ticks, mut last) = (every(INSPECTION), None);
        loop {
            ticks.tick().await;
            let now = self.calendar.machine();
            if !inspection_is_due(at, last, now) {
                continue;
            }
            last = Some(now);
            match self.db.inspect().await {
                Ok(Inspected { tables, found }) if found.is_empty() => {
                    log::info!("the database was looked over: {tables} tables, nothing is wrong");
                }
                Ok(Inspected { found, .. }) => {
                    for line in found.iter().take(FOUND_MAX) {
                        log::error!("the database is damaged: {}", line.replace('\n', " "));
                    }
                }
                Err(Error::Damaged { found }) => {
                    log::error!(
                        "the database is damaged, and was not looked over to its end: {found}"
                    );
                }
                Err(error) => log::warn!(
                    "the database was not looked over to its end, so that damage may be unseen until tomorrow: {error}"
                ),
            }
        }
    }

    async fn tidy_handshakes(&self) {
        let mut ticks = every(HANDSHAKES);
        loop {
            ticks.tick().await;
            tell("tidy up after handshakes", self.handshakes.sweep().await);
        }
    }

    /// Looks which signing key is in force, each time that something has changed.
    async fn take_up_keys(&self, data: PathBuf) {
        let (mut ticks, mut known) = (every(SIGNER), 0);
        loop {
            ticks.tick().await;
            let epoch = self.db.epoch();
            if epoch == known {
                continue;
            }
            // Settings are read anew at the next call; that another API key is in force is to be seen before.
            if let Err(error) = self.current.get(&self.db).await {
                log::debug!("could not read what programs are told: {error}");
            }
            let (w, data) = (self.clone(), data.clone());
            let now = w.calendar.now().wall;
            let looked =
                spawn_blocking(move || signing_keys::refresh(&w.db, &data, &w.signer, now)).await;
            match looked {
                Ok(Ok(())) => known = epoch,
                Ok(Err(Error::Unavailable { .. } | Error::Damaged { .. })) => {
                    log::debug!("the signing key stays as it was: the database cannot be read");
                }
                Ok(Err(error)) => log::error!("the signing key stays as it was: {error}"),
                Err(error) => log::error!("a look at the signing key broke off: {error}"),
            }
        }
    }

    /// Remembers the date in the file, and beside it that the file knows it.
    async fn remember(&self, now: UnixMs) {
        let seen = self
            .db
            .write("server_state.advance", move |tx| {
                server_state::advance(tx, now)
            })
            .await;
        if seen.is_ok() {
            self.db.note_seen(now);
            self.db.note_boot(self.calendar.believed_boot());
        }
        tell("remember the date", seen);
    }

    async fn sweep_again_and_again(&self, span: Duration, history_per_day: u32) {
        let mut ticks = every(span);
        // A day more than was there while another server ran.
        let begun = self.calendar.now().wall.minus(DAY);
        let mut folded_until = begun.minus(sessions::TOKEN_KEPT);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // A license may have been suspended: its session ends within the second.
                () = self.db.epoch_changed() => sleep(SETTLE).await,
            }
            self.sweep().await;
            if history_per_day > 0 {
                folded_until = self.fold(history_per_day, folded_until).await;
            }
        }
    }

    async fn sweep(&self) {
        let now = self.calendar.now();
        match sessions::sweep(&self.db, &self.live, now).await {
            Ok(0) => {}
            Ok(ended) => {
                let sessions = counted(ended, "session", "sessions");
                log::info!("ended by the sweep: {sessions}");
            }
            Err(error) => tell("sweep", Err(error)),
        }
        self.remember(now.wall).await;
    }

    /// Notes what is seen of proxies, at once: the operator who sets one up asks `check` about it.
    async fn note_proxies(&self) {
        loop {
            self.proxies.news().await;
            let Some(seen) = self.proxies.seen() else {
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
            tell("note what proxies do", noted);
            sleep(PROXIES).await;
        }
    }

    /// Folds what ended since `since`; from when the next turn has to look.
    async fn fold(&self, kept: u32, since: UnixMs) -> UnixMs {
        let until = self.calendar.now().wall.minus(sessions::TOKEN_KEPT);
        match sessions::fold(&self.db, Foldable { kept, since, until }).await {
            Ok(0) => {}
            Ok(folded) => {
                let rows = counted(folded, "row", "rows");
                log::info!("folded in the history, since a license has very many: {rows}");
            }
            Err(error) => {
                log::warn!("could not fold the history, it is tried again: {error}");
                return since;
            }
        }
        // A session that timed out ended before that was noticed.
        until.minus(FOLD_AGAIN)
    }

    /// Makes a backup, where one is due.
    async fn back_up(&self) {
        let (work, now) = (self.clone(), self.calendar.now().wall);
        let made = spawn_blocking(move || {
            let due = work.shelf.is_due(now)?;
            due.then(|| work.shelf.make(&work.db, now)).transpose()
        });
        match made.await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(backup))) => {
                log::info!("backup {} made", backup.name);
                let noted = self.db.write("backups.make", move |tx| {
                    let (name, bytes) = (&backup.name, backup.bytes);
                    backups::note(tx, Done::Made, name, bytes, &Actor::server(), now)
                });
                tell("note a backup", noted.await);
            }
            Ok(Err(error)) => log::error!("no backup could be made: {error}"),
            Err(error) => log::error!("a backup broke off: {error}"),
        }
    }

    async fn write_refusals(&self) {
        let now = self.calendar.now().wall;
        // That the file takes nothing has been said; the counts are kept for the next turn.
        if let Err(error) = overview::flush(&self.db, &self.tally, now).await {
            log::debug!("could not write refusals: {error}");
        }
    }

    /// Removes logins that are over.
    async fn purge_logins(&self) {
        let (lasting, now) = (self.lasting, self.calendar.now().wall);
        let purge = self
            .db
            .write("admins.purge", move |tx| admins::purge(tx, lasting, now));
        match purge.await {
            Ok(0) => {}
            Ok(removed) => log::info!("removed: {}", counted(removed, "old login", "old logins")),
            Err(error) => tell("remove logins that are over", Err(error)),
        }
    }

    /// Writes what is not in the file yet: the last thing before it is closed.
    pub async fn finish(&self) {
        if self.db.disk_has_failed() {
            return;
        }
        let flushed = sessions::flush(&self.db, &self.live).await;
        tell("write the last heartbeats", flushed);
        let now = self.calendar.now().wall;
        self.write_refusals().await;
        self.remember(now).await;
    }
}

/// Whether the time of day has come, less than an hour ago and after the last time.
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

/// A job that fails is tried again at its next turn. That the file takes or gives back nothing was said by `db`,
/// once for all jobs.
fn tell(what: &str, done: Result<(), Error>) {
    match done {
        Ok(()) => {}
        Err(error @ (Error::Unavailable { .. } | Error::Damaged { .. })) => {
            log::debug!("could not {what}, it is tried again: {error}");
        }
        Err(error) => log::warn!("could not {what}, it is tried again: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_file_is_looked_over_once_a_day_within_an_hour_of_its_time() {
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
