//! Certificate files that are managed outside of this server.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::provider;
use crate::clock::AtMost;
use crate::config::Config;
use crate::error::{Doing, Error, Result};
use crate::security::pem;

/// Two PEM files: the chain and its key.
#[derive(Debug)]
pub(super) struct CertificateFiles {
    chain: PathBuf,
    key: PathBuf,
    /// The state of both when they were last read without an error.
    last_read: Mutex<Option<FileStates>>,
    /// The last error since then.
    last_error: Mutex<LastError>,
}

/// Of each file: the times of the last change of its content and of its metadata, each in seconds and nanoseconds, and
/// its device and inode.
type FileStates = [[i64; 6]; 2];

/// The last error of the files, and when it was reported.
#[derive(Debug)]
struct LastError {
    message: String,
    repeat: AtMost,
}

impl Default for LastError {
    fn default() -> Self {
        Self {
            message: String::new(),
            repeat: AtMost::once_in(REPEAT_EVERY),
        }
    }
}

/// Time between two log lines about the same error.
const REPEAT_EVERY: Duration = Duration::from_hours(1);

impl CertificateFiles {
    pub(super) fn new(chain: PathBuf, key: PathBuf) -> Self {
        Self {
            chain,
            key,
            last_read: Mutex::new(None),
            last_error: Mutex::default(),
        }
    }

    /// The files that the settings name.
    ///
    /// # Errors
    /// [`Error::Usage`] if they name none.
    pub(super) fn of(settings: &Config) -> Result<Self> {
        let (Some(chain), Some(key)) = (&settings.tls.certificate, &settings.tls.key) else {
            return Err(Error::Usage(
                "tls.certificate and tls.key must be set".to_owned(),
            ));
        };
        Ok(Self::new(chain.clone(), key.clone()))
    }

    /// Reads the files.
    pub(super) fn read(&self) -> Result<CertifiedKey> {
        // The state is taken first, so that a change during the read is noticed. Its error is returned last, because
        // the errors of reading are more helpful.
        let states = self.states();
        let chain = pem::certificates(&self.chain);
        let chain = chain.map_err(|text| unusable("tls.certificate", &self.chain, &text))?;
        let keys = pem::keys(&self.key);
        let keys = keys.map_err(|text| unusable("tls.key", &self.key, &text))?;
        let states = states?;
        let pair = match_key(chain, &keys).map_err(|fault| self.to_error(fault))?;
        *self
            .last_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(states);
        Ok(pair)
    }

    /// Reads the files if they have changed since the last successful read. After an error, every call tries again, but
    /// the same error is returned only once an hour.
    pub(super) fn read_if_changed(&self) -> Result<Option<CertifiedKey>> {
        let read = self.states().and_then(|states| {
            let last_read = *self
                .last_read
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if last_read == Some(states) {
                Ok(None)
            } else {
                self.read().map(Some)
            }
        });
        let mut last_error = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(pair) => {
                *last_error = LastError::default();
                Ok(pair)
            }
            Err(error) if last_error.is_due(&error.to_string()) => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn states(&self) -> Result<FileStates> {
        use std::os::unix::fs::MetadataExt;
        let state = |path: &Path, setting| {
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
            state(&self.chain, "tls.certificate")?,
            state(&self.key, "tls.key")?,
        ])
    }

    fn to_error(&self, fault: Fault) -> Error {
        let (chain, key) = (self.chain.display(), self.key.display());
        match fault {
            Fault::Unsupported(error) => unusable(
                "tls.key",
                &self.key,
                &format!(
                    "is of an unsupported kind ({error}): use RSA with at least 2048 bits, ECDSA on P-256 or P-384, \
                     or Ed25519"
                ),
            ),
            Fault::KeyOfAnotherCertificate => unusable(
                "tls.key",
                &self.key,
                &format!(
                    "is the key of another certificate than those in {chain}: use two files that belong \
                     together; `openssl pkey -in {key} -pubout` and `openssl x509 -in {chain} -noout -pubkey` \
                     must print the same"
                ),
            ),
            Fault::Failed(error) => error,
        }
    }
}

impl LastError {
    /// Whether to report `message`: if it is new, or if the last report was long ago.
    fn is_due(&mut self, message: &str) -> bool {
        if self.message != message {
            *self = Self {
                message: message.to_owned(),
                ..Self::default()
            };
        }
        self.repeat.is_due()
    }
}

/// Why no key belongs to a certificate.
enum Fault {
    Unsupported(rustls::Error),
    KeyOfAnotherCertificate,
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The certificate that one of the keys belongs to, followed by its issuers in the order in which TLS sends them. The
/// order in the file does not matter.
fn match_key(
    chain: Vec<CertificateDer<'static>>,
    keys: &[PrivateKeyDer<'static>],
) -> std::result::Result<CertifiedKey, Fault> {
    let mut fault = Fault::KeyOfAnotherCertificate;
    for key in keys {
        let key = match provider().key_provider.load_private_key(key.clone_key()) {
            Ok(key) => key,
            Err(error) => {
                fault = Fault::Unsupported(error);
                continue;
            }
        };
        let public = key.public_key().map(|public| public.to_vec());
        for (index, certificate) in chain.iter().enumerate() {
            let (_, parsed) =
                x509_parser::parse_x509_certificate(certificate).doing("read a certificate")?;
            if public.as_deref() == Some(parsed.public_key().raw) {
                return Ok(CertifiedKey::new(order_chain(&chain, index)?, key));
            }
        }
        fault = Fault::KeyOfAnotherCertificate;
    }
    Err(fault)
}

/// Orders `chain`: the certificate at index `first`, its issuer, the issuer of that one, and so on; unrelated
/// certificates come last.
fn order_chain(
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

fn unusable(setting: &str, path: &Path, problem: &str) -> Error {
    Error::State(format!("{setting}: {} {problem}", path.display()))
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
        let foreign = KeyPair::generate().unwrap();
        let foreign = PrivateKeyDer::Pkcs8(foreign.serialize_der().into());
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
            let made = match_key(given, &[foreign.clone_key(), own.clone_key()]);
            assert!(made.is_ok_and(|made| made.cert == right));
        }
        let twice = vec![leaf.clone(), leaf.clone(), middle.clone()];
        let made = match_key(twice, &[own.clone_key()]);
        assert!(made.is_ok_and(|made| made.cert == right[..2]));
        let wrong = match_key(right.to_vec(), &[foreign]);
        assert!(matches!(wrong, Err(Fault::KeyOfAnotherCertificate)));
    }

    /// Writes a file with a modification time of 1970.
    fn write_old(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }

    #[test]
    fn files_that_cannot_be_read_are_tried_again_and_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain"), folder.path().join("key"));
        let own = KeyPair::generate().unwrap();
        let made = named("leaf").self_signed(&own).unwrap().pem();
        write_old(&chain, &made);
        write_old(&key, &own.serialize_pem());
        let pair = CertificateFiles::new(chain.clone(), key.clone());
        pair.read().unwrap();
        assert!(pair.read_if_changed().unwrap().is_none());
        // The key is missing for a moment and comes back unchanged.
        let away = folder.path().join("away");
        std::fs::rename(&key, &away).unwrap();
        assert!(pair.read_if_changed().is_err());
        assert!(
            pair.read_if_changed().unwrap().is_none(),
            "already reported"
        );
        std::fs::create_dir(&key).unwrap();
        assert!(pair.read_if_changed().is_err(), "another error");
        assert!(pair.read_if_changed().unwrap().is_none());
        std::fs::remove_dir(&key).unwrap();
        std::fs::rename(&away, &key).unwrap();
        assert!(pair.read_if_changed().is_ok());
        write_old(&chain, "none");
        assert!(pair.read_if_changed().is_err());
        write_old(&chain, &made);
        assert!(
            pair.read_if_changed().unwrap().is_some(),
            "with the same modification time"
        );
        assert!(pair.read_if_changed().unwrap().is_none());
    }
}
