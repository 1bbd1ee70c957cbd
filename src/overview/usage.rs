//! How many sessions ran at each moment of a period.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Now, Tick, UnixMs};
use crate::db::Reader;
use crate::error::Result;
use crate::id::ProductId;
use crate::live_sessions::LiveSessions;
use crate::session_history::{self, FoldedRow};
use crate::sessions;

/// The period for which session counts are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// 24 hours, every ten minutes.
    Day,
    /// 7 days, every hour.
    Week,
    /// 30 days, every four hours.
    Month,
}

impl Period {
    /// Every period; the first is the default.
    pub const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// Its length in days.
    pub const fn days(self) -> u32 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
        }
    }

    /// The time from one sample to the next.
    const fn step(self) -> Duration {
        match self {
            Self::Day => Duration::from_mins(10),
            Self::Week => Duration::from_hours(1),
            Self::Month => Duration::from_hours(4),
        }
    }
}

/// Whose sessions are counted, and for which period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UsageQuery {
    /// Of this product only.
    pub product: Option<ProductId>,
    /// The period.
    pub period: Period,
}

/// How many sessions ran at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The moment.
    pub at: UnixMs,
    /// The number of sessions.
    pub running: u32,
}

/// The session counts of each product and period, cached for a minute: a month of a busy shop has a million starts and
/// ends.
#[derive(Debug, Default)]
pub struct UsageCache(Mutex<CachedSeries>);

/// When each series was computed, and its samples.
type CachedSeries = HashMap<UsageQuery, (Tick, Arc<Vec<Sample>>)>;

/// How long a series is cached.
const CACHE_TTL: Duration = Duration::from_mins(1);
/// Series in the cache at most: some 3 kB each.
const CACHED_MAX: usize = 100;

impl UsageCache {
    /// How many sessions ran during a period, in order of time; the last sample is now. Downtime of the server is not
    /// marked: no session starts or ends in it.
    pub fn get(
        &self,
        reader: &Reader<'_>,
        live: &LiveSessions,
        query: UsageQuery,
        now: Now,
    ) -> Result<Vec<Sample>> {
        let is_fresh = |computed: Tick| now.tick.since(computed) < CACHE_TTL;
        let cached = self.entries().get(&query).cloned();
        let cached = cached.filter(|(computed, _)| is_fresh(*computed));
        let series = if let Some((_, series)) = cached {
            series
        } else {
            let series = Arc::new(concurrency_series(reader, live, query, now)?);
            let mut entries = self.entries();
            entries.retain(|_, (computed, _)| is_fresh(*computed));
            if entries.len() < CACHED_MAX {
                entries.insert(query, (now.tick, series.clone()));
            }
            series
        };
        let past = series.iter().filter(|sample| sample.at < now.wall);
        let mut samples: Vec<Sample> = past.copied().collect();
        samples.push(Sample {
            at: now.wall,
            running: sessions::live_count(reader, query.product, live, now)?,
        });
        Ok(samples)
    }

    fn entries(&self) -> MutexGuard<'_, CachedSeries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted backwards from the sessions that run now, by the starts and ends in each step. Folded sessions have no
/// start and end of their own and are estimated.
fn concurrency_series(
    reader: &Reader<'_>,
    live: &LiveSessions,
    UsageQuery { product, period }: UsageQuery,
    now: Now,
) -> Result<Vec<Sample>> {
    let times = sample_times(period.days(), period.step(), now.wall);
    let spans = sessions::spans(reader, product, live, now)?;
    let mut starts: Vec<UnixMs> = spans.iter().map(|span| span.started_at).collect();
    // Timed out, but the sweep has not moved them to the history yet.
    let mut ends: Vec<UnixMs> = spans.iter().filter_map(|span| span.timed_out_at).collect();
    let running = u32::try_from(spans.len() - ends.len()).unwrap_or(u32::MAX);
    starts.sort_unstable();
    ends.sort_unstable();
    let mut changes = Vec::with_capacity(times.len());
    for (after, until) in times.iter().zip(times.iter().skip(1)) {
        let (after, until) = (*after, *until);
        changes.push(CountChange {
            started: session_history::started_between(reader, product, after, until)?
                + between(&starts, after, until),
            ended: session_history::ended_between(reader, product, after, until)?
                + between(&ends, after, until),
        });
    }
    let folded = match times.first() {
        Some(first) => session_history::folded_since(reader, product, *first)?,
        None => Vec::new(),
    };
    let counts = concurrent(running, &changes).into_iter();
    let counts = times.into_iter().zip(counts);
    let sample = |(at, running): (UnixMs, u32)| Sample {
        at,
        running: running.saturating_add(estimate_folded(&folded, at)),
    };
    Ok(counts.map(sample).collect())
}

/// How many of the sorted `moments` lie after `after`, up to and including `until`.
fn between(moments: &[UnixMs], after: UnixMs, until: UnixMs) -> u32 {
    let below = |edge: UnixMs| moments.partition_point(|moment| *moment <= edge);
    u32::try_from(below(until).saturating_sub(below(after))).unwrap_or(u32::MAX)
}

/// How many sessions started and ended between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CountChange {
    started: u32,
    ended: u32,
}

/// How many sessions ran before, between and after `changes`, which are in order of time: counted backwards from
/// `running`, the number after the last change.
fn concurrent(running: u32, changes: &[CountChange]) -> Vec<u32> {
    let mut counts = vec![running];
    let mut count = running;
    for change in changes.iter().rev() {
        // Would be negative only if part of the history was purged.
        count = count
            .saturating_add(change.ended)
            .saturating_sub(change.started);
        counts.push(count);
    }
    counts.reverse();
    counts
}

/// The share of the time from first start to last end during which a folded session ran, in thousandths; 0 outside of
/// it.
fn share(folded: &FoldedRow, at: UnixMs) -> u64 {
    let span = folded.ended_at.0.saturating_sub(folded.started_at.0);
    if span <= 0 || !(folded.started_at..folded.ended_at).contains(&at) {
        return 0;
    }
    let share = folded.ran_ms.saturating_mul(1000) / span;
    u64::try_from(share.min(1000)).unwrap_or(0)
}

/// An estimate of how many of the folded sessions ran at `at`: the running time of each row is spread evenly over its
/// span.
fn estimate_folded(rows: &[FoldedRow], at: UnixMs) -> u32 {
    let thousandths: u64 = rows.iter().map(|row| share(row, at)).sum();
    u32::try_from((thousandths + 500) / 1000).unwrap_or(u32::MAX)
}

/// The moments of the samples for the last `days`: whole multiples of `step`, and `now`.
fn sample_times(days: u32, step: Duration, now: UnixMs) -> Vec<UnixMs> {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let first = now.minus(Duration::from_hours(24) * days).0;
    let first = first.saturating_add(step - 1).div_euclid(step);
    let last = now.0.div_euclid(step);
    let mut times: Vec<UnixMs> = (first..=last).map(|n| UnixMs(n * step)).collect();
    if times.last() != Some(&now) {
        times.push(now);
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrency_is_counted_back_from_now() {
        let change = |started, ended| CountChange { started, ended };
        for (running, changes, expected) in [
            (3, vec![], vec![3]),
            (3, vec![change(1, 0)], vec![2, 3]),
            (0, vec![change(2, 0), change(1, 3)], vec![0, 2, 0]),
            (5, vec![change(0, 2), change(10, 6)], vec![3, 1, 5]),
            // A start whose end was purged.
            (1, vec![change(4, 0)], vec![0, 1]),
        ] {
            assert_eq!(concurrent(running, &changes), expected, "{changes:?}");
        }
    }

    #[test]
    fn samples_are_taken_at_whole_steps_and_now() {
        const HOUR_MS: i64 = 3_600_000;
        let hour = Duration::from_hours(1);
        let times = sample_times(1, hour, UnixMs(48 * HOUR_MS + 7));
        assert_eq!(times.len(), 25);
        assert_eq!(times.first(), Some(&UnixMs(25 * HOUR_MS)));
        assert_eq!(times.last(), Some(&UnixMs(48 * HOUR_MS + 7)));
        assert_eq!(sample_times(1, hour, UnixMs(48 * HOUR_MS)).len(), 25);
    }
}
