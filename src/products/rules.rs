//! Valid values of the settings, the rollout of feature flags, and the refusals.

use std::time::Duration;

use super::{Flag, Limit, ProductSettings};
use crate::error::{Error, Refused, Result};
use crate::releases::Release;
use crate::security::secret::{self, Secret};
use crate::text;
use crate::version::Version;

const NAME_MAX: usize = 100;
const DESCRIPTION_MAX: usize = 500;
const RATE_MAX: u32 = 1_000_000;
/// Most days for which an API key that was rotated out may stay valid.
const OVERLAP_DAYS_MAX: u32 = 3650;
/// Most days for which a program may run without reaching the server.
const OFFLINE_DAYS_MAX: u32 = 90;
/// Characters of a masked key that are shown at each end.
const KEY_ENDS: usize = 4;

/// What happens if a session is started while another one of the license is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionPolicy {
    /// The new start is refused.
    Reject,
    /// The new session replaces the active one if both are on the same device; otherwise the start is refused.
    ReplaceSameDevice,
    /// The new session replaces the active one, on any activated device.
    Replace,
}

impl SessionPolicy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Reject, Self::ReplaceSameDevice, Self::Replace];

    /// The value in the database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::ReplaceSameDevice => "replace_same_device",
            Self::Replace => "replace",
        }
    }

    /// Parses a value of the database; `None` if it is unknown.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.word() == word)
    }
}

/// Why a program, or a change of the settings, is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The API key is missing or wrong.
    InvalidApiKey,
    /// The program is older than the minimum version.
    VersionTooOld {
        /// The oldest version that may start.
        minimum_version: Version,
        /// The newest version.
        current_version: Version,
        /// Download address of the newest version.
        download_url: Option<String>,
    },
    /// For administrators: a flag of this name exists already.
    FlagExists,
    /// For administrators: even programs of the newest version would be refused.
    MinimumAboveCurrent {
        /// The minimum version of the change.
        minimum_version: Version,
        /// The newest version.
        current_version: Version,
    },
}

impl Refusal {
    /// The error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidApiKey => "invalid_api_key",
            Self::VersionTooOld { .. } => "version_too_old",
            Self::FlagExists => "flag_exists",
            Self::MinimumAboveCurrent { .. } => "minimum_above_current",
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let plain = Self::plain(refusal.code());
        match refusal {
            Refusal::InvalidApiKey | Refusal::FlagExists => plain,
            Refusal::VersionTooOld {
                minimum_version,
                current_version,
                download_url,
            } => plain
                .with("minimum_version", minimum_version.to_string())
                .with("current_version", current_version.to_string())
                .with("download_url", download_url),
            Refusal::MinimumAboveCurrent {
                minimum_version,
                current_version,
            } => plain
                .with("minimum_version", minimum_version.to_string())
                .with("current_version", current_version.to_string()),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// The public list of versions, as it is sent.
#[derive(Clone, Debug)]
pub struct VersionsFile {
    /// For sites.
    pub json: String,
    /// For shells: one version a line.
    pub text: String,
    /// The entity tag of both, including the quotes.
    pub etag: String,
}

impl VersionsFile {
    /// `released` holds every published release, newest first.
    pub(super) fn new(config: &ProductSettings, released: &[Release]) -> Self {
        let versions: Vec<String> = released.iter().map(|one| one.version.to_string()).collect();
        let document = serde_json::json!({
            "current_version": config.current_version,
            "minimum_version": config.minimum_version,
            "versions": versions,
        });
        let json = document.to_string();
        let digest: String = secret::hex(&secret::sha256(json.as_bytes()))
            .chars()
            .take(32)
            .collect();
        let text = versions
            .iter()
            .fold(String::new(), |text, version| text + version + "\n");
        Self {
            json,
            text,
            etag: format!("\"{digest}\""),
        }
    }

    /// Whether the value of an `If-None-Match` header names this content.
    pub fn matches(&self, if_none_match: &str) -> bool {
        // Weak comparison, RFC 9110, 13.1.2.
        let mut tags = if_none_match.split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }
}

/// A percentage of licenses.
#[derive(Clone, Copy, Debug)]
pub struct Rollout(pub u8);

/// Whether a license is among the `percent` that `flag` is on for. The result never changes, is independent between
/// flags, and stays true if the percentage grows.
pub fn rollout(flag: &str, license_id: i64, percent: Rollout) -> bool {
    let [a, b, c, d, ..] = secret::sha256(format!("{flag}\n{license_id}").as_bytes());
    u32::from_be_bytes([a, b, c, d]) % 100 < u32::from(percent.0)
}

/// Sets the column `key` to `value`, which is unparsed.
pub(super) fn set_column(config: &mut ProductSettings, key: &str, value: &str) -> Result<()> {
    let seconds = |name| {
        let wrong = |_| Error::invalid(name, "must be a whole number of seconds");
        value.parse::<u32>().map_err(wrong)
    };
    let version =
        |name| Version::from_input(value).map_err(|problem| Error::invalid(name, problem));
    match key {
        "client_name" => config.client_name = text::clean_input(value),
        "heartbeat_interval" => config.heartbeat_interval = seconds("heartbeat_interval")?,
        "session_timeout" => config.session_timeout = seconds("session_timeout")?,
        "current_version" => config.current_version = version("current_version")?,
        "minimum_version" => config.minimum_version = version("minimum_version")?,
        "session_policy" => {
            let wrong = || {
                Error::invalid(
                    "session_policy",
                    "must be reject, replace_same_device or replace",
                )
            };
            config.session_policy = SessionPolicy::from_word(value).ok_or_else(wrong)?;
        }
        "offline_days" => {
            let wrong = |_| Error::invalid("offline_days", "must be a whole number of days");
            config.offline_days = value.parse().map_err(wrong)?;
        }
        // For a shop whose shipped programs contain a key already. The old key becomes invalid at once.
        "api_key" => config.api_key = Secret::new(value.to_owned()),
        _ => {
            return Err(Error::Usage(format!(
                "there is no setting {key:?}; the settings are client_name, api_key, heartbeat_interval, session_timeout, \
                 current_version, minimum_version, session_policy, offline_days"
            )));
        }
    }
    Ok(())
}

/// Refuses a minimum version above the current one, which would lock out every program. If the stored versions are like
/// that already, changes of other columns are still allowed.
pub(super) fn check_versions(old: &ProductSettings, new: &ProductSettings) -> Result<(), Refusal> {
    let versions = |config: &ProductSettings| (config.minimum_version, config.current_version);
    let (minimum_version, current_version) = versions(new);
    if minimum_version > current_version && versions(old) != versions(new) {
        return Err(Refusal::MinimumAboveCurrent {
            minimum_version,
            current_version,
        });
    }
    Ok(())
}

/// Checks the range and form of every column.
pub(super) fn check(config: &ProductSettings) -> Result<()> {
    let name = &config.client_name;
    if name.trim().is_empty() || name.chars().count() > NAME_MAX || name.contains(char::is_control)
    {
        return Err(Error::invalid(
            "client_name",
            format!("must be 1..{NAME_MAX} printable characters"),
        ));
    }
    let api_key = config.api_key.reveal();
    if !(20..=200).contains(&api_key.len()) || !api_key.bytes().all(|b| b.is_ascii_graphic()) {
        let problem = "must be 20..200 visible characters; `config rotate-api-key` makes one";
        return Err(Error::invalid("api_key", problem));
    }
    if !(1..=3600).contains(&config.heartbeat_interval) {
        return Err(Error::invalid(
            "heartbeat_interval",
            "must be 1..3600 seconds",
        ));
    }
    if !(config.heartbeat_interval + 1..=86_400).contains(&config.session_timeout) {
        let problem = "must be above heartbeat_interval and at most 86400 seconds";
        return Err(Error::invalid("session_timeout", problem));
    }
    if config.offline_days > OFFLINE_DAYS_MAX {
        let problem = format!("must be 0..{OFFLINE_DAYS_MAX} days; 0: programs need the server");
        return Err(Error::invalid("offline_days", problem));
    }
    Ok(())
}

/// How long an API key that was rotated out stays valid.
pub(super) fn overlap(days: u32) -> Result<Duration> {
    if days > OVERLAP_DAYS_MAX {
        let problem = format!("must be 0..{OVERLAP_DAYS_MAX}");
        return Err(Error::invalid("overlap_days", problem));
    }
    Ok(Duration::from_hours(24) * days)
}

/// A key with only its ends visible: enough to recognize it, but not to use it.
pub fn masked(key: &Secret<String>) -> String {
    let chars: Vec<char> = key.reveal().chars().collect();
    let hidden = chars.len().saturating_sub(2 * KEY_ENDS);
    let first = chars.iter().take(KEY_ENDS);
    let last = chars.iter().skip(KEY_ENDS + hidden);
    first.chain(['…'].iter()).chain(last).collect()
}

pub(super) fn check_limit(limit: &Limit) -> Result<()> {
    if limit.per_minute > RATE_MAX {
        return Err(Error::invalid(
            "per-minute",
            format!("must be 0..{RATE_MAX}"),
        ));
    }
    if !(1..=RATE_MAX).contains(&limit.burst) {
        return Err(Error::invalid("burst", format!("must be 1..{RATE_MAX}")));
    }
    Ok(())
}

pub(super) fn check_flag(flag: &Flag) -> Result<()> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !(1..=64).contains(&flag.name.len()) || !flag.name.chars().all(word) {
        return Err(Error::invalid(
            "name",
            "must be 1..64 letters, digits, _ - .",
        ));
    }
    if flag.share_percent > 100 {
        return Err(Error::invalid("share", "must be 0..100 percent"));
    }
    if flag.description.chars().count() > DESCRIPTION_MAX
        || flag.description.contains(char::is_control)
    {
        let problem = format!("must be at most {DESCRIPTION_MAX} printable characters");
        return Err(Error::invalid("description", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ProductSettings {
        ProductSettings {
            client_name: "Program".to_owned(),
            api_key: Secret::new("k".repeat(20)),
            heartbeat_interval: 30,
            session_timeout: 60,
            current_version: Version::new(1, 0, 0),
            minimum_version: Version::new(0, 0, 0),
            session_policy: SessionPolicy::Reject,
            offline_days: 0,
        }
    }

    #[test]
    fn a_rollout_is_stable_nested_and_has_the_right_size() {
        let on = |percent| {
            (0..10_000)
                .filter(|n| rollout("dark_mode", *n, Rollout(percent)))
                .count()
        };
        assert_eq!((on(0), on(100)), (0, 10_000));
        // The standard deviation is 43; six of them on each side.
        assert!((2240..2760).contains(&on(25)), "{}", on(25));
        for number in 0..1000 {
            assert!(!rollout("x", number, Rollout(10)) || rollout("x", number, Rollout(11)));
        }
        let both = (0..10_000)
            .filter(|n| rollout("a", *n, Rollout(50)) && rollout("b", *n, Rollout(50)))
            .count();
        assert!(
            (2240..2760).contains(&both),
            "flags are independent: {both}"
        );
    }

    #[test]
    fn a_masked_key_shows_its_ends_only() {
        let masked = |key: &str| masked(&Secret::new(key.to_owned()));
        assert_eq!(masked("lsk_0123456789abcdef"), "lsk_…cdef");
        assert_eq!(masked("ab"), "ab…", "a short key does not get longer");
    }

    #[test]
    fn an_old_key_stays_valid_for_ten_years_at_most() {
        assert_eq!(overlap(0).unwrap(), Duration::ZERO);
        assert_eq!(overlap(7).unwrap(), Duration::from_hours(7 * 24));
        assert!(overlap(3650).is_ok() && overlap(3651).is_err());
    }

    #[test]
    fn every_column_has_a_range_and_a_form() {
        for (key, value, good) in [
            ("heartbeat_interval", "1", true),
            ("heartbeat_interval", "0", false),
            ("heartbeat_interval", "60", false), // not below the timeout
            ("heartbeat_interval", "-1", false),
            ("session_timeout", "31", true),
            ("session_timeout", "30", false),
            ("session_timeout", "86400", true),
            ("session_timeout", "86401", false),
            ("current_version", "1.10.0", true),
            ("current_version", "1.10", false),
            ("minimum_version", "1.0", false),
            ("session_policy", "replace", true),
            ("session_policy", "Replace", false),
            ("offline_days", "0", true),
            ("offline_days", "90", true),
            ("offline_days", "91", false),
            ("offline_days", "7.5", false),
            ("client_name", "Größe 3", true),
            ("client_name", " ", false),
            ("client_name", "a\tb", false),
            ("api_key", "mine", false),
            ("api_key", "a key with spaces in it", false),
            ("api_key", "lsk_0123456789abcdef", true),
            ("nothing", "1", false),
        ] {
            let mut config = config();
            let result = set_column(&mut config, key, value).and_then(|()| check(&config));
            assert_eq!(result.is_ok(), good, "{key}={value}: {result:?}");
        }
    }
}
