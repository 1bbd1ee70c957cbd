//! What several rooms know about one thing, put side by side. Looks, never changes.

pub mod cli;
pub mod panel;

use crate::audit::{self, Entry};
use crate::client_config::{self, Flag};
use crate::clock::UnixMs;
use crate::customers::Customer;
use crate::db::Reader;
use crate::devices::{self, Device};
use crate::error::Result;
use crate::id::{CustomerId, LicenseId};
use crate::licenses::{self, License, Listed};
use crate::sessions::{self, Alive, Ended, Running, Span};
use crate::version::Version;
use crate::{customers, releases, uptime};

/// Ended sessions that are shown with a license.
const HISTORY_MAX: u32 = 10;

/// A license with all that belongs to it.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The license.
    pub license: License,
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
pub struct Around {
    /// The license.
    pub listed: Listed,
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
pub fn around(reader: &Reader<'_>, id: LicenseId, now: UnixMs) -> Result<Around> {
    let listed = licenses::listed(reader, id, now)?;
    let alive = Alive::served(uptime::recall(reader)?.started_at, now);
    let span = Span {
        since: UnixMs(0),
        license_id: Some(id),
        limit: PAST_MAX,
    };
    let mut entries = Vec::new();
    for room in ["licenses", "devices"] {
        let filter = audit::Filter {
            room: Some(room.to_owned()),
            subject: Some(id.to_string()),
            ..audit::Filter::default()
        };
        let newest = audit::From::Newest;
        entries.extend(audit::page(reader, &filter, newest, PAST_MAX)?);
    }
    Ok(Around {
        devices: devices::list(reader, id)?,
        session: sessions::running_on(reader, alive, id)?,
        history: sessions::history(reader, &span)?,
        flags: client_config::flags(reader)?,
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
) -> Result<(Customer, Vec<Listed>)> {
    let customer = customers::get(reader, id)?;
    let wanted = licenses::Wanted {
        customer_id: Some(id),
        ..licenses::Wanted::default()
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
}

/// How many there are of each.
///
/// # Errors
/// When SQLite fails.
pub fn counts(reader: &Reader<'_>, now: UnixMs) -> Result<Counts> {
    let started_at = uptime::recall(reader)?.started_at;
    Ok(Counts {
        licenses: licenses::count(reader)?,
        customers: customers::count(reader)?,
        releases: releases::count(reader)?,
        sessions: sessions::count(reader, Alive::served(started_at, now))?,
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
    let alive = Alive::served(uptime::recall(reader)?.started_at, now);
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
pub fn license(reader: &Reader<'_>, key: &str, alive: Alive) -> Result<Whole> {
    let license = licenses::by_typed_key(reader, key)?;
    let span = Span {
        since: UnixMs(0),
        license_id: Some(license.id),
        limit: HISTORY_MAX,
    };
    Ok(Whole {
        devices: devices::list(reader, license.id)?,
        session: sessions::running_on(reader, alive, license.id)?,
        history: sessions::history(reader, &span)?,
        license,
    })
}
