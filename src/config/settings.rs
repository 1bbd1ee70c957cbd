//! Every setting, its default, and its validation.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::requirement::{self, Invalid};
use super::server::Server;
use super::tls::{Tls, TlsMode};
use crate::zone::Zone;

/// The settings of `license-server.toml`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the server listens.
    pub server: Server,
    /// The database.
    pub database: Database,
    /// Certificates.
    pub tls: Tls,
    /// The administrators' panel.
    pub panel: Panel,
    /// Sessions and their history.
    pub sessions: Sessions,
    /// For how long personal data is kept.
    pub privacy: Privacy,
    /// Handshakes with customers' sites.
    pub handshake: Handshake,
    /// Automatic backups.
    pub backup: Backup,
    /// Messages on standard error.
    pub log: Log,
}

/// `[database]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// The database file; its folder is the data folder, which also holds certificates and keys.
    pub path: PathBuf,
    /// When a write counts as durable.
    pub synchronous: Synchronous,
    /// Number of read connections.
    pub read_connections: u32,
    /// The time of day, UTC, of the integrity check, like `02:30`; never if empty.
    pub integrity_check_at: String,
}

impl Database {
    /// The time of the integrity check in minutes after midnight, UTC; `None` for never.
    ///
    /// # Errors
    /// The required format, if the setting does not have it.
    pub fn integrity_check_minute(&self) -> Result<Option<u16>, &'static str> {
        let text = self.integrity_check_at.as_str();
        if text.is_empty() {
            return Ok(None);
        }
        let number = |text: &str, below: u16| {
            let two_digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u16>().ok().filter(|number| *number < below);
            number.filter(|_| two_digits)
        };
        let (hour, minute) = text.split_once(':').unwrap_or_default();
        match (number(hour, 24), number(minute, 60)) {
            (Some(hour), Some(minute)) => Ok(Some(hour * 60 + minute)),
            _ => Err("must be a time of day, UTC, like 02:30, or empty for never"),
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        requirement::check_all(&[
            (
                self.path.file_name().is_some(),
                "database.path",
                "must name a file",
            ),
            (
                (1..=64).contains(&self.read_connections),
                "database.read_connections",
                "must be 1..64",
            ),
        ])?;
        let at = self.integrity_check_minute();
        at.map_err(|reason| ("database.integrity_check_at", reason))?;
        Ok(())
    }
}

/// `[database] synchronous`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// Once it is on the disk.
    Full,
    /// Once the operating system has accepted it.
    Normal,
}

/// `[panel]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Panel {
    /// The language for programs and browsers that request neither German nor English. `None`: as chosen at the set-up,
    /// otherwise German.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_language: Option<Language>,
    /// The shop's time zone: its days are the days of figures and filters, and the panel shows its times to
    /// administrators who have not chosen another zone.
    pub time_zone: Zone,
    /// Hours after which a login ends.
    pub session_hours: u32,
    /// Minutes of inactivity after which a login ends.
    pub idle_minutes: u32,
    /// Whether every administrator needs a second factor.
    pub require_totp: bool,
}

/// A language of the panel and the API's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// German.
    De,
    /// English.
    En,
}

impl Language {
    /// The language of a tag (RFC 5646) or of the name of a locale: `en-GB`, `en_US`, `de_AT.UTF-8@euro`,
    /// `LC_ALL=en_US`, `English_United States.1252`, `eng`. `None` for other languages, and for `C` and `POSIX`, which
    /// name no language.
    pub fn of_locale(name: &str) -> Option<Self> {
        let name = name.rsplit('=').next().unwrap_or_default().trim();
        let language = name.split(['-', '_', '.', '@', ' ']).next();
        match language.unwrap_or_default().to_ascii_lowercase().as_str() {
            "de" | "deu" | "ger" | "german" | "deutsch" => Some(Self::De),
            "en" | "eng" | "english" => Some(Self::En),
            _ => None,
        }
    }
}

/// `[sessions]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Seconds between sweeps, which end sessions that timed out.
    pub cleanup_interval: u32,
    /// Days for which ended sessions are kept.
    pub history_days: u32,
    /// Whether starting a session activates an unknown device if a slot is free.
    pub auto_activate: bool,
    /// Session starts, and device activations, per minute and license; 0 for no limit.
    pub starts_per_minute: u32,
    /// Burst size of that limit.
    pub starts_burst: u32,
    /// Ended sessions per license and day that are kept individually, the others being folded; 0 for all.
    pub history_per_day: u32,
}

/// `[privacy]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Privacy {
    /// Days after which entries of the audit log are erased; 0 for never.
    pub audit_days: u32,
    /// Days after which a device that was not seen again is released; 0 for never.
    pub unseen_device_days: u32,
    /// Days after which refused calls of programs are deleted.
    pub refusal_days: u32,
}

/// `[handshake]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Handshake {
    /// The path of the callback on each site.
    pub callback_path: String,
    /// Special-purpose networks that may be called nevertheless.
    pub allow_networks: Vec<IpNet>,
    /// The port on which sites are called.
    pub port: u16,
    /// PEM file with a root certificate that is trusted in addition to the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_root: Option<PathBuf>,
    /// Grace period of a transfer, in days, during which both domains are served.
    pub transfer_grace_days: u32,
}

/// `[backup]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    /// The folder of automatic backups; `None` for no automatic backups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Hours between backups.
    pub every_hours: u32,
    /// Number of backups to keep.
    pub keep: u32,
    /// The file with the passphrase for encryption; `None` for unencrypted backups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The lowest severity that is logged.
    pub level: LogLevel,
    /// The format of a line.
    pub format: LogFormat,
}

/// `[log] level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs attention.
    Error,
    /// Also what may become a problem.
    Warn,
    /// Also notable events.
    Info,
    /// Also why connections and requests fail.
    Debug,
    /// Everything.
    Trace,
}

/// `[log] format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Plain text, one line per message.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/license-server.sqlite3"),
            synchronous: Synchronous::Full,
            read_connections: 4,
            integrity_check_at: "02:30".to_owned(),
        }
    }
}

impl Default for Panel {
    fn default() -> Self {
        Self {
            default_language: None,
            time_zone: Zone::shipped(),
            session_hours: 12,
            idle_minutes: 60,
            require_totp: false,
        }
    }
}

impl Panel {
    fn check(&self) -> Result<(), Invalid> {
        requirement::check_all(&[
            (
                (1..=8760).contains(&self.session_hours),
                "panel.session_hours",
                "must be 1..8760",
            ),
            (
                (1..=10_080).contains(&self.idle_minutes),
                "panel.idle_minutes",
                "must be 1..10080",
            ),
        ])
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            cleanup_interval: 60,
            history_days: 90,
            auto_activate: false,
            starts_per_minute: 10,
            starts_burst: 120,
            history_per_day: 200,
        }
    }
}

impl Sessions {
    fn check(&self) -> Result<(), Invalid> {
        let per_day = self.history_per_day;
        requirement::check_all(&[
            (
                (1..=3600).contains(&self.cleanup_interval),
                "sessions.cleanup_interval",
                "must be 1..3600 seconds",
            ),
            (
                (1..=36_500).contains(&self.history_days),
                "sessions.history_days",
                "must be 1..36500",
            ),
            (
                self.starts_per_minute <= 1_000_000,
                "sessions.starts_per_minute",
                "must be 0..1000000; 0 for no limit",
            ),
            (
                (1..=1_000_000).contains(&self.starts_burst),
                "sessions.starts_burst",
                "must be 1..1000000",
            ),
            (
                per_day == 0 || (10..=100_000).contains(&per_day),
                "sessions.history_per_day",
                "must be 10..100000, or 0 for all",
            ),
        ])
    }
}

impl Default for Privacy {
    fn default() -> Self {
        Self {
            audit_days: 0,
            unseen_device_days: 0,
            refusal_days: 30,
        }
    }
}

impl Privacy {
    fn check(&self) -> Result<(), Invalid> {
        let days = |days: u32| days <= 36_500;
        requirement::check_all(&[
            (
                days(self.audit_days),
                "privacy.audit_days",
                "must be 0..36500; 0 for never",
            ),
            (
                days(self.unseen_device_days),
                "privacy.unseen_device_days",
                "must be 0..36500; 0 for never",
            ),
            (
                (1..=365).contains(&self.refusal_days),
                "privacy.refusal_days",
                "must be 1..365",
            ),
        ])
    }
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            callback_path: "/.well-known/license-server".to_owned(),
            allow_networks: Vec::new(),
            port: 443,
            extra_root: None,
            transfer_grace_days: 14,
        }
    }
}

impl Handshake {
    fn check(&self) -> Result<(), Invalid> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        let path = &self.callback_path;
        requirement::check_all(&[
            (
                path.starts_with('/') && path.bytes().all(plain),
                "handshake.callback_path",
                "must begin with /, then letters, digits, and any of / - . _ ~",
            ),
            (self.port > 0, "handshake.port", "must be 1..65535"),
            (
                self.transfer_grace_days <= 365,
                "handshake.transfer_grace_days",
                "must be 0..365",
            ),
        ])
    }
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            directory: None,
            every_hours: 24,
            keep: 7,
            passphrase_file: None,
        }
    }
}

impl Backup {
    fn check(&self) -> Result<(), Invalid> {
        requirement::check_all(&[
            (
                (1..=8760).contains(&self.every_hours),
                "backup.every_hours",
                "must be 1..8760",
            ),
            (
                (1..=10_000).contains(&self.keep),
                "backup.keep",
                "must be 1..10000",
            ),
        ])
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
        }
    }
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

impl Config {
    /// The folder of the database, which also holds certificates and keys.
    pub fn data_folder(&self) -> PathBuf {
        self.database
            .path
            .parent()
            .map(PathBuf::from)
            .unwrap_or_default()
    }

    /// The address that clients use, without a trailing slash: `server.public_url`, otherwise built from the first
    /// of `tls.domains` with ACME; `None` if neither is set.
    pub fn public_url(&self) -> Option<String> {
        let Self { server, tls, .. } = self;
        if let Some(url) = &server.public_url {
            return Some(url.trim_end_matches('/').to_owned());
        }
        let name = tls.names().into_iter().next();
        let name = name.filter(|_| tls.mode == TlsMode::Acme)?;
        Some(match server.port {
            443 => format!("https://{name}"),
            port => format!("https://{name}:{port}"),
        })
    }

    /// The first invalid setting: its key and the reason.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        self.server.check()?;
        self.database.check()?;
        self.sessions.check()?;
        self.privacy.check()?;
        self.panel.check()?;
        self.handshake.check()?;
        self.backup.check()?;
        self.tls.check(&self.server)
    }
}
