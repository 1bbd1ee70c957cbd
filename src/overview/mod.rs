//! Views that combine several modules: a license or customer with everything that belongs to it, and the dashboard.
//! Also stores how often programs were refused on each day.

pub mod cli;
pub mod panel;
mod rules;
mod store;
mod usage;

pub use rules::{NamedProduct, Notice};
pub use usage::{Period, Sample, UsageCache, UsageQuery};

use std::sync::Arc;

use crate::audit::{self, Entry};
use crate::clock::{Now, UnixMs};
use crate::customers::Customer;
use crate::db::{Db, Reader};
use crate::devices::{self, Device};
use crate::domains::{self, DomainBinding};
use crate::error::Result;
use crate::flags::{self, Flag};
use crate::handshake;
use crate::id::{CustomerId, LicenseId, ProductId};
use crate::licenses::{self, License, LicenseRow};
use crate::live_sessions::LiveSessions;
use crate::metrics::{self, LOGIN_FAILED, RefusalCounter, Refusals};
use crate::paging::PageRequest;
use crate::products;
use crate::session_history::{self, EndedSession, HistoryQuery, SessionDetails};
use crate::sessions::{self, LivenessCutoff};
use crate::version::Version;
use crate::{admins, customers};

/// How many ended sessions the command line shows with a license.
pub const HISTORY_MAX: u32 = 10;

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

/// The number of devices that last ran a version of a product that is older than `version`.
pub fn devices_older_than(
    reader: &Reader<'_>,
    product: ProductId,
    version: Version,
) -> Result<u32> {
    let versions = devices::versions(reader, product)?;
    let older = versions.iter().filter(|(last_run, _)| *last_run < version);
    Ok(older.map(|(_, count)| count).sum())
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
        license,
    })
}

/// How long counts of refusals are stored, in days.
const REFUSALS_DAYS: i64 = 400;

/// Stores the refusals that were counted since the last call, and deletes old counts. If that fails, the new counts
/// stay in memory for the next call.
pub async fn flush(db: &Db, counter: &RefusalCounter, now: UnixMs) -> Result<()> {
    let taken = counter.take();
    if taken.is_empty() {
        return Ok(());
    }
    let unsaved = taken.clone();
    let written = db
        .write("overview.flush", move |tx| {
            store::delete_refusals(tx, metrics::day(now) - REFUSALS_DAYS)?;
            taken
                .iter()
                .try_for_each(|refusals| store::add_refusals(tx, refusals))
        })
        .await;
    if written.is_err() {
        counter.give_back(&unsaved);
    }
    written
}

/// How often programs were refused and logins failed on the day of `now` (UTC), by code, most frequent first. Adds the
/// counts that are not stored yet to those in the database.
pub fn refused_today(
    reader: &Reader<'_>,
    counter: &RefusalCounter,
    now: UnixMs,
) -> Result<Vec<(String, u32)>> {
    let today = metrics::day(now);
    let mut by_code = store::refusals_on(reader, today)?;
    for Refusals { code, count, .. } in counter.unsaved(today) {
        match by_code.iter_mut().find(|(known, _)| known == code) {
            Some((_, known)) => *known = known.saturating_add(count),
            None => by_code.push((code.to_owned(), count)),
        }
    }
    by_code.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    Ok(by_code)
}

/// What the dashboard reads from the server's memory.
#[derive(Clone)]
pub struct InMemory {
    /// The running sessions.
    pub live: Arc<LiveSessions>,
    /// How many sessions ran in the past.
    pub usage: Arc<UsageCache>,
    /// Refusals that are not stored yet.
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
    /// How many sessions ran at each moment of the requested period.
    pub levels: Vec<Sample>,
    /// What needs attention, most urgent first.
    pub notices: Vec<Notice>,
}

/// Reads the contents of the panel's start page. `usage` is that of the chart. Refusals are counted for all products.
pub fn dashboard(
    reader: &Reader<'_>,
    RunningServer { memory, host }: &RunningServer,
    usage: UsageQuery,
    now: Now,
) -> Result<Dashboard> {
    let every = licenses::LicenseQuery {
        product: usage.product,
        ..licenses::LicenseQuery::default()
    };
    let licenses = licenses::count_by_filter(reader, &every, now.wall)?;
    let counted = refused_today(reader, &memory.refusals, now.wall)?;
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
        products: product_facts(reader, usage.product)?,
        owners_without_totp: u32::try_from(owners_without_totp.count()).unwrap_or(u32::MAX),
        backup_overdue: host.backup_overdue,
        damaged: host.damaged,
        backup_folder_away: host.backup_folder_away,
        drift_ms: host.drift_ms,
        only_here: host.only_here,
        certificate_days: host.certificate_days,
    };
    let levels = memory.usage.get(reader, &memory.live, usage, now)?;
    Ok(Dashboard {
        live: levels.last().map_or(0, |level| level.running),
        licenses,
        refused,
        levels,
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
