//! One series over time as an SVG path and as a table. Rust does the arithmetic, the template only places it.

use serde::Serialize;

use crate::clock::UnixMs;

/// The picture's own units: 100 wide, 40 high.
const WIDTH: f64 = 100.0;
const HEIGHT: f64 = 40.0;
/// Lines of the grid; the highest one is the top of the picture.
const LINES: u32 = 4;

/// How many there were at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// When.
    pub at: UnixMs,
    /// How many.
    pub value: u32,
}

/// A chart for the template `parts/chart.html.tera`.
#[derive(Clone, Debug, Serialize)]
pub struct Chart {
    /// The path of the line.
    pub line: String,
    /// The path of what is below it.
    pub area: String,
    /// What one line of the grid stands for.
    pub step: u32,
    /// The first point.
    pub first: Point,
    /// The last one: now.
    pub last: Point,
    /// The highest one; of several the latest.
    pub peak: Point,
    /// The least of all values.
    pub least: u32,
    /// The highest value of each span of the table, under the moment at which the span begins.
    pub rows: Vec<Point>,
}

/// Draws `points`, which are in order of time, with a table of a row for every `row_ms`; nothing where there
/// is no point.
pub fn draw(points: &[Point], row_ms: i64) -> Option<Chart> {
    let (first, last) = (*points.first()?, *points.last()?);
    let peak = *points.iter().max_by_key(|point| (point.value, point.at))?;
    let lowest = points.iter().map(|point| point.value).min()?;
    let step = step(peak.value);
    let top = f64::from(step * LINES);
    let span = seconds(last.at.0 - first.at.0).max(1.0);
    let places: Vec<String> = points
        .iter()
        .map(|point| {
            let x = seconds(point.at.0 - first.at.0) / span * WIDTH;
            let y = HEIGHT - f64::from(point.value) / top * HEIGHT;
            format!("{x:.1} {y:.1}")
        })
        .collect();
    let line = format!("M{}", places.join("L"));
    Some(Chart {
        area: format!("{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z"),
        line,
        step,
        first,
        last,
        peak,
        least: lowest,
        rows: table(points, row_ms.max(1)),
    })
}

/// The least of 1, 2, 5, 10, 20, … with which the grid is as high as `peak`.
fn step(peak: u32) -> u32 {
    let mut power = 1_u32;
    loop {
        for of in [1, 2, 5] {
            let step = power.saturating_mul(of);
            if step.saturating_mul(LINES) >= peak {
                return step;
            }
        }
        power = power.saturating_mul(10);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds of a month are far below 2^52"
)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn table(points: &[Point], row_ms: i64) -> Vec<Point> {
    let mut rows: Vec<Point> = Vec::new();
    for point in points {
        let at = UnixMs(point.at.0.div_euclid(row_ms) * row_ms);
        match rows.last_mut() {
            Some(row) if row.at == at => row.value = row.value.max(point.value),
            _ => rows.push(Point {
                at,
                value: point.value,
            }),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(i64, u32)]) -> Vec<Point> {
        let point = |&(at, value): &(i64, u32)| Point {
            at: UnixMs(at),
            value,
        };
        values.iter().map(point).collect()
    }

    #[test]
    fn a_line_goes_from_edge_to_edge_and_as_high_as_the_grid() {
        let chart = draw(&points(&[(0, 0), (1000, 4), (4000, 2)]), 1000).unwrap();
        assert_eq!(chart.line, "M0.0 40.0L25.0 0.0L100.0 20.0");
        assert_eq!(chart.area, "M0.0 40.0L25.0 0.0L100.0 20.0L100 40L0 40Z");
        assert_eq!((chart.peak.value, chart.last.value, chart.least), (4, 2, 0));
        assert_eq!(chart.peak.at, UnixMs(1000));
    }

    #[test]
    fn nothing_draws_nothing_and_one_point_draws_a_point() {
        assert!(draw(&[], 1000).is_none());
        assert_eq!(draw(&points(&[(7, 0)]), 0).unwrap().line, "M0.0 40.0");
    }

    #[test]
    fn the_grid_is_as_high_as_the_peak_in_round_steps() {
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
            (u32::MAX, 2_000_000_000),
        ] {
            assert_eq!(step(peak), expected, "{peak}");
        }
    }

    #[test]
    fn a_row_of_the_table_holds_the_highest_value_of_its_span() {
        let rows = table(
            &points(&[(500, 3), (999, 1), (1000, 2), (1500, 5), (3100, 0)]),
            1000,
        );
        assert_eq!(rows, points(&[(0, 3), (1000, 5), (3000, 0)]));
    }
}
