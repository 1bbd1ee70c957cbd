//! Devices: which machines hold a slot of a license. How they take and free it is in `activations`.

pub mod client;
mod rules;
mod store;

pub use rules::Refusal;

use std::time::Duration;

use crate::clock::{Now, UnixMs};
use crate::db::{Reader, Tx};
use crate::error::{Error, RefusalKind, Refused, Resource, Result};
use crate::id::{DeviceId, LicenseId, ProductId};
use crate::licenses::{self, License, LicenseKey};
use crate::security::rate_limit::{Group, LookupResult, Quota};
use crate::security::secret;
use crate::terms::Pattern;
use crate::text;
use crate::version::Version;

/// How far apart verifications of a device must be for the later one to be stored.
const SEEN_STEP: Duration = Duration::from_mins(1);
/// Fingerprints listed if several devices have the name.
const NAMESAKES_MAX: usize = 10;

/// What a program sends about its license, its device and itself.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// `None` if the text cannot be a key.
    pub license_key: Option<LicenseKey>,
    /// The device's name, for display; 1 to 255 characters.
    pub machine_id: String,
    /// The device's fingerprint, which identifies it; 1 to 255 characters.
    pub hardware_id: String,
    /// The program's version.
    pub version: Version,
}

/// A device that holds a slot.
#[derive(Clone, Debug)]
pub struct Device {
    /// The id.
    pub id: DeviceId,
    /// Its fingerprint.
    pub hardware_id: String,
    /// Its name.
    pub machine_id: String,
    /// The program version that it ran last.
    pub version: Version,
    /// When it took the slot.
    pub activated_at: UnixMs,
    /// When it last sent a request that names it; of verifications and starts, to the minute.
    pub last_seen_at: UnixMs,
}

/// Whether a verification or start at `now` moves when a device was last seen: a write for each would cost more than all of
/// a verification, and a tenth of a start.
pub fn is_seen_again(last_seen_at: UnixMs, now: UnixMs) -> bool {
    now >= last_seen_at.plus(SEEN_STEP)
}

/// The license of a product with a key, if it can be used at `now`.
///
/// # Errors
/// [`licenses::Refusal`].
pub fn usable_license(
    reader: &Reader<'_>,
    product: ProductId,
    key: Option<&LicenseKey>,
    now: UnixMs,
) -> Result<License> {
    let found = key
        .map(|key| licenses::by_key(reader, product, key))
        .transpose()?
        .flatten();
    let license = found.ok_or(licenses::Refusal::NotFound)?;
    licenses::check_usable(&license, now)?;
    Ok(license)
}

/// The newest devices of which name and fingerprint together have what `pattern` says, each with the license whose slot it
/// holds: of one product or (`None`) of all products, at most `limit`.
pub fn with_text(
    reader: &Reader<'_>,
    pattern: &Pattern,
    product: Option<ProductId>,
    limit: u32,
) -> Result<Vec<(LicenseId, Device)>> {
    store::with_text(reader, pattern, product, limit)
}

/// Looks up whether the license key and device of a request are known, so that the request is served although its
/// address is over a limit.
pub fn look_up_caller(
    reader: &Reader<'_>,
    product: ProductId,
    key: Option<&LicenseKey>,
    hardware_id: &str,
) -> Result<LookupResult> {
    let found = key
        .map(|key| licenses::by_key(reader, product, key))
        .transpose()?;
    let Some(license) = found.flatten() else {
        return Ok(LookupResult::Unknown);
    };
    Ok(match find(reader, license.id, hardware_id)? {
        Some(_) => LookupResult::Caller,
        None => LookupResult::License,
    })
}

/// A program's request for a slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotRequest<'a> {
    /// The device, and the program on it.
    pub client: &'a ClientIdentity,
    /// How often its license may take slots.
    pub quota: &'a Quota,
    /// When the request arrived.
    pub now: Now,
}

/// Gives a device that holds no slot a free one of `license`.
///
/// # Errors
/// [`Refusal::LimitReached`], [`Refusal::BoundElsewhere`]; `rate_limited` if the license takes slots too often.
pub fn take_slot(
    tx: &Tx<'_>,
    license: License,
    request: &SlotRequest<'_>,
) -> Result<(License, DeviceId)> {
    check_binding(tx, &license, &request.client.hardware_id)?;
    rules::slot_left(count(tx, license.id)?, license.device_limit)?;
    let (group, scale) = (Group::LicenseActivations, license.device_limit);
    let now = request.now;
    request.quota.take(group, license.id.0, scale, now.tick)?;
    let device = store::insert(tx, license.id, request.client, now.wall)?;
    Ok((licenses::begin_term(tx, license, now.wall)?, device))
}

/// What tells a device from others of the product without saying which one it is: the SHA-256 over both.
pub fn fingerprint_digest(product: ProductId, hardware_id: &str) -> [u8; 32] {
    secret::sha256(&[&product.0.to_be_bytes(), hardware_id.as_bytes()].concat())
}

/// Refuses every device but one to a trial that started without a key, until somebody buys it: also after that device
/// gave back its slot.
///
/// # Errors
/// [`Refusal::BoundElsewhere`].
pub fn check_binding(reader: &Reader<'_>, license: &License, hardware_id: &str) -> Result<()> {
    if license.customer_id.is_some() {
        return Ok(());
    }
    let digest = fingerprint_digest(license.product, hardware_id);
    if store::is_bound_elsewhere(reader, license.id, &digest)? {
        let device_limit = license.device_limit;
        return Err(Refusal::BoundElsewhere { device_limit }.into());
    }
    Ok(())
}

/// The device with this fingerprint, if it holds a slot.
pub fn find(
    reader: &Reader<'_>,
    license_id: LicenseId,
    hardware_id: &str,
) -> Result<Option<Device>> {
    store::find(reader, license_id, hardware_id)
}

/// The device with this id, if it holds a slot of this license.
///
/// # Errors
/// [`Error::NotFound`] if it does not.
pub fn get(reader: &Reader<'_>, license_id: LicenseId, id: DeviceId) -> Result<Device> {
    let found = store::by_id(reader, license_id, id)?;
    found.ok_or_else(|| Error::not_found(Resource::Device, id))
}

/// The device of a license with this fingerprint or, if there is none, with this name.
///
/// # Errors
/// [`Error::NotFound`] if there is none, `several_devices` if several have that name.
pub fn by_name_or_fingerprint(
    reader: &Reader<'_>,
    license_id: LicenseId,
    name_or_fingerprint: &str,
) -> Result<Device> {
    if let Some(device) = store::find(reader, license_id, name_or_fingerprint)? {
        return Ok(device);
    }
    let mut devices = store::list(reader, license_id)?;
    let name = text::casefold(text::clean_input(name_or_fingerprint).as_str());
    devices.retain(|device| text::casefold(&device.machine_id) == name);
    match devices.as_slice() {
        [] => Err(Error::not_found(Resource::Device, name_or_fingerprint)),
        [one] => Ok(one.clone()),
        several => {
            let listed = several.iter().take(NAMESAKES_MAX);
            let fingerprints: Vec<&str> =
                listed.map(|device| device.hardware_id.as_str()).collect();
            let refused = Refused::new(RefusalKind::Ambiguous, "several_devices")
                .with("name", name_or_fingerprint);
            Err(refused.with("fingerprints", fingerprints.join(", ")).into())
        }
    }
}

/// How many slots of a license are taken.
pub fn count(reader: &Reader<'_>, license_id: LicenseId) -> Result<u32> {
    store::count(reader, license_id)
}

/// When a device was last seen; `None` without any device.
pub fn latest(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    store::latest(reader)
}

/// Every device of a license, the oldest slot first.
pub fn list(reader: &Reader<'_>, license_id: LicenseId) -> Result<Vec<Device>> {
    store::list(reader, license_id)
}

/// How many devices last ran a version of a product older than `version`, whenever that was.
pub fn count_older_than(reader: &Reader<'_>, product: ProductId, version: Version) -> Result<u32> {
    let versions = versions(reader, product, UnixMs(0))?;
    let older = versions.iter().filter(|(last_run, _)| *last_run < version);
    Ok(older.map(|(_, count)| count).sum())
}

/// Each version that devices of a product last ran, and how many devices. Only of those seen on the day (UTC) of `since` or
/// later.
pub fn versions(
    reader: &Reader<'_>,
    product: ProductId,
    since: UnixMs,
) -> Result<Vec<(Version, u32)>> {
    store::versions(reader, product, since)
}

/// Frees a slot. The caller ends the device's session first.
pub fn remove(tx: &Tx<'_>, id: DeviceId) -> Result<()> {
    store::remove(tx, id)
}

/// Stores the name and version that the device sent last.
pub fn refresh(tx: &Tx<'_>, id: DeviceId, client: &ClientIdentity, now: UnixMs) -> Result<()> {
    store::refresh(tx, id, client, now)
}

/// Stores when devices were last seen.
pub fn mark_seen(tx: &Tx<'_>, devices: &[(DeviceId, UnixMs)]) -> Result<()> {
    devices
        .iter()
        .try_for_each(|(id, at)| store::mark_seen(tx, *id, *at))
}
