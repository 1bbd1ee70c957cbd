//! Verification: whether a license can be used on a device with a version, without starting a session.

pub mod client;
mod store;

use std::collections::BTreeMap;

use crate::clock::UnixMs;
use crate::db::Reader;
use crate::devices::{self, ClientIdentity};
use crate::error::{Refused, Result};
use crate::leases::Lease;
use crate::licenses::{self, License};
use crate::live_sessions::LiveNow;
use crate::products::{LicensedVersionInfo, ProgramSettings};
use crate::version::Version;

/// The result of a verification.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Why the license cannot be used on the device; `None` if it can.
    pub refusal: Option<Refused>,
    /// `None` if the key is unknown.
    pub license: Option<VerifiedLicense>,
    /// Whether the device holds a slot of the license.
    pub holds_slot: bool,
    /// Whether a session runs on the license, on any device.
    pub session_active: bool,
    /// The information about versions.
    pub version: LicensedVersionInfo,
    /// Every feature flag with its value for this license; `None` if the key is unknown.
    pub feature_flags: Option<BTreeMap<String, bool>>,
    /// Lets the program run offline; `None` with a refusal, and if the settings do not allow that.
    pub lease: Option<Lease>,
}

/// The license that was verified.
#[derive(Clone, Debug)]
pub struct VerifiedLicense {
    /// The license.
    pub license: License,
    /// How many of its device slots are taken.
    pub device_count: u32,
}

impl Verification {
    /// The result for an unknown key.
    fn without_license(refusal: Refused, version: LicensedVersionInfo) -> Self {
        Self {
            refusal: Some(refusal),
            license: None,
            holds_slot: false,
            session_active: false,
            version,
            feature_flags: None,
            lease: None,
        }
    }
}

/// Verifies license, device and version. Only the time at which the device was last seen changes, to the minute. A refusal
/// is a result here, not an error.
pub fn verify(
    reader: &Reader<'_>,
    live: LiveNow<'_>,
    settings: &ProgramSettings,
    client: &ClientIdentity,
) -> Result<Verification> {
    let now = live.now.wall;
    let too_old: Option<Refused> = settings.check_version(client.version).err().map(Into::into);
    let Some(found) = store::look_up(reader, settings.config.product, client)? else {
        let refusal = too_old.unwrap_or_else(|| licenses::Refusal::NotFound.into());
        let version = settings.version_info_for(client.version, None);
        return Ok(Verification::without_license(refusal, version));
    };
    let (license, device) = (found.license, found.device);
    if let Some(device) = device.as_ref().filter(|device| device.is_seen_again(now)) {
        live.mark_device_seen(device.id);
    }
    let no_slot = device.is_none().then_some(devices::Refusal::NotActivated);
    let refusal = too_old
        .or_else(|| license_refusal(settings, &license, client.version, now))
        .or(no_slot.map(Into::into));
    let lease = Lease::of(settings, &license, &client.hardware_id, now);
    Ok(Verification {
        lease: lease.filter(|_| refusal.is_none()),
        refusal,
        holds_slot: device.is_some(),
        version: settings.version_info_for(client.version, license.updates_until),
        session_active: found
            .session
            .is_some_and(|session| live.is_running(&session)),
        feature_flags: Some(settings.flags_for(license.id.0)),
        license: Some(VerifiedLicense {
            license,
            device_count: found.taken,
        }),
    })
}

/// Why `license` cannot be used with `version` on any device; `None` if it can.
fn license_refusal(
    settings: &ProgramSettings,
    license: &License,
    version: Version,
    now: UnixMs,
) -> Option<Refused> {
    if let Err(unusable) = licenses::check_usable(license, now) {
        return Some(unusable.into());
    }
    let covered = settings.check_covered(version, license.updates_until);
    covered.err().map(Into::into)
}
