//! Ten thousand programs, each with a TLS connection of its own that stays open, and a heartbeat every 30 seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::Method;
use tokio::task::JoinSet;

use crate::connection::{Connection, Target, source};
use crate::data::Shop;
use crate::drive::quantile_ms;
use crate::process::{Process, processor_time};
use crate::report::Line;
use crate::{Bench, HEARTBEAT, SETTLED, VERSION};

const PROGRAMS: u32 = 10_000;
/// The interval that the server asks programs for.
const INTERVAL: Duration = Duration::from_secs(30);
/// Heartbeats of each program after the one with which it opens its connection.
const BEATS: u32 = 2;
/// Goals for the p99 latency and for the memory of the server.
const P99_MS: f64 = 5.0;
const MEMORY_MIB: f64 = 200.0;

/// What happened to one program.
#[derive(Default)]
struct Program {
    /// Microseconds of each heartbeat after the first one.
    latencies: Vec<u64>,
    /// How often its connection had to be made again.
    opened_again: u64,
    refused: u64,
    /// Kept open until everything is measured.
    connection: Option<Connection>,
}

/// Measures the crowd. The programs open their connections within the first interval.
pub fn measure(bench: &mut Bench) {
    let installation = bench.usual();
    let shop = Shop::read(&installation);
    let runtime = bench.runtime.clone();
    runtime.block_on(async {
        let server = installation.serve();
        server.wait_until_ready(VERSION).await;
        tokio::time::sleep(SETTLED).await;
        let idle_mib = server.rss_mib();
        let target = server.target(&shop.api_key);
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..PROGRAMS {
            let (target, bodies) = (target.clone(), shop.heartbeats.clone());
            let first = begun + INTERVAL * number / PROGRAMS;
            let number = usize::try_from(number).unwrap();
            tasks.spawn(async move { beat(target, number, bodies, first).await });
        }
        tokio::time::sleep_until((begun + INTERVAL).into()).await;
        let before = processor_time(server.target("").pid);
        let programs = tasks.join_all().await;
        let used = processor_time(server.target("").pid).saturating_sub(before);
        report(bench, &server, (idle_mib, used), &programs);
        drop(programs);
        server.stop();
    });
}

/// One program.
async fn beat(target: Target, number: usize, bodies: Arc<Vec<Bytes>>, first: Instant) -> Program {
    let mut program = Program::default();
    let body = &bodies[number % bodies.len()];
    for turn in 0..=BEATS {
        tokio::time::sleep_until((first + INTERVAL * turn).into()).await;
        let sent = Instant::now();
        loop {
            if program.connection.is_none() {
                program.connection = Connection::try_open(&target, source(number)).await;
            }
            let Some(connection) = &mut program.connection else {
                program.refused += 1;
                break;
            };
            let answer = connection
                .try_send(Method::POST, HEARTBEAT, body.clone())
                .await;
            if let Some((status, _)) = answer {
                program.refused += u64::from(status != 200);
                break;
            }
            program.opened_again += 1;
            program.connection = None;
        }
        if turn > 0 {
            let micros = sent.elapsed().as_micros();
            program.latencies.push(u64::try_from(micros).unwrap());
        }
    }
    program
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn report(
    bench: &mut Bench,
    server: &Process,
    (idle_mib, used): (f64, Duration),
    programs: &[Program],
) {
    let mut latencies = Histogram::<u64>::new(3).unwrap();
    for micros in programs.iter().flat_map(|program| &program.latencies) {
        latencies.record(*micros).unwrap();
    }
    let again: u64 = programs.iter().map(|program| program.opened_again).sum();
    let span = INTERVAL.as_secs_f64() * f64::from(BEATS);
    bench.report.add(Line {
        connections: Some(programs.len()),
        per_second: Some(latencies.len() as f64 / span),
        p50_ms: Some(quantile_ms(&latencies, 0.5)),
        p99_ms: Some(quantile_ms(&latencies, 0.99)),
        p99_wanted_ms: Some(P99_MS),
        processor_us: Some(used.as_secs_f64() * 1e6 / latencies.len() as f64),
        refused: programs.iter().map(|program| program.refused).sum(),
        note: format!("p99.9 {:.1} ms", quantile_ms(&latencies, 0.999)),
        ..Line::new("heartbeat every 30 s")
    });
    let again = (again as f64, "");
    bench
        .report
        .add(Line::value("connections made again", again, Some(1.0)));
    let memory = server.rss_mib();
    let each = (memory - idle_mib) * 1024.0 / f64::from(PROGRAMS);
    bench.report.add(Line {
        note: format!("{idle_mib:.0} MiB before, {each:.1} KiB each"),
        ..Line::value("memory of the server", (memory, "MiB"), Some(MEMORY_MIB))
    });
}
