//! License keys in the bodies that programs and sites send.

use super::{KEY_TEXT_MAX, LicenseKey, key_part};
use crate::error::Result;
use crate::web::body::Fields;

const NAME: &str = "license_key";

/// The license key of a body; `None` for a text that cannot be one.
///
/// # Errors
/// When it is missing, no text, empty, too long, or holds a control character that is no line end or tab.
pub fn key(fields: &mut Fields) -> Result<Option<LicenseKey>> {
    let text = fields.text_as(NAME, KEY_TEXT_MAX, key_part)?;
    Ok(LicenseKey::parse(&text))
}

/// The text of the license key, where one is given.
///
/// # Errors
/// As [`key`], when it is there.
pub fn key_if_given(fields: &mut Fields) -> Result<Option<String>> {
    fields.text_as_if_given(NAME, KEY_TEXT_MAX, key_part)
}
