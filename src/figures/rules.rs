//! Rules: the periods of figures, the hours or days that they consist of, and how many sessions ran at once. No database, no
//! clock, no HTTP.

use std::ops::Range;
use std::time::Duration;

use super::{Sample, Series};
use crate::clock::UnixMs;
use crate::metrics::{QUARTER_MS, quarter};
use crate::zone::Zone;

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
/// `count` times 24 hours.
pub(super) fn days(count: u32) -> Duration {
    DAY * count
}

/// The period of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
    /// 90 days.
    Quarter,
}

impl Period {
    /// Every period; the first is the default.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Quarter];

    /// Its length in days.
    pub const fn days(self) -> u32 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
            Self::Quarter => 90,
        }
    }

    /// The period of so many days; 24 hours by default.
    pub fn of_days(days: Option<u32>) -> Self {
        let mut all = Self::ALL.into_iter();
        all.find(|period| Some(period.days()) == days)
            .unwrap_or(Self::Day)
    }

    /// Whether its bins are hours, and not days.
    pub const fn is_by_hour(self) -> bool {
        matches!(self, Self::Day)
    }

    /// The time from one point of the chart of concurrent sessions to the next.
    pub(super) const fn step(self) -> Duration {
        match self {
            Self::Day => Duration::from_mins(15),
            Self::Week => HOUR,
            Self::Month => Duration::from_hours(4),
            Self::Quarter => Duration::from_hours(12),
        }
    }
}

/// The hours or days of a period: the present one, and those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bins {
    starts: Vec<UnixMs>,
    end: UnixMs,
}

impl Bins {
    /// The bins of the period until `now`: hours or days of a time zone.
    pub fn of(period: Period, zone: &Zone, now: UnixMs) -> Self {
        let (mut starts, end) = if period.is_by_hour() {
            hours_until(zone, now)
        } else {
            days_until(period.days(), zone, now)
        };
        starts.reverse();
        Self { starts, end }
    }

    /// The first moment of the first bin.
    pub fn start(&self) -> UnixMs {
        self.starts.first().copied().unwrap_or(self.end)
    }

    /// The first moment of each bin, in order of time.
    pub fn starts(&self) -> &[UnixMs] {
        &self.starts
    }

    /// The end of the last bin, which is not over yet.
    pub const fn end(&self) -> UnixMs {
        self.end
    }

    /// The bin of a moment.
    fn index(&self, at: UnixMs) -> Option<usize> {
        let next = self.starts.partition_point(|start| *start <= at);
        next.checked_sub(1).filter(|_| at < self.end)
    }

    /// The most sessions at once in each bin.
    pub(super) fn most(&self, quarters: &[Sample]) -> Vec<u32> {
        let mut most = vec![0; self.starts.len()];
        for quarter in quarters {
            if let Some(value) = self.index(quarter.at).and_then(|bin| most.get_mut(bin)) {
                *value = quarter.running.max(*value);
            }
        }
        most
    }

    /// The span of each bin.
    pub(super) fn spans(&self) -> impl Iterator<Item = Range<UnixMs>> {
        let ends = self.starts.iter().skip(1).chain([&self.end]);
        self.starts.iter().zip(ends).map(|(from, to)| *from..*to)
    }
}

/// The sums of counts in each bin, by kind and code.
pub(super) struct Sums<'a> {
    bins: &'a Bins,
    all: Vec<Sum>,
    /// Where the last count was added: counts come in groups.
    last: usize,
}

struct Sum {
    kind: String,
    code: String,
    counts: Vec<u32>,
}

impl<'a> Sums<'a> {
    pub(super) const fn new(bins: &'a Bins) -> Self {
        Self {
            bins,
            all: Vec::new(),
            last: 0,
        }
    }

    /// Adds a count of a kind and code.
    pub(super) fn add(&mut self, (kind, code): (&str, &str), at: UnixMs, count: u32) {
        let Some(bin) = self.bins.index(at) else {
            return;
        };
        let is_it = |sum: &Sum| sum.code == code && sum.kind == kind;
        // The order of the codes is the same in each quarter of an hour.
        let next = [self.last, self.last + 1].into_iter();
        let known = next
            .chain(0..self.all.len())
            .find(|index| self.all.get(*index).is_some_and(is_it));
        self.last = known.unwrap_or_else(|| {
            self.all.push(Sum {
                kind: kind.to_owned(),
                code: code.to_owned(),
                counts: vec![0; self.bins.starts.len()],
            });
            self.all.len() - 1
        });
        let sum = self.all.get_mut(self.last);
        if let Some(value) = sum.and_then(|sum| sum.counts.get_mut(bin)) {
            *value = value.saturating_add(count);
        }
    }

    /// A series for each code of a kind.
    pub(super) fn of_kind(&self, kind: &str) -> Vec<Series> {
        let sums = self.all.iter().filter(|sum| sum.kind == kind);
        let series = sums.map(|sum| Series {
            word: sum.code.clone(),
            counts: sum.counts.clone(),
        });
        series.collect()
    }

    /// The series of a kind with this code; of zeros if nothing was counted.
    pub(super) fn series(&self, kind: &str, code: &str) -> Series {
        let mut all = self.of_kind(kind).into_iter();
        let found = all.find(|series| series.word == code);
        found.unwrap_or_else(|| Series {
            word: code.to_owned(),
            counts: vec![0; self.bins.starts.len()],
        })
    }
}

/// The starts of the last 24 hours of the clock, the latest first, and the end of the latest.
fn hours_until(zone: &Zone, now: UnixMs) -> (Vec<UnixMs>, UnixMs) {
    let (_, minute, second, millisecond) = zone.local(now).time().as_hms_milli();
    let seconds = i64::from(minute) * 60 + i64::from(second);
    let passed_ms = seconds * 1000 + i64::from(millisecond);
    let latest = quarter(UnixMs(now.0.saturating_sub(passed_ms)));
    let starts = (0..24).map(|hours| latest.minus(HOUR * hours));
    (starts.collect(), latest.plus(HOUR))
}

/// The starts of the last days, the latest first, and the end of the latest. The only place that says which days figures
/// have.
fn days_until(count: u32, zone: &Zone, now: UnixMs) -> (Vec<UnixMs>, UnixMs) {
    let days = zone.last_days(now, count);
    let end = days.first().map_or(now, |day| day.end);
    (days.iter().map(|day| day.start).collect(), end)
}

/// What the database counts of the sessions in a quarter of an hour.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuarterCounts {
    pub(super) at: UnixMs,
    pub(super) started: u32,
    pub(super) ended: u32,
    /// The most sessions at once after a start in it.
    pub(super) peak: u32,
}

/// The most sessions at once in every quarter of an hour from `since` until `now`: counted backwards from `running`, the
/// number after the last of `counts`. Quarters without a count had no start and no end.
pub(super) fn quarters(
    counts: &[QuarterCounts],
    running: u32,
    since: UnixMs,
    now: UnixMs,
) -> Vec<Sample> {
    let mut counts = counts.iter().rev().peekable();
    let mut after = running;
    // What was counted while the clock was ahead.
    while let Some(ahead) = counts.next_if(|counts| counts.at > now) {
        after = before(after, ahead);
    }
    let mut quarters = Vec::new();
    let mut at = quarter(now);
    while at >= since {
        let here = counts.next_if(|counts| counts.at >= at);
        let earlier = here.map_or(after, |here| before(after, here));
        let peak = here.map_or(0, |here| here.peak);
        quarters.push(Sample {
            at,
            running: earlier.max(after).max(peak),
        });
        after = earlier;
        at = UnixMs(at.0.saturating_sub(QUARTER_MS));
    }
    quarters.reverse();
    quarters
}

/// How many sessions ran before a quarter, by the number after it.
const fn before(after: u32, counts: &QuarterCounts) -> u32 {
    // Would be negative only if sessions are missing in the counts.
    after
        .saturating_add(counts.ended)
        .saturating_sub(counts.started)
}

/// The most of each step, which begins at a whole multiple of `step`.
pub(super) fn merged(quarters: &[Sample], step: Duration) -> Vec<Sample> {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let mut steps: Vec<Sample> = Vec::new();
    for quarter in quarters {
        let at = UnixMs(quarter.at.0.div_euclid(step) * step);
        match steps.last_mut() {
            Some(last) if last.at == at => last.running = last.running.max(quarter.running),
            _ => steps.push(Sample {
                at,
                running: quarter.running,
            }),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixMs = UnixMs(1_795_348_800_000); // 2026-11-22T12:00:00Z

    fn at(quarters: i64) -> UnixMs {
        UnixMs(NOON.0 + quarters * QUARTER_MS)
    }

    #[test]
    fn a_day_has_24_hours_and_the_others_have_days_with_the_present_one_at_the_end() {
        for period in Period::ALL {
            let bins = Bins::of(period, &Zone::default(), at(2));
            let (count, end) = match period {
                Period::Day => (24, at(4)),
                _ => (period.days() as usize, at(48)),
            };
            assert_eq!((bins.starts().len(), bins.end()), (count, end));
            assert_eq!(bins.index(at(2)), Some(count - 1), "{period:?}");
            assert_eq!(bins.index(bins.start()), Some(0));
            assert_eq!(bins.index(UnixMs(bins.start().0 - 1)), None);
            assert_eq!(bins.index(bins.end()), None);
            assert_eq!(Period::of_days(Some(period.days())), period);
        }
        assert_eq!(Period::of_days(Some(2)), Period::Day);
    }

    #[test]
    fn hours_and_days_are_those_of_the_zone_whatever_its_clocks_do() {
        let at = |text: &str| UnixMs::parse(text).unwrap();
        for (zone, period, now, latest, end, first) in [
            (
                "Europe/Berlin",
                Period::Week,
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
                "2026-10-18T22:00:00Z",
            ),
            (
                "Europe/Berlin",
                Period::Day,
                "2026-10-25T12:20:00Z",
                "2026-10-25T12:00:00Z",
                "2026-10-25T13:00:00Z",
                "2026-10-24T13:00:00Z",
            ),
            (
                "Asia/Kathmandu", // 5 h 45 min ahead
                Period::Day,
                "2026-11-22T12:20:31.5Z",
                "2026-11-22T12:15:00Z",
                "2026-11-22T13:15:00Z",
                "2026-11-21T13:15:00Z",
            ),
            (
                "Pacific/Kiritimati",
                Period::Week,
                "2026-11-22T12:00:00Z",
                "2026-11-22T10:00:00Z",
                "2026-11-23T10:00:00Z",
                "2026-11-16T10:00:00Z",
            ),
        ] {
            let bins = Bins::of(period, &Zone::named(zone).unwrap(), at(now));
            let found = (bins.start(), bins.starts().last().copied(), bins.end());
            assert_eq!(
                found,
                (at(first), Some(at(latest)), at(end)),
                "{zone} {now}"
            );
        }
    }

    #[test]
    fn sessions_are_counted_back_from_now_and_peaks_are_kept() {
        let counts = |quarter, started, ended, peak| QuarterCounts {
            at: at(quarter),
            started,
            ended,
            peak,
        };
        let running = |counts: &[QuarterCounts], running| -> Vec<u32> {
            let quarters = quarters(counts, running, at(-4), at(0));
            assert_eq!(quarters.first().unwrap().at, at(-4));
            quarters.iter().map(|sample| sample.running).collect()
        };
        assert_eq!(running(&[], 3), [3, 3, 3, 3, 3]);
        // Two that start and end within a quarter.
        assert_eq!(running(&[counts(-2, 2, 2, 5)], 3), [3, 3, 5, 3, 3]);
        let three = [counts(-3, 4, 0, 4), counts(-1, 0, 4, 0)];
        assert_eq!(running(&three, 0), [0, 4, 4, 4, 0]);
        // A start whose end is missing, and one of a clock that was ahead.
        assert_eq!(running(&[counts(-1, 4, 0, 4)], 1), [0, 0, 0, 4, 1]);
        assert_eq!(running(&[counts(1, 1, 0, 2)], 2), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn merged_steps_keep_the_peak() {
        let samples = |values: &[(i64, u32)]| -> Vec<Sample> {
            let samples = values.iter();
            samples
                .map(|(quarter, running)| Sample {
                    at: at(*quarter),
                    running: *running,
                })
                .collect()
        };
        let quarters = samples(&[(-2, 1), (-1, 7), (0, 2), (1, 9), (3, 3), (4, 1)]);
        assert_eq!(merged(&quarters, HOUR), samples(&[(-4, 7), (0, 9), (4, 1)]));
        let bins = Bins::of(Period::Day, &Zone::default(), at(4));
        assert_eq!(bins.most(&quarters)[21..], [7, 9, 1]);
    }

    #[test]
    fn a_series_has_a_number_for_every_bin() {
        let bins = Bins::of(Period::Week, &Zone::default(), NOON);
        let spans: Vec<_> = bins.spans().collect();
        assert_eq!((spans.len(), spans[6].end), (7, bins.end()));
        assert!(spans.iter().all(|span| span.end == span.start.plus(DAY)));
        let mut sums = Sums::new(&bins);
        for (code, quarter, count) in [
            ("a", -48, 5),
            ("b", 0, 1),
            ("a", -49, 2),
            ("b", -1, 3),
            ("a", 200, 9),
        ] {
            sums.add(("refusal", code), at(quarter), count);
        }
        sums.add(("license", "b"), NOON, 7);
        let all = sums.of_kind("refusal");
        let words: Vec<_> = all
            .iter()
            .map(|one| (&*one.word, &one.counts[5..]))
            .collect();
        assert_eq!(words, [("a", &[2, 5][..]), ("b", &[0, 4][..])]);
        assert_eq!(sums.series("refusal", "b").total(), 4);
        assert_eq!(sums.series("license", "b").total(), 7);
        assert_eq!(sums.series("refusal", "c").counts, [0; 7]);
    }
}
