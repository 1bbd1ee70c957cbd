//! Releases of the shop's programs: what is new in a version, and where to get it.

pub mod cli;
pub mod panel;
mod rules;
mod store;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Deed};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Error, Result};
use crate::version::Version;

/// Whether a release is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// To be had.
    Released,
    /// Taken back.
    Yanked,
}

/// A release.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// Such as `stable`.
    pub channel: String,
    /// What is new in it.
    pub notes: String,
    /// Where to get it.
    pub download_url: Option<String>,
    /// Of the download, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// Whether it is to be had.
    pub state: State,
    /// When it was added.
    #[serde(skip)]
    pub released_at: UnixMs,
}

/// Adds a release.
///
/// # Errors
/// [`Error::Invalid`] for a part that is not of its form, [`Error::State`] for a version that is there.
pub fn add(tx: &Tx<'_>, release: &Release, actor: &Actor) -> Result<()> {
    rules::check(release)?;
    if store::by_version(tx, release.version)?.is_some() {
        return Err(Error::State(format!(
            "release {} is there already",
            release.version
        )));
    }
    store::insert(tx, release)?;
    let subject = release.version.to_string();
    let after = json!({ "channel": release.channel, "download_url": release.download_url });
    let deed = Deed {
        what: "releases.add",
        subject: &subject,
        before: Value::Null,
        after,
    };
    audit::note(tx, release.released_at, actor, &deed)?;
    tx.announce();
    Ok(())
}

/// Takes a release back: it is offered to nobody any more.
///
/// # Errors
/// [`Error::NotFound`] when there is none of this version.
pub fn yank(tx: &Tx<'_>, version: Version, actor: &Actor, now: UnixMs) -> Result<()> {
    if !store::yank(tx, version)? {
        return Err(Error::not_found("release", version));
    }
    let subject = version.to_string();
    let (before, after) = (
        json!({ "state": State::Released }),
        json!({ "state": State::Yanked }),
    );
    audit::note(
        tx,
        now,
        actor,
        &Deed {
            what: "releases.yank",
            subject: &subject,
            before,
            after,
        },
    )?;
    tx.announce();
    Ok(())
}

/// How many there are.
///
/// # Errors
/// When SQLite fails.
pub fn count(reader: &Reader<'_>) -> Result<u32> {
    store::count(reader)
}

/// The release of `version`, if there is one and it was not taken back.
///
/// # Errors
/// When SQLite fails.
pub fn offered(reader: &Reader<'_>, version: Version) -> Result<Option<Release>> {
    Ok(store::by_version(reader, version)?.filter(|release| release.state == State::Released))
}

/// Every release, newest version first.
///
/// # Errors
/// When SQLite fails.
pub fn list(reader: &Reader<'_>) -> Result<Vec<Release>> {
    let mut releases = store::list(reader)?;
    releases.sort_by_key(|release| std::cmp::Reverse(release.version));
    Ok(releases)
}
