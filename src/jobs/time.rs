//! Jobs that watch the clock, and the disk whose silence must not count as that of sessions.

use tokio::time::Interval;

use super::log_failure;
use crate::app::App;
use crate::clock::{ClockEvents, ClockState, UnixMs};
use crate::server_state;

/// Records the time from which silence counts, after each pause of the process or jump of the clock: commands
/// judge sessions by the database alone.
pub(super) async fn record_start_times(app: &App, mut ticks: Interval) {
    let (mut written, mut logged) = (ClockEvents::default(), ClockEvents::default());
    let mut belief = ClockState::InSync;
    loop {
        ticks.tick().await;
        let (counts, now) = (app.clock.events(), app.clock.now().wall);
        log_pauses_and_jumps(app, &mut logged);
        log_belief(app, &mut belief);
        if counts == written {
            continue;
        }
        let recorded = app
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

fn log_pauses_and_jumps(app: &App, logged: &mut ClockEvents) {
    let counts = app.clock.events();
    if counts.pauses != logged.pauses {
        let pause = app.clock.pauses().latest();
        log::warn!(
            "the server stood still for {} s (stopped, suspended, or its disk did not answer): the timeout of \
             every session starts again",
            pause.ended.since(pause.began).as_secs()
        );
    }
    if counts.jumps != logged.jumps {
        let machine = app.clock.system_date().rfc3339();
        log::info!("the system clock is trusted again: it is {machine}");
    }
    *logged = counts;
}

fn log_belief(app: &App, last: &mut ClockState) {
    let belief = app.clock.clock_state();
    if belief == *last {
        return;
    }
    let machine = app.clock.system_date().rfc3339();
    let date = app.clock.now().wall.rfc3339();
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
    *last = belief;
}

/// Times an answer of the disk: while it does not answer, no license can be looked up, so that time must not count as
/// silence of sessions.
pub(super) async fn probe_disk(app: &App) {
    let (sent_at, clock) = (app.clock.now().tick, app.clock.clone());
    let answered = app.db.read_on_writer("jobs.time_the_disk", move |_| {
        clock.note_disk_answer(sent_at);
        Ok(())
    });
    if let Err(error) = answered.await {
        log::debug!("the disk does not answer: {error}");
    }
}

/// Records the date in the database, and in the lock file that the database has it.
pub(super) async fn record_date(app: &App, now: UnixMs) {
    let recorded = app
        .db
        .write("server_state.advance", move |tx| {
            server_state::advance(tx, now)
        })
        .await;
    if recorded.is_ok() {
        app.db.note_latest_date(now);
        app.db.note_trusted_boot(app.clock.trusted_boot());
    }
    log_failure("record the date", recorded);
}
