//! The door for shipped programs: `POST /api/license/activate`.

use rocket::{Route, State, post, routes};

use super::ClientIdentity;
use crate::client_config::client::Program;
use crate::db::Db;
use crate::error::Result;
use crate::licenses::{self, LicenseKey};
use crate::security::rate_limit::Quota;
use crate::text;
use crate::version::VERSION_LEN_MAX;
use crate::web::body::{Body, Fields, FromFields};
use crate::web::reply::{ApiResponse, Reply};
use crate::web::trial::Named;

/// Longest name and longest fingerprint of a device.
pub const DEVICE_TEXT_MAX: usize = 255;

impl FromFields for ClientIdentity {
    fn from_fields(fields: &mut Fields) -> Result<Self> {
        Ok(Self {
            license_key: licenses::client::key(fields)?,
            machine_id: fields.text_as("machine_id", DEVICE_TEXT_MAX, text::composed)?,
            hardware_id: fields.text("hardware_hash", DEVICE_TEXT_MAX)?,
            version: fields.parsed("version", VERSION_LEN_MAX)?,
        })
    }
}

/// Lets a program in that claims to be a device of a license; for every call that names one.
///
/// # Errors
/// `rate_limited`, and when SQLite fails.
pub async fn enter(
    program: &Program,
    license_key: Option<LicenseKey>,
    hardware_id: &str,
    db: &Db,
) -> Result<()> {
    let named = license_key.map(|key| Named::device(key.as_bytes(), hardware_id));
    let hardware_id = hardware_id.to_owned();
    let look_up =
        || db.read(move |reader| super::standing(reader, license_key.as_ref(), &hardware_id));
    program.enter(named, look_up).await
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
    enter(&program, claim.license_key, &claim.hardware_id, db).await?;
    let (now, key) = (program.now, program.idempotency_key()?);
    program.settings.check_version(claim.version)?;
    let quota = quota.inner().clone();
    let activation = db
        .write("devices.activate", move |tx| {
            super::activate(tx, &claim, key.as_deref(), &quota, now)
        })
        .await?;
    let answer = if activation.created {
        ApiResponse::created_json(activation.answer)
    } else {
        ApiResponse::ok_json(activation.answer)
    };
    Ok(answer.to_slot_holder())
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![activate]
}
