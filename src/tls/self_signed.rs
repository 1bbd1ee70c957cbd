//! An authority of our own, kept beside the database, and certificates by it, which live in memory only.

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

use super::{Trusted, certified, ends_at, write};
use crate::clock::{BUILT_AFTER, UnixMs};
use crate::error::{Doing, Error, Result};
use crate::security::private_file;
use crate::security::secret::sha256;

/// The file in `data/tls` that clients trust.
pub const CA_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const DAY: Duration = Duration::from_hours(24);
/// How long the authority lives.
const CA_DAYS: u32 = 20 * 365;
/// How long a certificate lives. Browsers refuse more than 398 days.
const LEAF_DAYS: u32 = 90;
/// How long one lives that is made while the clock is certainly wrong: until somebody sets the clock. Clients refuse
/// more than 825 days.
const LEAF_DAYS_BLIND: u32 = 820;
/// How old a certificate gets before the next one replaces it.
const RENEW_AFTER_DAYS: u32 = 30;
/// Clocks of clients differ: a certificate begins a day before it is made.
const EARLIER: Duration = DAY;

/// Signs the server's certificates.
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
    /// The authority in `folder`; made there, if the folder has none and nobody can trust one yet.
    pub(super) fn open(
        folder: &Path,
        names: Vec<String>,
        trusted: Trusted,
        now: UnixMs,
    ) -> Result<Self> {
        let file = folder.join(CA_FILE);
        match key_of(folder)? {
            // A new authority would lock out every client that trusts the old one.
            None if trusted != Trusted::None || file.exists() => return Err(lost(folder, trusted)),
            None => make(folder, now)?,
            Some(key) if trusted.is_another(key) => return Err(another(folder)),
            // The process died between the two, or the file was lost: with the old key and the old name it
            // is the same authority to every client that trusts it already.
            Some(_) if !file.exists() => certify(folder, now)?,
            Some(_) => {}
        }
        let pem = fs::read_to_string(&file).doing("read the authority's certificate")?;
        let key = read_key(folder)?;
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .doing("parse the authority's certificate")?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).doing("parse the authority")?;
        let certificate = CertificateDer::from(block.contents);
        if ends_at(&certificate)? < now {
            return Err(Error::State(format!(
                "the authority {} has expired, if this machine's clock is right, which says {}: set the clock, or run \
                 `license-server config new-authority --replace`, which makes another that every program has to be given",
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

    /// A new certificate with a new key.
    pub(super) fn issue(&self, now: UnixMs) -> Result<CertifiedKey> {
        let mut params = CertificateParams::new(self.names.clone()).doing("name a certificate")?;
        params.distinguished_name = name("license-server");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let days = if now < BUILT_AFTER {
            LEAF_DAYS_BLIND
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

    /// The next certificate, if the present one is old enough.
    pub(super) fn renew(&self, now: UnixMs) -> Result<Option<CertifiedKey>> {
        let issued_at = *self
            .issued_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Earlier than it was issued: the clock was wrong then.
        if (issued_at..issued_at.plus(DAY * RENEW_AFTER_DAYS)).contains(&now) {
            return Ok(None);
        }
        self.issue(now).map(Some)
    }
}

/// What tells the authority in `folder` from any other: the SHA-256 of its public key. None where there is no key.
pub(super) fn key_of(folder: &Path) -> Result<Option<[u8; 32]>> {
    let file = folder.join(KEY_FILE);
    match file.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.doing("look for the authority's key")?,
    };
    let key = read_key(folder)?;
    Ok(Some(sha256(&key.subject_public_key_info())))
}

/// Puts an authority of its own into `folder`, in the place of what is there, which is kept beside it; its key.
pub(super) fn replace(folder: &Path, now: UnixMs) -> Result<[u8; 32]> {
    for name in [KEY_FILE, CA_FILE] {
        let file = folder.join(name);
        if file.exists() {
            let kept = private_file::unused(&file, ".replaced");
            let kept = kept.doing("find a name for the old authority")?;
            private_file::rename(&file, &kept).doing("keep the old authority")?;
        }
    }
    make(folder, now)?;
    key_of(folder)?.ok_or_else(|| lost(folder, Trusted::Unknown))
}

fn lost(folder: &Path, trusted: Trusted) -> Error {
    let file = folder.join(KEY_FILE);
    let since = match trusted {
        Trusted::Key(_) | Trusted::None => "that programs were given",
        Trusted::Unknown => "that programs may have been given before",
    };
    Error::State(format!(
        "{} is missing, with the authority {since}: restore {} from a backup; if it is lost, `license-server config \
         new-authority` makes another one, which every program has to be given before it connects again",
        file.display(),
        folder.display(),
    ))
}

fn another(folder: &Path) -> Error {
    Error::State(format!(
        "the authority in {} is not the one that programs were given: restore that one from a backup (a restore that broke off: once more); if programs \
         trust this one, or are given it now, `license-server config new-authority` takes it",
        folder.display(),
    ))
}

/// Makes the key of a new authority, and its certificate.
fn make(folder: &Path, now: UnixMs) -> Result<()> {
    let key = KeyPair::generate().doing("make the authority's key")?;
    fs::create_dir_all(folder).doing("make the folder for certificates")?;
    // The key first: a certificate without its key would stop the next start.
    write(&folder.join(KEY_FILE), &key.serialize_pem())?;
    certify(folder, now)
}

/// Makes the certificate of the authority whose key is there.
fn certify(folder: &Path, now: UnixMs) -> Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("license-server authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Far back: an authority that was made while the clock was wrong must not be wrong for ever.
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
