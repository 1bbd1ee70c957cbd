//! Releases of the shop's programs: what is new in a version, and where to get it.

pub mod cli;
pub mod panel;
mod rules;
mod store;

pub use rules::{Refusal, Standing};

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{CHANGED_MEANWHILE, Error, Refused, Result};
use crate::security::secret;
use crate::text;
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
/// [`Error::Invalid`] for a part that is not of its form, [`Refusal::Exists`].
pub fn add(tx: &Tx<'_>, release: &Release, actor: &Actor) -> Result<()> {
    let release = &release.composed();
    rules::check(release)?;
    if store::by_version(tx, release.version)?.is_some() {
        return Err(Refusal::Exists(release.version).into());
    }
    store::insert(tx, release)?;
    let subject = release.version.to_string();
    let deed = Change {
        what: "releases.add",
        subject: &subject,
        before: Value::Null,
        after: facts(release),
    };
    audit::note(tx, release.released_at, actor, &deed)?;
    tx.invalidate_caches();
    Ok(())
}

fn facts(release: &Release) -> Value {
    json!({
        "channel": release.channel,
        "notes": release.notes,
        "download_url": release.download_url,
        "sha256": release.sha256,
    })
}

impl Release {
    /// The same as it is stored, whatever its texts were typed or pasted from.
    fn composed(&self) -> Self {
        Self {
            notes: text::typed(&self.notes),
            ..self.clone()
        }
    }

    /// What a form for this one was made from: another state has another digest.
    pub fn digest(&self) -> String {
        secret::digest_of(&facts(self))
    }

    /// What this one is while programs are told of `current`.
    pub fn standing(&self, current: Version) -> Standing {
        rules::standing(self.state, self.version, current)
    }

    /// Goes on only if it is to be had.
    ///
    /// # Errors
    /// [`Refusal::Withdrawn`].
    pub fn expect_offered(&self) -> Result<()> {
        match self.state {
            State::Released => Ok(()),
            State::Yanked => Err(Refusal::Withdrawn(self.version).into()),
        }
    }
}

/// The release of `version`, whatever its state.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn get(reader: &Reader<'_>, version: Version) -> Result<Release> {
    store::by_version(reader, version)?.ok_or_else(|| Error::not_found("release", version))
}

/// Changes what is said of a release, as long as nobody else has since `seen` was taken. Its version, its
/// state and its date stay.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], and `changed_meanwhile`.
pub fn edit(tx: &Tx<'_>, new: &Release, seen: &str, actor: &Actor, now: UnixMs) -> Result<()> {
    let old = get(tx, new.version)?;
    if old.digest() != seen {
        return Err(Refused::plain(CHANGED_MEANWHILE).into());
    }
    let new = &new.composed();
    rules::check(new)?;
    store::update(tx, new)?;
    let deed = Change {
        what: "releases.edit",
        subject: &new.version.to_string(),
        before: facts(&old),
        after: facts(new),
    };
    audit::note(tx, now, actor, &deed)?;
    tx.invalidate_caches();
    Ok(())
}

/// Takes a release back: it is offered to nobody any more.
///
/// # Errors
/// [`Error::NotFound`] when there is none of this version, [`Refusal::Withdrawn`].
pub fn yank(tx: &Tx<'_>, version: Version, actor: &Actor, now: UnixMs) -> Result<()> {
    get(tx, version)?.expect_offered()?;
    store::yank(tx, version)?;
    let subject = version.to_string();
    let (before, after) = (
        json!({ "state": State::Released }),
        json!({ "state": State::Yanked }),
    );
    audit::note(
        tx,
        now,
        actor,
        &Change {
            what: "releases.yank",
            subject: &subject,
            before,
            after,
        },
    )?;
    tx.invalidate_caches();
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

/// Every release that is to be had, newest version first.
///
/// # Errors
/// When SQLite fails.
pub fn released(reader: &Reader<'_>) -> Result<Vec<Release>> {
    let mut releases = list(reader)?;
    releases.retain(|release| release.state == State::Released);
    Ok(releases)
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
