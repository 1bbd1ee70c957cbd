//! Valid values of the settings, the public list of versions, and the refusals.

use super::ProductSettings;
use crate::clock::UnixMs;
use crate::digest;
use crate::error::{Error, Faults, RefusalKind, Refused, Result};
use crate::releases::Release;
use crate::security::secret::{self, Secret};
use crate::text;
use crate::version::Version;

const NAME_MAX: usize = 100;
/// The code of [`Refusal::MinimumUnconfirmed`].
const MINIMUM_UNCONFIRMED: &str = "minimum_unconfirmed";
/// Longest interval of heartbeats, in seconds.
const HEARTBEAT_INTERVAL_MAX: u32 = 3600;
/// Longest time after which a session without heartbeats ends, in seconds.
const SESSION_TIMEOUT_MAX: u32 = 86_400;
/// Most days for which a program may run without reaching the server.
const OFFLINE_DAYS_MAX: u32 = 90;

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
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::ReplaceSameDevice => "replace_same_device",
            Self::Replace => "replace",
        }
    }

    /// Parses a value of the database; `None` if it is unknown.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

/// Why a program, or a change of the settings, is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The program is older than the minimum version.
    VersionTooOld {
        /// The oldest version that may start.
        minimum_version: Version,
        /// The newest version.
        current_version: Version,
        /// Download address of the newest version.
        download_url: Option<String>,
    },
    /// The program came out after the updates of the license had ended.
    VersionNotCovered {
        /// When they ended.
        updates_until: UnixMs,
        /// The newest release up to the current version that the license covers and that may start.
        covered_version: Option<Version>,
        /// Download address of that release.
        download_url: Option<String>,
    },
    /// For administrators: even programs of the newest version would be refused.
    MinimumAboveCurrent {
        /// The minimum version of the change.
        minimum_version: Version,
        /// The newest version.
        current_version: Version,
    },
    /// For administrators: programs on so many devices would be refused, which the caller has not confirmed.
    MinimumUnconfirmed {
        /// The minimum version of the change.
        minimum_version: Version,
        /// How many devices last ran an older version.
        devices: u32,
    },
    /// For administrators: a product has, or had, the slug.
    SlugTaken(String),
    /// For administrators: another product in use has the name.
    NameTaken(String),
    /// For administrators: so many sessions of the product run, so it cannot be archived.
    SessionsRunning(u32),
    /// For administrators: the only product in use cannot be archived.
    LastProduct,
}

impl Refusal {
    /// The error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::VersionTooOld { .. } => "version_too_old",
            Self::VersionNotCovered { .. } => "version_not_covered",
            Self::MinimumAboveCurrent { .. } => "minimum_above_current",
            Self::MinimumUnconfirmed { .. } => MINIMUM_UNCONFIRMED,
            Self::SlugTaken(_) => "slug_taken",
            Self::NameTaken(_) => "product_name_taken",
            Self::SessionsRunning(_) => "sessions_running",
            Self::LastProduct => "last_product",
        }
    }

    /// The kind of refusal.
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::VersionTooOld { .. } | Self::VersionNotCovered { .. } => RefusalKind::Forbidden,
            Self::MinimumAboveCurrent { .. }
            | Self::MinimumUnconfirmed { .. }
            | Self::SlugTaken(_)
            | Self::NameTaken(_)
            | Self::SessionsRunning(_)
            | Self::LastProduct => RefusalKind::Conflict,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let plain = Self::new(refusal.kind(), refusal.code());
        match refusal {
            Refusal::VersionTooOld {
                minimum_version,
                current_version,
                download_url,
            } => plain
                .with("minimum_version", minimum_version.to_string())
                .with("current_version", current_version.to_string())
                .with("download_url", download_url),
            Refusal::VersionNotCovered {
                updates_until,
                covered_version,
                download_url,
            } => {
                let plain = plain.with("updates_until", updates_until.rfc3339());
                with_covered_version(plain, covered_version).with("download_url", download_url)
            }
            Refusal::MinimumAboveCurrent {
                minimum_version,
                current_version,
            } => plain
                .about("minimum_version")
                .with("minimum_version", minimum_version.to_string())
                .with("current_version", current_version.to_string()),
            Refusal::MinimumUnconfirmed {
                minimum_version,
                devices,
            } => plain
                .with("minimum_version", minimum_version.to_string())
                .with("n", devices),
            Refusal::SlugTaken(slug) => plain.about("slug").with("slug", slug),
            Refusal::NameTaken(name) => plain.about("name").with("name", name),
            Refusal::SessionsRunning(running) => plain.with("n", running),
            Refusal::LastProduct => plain,
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
        digest::is_tag_named(&self.etag, if_none_match)
    }
}

/// The refusal of a version that is not covered, with the version that is.
fn with_covered_version(refused: Refused, covered: Option<Version>) -> Refused {
    let refused = refused.with(
        "covered_version",
        covered.map(|version| version.to_string()),
    );
    match covered {
        Some(_) => refused.with_text_key("version_not_covered"),
        None => refused,
    }
}

/// A higher minimum version that must be confirmed, because devices last ran an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnconfirmedMinimum {
    /// The minimum version.
    pub version: Version,
    /// How many devices last ran an older version.
    pub devices: u64,
}

impl UnconfirmedMinimum {
    /// What `error` asks the caller to confirm; `None` if it is another error.
    pub fn of(error: &Error) -> Option<Self> {
        let Error::Refused(refused) = error else {
            return None;
        };
        let version = refused.members.get("minimum_version")?.as_str()?;
        let devices = refused.members.get("n")?.as_u64()?;
        (refused.code == MINIMUM_UNCONFIRMED).then_some(Self {
            version: version.parse().ok()?,
            devices,
        })
    }
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
            config.session_policy = SessionPolicy::parse(value).ok_or_else(wrong)?;
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
                 current_version, minimum_version, session_policy, offline_days, trial_plan"
            )));
        }
    }
    Ok(())
}

/// `slug` with a number for the second and every further product of the name.
pub(super) fn numbered(slug: &str, number: u32) -> String {
    if number == 1 {
        return slug.to_owned();
    }
    let end = format!("-{number}");
    let kept: String = slug.chars().take(text::SLUG_MAX - end.len()).collect();
    format!("{}{end}", kept.trim_end_matches('-'))
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

/// Checks the name of a product, which is called `field` in the request.
pub(super) fn check_name(field: &'static str, name: &str) -> Result<()> {
    if name.trim().is_empty() || name.chars().count() > NAME_MAX || name.contains(char::is_control)
    {
        let problem = format!("must be 1..{NAME_MAX} printable characters");
        return Err(Error::invalid(field, problem));
    }
    Ok(())
}

/// Checks the form of a slug that an administrator chose.
pub(super) fn check_slug(slug: &str) -> Result<()> {
    if text::is_slug(slug) {
        return Ok(());
    }
    let max = text::SLUG_MAX;
    let problem = format!("must be 1..{max} of a-z, 0-9 and -, and not begin with -");
    Err(Error::invalid("slug", problem))
}

/// Checks the range and form of every column.
pub(super) fn check(config: &ProductSettings) -> Result<()> {
    let mut faults = Faults::default();
    faults.keep(check_name("client_name", &config.client_name));
    let interval = config.heartbeat_interval;
    let is_interval = (1..=HEARTBEAT_INTERVAL_MAX).contains(&interval);
    if !is_interval {
        let problem = "must be 1..3600 seconds";
        faults.add(Error::invalid("heartbeat_interval", problem));
    }
    // A timeout is not below an interval that is wrong itself.
    let above = if is_interval { interval } else { 1 };
    if !(above + 1..=SESSION_TIMEOUT_MAX).contains(&config.session_timeout) {
        let problem = "must be above heartbeat_interval and at most 86400 seconds";
        faults.add(Error::invalid("session_timeout", problem));
    }
    if config.offline_days > OFFLINE_DAYS_MAX {
        let problem = format!("must be 0..{OFFLINE_DAYS_MAX} days; 0: programs need the server");
        faults.add(Error::invalid("offline_days", problem));
    }
    faults.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ProductSettings {
        ProductSettings {
            product: crate::id::ProductId::FIRST,
            client_name: "Program".to_owned(),
            api_key: Secret::new("k".repeat(20)),
            heartbeat_interval: 30,
            session_timeout: 60,
            current_version: Version::new(1, 0, 0),
            minimum_version: Version::new(0, 0, 0),
            session_policy: SessionPolicy::Reject,
            offline_days: 0,
            trial_plan: None,
        }
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
            ("api_key", "lsk_0123456789abcdef", true),
            ("nothing", "1", false),
        ] {
            let mut config = config();
            let result = set_column(&mut config, key, value).and_then(|()| check(&config));
            assert_eq!(result.is_ok(), good, "{key}={value}: {result:?}");
        }
    }
}
