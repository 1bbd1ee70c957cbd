//! Two servers in turns, call by call: one with little data and one with much, or two executables.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::params;

use crate::calls::{Row, measure_rows};
use crate::data::{self, Shop, Size};
use crate::drive::Work;
use crate::process::{Installation, Process};
use crate::report::Line;
use crate::{Bench, HEARTBEAT, SETTLED, VERSION};

const CONNECTIONS: usize = 64;
/// Rounds in which both servers take turns.
const ROUNDS: u32 = 8;
/// Running sessions of either server, so that only what does not call differs.
const SESSIONS: u32 = 5_000;
/// Another executable, to be compared with this one's.
pub const AGAINST: &str = "LICENSE_BENCH_AGAINST";

/// One of the two servers.
struct Side {
    label: &'static str,
    server: Process,
    shop: Shop,
}

/// Measures how much slower a server with 1,000,000 licenses is than one with 10,000.
pub fn growth(bench: &mut Bench) {
    let (small_dir, large_dir) = (bench.small_copy(), bench.large_copy());
    let (small, large) = (
        Installation::new(small_dir.path()),
        Installation::new(large_dir.path()),
    );
    sample_sessions(&large);
    let sides = [(&small, "10000 licenses"), (&large, "1000000 licenses")];
    measure(bench, sides, &[(CONNECTIONS, 0.9)]);
}

/// Measures another executable against this one's, with the same data.
pub fn builds(bench: &mut Bench) {
    let Some(other) = std::env::var_os(AGAINST).map(PathBuf::from) else {
        return;
    };
    let (one_dir, other_dir) = (bench.usual_copy(), bench.usual_copy());
    let this = Installation::new(one_dir.path());
    let that = Installation {
        executable: other,
        ..Installation::new(other_dir.path())
    };
    measure(bench, [(&that, "other build"), (&this, "this build")], &[]);
}

fn measure(
    bench: &mut Bench,
    sides: [(&Installation, &'static str); 2],
    wanted: &'static [(usize, f64)],
) {
    let part = Duration::from_secs_f64(bench.seconds) / ROUNDS;
    let runtime = bench.runtime.clone();
    runtime.block_on(async {
        let mut running = Vec::new();
        for (installation, label) in sides {
            let shop = Shop::read(installation);
            let server = installation.serve();
            server.wait_until_ready(VERSION).await;
            running.push(Side {
                label,
                server,
                shop,
            });
        }
        let rows = rows(&running, wanted);
        measure_rows(bench, &rows, CONNECTIONS, (ROUNDS, part)).await;
        tokio::time::sleep(SETTLED).await;
        for side in running {
            let memory = (side.server.rss_mib(), "MiB");
            let what = format!("memory, {}", side.label);
            bench.report.add(Line::value(what, memory, None));
            side.server.stop();
        }
    });
}

/// A row of either side for each call; that of the second is compared with that of the first.
fn rows(sides: &[Side], wanted: &'static [(usize, f64)]) -> Vec<Row> {
    let works = |shop: &Shop| {
        [
            ("heartbeat", Work::Post(HEARTBEAT, shop.heartbeats.clone())),
            (
                "verify",
                Work::Post("/api/license/verify", shop.verifications.clone()),
            ),
            ("start and end", Work::StartAndEnd(shop.starts.clone())),
            ("version", Work::Get(VERSION)),
        ]
    };
    let mut rows = Vec::new();
    for call in 0..4 {
        for (number, side) in sides.iter().enumerate() {
            let (label, work) = works(&side.shop)[call].clone();
            rows.push(Row {
                label: format!("{label}, {}", side.label),
                target: side.server.target(&side.shop.api_key),
                work,
                of: (number == 1).then(|| format!("{label}, {}", sides[0].label)),
                wanted: if number == 1 { wanted } else { &[] },
                p99_wanted: None,
            });
        }
    }
    rows
}

/// Leaves [`SESSIONS`] of the sessions, evenly over all licenses, and in rows of their own, as in the small database.
fn sample_sessions(installation: &Installation) {
    let mut connection = data::open(installation);
    let tx = connection.transaction().unwrap();
    let gap = Size::LARGE.sessions / SESSIONS;
    let kept = "create temp table kept as select * from active_sessions where session_id % ?1 = 0";
    tx.execute(kept, params![gap]).unwrap();
    let again = "delete from active_sessions; update kept set session_id = session_id / (select min(session_id) from kept); \
        insert into active_sessions select * from kept";
    tx.execute_batch(again).unwrap();
    tx.commit().unwrap();
}
