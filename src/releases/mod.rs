//! Releases of the shop's programs: what is new in a version, and where to download it.

pub mod cli;
mod json;
pub mod panel;
mod rules;
mod store;

pub use rules::{Refusal, ReleaseDates, ReleaseStatus};

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::{Error, Faults, Resource, Result};
use crate::id::ProductId;
use crate::paging::{Direction, Page, PageRequest, SortPosition, Total};
use crate::product_state;
use crate::revision::Revision;
use crate::text;
use crate::version::Version;

/// How many releases of a product are listed.
pub const LIST_MAX: u32 = 10_000;

/// Whether a release is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseState {
    /// Available.
    Released,
    /// Withdrawn.
    Yanked,
}

impl ReleaseState {
    /// Its name in JSON and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Yanked => "yanked",
        }
    }
}

/// A release.
#[derive(Clone, Debug)]
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
    pub released_at: UnixMs,
}

/// Adds a release of a product, and returns it as it is stored.
///
/// # Errors
/// [`Error::Invalid`] for an invalid field, [`Refusal::Exists`], `product_archived`.
pub fn add(act: &Act<'_>, product: ProductId, release: &Release) -> Result<Release> {
    product_state::check_in_use(act.tx, product)?;
    let release = release.normalized();
    let mut faults = Faults::default();
    if store::by_version(act.tx, product, release.version)?.is_some() {
        faults.add(Refusal::Exists(release.version));
    }
    faults.keep(rules::check(&release));
    faults.finish()?;
    store::insert(act.tx, product, &release)?;
    act.changed(&Change {
        action: "releases.add",
        subject: &subject(act, product, release.version)?,
        before: Value::Null,
        after: facts(&release),
    })?;
    Ok(release)
}

fn subject(act: &Act<'_>, product: ProductId, version: Version) -> Result<String> {
    product_state::audit_subject(act.tx, product, &version.to_string())
}

/// The editable data as JSON, for the audit log.
fn facts(release: &Release) -> Value {
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

    /// Whether it came out while the updates of a license lasted that end at `until`.
    pub const fn is_covered_until(&self, until: UnixMs) -> bool {
        rules::is_covered(self.released_at, until)
    }

    /// Identifies the editable data, to detect edit conflicts.
    pub fn revision(&self) -> Revision {
        Revision::of(&facts(self))
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

/// The release of `version` of a product, in any state.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn get(reader: &Reader<'_>, product: ProductId, version: Version) -> Result<Release> {
    store::by_version(reader, product, version)?
        .ok_or_else(|| Error::not_found(Resource::Release, version))
}

/// Changes a release, except its version, state and date. `seen` is the [`Release::revision`] that the edit is based on.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], `product_archived`, and `changed_meanwhile` if the release has been changed
/// since.
pub fn edit(act: &Act<'_>, product: ProductId, new: &Release, seen: &Revision) -> Result<()> {
    product_state::check_in_use(act.tx, product)?;
    let old = get(act.tx, product, new.version)?;
    seen.check(&old.revision())?;
    let new = &new.normalized();
    rules::check(new)?;
    store::update(act.tx, product, new)?;
    act.changed(&Change {
        action: "releases.edit",
        subject: &subject(act, product, new.version)?,
        before: facts(&old),
        after: facts(new),
    })
}

/// Withdraws a release: it is no longer offered to programs.
///
/// # Errors
/// [`Error::NotFound`], `product_archived`, and [`Refusal::Withdrawn`] if it is withdrawn already.
pub fn yank(act: &Act<'_>, product: ProductId, version: Version) -> Result<()> {
    product_state::check_in_use(act.tx, product)?;
    get(act.tx, product, version)?.check_available()?;
    store::yank(act.tx, product, version)?;
    act.changed(&Change {
        action: "releases.yank",
        subject: &subject(act, product, version)?,
        before: json!({ "state": ReleaseState::Released }),
        after: json!({ "state": ReleaseState::Yanked }),
    })
}

/// How many releases a product has.
pub fn count(reader: &Reader<'_>, product: ProductId) -> Result<u32> {
    store::count(reader, product)
}

/// The release of `version`. `None` if there is none or it is withdrawn.
pub fn available(
    reader: &Reader<'_>,
    product: ProductId,
    version: Version,
) -> Result<Option<Release>> {
    Ok(store::by_version(reader, product, version)?
        .filter(|release| release.state == ReleaseState::Released))
}

/// The releases of a product in any state, newest version first: all, unless there are more than [`LIST_MAX`].
pub fn list(reader: &Reader<'_>, product: ProductId) -> Result<Vec<Release>> {
    list_up_to(reader, product, LIST_MAX)
}

/// As [`list`], with at most `limit` releases, those that were added last.
pub fn list_up_to(reader: &Reader<'_>, product: ProductId, limit: u32) -> Result<Vec<Release>> {
    let mut releases = store::list(reader, product, limit)?;
    releases.sort_by_key(|release| std::cmp::Reverse(release.version));
    Ok(releases)
}

/// A column by which the list of releases can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseColumn {
    /// The version.
    Version,
    /// The channel.
    Channel,
    /// When it was added.
    Added,
}

impl ReleaseColumn {
    /// Every column.
    pub const ALL: [Self; 3] = [Self::Version, Self::Channel, Self::Added];

    /// The word in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Channel => "channel",
            Self::Added => "added",
        }
    }

    /// The column for a word; `None` if unknown.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }
}

impl Release {
    /// The position in a list sorted by `column`. Each version has one release, so it needs no id.
    pub fn position(&self, column: ReleaseColumn) -> SortPosition {
        let version = self.version.sort_key();
        let value = match column {
            ReleaseColumn::Version => version,
            ReleaseColumn::Channel => format!("{} {version}", self.channel),
            ReleaseColumn::Added => format!("{:020} {version}", self.released_at.0),
        };
        SortPosition { value, id: 0 }
    }
}

/// Which releases to list.
#[derive(Clone, Copy, Debug)]
pub struct ReleaseQuery {
    /// Of this product.
    pub product: ProductId,
    /// In this state, or in any.
    pub state: Option<ReleaseState>,
    /// The column by which they are sorted, and in which direction.
    pub order: (ReleaseColumn, Direction),
}

/// A page of releases, and how many there are.
pub fn page(
    reader: &Reader<'_>,
    query: &ReleaseQuery,
    request: &PageRequest<SortPosition>,
) -> Result<(Page<Release>, Total)> {
    let mut releases = list(reader, query.product)?;
    releases.retain(|release| query.state.is_none_or(|state| release.state == state));
    let total = Total::Exactly(u32::try_from(releases.len()).unwrap_or(u32::MAX));
    let (column, direction) = query.order;
    let page = request.cut(releases, direction, |release| release.position(column));
    Ok((page, total))
}
