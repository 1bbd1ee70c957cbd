//! What the server carries on this machine, against the measure of a bare Rocket: `cargo bench`.
//!
//! The load comes from this process and shares the processor with the server, so only the ratios tell
//! something, and the processor time of the server for one request. Nothing here fails because of a
//! number: whoever changes the house looks at the targets. `LICENSE_BENCH_SECONDS` lengthens each cell;
//! `cargo bench -- heartbeat` measures only the lines with that word, and the one they are compared with;
//! `cargo bench -- panel` only the pages of the panel, `cargo bench -- sites` only handshakes with websites.

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
use fill::{BUSY, Shop, fill};
use process::{House, Process, executable_mib};
use report::{Row, Wanted};

/// Seconds for one cell of the table, in all.
const SECONDS: f64 = 3.6;
/// Parts of a cell's time. The cells of a column take turns, so that what else the machine does meets all.
const ROUNDS: u32 = 3;
/// The columns.
const CONNECTIONS: [usize; 3] = [1, 64, 256];
/// More than a small machine answers at once: nobody may be turned away.
const CROWD: usize = 512;
/// Starts of which the middle one counts.
const STARTS: usize = 7;
/// After a start, before memory is looked at: the jobs have run once by then.
const SETTLED: Duration = Duration::from_secs(2);
const VERSION: &str = "/api/license/version?version=1.0.0";

fn main() {
    echo::serve_if_asked();
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: this is for `cargo bench`");
        return;
    }
    // A descriptor a connection.
    ConnectionLimit::make().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let words = words();
    let alone = |word: &str| words.as_slice() == [word];
    if !alone("panel") && !alone("sites") {
        runtime.block_on(measure());
    }
    if words.is_empty() || words.contains(&"sites".to_owned()) {
        runtime.block_on(sites::measure());
    }
    if words.is_empty() || words.contains(&"panel".to_owned()) {
        panel::measure(&runtime);
    }
}

/// What the command line asks for; nothing: everything.
fn words() -> Vec<String> {
    let arguments = std::env::args().skip(1);
    arguments
        .filter(|argument| !argument.starts_with('-'))
        .collect()
}

/// A folder where the build is, since what holds temporary files may have no disk to wait for.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn measure() {
    let seconds = std::env::var("LICENSE_BENCH_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS, |text| text.parse().unwrap());
    let part = Duration::from_secs_f64(seconds) / ROUNDS;

    report::heading("small");
    report::small("one wait for the disk, ms", wait_for_disk(), None);
    report::small("executable, MiB", executable_mib(), Some(20.0));
    fresh().await;

    let place = folder();
    let house = house(place.path());
    let shop = fill(&house);
    let file = fs::metadata(house.database()).unwrap().len() / 1024 / 1024;
    let ready = middle_start(&house).await;
    report::small(
        &format!("ready, {BUSY} sessions in {file} MiB, ms"),
        ready,
        Some(150.0),
    );
    let server = house.serve();
    server.answers(VERSION).await;
    let first = hear_everybody(&server, &shop).await;

    let echoes = folder();
    let bare = echo::start(Listener::Rockets, echoes.path());
    let front = echo::start(Listener::Front, echoes.path());
    bare.answers("/").await;
    front.answers("/").await;
    let rows = asked_for(rows(&bare, &front, &server, shop));

    report::heading("load");
    for connections in CONNECTIONS {
        let all = column(&rows, connections, part).await;
        for (row, measured) in rows.iter().zip(&all) {
            report::line(row, connections, measured, &all);
        }
        println!();
    }
    report::first_heartbeats(&first);
    for row in rows.iter().filter(|row| row.crowd) {
        let until = Until::Passed(Duration::from_secs_f64(seconds));
        let measured = drive(&row.target, &row.work, CROWD, until).await;
        report::crowd(row, CROWD, &measured);
    }
    report::small("memory after all this, MiB", server.rss_mib(), None);
    server.stop();
}

/// What a start or an end waits for at least, in milliseconds: as much as one of them writes, synced.
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
    middle(spans)
}

/// A first run, as a new user has it: file, keys and certificates are made.
async fn fresh() {
    let mut spans = Vec::new();
    for _ in 0..STARTS {
        let place = folder();
        let server = house(place.path()).serve();
        spans.push(server.answers(VERSION).await);
        server.stop();
    }
    report::small("ready, first start, ms", middle(spans), Some(150.0));
    let place = folder();
    let server = house(place.path()).serve();
    server.answers(VERSION).await;
    tokio::time::sleep(SETTLED).await;
    report::small("memory, idle, MiB", server.rss_mib(), Some(30.0));
    server.stop();
}

fn house(folder: &Path) -> House {
    House {
        folder: folder.to_owned(),
    }
}

async fn middle_start(house: &House) -> f64 {
    let mut spans = Vec::new();
    for _ in 0..STARTS {
        let server = house.serve();
        spans.push(server.answers(VERSION).await);
        server.stop();
    }
    middle(spans)
}

/// Milliseconds.
fn middle(mut spans: Vec<Duration>) -> f64 {
    spans.sort();
    spans[spans.len() / 2].as_secs_f64() * 1000.0
}

/// Each session's first heartbeat since the start, which is checked against the file.
async fn hear_everybody(server: &Process, shop: &Shop) -> Measured {
    let work = Work::Post(HEARTBEAT, Arc::new(shop.heartbeats.clone()));
    let heard = drive(&server.target(&shop.api_key), &work, 64, Until::AllSent).await;
    tokio::time::sleep(SETTLED).await;
    let label = format!("memory, {BUSY} sessions heard, MiB");
    report::small(&label, server.rss_mib(), None);
    heard
}

const HEARTBEAT: &str = "/api/license/session/heartbeat";

/// The lines of the table; the first one is the measure of the others.
fn rows(bare: &Process, front: &Process, server: &Process, shop: Shop) -> Vec<Row> {
    let Shop {
        api_key,
        heartbeats,
        verifications,
        starts,
    } = shop;
    let heartbeats = Arc::new(heartbeats);
    let echo = |target: Target, label, wanted| Row {
        label,
        target,
        work: Work::Post("/echo", heartbeats.clone()),
        wanted,
        crowd: false,
    };
    let real = |label, work, ratio, p99_ms, crowd| Row {
        label,
        target: server.target(&api_key),
        work,
        wanted: Wanted {
            of: 0,
            ratio,
            p99_ms,
        },
        crowd,
    };
    let post = |path, bodies: &Arc<Vec<Bytes>>| Work::Post(path, bodies.clone());
    let verifications = Arc::new(verifications);
    let verify = post("/api/license/verify", &verifications);
    vec![
        echo(bare.target(""), "echo, Rocket's listener", Wanted::NOTHING),
        echo(
            front.target(""),
            "echo, front with TLS",
            Wanted {
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
            wanted: Wanted {
                of: 1,
                ratio: Some(0.9),
                p99_ms: None,
            },
            crowd: false,
        },
    ]
}

/// The two echoes, and the rows that the arguments name; all, if they name none.
fn asked_for(mut rows: Vec<Row>) -> Vec<Row> {
    let words = words();
    rows.retain(|row| {
        row.label.starts_with("echo")
            || words.is_empty()
            || words.iter().any(|word| row.label.contains(word))
    });
    rows
}

/// Every row at so many connections, in turns.
async fn column(rows: &[Row], connections: usize, part: Duration) -> Vec<Measured> {
    let mut all: Vec<Measured> = rows.iter().map(|_| Measured::nothing()).collect();
    for _ in 0..ROUNDS {
        for (row, measured) in rows.iter().zip(&mut all) {
            let round = drive(&row.target, &row.work, connections, Until::Passed(part)).await;
            measured.add(&round);
        }
    }
    all
}
