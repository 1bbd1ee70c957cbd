//! Prints the results.

use crate::drive::{Measured, Target, Work};
use crate::sites::Handshakes;

/// A row of the table.
pub struct Row {
    pub label: &'static str,
    pub target: Target,
    pub work: Work,
    pub goal: Goal,
    /// Whether it is also measured with more connections than are served at once.
    pub overload: bool,
}

/// The goals of a row.
pub struct Goal {
    /// The index of the row that it is compared with: the bare echo, or the echo behind the front.
    pub of: usize,
    /// Least ratio to that row's throughput, with the same number of connections.
    pub ratio: Option<f64>,
    /// Number of connections, and the p99 latency in milliseconds that must not be exceeded with them.
    pub p99_ms: Option<(usize, f64)>,
}

impl Goal {
    pub const NOTHING: Self = Self {
        of: 0,
        ratio: None,
        p99_ms: None,
    };
}

pub fn heading(what: &str) {
    if what == "load" {
        println!(
            "\n{:24} {:>11} {:>10} {:>6} {:>6} {:>8} {:>8} {:>6} {:>10} {:>5}",
            "",
            "connections",
            "requests/s",
            "ratio",
            "wanted",
            "p50, ms",
            "p99, ms",
            "wanted",
            "server, µs",
            "5xx"
        );
    } else if what == "panel" {
        println!(
            "\n{:56} {:>8} {:>8} {:>7} {:>6} {:>6}",
            "", "p50, ms", "p95, ms", "wanted", "kB", "wanted"
        );
    } else if what == "sites" {
        println!(
            "\n{:24} {:>8} {:>7} {:>8} {:>8} {:>7} {:>10}",
            "handshakes", "a second", "wanted", "p50, ms", "p99, ms", "wanted", "server, µs"
        );
    } else {
        println!("\n{:44} {:>8} {:>8}", "", "is", "wanted");
    }
}

/// `ms`: the median and the 95th percentile.
pub fn page(path: &str, ms: (f64, f64), below_ms: f64, kb: f64, below_kb: f64) {
    println!(
        "{path:56} {:8.1} {:8.1} {:>7} {kb:6.1} {:>6}",
        ms.0,
        ms.1,
        format!("< {below_ms:.0}"),
        format!("< {below_kb:.0}")
    );
}

/// Says which pages were not answered within the goal.
pub fn slow_pages(paths: &[&str], below_ms: f64) {
    for path in paths {
        println!(
            "    NOT AS IT SHOULD BE: p95 of /lizenzserver{path} is not below {below_ms:.0} ms"
        );
    }
}

pub fn handshakes(label: &str, all: &Handshakes, at_least: Option<f64>, below_ms: Option<f64>) {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of some seconds")]
    let ms = |quantile: f64| all.spans.value_at_quantile(quantile) as f64 / 1000.0;
    let goal =
        |is: Option<f64>, sign: &str| is.map_or(String::new(), |is| format!("{sign} {is:.0}"));
    println!(
        "{label:24} {:8.0} {:>7} {:8.1} {:8.1} {:>7} {:10.0}",
        all.per_second,
        goal(at_least, ">"),
        ms(0.5),
        ms(0.99),
        goal(below_ms, "<"),
        all.processor_us,
    );
    if all.refused > 0 {
        println!("    NOT AS IT SHOULD BE: {} were refused", all.refused);
    }
}

pub fn small(label: &str, is: f64, below: Option<f64>) {
    let goal = below.map(|below| format!("< {below:.0}"));
    println!("{label:44} {is:8.2} {:>8}", goal.unwrap_or_default());
}

pub fn line(row: &Row, connections: usize, measured: &Measured, all: &[Measured]) {
    let base = &all[row.goal.of];
    let ratio = row.goal.ratio.map(|ratio| format!("{ratio:.2}"));
    let p99 = row.goal.p99_ms.filter(|(at, _)| *at == connections);
    println!(
        "{:24} {connections:>11} {:>10.0} {:>6.2} {:>6} {:>8.2} {:>8.2} {:>6} {:>10.1} {:>5}",
        row.label,
        measured.per_second(),
        measured.per_second() / base.per_second(),
        ratio.unwrap_or_default(),
        measured.quantile_ms(0.5),
        measured.quantile_ms(0.99),
        p99.map(|(_, below)| format!("< {below:.0}"))
            .unwrap_or_default(),
        measured.processor_us(),
        measured.failed,
    );
    refused(measured);
}

pub fn first_heartbeats(measured: &Measured) {
    println!(
        "first heartbeat of each session after a restart, 64 connections: {:.0}/s, p99 {:.1} ms",
        measured.per_second(),
        measured.quantile_ms(0.99)
    );
    refused(measured);
}

pub fn overload(row: &Row, connections: usize, measured: &Measured) {
    println!(
        "{}, {connections} connections: {:.0}/s, p99 {:.1} ms, 5xx {} (wanted 0)",
        row.label,
        measured.per_second(),
        measured.quantile_ms(0.99),
        measured.failed
    );
    refused(measured);
}

/// Prints a warning if requests were refused: the result is not valid then.
fn refused(measured: &Measured) {
    if measured.refused > 0 {
        println!(
            "    NOT AS IT SHOULD BE: {} answers were not 2xx",
            measured.refused
        );
    }
}
