//! What programs are told and held to, at one moment: read from several tables at once, and cached until one of them
//! changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rules::{Refusal, VersionsFile};
use super::{Product, ProductSettings};
use crate::api_keys::{self, AcceptedKeys};
use crate::db::{Db, Reader};
use crate::error::Result;
use crate::flags::{self, Flag};
use crate::id::ProductId;
use crate::limits::{self, GroupRules};
use crate::releases::{self, Release};
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
    let released = releases::all_available(reader, product)?;
    Ok(ProgramSettings {
        flags: flags::list(reader, product)?,
        release: releases::available(reader, product, config.current_version)?,
        versions: VersionsFile::new(&config, &released),
        released,
        config,
    })
}

impl ProgramSettings {
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
