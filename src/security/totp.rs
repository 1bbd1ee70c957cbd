//! The second factor: time-based one-time codes (RFC 6238), and recovery codes in case the phone is lost.

use qrcode::{EcLevel, QrCode};
use totp_rs::{Builder, Totp};

use super::secret::{self, Secret};
use crate::error::{Doing, Result};

/// Length of a secret in bytes, as RFC 4226 §4 recommends.
const SECRET_LEN: usize = 20;
/// Seconds that a code is valid for.
const STEP_S: i64 = 30;
/// How many steps the phone's clock may be ahead or behind.
const SKEW: u16 = 1;
/// Number of recovery codes in a set.
pub const RECOVERY_CODES: usize = 10;
/// Characters of a recovery code: 80 bits, too many to guess, so that a fast digest is enough to store it.
const CODE_LEN: usize = 16;
/// Crockford's base 32 in lower case, without i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The secret that the authenticator app and the server share.
pub type SharedSecret = Secret<Vec<u8>>;

/// A new random secret.
pub fn new_secret() -> Result<SharedSecret> {
    Ok(Secret::new(secret::random::<SECRET_LEN>()?.to_vec()))
}

/// What an administrator typed as the second factor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypedCode {
    /// Six digits, from the authenticator app.
    Code(Secret<String>),
    /// The digest of a recovery code.
    Recovery([u8; 32]),
}

impl TypedCode {
    /// Parses the input; spaces and hyphens are ignored. Six digits are a code, anything else is a recovery code.
    pub fn parse(text: &str) -> Self {
        let bare: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .collect();
        if bare.len() == 6 && bare.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::Code(Secret::new(bare));
        }
        Self::Recovery(digest(&bare))
    }
}

/// The digest of a recovery code. Ignores case, and reads `o` as `0`, `i` and `l` as `1`.
fn digest(bare: &str) -> [u8; 32] {
    let plain: String = bare
        .chars()
        .filter(|c| *c != '-')
        .map(|c| match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        })
        .collect();
    secret::sha256(plain.as_bytes())
}

/// The time step that `code` belongs to. `None` if it is wrong, outside the skew around `at_ms` (Unix ms), or not newer
/// than `used`, the last step that was accepted.
///
/// # Errors
/// When the stored secret is unusable.
pub fn matching_step(
    shared: &SharedSecret,
    code: &str,
    at_ms: i64,
    used: i64,
) -> Result<Option<i64>> {
    let seconds = at_ms.div_euclid(1000);
    let Ok(time) = u64::try_from(seconds) else {
        return Ok(None);
    };
    let found = generator(shared)?.check(code, time);
    let found = found.and_then(|step| i64::try_from(step).ok());
    Ok(found.filter(|step| is_fresh(*step, used, seconds / STEP_S)))
}

/// Whether a step may be accepted, if `used` was accepted last and `present` is the current step.
fn is_fresh(step: i64, used: i64, present: i64) -> bool {
    // If `used` is ahead of every code that is valid now, the clock was set back since. It must not lock the
    // administrator out until the clock catches up.
    step > used || used > present + i64::from(SKEW)
}

fn generator(shared: &SharedSecret) -> Result<Totp> {
    Builder::new()
        .with_secret(shared.reveal().clone())
        .with_skew(SKEW)
        .build()
        .doing("set up a second factor")
}

/// The secret in base 32, for typing it into an app.
pub fn base32(shared: &SharedSecret) -> String {
    totp_rs::Secret::from(shared.reveal().clone()).to_base32()
}

/// The `otpauth:` URL for the QR code. The app shows `issuer` and `account`.
pub fn otpauth_url(shared: &SharedSecret, issuer: &str, account: &str) -> String {
    // Form encoding writes a space as a plus sign, which apps would show literally.
    let encoded = |text: &str| {
        form_urlencoded::byte_serialize(text.as_bytes())
            .collect::<String>()
            .replace('+', "%20")
    };
    let (issuer, account) = (encoded(&issuer.replace(':', " ")), encoded(account));
    let secret = base32(shared);
    format!("otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}")
}

/// A QR code of `address`: its width in modules, and an SVG path of the dark ones.
///
/// # Errors
/// When `address` is too long for a QR code.
pub fn qr_code(address: &str) -> Result<(usize, String)> {
    let code = QrCode::with_error_correction_level(address, EcLevel::M);
    let code = code.doing("draw a QR code")?;
    let width = code.width();
    let dark = code.to_colors().into_iter().enumerate();
    let dark = dark.filter(|(_, color)| *color == qrcode::Color::Dark);
    let squares = dark.map(|(index, _)| format!("M{} {}h1v1h-1z", index % width, index / width));
    let path = squares.collect::<Vec<_>>().concat();
    Ok((width, path))
}

/// A new set of recovery codes: each as it is shown to the administrator, with the digest that is stored.
pub fn recovery_codes() -> Result<Vec<(Secret<String>, [u8; 32])>> {
    (0..RECOVERY_CODES)
        .map(|_| {
            // 32 divides 256: the low five bits of a random byte are as random as the byte.
            let random: [u8; CODE_LEN] = secret::random()?;
            let letter = |byte: &u8| ALPHABET.get(usize::from(byte & 31)).copied();
            let letters: String = random.iter().filter_map(letter).map(char::from).collect();
            let stored = digest(&letters);
            let groups: Vec<String> = letters
                .as_bytes()
                .chunks(4)
                .map(|group| group.iter().copied().map(char::from).collect())
                .collect();
            Ok((Secret::new(groups.join("-")), stored))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> SharedSecret {
        Secret::new(b"12345678901234567890".to_vec())
    }

    #[test]
    fn codes_match_the_test_vectors_of_the_standard() {
        // RFC 6238, appendix B, the last six digits.
        for (at_s, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
        ] {
            let step = matching_step(&shared(), code, at_s * 1000, 0).unwrap();
            assert_eq!(step, Some(at_s / 30), "{at_s}");
        }
    }

    #[test]
    fn a_code_is_accepted_once_and_at_most_one_step_early_or_late() {
        let at = 1_111_111_109;
        let accepted =
            |at_s: i64, used| matching_step(&shared(), "081804", at_s * 1000, used).unwrap();
        let own_step = at / 30;
        for (late, used, expected) in [
            (0, 0, true),
            (0, own_step - 1, true),
            (0, own_step, false),
            (0, own_step + 1, false),
            (30, own_step - 1, true),
            (-30, own_step - 1, true),
            (60, own_step - 1, false),
            (-60, own_step - 1, false),
            // The last code was used while the clock was a day ahead.
            (0, own_step + 2880, true),
        ] {
            assert_eq!(
                accepted(at + late, used).is_some(),
                expected,
                "{late} {used}"
            );
        }
        assert_eq!(
            matching_step(&shared(), "081805", at * 1000, 0).unwrap(),
            None
        );
        assert_eq!(
            matching_step(&shared(), "81804", at * 1000, 0).unwrap(),
            None
        );
        assert_eq!(matching_step(&shared(), "081804", -1000, 0).unwrap(), None);
    }

    #[test]
    fn recovery_codes_are_recognized_in_any_spelling() {
        let codes = recovery_codes().unwrap();
        assert_eq!(codes.len(), RECOVERY_CODES);
        for (code, stored) in &codes {
            let code = code.reveal();
            assert_eq!(code.len(), 19, "{code}");
            let looks_alike = code.to_uppercase().replace('0', "O").replace('1', "l");
            for typed in [code, &looks_alike, &code.replace('-', " ")] {
                assert_eq!(
                    TypedCode::parse(typed),
                    TypedCode::Recovery(*stored),
                    "{typed}"
                );
            }
        }
        let first = codes.first().unwrap();
        assert!(codes.iter().skip(1).all(|(_, stored)| *stored != first.1));
        let digits = TypedCode::Code(Secret::new("081804".to_owned()));
        assert_eq!(TypedCode::parse(" 081 804 "), digits);
        assert_ne!(TypedCode::parse("0818045"), digits);
    }

    #[test]
    fn the_qr_code_names_issuer_and_account() {
        let address = otpauth_url(&shared(), "Shop: Nord & Co", "käthe");
        assert_eq!(
            address,
            "otpauth://totp/Shop%20%20Nord%20%26%20Co:k%C3%A4the?\
             secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Shop%20%20Nord%20%26%20Co"
        );
        let (width, path) = qr_code(&address).unwrap();
        assert!(width > 20 && path.starts_with("M0 0h1"), "{width}");
    }
}
