//! The settings of the product: versions, heartbeat, API key, feature flags and rate limits. Administrators change them
//! in daily work, so they are in the database, and a change takes effect within a second.

pub mod cli;
pub mod client;
pub mod panel;
mod rules;
pub mod site;
mod store;

pub use rules::{Refusal, Rollout, SessionPolicy, VersionsFile, masked, rollout};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Db, Reader, Tx};
use crate::error::{CHANGED_MEANWHILE, Error, Refused, Result};
use crate::releases::{self, Release};
use crate::security::rate_limit::Rule;
use crate::security::secret::{self, Secret};
use crate::text;
use crate::version::Version;

/// The one row of `client_configs`.
#[derive(Clone, Debug)]
pub struct ProductSettings {
    /// The name of the product.
    pub client_name: String,
    /// The key that every copy of the program contains.
    pub api_key: Secret<String>,
    /// Seconds between two heartbeats; 1 to 3600.
    pub heartbeat_interval: u32,
    /// Seconds without a heartbeat after which a session times out; above the interval, at most 86400.
    pub session_timeout: u32,
    /// The newest version.
    pub current_version: Version,
    /// The oldest version that may start.
    pub minimum_version: Version,
    /// What happens if a session is started while another one is active.
    pub session_policy: SessionPolicy,
    /// Days for which a program may run without reaching the server; 0 to 90.
    pub offline_days: u32,
}

/// A feature flag.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Flag {
    /// 1 to 64 characters.
    pub name: String,
    /// A note for administrators.
    pub description: String,
    /// If false, the flag is off for every license.
    pub enabled: bool,
    /// Percentage of licenses that the flag is on for.
    pub share_percent: u8,
}

impl Flag {
    /// Whether the flag is on for a license.
    pub fn is_on_for(&self, license_id: i64) -> bool {
        self.enabled && rollout(&self.name, license_id, Rollout(self.share_percent))
    }
}

/// The rate limit of a group of calls.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Limit {
    /// The group of calls.
    pub name: String,
    /// Calls per minute from one address; 0 for no limit.
    pub per_minute: u32,
    /// Calls that may come at once.
    pub burst: u32,
}

/// An API key that was rotated out.
#[derive(Clone, Debug)]
pub struct RetiredKey {
    /// The key.
    pub key: Secret<String>,
    /// The key is accepted until then.
    pub valid_until: UnixMs,
}

/// All settings at one moment.
#[derive(Clone, Debug)]
pub struct ProgramSettings {
    /// The settings in `client_configs`.
    pub config: ProductSettings,
    /// Every feature flag, ordered by name.
    pub flags: Vec<Flag>,
    /// The published release of the current version.
    pub release: Option<Release>,
    /// Rate limit for calls of programs.
    pub client_limit: Rule,
    /// Rate limit for failed attempts of programs.
    pub failure_limit: Rule,
    /// Rate limit for handshake requests of sites.
    pub site_limit: Rule,
    /// Every published release, newest first.
    pub released: Vec<Release>,
    /// The public list of versions.
    pub versions: VersionsFile,
    /// Rate limit for logins of administrators.
    pub login_limit: Rule,
    /// SHA-256 of every accepted API key, the current one first, and until when it is accepted.
    key_hashes: Vec<([u8; 32], Option<UnixMs>)>,
}

/// The information about versions for a program of one version.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VersionInfo {
    /// The newest version.
    pub current_version: Version,
    /// The oldest version that may start.
    pub minimum_version: Version,
    /// Whether the program is older than the newest.
    pub update_available: bool,
    /// Whether the program may start.
    pub supported: bool,
    /// Release notes of the update.
    #[serde(skip)]
    pub whats_new: Option<String>,
    /// Download address of the update.
    #[serde(skip)]
    pub download_url: Option<String>,
}

/// Caches [`ProgramSettings`] and reads them again after a change.
#[derive(Debug, Default)]
pub struct ProgramSettingsCache(Mutex<Option<(u64, Arc<ProgramSettings>)>>);

impl ProgramSettingsCache {
    /// The settings of the current generation.
    pub async fn get(self: &Arc<Self>, db: &Db) -> Result<Arc<ProgramSettings>> {
        if let Some(cached) = self.cached(db.generation()) {
            return Ok(cached);
        }
        let this = self.clone();
        db.read(move |reader| this.reload(reader)).await
    }

    /// The settings as this reader or transaction sees them.
    pub fn read(&self, reader: &Reader<'_>) -> Result<Arc<ProgramSettings>> {
        // Not cached: this transaction may have changed them, and may still be rolled back.
        self.cached(reader.generation())
            .map_or_else(|| snapshot(reader).map(Arc::new), Ok)
    }

    /// Reads the settings and caches them.
    fn reload(&self, reader: &Reader<'_>) -> Result<Arc<ProgramSettings>> {
        // The generation is read first: if a change comes in between, the cached settings are newer than their
        // generation, never older.
        let generation = reader.generation();
        let settings = Arc::new(snapshot(reader)?);
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = cache.replace((generation, settings.clone()));
        drop(cache);
        if before.is_some_and(|(_, before)| !before.has_same_key(&settings)) {
            log::warn!("the API key was changed: programs need the new one");
        }
        Ok(settings)
    }

    fn cached(&self, generation: u64) -> Option<Arc<ProgramSettings>> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .as_ref()
            .filter(|(cached, _)| *cached == generation)
            .map(|(_, settings)| settings.clone())
    }
}

/// Reads all settings from the database.
pub fn snapshot(reader: &Reader<'_>) -> Result<ProgramSettings> {
    let config = product_settings(reader)?;
    let retired = store::retired(reader)?;
    let limits = store::limits(reader)?;
    let rule = |name: &str| {
        let limit = limits.iter().find(|limit| limit.name == name);
        limit.map_or(
            Rule {
                per_minute: 0,
                burst: 1,
            },
            |l| Rule {
                per_minute: l.per_minute,
                burst: l.burst,
            },
        )
    };
    let current = (secret::sha256(config.api_key.reveal().as_bytes()), None);
    let old = |key: &RetiredKey| {
        (
            secret::sha256(key.key.reveal().as_bytes()),
            Some(key.valid_until),
        )
    };
    let released = releases::all_available(reader)?;
    Ok(ProgramSettings {
        flags: store::flags(reader)?,
        release: releases::available(reader, config.current_version)?,
        client_limit: rule("client"),
        failure_limit: rule("client_failures"),
        site_limit: rule("site"),
        versions: VersionsFile::new(&config, &released),
        released,
        login_limit: rule("login"),
        key_hashes: std::iter::once(current)
            .chain(retired.iter().map(old))
            .collect(),
        config,
    })
}

impl ProgramSettings {
    /// Checks an API key, in constant time.
    ///
    /// # Errors
    /// [`Refusal::InvalidApiKey`].
    pub fn check_api_key(&self, presented: &str, now: UnixMs) -> Result<(), Refusal> {
        let presented = secret::sha256(presented.as_bytes());
        let mut is_valid = false;
        for (hash, until) in &self.key_hashes {
            is_valid |=
                secret::constant_time_eq(hash, &presented) & until.is_none_or(|until| now < until);
        }
        if is_valid {
            Ok(())
        } else {
            Err(Refusal::InvalidApiKey)
        }
    }

    fn has_same_key(&self, other: &Self) -> bool {
        let current = |settings: &Self| settings.key_hashes.first().map(|(hash, _)| *hash);
        current(self) == current(other)
    }

    /// The information about versions for a program of `version`.
    pub fn version_info(&self, version: Version) -> VersionInfo {
        let update_available = version < self.config.current_version;
        let offered = self.release.as_ref().filter(|_| update_available);
        VersionInfo {
            current_version: self.config.current_version,
            minimum_version: self.config.minimum_version,
            update_available,
            supported: version >= self.config.minimum_version,
            whats_new: offered.map(|release| release.notes.clone()),
            download_url: offered.and_then(|release| release.download_url.clone()),
        }
    }

    /// Checks that a program of `version` may start.
    ///
    /// # Errors
    /// [`Refusal::VersionTooOld`], which says where to get an update.
    pub fn check_version(&self, version: Version) -> Result<(), Refusal> {
        if version >= self.config.minimum_version {
            return Ok(());
        }
        Err(Refusal::VersionTooOld {
            minimum_version: self.config.minimum_version,
            current_version: self.config.current_version,
            download_url: self
                .release
                .as_ref()
                .and_then(|release| release.download_url.clone()),
        })
    }

    /// Every feature flag, and whether it is on for the license.
    pub fn flags_for(&self, license_id: i64) -> BTreeMap<String, bool> {
        let flags = self.flags.iter();
        flags
            .map(|flag| (flag.name.clone(), flag.is_on_for(license_id)))
            .collect()
    }
}

/// The settings in `client_configs`.
///
/// # Errors
/// [`Error::Damaged`] if the row is missing: the first start inserts it, and nothing removes it.
pub fn product_settings(reader: &Reader<'_>) -> Result<ProductSettings> {
    store::product_settings(reader)?.ok_or_else(|| Error::Damaged {
        found: "the client configuration is missing".to_owned(),
    })
}

/// Whether the row in `client_configs` exists, which the first start inserts.
pub fn exists(reader: &Reader<'_>) -> Result<bool> {
    Ok(store::product_settings(reader)?.is_some())
}

/// Inserts the row in `client_configs` with default values, if it does not exist: at the first start.
pub fn ensure(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    if store::product_settings(tx)?.is_some() {
        return Ok(());
    }
    let config = ProductSettings {
        client_name: "My program".to_owned(),
        api_key: new_key()?,
        heartbeat_interval: 30,
        session_timeout: 60,
        current_version: Version::new(1, 0, 0),
        minimum_version: Version::new(0, 0, 0),
        session_policy: SessionPolicy::Reject,
        offline_days: 0,
    };
    store::insert(tx, &config, now)?;
    tx.invalidate_caches();
    Ok(())
}

fn new_key() -> Result<Secret<String>> {
    let random: [u8; 24] = secret::random()?;
    Ok(Secret::new(format!("lsk_{}", secret::hex(&random))))
}

/// Sets the columns that `changes` names: pairs of a column's name and its new value, unparsed.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Usage`] for the first invalid pair, and [`Refusal::MinimumAboveCurrent`]; nothing is
/// changed then.
pub fn set(
    tx: &Tx<'_>,
    changes: &[(String, String)],
    actor: &Actor,
    now: UnixMs,
) -> Result<ProductSettings> {
    let old = product_settings(tx)?;
    let mut new = old.clone();
    for (key, value) in changes {
        rules::set_column(&mut new, key, value)?;
    }
    rules::check(&new)?;
    rules::check_versions(&old, &new)?;
    store::update(tx, &new, now)?;
    store::review(tx)?;
    let (before, after) = (facts(&old), facts(&new));
    audit::note(
        tx,
        now,
        actor,
        &Change {
            action: "client_config.set",
            subject: "client",
            before,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(new)
}

fn facts(config: &ProductSettings) -> Value {
    json!({
        "client_name": config.client_name,
        "heartbeat_interval": config.heartbeat_interval,
        "session_timeout": config.session_timeout,
        "current_version": config.current_version,
        "minimum_version": config.minimum_version,
        "session_policy": config.session_policy,
        "offline_days": config.offline_days,
    })
}

/// Whether an administrator has reviewed the default values of the first start.
pub fn reviewed(reader: &Reader<'_>) -> Result<bool> {
    store::reviewed(reader)
}

/// A change that the settings page makes in one step.
#[derive(Clone, Debug)]
pub enum SettingsChange {
    /// Pairs for [`set`].
    Client(Vec<(String, String)>),
    /// A new flag.
    NewFlag(Flag),
    /// New values of an existing flag.
    Flag(Flag),
    /// New values of a rate limit.
    Limit(Limit),
}

/// Makes a change, if the changed part still has the revision `seen`.
///
/// # Errors
/// `changed_meanwhile`, [`Refusal::FlagExists`], and the errors of [`set`], [`set_flag`] and [`set_limit`].
pub fn update(
    tx: &Tx<'_>,
    change: &SettingsChange,
    seen: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let expect_seen = |revision: String| {
        let changed = || Error::from(Refused::plain(CHANGED_MEANWHILE));
        (revision == seen).then_some(()).ok_or_else(changed)
    };
    match change {
        SettingsChange::Client(pairs) => {
            expect_seen(product_settings(tx)?.revision())?;
            set(tx, pairs, actor, now).map(drop)
        }
        SettingsChange::NewFlag(flag) => {
            if store::flags(tx)?.iter().any(|old| old.name == flag.name) {
                return Err(Refusal::FlagExists.into());
            }
            set_flag(tx, &flag.name, &flag.change(), actor, now).map(drop)
        }
        SettingsChange::Flag(flag) => {
            expect_seen(self::flag(tx, &flag.name)?.revision())?;
            set_flag(tx, &flag.name, &flag.change(), actor, now).map(drop)
        }
        SettingsChange::Limit(limit) => {
            let old = store::limits(tx)?;
            let old = old.iter().find(|old| old.name == limit.name);
            let old = old.ok_or_else(|| Error::not_found("rate limit", &limit.name))?;
            expect_seen(old.revision())?;
            set_limit(tx, limit, actor, now)
        }
    }
}

impl ProductSettings {
    /// Identifies the content, to detect edit conflicts: a form sends it back as `seen`. The API key is not included.
    pub fn revision(&self) -> String {
        secret::json_digest(&facts(self))
    }

    /// The same for the API key.
    pub fn key_revision(&self) -> String {
        secret::json_digest(&json!({ "api_key": self.api_key.reveal() }))
    }
}

impl Flag {
    /// Identifies the content, to detect edit conflicts: a form sends it back as `seen`.
    pub fn revision(&self) -> String {
        secret::json_digest(&json!(self))
    }

    /// The change that sets every field.
    fn change(&self) -> FlagChange {
        FlagChange {
            enabled: Some(self.enabled),
            share_percent: Some(self.share_percent),
            description: Some(self.description.clone()),
        }
    }
}

impl Limit {
    /// Identifies the content, to detect edit conflicts: a form sends it back as `seen`.
    pub fn revision(&self) -> String {
        secret::json_digest(&json!(self))
    }
}

/// Makes a release the current version: programs of older versions learn of the update.
///
/// # Errors
/// [`Error::NotFound`] if there is no such release, [`releases::Refusal::Withdrawn`] if it was withdrawn.
pub fn make_current(tx: &Tx<'_>, version: Version, actor: &Actor, now: UnixMs) -> Result<()> {
    set_version(tx, "current_version", version, actor, now)
}

/// Makes a release the minimum version: programs of older versions are refused.
///
/// # Errors
/// As [`make_current`].
pub fn make_minimum(tx: &Tx<'_>, version: Version, actor: &Actor, now: UnixMs) -> Result<()> {
    set_version(tx, "minimum_version", version, actor, now)
}

fn set_version(
    tx: &Tx<'_>,
    column: &str,
    version: Version,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    releases::get(tx, version)?.check_available()?;
    let change = [(column.to_owned(), version.to_string())];
    set(tx, &change, actor, now).map(drop)
}

/// Whether the current version has no published release although other releases exist. Then programs learn that there
/// is an update, but get neither release notes nor a download address.
pub fn current_is_no_release(reader: &Reader<'_>, config: &ProductSettings) -> Result<bool> {
    let any = releases::count(reader)? > 0;
    Ok(any && releases::available(reader, config.current_version)?.is_none())
}

/// The API keys that were rotated out and are still valid at `now`, the longest valid first.
pub fn retired_keys(reader: &Reader<'_>, now: UnixMs) -> Result<Vec<RetiredKey>> {
    let mut keys = store::retired(reader)?;
    keys.retain(|key| now < key.valid_until);
    Ok(keys)
}

/// The form that rotates the API key in the panel.
#[derive(Clone, Debug)]
pub struct RotateRequest {
    /// The name of the product, which the administrator types to confirm.
    pub confirm: String,
    /// The `key_revision` of the key that the form was made for.
    pub seen: String,
    /// Days for which the old key stays valid; 0: it becomes invalid at once.
    pub overlap_days: u32,
}

/// As [`rotate_api_key`], if the key is still the one that the form was made for and the typed name is right.
///
/// # Errors
/// `changed_meanwhile`; [`Error::Invalid`] for a wrong name or too many days.
pub fn replace_api_key(
    tx: &Tx<'_>,
    request: &RotateRequest,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let config = product_settings(tx)?;
    if config.key_revision() != request.seen {
        return Err(Refused::plain(CHANGED_MEANWHILE).into());
    }
    if text::clean_input(&config.client_name) != text::clean_input(&request.confirm) {
        return Err(Error::invalid("confirm", "is not the product's name"));
    }
    let overlap = rules::overlap(request.overlap_days)?;
    rotate_api_key(tx, overlap, actor, now).map(drop)
}

/// Replaces the API key; the old one stays valid for `overlap`.
pub fn rotate_api_key(
    tx: &Tx<'_>,
    overlap: Duration,
    actor: &Actor,
    now: UnixMs,
) -> Result<ProductSettings> {
    let old = product_settings(tx)?;
    let new = ProductSettings {
        api_key: new_key()?,
        ..old.clone()
    };
    // Without an overlap, the keys that were rotated out before become invalid too.
    let valid_until = if overlap.is_zero() {
        UnixMs(i64::MAX)
    } else {
        now
    };
    store::forget_retired(tx, valid_until)?;
    if !overlap.is_zero() {
        store::retire(
            tx,
            &RetiredKey {
                key: old.api_key,
                valid_until: now.plus(overlap),
            },
        )?;
    }
    store::update(tx, &new, now)?;
    let after = json!({ "old_key_valid_until": now.plus(overlap).rfc3339() });
    let entry = Change {
        action: "client_config.rotate_api_key",
        subject: "client",
        before: Value::Null,
        after,
    };
    audit::note(tx, now, actor, &entry)?;
    tx.invalidate_caches();
    Ok(new)
}

/// Every rate limit.
pub fn limits(reader: &Reader<'_>) -> Result<Vec<Limit>> {
    store::limits(reader)
}

/// Changes a rate limit.
///
/// # Errors
/// [`Error::NotFound`] for an unknown group, [`Error::Invalid`] for numbers out of range.
pub fn set_limit(tx: &Tx<'_>, limit: &Limit, actor: &Actor, now: UnixMs) -> Result<()> {
    rules::check_limit(limit)?;
    let old = store::limits(tx)?
        .into_iter()
        .find(|old| old.name == limit.name);
    let old = old.ok_or_else(|| Error::not_found("rate limit", &limit.name))?;
    store::set_limit(tx, limit, now)?;
    let (before, after) = (json!(old), json!(limit));
    audit::note(
        tx,
        now,
        actor,
        &Change {
            action: "client_config.set_limit",
            subject: &limit.name,
            before,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(())
}

/// Every feature flag, ordered by name.
pub fn flags(reader: &Reader<'_>) -> Result<Vec<Flag>> {
    store::flags(reader)
}

/// The flag of this name.
///
/// # Errors
/// [`Error::NotFound`] if it does not exist.
pub fn flag(reader: &Reader<'_>, name: &str) -> Result<Flag> {
    let found = store::flags(reader)?
        .into_iter()
        .find(|flag| flag.name == name);
    found.ok_or_else(|| Error::not_found("feature flag", name))
}

/// A change of a flag. A field that is `None` keeps its value; for a new flag, it starts with its default: enabled, for
/// 100 percent, without a description.
#[derive(Clone, Debug, Default)]
pub struct FlagChange {
    /// On or off.
    pub enabled: Option<bool>,
    /// Percentage of licenses that the flag is on for.
    pub share_percent: Option<u8>,
    /// A note for administrators.
    pub description: Option<String>,
}

/// Creates or changes the flag `name`.
///
/// # Errors
/// [`Error::Invalid`] for a malformed name or description, or a percentage above 100.
pub fn set_flag(
    tx: &Tx<'_>,
    name: &str,
    change: &FlagChange,
    actor: &Actor,
    now: UnixMs,
) -> Result<Flag> {
    let old = store::flags(tx)?.into_iter().find(|flag| flag.name == name);
    let mut flag = old.clone().unwrap_or_else(|| Flag {
        name: name.to_owned(),
        description: String::new(),
        enabled: true,
        share_percent: 100,
    });
    flag.enabled = change.enabled.unwrap_or(flag.enabled);
    flag.share_percent = change.share_percent.unwrap_or(flag.share_percent);
    if let Some(description) = &change.description {
        flag.description = text::clean_input(description);
    }
    rules::check_flag(&flag)?;
    store::set_flag(tx, &flag, now)?;
    let (before, after) = (json!(old), json!(flag));
    audit::note(
        tx,
        now,
        actor,
        &Change {
            action: "client_config.set_flag",
            subject: name,
            before,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(flag)
}

/// Removes the flag `name`; programs do not get it any more.
///
/// # Errors
/// [`Error::NotFound`] if it does not exist.
pub fn remove_flag(tx: &Tx<'_>, name: &str, actor: &Actor, now: UnixMs) -> Result<()> {
    let old = flag(tx, name)?;
    store::remove_flag(tx, name)?;
    let entry = Change {
        action: "client_config.remove_flag",
        subject: name,
        before: json!(old),
        after: Value::Null,
    };
    audit::note(tx, now, actor, &entry)?;
    tx.invalidate_caches();
    Ok(())
}
