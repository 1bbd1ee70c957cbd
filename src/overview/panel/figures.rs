//! The page of figures: charts of what happened over time, and which versions run.

use rocket::{Route, get, routes};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::figures::{ACTIVE_DAYS, Activity, Bins, Concurrency, FiguresQuery, Period, Series};
use crate::id::ProductId;
use crate::overview::{self, Figures, ProductVersions};
use crate::panel::{PanelRequest, Support};
use crate::refusals::panel::path_of_days;
use crate::trials;
use crate::version::Version;
use crate::web::chart::{self, Chart, Counts, Point, Span};
use crate::web::html::HtmlReply;

/// How many reasons of refusals have bars of their own; the others are added up.
const REASONS: usize = 4;
/// For the bars of the other reasons; the template names them.
const OTHER: &str = "other_reasons";
/// How many versions of one product have a row of their own: those on most devices.
const VERSIONS: usize = 10;
/// How many products are listed with their versions.
const PRODUCTS: usize = 10;

/// The page of figures of the chosen product, or of all.
#[get("/figures?<days>")]
async fn figures(request: Support<'_>, days: Option<u32>, app: &App) -> HtmlReply {
    let (now, live) = (request.now, app.live_sessions.clone());
    let query = FiguresQuery {
        product: request.chosen(),
        period: Period::of_days(days),
        zone: request.shop_zone().clone(),
    };
    let (bins, period, product) = (query.bins(now.wall), query.period, query.product);
    let figures = app
        .db
        .read(move |reader| overview::figures(reader, &live, &query, now))
        .await?;
    let days = trials::panel::SUMMARY_DAYS;
    let days = request.shop_zone().last_days(now.wall, days);
    let trials = app
        .db
        .read(move |reader| trials::panel::summary(reader, product, &days));
    let (charts, links) = charts(&bins, period, &figures);
    let versions = figures.versions.iter().take(PRODUCTS);
    let versions: Vec<Value> = versions
        .flat_map(|one| version_rows(&request, one))
        .collect();
    let values = json!({
        "days": period.days(),
        "reaches": Period::ALL.map(Period::days),
        "charts_of": charts,
        "refusal_links": links,
        "active_days": ACTIVE_DAYS,
        "versions": versions,
        "more_products": figures.versions.len().saturating_sub(PRODUCTS),
        "trials": trials.await?,
    });
    request.page("overview/figures.html.tera", values).await
}

/// The charts by name, and the lists that the reasons of refusals lead to.
fn charts(bins: &Bins, period: Period, figures: &Figures) -> (Value, Map<String, Value>) {
    let activity = &figures.activity;
    let (refusals, links) = refusals(bins, activity, period);
    let charts = json!({
        "concurrent": concurrency(bins, period, &figures.concurrency),
        "sessions": bars(bins, period, std::slice::from_ref(&activity.sessions)),
        "activations": bars(bins, period, std::slice::from_ref(&activity.activations)),
        "refusals": refusals,
        "issued": bars(bins, period, &activity.issued),
        "ended": bars(bins, period, &activity.ended),
    });
    (charts, links)
}

fn span(bins: &Bins, period: Period) -> Span<'_> {
    Span {
        starts: bins.starts(),
        end: bins.end(),
        by_hour: period.is_by_hour(),
    }
}

/// The chart of the sessions that ran at once.
pub(super) fn concurrency(bins: &Bins, period: Period, concurrency: &Concurrency) -> Chart {
    let steps = concurrency.steps.iter();
    let points = steps.map(|step| Point {
        at: step.at,
        value: step.running,
    });
    let points: Vec<Point> = points.collect();
    chart::line(&span(bins, period), &points, &concurrency.bins)
}

fn bars(bins: &Bins, period: Period, kinds: &[Series]) -> Chart {
    let kinds = kinds.iter().map(|series| Counts {
        word: &series.word,
        counts: &series.counts,
    });
    let kinds: Vec<Counts<'_>> = kinds.collect();
    chart::bars(&span(bins, period), &kinds)
}

/// The chart of the refusals by reason, and the list that each reason leads to.
fn refusals(bins: &Bins, activity: &Activity, period: Period) -> (Chart, Map<String, Value>) {
    let (first, others) = activity
        .refusals
        .split_at(REASONS.min(activity.refusals.len()));
    let mut reasons = first.to_vec();
    if !others.is_empty() {
        let mut counts = vec![0_u32; bins.starts().len()];
        for (sum, bin) in counts.iter_mut().zip(0..) {
            let of_bin = others.iter().filter_map(|other| other.counts.get(bin));
            *sum = of_bin.fold(0, |sum: u32, count| sum.saturating_add(*count));
        }
        let word = OTHER.to_owned();
        reasons.push(Series { word, counts });
    }
    let links = first.iter().map(|reason| {
        let link = path_of_days(&reason.word, period.days());
        (reason.word.clone(), Value::from(link))
    });
    let mut links: Map<String, Value> = links.collect();
    links.insert(OTHER.to_owned(), path_of_days("", period.days()).into());
    (bars(bins, period, &reasons), links)
}

/// A row of the table of versions.
struct VersionRow {
    /// `None`: several versions together.
    version: Option<Version>,
    devices: u32,
    /// Devices with older versions, which this one as the minimum version would lock out.
    older: u32,
}

/// The rows for the versions of a product, the newest first; the last row is for those on few devices together, if there
/// are many versions.
fn rows(versions: &[(Version, u32)]) -> Vec<VersionRow> {
    let mut by_devices: Vec<(u32, Version)> =
        versions.iter().map(|(version, n)| (*n, *version)).collect();
    by_devices.sort_unstable_by(|a, b| b.cmp(a));
    by_devices.truncate(VERSIONS);
    let is_shown = |version: &Version| by_devices.iter().any(|(_, shown)| shown == version);
    let sum = |versions: &[(Version, u32)]| versions.iter().map(|(_, devices)| *devices).sum();
    let mut rows = Vec::new();
    for (number, (version, devices)) in versions.iter().enumerate() {
        if is_shown(version) {
            rows.push(VersionRow {
                version: Some(*version),
                devices: *devices,
                older: sum(versions.get(number + 1..).unwrap_or_default()),
            });
        }
    }
    let others = versions.iter().filter(|(version, _)| !is_shown(version));
    let others: Vec<(Version, u32)> = others.copied().collect();
    if !others.is_empty() {
        rows.push(VersionRow {
            version: None,
            devices: sum(&others),
            older: 0,
        });
    }
    rows
}

fn version_rows(request: &PanelRequest<'_>, product: &ProductVersions) -> Vec<Value> {
    let all: u32 = product.versions.iter().map(|(_, devices)| *devices).sum();
    let name = |id: ProductId| request.product_name(id);
    let rows = rows(&product.versions);
    let others = product.versions.len().saturating_sub(VERSIONS);
    let rows = rows.into_iter().map(|row| {
        let is = |version: Version| row.version == Some(version);
        json!({
            "product": name(product.product),
            "version": row.version.map(|version| version.to_string()),
            "devices": row.devices,
            "all": all,
            "percent": percent(row.devices, all),
            "older": row.older,
            "others": others,
            "is_current": is(product.current),
            "is_minimum": is(product.minimum),
            "is_refused": row.version.is_some_and(|version| version < product.minimum),
        })
    });
    rows.collect()
}

/// The share in percent, rounded, but 0 and 100 only where they are exact.
fn percent(part: u32, all: u32) -> u64 {
    let (part, all) = (u64::from(part), u64::from(all.max(1)));
    let rounded = (part * 200 + all) / (all * 2);
    match part {
        0 => 0,
        _ if part == all => 100,
        _ => rounded.clamp(1, 99),
    }
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![figures]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_and_never_says_none_or_all_of_some() {
        for (part, all, expected) in [
            (0, 0, 0),
            (0, 9, 0),
            (1, 1000, 1),
            (1, 3, 33),
            (2, 3, 67),
            (999, 1000, 99),
            (7, 7, 100),
        ] {
            assert_eq!(percent(part, all), expected, "{part} of {all}");
        }
    }

    #[test]
    fn the_versions_on_most_devices_have_rows_and_the_others_one_together() {
        let version = |minor| Version::new(1, minor, 0);
        let shown = |versions: &[(Version, u32)]| -> Vec<_> {
            let rows = rows(versions).into_iter();
            rows.map(|row| (row.version, row.devices, row.older))
                .collect()
        };
        assert!(shown(&[]).is_empty());
        let two = [(version(10), 3), (version(9), 4)];
        let expected = [(Some(version(10)), 3, 4), (Some(version(9)), 4, 0)];
        assert_eq!(shown(&two), expected);
        // Twelve versions, the newest first, of which 1.11.0 and 1.5.0 are on one device each.
        let many: Vec<_> = (0..12)
            .rev()
            .map(|minor| (version(minor), if matches!(minor, 11 | 5) { 1 } else { 5 }))
            .collect();
        let rows = shown(&many);
        assert_eq!(rows.len(), VERSIONS + 1);
        assert_eq!(rows[0], (Some(version(10)), 5, 46));
        assert_eq!(rows[4], (Some(version(6)), 5, 26));
        assert_eq!(rows[VERSIONS], (None, 2, 0));
    }
}
