//! Digests of the values from which a form was made: the form carries them, so that an edit conflict can be settled field by
//! field.

use serde_json::Value;

use crate::security::secret;

/// The field with the digests of the values from which a form was made.
pub(super) const DIGESTS_FIELD: &str = "was";
/// The digits of each of them: they need not withstand a search for two values with the same one.
const DIGEST_DIGITS: usize = 8;

/// A digest of each value that a form was made from, such as `name:1a2b3c4d note:5e6f7a8b`. A form that comes back with them
/// tells which of its fields its sender has changed, and which have another value by now.
pub(super) fn digests(values: &Value) -> String {
    let values = values.as_object().into_iter().flatten();
    let digests = values.map(|(name, value)| format!("{name}:{}", digest(&text_of(value))));
    digests.collect::<Vec<_>>().join(" ")
}

/// The digest of one of them.
pub(super) fn digest(value: &str) -> String {
    let digest = secret::hex(&secret::sha256(value.as_bytes()));
    digest.chars().take(DIGEST_DIGITS).collect()
}

/// A value as its field sends it; a checked box sends `1`.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(false) => String::new(),
        Value::Bool(true) => "1".to_owned(),
        other => other.to_string(),
    }
}
