//! What is kept in `data/tls/acme`: the certificate with its key, accounts, and what became of the last tries.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::{certified, names_in, write};
use super::plan::{Life, RenewalState};
use crate::clock::UnixMs;
use crate::error::{Doing, Error, Result};

/// Key and chain in one file: they can never be from two certificates.
const PAIR_FILE: &str = "certificate.pem";
const MEMORY_FILE: &str = "state.json";

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct CertStore(PathBuf);

/// An account at an authority. Its key is in here.
#[derive(Deserialize, Serialize)]
pub(super) struct AcmeAccount {
    /// The address that the authority was given.
    pub(super) contact: Option<String>,
    pub(super) credentials: instant_acme::AccountCredentials,
}

/// A certificate by an authority.
#[derive(Debug)]
pub(super) struct CertifiedKeyPair {
    pub(super) certified: CertifiedKey,
    pub(super) life: Life,
    /// Who signed it, as people call them.
    pub(super) issuer: String,
    names: Vec<String>,
}

impl CertifiedKeyPair {
    /// Key and chain in PEM, checked to belong together.
    pub(super) fn parse(pem: &str) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes());
        let chain = chain.collect::<std::result::Result<Vec<_>, _>>();
        let chain = chain.doing("read a chain of certificates")?;
        let first = chain.first().cloned();
        let first = first.ok_or_else(|| Error::not_found("certificate", "in PEM"))?;
        let key =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).doing("read a certificate's key")?;
        let certified = certified(chain, key)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&first).doing("read a certificate")?;
        let at = |seconds: i64| UnixMs(seconds.saturating_mul(1000));
        let validity = parsed.validity();
        let issuer = parsed.issuer();
        let mut told = issuer.iter_organization().chain(issuer.iter_common_name());
        let told = told
            .find_map(|part| part.as_str().ok())
            .unwrap_or("an authority");
        Ok(Self {
            certified,
            life: Life {
                begins: at(validity.not_before.timestamp()),
                ends: at(validity.not_after.timestamp()),
            },
            issuer: told.to_owned(),
            names: names_in(&parsed)?,
        })
    }

    /// Names of these that it is not for.
    pub(super) fn lacks(&self, names: &[String]) -> Vec<String> {
        let missing = names.iter().filter(|name| !self.names.contains(name));
        missing.cloned().collect()
    }
}

impl CertStore {
    pub(super) fn beside(data: &Path) -> Self {
        Self(data.join("tls").join("acme"))
    }

    /// The certificate; none if there was none yet.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be used.
    pub(super) fn pair(&self) -> Result<Option<CertifiedKeyPair>> {
        let file = self.0.join(PAIR_FILE);
        let Some(pem) = read(&file)? else {
            return Ok(None);
        };
        let name = file.display();
        let pair = CertifiedKeyPair::parse(&pem);
        let pair = pair.map_err(|error| Error::State(format!("{name} cannot be used: {error}")));
        pair.map(Some)
    }

    pub(super) fn keep_pair(&self, pem: &str) -> Result<()> {
        self.keep(PAIR_FILE, pem)
    }

    /// What became of the last tries.
    pub(super) fn memory(&self) -> Result<RenewalState> {
        Ok(self.parsed(MEMORY_FILE)?.unwrap_or_default())
    }

    pub(super) fn keep_memory(&self, memory: &RenewalState) -> Result<()> {
        let text = serde_json::to_string_pretty(memory).doing("write down what was tried")?;
        self.keep(MEMORY_FILE, &text)
    }

    /// The account at a directory; none if there was none yet.
    pub(super) fn membership(&self, directory: &str) -> Result<Option<AcmeAccount>> {
        self.parsed(&membership_file(directory))
    }

    pub(super) fn keep_membership(&self, directory: &str, membership: &AcmeAccount) -> Result<()> {
        let text = serde_json::to_string_pretty(membership).doing("write down an account")?;
        self.keep(&membership_file(directory), &text)
    }

    fn parsed<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let file = self.0.join(name);
        let Some(text) = read(&file)? else {
            return Ok(None);
        };
        let parsed = serde_json::from_str(&text).map_err(|error| {
            let name = file.display();
            Error::State(format!(
                "{name} cannot be read ({error}): restore or delete it"
            ))
        })?;
        Ok(Some(parsed))
    }

    fn keep(&self, name: &str, text: &str) -> Result<()> {
        fs::create_dir_all(&self.0).doing("make the folder for certificates")?;
        write(&self.0.join(name), text)
    }
}

/// What is in `file`; none where there is no such file.
fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::State(format!(
            "cannot read {}: {error}",
            file.display()
        ))),
    }
}

/// One file for each directory: `account-acme.example_directory.json`.
fn membership_file(directory: &str) -> String {
    let bare = directory.strip_prefix("https://").unwrap_or(directory);
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
            c
        } else {
            '_'
        }
    };
    let name: String = bare.chars().map(plain).collect();
    format!("account-{name}.json")
}
