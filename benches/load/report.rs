//! The table of results: one line for each measurement, as text or as JSON.

use serde::Serialize;

/// A line of the table. What does not apply to it stays empty.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Line {
    /// The part of the benchmark.
    pub part: &'static str,
    pub what: String,
    pub connections: Option<usize>,
    pub per_second: Option<f64>,
    /// The throughput, divided by that of the row it is compared with; the least one that is wanted.
    pub ratio: Option<f64>,
    pub ratio_wanted: Option<f64>,
    /// The distance between the slowest and the fastest round, as a percentage of the median.
    pub spread_percent: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// The p99 latency must be below this.
    pub p99_wanted_ms: Option<f64>,
    /// CPU time of the server per request.
    pub processor_us: Option<f64>,
    /// Anything else, in `unit`.
    pub value: Option<f64>,
    pub unit: &'static str,
    /// The value must be below this.
    pub value_wanted: Option<f64>,
    /// Responses that were not 2xx: the line is not valid if there are any.
    pub refused: u64,
    pub note: String,
}

impl Line {
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ..Self::default()
        }
    }

    /// A line with one value, which must be below `wanted`.
    pub fn value(
        what: impl Into<String>,
        (value, unit): (f64, &'static str),
        wanted: Option<f64>,
    ) -> Self {
        Self {
            value: Some(value),
            unit,
            value_wanted: wanted,
            ..Self::new(what)
        }
    }

    /// Whether it is as wanted.
    pub fn is_good(&self) -> bool {
        let below = |is: Option<f64>, wanted: Option<f64>| {
            is.zip(wanted).is_none_or(|(is, wanted)| is < wanted)
        };
        let ratio = self.ratio.zip(self.ratio_wanted);
        self.refused == 0
            && ratio.is_none_or(|(is, wanted)| is >= wanted)
            && below(self.p99_ms, self.p99_wanted_ms)
            && below(self.value, self.value_wanted)
    }

    fn print(&self) {
        let number = |is: Option<f64>, digits: usize| {
            is.map_or_else(String::new, |is| format!("{is:.digits$}"))
        };
        let below = |wanted: Option<f64>| {
            wanted.map_or_else(String::new, |wanted| format!("< {wanted:.0}"))
        };
        let connections = self.connections.map(|number| number.to_string());
        let value = self.value.map(|is| format!("{is:.1} {}", self.unit));
        let refused = (self.refused > 0).then(|| format!("{} REFUSED ", self.refused));
        let line = format!(
            "{:1} {:46} {:>6} {:>9} {:>6} {:>6} {:>4} {:>8} {:>8} {:>5} {:>7} {:>10} {:>6} {}{}",
            if self.is_good() { "" } else { "!" },
            self.what,
            connections.unwrap_or_default(),
            number(self.per_second, 0),
            number(self.ratio, 2),
            number(self.ratio_wanted, 2),
            number(self.spread_percent, 0),
            number(self.p50_ms, 2),
            number(self.p99_ms, 2),
            below(self.p99_wanted_ms),
            number(self.processor_us, 1),
            value.unwrap_or_default(),
            below(self.value_wanted),
            refused.unwrap_or_default(),
            self.note,
        );
        println!("{}", line.trim_end());
    }
}

/// How the table is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    /// One object a line.
    Json,
}

/// Prints lines as they come.
pub struct Report {
    format: Format,
    part: &'static str,
}

impl Report {
    pub fn new(format: Format) -> Self {
        if format == Format::Text {
            println!(
                "{:48} {:>6} {:>9} {:>6} {:>6} {:>4} {:>8} {:>8} {:>5} {:>7} {:>10} {:>6}",
                "",
                "conns",
                "a second",
                "ratio",
                "wanted",
                "±%",
                "p50 ms",
                "p99 ms",
                "",
                "CPU µs",
                "",
                ""
            );
        }
        Self { format, part: "" }
    }

    /// Begins a part.
    pub fn part(&mut self, name: &'static str) {
        self.part = name;
        if self.format == Format::Text {
            println!("\n{name}");
        }
    }

    pub fn add(&mut self, mut line: Line) {
        line.part = self.part;
        match self.format {
            Format::Text => line.print(),
            Format::Json => println!("{}", serde_json::to_string(&line).unwrap()),
        }
    }
}
