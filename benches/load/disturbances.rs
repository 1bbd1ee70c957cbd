//! How heartbeats and starts fare beside work that takes long, with 1,000,000 licenses and 5,000,000 ended sessions.

use std::fs;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, params};

use crate::calls::first_heartbeats;
use crate::connection::Target;
use crate::data::{self, Shop};
use crate::drive::Work;
use crate::host::{Host, Job};
use crate::paced::{Lane, Paced, Running};
use crate::panel::Browser;
use crate::process::{Installation, Process, written_gib};
use crate::report::Line;
use crate::{Bench, HEARTBEAT, VERSION};

/// Load beside the disturbances, a second: that of 60,000 programs.
const HEARTBEATS: u32 = 2_000;
const STARTS: u32 = 100;
const CONNECTIONS: usize = 32;
/// Goal for heartbeats.
const P99_MS: f64 = 50.0;
/// Sessions that time out at once, and when, in seconds after the start of the server.
const TIMED_OUT: u32 = 10_000;
const TIMEOUT_S: u32 = 50;
/// How long lists of the panel are requested, and how long nothing else happens.
const SPAN: Duration = Duration::from_secs(10);
/// How often the sessions that are left are counted.
const COUNT: Duration = Duration::from_millis(250);
const LISTS: &[&str] = &[
    "/licenses",
    "/licenses?q=customer-77",
    "/licenses?order=-devices",
    "/licenses?state=expiring",
    "/sessions/history",
    "/",
];

/// The server, and the load beside each disturbance.
struct Disturbed<'a> {
    bench: &'a mut Bench,
    target: Target,
    shop: Shop,
}

impl Disturbed<'_> {
    fn lanes(&self) -> [Lane; 2] {
        [
            Lane {
                work: Work::Post(HEARTBEAT, self.shop.heartbeats.clone()),
                per_second: HEARTBEATS,
                connections: CONNECTIONS,
            },
            Lane {
                work: Work::StartAndEnd(self.shop.starts.clone()),
                per_second: STARTS,
                connections: CONNECTIONS,
            },
        ]
    }

    /// Measures heartbeats and starts while `disturb` runs in a thread; what it returns is noted, and the span of time that
    /// counts if it is not the whole.
    async fn beside<F>(&mut self, what: &str, disturb: F)
    where
        F: FnOnce() -> (String, Option<(Instant, Instant)>) + Send + 'static,
    {
        let running = Running::begin(&self.target, &self.lanes()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (begun, written) = (Instant::now(), written_gib(self.target.pid));
        let (said, span) = tokio::task::spawn_blocking(disturb).await.unwrap();
        let span = span.unwrap_or((begun, Instant::now()));
        let written = written_gib(self.target.pid) - written;
        let lanes = running.end().await;
        let seconds = (span.1 - span.0).as_secs_f64();
        let note = format!("{said} in {seconds:.1} s, server wrote {written:.2} GiB");
        self.add(what, &lanes, span, note);
    }

    fn add(&mut self, what: &str, lanes: &[Paced], span: (Instant, Instant), note: String) {
        for (call, lane) in ["heartbeat", "start"].iter().zip(lanes) {
            let is_heartbeat = *call == "heartbeat";
            self.bench.report.add(Line {
                connections: Some(CONNECTIONS),
                p99_wanted_ms: is_heartbeat.then_some(P99_MS),
                note: if is_heartbeat {
                    note.clone()
                } else {
                    String::new()
                },
                ..lane.line(&format!("{call} beside {what}"), span)
            });
        }
    }
}

/// Measures all of them, on a copy of the data.
pub fn measure(bench: &mut Bench) {
    let dir = bench.large_copy();
    let installation = Installation::new(dir.path());
    let timing_out = data::open(&installation)
        .execute(
            "update active_sessions set timeout_s = ?1 where session_id % 10 = 0",
            params![TIMEOUT_S],
        )
        .unwrap();
    assert!(timing_out <= TIMED_OUT as usize);
    let shop = Shop::read(&installation);
    let runtime = bench.runtime.clone();
    runtime.block_on(async {
        let host = Host::start(&installation);
        host.process.wait_until_ready(VERSION).await;
        first_heartbeats(bench, &host.process, &shop).await;
        let target = host.process.target(&shop.api_key);
        let mut disturbed = Disturbed {
            bench,
            target,
            shop,
        };
        let host = disturb(&mut disturbed, &installation, host).await;
        host.process.stop();
    });
}

async fn disturb(disturbed: &mut Disturbed<'_>, installation: &Installation, host: Host) -> Host {
    disturbed
        .beside("timeouts", count_timeouts(installation))
        .await;
    disturbed
        .beside("nothing else", || {
            std::thread::sleep(SPAN);
            (String::new(), None)
        })
        .await;
    disturbed
        .beside(
            "lists of the panel",
            request_lists(installation, &host.process),
        )
        .await;
    let checked = Installation::new(&installation.folder);
    disturbed
        .beside("the command `check`", move || {
            let checked = checked.command(&["check"]).output().unwrap();
            (format!("{}", checked.status), None)
        })
        .await;
    let command = Installation::new(&installation.folder);
    disturbed
        .beside("the command `backup`", move || {
            command.run(&["backup", "copy.tar"]);
            let copy = command.folder.join("copy.tar");
            let mib = fs::metadata(&copy).unwrap().len() / 1024 / 1024;
            fs::remove_file(copy).unwrap();
            (format!("{mib} MiB"), None)
        })
        .await;
    let mut host = host;
    for (what, job) in [
        ("a backup", Job::Backup),
        ("the nightly check", Job::Inspect),
        ("a purge", Job::Purge),
    ] {
        let (sender, receiver) = std::sync::mpsc::channel();
        disturbed
            .beside(what, move || {
                let said = host.run(job);
                sender.send(host).unwrap();
                (said, None)
            })
            .await;
        host = receiver.recv().unwrap();
    }
    host
}

/// Waits until the sessions that time out have ended; the span of time in which they did.
fn count_timeouts(
    installation: &Installation,
) -> impl FnOnce() -> (String, Option<(Instant, Instant)>) + Send + 'static {
    let database = installation.database();
    move || {
        let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let connection = connection.unwrap();
        let count = || -> u32 {
            let left = "select count(*) from active_sessions where timeout_s = ?1";
            connection
                .query_row(left, [TIMEOUT_S], |row| row.get(0))
                .unwrap()
        };
        let all = count();
        let mut before = Instant::now();
        while count() == all {
            before = Instant::now();
            std::thread::sleep(COUNT);
        }
        while count() > 0 {
            std::thread::sleep(COUNT);
        }
        let after = Instant::now();
        std::thread::sleep(Duration::from_secs(1));
        let span = (begun_at(before), after + Duration::from_secs(1));
        (format!("{all} sessions"), Some(span))
    }
}

/// A second before a moment, so that the first session that ends is in the span.
fn begun_at(before: Instant) -> Instant {
    before.checked_sub(Duration::from_secs(1)).unwrap_or(before)
}

/// Requests lists of the panel, one after another.
fn request_lists(
    installation: &Installation,
    server: &Process,
) -> impl FnOnce() -> (String, Option<(Instant, Instant)>) + Send + 'static {
    let browser = Browser::log_in(installation, server.port());
    move || {
        let begun = Instant::now();
        let mut pages = 0;
        while begun.elapsed() < SPAN {
            for path in LISTS {
                browser.get(path.trim_end_matches('/'));
                pages += 1;
            }
        }
        (format!("{pages} pages"), None)
    }
}
