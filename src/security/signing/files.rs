//! Private keys on disk: one PEM file per key pair in a folder beside the database, named by the id of the public key.
//! Only their owner may read them.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{KEY_LEN, PublicKey, SigningKeyPair};
use crate::error::{Doing, Error, Result};
use crate::security::private_file;
use crate::security::secret::{self, Secret};

/// The folder of the key files, in the data folder.
const FOLDER: &str = "signing";
/// DER prefix of a 32-byte Ed25519 private key in PKCS #8 (RFC 8410, 7).
const PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// DER prefix of a 32-byte Ed25519 public key in SPKI (RFC 8410, 4).
const SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The path of the file with the private key of `public`; `data` is the data folder.
pub fn path_of(data: &Path, public: &PublicKey) -> PathBuf {
    data.join(FOLDER).join(format!("{}.pem", public.id()))
}

/// The key file of earlier versions, which had only one key pair.
const LEGACY_FILE: &str = "key.pem";

/// The key pair that an earlier version left, renamed to the name of today. `None` if there is none.
///
/// # Errors
/// [`Error::State`] if the file does not hold a signing key.
pub fn adopt_legacy(data: &Path) -> Result<Option<SigningKeyPair>> {
    let legacy = data.join(FOLDER).join(LEGACY_FILE);
    let Some(seed) = read(&legacy)? else {
        return Ok(None);
    };
    let keys = SigningKeyPair::from_seed(&seed)?;
    private_file::rename(&legacy, &path_of(data, &keys.public()))
        .doing("take over a signing key")?;
    Ok(Some(keys))
}

/// Generates a key pair. Its private key is synced to disk when this returns.
pub fn generate(data: &Path) -> Result<SigningKeyPair> {
    let seed = Secret::new(secret::random()?);
    let keys = SigningKeyPair::from_seed(&seed)?;
    let folder = data.join(FOLDER);
    fs::create_dir_all(&folder).doing("make the folder of the signing keys")?;
    let path = path_of(data, &keys.public());
    let text = pem("PRIVATE KEY", PKCS8, seed.reveal());
    private_file::write(&path, &text).doing("write a signing key")?;
    Ok(keys)
}

/// The key pair of `public`. `None` if its file is missing.
///
/// # Errors
/// [`Error::State`] if the file does not hold this key.
pub fn load(data: &Path, public: &PublicKey) -> Result<Option<SigningKeyPair>> {
    let path = path_of(data, public);
    let Some(seed) = read(&path)? else {
        return Ok(None);
    };
    let keys = SigningKeyPair::from_seed(&seed)?;
    if keys.public() == *public {
        return Ok(Some(keys));
    }
    Err(unusable(&path))
}

/// The private key in a file. `None` if there is no file.
fn read(path: &Path) -> Result<Option<Secret<[u8; KEY_LEN]>>> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text)
            .map(|seed| Some(Secret::new(seed)))
            .ok_or_else(|| unusable(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("read a signing key"),
    }
}

fn unusable(path: &Path) -> Error {
    let name = path.display();
    Error::State(format!(
        "{name} does not hold the signing key that it is named after: restore it from a copy"
    ))
}

/// Deletes the private key of `public`. A missing file is not an error.
pub fn remove(data: &Path, public: &PublicKey) -> Result<()> {
    match fs::remove_file(path_of(data, public)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing("delete a signing key")
        }
        _ => Ok(()),
    }
}

/// A public key as a PEM block.
pub(super) fn public_pem(public: &PublicKey) -> String {
    pem("PUBLIC KEY", SPKI, &public.0)
}

fn pem(label: &str, prefix: &[u8], key: &[u8; KEY_LEN]) -> String {
    let body = STANDARD.encode([prefix, key].concat());
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// The 32 bytes of the private key in a PEM block.
fn parse(text: &str) -> Option<[u8; KEY_LEN]> {
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    // `None` if it is not base64: the caller reports that the file holds no signing key.
    let bytes = STANDARD.decode(lines.collect::<String>().trim()).ok()?;
    bytes.strip_prefix(PKCS8)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_pair_is_loaded_again_and_another_file_is_rejected() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let keys = generate(data).unwrap();
        let (public, path) = (keys.public(), path_of(data, &keys.public()));
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(load(data, &public).unwrap().unwrap().public(), public);
        let other = generate(data).unwrap().public();
        fs::copy(path_of(data, &other), &path).unwrap();
        for text in [None, Some("nonsense")] {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let error = load(data, &public).unwrap_err().to_string();
            assert!(error.contains("restore it"), "{error}");
        }
        let text = fs::read(path_of(data, &other)).unwrap();
        fs::write(data.join("signing/key.pem"), text).unwrap();
        remove(data, &other).unwrap();
        assert_eq!(adopt_legacy(data).unwrap().unwrap().public(), other);
        assert!(load(data, &other).unwrap().is_some() && adopt_legacy(data).unwrap().is_none());
        remove(data, &public).unwrap();
        assert!(load(data, &public).unwrap().is_none());
        remove(data, &public).unwrap();
    }
}
