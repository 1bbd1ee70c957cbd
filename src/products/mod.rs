//! The products that the shop sells. Each has a slug, settings, API keys, feature flags and releases of its own. A shop
//! with one product never sees this: whatever takes a product then takes [`named_or_sole`].

mod change;
pub mod cli;
pub mod client;
pub mod panel;
mod program_settings;
mod rules;
mod settings;
pub mod site;
mod store;

pub use change::{NewProduct, add, archive, archive_confirmed, rename};
pub use program_settings::{
    LicensedVersionInfo, ProductsInUse, ProgramSettings, ProgramSettingsCache, SharedSettings,
    VersionInfo, snapshot,
};
pub use rules::{Refusal, SessionPolicy, UnconfirmedMinimum, VersionsFile};
pub use settings::{ProductSettings, TrialPlan, product_settings, set};

use std::collections::BTreeMap;

use crate::api_keys;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Error, Resource, Result};
use crate::flags::{self, Flag};
use crate::id::ProductId;
use crate::limits::{self, Limit};
use crate::paging::{Direction, Page, PageRequest, SortPosition, Total};
use crate::product_state;
use crate::releases::{self, Release};
use crate::revision::Revision;
use crate::text;
use crate::version::Version;

/// The name of the first product until somebody chooses one.
const DEFAULT_NAME: &str = "My program";
/// How many products the error names that asks for one of them.
const NAMED_MAX: usize = 10;

/// A product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The id.
    pub id: ProductId,
    /// Its name in addresses and commands, which never changes.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// When it was added.
    pub created_at: UnixMs,
    /// When it was archived; `None` while it is sold and served.
    pub archived_at: Option<UnixMs>,
}

impl Product {
    /// The revision of what can be edited: the name.
    pub fn revision(&self) -> Revision {
        Revision::of(&self.name.as_str().into())
    }
}

/// Every product, archived ones too, the first one first.
pub fn list(reader: &Reader<'_>) -> Result<Vec<Product>> {
    store::list(reader)
}

/// A column by which the list of products can be sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProductColumn {
    /// When it was added.
    #[default]
    Added,
    /// The name.
    Name,
    /// The short name.
    Slug,
    /// Whether it is archived.
    State,
}

impl ProductColumn {
    /// Every column.
    pub const ALL: [Self; 4] = [Self::Added, Self::Name, Self::Slug, Self::State];

    /// The word in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Name => "name",
            Self::Slug => "slug",
            Self::State => "state",
        }
    }

    /// The column for a word; `None` if unknown.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }
}

impl Product {
    /// The position in a list sorted by `column`.
    pub fn position(&self, column: ProductColumn) -> SortPosition {
        let value = match column {
            ProductColumn::Added => String::new(),
            ProductColumn::Name => text::sort_key(&self.name),
            ProductColumn::Slug => self.slug.clone(),
            ProductColumn::State => u8::from(self.archived_at.is_some()).to_string(),
        };
        SortPosition {
            value,
            id: self.id.0,
        }
    }
}

/// A page of products, and how many there are.
pub fn page(
    reader: &Reader<'_>,
    (column, direction): (ProductColumn, Direction),
    request: &PageRequest<SortPosition>,
) -> Result<(Page<Product>, Total)> {
    let products = store::list(reader)?;
    let total = Total::Exactly(u32::try_from(products.len()).unwrap_or(u32::MAX));
    let page = request.cut(products, direction, |product| product.position(column));
    Ok((page, total))
}

/// The product with this id, archived or not.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn get(reader: &Reader<'_>, id: ProductId) -> Result<Product> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found(Resource::Product, id))
}

/// The product with this slug, archived or not.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn find(reader: &Reader<'_>, slug: &str) -> Result<Product> {
    store::by_slug(reader, slug)?.ok_or_else(|| Error::not_found(Resource::Product, slug))
}

/// The products that are not archived, the first one first. There is always one.
pub fn in_use(reader: &Reader<'_>) -> Result<Vec<Product>> {
    let mut products = store::list(reader)?;
    products.retain(|product| product.archived_at.is_none());
    Ok(products)
}

/// The product in use that a command names by its slug, which it may leave out if there is only one.
///
/// # Errors
/// [`Error::NotFound`] for an unknown slug, `product_archived`, [`Error::Usage`] if there are several and none is named.
pub fn named_or_sole(reader: &Reader<'_>, slug: Option<&str>) -> Result<Product> {
    if let Some(slug) = slug {
        let product = find(reader, slug)?;
        product_state::check_in_use(reader, product.id)?;
        return Ok(product);
    }
    let in_use = in_use(reader)?;
    if let [sole] = in_use.as_slice() {
        return Ok(sole.clone());
    }
    let slugs = in_use.iter().map(|product| product.slug.as_str());
    let mut slugs: Vec<&str> = slugs.take(NAMED_MAX).collect();
    if in_use.len() > NAMED_MAX {
        slugs.push("…");
    }
    let slugs = slugs.join("|");
    Err(Error::Usage(format!(
        "there are several products: name one with --product {slugs}"
    )))
}

/// The slugs of all products, archived ones too, for lists.
#[derive(Clone, Debug)]
pub struct Slugs(BTreeMap<ProductId, String>);

impl Slugs {
    /// Reads them.
    pub fn read(reader: &Reader<'_>) -> Result<Self> {
        let products = store::list(reader)?.into_iter();
        Ok(Self(products.map(|one| (one.id, one.slug)).collect()))
    }

    /// The slug of a product; empty if it was added after the slugs were read.
    pub fn of(&self, product: ProductId) -> &str {
        self.0.get(&product).map_or("", String::as_str)
    }

    /// Whether there is more than one product, so that lists say which product a license is for.
    pub fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    /// The head of a table whose last column is the product; without that column if there is only one.
    pub fn table_head<'a>(&self, with_product: &'a [&'a str]) -> &'a [&'a str] {
        match with_product.split_last() {
            Some((_, without)) if !self.are_several() => without,
            _ => with_product,
        }
    }
}

/// Whether the first product exists, which the first start adds.
pub fn exists(reader: &Reader<'_>) -> Result<bool> {
    product_state::exists(reader, ProductId::FIRST)
}

/// Adds the first product with default settings, if it does not exist: at the first start.
pub fn ensure(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    if exists(tx)? {
        return Ok(());
    }
    let slug = unused_slug(tx, DEFAULT_NAME, Some(ProductId::FIRST))?;
    insert(tx, DEFAULT_NAME, &slug, now)?;
    tx.invalidate_caches();
    Ok(())
}

/// Inserts a product with default settings and a new API key.
fn insert(tx: &Tx<'_>, name: &str, slug: &str, now: UnixMs) -> Result<ProductId> {
    let product = store::insert(tx, slug, now)?;
    let settings = ProductSettings {
        product,
        client_name: name.to_owned(),
        api_key: api_keys::generate()?,
        heartbeat_interval: 30,
        session_timeout: 60,
        current_version: Version::new(1, 0, 0),
        minimum_version: Version::new(0, 0, 0),
        session_policy: SessionPolicy::Reject,
        offline_days: 0,
        trial_plan: None,
    };
    store::insert_settings(tx, &settings, now)?;
    Ok(product)
}

/// The slug that a name makes, with a number if another product than `own` has it.
fn unused_slug(reader: &Reader<'_>, name: &str, own: Option<ProductId>) -> Result<String> {
    let slug = text::slug_of(name);
    for number in 1..=1000 {
        let candidate = rules::numbered(&slug, number);
        if is_slug_unused(reader, &candidate, own)? {
            return Ok(candidate);
        }
    }
    Err(Refusal::SlugTaken(slug).into())
}

/// Whether no product other than `own` has, or had, the slug. The first one was served by the slug of its default name
/// until somebody chose another name.
fn is_slug_unused(reader: &Reader<'_>, slug: &str, own: Option<ProductId>) -> Result<bool> {
    if slug == text::slug_of(DEFAULT_NAME) && own != Some(ProductId::FIRST) {
        return Ok(false);
    }
    let owner = store::by_slug(reader, slug)?;
    Ok(owner.is_none_or(|owner| Some(owner.id) == own))
}

/// Checks that no product in use, other than `own`, has the name, in any case: a lease names its product by it alone.
///
/// # Errors
/// [`Refusal::NameTaken`].
fn check_name_unused(reader: &Reader<'_>, name: &str, own: Option<ProductId>) -> Result<()> {
    let wanted = text::casefold(name);
    let mut others = in_use(reader)?.into_iter();
    let taken = others.any(|other| Some(other.id) != own && text::casefold(&other.name) == wanted);
    if taken {
        return Err(Refusal::NameTaken(name.to_owned()).into());
    }
    Ok(())
}

/// Whether an administrator has reviewed the settings of a product.
pub fn reviewed(reader: &Reader<'_>, product: ProductId) -> Result<bool> {
    store::reviewed(reader, product)
}

/// A change that the settings page makes in one step.
#[derive(Clone, Debug)]
pub enum SettingsChange {
    /// Pairs and the confirmed minimum version for [`set`].
    Client(Vec<(String, String)>, Option<Version>),
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
pub fn update(
    act: &Act<'_>,
    product: ProductId,
    change: &SettingsChange,
    seen: &Revision,
) -> Result<()> {
    match change {
        SettingsChange::Client(pairs, confirmed) => {
            seen.check(&product_settings(act.tx, product)?.revision())?;
            set(act, product, pairs, *confirmed).map(drop)
        }
        SettingsChange::NewFlag(flag) => flags::add(act, product, flag),
        SettingsChange::Flag(flag) => flags::edit(act, product, flag, seen),
        SettingsChange::Limit(limit) => limits::edit(act, limit, seen),
    }
}

/// Who hears of a new release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// Programs that ask for it.
    Available,
    /// Programs of older versions, too: it is the current version.
    Current,
}

/// Adds a release of a product.
///
/// # Errors
/// The errors of [`releases::add`].
pub fn add_release(
    act: &Act<'_>,
    product: ProductId,
    release: &Release,
    publication: Publication,
) -> Result<()> {
    let added = releases::add(act, product, release)?;
    match publication {
        Publication::Available => Ok(()),
        Publication::Current => make_current(act, product, added.version),
    }
}

/// Makes a release the current version: programs of older versions learn of the update.
///
/// # Errors
/// [`Error::NotFound`] if there is no such release, [`releases::Refusal::Withdrawn`] if it was withdrawn.
pub fn make_current(act: &Act<'_>, product: ProductId, version: Version) -> Result<()> {
    set_version(act, product, "current_version", version)
}

/// Makes a release the minimum version: programs of older versions are refused, which the caller has confirmed. Returns
/// the minimum version until then.
///
/// # Errors
/// As [`make_current`].
pub fn make_minimum(act: &Act<'_>, product: ProductId, version: Version) -> Result<Version> {
    let before = product_settings(act.tx, product)?.minimum_version;
    set_version(act, product, "minimum_version", version)?;
    Ok(before)
}

fn set_version(act: &Act<'_>, product: ProductId, column: &str, version: Version) -> Result<()> {
    releases::get(act.tx, product, version)?.check_available()?;
    let change = [(column.to_owned(), version.to_string())];
    set(act, product, &change, Some(version)).map(drop)
}

/// Whether the current version has no published release although other releases exist. Then programs learn that there
/// is an update, but get neither release notes nor a download address.
pub fn current_is_no_release(reader: &Reader<'_>, config: &ProductSettings) -> Result<bool> {
    let any = releases::count(reader, config.product)? > 0;
    Ok(any && releases::available(reader, config.product, config.current_version)?.is_none())
}
