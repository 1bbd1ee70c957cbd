//! Handlers for client programs: `POST /api/license/activate` and `/deactivate`.

use std::sync::Arc;

use rocket::{Route, State, post, routes};

use crate::db::Db;
use crate::devices::ClientIdentity;
use crate::devices::client::{DEVICE_TEXT_MAX, apply_rate_limits};
use crate::error::Result;
use crate::licenses::{self, LicenseKey};
use crate::products::client::Program;
use crate::security::rate_limit::Quota;
use crate::sessions::LiveSessions;
use crate::web::body::{Body, Fields, FromFields};
use crate::web::reply::{ApiResponse, Reply};

/// Takes a device slot.
#[post("/activate", data = "<body>")]
async fn activate(
    program: Program,
    body: Body<ClientIdentity>,
    db: &State<Db>,
    quota: &State<Quota>,
) -> Reply {
    let Body(claim) = body;
    apply_rate_limits(&program, claim.license_key, &claim.hardware_id, db).await?;
    let (now, key) = (program.now, program.idempotency_key()?);
    program.settings.check_version(claim.version)?;
    let quota = quota.inner().clone();
    let activation = db
        .write("activations.activate", move |tx| {
            super::activate(tx, &claim, key.as_deref(), &quota, now)
        })
        .await?;
    let response = if activation.created {
        ApiResponse::created_json(activation.answer)
    } else {
        ApiResponse::ok_json(activation.answer)
    };
    Ok(response.for_slot_holder())
}

struct DeactivateRequest {
    key: Option<LicenseKey>,
    hardware_id: String,
}

impl FromFields for DeactivateRequest {
    fn from_fields(fields: &mut Fields) -> Result<Self> {
        Ok(Self {
            key: licenses::client::key(fields)?,
            hardware_id: fields.text("hardware_hash", DEVICE_TEXT_MAX)?,
        })
    }
}

/// Frees a device slot.
#[post("/deactivate", data = "<body>")]
async fn deactivate(
    program: Program,
    body: Body<DeactivateRequest>,
    db: &State<Db>,
    live: &State<Arc<LiveSessions>>,
) -> Reply {
    let Body(DeactivateRequest { key, hardware_id }) = body;
    apply_rate_limits(&program, key, &hardware_id, db).await?;
    let (live, now) = (live.inner().clone(), program.now);
    let slots = db
        .write("activations.deactivate", move |tx| {
            super::deactivate(tx, &live, key.as_ref(), &hardware_id, now)
        })
        .await?;
    ApiResponse::ok(&slots)
}

/// The routes of this module for programs.
pub fn routes() -> Vec<Route> {
    routes![activate, deactivate]
}
