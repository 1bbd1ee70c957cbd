//! Handler for client programs: `POST /api/license/trial`.

use rocket::{Route, post, routes};
use serde::Serialize;

use super::{Trial, TrialRequest};
use crate::app::App;
use crate::audit::{Act, Actor};
use crate::clock::UnixMs;
use crate::db::Db;
use crate::devices::ClientIdentity;
use crate::devices::client::DEVICE_TEXT_MAX;
use crate::error::{Doing, RefusalKind, Refused, Result};
use crate::licenses::LicenseKey;
use crate::licenses::client::LicenseTerms;
use crate::products::client::Program;
use crate::text;
use crate::version::VERSION_LEN_MAX;
use crate::web::body::{Body, FromFields, JsonFields};
use crate::web::rate_limiting::NamedCaller;
use crate::web::reply::{ApiResponse, Reply};

/// The code of a license that the device can use.
const VALID: &str = "valid";

/// The JSON body of the response to a request for a trial: what an activation answers, the key, and whether the device
/// can use the license.
#[derive(Serialize)]
struct TrialResponse {
    license_key: LicenseKey,
    valid: bool,
    code: &'static str,
    activated_at: Option<String>,
    device_count: u32,
    device_limit: u32,
    license: LicenseTerms,
}

impl TrialResponse {
    fn new(trial: &Trial) -> Self {
        Self {
            license_key: trial.license.key,
            valid: trial.obstacle.is_none(),
            code: trial.obstacle.unwrap_or(VALID),
            activated_at: trial.activated_at.map(UnixMs::rfc3339),
            device_count: trial.device_count,
            device_limit: trial.license.device_limit,
            license: LicenseTerms::of(&trial.license),
        }
    }
}

/// The device of a request for a trial.
struct TrialFields(ClientIdentity);

impl FromFields for TrialFields {
    fn from_fields(fields: &mut JsonFields) -> Result<Self> {
        Ok(Self(ClientIdentity {
            license_key: None,
            machine_id: fields.text_with("machine_id", DEVICE_TEXT_MAX, text::to_nfc)?,
            hardware_id: fields.text("hardware_hash", DEVICE_TEXT_MAX)?,
            version: fields.parsed("version", VERSION_LEN_MAX)?,
        }))
    }
}

/// Applies the rate limits to a request that names a device and no license.
async fn apply_rate_limits(program: &Program, hardware_id: &str, db: &Db) -> Result<()> {
    let product = program.settings.config.product;
    let named = NamedCaller::trial(product, hardware_id);
    let hardware_id = hardware_id.to_owned();
    let look_up =
        || db.read_for_program(move |reader| super::look_up_caller(reader, product, &hardware_id));
    program.admit(Some(named), look_up).await
}

/// Starts the trial of a device, or returns the one that it has.
#[post("/trial", data = "<body>")]
async fn trial(program: Program, body: Body<TrialFields>, app: &App) -> Reply {
    let Body(TrialFields(client)) = body;
    apply_rate_limits(&program, &client.hardware_id, &app.db).await?;
    let idempotency_key = program.idempotency_key()?;
    program.settings.check_version(client.version)?;
    let request = TrialRequest {
        product: program.settings.config.product,
        client,
        idempotency_key,
        trial_quota: program.trial_quota(),
        quota: app.start_quota.clone(),
        now: program.now,
    };
    let outcome = app
        .db
        .write("trials.start", move |tx| {
            let act = Act::new(tx, &Actor::Program, request.now.wall);
            super::start_once(&act, &request, |trial| {
                let response = TrialResponse::new(trial);
                serde_json::to_string(&response).doing("write the start of a trial")
            })
        })
        .await?;
    let response = if outcome.created {
        ApiResponse::created_json(outcome.body)
    } else {
        ApiResponse::ok_json(outcome.body)
    };
    let refusal = outcome
        .obstacle
        .map(|code| Refused::new(RefusalKind::Forbidden, code));
    Ok(response.for_slot_holder().with_refusal(refusal))
}

/// The routes of this module for programs.
pub fn routes() -> Vec<Route> {
    routes![trial]
}
