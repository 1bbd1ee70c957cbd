//! A time series as an SVG path and as a table. All arithmetic is done here; the template only prints it.

use serde::Serialize;

use crate::clock::UnixMs;

/// The size of the SVG view box.
const WIDTH: f64 = 100.0;
const HEIGHT: f64 = 40.0;
/// Number of horizontal grid lines above zero; the highest one is the upper edge.
const GRID_LINES: u32 = 4;

/// One sample of the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// When it was taken.
    pub at: UnixMs,
    /// The count at that time.
    pub value: u32,
}

/// A chart for the template `parts/chart.html.tera`.
#[derive(Clone, Debug, Serialize)]
pub struct Chart {
    /// The SVG path of the line.
    pub line: String,
    /// The SVG path of the area below the line.
    pub area: String,
    /// The difference in value between adjacent grid lines.
    pub step: u32,
    /// The first point.
    pub first: Point,
    /// The last point.
    pub last: Point,
    /// The highest point; the latest one if there are several.
    pub peak: Point,
    /// The lowest value.
    pub lowest: u32,
    /// The rows of the table: the highest value of each period, with the time at which the period begins.
    pub rows: Vec<Point>,
}

/// The chart of `points`, which are in chronological order, with one table row per `row_ms` milliseconds. `None`
/// if there are no points.
pub fn draw(points: &[Point], row_ms: i64) -> Option<Chart> {
    let (first, last) = (*points.first()?, *points.last()?);
    let peak = *points.iter().max_by_key(|point| (point.value, point.at))?;
    let lowest = points.iter().map(|point| point.value).min()?;
    let step = step(peak.value);
    let top = f64::from(step * GRID_LINES);
    let span = seconds(last.at.0 - first.at.0).max(1.0);
    let coordinates: Vec<String> = points
        .iter()
        .map(|point| {
            let x = seconds(point.at.0 - first.at.0) / span * WIDTH;
            let y = HEIGHT - f64::from(point.value) / top * HEIGHT;
            format!("{x:.1} {y:.1}")
        })
        .collect();
    let line = format!("M{}", coordinates.join("L"));
    Some(Chart {
        area: format!("{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z"),
        line,
        step,
        first,
        last,
        peak,
        lowest,
        rows: table(points, row_ms.max(1)),
    })
}

/// The smallest of 1, 2, 5, 10, 20, … with which the grid reaches `peak`.
fn step(peak: u32) -> u32 {
    let mut power = 1_u32;
    loop {
        for factor in [1, 2, 5] {
            let step = power.saturating_mul(factor);
            if step.saturating_mul(GRID_LINES) >= peak {
                return step;
            }
        }
        power = power.saturating_mul(10);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the seconds of a month are far fewer than 2^52"
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
    fn the_line_spans_the_width_and_is_scaled_to_the_grid() {
        let chart = draw(&points(&[(0, 0), (1000, 4), (4000, 2)]), 1000).unwrap();
        assert_eq!(chart.line, "M0.0 40.0L25.0 0.0L100.0 20.0");
        assert_eq!(chart.area, "M0.0 40.0L25.0 0.0L100.0 20.0L100 40L0 40Z");
        assert_eq!(
            (chart.peak.value, chart.last.value, chart.lowest),
            (4, 2, 0)
        );
        assert_eq!(chart.peak.at, UnixMs(1000));
    }

    #[test]
    fn no_points_make_no_chart_and_one_point_makes_one() {
        assert!(draw(&[], 1000).is_none());
        assert_eq!(draw(&points(&[(7, 0)]), 0).unwrap().line, "M0.0 40.0");
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
            (u32::MAX, 2_000_000_000),
        ] {
            assert_eq!(step(peak), expected, "{peak}");
        }
    }

    #[test]
    fn a_table_row_has_the_highest_value_of_its_period() {
        let rows = table(
            &points(&[(500, 3), (999, 1), (1000, 2), (1500, 5), (3100, 0)]),
            1000,
        );
        assert_eq!(rows, points(&[(0, 3), (1000, 5), (3000, 0)]));
    }
}
