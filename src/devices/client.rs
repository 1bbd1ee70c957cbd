//! The door for shipped programs: `POST /api/license/activate`.

use rocket::{Route, State, post, routes};

use super::Claim;
use crate::client_config::client::Program;
use crate::db::Db;
use crate::error::Result;
use crate::licenses;
use crate::text;
use crate::version::VERSION_LEN_MAX;
use crate::web::body::{Body, Fields, FromFields};
use crate::web::reply::{Answer, Reply};

/// Longest name and longest fingerprint of a device.
pub const DEVICE_TEXT_MAX: usize = 255;

impl FromFields for Claim {
    fn from_fields(fields: &mut Fields) -> Result<Self> {
        Ok(Self {
            license_key: licenses::client::key(fields)?,
            machine_id: text::composed(&fields.text("machine_id", DEVICE_TEXT_MAX)?),
            hardware_id: fields.text("hardware_hash", DEVICE_TEXT_MAX)?,
            version: fields.parsed("version", VERSION_LEN_MAX)?,
        })
    }
}

/// Takes a device slot.
#[post("/activate", data = "<body>")]
async fn activate(program: Program, body: Body<Claim>, db: &State<Db>) -> Reply {
    let Body(claim) = body;
    let (now, key) = (program.now.wall, program.idempotency_key()?);
    program.settings.supports(claim.version)?;
    let activation = db
        .write("devices.activate", move |tx| {
            super::activate(tx, &claim, key.as_deref(), now)
        })
        .await?;
    let answer = if activation.created {
        Answer::created_json(activation.answer)
    } else {
        Answer::ok_json(activation.answer)
    };
    Ok(answer.licensed())
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![activate]
}
