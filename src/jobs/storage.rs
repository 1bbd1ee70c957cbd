//! Jobs that keep the database safe: backups, the nightly integrity check, and observations for `check`.

use tokio::task::spawn_blocking;
use tokio::time::Interval;

use super::log_failure;
use crate::app::App;
use crate::audit::Actor;
use crate::backups::{self, Made};
use crate::clock::UnixMs;
use crate::db::Inspected;
use crate::error::{Doing, Error, Result};
use crate::server_state;

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// Most log lines about damage that one integrity check found.
const DAMAGE_LINES_MAX: usize = 20;

async fn back_up_if_due(app: &App) -> Result<Option<Made>> {
    let (dir, now) = (app.backup_dir.clone(), app.clock.now().wall);
    let is_due = spawn_blocking(move || dir.is_due(now)).await;
    if !is_due.doing("read the backup folder")?? {
        return Ok(None);
    }
    let made = backups::make(&app.db, &app.backup_dir, Actor::server(), now).await;
    made.map(Some)
}

/// Makes a backup if one is due.
pub(super) async fn back_up(app: &App) {
    match back_up_if_due(app).await {
        Ok(None) => {}
        Ok(Some(made)) => {
            log::info!("backup {} made", made.backup.name);
            log_failure("record a backup", made.noted);
        }
        Err(error) => log::error!("could not make a backup: {error}"),
    }
}

/// Checks the integrity of the whole database once a day, at the time of the settings.
pub(super) async fn inspect_nightly(app: &App, mut ticks: Interval) {
    let check_at = app.settings.database.integrity_check_minute();
    let Some(check_at) = check_at.unwrap_or_default() else {
        return std::future::pending().await;
    };
    let mut last = None;
    loop {
        ticks.tick().await;
        let now = app.clock.system_date();
        if inspection_is_due(check_at, last, now) {
            last = Some(now);
            log_inspected(app.db.inspect().await);
        }
    }
}

fn log_inspected(inspected: Result<Inspected>) {
    match inspected {
        Ok(Inspected { tables, found }) if found.is_empty() => {
            log::info!("the integrity check of the database found no damage in {tables} tables");
        }
        Ok(Inspected { found, .. }) => {
            for line in found.iter().take(DAMAGE_LINES_MAX) {
                log::error!("the database is damaged: {}", line.replace('\n', " "));
            }
        }
        Err(Error::Damaged { found }) => {
            log::error!("the database is damaged, and the integrity check did not finish: {found}");
        }
        Err(error) => log::warn!(
            "the integrity check of the database did not finish, so damage may stay undetected until tomorrow: \
             {error}"
        ),
    }
}

/// Whether the check's time of day, in minutes after midnight UTC, was reached within the last hour and no check ran
/// since.
fn inspection_is_due(at_minute: u16, last: Option<UnixMs>, now: UnixMs) -> bool {
    let day = DAY_MS * now.0.div_euclid(DAY_MS);
    let since = now.0 - (day + i64::from(at_minute) * 60_000);
    (0..HOUR_MS).contains(&since) && last.is_none_or(|last| last.0 < now.0 - since)
}

/// Stores observations about proxies at once, so that `check` shows them while an operator sets one up.
pub(super) async fn note_proxies(app: &App, mut ticks: Interval) {
    loop {
        app.proxies.changed().await;
        let Some(seen) = app.proxies.take_observations() else {
            continue;
        };
        let again = seen.clone();
        let noted = app.db.write("server_state.note_proxies", move |tx| {
            server_state::note_proxies(tx, &seen)
        });
        let noted = noted.await;
        if noted.is_err() {
            app.proxies.put_back(again);
        }
        log_failure("store observations about proxies", noted);
        ticks.reset();
        ticks.tick().await;
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
