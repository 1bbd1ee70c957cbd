//! Figures over time: how many sessions ran at once, started and ended, what was activated and refused, which licenses were
//! issued and ended, and which versions run. They are read from counts that the database keeps with every change
//! (`0019_figures.sql`), so that none of them reads the history.

mod rules;
mod store;

pub use rules::{Bins, Period};

use crate::clock::UnixMs;
use crate::db::{Db, Reader};
use crate::devices;
use crate::error::Result;
use crate::id::ProductId;
use crate::metrics::LOGIN_FAILED;
use crate::version::Version;
use crate::zone::Zone;
use rules::Sums;

/// For how many days counts are kept: those of the longest period, and the days that it begins and ends in.
const RETENTION_DAYS: u32 = 93;
/// For how many days after it was last seen a device counts as active.
pub const ACTIVE_DAYS: u32 = 30;

/// Whose figures, and for which period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiguresQuery {
    /// Of this product only.
    pub product: Option<ProductId>,
    /// The period.
    pub period: Period,
    /// The shop's time zone, whose hours and days are counted.
    pub zone: Zone,
}

impl FiguresQuery {
    /// The hours or days of the period until `now`.
    pub fn bins(&self, now: UnixMs) -> Bins {
        Bins::of(self.period, &self.zone, now)
    }
}

/// A number of sessions at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The moment.
    pub at: UnixMs,
    /// The number of sessions.
    pub running: u32,
}

/// How many sessions ran at once during a period.
#[derive(Clone, Debug)]
pub struct Concurrency {
    /// The most at once in each step of the period, in order of time; the last sample is now.
    pub steps: Vec<Sample>,
    /// The most at once in each bin.
    pub bins: Vec<u32>,
}

/// How often something happened in each bin of a period, by one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The word: a code or a kind; may be empty.
    pub word: String,
    /// A number for each bin.
    pub counts: Vec<u32>,
}

impl Series {
    /// The sum of all bins.
    pub fn total(&self) -> u32 {
        let counts = self.counts.iter();
        counts.fold(0, |total: u32, count| total.saturating_add(*count))
    }
}

/// What happened in each bin of a period.
#[derive(Clone, Debug)]
pub struct Activity {
    /// Sessions that started.
    pub sessions: Series,
    /// Devices that took a slot.
    pub activations: Series,
    /// Calls of programs and handshakes that were refused, by code, the most frequent first.
    pub refusals: Vec<Series>,
    /// Licenses that were issued: full ones, trials.
    pub issued: [Series; 2],
    /// Licenses that ended: full ones and trials that expired and were not extended since, and revoked ones.
    pub ended: [Series; 3],
}

/// How many sessions ran at once during a period. `running` is their number now.
pub fn concurrency(
    reader: &Reader<'_>,
    query: &FiguresQuery,
    running: u32,
    now: UnixMs,
) -> Result<Concurrency> {
    let bins = query.bins(now);
    let counts = store::session_counts(reader, query.product, bins.start())?;
    let stored = store::running(reader, query.product)?;
    let quarters = rules::quarters(&counts, stored, bins.start(), now);
    let mut steps = rules::merged(&quarters, query.period.step());
    steps.push(Sample { at: now, running });
    Ok(Concurrency {
        steps,
        bins: bins.most(&quarters),
    })
}

/// The counts that triggers keep and that are not what they count, by table or column; none if the database is sound. Reads
/// every license, device and session.
pub fn wrong_counts(reader: &Reader<'_>) -> Result<Vec<String>> {
    store::wrong_counts(reader)
}

/// What happened during a period.
pub fn activity(reader: &Reader<'_>, query: &FiguresQuery, now: UnixMs) -> Result<Activity> {
    let bins = query.bins(now);
    let mut all = Sums::new(&bins);
    for counts in store::session_counts(reader, query.product, bins.start())? {
        all.add(("session", ""), counts.at, counts.started);
    }
    store::activity(reader, query.product, bins.start(), |words, at, count| {
        all.add(words, at, count);
    })?;
    for span in bins.spans() {
        let (at, span) = (span.start, span.start..span.end.min(now));
        let [full, trials] = store::expired(reader, query.product, &span)?;
        all.add(("end", "expired_full"), at, full);
        all.add(("end", "expired_trial"), at, trials);
        let revoked = store::revoked(reader, query.product, &span)?;
        all.add(("end", "revoked"), at, revoked);
    }
    let mut refusals = all.of_kind("refusal");
    refusals.retain(|series| series.word != LOGIN_FAILED);
    refusals.sort_by(|a, b| b.total().cmp(&a.total()).then_with(|| a.word.cmp(&b.word)));
    Ok(Activity {
        sessions: all.series("session", ""),
        activations: all.series("activation", ""),
        refusals,
        issued: ["full", "trial"].map(|kind| all.series("license", kind)),
        ended: ["expired_full", "expired_trial", "revoked"].map(|word| all.series("end", word)),
    })
}

/// How many devices of a product that were active within [`ACTIVE_DAYS`] days last ran each version, the newest first.
pub fn active_versions(
    reader: &Reader<'_>,
    product: ProductId,
    now: UnixMs,
) -> Result<Vec<(Version, u32)>> {
    let since = now.minus(rules::days(ACTIVE_DAYS));
    let mut versions = devices::versions(reader, product, since)?;
    versions.sort_by(|(a, _), (b, _)| b.cmp(a));
    Ok(versions)
}

/// Deletes counts that no figure shows any more.
///
/// # Errors
/// If the write fails; nothing is deleted then.
pub async fn purge(db: &Db, now: UnixMs) -> Result<()> {
    let before = now.minus(rules::days(RETENTION_DAYS));
    db.write("figures.purge", move |tx| store::purge(tx, before))
        .await
}
