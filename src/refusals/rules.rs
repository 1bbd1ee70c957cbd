//! Rules: what of a refused call is stored, and which calls are equal. No database, no clock, no HTTP.

use super::RefusedCall;
use crate::digest;
use crate::id::LicenseId;
use crate::license_key::LicenseKey;

/// The code of a call without a valid API key.
pub(super) const INVALID_API_KEY: &str = "invalid_api_key";
/// The calls of websites begin with this; their callers need no API key.
const SITES: &str = "site/";
/// Characters of a key that are stored at most: enough to recognize it, but not to guess the rest.
const KEY_BEGINNING: usize = 5;
/// The same of an API key, which begins with the same four characters as every other one.
const API_KEY_BEGINNING: usize = 8;

/// The codes with which programs and handshakes of websites are refused, for the filter of the list; first those about the
/// license.
pub const CODES: &[&str] = &[
    "license_not_found",
    "license_suspended",
    "license_not_yet_valid",
    "license_expired",
    "device_limit_reached",
    "device_not_activated",
    "session_active",
    "session_ended",
    "session_not_found",
    "version_too_old",
    "version_not_covered",
    "trial_not_offered",
    "rate_limited",
    INVALID_API_KEY,
    "invalid_field",
    "malformed_json",
    "unsupported_media_type",
    "payload_too_large",
    "unavailable",
    "domain_not_licensed",
    "domain_bound",
    "domain_called_too_often",
    "handshake_refused",
    "handshake_unanswered",
    "handshake_abandoned",
    "handshake_undelivered",
];

/// The code of a handshake with this outcome; `None` if it did not fail.
pub(super) fn handshake_code(outcome: &str) -> Option<&'static str> {
    let mut codes = CODES.iter().copied();
    codes.find(|code| code.strip_prefix("handshake_") == Some(outcome))
}

/// Identifies equal calls.
pub(super) type Identity = [u8; 16];

/// The beginning of a license key that may be wrong in one character only, and its length.
pub(super) fn masked_license_key(key: &str) -> String {
    masked(key, KEY_BEGINNING)
}

/// The beginning of a wrong API key, and its length; empty if there is none.
pub(super) fn masked_api_key(key: &str) -> String {
    masked(key, API_KEY_BEGINNING)
}

/// At most a quarter of a key is shown, since a short text may be another secret.
fn masked(key: &str, beginning: usize) -> String {
    let length = key.chars().count();
    if length == 0 {
        return String::new();
    }
    let shown = key.chars().take(beginning.min(length / 4));
    let shown: String = shown.filter(|c| !c.is_control()).collect();
    format!("{shown}… ({length})")
}

/// What equal calls have in common, as they arrive.
pub(super) fn identity(call: &RefusedCall) -> Identity {
    let named = &call.named;
    let key = named.license_key.as_ref().map(LicenseKey::as_bytes);
    let session = named.session.as_ref().map(|token| &token.as_bytes()[..]);
    identity_with(
        call,
        &[key.unwrap_or_default(), session.unwrap_or_default()],
    )
}

/// What equal calls have in common, once it is known whether a license belongs to them. Unknown callers are told apart
/// by their networks only, since they can make up everything else.
pub(super) fn identity_of_row(call: &RefusedCall, license: Option<LicenseId>) -> Identity {
    match license {
        Some(license) => identity_with(call, &[&license.0.to_be_bytes()]),
        None if is_of_stranger(call, None) => {
            digest::short_of_fields(&[b"stranger", call.code.as_bytes(), call.network().as_bytes()])
        }
        None => identity_with(call, &[]),
    }
}

fn identity_with(call: &RefusedCall, more: &[&[u8]]) -> Identity {
    let named = &call.named;
    let product = call.product.map_or(0, |product| product.0).to_be_bytes();
    let address = call.address.to_string();
    // A fingerprint identifies a device; its name may change.
    let device = if named.hardware_id.is_empty() {
        &named.machine_id
    } else {
        &named.hardware_id
    };
    let mut fields: Vec<&[u8]> = vec![
        call.code.as_bytes(),
        call.call.as_bytes(),
        &product,
        named.masked_key.as_bytes(),
        device.as_bytes(),
        named.version.as_bytes(),
        named.domain.as_bytes(),
        call.detail.as_bytes(),
        address.as_bytes(),
    ];
    fields.extend(more);
    digest::short_of_fields(&fields)
}

/// Whether neither an API key nor a license proves that the call comes from a program of the shop.
fn is_of_stranger(call: &RefusedCall, license: Option<LicenseId>) -> bool {
    call.product.is_none() && license.is_none() && !call.call.starts_with(SITES)
}

/// `call` without what must not be stored: the beginning of a license key that is known, and what a stranger says of a
/// device.
pub(super) fn for_storage(mut call: RefusedCall, license: Option<LicenseId>) -> RefusedCall {
    if license.is_some() && call.code != INVALID_API_KEY {
        call.named.masked_key.clear();
    }
    if is_of_stranger(&call, license) {
        call.named.hardware_id.clear();
        call.named.machine_id.clear();
        call.named.version.clear();
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::id::ProductId;
    use crate::refusals::Named;
    use crate::security::client_address::ClientAddress;

    fn call(code: &'static str, product: Option<ProductId>, device: &str) -> RefusedCall {
        RefusedCall {
            at: UnixMs(1),
            code,
            call: "verify".to_owned(),
            product,
            named: Named {
                masked_key: "ABCDE… (25)".to_owned(),
                hardware_id: device.to_owned(),
                ..Named::default()
            },
            address: ClientAddress::Direct([192, 0, 2, 1].into()),
            detail: String::new(),
        }
    }

    #[test]
    fn a_handshake_that_failed_has_a_code() {
        assert_eq!(handshake_code("refused"), Some("handshake_refused"));
        assert_eq!(handshake_code("delivered"), None);
    }

    #[test]
    fn a_wrong_key_is_stored_in_part() {
        for (license_key, api_key, key) in [
            ("", "", ""),
            ("… (3)", "… (3)", "abc"),
            ("ab… (8)", "ab… (8)", "abcdefgh"),
            ("ABCDE… (25)", "ABCDEF… (25)", "ABCDEFGHJKMNPQRSTVWXYZ012"),
            (
                "lsk_0… (40)",
                "lsk_0123… (40)",
                "lsk_012345678901234567890123456789012345",
            ),
        ] {
            assert_eq!(masked_license_key(key), license_key);
            assert_eq!(masked_api_key(key), api_key);
        }
    }

    #[test]
    fn devices_of_a_license_are_told_apart_and_strangers_are_not() {
        let (first, license) = (Some(ProductId::FIRST), Some(LicenseId(7)));
        for (product, license, are_equal) in [
            (first, license, false),
            (first, None, false),
            (None, license, false),
            (None, None, true),
        ] {
            let [one, other] = ["one", "other"].map(|device| {
                identity_of_row(&call("license_not_found", product, device), license)
            });
            assert_eq!(one == other, are_equal, "{product:?} {license:?}");
        }
        let identity = |code| identity(&call(code, first, "one"));
        assert_eq!(identity("license_expired"), identity("license_expired"));
        assert_ne!(identity("license_expired"), identity("license_suspended"));
    }

    #[test]
    fn nothing_is_stored_of_what_a_stranger_says_of_a_device_nor_of_a_known_key() {
        let (first, license) = (Some(ProductId::FIRST), Some(LicenseId(7)));
        for (code, product, license, key, device) in [
            ("license_not_found", first, None, "ABCDE… (25)", "one"),
            ("license_expired", first, license, "", "one"),
            (INVALID_API_KEY, None, license, "ABCDE… (25)", "one"),
            (INVALID_API_KEY, None, None, "ABCDE… (25)", ""),
        ] {
            let stored = for_storage(call(code, product, "one"), license).named;
            assert_eq!(
                (&*stored.masked_key, &*stored.hardware_id),
                (key, device),
                "{code}"
            );
        }
    }
}
