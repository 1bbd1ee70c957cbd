//! Charts as SVG paths and as tables: a line of a number over time, and stacked bars of counts. All arithmetic is done here;
//! the template only prints it.

use serde::Serialize;

use crate::clock::UnixMs;

/// The size of the SVG view box.
const WIDTH: f64 = 100.0;
const HEIGHT: f64 = 40.0;
/// Number of horizontal grid lines above zero; the highest one is the upper edge.
const GRID_LINES: u32 = 4;
/// The share of its place that a bar takes up.
const BAR: f64 = 0.8;
/// The number of labels of the time axis: the first of these that divides the number of bins.
const TICKS: [usize; 2] = [6, 7];

/// A number at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// The moment.
    pub at: UnixMs,
    /// The number.
    pub value: u32,
}

/// The time that a chart spans.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The first moments of its bins, which have a bar or a row of the table each; in order of time.
    pub starts: &'a [UnixMs],
    /// The end of the last bin.
    pub end: UnixMs,
    /// Whether the bins are hours, and not days.
    pub by_hour: bool,
}

/// The counts of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Counts<'a> {
    /// The kind, as a key of its text; may be empty if it is the only one.
    pub word: &'a str,
    /// A count for each bin.
    pub counts: &'a [u32],
}

/// A chart for the template `parts/chart.html.tera`.
#[derive(Clone, Debug, Serialize)]
pub struct Chart {
    /// The SVG path of a line; empty if the chart has bars.
    pub line: String,
    /// The SVG path of the area below the line.
    pub area: String,
    /// The bars of each kind, the lowest first.
    pub bars: Vec<Bars>,
    /// The numbers at the grid lines, the highest first.
    pub scale: Vec<u32>,
    /// The moments at which the labels of the time axis begin, at equal distances.
    pub ticks: Vec<UnixMs>,
    /// Whether these, and the rows of the table, are hours, and not days.
    pub by_hour: bool,
    /// The highest point; the latest one if there are several. Of bars, the start of the bin.
    pub peak: Point,
    /// The last number.
    pub last: u32,
    /// The sum of all bars.
    pub total: u32,
    /// The rows of the table.
    pub rows: Vec<Row>,
}

/// The bars of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Bars {
    /// The kind.
    pub word: String,
    /// The SVG path.
    pub path: String,
    /// Their sum.
    pub total: u32,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// When its bin begins.
    pub at: UnixMs,
    /// The numbers: the highest of a line, or the counts of each kind.
    pub values: Vec<u32>,
    /// Their sum.
    pub total: u32,
}

/// The chart of a number over time. Each of `points`, which are in order of time, is valid until the next one; `most` has
/// the highest number in each bin.
pub fn line(span: &Span<'_>, points: &[Point], most: &[u32]) -> Chart {
    let zero = Point {
        at: span.end,
        value: 0,
    };
    let peak = points.iter().max_by_key(|point| (point.value, point.at));
    let peak = peak.copied().unwrap_or(zero);
    let step = step(peak.value);
    let y = |value: u32| HEIGHT - f64::from(value) / f64::from(step * GRID_LINES) * HEIGHT;
    let mut line = Vec::with_capacity(points.len());
    for point in points {
        let (x, y) = (span.x(point.at), y(point.value));
        line.push(if line.is_empty() {
            format!("M{x:.1} {y:.1}")
        } else {
            format!("H{x:.1}V{y:.1}")
        });
    }
    let line = line.concat();
    let ends = points.first().zip(points.last());
    let area = ends.map(|(first, last)| {
        let (from, to) = (span.x(first.at), span.x(last.at));
        format!("{line}L{to:.1} {HEIGHT}L{from:.1} {HEIGHT}Z")
    });
    let rows = span.starts.iter().zip(most);
    Chart {
        area: area.unwrap_or_default(),
        line,
        peak,
        last: points.last().map_or(0, |point| point.value),
        rows: rows
            .map(|(at, value)| Row::new(*at, vec![*value]))
            .collect(),
        ..Chart::empty(span, step)
    }
}

/// The chart of counts in each bin, those of several kinds on top of each other.
pub fn bars(span: &Span<'_>, kinds: &[Counts<'_>]) -> Chart {
    let counts_of = |bin: usize| -> Vec<u32> {
        let counts = kinds.iter().map(|kind| kind.counts.get(bin).copied());
        counts.map(Option::unwrap_or_default).collect()
    };
    let rows = span.starts.iter().enumerate();
    let rows: Vec<Row> = rows
        .map(|(bin, at)| Row::new(*at, counts_of(bin)))
        .collect();
    let peak = rows.iter().max_by_key(|row| (row.total, row.at));
    let peak = Point {
        at: peak.map_or(span.end, |row| row.at),
        value: peak.map_or(0, |row| row.total),
    };
    let step = step(peak.value);
    let bars = kinds.iter().enumerate().map(|(kind, counts)| Bars {
        word: counts.word.to_owned(),
        path: bar_path(&rows, kind, step),
        total: sum(counts.counts),
    });
    let bars: Vec<Bars> = bars.collect();
    let totals: Vec<u32> = bars.iter().map(|bars| bars.total).collect();
    Chart {
        bars,
        peak,
        last: rows.last().map_or(0, |row| row.total),
        total: sum(&totals),
        rows,
        ..Chart::empty(span, step)
    }
}

/// The SVG path of the bars of the kind with this number, on top of those with lower numbers.
fn bar_path(rows: &[Row], kind: usize, step: u32) -> String {
    let width = WIDTH / f64::from(u32::try_from(rows.len().max(1)).unwrap_or(u32::MAX));
    let height = |count: u32| f64::from(count) / f64::from(step * GRID_LINES) * HEIGHT;
    let mut bars = Vec::new();
    for (bin, row) in (0_u32..).zip(rows) {
        let below = sum(row.values.get(..kind).unwrap_or_default());
        let count = row.values.get(kind).copied().unwrap_or_default();
        if count > 0 {
            let x = (f64::from(bin) + (1.0 - BAR) / 2.0) * width;
            let (w, h) = (BAR * width, height(count));
            let y = HEIGHT - height(below) - h;
            bars.push(format!("M{x:.2} {y:.2}h{w:.2}v{h:.2}h-{w:.2}Z"));
        }
    }
    bars.concat()
}

impl Chart {
    /// A chart with the axes for a grid of these steps, and nothing else.
    fn empty(span: &Span<'_>, step: u32) -> Self {
        Self {
            line: String::new(),
            area: String::new(),
            bars: Vec::new(),
            scale: (0..=GRID_LINES).rev().map(|line| line * step).collect(),
            ticks: span.ticks(),
            by_hour: span.by_hour,
            peak: Point {
                at: span.end,
                value: 0,
            },
            last: 0,
            total: 0,
            rows: Vec::new(),
        }
    }
}

impl Row {
    fn new(at: UnixMs, values: Vec<u32>) -> Self {
        let total = sum(&values);
        Self { at, values, total }
    }
}

impl Span<'_> {
    /// The place of a moment in the view box.
    fn x(&self, at: UnixMs) -> f64 {
        let first = self.starts.first().copied().unwrap_or(self.end);
        let length = seconds(self.end.0.saturating_sub(first.0)).max(1.0);
        let x = seconds(at.0.saturating_sub(first.0)) / length * WIDTH;
        x.clamp(0.0, WIDTH)
    }

    fn ticks(&self) -> Vec<UnixMs> {
        let bins = self.starts.len();
        let mut counts = TICKS.into_iter();
        let count = counts.find(|count| bins.is_multiple_of(*count));
        let every = (bins / count.unwrap_or(1)).max(1);
        self.starts.iter().step_by(every).copied().collect()
    }
}

fn sum(counts: &[u32]) -> u32 {
    let counts = counts.iter();
    counts.fold(0, |sum: u32, count| sum.saturating_add(*count))
}

/// The smallest of 1, 2, 5, 10, 20, … with which the grid reaches `peak`.
fn step(peak: u32) -> u32 {
    let mut power = 1_u32;
    loop {
        for factor in [1, 2, 5] {
            let step = power.saturating_mul(factor);
            if step.saturating_mul(GRID_LINES) >= peak {
                return step.min(u32::MAX / GRID_LINES);
            }
        }
        power = power.saturating_mul(10);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the seconds of some months are far fewer than 2^52"
)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(starts: &[UnixMs]) -> Span<'_> {
        Span {
            starts,
            end: UnixMs(4000),
            by_hour: true,
        }
    }

    fn points(values: &[(i64, u32)]) -> Vec<Point> {
        let point = |&(at, value): &(i64, u32)| Point {
            at: UnixMs(at),
            value,
        };
        values.iter().map(point).collect()
    }

    const STARTS: [UnixMs; 4] = [UnixMs(0), UnixMs(1000), UnixMs(2000), UnixMs(3000)];

    #[test]
    fn a_line_has_steps_that_are_scaled_to_the_grid() {
        let points = points(&[(-500, 0), (1000, 4), (2000, 2), (3500, 1)]);
        let chart = line(&span(&STARTS), &points, &[0, 4, 2, 2]);
        assert_eq!(chart.line, "M0.0 40.0H25.0V0.0H50.0V20.0H87.5V30.0");
        assert_eq!(chart.area, format!("{}L87.5 40L0.0 40Z", chart.line));
        assert_eq!((chart.peak.at, chart.peak.value), (UnixMs(1000), 4));
        assert_eq!((chart.last, chart.scale), (1, vec![4, 3, 2, 1, 0]));
        assert_eq!(chart.rows[1], Row::new(UnixMs(1000), vec![4]));
        assert!(line(&span(&STARTS), &[], &[]).line.is_empty());
    }

    #[test]
    fn bars_are_stacked_and_a_count_of_zero_has_none() {
        let kinds = [("a", &[0, 2, 0, 1]), ("b", &[0, 6, 0, 0])];
        let kinds = kinds.map(|(word, counts)| Counts { word, counts });
        let chart = bars(&span(&STARTS), &kinds);
        let paths: Vec<_> = chart.bars.iter().map(|bars| &*bars.path).collect();
        let first = "M27.50 30.00h20.00v10.00h-20.00ZM77.50 35.00h20.00v5.00h-20.00Z";
        assert_eq!(paths, [first, "M27.50 0.00h20.00v30.00h-20.00Z"]);
        assert_eq!((chart.total, chart.last, chart.peak.value), (9, 1, 8));
        let totals: Vec<_> = chart.bars.iter().map(|bars| bars.total).collect();
        assert_eq!(totals, [3, 6]);
        assert_eq!(chart.rows[1], Row::new(UnixMs(1000), vec![2, 6]));
        let nothing = bars(&span(&STARTS), &[]);
        assert_eq!((nothing.total, nothing.rows.len()), (0, 4));
    }

    #[test]
    fn the_time_axis_has_six_or_seven_labels_at_equal_distances() {
        for (bins, labels) in [(24, 6), (7, 7), (30, 6), (90, 6)] {
            let starts: Vec<UnixMs> = (0..bins).map(UnixMs).collect();
            let ticks = span(&starts).ticks();
            assert_eq!((ticks.len(), ticks[0]), (labels, UnixMs(0)));
            assert_eq!(ticks[1].0 * i64::try_from(labels).unwrap(), bins);
        }
    }

    #[test]
    fn the_grid_reaches_the_peak_in_round_steps() {
        for (peak, expected) in [
            (0, 1),
            (4, 1),
            (5, 2),
            (8, 2),
            (9, 5),
            (21, 10),
            (80, 20),
            (81, 50),
            (10_000, 5000),
            (u32::MAX, u32::MAX / 4),
        ] {
            assert_eq!(step(peak), expected, "{peak}");
        }
    }
}
