//! Certificates that somebody else keeps up to date.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::certified;
use crate::error::{Error, Result};

/// Two PEM files: the chain, own certificate first, and its key.
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
        let ages = self.ages()?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(ages);
        let chain = CertificateDer::pem_file_iter(&self.chain)
            .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
            .map_err(|error| unusable(&self.chain, "certificate", &error))?;
        if chain.is_empty() {
            return Err(unusable(&self.chain, "certificate", &"there is none in it"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| unusable(&self.key, "key", &error))?;
        certified(chain, key).map_err(|error| unusable(&self.chain, "certificate", &error))
    }

    /// What is in the files, if it is not what was there at the last look.
    pub(super) fn read_if_changed(&self) -> Result<Option<CertifiedKey>> {
        let ages = self.ages()?;
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen == Some(ages) {
            Ok(None)
        } else {
            self.read().map(Some)
        }
    }

    fn ages(&self) -> Result<Ages> {
        let age = |path: &Path, what| {
            let data = std::fs::metadata(path).and_then(|data| data.modified());
            data.map_err(|error| unusable(path, what, &error))
        };
        Ok([age(&self.chain, "certificate")?, age(&self.key, "key")?])
    }
}

fn unusable(path: &Path, what: &str, error: &dyn std::fmt::Display) -> Error {
    let name = path.display();
    Error::State(format!(
        "the {what} {name} cannot be used ({error}): check [tls] in the settings"
    ))
}
