//! Activations: devices take slots of a license, and programs or administrators free them.

pub mod cli;
pub mod client;
pub mod panel;
mod selection;
mod store;

pub use selection::{REFUSED_KEY, SELECTED_MAX, SelectedChange, change_selected};

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::{Now, UnixMs};
use crate::db::Tx;
use crate::devices::{self, ClientIdentity, Device, SlotRequest};
use crate::error::{Faults, Result};
use crate::id::{CustomerId, DeviceId, LicenseId, ProductId};
use crate::idempotency::{self, IdempotentOperation, RequestKey, RunOnce, StoredResponse};
use crate::licenses::{self, License, LicenseEdit, LicenseKey};
use crate::live_sessions::LiveNow;
use crate::security::rate_limit::Quota;
use crate::session_history::EndReason;
use crate::sessions;

/// A program's request to activate its device.
#[derive(Clone, Debug)]
pub struct ActivationRequest {
    /// The product of the program, identified by its API key.
    pub product: ProductId,
    /// License key, device and version, as the program sent them.
    pub client: ClientIdentity,
    /// The `Idempotency-Key` header, if sent; see [`activate_once`].
    pub idempotency_key: Option<String>,
    /// Limits how often devices take slots of the license.
    pub quota: Quota,
    /// When the request arrived.
    pub now: Now,
}

/// The result of an activation: the device holds a slot.
#[derive(Clone, Debug)]
pub struct Activated {
    /// Whether the device took a slot now; false if it already held one.
    pub created: bool,
    /// When it took the slot.
    pub activated_at: UnixMs,
    /// How many slots of the license are taken.
    pub device_count: u32,
    /// The license.
    pub license: License,
}

/// What [`activate_once`] responds.
#[derive(Clone, Debug)]
pub struct ActivationOutcome {
    /// Whether the device took a slot, now or with the request that this one repeats.
    pub created: bool,
    /// The JSON body.
    pub body: String,
}

/// Gives the device a slot. If it holds one already, updates its name and version.
///
/// # Errors
/// [`licenses::Refusal`], [`devices::Refusal::LimitReached`], `rate_limited` if devices take slots of the license too
/// often.
pub fn activate(tx: &Tx<'_>, request: &ActivationRequest) -> Result<Activated> {
    let (license, held) = find_and_refresh(tx, request)?;
    ensure_slot(tx, request, license, held)
}

/// As [`activate`], but returns the response, which `respond` writes. A request that repeats this one while the device
/// holds its slot gets the same response.
///
/// # Errors
/// As [`activate`].
pub fn activate_once(
    tx: &Tx<'_>,
    request: &ActivationRequest,
    respond: impl FnOnce(&Activated) -> Result<String>,
) -> Result<ActivationOutcome> {
    let (license, held) = find_and_refresh(tx, request)?;
    let request_key = request.idempotency_key.as_deref().map(|key| RequestKey {
        license_id: license.id,
        hardware_id: &request.client.hardware_id,
        operation: IdempotentOperation::Activate,
        key,
        at: request.now.wall,
    });
    let holds_slot = held.is_some();
    let activate = || {
        let activated = ensure_slot(tx, request, license, held)?;
        let (created, body) = (activated.created, respond(&activated)?);
        let stored = created.then(|| StoredResponse {
            body: body.clone(),
            session_id: None,
        });
        Ok((ActivationOutcome { created, body }, stored))
    };
    let outcome = idempotency::run_once(tx, request_key.as_ref(), |_| holds_slot, activate)?;
    Ok(match outcome {
        RunOnce::Ran(response) => response,
        RunOnce::Repeated(stored) => ActivationOutcome {
            created: true,
            body: stored.body,
        },
    })
}

/// The license of a request and, if its device holds a slot already, the device, whose name and version are updated.
fn find_and_refresh(tx: &Tx<'_>, request: &ActivationRequest) -> Result<(License, Option<Device>)> {
    let (client, now) = (&request.client, request.now.wall);
    let license = devices::usable_license(tx, request.product, client.license_key.as_ref(), now)?;
    let held = devices::find(tx, license.id, &client.hardware_id)?;
    if let Some(device) = &held {
        devices::refresh(tx, device.id, client, now)?;
    }
    Ok((license, held))
}

/// Gives the device a slot, unless it already `held` one.
fn ensure_slot(
    tx: &Tx<'_>,
    request: &ActivationRequest,
    mut license: License,
    held: Option<Device>,
) -> Result<Activated> {
    if held.is_none() {
        let slot_request = SlotRequest {
            client: &request.client,
            quota: &request.quota,
            now: request.now,
        };
        (license, _) = devices::take_slot(tx, license, &slot_request)?;
    }
    Ok(Activated {
        created: held.is_none(),
        activated_at: held.map_or(request.now.wall, |device| device.activated_at),
        device_count: devices::count(tx, license.id)?,
        license,
    })
}

/// A program's request to deactivate its device.
#[derive(Clone, Debug)]
pub struct DeactivationRequest {
    /// The product of the program, identified by its API key.
    pub product: ProductId,
    /// The license key; `None` if the text cannot be one.
    pub key: Option<LicenseKey>,
    /// The device's fingerprint.
    pub hardware_id: String,
}

/// How many slots of a license are taken after a deactivation.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// How many are taken.
    pub device_count: u32,
    /// How many there are.
    pub device_limit: u32,
}

/// Frees the slot of a device at the request of its program, and ends the session of the device. The audit log notes it, so
/// that the search still leads from the device to the license.
///
/// # Errors
/// [`licenses::Refusal`], [`devices::Refusal::NotActivated`].
pub fn deactivate(
    act: &Act<'_>,
    live: LiveNow<'_>,
    request: &DeactivationRequest,
) -> Result<Slots> {
    let (released, slots) = deactivate_unnoted(act.tx, live, request)?;
    act.note(&Change {
        action: "devices.deactivate",
        subject: &released.license.id.to_string(),
        before: names(&released.device),
        after: Value::Null,
    })?;
    Ok(slots)
}

/// As [`deactivate`], for a dry run, which is noted as a whole.
///
/// # Errors
/// As [`deactivate`].
pub fn deactivate_unnoted(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    request: &DeactivationRequest,
) -> Result<(Released, Slots)> {
    let key = request.key.as_ref();
    let license = devices::usable_license(tx, request.product, key, live.now.wall)?;
    let device = devices::find(tx, license.id, &request.hardware_id)?;
    let device = device.ok_or(devices::Refusal::NotActivated)?;
    free_slot(tx, live, device.id, EndReason::Normal)?;
    let slots = Slots {
        device_count: devices::count(tx, license.id)?,
        device_limit: license.device_limit,
    };
    Ok((Released { license, device }, slots))
}

fn free_slot(tx: &Tx<'_>, live: LiveNow<'_>, device_id: DeviceId, reason: EndReason) -> Result<()> {
    sessions::end_on_device(tx, live, device_id, reason)?;
    devices::remove(tx, device_id)
}

/// Frees every slot of a license; the session ends as [`EndReason::Forced`]. Returns the devices that held one.
pub fn free_all_slots(tx: &Tx<'_>, live: LiveNow<'_>, id: LicenseId) -> Result<Vec<Device>> {
    let held = devices::list(tx, id)?;
    for device in &held {
        free_slot(tx, live, device.id, EndReason::Forced)?;
    }
    Ok(held)
}

/// Changes the terms of a license. To another customer it comes without its devices and stored responses, which are the
/// former one's.
///
/// # Errors
/// As [`licenses::edit`].
pub fn edit_license(act: &Act<'_>, live: LiveNow<'_>, edit: &LicenseEdit) -> Result<License> {
    let mut faults = Faults::default();
    let former = faults.keep(licenses::former_owner(act.tx, edit));
    if let Some(former) = former.flatten() {
        for device in free_all_slots(act.tx, live, edit.id)? {
            note_moved_away(act, edit.id, &device, former)?;
        }
        idempotency::forget(act.tx, edit.id)?;
        store::insert_former_owner(act.tx, edit.id, former, act.now)?;
    }
    faults.with(licenses::edit(act, edit))
}

/// Notes that a device lost its slot because the license moved away from the customer `former`, to whom the entry belongs.
fn note_moved_away(
    act: &Act<'_>,
    id: LicenseId,
    device: &Device,
    former: CustomerId,
) -> Result<()> {
    let Device {
        hardware_id,
        machine_id,
        ..
    } = device;
    act.note(&Change {
        action: "devices.release",
        subject: &id.to_string(),
        before: json!({ "customer": former, "hardware_id": hardware_id, "machine_id": machine_id }),
        after: Value::Null,
    })
}

/// What the audit log says about a device that was released.
fn names(device: &Device) -> Value {
    json!({ "hardware_id": device.hardware_id, "machine_id": device.machine_id })
}

/// Frees the slot of a device at the request of an administrator; its session ends as [`EndReason::Forced`].
///
/// # Errors
/// [`Error::NotFound`](crate::error::Error::NotFound) if the license is unknown, or the device holds none of its slots.
pub fn release(
    act: &Act<'_>,
    live: LiveNow<'_>,
    license_id: LicenseId,
    device_id: DeviceId,
) -> Result<()> {
    let license = licenses::find(act.tx, license_id)?;
    let device = devices::get(act.tx, license.id, device_id)?;
    release_found(act, live, &license, &device)
}

/// A device that was released, and the license whose slot it held.
#[derive(Clone, Debug)]
pub struct Released {
    /// The license.
    pub license: License,
    /// The device, which holds no slot any more.
    pub device: Device,
}

/// As [`release`], for the device with this fingerprint or name, on the license with the typed `key`.
///
/// # Errors
/// As [`release`] and [`devices::by_name_or_fingerprint`].
pub fn release_named(
    act: &Act<'_>,
    live: LiveNow<'_>,
    key: &str,
    name_or_fingerprint: &str,
) -> Result<Released> {
    let license = licenses::by_typed_key(act.tx, key)?;
    let device = devices::by_name_or_fingerprint(act.tx, license.id, name_or_fingerprint)?;
    release_found(act, live, &license, &device)?;
    Ok(Released { license, device })
}

fn release_found(
    act: &Act<'_>,
    live: LiveNow<'_>,
    license: &License,
    device: &Device,
) -> Result<()> {
    free_slot(act.tx, live, device.id, EndReason::Forced)?;
    let subject = license.id.to_string();
    act.changed(&Change {
        action: "devices.release",
        subject: &subject,
        before: names(device),
        after: Value::Null,
    })
}
