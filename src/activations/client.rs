//! Handlers for client programs: `POST /api/license/activate` and `/deactivate`.

use rocket::{Route, post, routes};
use serde::Serialize;

use super::{Activated, ActivationRequest, DeactivationRequest, Slots};
use crate::app::App;
use crate::audit::{Act, Actor};
use crate::devices::ClientIdentity;
use crate::devices::client::{DEVICE_TEXT_MAX, apply_rate_limits};
use crate::error::{Doing, Result};
use crate::licenses::client::LicenseTerms;
use crate::licenses::{self, LicenseKey};
use crate::products::client::Program;
use crate::web::body::{Body, FromFields, JsonFields};
use crate::web::reply::{ApiResponse, Reply};

/// The JSON body of the response to an activation.
#[derive(Serialize)]
pub struct ActivateResponse {
    activated_at: String,
    device_count: u32,
    device_limit: u32,
    license: LicenseTerms,
}

impl ActivateResponse {
    /// The body for this activation.
    pub fn new(activated: &Activated) -> Self {
        Self {
            activated_at: activated.activated_at.rfc3339(),
            device_count: activated.device_count,
            device_limit: activated.license.device_limit,
            license: LicenseTerms::of(&activated.license),
        }
    }
}

/// Takes a device slot.
#[post("/activate", data = "<body>")]
async fn activate(program: Program, body: Body<ClientIdentity>, app: &App) -> Reply {
    let Body(client) = body;
    apply_rate_limits(&program, client.license_key, &client.hardware_id, &app.db).await?;
    let (now, idempotency_key) = (program.now, program.idempotency_key()?);
    let product = program.settings.config.product;
    program.settings.check_version(client.version)?;
    let request = ActivationRequest {
        product,
        client,
        idempotency_key,
        quota: app.start_quota.clone(),
        now,
    };
    let activation = app
        .db
        .write("activations.activate", move |tx| {
            super::activate_once(tx, &request, |activated| {
                let response = ActivateResponse::new(activated);
                serde_json::to_string(&response).doing("write an activation")
            })
        })
        .await?;
    let response = if activation.created {
        ApiResponse::created_json(activation.body)
    } else {
        ApiResponse::ok_json(activation.body)
    };
    Ok(response.for_slot_holder())
}

/// The license key and device of a request to deactivate.
struct DeactivateFields {
    key: Option<LicenseKey>,
    hardware_id: String,
}

impl FromFields for DeactivateFields {
    fn from_fields(fields: &mut JsonFields) -> Result<Self> {
        Ok(Self {
            key: licenses::client::key(fields)?,
            hardware_id: fields.text("hardware_hash", DEVICE_TEXT_MAX)?,
        })
    }
}

/// The response to a deactivation.
#[derive(Serialize)]
pub struct DeactivateResponse {
    device_count: u32,
    device_limit: u32,
}

impl DeactivateResponse {
    /// The response after a deactivation that left `slots`.
    pub fn new(slots: Slots) -> Self {
        let Slots {
            device_count,
            device_limit,
        } = slots;
        Self {
            device_count,
            device_limit,
        }
    }
}

/// Frees a device slot.
#[post("/deactivate", data = "<body>")]
async fn deactivate(program: Program, body: Body<DeactivateFields>, app: &App) -> Reply {
    let Body(DeactivateFields { key, hardware_id }) = body;
    apply_rate_limits(&program, key, &hardware_id, &app.db).await?;
    let (live, now) = (app.live_sessions.clone(), program.now);
    let request = DeactivationRequest {
        product: program.settings.config.product,
        key,
        hardware_id,
    };
    let slots = app
        .db
        .write("activations.deactivate", move |tx| {
            let act = Act::new(tx, &Actor::Program, now.wall);
            super::deactivate(&act, live.at(now), &request)
        })
        .await?;
    ApiResponse::ok(&DeactivateResponse::new(slots))
}

/// The routes of this module for programs.
pub fn routes() -> Vec<Route> {
    routes![activate, deactivate]
}
