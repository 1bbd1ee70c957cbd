//! The calls of programs, with 100,000 running sessions, compared with a bare Rocket in the same rounds.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::connection::Target;
use crate::data::Shop;
use crate::drive::{Rounds, Until, Work, drive, median};
use crate::echo::{self, Listener};
use crate::process::{Installation, Process, executable_mib};
use crate::report::Line;
use crate::{Bench, HEARTBEAT, SETTLED, VERSION, folder};

/// Rounds of each cell. The rows take turns, so that other load on the machine affects all of them.
const ROUNDS: u32 = 3;
/// Numbers of connections.
const CONNECTIONS: [usize; 4] = [1, 64, 256, 1024];
/// Number of starts, of which the median counts.
const STARTS: usize = 7;

/// The rows that others are compared with.
const BARE: &str = "echo, Rocket's listener, plain HTTP";
const FRONT: &str = "echo, front, TLS kept";
const FRONT_NEW: &str = "echo, front, TLS new";

/// A row of the table.
pub struct Row {
    pub label: String,
    pub target: Target,
    pub work: Work,
    /// The label of the row that it is compared with.
    pub of: Option<String>,
    /// Numbers of connections, and the least ratio with them.
    pub wanted: &'static [(usize, f64)],
    /// The same for the p99 latency in milliseconds.
    pub p99_wanted: Option<(usize, f64)>,
}

/// Measures every row in so many rounds of this length, in turns, and adds the lines to the table.
pub async fn measure_rows(
    bench: &mut Bench,
    rows: &[Row],
    connections: usize,
    (count, part): (u32, Duration),
) {
    let mut all: Vec<Rounds> = rows.iter().map(|_| Rounds::default()).collect();
    for _ in 0..count {
        for (row, rounds) in rows.iter().zip(&mut all) {
            let until = Until::Passed(part);
            rounds.add(drive(&row.target, &row.work, connections, until).await);
        }
    }
    for (row, rounds) in rows.iter().zip(&all) {
        let with = |(at, wanted): &(usize, f64)| (*at == connections).then_some(*wanted);
        let base = row.of.as_ref();
        let base = base.and_then(|of| rows.iter().position(|other| other.label == *of));
        let base = base.map(|place| &all[place]);
        bench.report.add(Line {
            connections: Some(connections),
            ratio_wanted: row.wanted.iter().find_map(with),
            p99_wanted_ms: row.p99_wanted.as_ref().and_then(with),
            ..rounds.line(&row.label, base)
        });
    }
}

/// Measures the time from the start of the process to its first response.
pub fn starts(bench: &mut Bench) {
    let usual = bench.usual();
    let runtime = bench.runtime.clone();
    let disk = (wait_for_disk(), "ms");
    bench
        .report
        .add(Line::value("one wait for the disk", disk, None));
    let size = (executable_mib(&usual.executable), "MiB");
    bench
        .report
        .add(Line::value("executable", size, Some(15.0)));
    runtime.block_on(async {
        let mut spans = Vec::new();
        for _ in 0..STARTS {
            let dir = folder();
            let server = Installation::new(dir.path()).serve();
            spans.push(server.wait_until_ready(VERSION).await);
            server.stop();
        }
        let span = (median_ms(&spans), "ms");
        bench
            .report
            .add(Line::value("ready, first start", span, Some(150.0)));
        let dir = folder();
        let server = Installation::new(dir.path()).serve();
        server.wait_until_ready(VERSION).await;
        tokio::time::sleep(SETTLED).await;
        let memory = (server.rss_mib(), "MiB");
        bench
            .report
            .add(Line::value("memory, idle", memory, Some(30.0)));
        server.stop();
        spans.clear();
        for _ in 0..STARTS {
            let server = usual.serve();
            spans.push(server.wait_until_ready(VERSION).await);
            server.stop();
        }
        let span = (median_ms(&spans), "ms");
        bench
            .report
            .add(Line::value("ready, 100000 sessions", span, Some(100.0)));
    });
}

/// The time of one synced write of the size that a start or an end writes, in milliseconds.
fn wait_for_disk() -> f64 {
    const WRITTEN: usize = 32 * 1024;
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut spans = Vec::new();
    for block in 0..200 {
        file.write_all_at(&vec![1; WRITTEN], block * WRITTEN as u64)
            .unwrap();
        let written = Instant::now();
        file.sync_all().unwrap();
        spans.push(written.elapsed());
    }
    median_ms(&spans)
}

pub fn median_ms(spans: &[Duration]) -> f64 {
    median(spans.iter().map(|span| span.as_secs_f64() * 1000.0))
}

/// Measures the calls of programs.
pub fn measure(bench: &mut Bench) {
    let installation = bench.usual();
    let shop = Shop::read(&installation);
    let part = Duration::from_secs_f64(bench.seconds) / ROUNDS;
    let runtime = bench.runtime.clone();
    runtime.block_on(async {
        let server = installation.serve();
        server.wait_until_ready(VERSION).await;
        first_heartbeats(bench, &server, &shop).await;
        let echoes = folder();
        let bare = echo::start(Listener::Rockets, echoes.path());
        let front = echo::start(Listener::Front, echoes.path());
        bare.wait_until_ready("/").await;
        front.wait_until_ready("/").await;
        let plain_dir = bench.usual_copy();
        let plain = Installation::new(plain_dir.path()).serve_plain();
        plain.wait_until_ready(VERSION).await;
        let heartbeats = Work::Post(HEARTBEAT, shop.heartbeats.clone());
        drive(
            &plain.target(&shop.api_key),
            &heartbeats,
            64,
            Until::AllSent,
        )
        .await;
        let servers = Servers {
            bare,
            front,
            plain,
            server,
        };
        let rows = bench.requested(servers.rows(&shop));
        for connections in CONNECTIONS {
            measure_rows(bench, &rows, connections, (ROUNDS, part)).await;
        }
        let memory = (servers.server.rss_mib(), "MiB");
        bench
            .report
            .add(Line::value("memory after all this", memory, None));
        servers.plain.stop();
        servers.server.stop();
    });
}

/// Sends each session's first heartbeat after the start, which the server checks in the database.
pub async fn first_heartbeats(bench: &mut Bench, server: &Process, shop: &Shop) {
    let work = Work::Post(HEARTBEAT, shop.heartbeats.clone());
    let target = server.target(&shop.api_key);
    let mut rounds = Rounds::default();
    rounds.add(drive(&target, &work, 64, Until::AllSent).await);
    bench.report.add(Line {
        connections: Some(64),
        ..rounds.line("first heartbeat of each session after a start", None)
    });
    tokio::time::sleep(SETTLED).await;
    let memory = (server.rss_mib(), "MiB");
    let what = format!("memory, {} sessions", shop.heartbeats.len());
    bench.report.add(Line::value(what, memory, Some(100.0)));
}

/// The servers of the table.
struct Servers {
    /// An echo, on Rocket's own listener.
    bare: Process,
    /// An echo, behind the front.
    front: Process,
    plain: Process,
    server: Process,
}

impl Servers {
    /// The rows of the table; the first one is the baseline. Calls are compared with it over plain HTTP as well, since with
    /// TLS the server and the load generator both spend processor time on encryption.
    fn rows(&self, shop: &Shop) -> Vec<Row> {
        let of = |label: &str, of: &str, target: Target, work, wanted| Row {
            label: label.to_owned(),
            target,
            work,
            of: Some(of.to_owned()),
            wanted,
            p99_wanted: None,
        };
        let heartbeats = || shop.heartbeats.clone();
        let echo = Work::Post("/echo", heartbeats());
        let new = Work::PostAnew(HEARTBEAT, heartbeats());
        let real = || self.server.target(&shop.api_key);
        let mut rows = vec![
            Row {
                of: None,
                ..of(BARE, "", self.bare.target(""), echo.clone(), &[])
            },
            of(FRONT, BARE, self.front.target(""), echo, &[(64, 0.8)]),
        ];
        rows.extend(calls(
            &self.plain.target(&shop.api_key),
            shop,
            ", plain HTTP",
        ));
        rows.extend(calls(&real(), shop, ", TLS kept"));
        let echo_new = Work::PostAnew("/echo", heartbeats());
        rows.extend([
            of("version", BARE, real(), Work::Get(VERSION), &[]),
            of(
                "versions file",
                FRONT,
                real(),
                Work::Get("/versions.json"),
                &[(64, 0.9)],
            ),
            of(FRONT_NEW, BARE, self.front.target(""), echo_new, &[]),
            of("heartbeat, TLS new", FRONT_NEW, real(), new, &[(64, 0.9)]),
        ]);
        rows
    }
}

/// The rows of the calls that programs make most; `how` tells how they are made.
fn calls(target: &Target, shop: &Shop, how: &str) -> [Row; 3] {
    let row = |what: &str, work, wanted, p99_wanted| Row {
        label: format!("{what}{how}"),
        target: target.clone(),
        work,
        of: Some(BARE.to_owned()),
        wanted,
        p99_wanted,
    };
    let heartbeat = Work::Post(HEARTBEAT, shop.heartbeats.clone());
    let verify = Work::Post("/api/license/verify", shop.verifications.clone());
    let starts = Work::StartAndEnd(shop.starts.clone());
    let slowest = Some((64, 25.0));
    [
        row("heartbeat", heartbeat, &[(64, 0.88), (256, 0.8)], None),
        row("verify", verify, &[(64, 0.65), (256, 0.55)], None),
        row("start and end", starts, &[(64, 0.27), (256, 0.25)], slowest),
    ]
}
