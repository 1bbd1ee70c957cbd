//! Trials without a key: a program asks for a license of its product's trial plan. The license is bound to the device,
//! which gets the same one for ever, and belongs to no customer until somebody buys it.

pub mod cli;
pub mod client;
pub mod panel;
mod rules;
mod store;

pub use rules::Refusal;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::{Now, UnixMs};
use crate::db::{Reader, Tx};
use crate::devices::{self, ClientIdentity, SlotRequest};
use crate::error::{Faults, Result};
use crate::id::{LicenseId, ProductId};
use crate::idempotency::{self, IdempotentOperation, RequestKey, RunOnce, StoredResponse};
use crate::licenses::{self, Buyer, Kind, License, Order};
use crate::plans;
use crate::products;
use crate::security::rate_limit::{HourlyQuota, LookupResult, Quota};
use crate::zone::Day;

/// A program's request for the trial of its device.
#[derive(Clone, Debug)]
pub struct TrialRequest {
    /// The product of the program, identified by its API key.
    pub product: ProductId,
    /// Device and version, as the program sent them; the license key of a trial is not known yet.
    pub client: ClientIdentity,
    /// The `Idempotency-Key` header, if sent; see [`start_once`].
    pub idempotency_key: Option<String>,
    /// Limits how many new trials start at one address.
    pub trial_quota: HourlyQuota,
    /// Limits how often devices take slots of the license.
    pub quota: Quota,
    /// When the request arrived.
    pub now: Now,
}

/// The trial of a device, as it is after a request.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The license.
    pub license: License,
    /// Why the device cannot use it now: the code of a refusal; `None` if it can.
    pub obstacle: Option<&'static str>,
    /// When the device took its slot; `None` if it holds none.
    pub activated_at: Option<UnixMs>,
    /// How many slots of the license are taken.
    pub device_count: u32,
}

/// What [`start_once`] responds.
#[derive(Clone, Debug)]
pub struct TrialOutcome {
    /// Whether the trial started, now or with the request that this one repeats.
    pub created: bool,
    /// The JSON body.
    pub body: String,
    /// As in [`Trial`]; `None` for a repeated response, too.
    pub obstacle: Option<&'static str>,
}

/// Starts the trial of a device, or finds the one that it has: also one that ended, was revoked or was bought. A device
/// that gave back its slot takes it again if the license can be used. `respond` writes the response; a request that
/// repeats this one while the device holds its slot gets the same response.
///
/// # Errors
/// For a device without a trial, [`Refusal::NotOffered`] and `rate_limited` if too many start at its address; for every
/// device, `rate_limited` if it takes its slot too often.
pub fn start_once(
    act: &Act<'_>,
    request: &TrialRequest,
    respond: impl FnOnce(&Trial) -> Result<String>,
) -> Result<TrialOutcome> {
    let (license, created) = find_or_start(act, request)?;
    let request_key = request.idempotency_key.as_deref().map(|key| RequestKey {
        license_id: license.id,
        hardware_id: &request.client.hardware_id,
        operation: IdempotentOperation::Trial,
        key,
        at: request.now.wall,
    });
    let holds_slot = devices::find(act.tx, license.id, &request.client.hardware_id)?.is_some();
    let take_slot = || {
        let trial = with_slot(act.tx, request, license)?;
        let (body, obstacle) = (respond(&trial)?, trial.obstacle);
        let stored = created.then(|| StoredResponse {
            body: body.clone(),
            session_id: None,
        });
        let outcome = TrialOutcome {
            created,
            body,
            obstacle,
        };
        Ok((outcome, stored))
    };
    let outcome = idempotency::run_once(act.tx, request_key.as_ref(), |_| holds_slot, take_slot)?;
    Ok(match outcome {
        RunOnce::Ran(outcome) => outcome,
        RunOnce::Repeated(stored) => TrialOutcome {
            created: true,
            body: stored.body,
            obstacle: None,
        },
    })
}

/// The license of the device's trial, and whether it was issued now.
fn find_or_start(act: &Act<'_>, request: &TrialRequest) -> Result<(License, bool)> {
    let product = request.product;
    // A call that was admitted just before the product was archived.
    if products::get(act.tx, product)?.archived_at.is_some() {
        return Err(Refusal::NotOffered.into());
    }
    let digest = devices::fingerprint_digest(product, &request.client.hardware_id);
    if let Some(id) = store::license_of_device(act.tx, product, &digest)? {
        return Ok((licenses::find(act.tx, id)?, false));
    }
    let order = order(act, product)?.ok_or(Refusal::NotOffered)?;
    request.trial_quota.take(request.now.tick)?;
    let license = licenses::issue_trial(act, &order)?;
    store::insert(act.tx, &license, &digest, act.now)?;
    act.note(&Change {
        action: "trials.start",
        subject: &license.id.to_string(),
        before: Value::Null,
        after: json!({ "plan": license.plan, "device_limit": license.device_limit }),
    })?;
    Ok((license, true))
}

/// What a trial of the product is issued by; `None` if it offers none.
fn order(act: &Act<'_>, product: ProductId) -> Result<Option<Order>> {
    let settings = products::product_settings(act.tx, product)?;
    let Some(trial_plan) = settings.trial_plan else {
        return Ok(None);
    };
    let plan = plans::by_id(act.tx, trial_plan.id)?;
    // A plan that was changed to another kind sells licenses, which belong to a customer.
    let offers_trials = plan.terms.kind == Kind::Trial && plan.archived_at.is_none();
    Ok(offers_trials.then(|| plans::order(&plan, act.now)))
}

/// Gives the device the slot of its trial, if it does not hold it and the license can be used.
fn with_slot(tx: &Tx<'_>, request: &TrialRequest, license: License) -> Result<Trial> {
    let (client, now) = (&request.client, request.now);
    let held = devices::find(tx, license.id, &client.hardware_id)?;
    // A call that arrived before the one that started the trial may come after it.
    let refusal = licenses::check_usable(&license, now.wall.max(license.created_at)).err();
    let device_count = devices::count(tx, license.id)?;
    let is_full = device_count >= license.device_limit;
    let trial = |license, obstacle, activated_at| Trial {
        license,
        obstacle,
        activated_at,
        device_count,
    };
    Ok(match (refusal, held) {
        (Some(refusal), held) => {
            let activated_at = held.map(|device| device.activated_at);
            trial(license, Some(refusal.code()), activated_at)
        }
        (None, Some(device)) => {
            devices::refresh(tx, device.id, client, now.wall)?;
            trial(license, None, Some(device.activated_at))
        }
        // Only of a license that was bought: until then no other device takes a slot.
        (None, None) if is_full => trial(license, Some(rules::LIMIT_REACHED), None),
        (None, None) => {
            let quota = &request.quota;
            let (license, _) =
                devices::take_slot(tx, license, &SlotRequest { client, quota, now })?;
            Trial {
                device_count: device_count + 1,
                ..trial(license, None, Some(now.wall))
            }
        }
    })
}

/// Looks up whether a device has a trial, so that its request is served although its address is over a limit.
pub fn look_up_caller(
    reader: &Reader<'_>,
    product: ProductId,
    hardware_id: &str,
) -> Result<LookupResult> {
    let digest = devices::fingerprint_digest(product, hardware_id);
    let found = store::license_of_device(reader, product, &digest)?;
    Ok(found.map_or(LookupResult::Unknown, |_| LookupResult::Caller))
}

/// Sells the license of a trial to `buyer`: as a license of the plan with the code `plan`, whose term begins, or else as
/// it is.
///
/// # Errors
/// [`Refusal::AlreadySold`] if it has a customer, and the errors of [`licenses::assign`] and [`plans::order_by_code`];
/// nothing is changed then.
pub fn sell(act: &Act<'_>, id: LicenseId, buyer: &Buyer, plan: Option<&str>) -> Result<License> {
    let license = licenses::find(act.tx, id)?;
    if license.customer_id.is_some() {
        return Err(Refusal::AlreadySold.into());
    }
    let mut faults = Faults::default();
    let order = plan.map(|code| plans::order_by_code(act, license.product, code));
    let order = order.and_then(|order| faults.keep(order));
    faults.with(licenses::assign(act, id, buyer, order.as_ref()))
}

/// The trials that started on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialDay {
    /// Its first moment.
    pub day: UnixMs,
    /// How many started.
    pub started: u32,
    /// How many of those have a customer now.
    pub bought: u32,
}

/// How many trials of these products together started on each of these days, and how many of them were bought; the latest
/// day first, without the days on which none started.
pub fn by_day(reader: &Reader<'_>, products: &[ProductId], among: &[Day]) -> Result<Vec<TrialDay>> {
    let mut days: BTreeMap<UnixMs, TrialDay> = BTreeMap::new();
    for product in products {
        for one in store::by_day(reader, *product, among)? {
            let all = days.entry(one.day).or_insert(TrialDay {
                started: 0,
                bought: 0,
                ..one
            });
            all.started = all.started.saturating_add(one.started);
            all.bought = all.bought.saturating_add(one.bought);
        }
    }
    Ok(days.into_values().rev().collect())
}

/// Whether one of these products offers trials, or ever had one.
pub fn were_offered(reader: &Reader<'_>, products: &[ProductId]) -> Result<bool> {
    for product in products {
        let settings = products::product_settings(reader, *product)?;
        if settings.trial_plan.is_some() || store::any(reader, *product)? {
            return Ok(true);
        }
    }
    Ok(false)
}
