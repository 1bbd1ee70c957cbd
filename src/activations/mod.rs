//! Activations: a device takes a slot of a license, and frees it.

pub mod cli;
pub mod client;
pub mod panel;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::Now;
use crate::db::Tx;
use crate::devices::{self, ClientIdentity, Device, LicenseTerms};
use crate::error::{Doing, Error, Result};
use crate::id::{DeviceId, LicenseId};
use crate::idempotency::{self, RequestKey, StoredResponse};
use crate::licenses::{self, License, LicenseKey};
use crate::security::rate_limit::Quota;
use crate::session_history::EndReason;
use crate::sessions::{self, LiveSessions};

/// The response to an activation.
#[derive(Clone, Debug, serde::Serialize)]
struct ActivateResponse {
    activated_at: String,
    device_count: u32,
    device_limit: u32,
    license: LicenseTerms,
}

/// The result of an activation.
#[derive(Clone, Debug)]
pub struct Activation {
    /// Whether the device took a slot now; false if it held one already.
    pub created: bool,
    /// The response, as JSON.
    pub answer: String,
}

/// Gives the device a slot, or updates the one that it holds.
///
/// # Errors
/// [`licenses::Refusal`], [`devices::Refusal::LimitReached`], `rate_limited` if the license takes slots too often.
pub fn activate(
    tx: &Tx<'_>,
    claim: &ClientIdentity,
    idempotency_key: Option<&str>,
    quota: &Quota,
    now: Now,
) -> Result<Activation> {
    let license = devices::usable_license(tx, claim.license_key.as_ref(), now.wall)?;
    let request_key = idempotency_key.map(|key| RequestKey {
        license_id: license.id,
        hardware_id: &claim.hardware_id,
        operation: idempotency::IdempotentOperation::Activate,
        key,
    });
    let held = devices::find(tx, license.id, &claim.hardware_id)?;
    if let Some(device) = &held {
        devices::refresh(tx, device.id, claim, now.wall)?;
        let stored = request_key
            .map(|key| idempotency::find(tx, &key, now.wall))
            .transpose()?
            .flatten();
        if let Some(stored) = stored {
            return Ok(Activation {
                created: true,
                answer: stored.answer,
            });
        }
    } else {
        devices::take_slot(tx, &license, claim, quota, now)?;
    }
    let activated = ActivateResponse {
        activated_at: held
            .as_ref()
            .map_or(now.wall, |device| device.activated_at)
            .rfc3339(),
        device_count: devices::count(tx, license.id)?,
        device_limit: license.device_limit,
        license: LicenseTerms::of(&license),
    };
    let answer = serde_json::to_string(&activated).doing("write an activation")?;
    let created = held.is_none();
    if let Some(request_key) = request_key.filter(|_| created) {
        let stored = StoredResponse {
            answer: answer.clone(),
            session_id: None,
        };
        idempotency::save(tx, &request_key, &stored, now.wall)?;
    }
    Ok(Activation { created, answer })
}

/// The slots of a license after a deactivation.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Slots {
    device_count: u32,
    device_limit: u32,
}

/// Frees the slot of a device for its program, and ends the device's session.
///
/// # Errors
/// [`licenses::Refusal`], [`devices::Refusal::NotActivated`].
pub fn deactivate(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    key: Option<&LicenseKey>,
    hardware_id: &str,
    now: Now,
) -> Result<Slots> {
    let license = devices::usable_license(tx, key, now.wall)?;
    let device = devices::find(tx, license.id, hardware_id)?;
    let device = device.ok_or(devices::Refusal::NotActivated)?;
    free_slot(tx, live, &license, device.id, EndReason::Normal, now)?;
    Ok(Slots {
        device_count: devices::count(tx, license.id)?,
        device_limit: license.device_limit,
    })
}

fn free_slot(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    license: &License,
    device_id: DeviceId,
    reason: EndReason,
    now: Now,
) -> Result<()> {
    sessions::end_on_device(tx, live, (license.id, device_id), reason, now)?;
    devices::remove(tx, device_id)
}

/// Frees the slot of a device for an administrator; its session ends as forced.
///
/// # Errors
/// [`Error::NotFound`] if it holds no slot.
pub fn release_device(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    license: &License,
    hardware_id: &str,
    actor: &Actor,
    now: Now,
) -> Result<()> {
    let device = devices::find(tx, license.id, hardware_id)?;
    let device = device.ok_or_else(|| Error::not_found("device", hardware_id))?;
    free_slot(tx, live, license, device.id, EndReason::Forced, now)?;
    let subject = license.id.to_string();
    let before = json!({ "hardware_id": hardware_id, "machine_id": device.machine_id });
    let change = Change {
        action: "devices.release",
        subject: &subject,
        before,
        after: Value::Null,
    };
    audit::note(tx, now.wall, actor, &change)?;
    tx.invalidate_caches();
    Ok(())
}

/// [`release_device`] for the device with this fingerprint or name.
///
/// # Errors
/// As [`devices::by_name_or_fingerprint`].
pub fn release_named_device(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    license_id: LicenseId,
    name_or_fingerprint: &str,
    actor: &Actor,
    now: Now,
) -> Result<Device> {
    let license = licenses::find(tx, license_id)?;
    let device = devices::by_name_or_fingerprint(tx, license_id, name_or_fingerprint)?;
    release_device(tx, live, &license, &device.hardware_id, actor, now)?;
    Ok(device)
}
