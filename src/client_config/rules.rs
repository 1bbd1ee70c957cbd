//! What programs may be told, and who is let in.

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
/// For how many days an API key that was rotated out may go on.
const OVERLAP_DAYS_MAX: u32 = 3650;
/// For how many days a program may go on by itself.
const OFFLINE_DAYS_MAX: u32 = 90;
/// Characters that are shown at either end of a key that is not to be read.
const KEY_ENDS: usize = 4;

/// What happens when a session is to be started while one lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The second start is refused.
    Reject,
    /// The device that holds the session takes it over.
    ReplaceSameDevice,
    /// Any activated device takes it over.
    Replace,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Reject, Self::ReplaceSameDevice, Self::Replace];

    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::ReplaceSameDevice => "replace_same_device",
            Self::Replace => "replace",
        }
    }

    /// The policy of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.word() == word)
    }
}

/// Why a program is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no API key, or a wrong one.
    InvalidApiKey,
    /// It is older than the oldest version that works.
    VersionTooOld {
        /// The oldest version that works.
        minimum_version: Version,
        /// The newest version.
        current_version: Version,
        /// Where to get the newest.
        download_url: Option<String>,
    },
    /// A flag of this name is there already; for administrators.
    FlagExists,
    /// Even the newest program would be refused; for administrators.
    MinimumAboveCurrent {
        /// The oldest version that would work.
        minimum_version: Version,
        /// The newest version.
        current_version: Version,
    },
}

impl Refusal {
    /// The word programs match on.
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

/// What anybody may know of versions, as it is sent.
#[derive(Clone, Debug)]
pub struct VersionsFile {
    /// For sites.
    pub json: String,
    /// For shells: one version a line.
    pub text: String,
    /// The same for the same content, for both; in quotes.
    pub etag: String,
}

impl VersionsFile {
    /// Of what programs are held to, and of every release that is to be had, newest first.
    pub(super) fn of(config: &ProductSettings, released: &[Release]) -> Self {
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

    /// Whether the caller has it already, by what it says in `If-None-Match`.
    pub fn is_known(&self, if_none_match: &str) -> bool {
        // Weak comparison, RFC 9110, 13.1.2.
        let mut tags = if_none_match.split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }
}

/// How many of a hundred.
#[derive(Clone, Copy, Debug)]
pub struct Rollout(pub u8);

/// Whether the license `number` is among the `of` in a hundred that `flag` is on for. The same answer for
/// ever, independent between flags; a larger share keeps those who were in the smaller one.
pub fn rollout(flag: &str, number: i64, of: Rollout) -> bool {
    let [a, b, c, d, ..] = secret::sha256(format!("{flag}\n{number}").as_bytes());
    u32::from_be_bytes([a, b, c, d]) % 100 < u32::from(of.0)
}

/// Sets what `key` names to `value`, as an operator typed it.
pub(super) fn change(config: &mut ProductSettings, key: &str, value: &str) -> Result<()> {
    let seconds = |name| {
        let wrong = |_| Error::invalid(name, "must be a whole number of seconds");
        value.parse::<u32>().map_err(wrong)
    };
    let version = |name| Version::typed(value).map_err(|problem| Error::invalid(name, problem));
    match key {
        "client_name" => config.client_name = text::typed(value),
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
            config.session_policy = Policy::of_word(value).ok_or_else(wrong)?;
        }
        "offline_days" => {
            let wrong = |_| Error::invalid("offline_days", "must be a whole number of days");
            config.offline_days = value.parse().map_err(wrong)?;
        }
        // For a shop that moves here with programs that are out already. The old one stops at once.
        "api_key" => config.api_key = Secret::new(value.to_owned()),
        _ => {
            return Err(Error::Usage(format!(
                "there is no {key:?} to set: client_name, api_key, heartbeat_interval, session_timeout, \
                 current_version, minimum_version, session_policy, offline_days"
            )));
        }
    }
    Ok(())
}

/// Refuses to lock every program out: the newest must be let in. What stands so already is no reason to
/// refuse another change.
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

/// Refuses what programs could not live with.
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
        let problem =
            format!("must be 0..{OFFLINE_DAYS_MAX} days; 0: no program goes on by itself");
        return Err(Error::invalid("offline_days", problem));
    }
    Ok(())
}

/// How long an API key that was rotated out goes on.
pub(super) fn overlap(days: u32) -> Result<Duration> {
    if days > OVERLAP_DAYS_MAX {
        let problem = format!("must be 0..{OVERLAP_DAYS_MAX}");
        return Err(Error::invalid("overlap_days", problem));
    }
    Ok(Duration::from_hours(24) * days)
}

/// A key as a page may show it to those who look over a shoulder: enough to tell it from another one.
pub fn masked(key: &Secret<String>) -> String {
    let letters: Vec<char> = key.reveal().chars().collect();
    let hidden = letters.len().saturating_sub(2 * KEY_ENDS);
    let first = letters.iter().take(KEY_ENDS);
    let last = letters.iter().skip(KEY_ENDS + hidden);
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
            session_policy: Policy::Reject,
            offline_days: 0,
        }
    }

    #[test]
    fn a_share_is_stable_nested_and_as_large_as_it_says() {
        let on = |percent| {
            (0..10_000)
                .filter(|n| rollout("dark_mode", *n, Rollout(percent)))
                .count()
        };
        assert_eq!((on(0), on(100)), (0, 10_000));
        // Standard deviation 43: six of them either way.
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
        assert_eq!(masked("ab"), "ab…", "nothing is longer than it was");
    }

    #[test]
    fn an_old_key_may_go_on_for_ten_years_at_most() {
        assert_eq!(overlap(0).unwrap(), Duration::ZERO);
        assert_eq!(overlap(7).unwrap(), Duration::from_hours(7 * 24));
        assert!(overlap(3650).is_ok() && overlap(3651).is_err());
    }

    #[test]
    fn settings_of_programs_are_held_to_their_limits() {
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
            let told = change(&mut config, key, value).and_then(|()| check(&config));
            assert_eq!(told.is_ok(), good, "{key}={value}: {told:?}");
        }
    }
}
