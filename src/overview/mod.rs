//! What several rooms know about one thing, put side by side; and how often programs were refused, which no
//! other room keeps.

pub mod cli;
pub mod panel;
mod rules;
mod store;

pub use rules::Notice;

use std::sync::Arc;

use crate::audit::{self, Entry};
use crate::client_config::{self, Flag};
use crate::clock::{Now, UnixMs};
use crate::customers::Customer;
use crate::db::{Db, Reader};
use crate::devices::{self, Device};
use crate::error::Result;
use crate::handshake::{self, DomainBinding};
use crate::id::{CustomerId, LicenseId};
use crate::licenses::{self, License, LicenseRow};
use crate::metrics::{self, LOGIN_FAILED, RefusalCounter, Refusals};
use crate::sessions::{
    self, Ended, LiveSessions, LivenessCutoff, Period, Running, Sample, Span, UsageCache,
};
use crate::version::Version;
use crate::{admins, customers, releases, server_state};

/// Ended sessions that are shown with a license.
const HISTORY_MAX: u32 = 10;

/// A license with all that belongs to it.
#[derive(Clone, Debug)]
pub struct CustomerDetails {
    /// The license.
    pub license: License,
    /// Its domains.
    pub bond: DomainBinding,
    /// Its devices, the oldest slot first.
    pub devices: Vec<Device>,
    /// Its running session.
    pub session: Option<Running>,
    /// Its latest ended sessions.
    pub history: Vec<Ended>,
}

/// Ended sessions and entries of the audit log on the page of a license.
const PAST_MAX: u32 = 25;

/// A license with all that the panel shows beside it.
#[derive(Clone, Debug)]
pub struct LicenseDetails {
    /// The license.
    pub listed: LicenseRow,
    /// Its domains.
    pub bond: DomainBinding,
    /// When somebody last completed a handshake for the first of them.
    pub proved_at: Option<UnixMs>,
    /// Its devices, the oldest slot first.
    pub devices: Vec<Device>,
    /// Its running session.
    pub session: Option<Running>,
    /// Its latest ended sessions.
    pub history: Vec<Ended>,
    /// Every switch; [`Flag::on_for`] tells how this license sees it.
    pub flags: Vec<Flag>,
    /// What was done to it and its devices, the latest first.
    pub entries: Vec<Entry>,
}

/// All about the license of a number, for the panel.
///
/// # Errors
/// [`crate::error::Error::NotFound`] when there is none.
pub fn license_details(reader: &Reader<'_>, id: LicenseId, now: UnixMs) -> Result<LicenseDetails> {
    let listed = licenses::listed(reader, id, now)?;
    let alive = LivenessCutoff::served(server_state::load(reader)?.started_at, now);
    let span = Span {
        since: UnixMs(0),
        license_id: Some(id),
        limit: PAST_MAX,
    };
    let mut entries = Vec::new();
    for room in ["licenses", "devices", "handshake"] {
        entries.extend(audit::of_subject(reader, room, &id.to_string(), PAST_MAX)?);
    }
    let bond = handshake::binding_at(reader, id, now)?;
    let proved_at = bond.domain.as_ref();
    let proved_at = proved_at.map(|domain| handshake::proved_at(reader, domain));
    Ok(LicenseDetails {
        devices: devices::list(reader, id)?,
        session: sessions::running_on(reader, alive, id)?,
        history: sessions::history(reader, &span)?,
        flags: client_config::flags(reader)?,
        proved_at: proved_at.transpose()?.flatten(),
        bond,
        entries,
        listed,
    })
}

/// A customer with the newest of his licenses.
///
/// # Errors
/// [`crate::error::Error::NotFound`] when there is none.
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
    let newest = licenses::From::Newest;
    Ok((
        customer,
        licenses::page(reader, &wanted, newest, limit, now)?,
    ))
}

/// How many there are of what the rail of the panel names.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Counts {
    licenses: u32,
    customers: u32,
    releases: u32,
    /// Running ones.
    sessions: u32,
    /// Licenses on domains.
    sites: u32,
}

/// How many there are of each.
///
/// # Errors
/// When SQLite fails.
pub fn counts(reader: &Reader<'_>, now: UnixMs) -> Result<Counts> {
    let started_at = server_state::load(reader)?.started_at;
    Ok(Counts {
        licenses: licenses::count(reader)?,
        customers: customers::count(reader)?,
        releases: releases::count(reader)?,
        sessions: sessions::count(reader, LivenessCutoff::served(started_at, now))?,
        sites: handshake::count(reader)?,
    })
}

/// Who is running now, at a glance.
#[derive(Clone, Debug)]
pub struct Monitor {
    /// How many sessions run.
    pub count: u32,
    /// The newest of them, newest first.
    pub newest: Vec<Running>,
}

/// How many sessions run, and at most `limit` of them, the newest.
///
/// # Errors
/// When SQLite fails.
pub fn monitor(reader: &Reader<'_>, now: UnixMs, limit: u32) -> Result<Monitor> {
    let alive = LivenessCutoff::served(server_state::load(reader)?.started_at, now);
    Ok(Monitor {
        count: sessions::count(reader, alive)?,
        newest: sessions::running(reader, alive, limit)?,
    })
}

/// How many devices last ran a version older than this one.
///
/// # Errors
/// When SQLite fails.
pub fn devices_older_than(reader: &Reader<'_>, version: Version) -> Result<u32> {
    let versions = devices::versions(reader)?;
    let older = versions.iter().filter(|(ran, _)| *ran < version);
    Ok(older.map(|(_, count)| count).sum())
}

/// All about the license of a key, as an operator typed it.
///
/// # Errors
/// [`crate::error::Error::NotFound`] when there is none.
pub fn license(reader: &Reader<'_>, key: &str, alive: LivenessCutoff) -> Result<CustomerDetails> {
    let license = licenses::by_typed_key(reader, key)?;
    let span = Span {
        since: UnixMs(0),
        license_id: Some(license.id),
        limit: HISTORY_MAX,
    };
    Ok(CustomerDetails {
        bond: handshake::binding_at(reader, license.id, alive.now())?,
        devices: devices::list(reader, license.id)?,
        session: sessions::running_on(reader, alive, license.id)?,
        history: sessions::history(reader, &span)?,
        license,
    })
}

/// Refusals that are kept, in days.
const REFUSALS_KEPT: i64 = 400;

/// Writes the refusals that were counted since the last time.
///
/// # Errors
/// When the file does not take it; it is tried again the next time.
pub async fn flush(db: &Db, tally: &RefusalCounter, now: UnixMs) -> Result<()> {
    let counted = tally.take();
    if counted.is_empty() {
        return Ok(());
    }
    let again = counted.clone();
    let kept = db
        .write("overview.flush", move |tx| {
            store::forget_refusals(tx, metrics::day(now) - REFUSALS_KEPT)?;
            counted
                .iter()
                .try_for_each(|refusals| store::keep_refusals(tx, refusals))
        })
        .await;
    if kept.is_err() {
        tally.give_back(&again);
    }
    kept
}

/// How often programs were refused and logins failed on the day of `now`, UTC, by code, the most frequent
/// first: by the file, and by what it does not have yet.
///
/// # Errors
/// When SQLite fails.
pub fn refused_today(
    reader: &Reader<'_>,
    tally: &RefusalCounter,
    now: UnixMs,
) -> Result<Vec<(String, u32)>> {
    let today = metrics::day(now);
    let mut by_code = store::refusals_on(reader, today)?;
    for Refusals { code, count, .. } in tally.unsaved(today) {
        match by_code.iter_mut().find(|(known, _)| known == code) {
            Some((_, known)) => *known = known.saturating_add(count),
            None => by_code.push((code.to_owned(), count)),
        }
    }
    by_code.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    Ok(by_code)
}

/// What an overview takes from the server's memory.
#[derive(Clone)]
pub struct InMemory {
    /// Who is alive.
    pub live: Arc<LiveSessions>,
    /// How many there were.
    pub courses: Arc<UsageCache>,
    /// Who was refused.
    pub tally: Arc<RefusalCounter>,
}

/// What an overview takes from the machine around the server.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact by itself; no two of them make a state"
)]
pub struct HostFacts {
    /// Whether no backup is as young as it should be.
    pub backup_overdue: bool,
    /// Whether the database does not give back what was written.
    pub damaged: bool,
    /// Whether the folder for backups is away, with the disk that it is on.
    pub backup_folder_away: bool,
    /// How far the machine's clock is from the house's date, in milliseconds.
    pub drift_ms: i64,
    /// Whether programs elsewhere cannot know the certificate, nor the address.
    pub only_here: bool,
    /// Days for which no new certificate has come, though one was asked for.
    pub certificate_days: i64,
}

/// The shop at a glance.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Sessions that live.
    pub live: u32,
    /// Licenses by how they stand.
    pub licenses: licenses::LicenseCounts,
    /// Refusals of today, by code, the most frequent first.
    pub refused: Vec<(String, u32)>,
    /// How many sessions ran in the course of the time asked for.
    pub levels: Vec<Sample>,
    /// What needs attention, the most urgent first.
    pub notices: Vec<Notice>,
}

/// The shop at a glance.
///
/// # Errors
/// When SQLite fails.
pub fn dashboard(
    reader: &Reader<'_>,
    memory: &InMemory,
    machine: HostFacts,
    reach: Period,
    now: Now,
) -> Result<Dashboard> {
    let licenses = licenses::tally(reader, &licenses::LicenseQuery::default(), now.wall)?;
    let counted = refused_today(reader, &memory.tally, now.wall)?;
    let (failed, refused): (Vec<_>, Vec<_>) = counted
        .into_iter()
        .partition(|(code, _)| code == LOGIN_FAILED);
    let config = client_config::find(reader)?;
    let owners = admins::list(reader)?.into_iter();
    let bare = owners.filter(|admin| admin.role == admins::Role::Owner && !admin.has_totp);
    let facts = rules::Facts {
        expiring: licenses.expiring,
        refused: rules::refused(&refused),
        failed_logins: failed.iter().map(|(_, count)| count).sum(),
        minimum_above_current: config.minimum_version > config.current_version,
        unreviewed: !client_config::reviewed(reader)?,
        bare_owners: u32::try_from(bare.count()).unwrap_or(u32::MAX),
        backup_overdue: machine.backup_overdue,
        damaged: machine.damaged,
        backup_folder_away: machine.backup_folder_away,
        drift_ms: machine.drift_ms,
        only_here: machine.only_here,
        certificate_days: machine.certificate_days,
    };
    let levels = memory.courses.get(reader, &memory.live, reach, now)?;
    Ok(Dashboard {
        live: levels.last().map_or(0, |level| level.running),
        licenses,
        refused,
        levels,
        notices: rules::notices(&facts),
    })
}
