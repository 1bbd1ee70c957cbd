//! Certificates that somebody else keeps up to date.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::provider;
use crate::error::{Doing, Error, Result};
use crate::security::pem;

/// Two PEM files: the chain, and its key.
#[derive(Debug)]
pub(super) struct Pair {
    chain: PathBuf,
    key: PathBuf,
    /// The age of both at the last look.
    seen: Mutex<Option<Ages>>,
}

type Ages = [SystemTime; 2];

impl Pair {
    pub(super) fn new(chain: PathBuf, key: PathBuf) -> Self {
        Self {
            chain,
            key,
            seen: Mutex::new(None),
        }
    }

    /// What is in the files now.
    pub(super) fn read(&self) -> Result<CertifiedKey> {
        // Before the look at the age: what cannot be read says more than what has none.
        let chain = pem::certificates(&self.chain);
        let chain = chain.map_err(|told| unusable("tls.certificate", &self.chain, &told))?;
        let keys = pem::keys(&self.key);
        let keys = keys.map_err(|told| unusable("tls.key", &self.key, &told))?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.ages()?);
        matched(chain, &keys).map_err(|fault| self.told(fault))
    }

    /// What is in the files, if it is not what was there at the last look.
    pub(super) fn read_if_changed(&self) -> Result<Option<CertifiedKey>> {
        let ages = self.ages()?;
        let seen = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(ages);
        if seen == Some(ages) {
            Ok(None)
        } else {
            self.read().map(Some)
        }
    }

    fn ages(&self) -> Result<Ages> {
        let age = |path: &Path, setting| {
            let data = std::fs::metadata(path).and_then(|data| data.modified());
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
}
