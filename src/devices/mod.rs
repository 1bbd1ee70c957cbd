//! Devices: which machines hold a slot of a license.

pub mod client;
pub mod panel;
mod rules;
mod store;

pub use rules::Refusal;

use crate::clock::{Now, UnixMs};
use crate::db::{Reader, Tx};
use crate::error::{Doing, Error, Refused, Result};
use crate::id::{DeviceId, LicenseId};
use crate::idempotency::{self, RequestKey, StoredResponse};
use crate::licenses::{self, License, LicenseKey};
use crate::security::rate_limit::{Group, Quota, Standing};
use crate::text;
use crate::version::Version;

/// Devices of one name that are listed to choose from.
const NAMED_MAX: usize = 10;

/// What a program says of itself.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// None for what cannot be a key.
    pub license_key: Option<LicenseKey>,
    /// The device's own name, for people; 1 to 255 characters.
    pub machine_id: String,
    /// The device's fingerprint, which alone identifies it; 1 to 255 characters.
    pub hardware_id: String,
    /// The program's version.
    pub version: Version,
}

/// A device that holds a slot.
#[derive(Clone, Debug)]
pub struct Device {
    /// The number.
    pub id: DeviceId,
    /// Its fingerprint.
    pub hardware_id: String,
    /// Its own name.
    pub machine_id: String,
    /// The version that it ran last.
    pub version: Version,
    /// Since when it holds the slot.
    pub activated_at: UnixMs,
    /// When it was last heard from.
    pub last_seen_at: UnixMs,
}

/// What programs are told of their license.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LicenseTerms {
    kind: licenses::Kind,
    valid_from: String,
    valid_until: Option<String>,
}

/// The answer to an activation.
#[derive(Clone, Debug, serde::Serialize)]
struct ActivateAnswer {
    activated_at: String,
    device_count: u32,
    device_limit: u32,
    license: LicenseTerms,
}

/// Whether the slot is new, and the answer as JSON.
#[derive(Clone, Debug)]
pub struct Activation {
    /// False for a device that held it already.
    pub created: bool,
    /// The answer.
    pub answer: String,
}

impl LicenseTerms {
    /// The terms of `license`.
    pub fn of(license: &License) -> Self {
        Self {
            kind: license.kind,
            valid_from: license.valid_from.rfc3339(),
            valid_until: license.valid_until.map(UnixMs::rfc3339),
        }
    }
}

/// The license that a program claims, if it can be used at `now`.
///
/// # Errors
/// [`licenses::Refusal`].
pub fn usable_license(
    reader: &Reader<'_>,
    key: Option<&LicenseKey>,
    now: UnixMs,
) -> Result<License> {
    let found = key
        .map(|key| licenses::by_key(reader, key))
        .transpose()?
        .flatten();
    let license = found.ok_or(licenses::Refusal::NotFound)?;
    licenses::standing(&license, now)?;
    Ok(license)
}

/// How what a program claims stands: whether it is worth being heard though its source is over a limit.
///
/// # Errors
/// When SQLite fails.
pub fn standing(
    reader: &Reader<'_>,
    key: Option<&LicenseKey>,
    hardware_id: &str,
) -> Result<Standing> {
    let found = key.map(|key| licenses::by_key(reader, key)).transpose()?;
    let Some(license) = found.flatten() else {
        return Ok(Standing::Unknown);
    };
    Ok(match find(reader, license.id, hardware_id)? {
        Some(_) => Standing::Own,
        None => Standing::License,
    })
}

/// Takes a slot for the device, or refreshes the one that it has.
///
/// # Errors
/// [`licenses::Refusal`], [`Refusal::LimitReached`], `rate_limited` where the license takes slots too often.
pub fn activate(
    tx: &Tx<'_>,
    claim: &ClientIdentity,
    idempotency_key: Option<&str>,
    quota: &Quota,
    now: Now,
) -> Result<Activation> {
    let (moment, now) = (now, now.wall);
    let license = usable_license(tx, claim.license_key.as_ref(), now)?;
    let asked = idempotency_key.map(|key| RequestKey {
        license_id: license.id,
        hardware_id: &claim.hardware_id,
        deed: idempotency::IdempotentOperation::Activate,
        key,
    });
    let held = find(tx, license.id, &claim.hardware_id)?;
    if let Some(device) = &held {
        refresh(tx, device.id, claim, now)?;
        let first = asked
            .map(|asked| idempotency::find(tx, &asked, now))
            .transpose()?
            .flatten();
        if let Some(first) = first {
            return Ok(Activation {
                created: true,
                answer: first.answer,
            });
        }
    } else {
        take_slot(tx, &license, claim, quota, moment)?;
    }
    let activated = ActivateAnswer {
        activated_at: held
            .as_ref()
            .map_or(now, |device| device.activated_at)
            .rfc3339(),
        device_count: count(tx, license.id)?,
        device_limit: license.device_limit,
        license: LicenseTerms::of(&license),
    };
    let answer = serde_json::to_string(&activated).doing("write an activation")?;
    let created = held.is_none();
    if let Some(asked) = asked.filter(|_| created) {
        let first = StoredResponse {
            answer: answer.clone(),
            session_id: None,
        };
        idempotency::keep(tx, &asked, &first, now)?;
    }
    Ok(Activation { created, answer })
}

/// Takes a free slot of `license` for a device that has none.
///
/// # Errors
/// [`Refusal::LimitReached`], `rate_limited` where the license takes slots too often.
pub fn take_slot(
    tx: &Tx<'_>,
    license: &License,
    claim: &ClientIdentity,
    quota: &Quota,
    now: Now,
) -> Result<DeviceId> {
    rules::slot_left(count(tx, license.id)?, license.device_limit)?;
    let (group, all) = (Group::LicenseActivations, license.device_limit);
    quota.take(group, license.id.0, all, now.tick)?;
    store::insert(tx, license.id, claim, now.wall)
}

/// The device with this fingerprint, if it holds a slot.
///
/// # Errors
/// When SQLite fails.
pub fn find(
    reader: &Reader<'_>,
    license_id: LicenseId,
    hardware_id: &str,
) -> Result<Option<Device>> {
    store::find(reader, license_id, hardware_id)
}

/// The device of this number, if it holds a slot of this license.
///
/// # Errors
/// [`Error::NotFound`] where it does not.
pub fn get(reader: &Reader<'_>, license_id: LicenseId, id: DeviceId) -> Result<Device> {
    let found = store::by_id(reader, license_id, id)?;
    found.ok_or_else(|| Error::not_found("device", id))
}

/// The one device of a license that is meant by its fingerprint or by its own name.
///
/// # Errors
/// [`Error::NotFound`] when there is none, `several_devices` when several have that name.
pub fn meant(reader: &Reader<'_>, license_id: LicenseId, meant: &str) -> Result<Device> {
    if let Some(device) = store::find(reader, license_id, meant)? {
        return Ok(device);
    }
    let mut named = store::list(reader, license_id)?;
    let looked_for = text::folded(text::typed(meant).as_str());
    named.retain(|device| text::folded(&device.machine_id) == looked_for);
    match named.as_slice() {
        [] => Err(Error::not_found("device", meant)),
        [one] => Ok(one.clone()),
        several => {
            let shown = several.iter().take(NAMED_MAX);
            let fingerprints: Vec<&str> = shown.map(|one| one.hardware_id.as_str()).collect();
            let refused = Refused::plain("several_devices").with("name", meant);
            Err(refused.with("fingerprints", fingerprints.join(", ")).into())
        }
    }
}

/// How many slots are taken.
///
/// # Errors
/// When SQLite fails.
pub fn count(reader: &Reader<'_>, license_id: LicenseId) -> Result<u32> {
    store::count(reader, license_id)
}

/// The latest moment at which a device was seen; none without one.
///
/// # Errors
/// When SQLite fails.
pub fn latest(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    store::latest(reader)
}

/// Every device of a license, the oldest slot first.
///
/// # Errors
/// When SQLite fails.
pub fn list(reader: &Reader<'_>, license_id: LicenseId) -> Result<Vec<Device>> {
    store::list(reader, license_id)
}

/// Which versions the devices last ran, and how many did.
///
/// # Errors
/// When SQLite fails.
pub fn versions(reader: &Reader<'_>) -> Result<Vec<(Version, u32)>> {
    store::versions(reader)
}

/// Frees a slot. A session that the device holds must be ended before.
///
/// # Errors
/// When SQLite fails.
pub fn remove(tx: &Tx<'_>, id: DeviceId) -> Result<()> {
    store::remove(tx, id)
}

/// Remembers what the device said of itself last.
///
/// # Errors
/// When SQLite fails.
pub fn refresh(tx: &Tx<'_>, id: DeviceId, claim: &ClientIdentity, now: UnixMs) -> Result<()> {
    store::refresh(tx, id, claim, now)
}

/// Remembers when devices were last heard from.
///
/// # Errors
/// When SQLite fails.
pub fn seen(tx: &Tx<'_>, devices: &[(DeviceId, UnixMs)]) -> Result<()> {
    devices
        .iter()
        .try_for_each(|(id, at)| store::seen(tx, *id, *at))
}
