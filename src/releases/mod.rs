//! Releases of the shop's programs: what is new in a version, and where to download it.

pub mod cli;
pub mod panel;
mod rules;
mod store;

pub use rules::{Refusal, ReleaseStatus};

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Error, Refused, Result};
use crate::security::secret;
use crate::text;
use crate::version::Version;

/// Whether a release is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseState {
    /// Available.
    Released,
    /// Withdrawn.
    Yanked,
}

/// A release.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Release {
    /// The version.
    pub version: Version,
    /// The channel, such as `stable`.
    pub channel: String,
    /// Release notes.
    pub notes: String,
    /// Where to download it. `None` if there is no download.
    pub download_url: Option<String>,
    /// SHA-256 of the download, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// Whether it is available.
    pub state: ReleaseState,
    /// When it was added.
    #[serde(skip)]
    pub released_at: UnixMs,
}

/// Adds a release.
///
/// # Errors
/// [`Error::Invalid`] for an invalid field, [`Refusal::Exists`].
pub fn add(tx: &Tx<'_>, release: &Release, actor: &Actor) -> Result<()> {
    let release = &release.normalized();
    rules::check(release)?;
    if store::by_version(tx, release.version)?.is_some() {
        return Err(Refusal::Exists(release.version).into());
    }
    store::insert(tx, release)?;
    let subject = release.version.to_string();
    let change = Change {
        action: "releases.add",
        subject: &subject,
        before: Value::Null,
        after: audit_json(release),
    };
    audit::note(tx, release.released_at, actor, &change)?;
    tx.invalidate_caches();
    Ok(())
}

/// The editable data as JSON, for the audit log.
fn audit_json(release: &Release) -> Value {
    json!({
        "channel": release.channel,
        "notes": release.notes,
        "download_url": release.download_url,
        "sha256": release.sha256,
    })
}

impl Release {
    /// The release with its texts normalized for storage.
    fn normalized(&self) -> Self {
        Self {
            notes: text::clean_input(&self.notes),
            ..self.clone()
        }
    }

    /// A digest of the editable data. Forms carry it to detect edit conflicts.
    pub fn digest(&self) -> String {
        secret::json_digest(&audit_json(self))
    }

    /// The status of the release if `current` is the current version.
    pub fn status(&self, current: Version) -> ReleaseStatus {
        rules::status(self.state, self.version, current)
    }

    /// Fails unless it is available.
    ///
    /// # Errors
    /// [`Refusal::Withdrawn`].
    pub fn check_available(&self) -> Result<()> {
        match self.state {
            ReleaseState::Released => Ok(()),
            ReleaseState::Yanked => Err(Refusal::Withdrawn(self.version).into()),
        }
    }
}

/// The release of `version` in any state.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn get(reader: &Reader<'_>, version: Version) -> Result<Release> {
    store::by_version(reader, version)?.ok_or_else(|| Error::not_found("release", version))
}

/// Changes a release, except its version, state and date. `seen` is the [`Release::digest`] that the edit is based on.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], and `changed_meanwhile` if the release has been changed since.
pub fn edit(tx: &Tx<'_>, new: &Release, seen: &str, actor: &Actor, now: UnixMs) -> Result<()> {
    let old = get(tx, new.version)?;
    if old.digest() != seen {
        return Err(Refused::changed_meanwhile().into());
    }
    let new = &new.normalized();
    rules::check(new)?;
    store::update(tx, new)?;
    let change = Change {
        action: "releases.edit",
        subject: &new.version.to_string(),
        before: audit_json(&old),
        after: audit_json(new),
    };
    audit::note(tx, now, actor, &change)?;
    tx.invalidate_caches();
    Ok(())
}

/// Withdraws a release: it is no longer offered to programs.
///
/// # Errors
/// [`Error::NotFound`], and [`Refusal::Withdrawn`] if it is withdrawn already.
pub fn yank(tx: &Tx<'_>, version: Version, actor: &Actor, now: UnixMs) -> Result<()> {
    get(tx, version)?.check_available()?;
    store::yank(tx, version)?;
    let subject = version.to_string();
    let (before, after) = (
        json!({ "state": ReleaseState::Released }),
        json!({ "state": ReleaseState::Yanked }),
    );
    audit::note(
        tx,
        now,
        actor,
        &Change {
            action: "releases.yank",
            subject: &subject,
            before,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(())
}

/// How many releases there are.
pub fn count(reader: &Reader<'_>) -> Result<u32> {
    store::count(reader)
}

/// The release of `version`. `None` if there is none or it is withdrawn.
pub fn available(reader: &Reader<'_>, version: Version) -> Result<Option<Release>> {
    Ok(store::by_version(reader, version)?
        .filter(|release| release.state == ReleaseState::Released))
}

/// All available releases, newest version first.
pub fn all_available(reader: &Reader<'_>) -> Result<Vec<Release>> {
    let mut releases = list(reader)?;
    releases.retain(|release| release.state == ReleaseState::Released);
    Ok(releases)
}

/// All releases in any state, newest version first.
pub fn list(reader: &Reader<'_>) -> Result<Vec<Release>> {
    let mut releases = store::list(reader)?;
    releases.sort_by_key(|release| std::cmp::Reverse(release.version));
    Ok(releases)
}
