//! The private halves on the disk: one PEM file a key pair in a folder beside the database, named by the id
//! of its public half. Only their owner may read them.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{KEY_LEN, Keys, PublicKey};
use crate::error::{Doing, Error, Result};
use crate::security::private_file;
use crate::security::secret::{self, Secret};

/// The folder beside the database.
const FOLDER: &str = "signing";
/// What stands before the 32 bytes of a private key in PKCS #8 (RFC 8410, 7).
const PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// What stands before the 32 bytes of a public key in SPKI (RFC 8410, 4).
const SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The file with the private half of `public`, below the folder `data`.
pub fn place(data: &Path, public: &PublicKey) -> PathBuf {
    data.join(FOLDER).join(format!("{}.pem", public.id()))
}

/// The one file of earlier versions.
const EARLIER: &str = "key.pem";

/// The key pair of an earlier version, which had only one; from now on under its own name.
///
/// # Errors
/// [`Error::State`] for a file that holds something else.
pub fn adopt(data: &Path) -> Result<Option<Keys>> {
    let earlier = data.join(FOLDER).join(EARLIER);
    let Some(seed) = read(&earlier)? else {
        return Ok(None);
    };
    let keys = Keys::of(&seed)?;
    private_file::rename(&earlier, &place(data, &keys.public()))
        .doing("take over a signing key")?;
    Ok(Some(keys))
}

/// Makes a key pair whose private half is on the disk when this returns.
///
/// # Errors
/// When the disk does not take it.
pub fn make(data: &Path) -> Result<Keys> {
    let seed = Secret::new(secret::random()?);
    let keys = Keys::of(&seed)?;
    let folder = data.join(FOLDER);
    fs::create_dir_all(&folder).doing("make the folder of the signing keys")?;
    let path = place(data, &keys.public());
    let text = pem("PRIVATE KEY", PKCS8, seed.reveal());
    private_file::write(&path, &text).doing("write a signing key")?;
    Ok(keys)
}

/// The key pair of `public`; none where its file is missing.
///
/// # Errors
/// [`Error::State`] for a file that holds something else.
pub fn load(data: &Path, public: &PublicKey) -> Result<Option<Keys>> {
    let path = place(data, public);
    let Some(seed) = read(&path)? else {
        return Ok(None);
    };
    let keys = Keys::of(&seed)?;
    if keys.public() == *public {
        return Ok(Some(keys));
    }
    Err(unusable(&path))
}

/// The private half in a file; none where there is no file.
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
        "{name} does not hold the signing key that it is named for: restore it from a copy"
    ))
}

/// Deletes the private half of `public`; that there is none is fine.
///
/// # Errors
/// When it is there and stays.
pub fn remove(data: &Path, public: &PublicKey) -> Result<()> {
    match fs::remove_file(place(data, public)) {
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
    // None for what is no base64: the caller says that the file is none of ours.
    let bytes = STANDARD.decode(lines.collect::<String>().trim()).ok()?;
    bytes.strip_prefix(PKCS8)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_pair_is_found_again_and_nothing_else_is_taken_for_it() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let keys = make(data).unwrap();
        let (public, path) = (keys.public(), place(data, &keys.public()));
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(load(data, &public).unwrap().unwrap().public(), public);
        let other = make(data).unwrap().public();
        fs::copy(place(data, &other), &path).unwrap();
        for text in [None, Some("nonsense")] {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let told = load(data, &public).unwrap_err().to_string();
            assert!(told.contains("restore it"), "{told}");
        }
        let kept = fs::read(place(data, &other)).unwrap();
        fs::write(data.join("signing/key.pem"), kept).unwrap();
        remove(data, &other).unwrap();
        assert_eq!(adopt(data).unwrap().unwrap().public(), other);
        assert!(load(data, &other).unwrap().is_some() && adopt(data).unwrap().is_none());
        remove(data, &public).unwrap();
        assert!(load(data, &public).unwrap().is_none());
        remove(data, &public).unwrap();
    }
}
