//! How the result looks.

use crate::drive::{Measured, Target, Work};
use crate::sites::Handshakes;

/// A line of the table.
pub struct Row {
    pub label: &'static str,
    pub target: Target,
    pub work: Work,
    pub wanted: Wanted,
    /// Whether it is also tried with more connections than are answered at once.
    pub crowd: bool,
}

/// What the house promises.
pub struct Wanted {
    /// The line that it is compared with: of the bare echo, or of the echo behind the front.
    pub of: usize,
    /// Of that at as many connections; at least.
    pub ratio: Option<f64>,
    /// At so many connections, below so many milliseconds.
    pub p99_ms: Option<(usize, f64)>,
}

impl Wanted {
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
            "\n{:64} {:>6} {:>7} {:>6} {:>6}",
            "", "ms", "wanted", "kB", "wanted"
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

pub fn page(path: &str, ms: f64, below_ms: f64, kb: f64, below_kb: f64) {
    println!(
        "{path:64} {ms:6.1} {:>7} {kb:6.1} {:>6}",
        format!("< {below_ms:.0}"),
        format!("< {below_kb:.0}")
    );
}

pub fn handshakes(label: &str, all: &Handshakes, at_least: Option<f64>, below_ms: Option<f64>) {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of some seconds")]
    let ms = |quantile: f64| all.spans.value_at_quantile(quantile) as f64 / 1000.0;
    let wanted =
        |is: Option<f64>, sign: &str| is.map_or(String::new(), |is| format!("{sign} {is:.0}"));
    println!(
        "{label:24} {:8.0} {:>7} {:8.1} {:8.1} {:>7} {:10.0}",
        all.per_second,
        wanted(at_least, ">"),
        ms(0.5),
        ms(0.99),
        wanted(below_ms, "<"),
        all.processor_us,
    );
    if all.refused > 0 {
        println!("    NOT AS IT SHOULD BE: {} were refused", all.refused);
    }
}

pub fn small(label: &str, is: f64, below: Option<f64>) {
    let wanted = below.map(|below| format!("< {below:.0}"));
    println!("{label:44} {is:8.2} {:>8}", wanted.unwrap_or_default());
}

pub fn line(row: &Row, connections: usize, measured: &Measured, all: &[Measured]) {
    let base = &all[row.wanted.of];
    let ratio = row.wanted.ratio.map(|ratio| format!("{ratio:.2}"));
    let p99 = row.wanted.p99_ms.filter(|(at, _)| *at == connections);
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

pub fn crowd(row: &Row, connections: usize, measured: &Measured) {
    println!(
        "{}, {connections} connections: {:.0}/s, p99 {:.1} ms, 5xx {} (wanted 0)",
        row.label,
        measured.per_second(),
        measured.quantile_ms(0.99),
        measured.failed
    );
    refused(measured);
}

/// Nothing that is measured may be refused: then something else was measured.
fn refused(measured: &Measured) {
    if measured.refused > 0 {
        println!(
            "    NOT AS IT SHOULD BE: {} answers were not 2xx",
            measured.refused
        );
    }
}
