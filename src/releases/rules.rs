//! Validation of releases, and their status.

use std::collections::BTreeMap;

use super::{Release, ReleaseState};
use crate::clock::UnixMs;
use crate::error::{Error, Faults, RefusalKind, Refused, Result};
use crate::version::Version;

const NOTES_MAX: usize = 10_000;
const URL_MAX: usize = 2000;
/// The digits of a checksum.
const SHA256_LEN: usize = 64;
const CHANNEL_MAX: usize = 32;

/// Why an operation on a release is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is already a release of this version.
    Exists(Version),
    /// It is withdrawn.
    Withdrawn(Version),
}

impl Refusal {
    /// The code of the refusal, which never changes.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Exists(_) => "release_exists",
            Self::Withdrawn(_) => "release_withdrawn",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::Exists(_) | Self::Withdrawn(_) => RefusalKind::Conflict,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let (Refusal::Exists(version) | Refusal::Withdrawn(version)) = refusal;
        let refused = Self::new(refusal.kind(), refusal.code());
        refused
            .about("version")
            .with("version", version.to_string())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// The status of a release, relative to the current version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseStatus {
    /// It is the current version, which programs are informed about.
    Current,
    /// Newer than the current version.
    Preview,
    /// Older than the current version.
    Superseded,
    /// Withdrawn.
    Withdrawn,
}

/// The status of a release if `current` is the current version.
pub(super) fn status(state: ReleaseState, version: Version, current: Version) -> ReleaseStatus {
    match (state, version.cmp(&current)) {
        (ReleaseState::Yanked, _) => ReleaseStatus::Withdrawn,
        (ReleaseState::Released, std::cmp::Ordering::Equal) => ReleaseStatus::Current,
        (ReleaseState::Released, std::cmp::Ordering::Greater) => ReleaseStatus::Preview,
        (ReleaseState::Released, std::cmp::Ordering::Less) => ReleaseStatus::Superseded,
    }
}

/// When each release of a product came out, withdrawn ones too: a withdrawal changes no date.
#[derive(Clone, Debug, Default)]
pub struct ReleaseDates(BTreeMap<Version, UnixMs>);

/// Whether a release came out while the updates lasted that end at `until`. Whole seconds are compared, since moments are
/// shown and entered in seconds: two that look equal must not differ.
pub(super) const fn is_covered(released_at: UnixMs, until: UnixMs) -> bool {
    released_at.0.div_euclid(1000) <= until.0.div_euclid(1000)
}

impl ReleaseDates {
    /// The dates of these releases.
    pub fn of(releases: &[Release]) -> Self {
        let dates = releases.iter();
        Self(
            dates
                .map(|release| (release.version, release.released_at))
                .collect(),
        )
    }

    /// Whether a license covers `version` whose updates end at `until`.
    ///
    /// A release is covered if it came out by then. A version that is no release has no date, but it is newer than the
    /// newest release below it: if that one is not covered, neither is the version, unless a release above it is
    /// covered, which makes it an older version. What cannot be known counts for the customer: without a release below
    /// it, a version is covered.
    pub fn covers(&self, version: Version, until: UnixMs) -> bool {
        let is_covered = |(_, released_at): (&Version, &UnixMs)| is_covered(*released_at, until);
        if let Some(released_at) = self.0.get_key_value(&version) {
            return is_covered(released_at);
        }
        let below = self.0.range(..version).next_back();
        below.is_none_or(is_covered) || self.0.range(version..).any(is_covered)
    }
}

/// Checks the fields.
pub(super) fn check(release: &Release) -> Result<()> {
    let (channel, mut faults) = (&release.channel, Faults::default());
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if channel.is_empty() || channel.len() > CHANNEL_MAX || !channel.chars().all(word) {
        let problem = "must be a word like stable or beta";
        faults.add(Error::invalid("channel", problem));
    }
    if release.notes.chars().count() > NOTES_MAX {
        let problem = format!("is longer than {NOTES_MAX} characters");
        faults.add(Error::invalid("notes", problem));
    }
    if release
        .download_url
        .as_deref()
        .is_some_and(|url| !is_https(url))
    {
        let problem = "must be like https://example.org/program-1.2.0.zip";
        faults.add(Error::invalid("url", problem));
    }
    if release.sha256.as_deref().is_some_and(|sum| !is_sha256(sum)) {
        let problem = "must be 64 lower-case hexadecimal digits";
        faults.add(Error::invalid("sha256", problem));
    }
    faults.finish()
}

fn is_https(url: &str) -> bool {
    url.strip_prefix("https://")
        .is_some_and(|rest| !rest.is_empty())
        && url.len() <= URL_MAX
        && !url.contains(|c: char| c.is_control() || c.is_whitespace())
}

fn is_sha256(sum: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
    sum.len() == SHA256_LEN && sum.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_license_covers_what_came_out_until_its_updates_end() {
        let version = |text: &str| -> Version { text.parse().unwrap() };
        let straight = [("1.0.0", 10), ("1.1.0", 20), ("2.0.0", 30)];
        // 1.0.1 mends the old line after 2.0.0 came out.
        let mended = [("1.0.0", 10), ("2.0.0", 30), ("1.0.1", 40)];
        for (releases, until, tested, expected) in [
            // Releases are judged by their date; the moment itself is included.
            (&straight, 20, "1.0.0", true),
            (&straight, 20, "1.1.0", true),
            (&straight, 19, "1.1.0", false),
            (&straight, 20, "2.0.0", false),
            (&straight, 9, "1.0.0", false),
            (&mended, 30, "1.0.1", false),
            (&mended, 30, "2.0.0", true),
            // A version that is no release is judged by the newest one below it.
            (&straight, 20, "1.0.5", true),
            (&straight, 20, "1.5.0", true),
            (&straight, 20, "2.0.1", false),
            (&straight, 20, "9.0.0", false),
            (&straight, 30, "9.0.0", true),
            (&straight, 9, "1.0.1", false),
            // Below all releases nothing is known.
            (&straight, 9, "0.9.0", true),
            // A covered release above it shows that it is an older version.
            (&mended, 30, "1.0.2", true),
            (&mended, 20, "1.0.2", false),
            (&mended, 20, "1.0.0", true),
        ] {
            let dates = releases.iter();
            let dates = dates.map(|(text, at)| (version(text), UnixMs(*at * 1000)));
            let dates = ReleaseDates(dates.collect());
            let found = dates.covers(version(tested), UnixMs(until * 1000));
            assert_eq!(found, expected, "{tested} until {until} of {releases:?}");
        }
        let none = ReleaseDates::default();
        assert!(none.covers(version("1.0.0"), UnixMs(0)), "without releases");
    }

    #[test]
    fn a_release_of_the_last_second_is_covered() {
        for (released_at, until, expected) in [
            (20_000, 20_000, true),
            (20_999, 20_000, true),
            (20_000, 20_999, true),
            (21_000, 20_999, false),
        ] {
            let found = is_covered(UnixMs(released_at), UnixMs(until));
            assert_eq!(found, expected, "{released_at} until {until}");
        }
    }

    #[test]
    fn the_status_depends_on_the_current_version() {
        let current = Version::new(1, 9, 0);
        for (state, version, expected) in [
            (ReleaseState::Released, current, ReleaseStatus::Current),
            (
                ReleaseState::Released,
                Version::new(1, 10, 0),
                ReleaseStatus::Preview,
            ),
            (
                ReleaseState::Released,
                Version::new(1, 8, 9),
                ReleaseStatus::Superseded,
            ),
            (ReleaseState::Yanked, current, ReleaseStatus::Withdrawn),
        ] {
            assert_eq!(status(state, version, current), expected, "{version}");
        }
    }

    #[test]
    fn the_invalid_field_is_named() {
        let release = |channel: &str, url: Option<&str>, sum: Option<String>| Release {
            version: Version::new(1, 2, 0),
            channel: channel.to_owned(),
            notes: String::new(),
            download_url: url.map(str::to_owned),
            sha256: sum,
            state: ReleaseState::Released,
            released_at: UnixMs(0),
        };
        for (release, expected) in [
            (release("stable", None, None), None),
            (
                release(
                    "beta-2",
                    Some("https://example.org/x.zip"),
                    Some("a1".repeat(32)),
                ),
                None,
            ),
            (release("", None, None), Some("channel")),
            (release("Stable", None, None), Some("channel")),
            (
                release("stable", Some("http://example.org/x.zip"), None),
                Some("url"),
            ),
            (
                release("stable", Some("javascript:alert(1)"), None),
                Some("url"),
            ),
            (
                release("stable", Some("https://example.org/a b"), None),
                Some("url"),
            ),
            (
                release("stable", None, Some("A1".repeat(32))),
                Some("sha256"),
            ),
            (
                release("stable", None, Some("a1".repeat(31))),
                Some("sha256"),
            ),
        ] {
            let invalid = match check(&release) {
                Ok(()) => None,
                Err(Error::Invalid { field, .. }) => Some(field),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(invalid, expected, "{release:?}");
        }
    }
}
