//! Views that combine several modules: a license or customer with everything that belongs to it, and the dashboard.

pub mod cli;
pub mod panel;
mod rules;

pub use rules::{NamedProduct, Notice};

use std::sync::Arc;

use crate::audit::{self, Entry};
use crate::clock::{Now, UnixMs};
use crate::customers::Customer;
use crate::db::Reader;
use crate::devices::{self, Device};
use crate::domains::{self, DomainBinding};
use crate::error::Result;
use crate::figures::{self, Activity, Concurrency, FiguresQuery};
use crate::flags::{self, Flag};
use crate::handshake;
use crate::id::{CustomerId, LicenseId, ProductId};
use crate::licenses::{self, License, LicenseRow};
use crate::live_sessions::LiveSessions;
use crate::metrics::{LOGIN_FAILED, RefusalCounter};
use crate::paging::PageRequest;
use crate::products;
use crate::refusals::{self, RecordedRefusal};
use crate::session_history::{self, EndedSession, HistoryQuery, SessionDetails};
use crate::sessions::{self, LivenessCutoff};
use crate::version::Version;
use crate::{admins, customers};

/// How many ended sessions the command line shows with a license.
pub const HISTORY_MAX: u32 = 10;
/// How many rows of refused calls are shown with a license: few, since programs repeat a refused call.
const REFUSALS_MAX: u32 = 5;

/// A license with everything that the command line shows about it.
#[derive(Clone, Debug)]
pub struct LicenseReport {
    /// The license.
    pub license: License,
    /// Its domains.
    pub binding: DomainBinding,
    /// Its devices, the oldest slot first.
    pub devices: Vec<Device>,
    /// Its running session.
    pub session: Option<SessionDetails>,
    /// Its latest ended sessions; one more than [`HISTORY_MAX`] if there are more.
    pub history: Vec<EndedSession>,
    /// Its latest refused calls, the latest first.
    pub refusals: Vec<RecordedRefusal>,
}

/// How many ended sessions, and how many audit entries of each module, are read for the page of a license.
const PAST_MAX: u32 = 25;

/// A license with everything that the panel shows about it.
#[derive(Clone, Debug)]
pub struct LicenseDetails {
    /// The license.
    pub row: LicenseRow,
    /// Whether its product is not archived, so that the license can be edited, extended and sold.
    pub product_in_use: bool,
    /// Its domains.
    pub binding: DomainBinding,
    /// When the site on its current domain last completed a handshake; `None`: never.
    pub last_handshake_at: Option<UnixMs>,
    /// Its devices, the oldest slot first.
    pub devices: Vec<Device>,
    /// Its running session.
    pub session: Option<SessionDetails>,
    /// Its latest ended sessions.
    pub history: Vec<EndedSession>,
    /// Its latest refused calls, the latest first.
    pub refusals: Vec<RecordedRefusal>,
    /// Every feature flag; [`Flag::is_on_for`] says whether it is on for this license.
    pub flags: Vec<Flag>,
    /// Audit entries about the license, its devices and its domain; newest first within each of these modules.
    pub entries: Vec<Entry>,
}

/// The license `id` with everything that the panel shows about it.
///
/// # Errors
/// [`crate::error::Error::NotFound`] if the id is unknown.
pub fn license_details(reader: &Reader<'_>, id: LicenseId, now: UnixMs) -> Result<LicenseDetails> {
    let row = licenses::find_row(reader, id, now)?;
    let cutoff = LivenessCutoff::while_served(now);
    let span = HistoryQuery {
        since: UnixMs(0),
        license_id: Some(id),
        limit: PAST_MAX,
    };
    let mut entries = Vec::new();
    for module in ["licenses", "devices", "handshake", "trials"] {
        entries.extend(audit::entries_about(
            reader,
            module,
            &id.to_string(),
            PAST_MAX,
        )?);
    }
    let binding = domains::binding_at(reader, id, now)?;
    let domain = binding.domain.as_ref();
    let last_handshake_at = domain.map(|domain| handshake::last_handshake_at(reader, domain));
    Ok(LicenseDetails {
        devices: devices::list(reader, id)?,
        session: sessions::running_on(reader, cutoff, id)?,
        history: session_history::list(reader, &span)?,
        refusals: refusals::of_license(reader, id, UnixMs(0), REFUSALS_MAX)?,
        flags: flags::list(reader, row.license.product)?,
        product_in_use: products::get(reader, row.license.product)?
            .archived_at
            .is_none(),
        last_handshake_at: last_handshake_at.transpose()?.flatten(),
        binding,
        entries,
        row,
    })
}

/// A customer with at most `limit` of their licenses, newest first.
///
/// # Errors
/// [`crate::error::Error::NotFound`] if the id is unknown.
pub fn customer(
    reader: &Reader<'_>,
    id: CustomerId,
    limit: u32,
    now: UnixMs,
) -> Result<(Customer, Vec<LicenseRow>)> {
    let customer = customers::get(reader, id)?;
    let wanted = licenses::LicenseQuery {
        customer_id: Some(id),
        ..licenses::LicenseQuery::default()
    };
    let newest = PageRequest::first(limit);
    Ok((
        customer,
        licenses::page(reader, &wanted, &newest, now)?.rows,
    ))
}

/// A summary of the running sessions.
#[derive(Clone, Debug)]
pub struct Monitor {
    /// The number of running sessions.
    pub count: u32,
    /// Some of them, newest first.
    pub newest: Vec<SessionDetails>,
}

/// The number of running sessions of a product, and the newest `limit` of them.
pub fn monitor(
    reader: &Reader<'_>,
    product: ProductId,
    now: UnixMs,
    limit: u32,
) -> Result<Monitor> {
    let (product, cutoff) = (Some(product), LivenessCutoff::while_served(now));
    Ok(Monitor {
        count: sessions::count(reader, cutoff, product)?,
        newest: sessions::running(reader, cutoff, product, limit)?,
    })
}

/// The contents of the page of figures.
#[derive(Clone, Debug)]
pub struct Figures {
    /// How many sessions ran at once.
    pub concurrency: Concurrency,
    /// What happened.
    pub activity: Activity,
    /// Which versions run, of each product with active devices.
    pub versions: Vec<ProductVersions>,
}

/// Which versions of a product run.
#[derive(Clone, Debug)]
pub struct ProductVersions {
    /// The product.
    pub product: ProductId,
    /// The version that programs are offered.
    pub current: Version,
    /// The oldest version that is not refused.
    pub minimum: Version,
    /// How many active devices last ran each version, the newest first.
    pub versions: Vec<(Version, u32)>,
}

/// Reads the contents of the page of figures.
pub fn figures(
    reader: &Reader<'_>,
    live: &LiveSessions,
    query: &FiguresQuery,
    now: Now,
) -> Result<Figures> {
    let running = sessions::live_count(reader, query.product, live, now)?;
    let products = products::list(reader)?.into_iter();
    let products = products.filter(|one| query.product.is_none_or(|chosen| chosen == one.id));
    let mut versions = Vec::new();
    for product in products {
        let active = figures::active_versions(reader, product.id, now.wall)?;
        if active.is_empty() {
            continue;
        }
        let settings = products::product_settings(reader, product.id)?;
        versions.push(ProductVersions {
            product: product.id,
            current: settings.current_version,
            minimum: settings.minimum_version,
            versions: active,
        });
    }
    Ok(Figures {
        concurrency: figures::concurrency(reader, query, running, now.wall)?,
        activity: figures::activity(reader, query, now.wall)?,
        versions,
    })
}

/// The license with the typed `key`, with everything that the command line shows about it.
///
/// # Errors
/// [`crate::error::Error::NotFound`] if the key is unknown.
pub fn license_report(
    reader: &Reader<'_>,
    key: &str,
    cutoff: LivenessCutoff,
    now: UnixMs,
) -> Result<LicenseReport> {
    let license = licenses::by_typed_key(reader, key)?;
    let span = HistoryQuery {
        since: UnixMs(0),
        license_id: Some(license.id),
        limit: HISTORY_MAX + 1,
    };
    Ok(LicenseReport {
        binding: domains::binding_at(reader, license.id, now)?,
        devices: devices::list(reader, license.id)?,
        session: sessions::running_on(reader, cutoff, license.id)?,
        history: session_history::list(reader, &span)?,
        refusals: refusals::of_license(reader, license.id, UnixMs(0), REFUSALS_MAX)?,
        license,
    })
}

/// What the dashboard reads from the server's memory.
#[derive(Clone)]
pub struct InMemory {
    /// The running sessions.
    pub live: Arc<LiveSessions>,
    /// How often programs were refused.
    pub refusals: Arc<RefusalCounter>,
}

/// What the dashboard shows of the running server, besides the contents of its database.
#[derive(Clone)]
pub struct RunningServer {
    /// Its memory.
    pub memory: InMemory,
    /// Its machine and settings.
    pub host: HostFacts,
}

/// What the dashboard needs to know about the machine and the settings.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not the states of one thing"
)]
pub struct HostFacts {
    /// Whether the newest backup is older than it should be.
    pub backup_overdue: bool,
    /// Whether the database file is damaged.
    pub damaged: bool,
    /// Whether the backup folder is missing because its disk is not mounted.
    pub backup_folder_away: bool,
    /// The system clock minus the trusted clock, in milliseconds.
    pub drift_ms: i64,
    /// Whether only programs on this machine can reach the server and trust its certificate.
    pub only_here: bool,
    /// For how many days the certificate could not be renewed.
    pub certificate_days: i64,
}

/// The contents of the panel's start page.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// The number of running sessions.
    pub live: u32,
    /// The number of licenses by state.
    pub licenses: licenses::LicenseCounts,
    /// Today's refusals by code, most frequent first.
    pub refused: Vec<(String, u32)>,
    /// How many sessions ran at once during the requested period.
    pub concurrency: Concurrency,
    /// What needs attention, most urgent first.
    pub notices: Vec<Notice>,
}

/// Reads the contents of the panel's start page. `query` is that of the chart; its product is that of every figure.
pub fn dashboard(
    reader: &Reader<'_>,
    RunningServer { memory, host }: &RunningServer,
    query: &FiguresQuery,
    now: Now,
) -> Result<Dashboard> {
    let every = licenses::LicenseQuery {
        product: query.product,
        ..licenses::LicenseQuery::default()
    };
    let licenses = licenses::count_by_filter(reader, &every, now.wall)?;
    let counted = refusals::counted_today(&memory.refusals, query.product, now.wall);
    let (failed, refused): (Vec<_>, Vec<_>) = counted
        .into_iter()
        .partition(|(code, _)| code == LOGIN_FAILED);
    let owners = admins::list(reader)?.into_iter();
    let owners_without_totp =
        owners.filter(|admin| admin.role == admins::Role::Owner && !admin.has_totp);
    let facts = rules::Facts {
        expiring: licenses.expiring,
        refused: rules::refused(&refused),
        failed_logins: failed.iter().map(|(_, count)| count).sum(),
        products: product_facts(reader, query.product)?,
        owners_without_totp: u32::try_from(owners_without_totp.count()).unwrap_or(u32::MAX),
        backup_overdue: host.backup_overdue,
        damaged: host.damaged,
        backup_folder_away: host.backup_folder_away,
        drift_ms: host.drift_ms,
        only_here: host.only_here,
        certificate_days: host.certificate_days,
    };
    let live = sessions::live_count(reader, query.product, &memory.live, now)?;
    Ok(Dashboard {
        live,
        licenses,
        refused,
        concurrency: figures::concurrency(reader, query, live, now.wall)?,
        notices: rules::notices(&facts),
    })
}

/// What notices say of the chosen product or of all, if they are in use. They are named if there are several.
fn product_facts(
    reader: &Reader<'_>,
    chosen: Option<ProductId>,
) -> Result<Vec<rules::ProductFacts>> {
    let in_use = products::in_use(reader)?;
    let are_several = in_use.len() > 1;
    let in_use = in_use.into_iter();
    let shown = in_use.filter(|product| chosen.is_none_or(|chosen| chosen == product.id));
    let facts = shown.map(|product| {
        let config = products::product_settings(reader, product.id)?;
        Ok(rules::ProductFacts {
            minimum_above_current: config.minimum_version > config.current_version,
            unreviewed: !products::reviewed(reader, product.id)?,
            named: are_several.then_some(NamedProduct {
                slug: product.slug,
                name: product.name,
            }),
        })
    });
    facts.collect()
}
