//! Verification: whether a license can be used on a device with a version, without starting a session.

pub mod client;
mod recent;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::db::{Db, Reader};
use crate::devices::{self, ClientIdentity};
use crate::error::{Refused, Result};
use crate::leases::Lease;
use crate::licenses::{self, License};
use crate::live_sessions::LiveNow;
use crate::products::{LicensedVersionInfo, ProgramSettings};
use crate::version::Version;
use recent::{Known, Recent};
use store::Found;

/// The result of a verification.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Why the license cannot be used on the device; `None` if it can.
    pub refusal: Option<Refused>,
    /// `None` if the key is unknown.
    pub license: Option<VerifiedLicense>,
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
pub struct VerifiedLicense(Arc<Known>);

impl VerifiedLicense {
    /// The license, without the customer's name and the note.
    pub fn license(&self) -> &License {
        &self.0.found.license
    }

    /// How many of its device slots are taken.
    pub fn device_count(&self) -> u32 {
        self.0.found.taken
    }

    /// Whether the device holds a slot.
    pub fn holds_slot(&self) -> bool {
        self.0.found.slot.is_some()
    }
}

/// Verifies licenses, and remembers what it read.
pub struct Verifier {
    db: Db,
    recent: Recent,
}

impl Verifier {
    /// One that remembers nothing yet.
    pub fn new(db: Db) -> Self {
        Self {
            db,
            recent: Recent::default(),
        }
    }

    /// Verifies license, device and version. Only the time at which the device was last seen changes, to the minute. A
    /// refusal is a result here, not an error.
    ///
    /// # Errors
    /// If the database cannot be read. It is not read for what was read before and is still true.
    pub async fn verify(
        &self,
        live: LiveNow<'_>,
        settings: &ProgramSettings,
        client: ClientIdentity,
    ) -> Result<Verification> {
        let product = settings.config.product;
        let Some(place) = recent::place(product, &client) else {
            return Ok(unknown(settings, &client));
        };
        if let Some(known) = self.recent.get(&self.db, &place) {
            return Ok(judge(known, live, settings, &client));
        }
        let point = self.db.read_point();
        let look_up = move |reader: &Reader<'_>| {
            let found = store::look_up(reader, product, &client)?;
            Ok((found, client))
        };
        let (found, client) = self.db.read_for_program(look_up).await?;
        Ok(match found {
            Some(found) => {
                let known = self.recent.insert(place, point, found);
                judge(known, live, settings, &client)
            }
            None => unknown(settings, &client),
        })
    }
}

/// The result for a key that is unknown.
fn unknown(settings: &ProgramSettings, client: &ClientIdentity) -> Verification {
    let too_old = settings.check_version(client.version).err();
    Verification {
        refusal: Some(too_old.map_or_else(|| licenses::Refusal::NotFound.into(), Into::into)),
        license: None,
        session_active: false,
        version: settings.version_info_for(client.version, None),
        feature_flags: None,
        lease: None,
    }
}

/// The result for a known license.
fn judge(
    known: Arc<Known>,
    live: LiveNow<'_>,
    settings: &ProgramSettings,
    client: &ClientIdentity,
) -> Verification {
    let now = live.now.wall;
    if let Some(device) = known.seen_again(now) {
        live.mark_device_seen(device);
    }
    let Found {
        license,
        slot,
        session,
        ..
    } = &known.found;
    let no_slot = slot.is_none().then_some(devices::Refusal::NotActivated);
    let too_old = settings.check_version(client.version).err();
    let refusal = too_old
        .map(Into::into)
        .or_else(|| license_refusal(settings, license, client.version, now))
        .or(no_slot.map(Into::into));
    let lease = Lease::of(settings, license, &client.hardware_id, now);
    Verification {
        lease: lease.filter(|_| refusal.is_none()),
        refusal,
        version: settings.version_info_for(client.version, license.updates_until),
        session_active: session
            .as_ref()
            .is_some_and(|session| live.is_running(session)),
        feature_flags: Some(settings.flags_for(license.id.0)),
        license: Some(VerifiedLicense(known)),
    }
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
