//! What the handlers for client programs share that name a license and a device: the fields of the body, and the rate
//! limits.

use super::ClientIdentity;
use crate::db::Db;
use crate::error::Result;
use crate::licenses::{self, LicenseKey};
use crate::products::client::Program;
use crate::text;
use crate::version::VERSION_LEN_MAX;
use crate::web::body::{FromFields, JsonFields};
use crate::web::rate_limiting::NamedCaller;

/// The maximum length of a device's name and of its fingerprint, in characters.
pub const DEVICE_TEXT_MAX: usize = 255;

impl FromFields for ClientIdentity {
    fn from_fields(fields: &mut JsonFields) -> Result<Self> {
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
    let product = program.settings.config.product;
    let named = license_key.map(|key| NamedCaller::device(product, key.as_bytes(), hardware_id));
    let hardware_id = hardware_id.to_owned();
    let look_up = || {
        db.read_for_program(move |reader| {
            super::look_up_caller(reader, product, license_key.as_ref(), &hardware_id)
        })
    };
    program.admit(named, look_up).await
}
