//! Certificates that somebody else keeps up to date.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::provider;
use crate::clock::AtMost;
use crate::error::{Doing, Error, Result};
use crate::security::pem;

/// Two PEM files: the chain, and its key.
#[derive(Debug)]
pub(super) struct CertificateFiles {
    chain: PathBuf,
    key: PathBuf,
    /// The age of both when they were read without a fault.
    seen: Mutex<Option<Ages>>,
    /// What was wrong with them since.
    refused: Mutex<Refused>,
}

/// Of each file: when its bytes changed, when its rights or its place did, in seconds and nanoseconds, and which
/// file it is.
type Ages = [[i64; 6]; 2];

/// A fault of the files, and when it was told last.
#[derive(Debug)]
struct Refused {
    why: String,
    again: AtMost,
}

impl Default for Refused {
    fn default() -> Self {
        Self {
            why: String::new(),
            again: AtMost::once_in(TELL_EACH),
        }
    }
}

/// Between two lines about the same fault of the files.
const TELL_EACH: Duration = Duration::from_hours(1);

impl CertificateFiles {
    pub(super) fn new(chain: PathBuf, key: PathBuf) -> Self {
        Self {
            chain,
            key,
            seen: Mutex::new(None),
            refused: Mutex::default(),
        }
    }

    /// What is in the files now.
    pub(super) fn read(&self) -> Result<CertifiedKey> {
        // What changes meanwhile is read again. What cannot be read says more than what has no age.
        let ages = self.ages();
        let chain = pem::certificates(&self.chain);
        let chain = chain.map_err(|told| unusable("tls.certificate", &self.chain, &told))?;
        let keys = pem::keys(&self.key);
        let keys = keys.map_err(|told| unusable("tls.key", &self.key, &told))?;
        let ages = ages?;
        let pair = matched(chain, &keys).map_err(|fault| self.told(fault))?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(ages);
        Ok(pair)
    }

    /// What is in the files, if it is not what was read last. What could not be read is tried again at each call;
    /// the same fault is told once an hour.
    pub(super) fn read_if_changed(&self) -> Result<Option<CertifiedKey>> {
        let read = self.ages().and_then(|ages| {
            let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen == Some(ages) {
                Ok(None)
            } else {
                self.read().map(Some)
            }
        });
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(pair) => {
                *refused = Refused::default();
                Ok(pair)
            }
            Err(error) if refused.is_due(&error.to_string()) => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn ages(&self) -> Result<Ages> {
        use std::os::unix::fs::MetadataExt;
        let age = |path: &Path, setting| {
            let data = std::fs::metadata(path).map(|data| {
                [
                    data.mtime(),
                    data.mtime_nsec(),
                    data.ctime(),
                    data.ctime_nsec(),
                    data.dev().cast_signed(),
                    data.ino().cast_signed(),
                ]
            });
            data.map_err(|error| unusable(setting, path, &format!("cannot be read ({error})")))
        };
        Ok([
            age(&self.chain, "tls.certificate")?,
            age(&self.key, "tls.key")?,
        ])
    }

    fn told(&self, fault: Fault) -> Error {
        let (chain, key) = (self.chain.display(), self.key.display());
        match fault {
            Fault::Unsupported(error) => unusable(
                "tls.key",
                &self.key,
                &format!(
                    "is of a kind that is not served ({error}): use RSA of 2048 bits and more, ECDSA on P-256 \
                     or P-384, or Ed25519"
                ),
            ),
            Fault::OfAnother => unusable(
                "tls.key",
                &self.key,
                &format!(
                    "is the key of another certificate than those in {chain}: name two files that belong \
                     together; `openssl pkey -in {key} -pubout` and `openssl x509 -in {chain} -noout -pubkey` \
                     must print the same"
                ),
            ),
            Fault::Failed(error) => error,
        }
    }
}

impl Refused {
    /// Whether `why` is to be told: for the first time, or again after a while.
    fn is_due(&mut self, why: &str) -> bool {
        if self.why != why {
            *self = Self {
                why: why.to_owned(),
                ..Self::default()
            };
        }
        self.again.is_due()
    }
}

/// Why certificates and keys make no pair.
enum Fault {
    Unsupported(rustls::Error),
    OfAnother,
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The certificate that one of the keys belongs to, and behind it those that vouch for it, in the order in
/// which they must be sent, whatever the order in the file.
fn matched(
    chain: Vec<CertificateDer<'static>>,
    keys: &[PrivateKeyDer<'static>],
) -> std::result::Result<CertifiedKey, Fault> {
    let mut fault = Fault::OfAnother;
    for key in keys {
        let key = match provider().key_provider.load_private_key(key.clone_key()) {
            Ok(key) => key,
            Err(error) => {
                fault = Fault::Unsupported(error);
                continue;
            }
        };
        let public = key.public_key().map(|public| public.to_vec());
        for (place, certificate) in chain.iter().enumerate() {
            let (_, parsed) =
                x509_parser::parse_x509_certificate(certificate).doing("read a certificate")?;
            if public.as_deref() == Some(parsed.public_key().raw) {
                return Ok(CertifiedKey::new(in_order(&chain, place)?, key));
            }
        }
        fault = Fault::OfAnother;
    }
    Err(fault)
}

/// `chain` with its certificate of number `first` before all, then the one that vouches for it, and so on;
/// what belongs to none of them stands at the end.
fn in_order(
    chain: &[CertificateDer<'static>],
    first: usize,
) -> Result<Vec<CertificateDer<'static>>> {
    let mut left = Vec::new();
    for certificate in chain {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).doing("read a certificate")?;
        let (subject, issuer) = (parsed.subject().as_raw(), parsed.issuer().as_raw());
        left.push((subject.to_vec(), issuer.to_vec(), certificate));
    }
    let (_, mut issuer, own) = left.remove(first);
    let mut ordered = vec![own.clone()];
    left.retain(|(_, _, certificate)| *certificate != own);
    while let Some(next) = left.iter().position(|(subject, ..)| *subject == issuer) {
        let (_, above, certificate) = left.remove(next);
        ordered.push(certificate.clone());
        issuer = above;
    }
    ordered.extend(
        left.into_iter()
            .map(|(.., certificate)| certificate.clone()),
    );
    Ok(ordered)
}

fn unusable(setting: &str, path: &Path, told: &str) -> Error {
    Error::State(format!("{setting}: {} {told}", path.display()))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn authority(name: &str) -> CertificateParams {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    #[test]
    fn a_chain_is_put_in_order_and_the_key_finds_its_certificate() {
        let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
        let own: PrivateKeyDer<'static> = PrivateKeyDer::Pkcs8(keys[2].serialize_der().into());
        let stranger = KeyPair::generate().unwrap();
        let stranger = PrivateKeyDer::Pkcs8(stranger.serialize_der().into());
        let root = authority("root").self_signed(&keys[0]).unwrap();
        let [first, second, third] = keys;
        let issuer = Issuer::new(authority("root"), first);
        let middle = authority("middle").signed_by(&second, &issuer).unwrap();
        let issuer = Issuer::new(authority("middle"), second);
        let leaf = named("leaf").signed_by(&third, &issuer).unwrap();
        let [leaf, middle, root] = [leaf, middle, root].map(|made| made.der().clone());
        let right = [leaf.clone(), middle.clone(), root.clone()];
        for given in [
            [&leaf, &middle, &root],
            [&root, &middle, &leaf],
            [&middle, &leaf, &root],
            [&root, &leaf, &middle],
        ] {
            let given: Vec<_> = given.into_iter().cloned().collect();
            let made = matched(given, &[stranger.clone_key(), own.clone_key()]);
            assert!(made.is_ok_and(|made| made.cert == right));
        }
        let twice = vec![leaf.clone(), leaf.clone(), middle.clone()];
        let made = matched(twice, &[own.clone_key()]);
        assert!(made.is_ok_and(|made| made.cert == right[..2]));
        let wrong = matched(right.to_vec(), &[stranger]);
        assert!(matches!(wrong, Err(Fault::OfAnother)));
    }

    /// Writes it as if nothing had happened to the file since 1970.
    fn write_old(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_and_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain"), folder.path().join("key"));
        let own = KeyPair::generate().unwrap();
        let made = named("leaf").self_signed(&own).unwrap().pem();
        write_old(&chain, &made);
        write_old(&key, &own.serialize_pem());
        let pair = CertificateFiles::new(chain.clone(), key.clone());
        pair.read().unwrap();
        assert!(pair.read_if_changed().unwrap().is_none());
        // The key is out of reach for a moment, and comes back as it was.
        let away = folder.path().join("away");
        std::fs::rename(&key, &away).unwrap();
        assert!(pair.read_if_changed().is_err());
        assert!(pair.read_if_changed().unwrap().is_none(), "told already");
        std::fs::create_dir(&key).unwrap();
        assert!(pair.read_if_changed().is_err(), "another fault");
        assert!(pair.read_if_changed().unwrap().is_none());
        std::fs::remove_dir(&key).unwrap();
        std::fs::rename(&away, &key).unwrap();
        assert!(pair.read_if_changed().is_ok());
        write_old(&chain, "none");
        assert!(pair.read_if_changed().is_err());
        write_old(&chain, &made);
        assert!(pair.read_if_changed().unwrap().is_some(), "of the same age");
        assert!(pair.read_if_changed().unwrap().is_none());
    }
}
