//! The certificate that is shown to clients: where it comes from, and how it is replaced while serving.

mod files;
mod self_signed;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::clock::UnixMs;
use crate::config::{Settings, TlsMode};
use crate::error::{Doing, Error, Result};

pub use self_signed::CA_FILE;

/// The certificate in use.
#[derive(Debug)]
pub struct Certificates {
    origin: Origin,
    shown: Arc<Shown>,
}

#[derive(Debug)]
enum Origin {
    SelfSigned(Box<self_signed::Authority>),
    Files(files::Pair),
}

/// What a handshake is answered with; replaced as a whole.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

impl Certificates {
    /// The certificate that the settings ask for; none where TLS is off. Makes the authority of a
    /// self-signed one, if there is none yet.
    ///
    /// # Errors
    /// [`Error::Usage`] or [`Error::State`] when there is no usable certificate; it says what to do.
    pub fn open(settings: &Settings, now: UnixMs) -> Result<Option<Self>> {
        let origin = match settings.tls.mode {
            TlsMode::Off => return Ok(None),
            TlsMode::SelfSigned => {
                let folder = settings.data_folder().join("tls");
                Origin::SelfSigned(Box::new(self_signed::Authority::open(
                    &folder,
                    names(settings)?,
                    now,
                )?))
            }
            TlsMode::Files | TlsMode::Acme => {
                let (Some(chain), Some(key)) = (&settings.tls.certificate, &settings.tls.key)
                else {
                    return Err(Error::Usage(
                        "tls.certificate and tls.key must be set".to_owned(),
                    ));
                };
                Origin::Files(files::Pair::new(chain.clone(), key.clone()))
            }
        };
        let first = match &origin {
            Origin::SelfSigned(authority) => authority.issue(now)?,
            Origin::Files(pair) => pair.read()?,
        };
        let shown = Arc::new(Shown(RwLock::new(Arc::new(first))));
        Ok(Some(Self { origin, shown }))
    }

    /// What rustls serves with: TLS 1.2 and 1.3, HTTP/1.1 only.
    ///
    /// # Errors
    /// When rustls refuses its own defaults.
    pub fn server_config(&self) -> Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .doing("set up TLS")?
            .with_no_client_auth()
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A program that connects anew for each heartbeat resumes its TLS session at a tenth of the cost.
        config.ticketer = rustls::crypto::ring::Ticketer::new().doing("make ticket keys")?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    /// Replaces the certificate where it is time: a file has changed, or an own one has aged. One that
    /// cannot be used is reported, and the old one stays. Call it every few seconds.
    pub fn refresh(&self, now: UnixMs) {
        let next = match &self.origin {
            Origin::SelfSigned(authority) => authority.renew(now),
            Origin::Files(pair) => pair.read_if_changed(),
        };
        match next {
            Ok(Some(next)) => {
                *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
                log::info!("a new certificate is in use");
            }
            Ok(None) => {}
            Err(error) => {
                log::error!("the new certificate is not used, the old one stays: {error}");
            }
        }
    }

    /// When the certificate in use ends.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn ends_at(&self) -> Result<UnixMs> {
        let shown = self
            .shown
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let first = shown
            .cert
            .first()
            .ok_or_else(|| Error::not_found("certificate", ""))?;
        ends_at(first)
    }

    /// The file that clients must trust, for a self-signed certificate.
    pub fn authority_file(&self) -> Option<PathBuf> {
        match &self.origin {
            Origin::SelfSigned(authority) => Some(authority.file()),
            Origin::Files(_) => None,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A chain with its key, checked to belong together.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey> {
    CertifiedKey::from_der(chain, key, &provider()).doing("match certificate and key")
}

fn ends_at(certificate: &CertificateDer<'_>) -> Result<UnixMs> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).doing("read a certificate")?;
    Ok(UnixMs(
        parsed.validity().not_after.timestamp().saturating_mul(1000),
    ))
}

/// Every name and address under which clients may know this server.
fn names(settings: &Settings) -> Result<Vec<String>> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    let address = settings.server.address;
    if !address.is_unspecified() {
        names.push(address.to_string());
    }
    names.extend(settings.server.public_host());
    names.extend(settings.tls.domains.iter().cloned());
    names.extend(crate::config::hostname()?);
    names.sort();
    names.dedup();
    Ok(names)
}
