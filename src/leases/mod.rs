//! Leases: signed tokens with which a program can run offline on one device, for a limited time. A lease cannot be
//! revoked.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::UnixMs;
use crate::error::{Doing, Result};
use crate::licenses::{Features, License};
use crate::products::ProgramSettings;
use crate::security::signing::SigningKeyPair;

/// The `typ` of the token (RFC 7515, section 4.1.9).
const TOKEN_TYPE: &str = "lease+jwt";
const DAY_S: i64 = 24 * 60 * 60;

/// The claims of a lease. `iat` and `exp` are Unix seconds (RFC 7519).
#[derive(Clone, Debug, Serialize)]
pub struct Lease {
    /// The product name from the client settings.
    product: String,
    /// The license key without hyphens, for comparison with the key that the user typed.
    license: String,
    /// The device's fingerprint.
    hardware_hash: String,
    /// Every feature flag with its value for this license.
    feature_flags: BTreeMap<String, bool>,
    /// The code of the plan that the license was sold by, if any.
    plan: Option<String>,
    /// What the license allows the program to do.
    features: Features,
    /// When the updates of the license end, as RFC 3339; `None`: never.
    updates_until: Option<String>,
    iat: i64,
    exp: i64,
}

impl Lease {
    /// A lease that begins at `now`, for a device on a usable license; `None` if the settings do not allow offline use
    /// or the license is about to expire.
    pub fn of(
        settings: &ProgramSettings,
        license: &License,
        hardware_id: &str,
        now: UnixMs,
    ) -> Option<Self> {
        let exp = expiry(settings.config.offline_days, license.valid_until, now)?;
        Some(Self {
            product: settings.config.client_name.clone(),
            license: license.key.stored(),
            hardware_hash: hardware_id.to_owned(),
            feature_flags: settings.flags_for(license.id.0),
            plan: license.plan.clone(),
            features: license.features.clone(),
            updates_until: license.updates_until.map(UnixMs::rfc3339),
            iat: unix_seconds(now),
            exp,
        })
    }

    /// The lease as a signed compact JWS.
    pub fn signed(&self, keys: &SigningKeyPair) -> Result<String> {
        let claims = serde_json::to_string(self).doing("write a lease")?;
        Ok(keys.signed_jws(TOKEN_TYPE, &claims))
    }
}

fn unix_seconds(moment: UnixMs) -> i64 {
    moment.0.div_euclid(1000)
}

/// When a lease that begins at `now` expires, in Unix seconds: never after its license. `None` if it would have expired
/// already.
fn expiry(days: u32, valid_until: Option<UnixMs>, now: UnixMs) -> Option<i64> {
    let requested = unix_seconds(now).saturating_add(DAY_S * i64::from(days));
    let expiry = valid_until.map_or(requested, |until| requested.min(unix_seconds(until)));
    (expiry > unix_seconds(now)).then_some(expiry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_as_many_days_as_are_set_and_never_longer_than_its_license() {
        let now = UnixMs(1_700_000_000_999);
        let until = |seconds: i64| Some(UnixMs(1_700_000_000_000 + seconds * 1000 + 1));
        for (days, valid_until, lasts) in [
            (0, None, None),
            (0, until(100), None),
            (1, None, Some(86_400)),
            (90, None, Some(7_776_000)),
            (7, until(8 * DAY_S), Some(604_800)),
            (7, until(3600), Some(3600)),
            (7, until(0), None),
            (7, until(-1), None),
        ] {
            let expected = lasts.map(|lasts| 1_700_000_000 + lasts);
            assert_eq!(
                expiry(days, valid_until, now),
                expected,
                "{days} {valid_until:?}"
            );
        }
    }
}
