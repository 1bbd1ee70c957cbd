//! The files in `data/tls/acme`: the certificate with its key, the accounts, and the renewal state.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::{certified, names_in, write};
use super::plan::{RenewalState, Validity};
use crate::clock::UnixMs;
use crate::error::{Doing, Error, Resource, Result};

/// Key and chain are in one file, so that they are always replaced together.
const CERTIFICATE_FILE: &str = "certificate.pem";
const STATE_FILE: &str = "state.json";

/// The folder `data/tls/acme`.
#[derive(Clone, Debug)]
pub(super) struct CertStore(PathBuf);

/// An account at an authority, with its private key.
#[derive(Deserialize, Serialize)]
pub(super) struct AcmeAccount {
    /// The contact that the authority knows.
    pub(super) contact: Option<String>,
    pub(super) credentials: instant_acme::AccountCredentials,
}

/// A certificate that an ACME authority issued, with its key.
#[derive(Debug)]
pub(super) struct CertifiedKeyPair {
    pub(super) certified: CertifiedKey,
    pub(super) validity: Validity,
    /// The name of the authority.
    pub(super) issuer: String,
    names: Vec<String>,
}

impl CertifiedKeyPair {
    /// Parses key and chain in PEM; fails if they do not belong together.
    pub(super) fn parse(pem: &str) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes());
        let chain = chain.collect::<std::result::Result<Vec<_>, _>>();
        let chain = chain.doing("read a chain of certificates")?;
        let first = chain.first().cloned();
        let first = first.ok_or_else(|| Error::not_found(Resource::Certificate, "in PEM"))?;
        let key =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).doing("read a certificate's key")?;
        let certified = certified(chain, key)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&first).doing("read a certificate")?;
        let at = |seconds: i64| UnixMs(seconds.saturating_mul(1000));
        let validity = parsed.validity();
        let issuer = parsed.issuer();
        let mut names = issuer.iter_organization().chain(issuer.iter_common_name());
        let name = names
            .find_map(|part| part.as_str().ok())
            .unwrap_or("an authority");
        Ok(Self {
            certified,
            validity: Validity {
                begins: at(validity.not_before.timestamp()),
                ends: at(validity.not_after.timestamp()),
            },
            issuer: name.to_owned(),
            names: names_in(&parsed)?,
        })
    }

    /// Those of `names` that the certificate is not for.
    pub(super) fn missing_names(&self, names: &[String]) -> Vec<String> {
        let missing = names.iter().filter(|name| !self.names.contains(name));
        missing.cloned().collect()
    }
}

impl CertStore {
    pub(super) fn in_data_folder(data: &Path) -> Self {
        Self(data.join("tls").join("acme"))
    }

    /// The certificate; `None` if there is none yet.
    ///
    /// # Errors
    /// [`Error::State`] if it cannot be used.
    pub(super) fn certificate(&self) -> Result<Option<CertifiedKeyPair>> {
        let file = self.0.join(CERTIFICATE_FILE);
        let Some(pem) = read(&file)? else {
            return Ok(None);
        };
        let name = file.display();
        let certificate = CertifiedKeyPair::parse(&pem);
        let certificate =
            certificate.map_err(|error| Error::State(format!("{name} cannot be used: {error}")));
        certificate.map(Some)
    }

    pub(super) fn save_certificate(&self, pem: &str) -> Result<()> {
        self.save(CERTIFICATE_FILE, pem)
    }

    /// The renewal state; the default if there is none yet.
    pub(super) fn state(&self) -> Result<RenewalState> {
        Ok(self.read_json(STATE_FILE)?.unwrap_or_default())
    }

    pub(super) fn save_state(&self, state: &RenewalState) -> Result<()> {
        let text = serde_json::to_string_pretty(state).doing("encode the renewal state")?;
        self.save(STATE_FILE, &text)
    }

    /// The account at a directory; `None` if there is none yet.
    pub(super) fn account(&self, directory: &str) -> Result<Option<AcmeAccount>> {
        self.read_json(&account_file(directory))
    }

    pub(super) fn save_account(&self, directory: &str, account: &AcmeAccount) -> Result<()> {
        let text = serde_json::to_string_pretty(account).doing("encode an account")?;
        self.save(&account_file(directory), &text)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
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

    fn save(&self, name: &str, text: &str) -> Result<()> {
        fs::create_dir_all(&self.0).doing("make the folder for certificates")?;
        write(&self.0.join(name), text)
    }
}

/// The content of `file`; `None` if it does not exist.
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

/// The file of the account at a directory, such as `account-acme.example_directory.json`.
fn account_file(directory: &str) -> String {
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
