//! License keys in request bodies of programs and sites, and licenses in responses.

use super::{Features, KEY_TEXT_MAX, Kind, License, LicenseKey, key_part};
use crate::clock::UnixMs;
use crate::error::Result;
use crate::web::body::JsonFields;

const NAME: &str = "license_key";

/// The license key of a body; `None` if the text cannot be a key.
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) if it is missing, not a string, empty, too long, or contains a
/// control character other than a line end or tab.
pub fn key(fields: &mut JsonFields) -> Result<Option<LicenseKey>> {
    let text = fields.text_with(NAME, KEY_TEXT_MAX, key_part)?;
    Ok(LicenseKey::of_part(&text))
}

/// The text of the license key, normalised by [`key_part`]; `None` if the body has none.
///
/// # Errors
/// As [`key`], except that it may be missing.
pub fn key_if_given(fields: &mut JsonFields) -> Result<Option<String>> {
    fields.optional_text_with(NAME, KEY_TEXT_MAX, key_part)
}

/// The terms of a license, in responses to programs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LicenseTerms {
    kind: Kind,
    valid_from: String,
    valid_until: Option<String>,
    plan: Option<String>,
    features: Features,
    updates_until: Option<String>,
}

impl LicenseTerms {
    /// The terms of `license`.
    pub fn of(license: &License) -> Self {
        Self {
            kind: license.kind,
            valid_from: license.valid_from.rfc3339(),
            valid_until: license.valid_until.map(UnixMs::rfc3339),
            plan: license.plan.clone(),
            features: license.features.clone(),
            updates_until: license.updates_until.map(UnixMs::rfc3339),
        }
    }
}
