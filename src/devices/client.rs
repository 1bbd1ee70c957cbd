//! Handlers for client programs: `POST /api/license/activate`.

use rocket::{Route, State, post, routes};

use super::ClientIdentity;
use crate::db::Db;
use crate::error::Result;
use crate::licenses::{self, LicenseKey};
use crate::products::client::Program;
use crate::security::rate_limit::Quota;
use crate::text;
use crate::version::VERSION_LEN_MAX;
use crate::web::body::{Body, Fields, FromFields};
use crate::web::rate_limiting::NamedCaller;
use crate::web::reply::{ApiResponse, Reply};

/// The maximum length of a device's name and of its fingerprint, in characters.
pub const DEVICE_TEXT_MAX: usize = 255;

impl FromFields for ClientIdentity {
    fn from_fields(fields: &mut Fields) -> Result<Self> {
        Ok(Self {
            license_key: licenses::client::key(fields)?,
            machine_id: fields.text_with("machine_id", DEVICE_TEXT_MAX, text::to_nfc)?,
            hardware_id: fields.text("hardware_hash", DEVICE_TEXT_MAX)?,
            version: fields.parsed("version", VERSION_LEN_MAX)?,
        })
    }
}

/// Applies the rate limits to a request that names a license key and a device.
///
/// # Errors
/// `rate_limited`.
pub async fn apply_rate_limits(
    program: &Program,
    license_key: Option<LicenseKey>,
    hardware_id: &str,
    db: &Db,
) -> Result<()> {
    let named = license_key.map(|key| NamedCaller::device(key.as_bytes(), hardware_id));
    let hardware_id = hardware_id.to_owned();
    let look_up =
        || db.read(move |reader| super::look_up_caller(reader, license_key.as_ref(), &hardware_id));
    program.admit(named, look_up).await
}

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
        .write("devices.activate", move |tx| {
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

/// The routes of this module for programs.
pub fn routes() -> Vec<Route> {
    routes![activate]
}
