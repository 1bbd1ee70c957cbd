//! What programs are told and held to, at one moment: read from several tables at once, and cached until one of them
//! changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rules::{Refusal, VersionsFile};
use super::{Product, ProductSettings};
use crate::api_keys::{self, AcceptedKeys};
use crate::clock::UnixMs;
use crate::db::{Db, Reader};
use crate::error::Result;
use crate::flags::{self, Flag};
use crate::id::ProductId;
use crate::limits::{self, GroupRules};
use crate::releases::{self, Release, ReleaseDates, ReleaseState};
use crate::version::Version;

/// The settings of a product at one moment.
#[derive(Clone, Debug)]
pub struct ProgramSettings {
    /// The settings in `client_configs`.
    pub config: ProductSettings,
    /// Every feature flag, ordered by name.
    pub flags: Vec<Flag>,
    /// The published release of the current version.
    pub release: Option<Release>,
    /// Every published release, newest first.
    pub released: Vec<Release>,
    /// When every release came out, withdrawn ones too.
    pub release_dates: ReleaseDates,
    /// The public list of versions.
    pub versions: VersionsFile,
}

/// What holds for the programs of all products, at one moment.
#[derive(Clone, Debug)]
pub struct SharedSettings {
    /// The products that are not archived, by slug.
    pub products: ProductsInUse,
    /// The accepted API keys, each with its product.
    pub api_keys: AcceptedKeys,
    /// The rate limits.
    pub limits: GroupRules,
}

/// The products that are not archived, by slug.
#[derive(Clone, Debug, Default)]
pub struct ProductsInUse {
    by_slug: HashMap<String, ProductId>,
    /// Whether [`ProductId::FIRST`] is one of them.
    first_is_in_use: bool,
}

impl ProductsInUse {
    fn read(reader: &Reader<'_>) -> Result<Self> {
        let mut all = Self::default();
        for product in super::in_use(reader)? {
            all.first_is_in_use |= product.id == ProductId::FIRST;
            all.by_slug.insert(product.slug, product.id);
        }
        Ok(all)
    }

    /// The product of this slug; `None` if it is unknown or archived.
    pub fn with_slug(&self, slug: &str) -> Option<ProductId> {
        self.by_slug.get(slug).copied()
    }

    /// The first product; `None` if it is archived.
    pub fn first(&self) -> Option<ProductId> {
        self.first_is_in_use.then_some(ProductId::FIRST)
    }
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

/// The same on a license: `update_available`, `whats_new` and `download_url` are about the newest version that the
/// license covers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LicensedVersionInfo {
    /// About the newest version that the license covers.
    #[serde(flatten)]
    pub info: VersionInfo,
    /// The newest version, if the license does not cover it.
    pub renewal_version: Option<Version>,
}

/// A version that programs are informed about.
#[derive(Clone, Copy)]
struct Offer<'a> {
    version: Version,
    /// Its published release.
    release: Option<&'a Release>,
}

/// Caches [`SharedSettings`], and [`ProgramSettings`] by product, and reads them again after a change.
#[derive(Debug, Default)]
pub struct ProgramSettingsCache(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    shared: Option<Cached<SharedSettings>>,
    products: BTreeMap<ProductId, Cached<ProgramSettings>>,
}

#[derive(Debug)]
struct Cached<T> {
    generation: u64,
    settings: Arc<T>,
}

impl<T> Cached<T> {
    fn of(&self, generation: u64) -> Option<Arc<T>> {
        (self.generation == generation).then(|| self.settings.clone())
    }
}

impl ProgramSettingsCache {
    /// The shared settings of the current generation.
    pub async fn shared(self: &Arc<Self>, db: &Db) -> Result<Arc<SharedSettings>> {
        let generation = db.generation();
        let cached = self
            .lock()
            .shared
            .as_ref()
            .and_then(|one| one.of(generation));
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let this = self.clone();
        db.read(move |reader| this.reload_shared(reader)).await
    }

    /// The settings of a product, of the current generation.
    pub async fn get(
        self: &Arc<Self>,
        db: &Db,
        product: ProductId,
    ) -> Result<Arc<ProgramSettings>> {
        if let Some(cached) = self.cached(product, db.generation()) {
            return Ok(cached);
        }
        let this = self.clone();
        db.read(move |reader| this.reload(product, reader)).await
    }

    /// The settings of a product as this reader or transaction sees them.
    pub fn read(&self, reader: &Reader<'_>, product: ProductId) -> Result<Arc<ProgramSettings>> {
        // Not cached: this transaction may have changed them, and may still be rolled back.
        self.cached(product, reader.generation())
            .map_or_else(|| snapshot(reader, product).map(Arc::new), Ok)
    }

    /// Reads the settings and caches them.
    fn reload(&self, product: ProductId, reader: &Reader<'_>) -> Result<Arc<ProgramSettings>> {
        // The generation is read first: if a change comes in between, the cached settings are newer than their
        // generation, never older.
        let generation = reader.generation();
        let settings = Arc::new(snapshot(reader, product)?);
        let entry = Cached {
            generation,
            settings: settings.clone(),
        };
        self.lock().products.insert(product, entry);
        Ok(settings)
    }

    /// The same for the shared settings.
    fn reload_shared(&self, reader: &Reader<'_>) -> Result<Arc<SharedSettings>> {
        let generation = reader.generation();
        let settings = Arc::new(SharedSettings {
            products: ProductsInUse::read(reader)?,
            api_keys: api_keys::accepted(reader)?,
            limits: limits::group_rules(reader)?,
        });
        let entry = Cached {
            generation,
            settings: settings.clone(),
        };
        let before = self.lock().shared.replace(entry);
        if let Some(before) = before {
            for product in settings.api_keys.changed_since(&before.settings.api_keys) {
                warn_of_changed_key(reader, product)?;
            }
        }
        Ok(settings)
    }

    fn cached(&self, product: ProductId, generation: u64) -> Option<Arc<ProgramSettings>> {
        self.lock().products.get(&product)?.of(generation)
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs that programs of `product` need a new API key; names it only if there are several.
fn warn_of_changed_key(reader: &Reader<'_>, product: ProductId) -> Result<()> {
    let products = super::list(reader)?;
    let named = products.iter().find(|one| one.id == product);
    match named.filter(|_| products.len() > 1) {
        None => log::warn!("the API key was changed: programs need the new one"),
        Some(Product { name, .. }) => {
            log::warn!("the API key of {name:?} was changed: its programs need the new one");
        }
    }
    Ok(())
}

/// Reads all settings of a product from the database.
pub fn snapshot(reader: &Reader<'_>, product: ProductId) -> Result<ProgramSettings> {
    let config = super::product_settings(reader, product)?;
    let mut released = releases::list(reader, product)?;
    let release_dates = ReleaseDates::of(&released);
    released.retain(|release| release.state == ReleaseState::Released);
    Ok(ProgramSettings {
        flags: flags::list(reader, product)?,
        release: releases::available(reader, product, config.current_version)?,
        versions: VersionsFile::new(&config, &released),
        released,
        release_dates,
        config,
    })
}

impl ProgramSettings {
    /// The information about versions for a program of `version`.
    pub fn version_info(&self, version: Version) -> VersionInfo {
        self.info_about(version, Some(self.newest()))
    }

    /// The same on a license whose updates end at `updates_until`; `None`: never.
    pub fn version_info_for(
        &self,
        version: Version,
        updates_until: Option<UnixMs>,
    ) -> LicensedVersionInfo {
        let current = self.config.current_version;
        LicensedVersionInfo {
            info: self.info_about(version, self.newest_covered(updates_until)),
            renewal_version: self.ended_before(current, updates_until).map(|_| current),
        }
    }

    /// Whether a license whose updates end at `updates_until` covers a newer version than this one.
    pub fn update_available(&self, version: Version, updates_until: Option<UnixMs>) -> bool {
        let offer = self.newest_covered(updates_until);
        offer.is_some_and(|offer| version < offer.version)
    }

    /// When the updates of a license ended that does not cover `version`; `None` if it covers it.
    fn ended_before(&self, version: Version, updates_until: Option<UnixMs>) -> Option<UnixMs> {
        updates_until.filter(|until| !self.release_dates.covers(version, *until))
    }

    /// The newest published release that a license covers whose updates end at `until`, of those that programs are told
    /// of: neither too old to start, nor above the current version.
    fn newest_covered_release(&self, until: UnixMs) -> Option<&Release> {
        let (minimum, current) = (self.config.minimum_version, self.config.current_version);
        let mut released = self.released.iter();
        released.find(|release| {
            (minimum..=current).contains(&release.version) && release.is_covered_until(until)
        })
    }

    fn newest(&self) -> Offer<'_> {
        Offer {
            version: self.config.current_version,
            release: self.release.as_ref(),
        }
    }

    /// The newest version that a license covers, between the minimum and the current one; `None` if it covers no such
    /// release.
    fn newest_covered(&self, updates_until: Option<UnixMs>) -> Option<Offer<'_>> {
        let current = self.config.current_version;
        let Some(until) = self.ended_before(current, updates_until) else {
            return Some(self.newest());
        };
        let newest = self.newest_covered_release(until);
        newest.map(|release| Offer {
            version: release.version,
            release: Some(release),
        })
    }

    /// The information for a program of `version`, if `newest` is the newest version for it.
    fn info_about(&self, version: Version, newest: Option<Offer<'_>>) -> VersionInfo {
        let update = newest.filter(|newest| version < newest.version);
        let release = update.and_then(|update| update.release);
        VersionInfo {
            current_version: self.config.current_version,
            minimum_version: self.config.minimum_version,
            update_available: update.is_some(),
            supported: version >= self.config.minimum_version,
            whats_new: release.map(|release| release.notes.clone()),
            download_url: release.and_then(|release| release.download_url.clone()),
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

    /// Checks that a license whose updates end at `updates_until` covers a program of `version`.
    ///
    /// # Errors
    /// [`Refusal::VersionNotCovered`], which says which version to install instead.
    pub fn check_covered(
        &self,
        version: Version,
        updates_until: Option<UnixMs>,
    ) -> Result<(), Refusal> {
        let Some(until) = self.ended_before(version, updates_until) else {
            return Ok(());
        };
        let covered = self.newest_covered_release(until);
        Err(Refusal::VersionNotCovered {
            updates_until: until,
            covered_version: covered.map(|release| release.version),
            download_url: covered.and_then(|release| release.download_url.clone()),
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
