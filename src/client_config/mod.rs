//! What every program is told and held to: versions, the heartbeat, the API key, feature flags, rate limits.
//! Changed in daily work, so it is in the database, and a change holds within a second.

pub mod cli;
pub mod client;
pub mod panel;
mod rules;
pub mod site;
mod store;

pub use rules::{Policy, Refusal, Rollout, VersionsFile, masked, rollout};

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
    /// The program's name, for people.
    pub client_name: String,
    /// What every copy of the program carries.
    pub api_key: Secret<String>,
    /// Seconds between two heartbeats; 1 to 3600.
    pub heartbeat_interval: u32,
    /// Seconds of silence after which a session is over; above the interval, at most 86400.
    pub session_timeout: u32,
    /// The newest version.
    pub current_version: Version,
    /// The oldest version that still works.
    pub minimum_version: Version,
    /// What happens at a second start.
    pub session_policy: Policy,
    /// For how many days a program may go on that cannot reach the server; 0 to 90, and none at 0.
    pub offline_days: u32,
}

/// A switch in the programs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Flag {
    /// 1 to 64 characters.
    pub name: String,
    /// For administrators.
    pub description: String,
    /// Off for everybody while false.
    pub enabled: bool,
    /// For how many of a hundred licenses it is on.
    pub share_percent: u8,
}

impl Flag {
    /// Whether it is on for the license `number`.
    pub fn on_for(&self, number: i64) -> bool {
        self.enabled && rollout(&self.name, number, Rollout(self.share_percent))
    }
}

/// A rate limit as the file has it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Limit {
    /// The group of calls.
    pub name: String,
    /// Calls a minute from one address; 0 for no limit.
    pub per_minute: u32,
    /// Calls at once.
    pub burst: u32,
}

/// An API key that was rotated out.
#[derive(Clone, Debug)]
pub struct RetiredKey {
    /// The key.
    pub key: Secret<String>,
    /// Until when it still opens the door.
    pub valid_until: UnixMs,
}

/// All of it at one moment.
#[derive(Clone, Debug)]
pub struct ProgramSettings {
    /// The one row.
    pub config: ProductSettings,
    /// Every switch, by name.
    pub flags: Vec<Flag>,
    /// The current version's release, where there is one.
    pub release: Option<Release>,
    /// Calls of programs.
    pub client_limit: Rule,
    /// Failures of programs.
    pub failure_limit: Rule,
    /// Sites that ask for a callback.
    pub site_limit: Rule,
    /// Every release that is to be had, newest first.
    pub released: Vec<Release>,
    /// What anybody may know of versions.
    pub versions: VersionsFile,
    /// Logins of administrators.
    pub login_limit: Rule,
    key_hashes: Vec<([u8; 32], Option<UnixMs>)>,
}

/// What a program of some version is told about versions.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VersionInfo {
    /// The newest version.
    pub current_version: Version,
    /// The oldest that still works.
    pub minimum_version: Version,
    /// Whether the program is older than the newest.
    pub update_available: bool,
    /// Whether it still works.
    pub supported: bool,
    /// What is new, where there is an update.
    #[serde(skip)]
    pub whats_new: Option<String>,
    /// Where to get it, where there is an update.
    #[serde(skip)]
    pub download_url: Option<String>,
}

/// The present [`ProgramSettings`], looked up again when the file has changed.
#[derive(Debug, Default)]
pub struct ProgramSettingsCache(Mutex<Option<(u64, Arc<ProgramSettings>)>>);

impl ProgramSettingsCache {
    /// The snapshot of the present epoch.
    ///
    /// # Errors
    /// When it had to be read and SQLite failed.
    pub async fn get(self: &Arc<Self>, db: &Db) -> Result<Arc<ProgramSettings>> {
        if let Some(known) = self.known(db.epoch()) {
            return Ok(known);
        }
        let this = self.clone();
        db.read(move |reader| this.renew(reader)).await
    }

    /// The snapshot that holds in this look, or in this transaction.
    ///
    /// # Errors
    /// When it had to be read and SQLite failed.
    pub fn read(&self, reader: &Reader<'_>) -> Result<Arc<ProgramSettings>> {
        // Not kept: a neighbour in this transaction may have changed it, and may yet be undone.
        self.known(reader.epoch())
            .map_or_else(|| snapshot(reader).map(Arc::new), Ok)
    }

    /// Reads the snapshot of a look, and keeps it for those who come later.
    fn renew(&self, reader: &Reader<'_>) -> Result<Arc<ProgramSettings>> {
        // The epoch first: a change that comes in between makes the snapshot too young, never too old.
        let epoch = reader.epoch();
        let snapshot = Arc::new(snapshot(reader)?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.replace((epoch, snapshot.clone()));
        drop(kept);
        if before.is_some_and(|(_, before)| !before.has_same_key(&snapshot)) {
            log::warn!("the API key was changed: programs have to carry the new one");
        }
        Ok(snapshot)
    }

    fn known(&self, epoch: u64) -> Option<Arc<ProgramSettings>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref()
            .filter(|(of, _)| *of == epoch)
            .map(|(_, snapshot)| snapshot.clone())
    }
}

/// Everything, read from the file.
///
/// # Errors
/// When SQLite fails.
pub fn snapshot(reader: &Reader<'_>) -> Result<ProgramSettings> {
    let config = find(reader)?;
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
    let released = releases::released(reader)?;
    Ok(ProgramSettings {
        flags: store::flags(reader)?,
        release: releases::offered(reader, config.current_version)?,
        client_limit: rule("client"),
        failure_limit: rule("client_failures"),
        site_limit: rule("site"),
        versions: VersionsFile::of(&config, &released),
        released,
        login_limit: rule("login"),
        key_hashes: std::iter::once(current)
            .chain(retired.iter().map(old))
            .collect(),
        config,
    })
}

impl ProgramSettings {
    /// Whether `presented` opens the door at `now`. Takes the same time whatever it is.
    ///
    /// # Errors
    /// [`Refusal::InvalidApiKey`].
    pub fn check_api_key(&self, presented: &str, now: UnixMs) -> Result<(), Refusal> {
        let presented = secret::sha256(presented.as_bytes());
        let mut fits = false;
        for (hash, until) in &self.key_hashes {
            fits |= secret::same(hash, &presented) & until.is_none_or(|until| now < until);
        }
        if fits {
            Ok(())
        } else {
            Err(Refusal::InvalidApiKey)
        }
    }

    fn has_same_key(&self, other: &Self) -> bool {
        let current = |snapshot: &Self| snapshot.key_hashes.first().map(|(hash, _)| *hash);
        current(self) == current(other)
    }

    /// What a program of `version` is told about versions.
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

    /// Lets in a program of `version`.
    ///
    /// # Errors
    /// [`Refusal::VersionTooOld`], with what its user needs to get on.
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

    /// Every switch as the license `number` sees it.
    pub fn flags_for(&self, number: i64) -> BTreeMap<String, bool> {
        let flags = self.flags.iter();
        flags
            .map(|flag| (flag.name.clone(), flag.on_for(number)))
            .collect()
    }
}

/// The one row.
///
/// # Errors
/// [`Error::Damaged`] when there is none: the first start makes it, and nothing removes it.
pub fn find(reader: &Reader<'_>) -> Result<ProductSettings> {
    store::find(reader)?.ok_or_else(|| Error::Damaged {
        found: "the client configuration is missing".to_owned(),
    })
}

/// Whether the one row is there: after the first start of a new file.
///
/// # Errors
/// When SQLite fails.
pub fn is_there(reader: &Reader<'_>) -> Result<bool> {
    Ok(store::find(reader)?.is_some())
}

/// Makes the one row, if there is none: the first start of a new file.
///
/// # Errors
/// When SQLite fails.
pub fn ensure(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    if store::find(tx)?.is_some() {
        return Ok(());
    }
    let config = ProductSettings {
        client_name: "My program".to_owned(),
        api_key: new_key()?,
        heartbeat_interval: 30,
        session_timeout: 60,
        current_version: Version::new(1, 0, 0),
        minimum_version: Version::new(0, 0, 0),
        session_policy: Policy::Reject,
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

/// Changes what `changes` names: pairs of a column's name and its new value, as typed.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Usage`] for the first pair that cannot be, and
/// [`Refusal::MinimumAboveCurrent`]; nothing is changed then.
pub fn set(
    tx: &Tx<'_>,
    changes: &[(String, String)],
    actor: &Actor,
    now: UnixMs,
) -> Result<ProductSettings> {
    let old = find(tx)?;
    let mut new = old.clone();
    for (key, value) in changes {
        rules::change(&mut new, key, value)?;
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
            what: "client_config.set",
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

/// Whether an administrator has looked through what the first start made up.
///
/// # Errors
/// When SQLite fails.
pub fn reviewed(reader: &Reader<'_>) -> Result<bool> {
    store::reviewed(reader)
}

/// What the page of the panel changes in one go.
#[derive(Clone, Debug)]
pub enum SettingsChange {
    /// Columns of the one row, as [`set`] takes them.
    Client(Vec<(String, String)>),
    /// A flag that there is none of yet.
    NewFlag(Flag),
    /// All of a flag that is there.
    Flag(Flag),
    /// All of a rate limit.
    Limit(Limit),
}

/// Changes one part, as long as nobody else has since `seen` was taken: the `state` of that part.
///
/// # Errors
/// `changed_meanwhile`, [`Refusal::FlagExists`], and those of [`set`], [`set_flag`] and [`set_limit`].
pub fn update(
    tx: &Tx<'_>,
    change: &SettingsChange,
    seen: &str,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let unchanged = |state: String| {
        let changed = || Error::from(Refused::plain(CHANGED_MEANWHILE));
        (state == seen).then_some(()).ok_or_else(changed)
    };
    match change {
        SettingsChange::Client(pairs) => {
            unchanged(find(tx)?.state())?;
            set(tx, pairs, actor, now).map(drop)
        }
        SettingsChange::NewFlag(flag) => {
            if store::flags(tx)?.iter().any(|old| old.name == flag.name) {
                return Err(Refusal::FlagExists.into());
            }
            set_flag(tx, &flag.name, &flag.change(), actor, now).map(drop)
        }
        SettingsChange::Flag(flag) => {
            unchanged(self::flag(tx, &flag.name)?.state())?;
            set_flag(tx, &flag.name, &flag.change(), actor, now).map(drop)
        }
        SettingsChange::Limit(limit) => {
            let old = store::limits(tx)?;
            let old = old.iter().find(|old| old.name == limit.name);
            let old = old.ok_or_else(|| Error::not_found("rate limit", &limit.name))?;
            unchanged(old.state())?;
            set_limit(tx, limit, actor, now)
        }
    }
}

impl ProductSettings {
    /// What a form for this was made from: another state has another digest. The API key is no part of it.
    pub fn state(&self) -> String {
        secret::digest_of(&facts(self))
    }

    /// What a question about the API key was made from.
    pub fn key_state(&self) -> String {
        secret::digest_of(&json!({ "api_key": self.api_key.reveal() }))
    }
}

impl Flag {
    /// What a form for this was made from.
    pub fn state(&self) -> String {
        secret::digest_of(&json!(self))
    }

    /// Everything about it.
    fn change(&self) -> FlagChange {
        FlagChange {
            enabled: Some(self.enabled),
            share_percent: Some(self.share_percent),
            description: Some(self.description.clone()),
        }
    }
}

impl Limit {
    /// What a form for this was made from.
    pub fn state(&self) -> String {
        secret::digest_of(&json!(self))
    }
}

/// Tells programs of every older version that the release `version` is to be had.
///
/// # Errors
/// [`Error::NotFound`] and [`releases::Refusal::Withdrawn`] where it is not.
pub fn make_current(tx: &Tx<'_>, version: Version, actor: &Actor, now: UnixMs) -> Result<()> {
    put_in_force(tx, "current_version", version, actor, now)
}

/// From now on programs older than the release `version` are refused.
///
/// # Errors
/// As [`make_current`].
pub fn make_minimum(tx: &Tx<'_>, version: Version, actor: &Actor, now: UnixMs) -> Result<()> {
    put_in_force(tx, "minimum_version", version, actor, now)
}

fn put_in_force(
    tx: &Tx<'_>,
    column: &str,
    version: Version,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    releases::get(tx, version)?.expect_offered()?;
    let change = [(column.to_owned(), version.to_string())];
    set(tx, &change, actor, now).map(drop)
}

/// Whether there are releases, and the current version is none that is to be had: then programs hear that
/// there is an update, but neither what is new nor where to get it.
///
/// # Errors
/// When SQLite fails.
pub fn current_is_no_release(reader: &Reader<'_>, config: &ProductSettings) -> Result<bool> {
    let any = releases::count(reader)? > 0;
    Ok(any && releases::offered(reader, config.current_version)?.is_none())
}

/// The API keys that were rotated out and still open the door at `now`, those that do so longest first.
///
/// # Errors
/// When SQLite fails.
pub fn retired_keys(reader: &Reader<'_>, now: UnixMs) -> Result<Vec<RetiredKey>> {
    let mut keys = store::retired(reader)?;
    keys.retain(|key| now < key.valid_until);
    Ok(keys)
}

/// What somebody says who wants another API key in the panel.
#[derive(Clone, Debug)]
pub struct RotateRequest {
    /// The product's name, typed: so that nobody does it by accident.
    pub confirm: String,
    /// The `key_state` of the key that he saw.
    pub seen: String,
    /// For how many days the old one goes on; 0: it stops at once.
    pub overlap_days: u32,
}

/// As [`rotate_api_key`], for somebody who has seen the present key and says that he means it.
///
/// # Errors
/// `changed_meanwhile`; [`Error::Invalid`] for another name, or for more days than there may be.
pub fn replace_api_key(
    tx: &Tx<'_>,
    wish: &RotateRequest,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let config = find(tx)?;
    if config.key_state() != wish.seen {
        return Err(Refused::plain(CHANGED_MEANWHILE).into());
    }
    if text::typed(&config.client_name) != text::typed(&wish.confirm) {
        return Err(Error::invalid("confirm", "is not the product's name"));
    }
    let overlap = rules::overlap(wish.overlap_days)?;
    rotate_api_key(tx, overlap, actor, now).map(drop)
}

/// Gives out a new API key; the old one opens the door for `overlap` more.
///
/// # Errors
/// When SQLite fails.
pub fn rotate_api_key(
    tx: &Tx<'_>,
    overlap: Duration,
    actor: &Actor,
    now: UnixMs,
) -> Result<ProductSettings> {
    let old = find(tx)?;
    let new = ProductSettings {
        api_key: new_key()?,
        ..old.clone()
    };
    // At once means at once: for the keys that were rotated out before, too.
    let stale = if overlap.is_zero() {
        UnixMs(i64::MAX)
    } else {
        now
    };
    store::forget_retired(tx, stale)?;
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
    let deed = Change {
        what: "client_config.rotate_api_key",
        subject: "client",
        before: Value::Null,
        after,
    };
    audit::note(tx, now, actor, &deed)?;
    tx.invalidate_caches();
    Ok(new)
}

/// Every rate limit.
///
/// # Errors
/// When SQLite fails.
pub fn limits(reader: &Reader<'_>) -> Result<Vec<Limit>> {
    store::limits(reader)
}

/// Changes a rate limit.
///
/// # Errors
/// [`Error::NotFound`] for a group that there is none of, [`Error::Invalid`] for impossible numbers.
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
            what: "client_config.set_limit",
            subject: &limit.name,
            before,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(())
}

/// Every feature flag, by name.
///
/// # Errors
/// When SQLite fails.
pub fn flags(reader: &Reader<'_>) -> Result<Vec<Flag>> {
    store::flags(reader)
}

/// The flag of this name.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn flag(reader: &Reader<'_>, name: &str) -> Result<Flag> {
    let found = store::flags(reader)?
        .into_iter()
        .find(|flag| flag.name == name);
    found.ok_or_else(|| Error::not_found("feature flag", name))
}

/// What is to change about a flag; what is not named stays, or begins as on for all.
#[derive(Clone, Debug, Default)]
pub struct FlagChange {
    /// On or off.
    pub enabled: Option<bool>,
    /// For how many of a hundred licenses.
    pub share_percent: Option<u8>,
    /// For administrators.
    pub description: Option<String>,
}

/// Makes or changes the flag `name`.
///
/// # Errors
/// [`Error::Invalid`] for a name or a share that cannot be.
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
        flag.description = text::typed(description);
    }
    rules::check_flag(&flag)?;
    store::set_flag(tx, &flag, now)?;
    let (before, after) = (json!(old), json!(flag));
    audit::note(
        tx,
        now,
        actor,
        &Change {
            what: "client_config.set_flag",
            subject: name,
            before,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(flag)
}

/// Removes the flag `name`: programs do not hear of it any more.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn remove_flag(tx: &Tx<'_>, name: &str, actor: &Actor, now: UnixMs) -> Result<()> {
    let old = flag(tx, name)?;
    store::remove_flag(tx, name)?;
    let deed = Change {
        what: "client_config.remove_flag",
        subject: name,
        before: json!(old),
        after: Value::Null,
    };
    audit::note(tx, now, actor, &deed)?;
    tx.invalidate_caches();
    Ok(())
}
