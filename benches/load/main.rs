//! Throughput and latency of the server on this machine, compared with a bare Rocket: `cargo bench`.
//!
//! The load comes from this process and shares the CPU with the server, so only the ratios and the server's CPU time
//! per request are meaningful. No number makes the benchmark fail; compare the results with the printed goals after a
//! change. `LICENSE_BENCH_SECONDS` lengthens each cell;
//! `cargo bench -- heartbeat` measures only the rows with that word, and the baseline;
//! `cargo bench -- panel` only the pages of the panel, then with a million licenses too, `cargo bench -- sites` only handshakes with websites,
//! `cargo bench -- products` only a thousand products against one.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a benchmark may stop itself, prints its result, and measures time"
)]

mod drive;
mod echo;
mod fill;
mod panel;
mod process;
mod products;
mod report;
mod sites;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use license_server::front::ConnectionLimit;
use tempfile::TempDir;

use drive::{Measured, Target, Until, Work, drive};
use echo::Listener;
use fill::{Shop, WITH_SESSION, fill};
use panel::Size;
use process::{Installation, Process, executable_mib};
use report::{Goal, Row};

/// Seconds per cell of the table, in total.
const SECONDS: f64 = 3.6;
/// Rounds per cell. The cells of a column take turns, so that other load on the machine affects all of them.
const ROUNDS: u32 = 3;
/// Numbers of connections: the columns of the table.
const CONNECTIONS: [usize; 3] = [1, 64, 256];
/// More connections than a small machine serves at once; none may be refused.
const OVERLOAD: usize = 512;
/// Number of starts, of which the median counts.
const STARTS: usize = 7;
/// Wait before memory is measured, in which every job has run once.
const SETTLED: Duration = Duration::from_secs(2);
const VERSION: &str = "/api/license/version?version=1.0.0";

fn main() {
    echo::serve_if_asked();
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: this is for `cargo bench`");
        return;
    }
    // Raises the limit of file descriptors.
    ConnectionLimit::from_system().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let words = words();
    let alone = |word: &str| words.as_slice() == [word];
    if !alone("panel") && !alone("sites") && !alone("products") {
        runtime.block_on(measure());
    }
    if words.is_empty() || words.contains(&"products".to_owned()) {
        runtime.block_on(products::measure(seconds()));
    }
    if words.is_empty() || words.contains(&"sites".to_owned()) {
        runtime.block_on(sites::measure());
    }
    if std::env::var_os("LICENSE_BENCH_FOLDER").is_none()
        && (words.is_empty() || words.contains(&"panel".to_owned()))
    {
        panel::measure(&runtime, Size::USUAL);
    }
    if alone("panel") {
        panel::measure(&runtime, Size::LARGE);
    }
}

/// The measurements that the command line names; empty for all.
fn words() -> Vec<String> {
    let arguments = std::env::args().skip(1);
    arguments
        .filter(|argument| !argument.starts_with('-'))
        .collect()
}

/// A folder in the build directory, since the system's temporary folder may not be on a disk.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Seconds per cell.
fn seconds() -> f64 {
    let seconds = std::env::var("LICENSE_BENCH_SECONDS").ok();
    seconds.map_or(SECONDS, |text| text.parse().unwrap())
}

async fn measure() {
    let seconds = seconds();
    let part = Duration::from_secs_f64(seconds) / ROUNDS;

    report::heading("small");
    report::small("one wait for the disk, ms", wait_for_disk(), None);
    report::small("executable, MiB", executable_mib(), Some(20.0));
    fresh().await;

    let dir = folder();
    let installation = installation(dir.path());
    let shop = fill(&installation);
    let file = fs::metadata(installation.database()).unwrap().len() / 1024 / 1024;
    let ready = median_start(&installation).await;
    report::small(
        &format!("ready, {WITH_SESSION} sessions in {file} MiB, ms"),
        ready,
        Some(150.0),
    );
    let server = installation.serve();
    server.wait_until_ready(VERSION).await;
    let first = first_heartbeats(&server, &shop).await;

    let echoes = folder();
    let bare = echo::start(Listener::Rockets, echoes.path());
    let front = echo::start(Listener::Front, echoes.path());
    bare.wait_until_ready("/").await;
    front.wait_until_ready("/").await;
    let rows = requested_rows(rows(&bare, &front, &server, shop));

    report::heading("load");
    for connections in CONNECTIONS {
        let all = column(&rows, connections, part).await;
        for (row, measured) in rows.iter().zip(&all) {
            report::line(row, connections, measured, &all);
        }
        println!();
    }
    report::first_heartbeats(&first);
    for row in rows.iter().filter(|row| row.overload) {
        let until = Until::Passed(Duration::from_secs_f64(seconds));
        let measured = drive(&row.target, &row.work, OVERLOAD, until).await;
        report::overload(row, OVERLOAD, &measured);
    }
    report::small("memory after all this, MiB", server.rss_mib(), None);
    server.stop();
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
    median(spans)
}

/// Measures a first start, which creates database, keys and certificates.
async fn fresh() {
    let mut spans = Vec::new();
    for _ in 0..STARTS {
        let dir = folder();
        let server = installation(dir.path()).serve();
        spans.push(server.wait_until_ready(VERSION).await);
        server.stop();
    }
    report::small("ready, first start, ms", median(spans), Some(150.0));
    let dir = folder();
    let server = installation(dir.path()).serve();
    server.wait_until_ready(VERSION).await;
    tokio::time::sleep(SETTLED).await;
    report::small("memory, idle, MiB", server.rss_mib(), Some(30.0));
    server.stop();
}

fn installation(folder: &Path) -> Installation {
    Installation {
        folder: folder.to_owned(),
    }
}

async fn median_start(installation: &Installation) -> f64 {
    let mut spans = Vec::new();
    for _ in 0..STARTS {
        let server = installation.serve();
        spans.push(server.wait_until_ready(VERSION).await);
        server.stop();
    }
    median(spans)
}

/// The median in milliseconds.
fn median(mut spans: Vec<Duration>) -> f64 {
    spans.sort();
    spans[spans.len() / 2].as_secs_f64() * 1000.0
}

/// Sends each session's first heartbeat after the start, which the server checks in the database.
async fn first_heartbeats(server: &Process, shop: &Shop) -> Measured {
    let work = Work::Post(HEARTBEAT, Arc::new(shop.heartbeats.clone()));
    let heard = drive(&server.target(&shop.api_key), &work, 64, Until::AllSent).await;
    tokio::time::sleep(SETTLED).await;
    let label = format!("memory, {WITH_SESSION} sessions with a heartbeat, MiB");
    report::small(&label, server.rss_mib(), None);
    heard
}

const HEARTBEAT: &str = "/api/license/session/heartbeat";

/// The rows of the table; the first one is the baseline.
fn rows(bare: &Process, front: &Process, server: &Process, shop: Shop) -> Vec<Row> {
    let Shop {
        api_key,
        heartbeats,
        verifications,
        starts,
    } = shop;
    let heartbeats = Arc::new(heartbeats);
    let echo = |target: Target, label, goal| Row {
        label,
        target,
        work: Work::Post("/echo", heartbeats.clone()),
        goal,
        overload: false,
    };
    let real = |label, work, ratio, p99_ms, overload| Row {
        label,
        target: server.target(&api_key),
        work,
        goal: Goal {
            of: 0,
            ratio,
            p99_ms,
        },
        overload,
    };
    let post = |path, bodies: &Arc<Vec<Bytes>>| Work::Post(path, bodies.clone());
    let verifications = Arc::new(verifications);
    let verify = post("/api/license/verify", &verifications);
    vec![
        echo(bare.target(""), "echo, Rocket's listener", Goal::NOTHING),
        echo(
            front.target(""),
            "echo, front with TLS",
            Goal {
                of: 0,
                ratio: Some(0.8),
                p99_ms: None,
            },
        ),
        real(
            "heartbeat",
            post(HEARTBEAT, &heartbeats),
            Some(0.4),
            Some((64, 25.0)),
            true,
        ),
        real(
            "start and end",
            Work::StartAndEnd(Arc::new(starts)),
            Some(0.15),
            None,
            true,
        ),
        real("verify", verify, None, None, false),
        Row {
            label: "versions file, of front",
            target: server.target(&api_key),
            work: Work::Get("/versions.json"),
            goal: Goal {
                of: 1,
                ratio: Some(0.9),
                p99_ms: None,
            },
            overload: false,
        },
    ]
}

/// The two echoes, and the rows that the arguments name; all, if they name none.
fn requested_rows(mut rows: Vec<Row>) -> Vec<Row> {
    let words = words();
    rows.retain(|row| {
        row.label.starts_with("echo")
            || words.is_empty()
            || words.iter().any(|word| row.label.contains(word))
    });
    rows
}

/// Measures every row with this number of connections, in turns.
async fn column(rows: &[Row], connections: usize, part: Duration) -> Vec<Measured> {
    rounds(rows, connections, ROUNDS, part).await
}

/// Measures every row in so many rounds, each of which takes a part of the time.
async fn rounds(rows: &[Row], connections: usize, count: u32, part: Duration) -> Vec<Measured> {
    let mut all: Vec<Measured> = rows.iter().map(|_| Measured::nothing()).collect();
    for _ in 0..count {
        for (row, measured) in rows.iter().zip(&mut all) {
            let round = drive(&row.target, &row.work, connections, Until::Passed(part)).await;
            measured.add(&round);
        }
    }
    all
}
