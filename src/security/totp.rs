//! The second factor: one-time codes by time (RFC 6238), and the recovery codes for the day the telephone is
//! lost.

use qrcode::{EcLevel, QrCode};
use totp_rs::{Builder, Totp};

use super::secret::{self, Secret};
use crate::error::{Doing, Result};

/// Bytes of a secret: what RFC 4226 §4 recommends.
const SECRET_LEN: usize = 20;
/// Seconds that a code stands for.
const STEP_S: i64 = 30;
/// How many steps a telephone may be early or late.
const SKEW: u16 = 1;
/// Recovery codes of one set.
pub const CODES: usize = 10;
/// Characters of one: 80 bits, too many to guess, so that a quick digest is enough to keep it.
const CODE_LEN: usize = 16;
/// Crockford's base 32 in small letters: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What a telephone and the server share.
pub type Shared = Secret<Vec<u8>>;

/// A new secret.
///
/// # Errors
/// When the operating system has no randomness.
pub fn new_secret() -> Result<Shared> {
    Ok(Secret::new(secret::random::<SECRET_LEN>()?.to_vec()))
}

/// What was typed as a second factor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Six digits, from the telephone.
    Code(Secret<String>),
    /// The digest of a recovery code.
    Recovery([u8; 32]),
}

impl Typed {
    /// Reads what a person typed: spaces and hyphens do not count.
    pub fn read(text: &str) -> Self {
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

/// The digest of a recovery code; its letters may be large, and look like others.
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

/// The step in which `code` holds at the moment `at_ms`, if it is one that was not used yet.
///
/// # Errors
/// When the secret in the file is none.
pub fn step(shared: &Shared, code: &str, at_ms: i64, used: i64) -> Result<Option<i64>> {
    let seconds = at_ms.div_euclid(1000);
    let Ok(time) = u64::try_from(seconds) else {
        return Ok(None);
    };
    let found = generator(shared)?.check(code, time);
    let found = found.and_then(|step| i64::try_from(step).ok());
    Ok(found.filter(|step| is_fresh(*step, used, seconds / STEP_S)))
}

/// Whether a step can serve, when `used` is the last one that did and it is `present` now.
fn is_fresh(step: i64, used: i64, present: i64) -> bool {
    // A step that lies ahead of all that can be typed now was used before the clock was set back: it says
    // nothing about codes of today, and must not lock anybody out.
    step > used || used > present + i64::from(SKEW)
}

fn generator(shared: &Shared) -> Result<Totp> {
    Builder::new()
        .with_secret(shared.reveal().clone())
        .with_skew(SKEW)
        .build()
        .doing("set up a second factor")
}

/// The secret as people type it into a telephone: base 32.
pub fn text(shared: &Shared) -> String {
    totp_rs::Secret::from(shared.reveal().clone()).to_base32()
}

/// The address that a telephone reads from the picture. `issuer` and `account` are what it shows.
pub fn address(shared: &Shared, issuer: &str, account: &str) -> String {
    // Form encoding writes a space as a plus sign, which telephones show as one.
    let safe = |text: &str| {
        form_urlencoded::byte_serialize(text.as_bytes())
            .collect::<String>()
            .replace('+', "%20")
    };
    let (issuer, account) = (safe(&issuer.replace(':', " ")), safe(account));
    let secret = text(shared);
    format!("otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}")
}

/// A QR code of `address`: how many modules wide it is, and an SVG path of those that are dark.
///
/// # Errors
/// When `address` is too long for one.
pub fn picture(address: &str) -> Result<(usize, String)> {
    let code = QrCode::with_error_correction_level(address, EcLevel::M);
    let code = code.doing("draw a QR code")?;
    let width = code.width();
    let dark = code.to_colors().into_iter().enumerate();
    let dark = dark.filter(|(_, color)| *color == qrcode::Color::Dark);
    let squares = dark.map(|(place, _)| format!("M{} {}h1v1h-1z", place % width, place / width));
    let path = squares.collect::<Vec<_>>().concat();
    Ok((width, path))
}

/// A new set of recovery codes, as people see them, each with what is kept of it.
///
/// # Errors
/// When the operating system has no randomness.
pub fn recovery_codes() -> Result<Vec<(Secret<String>, [u8; 32])>> {
    (0..CODES)
        .map(|_| {
            // 32 divides 256: the low five bits of a random byte are as random as the byte.
            let random: [u8; CODE_LEN] = secret::random()?;
            let letter = |byte: &u8| ALPHABET.get(usize::from(byte & 31)).copied();
            let letters: String = random.iter().filter_map(letter).map(char::from).collect();
            let kept = digest(&letters);
            let groups: Vec<String> = letters
                .as_bytes()
                .chunks(4)
                .map(|group| group.iter().copied().map(char::from).collect())
                .collect();
            Ok((Secret::new(groups.join("-")), kept))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        Secret::new(b"12345678901234567890".to_vec())
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B, the last six digits.
        for (at_s, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
        ] {
            let step = step(&shared(), code, at_s * 1000, 0).unwrap();
            assert_eq!(step, Some(at_s / 30), "{at_s}");
        }
    }

    #[test]
    fn a_code_serves_once_and_one_step_early_or_late() {
        let at = 1_111_111_109;
        let ask = |at_s: i64, used| step(&shared(), "081804", at_s * 1000, used).unwrap();
        let its = at / 30;
        for (late, used, served) in [
            (0, 0, true),
            (0, its - 1, true),
            (0, its, false),
            (0, its + 1, false),
            (30, its - 1, true),
            (-30, its - 1, true),
            (60, its - 1, false),
            (-60, its - 1, false),
            // Used when the clock was a day ahead.
            (0, its + 2880, true),
        ] {
            assert_eq!(ask(at + late, used).is_some(), served, "{late} {used}");
        }
        assert_eq!(step(&shared(), "081805", at * 1000, 0).unwrap(), None);
        assert_eq!(step(&shared(), "81804", at * 1000, 0).unwrap(), None);
        assert_eq!(step(&shared(), "081804", -1000, 0).unwrap(), None);
    }

    #[test]
    fn recovery_codes_are_known_again_however_they_are_typed() {
        let codes = recovery_codes().unwrap();
        assert_eq!(codes.len(), CODES);
        for (code, kept) in &codes {
            let code = code.reveal();
            assert_eq!(code.len(), 19, "{code}");
            let looks_alike = code.to_uppercase().replace('0', "O").replace('1', "l");
            for typed in [code, &looks_alike, &code.replace('-', " ")] {
                assert_eq!(Typed::read(typed), Typed::Recovery(*kept), "{typed}");
            }
        }
        let first = codes.first().unwrap();
        assert!(codes.iter().skip(1).all(|(_, kept)| *kept != first.1));
        let digits = Typed::Code(Secret::new("081804".to_owned()));
        assert_eq!(Typed::read(" 081 804 "), digits);
        assert_ne!(Typed::read("0818045"), digits);
    }

    #[test]
    fn a_telephone_reads_whose_secret_it_is() {
        let address = address(&shared(), "Shop: Nord & Co", "käthe");
        assert_eq!(
            address,
            "otpauth://totp/Shop%20%20Nord%20%26%20Co:k%C3%A4the?\
             secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Shop%20%20Nord%20%26%20Co"
        );
        let (width, path) = picture(&address).unwrap();
        assert!(width > 20 && path.starts_with("M0 0h1"), "{width}");
    }
}
