//! The product that the shop sells: its name, versions, heartbeat, session policy. Administrators change them in daily
//! work, so they are in the database, and a change takes effect within a second.

pub mod cli;
pub mod client;
pub mod panel;
mod program_settings;
mod rules;
pub mod site;
mod store;

pub use program_settings::{ProgramSettings, ProgramSettingsCache, VersionInfo, snapshot};
pub use rules::{Refusal, SessionPolicy, VersionsFile};

use serde_json::{Value, json};

use crate::api_keys;
use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Error, Result};
use crate::flags::{self, Flag};
use crate::limits::{self, Limit};
use crate::releases;
use crate::revision::Revision;
use crate::security::secret::Secret;
use crate::version::Version;

/// Identifies a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProductId(pub i64);

impl ProductId {
    /// The only product: its settings are the only row of `client_configs`.
    pub const ONLY: Self = Self(1);
}

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

impl ProductSettings {
    /// Identifies the content, to detect edit conflicts. The API key is not included.
    pub fn revision(&self) -> Revision {
        Revision::of(&facts(self))
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
        api_key: api_keys::generate()?,
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

/// Sets the columns that `changes` names: pairs of a column's name and its new value, unparsed.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Usage`] for the first invalid pair, and [`Refusal::MinimumAboveCurrent`]; nothing is
/// changed then.
pub fn set(act: &Act<'_>, changes: &[(String, String)]) -> Result<ProductSettings> {
    let old = product_settings(act.tx)?;
    let mut new = old.clone();
    for (key, value) in changes {
        rules::set_column(&mut new, key, value)?;
    }
    rules::check(&new)?;
    rules::check_versions(&old, &new)?;
    store::update(act.tx, &new, act.now)?;
    store::review(act.tx)?;
    act.changed(&Change {
        action: "client_config.set",
        subject: "client",
        before: facts(&old),
        after: facts(&new),
    })?;
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
/// `changed_meanwhile`, and the errors of [`set`], [`flags::add`], [`flags::edit`] and [`limits::edit`].
pub fn update(act: &Act<'_>, change: &SettingsChange, seen: &Revision) -> Result<()> {
    match change {
        SettingsChange::Client(pairs) => {
            seen.check(&product_settings(act.tx)?.revision())?;
            set(act, pairs).map(drop)
        }
        SettingsChange::NewFlag(flag) => flags::add(act, flag),
        SettingsChange::Flag(flag) => flags::edit(act, flag, seen),
        SettingsChange::Limit(limit) => limits::edit(act, limit, seen),
    }
}

/// Makes a release the current version: programs of older versions learn of the update.
///
/// # Errors
/// [`Error::NotFound`] if there is no such release, [`releases::Refusal::Withdrawn`] if it was withdrawn.
pub fn make_current(act: &Act<'_>, version: Version) -> Result<()> {
    set_version(act, "current_version", version)
}

/// Makes a release the minimum version: programs of older versions are refused.
///
/// # Errors
/// As [`make_current`].
pub fn make_minimum(act: &Act<'_>, version: Version) -> Result<()> {
    set_version(act, "minimum_version", version)
}

fn set_version(act: &Act<'_>, column: &str, version: Version) -> Result<()> {
    releases::get(act.tx, version)?.check_available()?;
    let change = [(column.to_owned(), version.to_string())];
    set(act, &change).map(drop)
}

/// Whether the current version has no published release although other releases exist. Then programs learn that there
/// is an update, but get neither release notes nor a download address.
pub fn current_is_no_release(reader: &Reader<'_>, config: &ProductSettings) -> Result<bool> {
    let any = releases::count(reader)? > 0;
    Ok(any && releases::available(reader, config.current_version)?.is_none())
}
