//! The server's own certificate authority, stored beside the database, and the certificates that it issues, which are
//! in memory only.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::{TrustedAuthority, certified, ends_at, write};
use crate::clock::{BUILT_AFTER, UnixMs};
use crate::error::{Doing, Error, Result};
use crate::security::private_file;
use crate::security::secret::sha256;

/// The certificate of the authority in `data/tls`, which clients trust.
pub const CA_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const DAY: Duration = Duration::from_hours(24);
/// How long the authority is valid.
const CA_DAYS: u32 = 20 * 365;
/// How long a certificate is valid. Browsers refuse more than 398 days.
const LEAF_DAYS: u32 = 90;
/// How long a certificate is valid that is issued while the clock is certainly wrong, so that it outlasts the wait
/// until the clock is set. Clients refuse more than 825 days.
const LEAF_DAYS_WRONG_CLOCK: u32 = 820;
/// Age at which a certificate is replaced.
const RENEW_AFTER_DAYS: u32 = 30;
/// How long before its issue a certificate becomes valid, because the clocks of clients differ.
const EARLIER: Duration = DAY;

/// Issues the server's certificates.
pub(super) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    names: Vec<String>,
    issued_at: Mutex<UnixMs>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority in `folder`. Creates one if there is none and programs cannot trust one yet.
    pub(super) fn open(
        folder: &Path,
        names: Vec<String>,
        trusted: TrustedAuthority,
        now: UnixMs,
    ) -> Result<Self> {
        let file = folder.join(CA_FILE);
        complete(folder, trusted, now)?;
        let pem = fs::read_to_string(&file).doing("read the authority's certificate")?;
        let key = read_key(folder)?;
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .doing("parse the authority's certificate")?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).doing("parse the authority")?;
        let certificate = CertificateDer::from(block.contents);
        if ends_at(&certificate)? < now {
            return Err(Error::State(format!(
                "the authority {} has expired according to this machine's clock ({}): set the clock if it is wrong, or run \
                 `license-server config new-authority --replace` to make a new one, which every program needs",
                file.display(),
                now.rfc3339(),
            )));
        }
        let folder = folder.to_owned();
        Ok(Self {
            folder,
            issuer,
            certificate,
            names,
            issued_at: Mutex::new(now),
        })
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.join(CA_FILE)
    }

    /// Issues a certificate with a new key.
    pub(super) fn issue(&self, now: UnixMs) -> Result<CertifiedKey> {
        let mut params = CertificateParams::new(self.names.clone()).doing("name a certificate")?;
        params.distinguished_name = name("license-server");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let days = if now < BUILT_AFTER {
            LEAF_DAYS_WRONG_CLOCK
        } else {
            LEAF_DAYS
        };
        let begins = now.max(BUILT_AFTER);
        params.not_before = date(begins.minus(EARLIER))?;
        params.not_after = date(begins.plus(DAY * days))?;
        let key = KeyPair::generate().doing("make a key")?;
        let leaf = params
            .signed_by(&key, &self.issuer)
            .doing("sign a certificate")?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let made = certified(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
        *self
            .issued_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = now;
        Ok(made)
    }

    /// Issues the next certificate, if the present one is due for renewal.
    pub(super) fn renew(&self, now: UnixMs) -> Result<Option<CertifiedKey>> {
        let issued_at = *self
            .issued_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // If `now` is before the issue, the clock was wrong then.
        if (issued_at..issued_at.plus(DAY * RENEW_AFTER_DAYS)).contains(&now) {
            return Ok(None);
        }
        self.issue(now).map(Some)
    }
}

/// Creates the authority in `folder`, or what is missing of it.
fn complete(folder: &Path, trusted: TrustedAuthority, now: UnixMs) -> Result<()> {
    let has_file = folder.join(CA_FILE).exists();
    match key_digest(folder)? {
        // A new authority would lock out every client that trusts the old one.
        None if trusted != TrustedAuthority::None || has_file => Err(missing_key(folder, trusted)),
        None => make(folder, now),
        Some(key) if trusted.is_another(key) => Err(unknown_authority(folder)),
        // The process was killed between writing the two files, or the certificate was lost. A new certificate with the
        // same key and name is the same authority to clients that trust it already.
        Some(_) if !has_file => certify(folder, now),
        Some(_) => Ok(()),
    }
}

/// The SHA-256 of the public key of the authority in `folder`; `None` if there is no key.
pub(super) fn key_digest(folder: &Path) -> Result<Option<[u8; 32]>> {
    let file = folder.join(KEY_FILE);
    match file.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.doing("look for the authority's key")?,
    };
    let key = read_key(folder)?;
    Ok(Some(sha256(&key.subject_public_key_info())))
}

/// Creates a new authority in `folder` and renames the files of the old one. Returns the SHA-256 of its public key.
pub(super) fn replace(folder: &Path, now: UnixMs) -> Result<[u8; 32]> {
    for name in [KEY_FILE, CA_FILE] {
        let file = folder.join(name);
        if file.exists() {
            let renamed = private_file::unused_name(&file, ".replaced");
            let renamed = renamed.doing("find a name for the old authority")?;
            private_file::rename(&file, &renamed).doing("keep the old authority")?;
        }
    }
    make(folder, now)?;
    key_digest(folder)?.ok_or_else(|| missing_key(folder, TrustedAuthority::Unknown))
}

fn missing_key(folder: &Path, trusted: TrustedAuthority) -> Error {
    let file = folder.join(KEY_FILE);
    let known = match trusted {
        TrustedAuthority::Key(_) | TrustedAuthority::None => "that programs were given",
        TrustedAuthority::Unknown => "that programs may have been given before",
    };
    Error::State(format!(
        "{} is missing, the key of the authority {known}: restore {} from a backup; if it is lost, `license-server config \
         new-authority` makes a new one, which every program needs before it connects again",
        file.display(),
        folder.display(),
    ))
}

fn unknown_authority(folder: &Path) -> Error {
    Error::State(format!(
        "the authority in {} is not the one that programs were given: restore that one from a backup (repeat a restore that was \
         interrupted); if programs trust this one, or get it now, `license-server config new-authority` accepts it",
        folder.display(),
    ))
}

/// Creates the key and the certificate of a new authority.
fn make(folder: &Path, now: UnixMs) -> Result<()> {
    let key = KeyPair::generate().doing("make the authority's key")?;
    fs::create_dir_all(folder).doing("make the folder for certificates")?;
    // The key is written first: a certificate without its key would prevent the next start.
    write(&folder.join(KEY_FILE), &key.serialize_pem())?;
    certify(folder, now)
}

/// Creates the certificate of the authority from its existing key.
fn certify(folder: &Path, now: UnixMs) -> Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("license-server authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // A fixed date in the past, so that an authority that was created with a wrong clock is valid nevertheless.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = date(now.max(BUILT_AFTER).plus(DAY * CA_DAYS))?;
    let key = read_key(folder)?;
    let authority = params.self_signed(&key).doing("make the authority")?;
    write(&folder.join(CA_FILE), &authority.pem())
}

fn read_key(folder: &Path) -> Result<KeyPair> {
    let key = fs::read_to_string(folder.join(KEY_FILE)).doing("read the authority's key")?;
    KeyPair::from_pem(&key).doing("parse the authority's key")
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn date(at: UnixMs) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000)).doing("date a certificate")
}
