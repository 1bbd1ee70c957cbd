//! The server's TLS certificate: where it comes from, and how it is replaced while the server runs.

mod acme;
mod files;
mod self_signed;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::clock::UnixMs;
use crate::config::{Config, TlsMode};
use crate::domain::Domain;
use crate::error::{Doing, Error, Resource, Result};
use crate::security::private_file;
use acme::Acme;

pub use acme::{AcmeStatus, Challenges, Validity};
pub use self_signed::CA_FILE;

/// The subfolder of the data folder for certificates.
const FOLDER: &str = "tls";

/// The server's own certificate authority that programs may trust already, as recorded in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedAuthority {
    /// There was none yet.
    None,
    /// Unknown: the database was used by a version that did not record the authority.
    Unknown,
    /// The SHA-256 of its public key.
    Key([u8; 32]),
}

impl TrustedAuthority {
    /// Whether `key` is the key of a different authority.
    fn is_another(self, key: [u8; 32]) -> bool {
        matches!(self, Self::Key(known) if known != key)
    }
}

/// The SHA-256 of the public key of the authority in the data folder `data`; `None` if there is no authority.
pub fn authority_key(data: &Path) -> Result<Option<[u8; 32]>> {
    self_signed::key_digest(&data.join(FOLDER))
}

/// Creates a new authority in the data folder `data`; the files of the old one are renamed. Returns the file that
/// programs have to trust from now on, and the SHA-256 of its public key.
pub fn new_authority(data: &Path, now: UnixMs) -> Result<(PathBuf, [u8; 32])> {
    let folder = data.join(FOLDER);
    let key = self_signed::replace(&folder, now)?;
    Ok((folder.join(CA_FILE), key))
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificates {
    origin: Origin,
    served: Arc<ServedCertificates>,
}

#[derive(Debug)]
enum Origin {
    SelfSigned(Box<self_signed::Authority>),
    Files(Box<files::CertificateFiles>),
    /// The server's own authority issues a certificate until the ACME authority has issued the first one.
    Acme(Box<Acme>, Option<Box<self_signed::Authority>>),
}

impl Origin {
    /// The origin that the settings ask for, and its first certificate; `None` if TLS is off.
    fn open(
        settings: &Config,
        trusted: TrustedAuthority,
        now: UnixMs,
    ) -> Result<Option<(Self, CertifiedKey)>> {
        let own = |trusted| {
            let folder = settings.data_folder().join(FOLDER);
            self_signed::Authority::open(&folder, own_names(settings)?, trusted, now).map(Box::new)
        };
        Ok(Some(match settings.tls.mode {
            TlsMode::Off => return Ok(None),
            TlsMode::SelfSigned => {
                let authority = own(trusted)?;
                let first = authority.issue(now)?;
                (Self::SelfSigned(authority), first)
            }
            TlsMode::Files => {
                let pair = files::CertificateFiles::of(settings)?;
                let first = pair.read()?;
                (Self::Files(Box::new(pair)), first)
            }
            TlsMode::Acme => {
                let acme = Box::new(Acme::open(settings, now)?);
                if let Some(first) = acme.certified() {
                    (Self::Acme(acme, None), first)
                } else {
                    // Programs trust the ACME authority; this one serves only until its first certificate.
                    let authority = own(TrustedAuthority::None)?;
                    let first = authority.issue(now)?;
                    (Self::Acme(acme, Some(authority)), first)
                }
            }
        }))
    }
}

/// The certificates for TLS handshakes.
#[derive(Debug)]
struct ServedCertificates {
    /// The certificate and its key, which are replaced together.
    current: RwLock<Arc<CertifiedKey>>,
    /// With ACME: the certificates for TLS-ALPN-01 challenges.
    challenges: Option<Arc<Challenges>>,
}

impl ServedCertificates {
    fn current(&self) -> Arc<CertifiedKey> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, next: CertifiedKey) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(next);
    }
}

impl ResolvesServerCert for ServedCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // RFC 8737 §3: a validation request offers this protocol and no other.
        let is_challenge = hello.alpn().is_some_and(|offered| offered.eq([acme::ALPN]));
        match &self.challenges {
            Some(challenges) if is_challenge => challenges.certificate(&hello),
            _ => Some(self.current()),
        }
    }
}

/// Whether the negotiated protocol is that of an ACME validation request, which ends after the TLS handshake.
pub fn is_acme_challenge(protocol: Option<&[u8]>) -> bool {
    protocol == Some(acme::ALPN)
}

impl Certificates {
    /// Opens the certificate that the settings ask for; `None` if TLS is off. With a self-signed certificate, creates
    /// the authority unless programs may trust one already.
    ///
    /// # Errors
    /// [`Error::Usage`] or [`Error::State`] if there is no usable certificate; the message says what to do.
    pub fn open(settings: &Config, trusted: TrustedAuthority, now: UnixMs) -> Result<Option<Self>> {
        let Some((origin, first)) = Origin::open(settings, trusted, now)? else {
            return Ok(None);
        };
        let challenges = match &origin {
            Origin::Acme(acme, _) => Some(acme.challenges()),
            Origin::SelfSigned(_) | Origin::Files(_) => None,
        };
        let current = RwLock::new(Arc::new(first));
        let served = Arc::new(ServedCertificates {
            current,
            challenges,
        });
        Ok(Some(Self { origin, served }))
    }

    /// The configuration for rustls: TLS 1.2 and 1.3, HTTP/1.1 only.
    pub fn server_config(&self) -> Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .doing("set up TLS")?
            .with_no_client_auth()
            .with_cert_resolver(self.served.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if self.served.challenges.is_some() {
            config.alpn_protocols.push(acme::ALPN.to_vec());
        }
        // For programs that open a connection for each heartbeat. With TLS 1.2, resuming a session costs a tenth of a new one;
        // with TLS 1.3 it saves the signature only, since new keys are agreed upon all the same.
        config.ticketer = rustls::crypto::ring::Ticketer::new().doing("make ticket keys")?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    /// Replaces the certificate if its files have changed or a self-issued one is due for renewal. If the new
    /// certificate cannot be used, this is logged, and the old one stays. Call it every few seconds.
    pub fn refresh(&self, now: UnixMs) {
        let next = match &self.origin {
            Origin::SelfSigned(authority) => authority.renew(now),
            Origin::Files(pair) => pair.read_if_changed(),
            // The server's own certificate is renewed while the ACME authority has not issued one.
            Origin::Acme(acme, Some(authority)) if acme.certified().is_none() => {
                authority.renew(now)
            }
            Origin::Acme(..) => Ok(None),
        };
        self.apply(next);
    }

    /// Reads externally managed certificate files again, even if they seem unchanged. Other certificates need no
    /// reload.
    pub fn reload(&self) {
        if let Origin::Files(pair) = &self.origin {
            self.apply(pair.read().map(Some));
        }
    }

    fn apply(&self, next: Result<Option<CertifiedKey>>) {
        match next {
            Ok(Some(next)) if next.cert == self.served.current().cert => {}
            Ok(Some(next)) => {
                self.served.replace(next);
                log::info!("a new certificate is in use");
            }
            Ok(None) => {}
            Err(error) => {
                log::error!("the new certificate is not used, the old one stays: {error}");
            }
        }
    }

    /// When the certificate in use expires.
    pub fn ends_at(&self) -> Result<UnixMs> {
        let served = self.served.current();
        let first = served
            .cert
            .first()
            .ok_or_else(|| Error::not_found(Resource::Certificate, ""))?;
        ends_at(first)
    }

    /// Problems of an externally managed certificate that is in use nevertheless, each with what to do.
    pub fn problems(&self, settings: &Config, now: UnixMs) -> Result<Vec<String>> {
        match &self.origin {
            Origin::Files(_) => problems(&self.served.current().cert, settings, now),
            Origin::SelfSigned(_) | Origin::Acme(..) => Ok(Vec::new()),
        }
    }

    /// A warning if an externally managed certificate comes without a chain, which it may need.
    pub fn chain_warning(&self) -> Result<Option<&'static str>> {
        let served = self.served.current();
        let (Origin::Files(_), [alone]) = (&self.origin, &*served.cert) else {
            return Ok(None);
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(alone).doing("read a certificate")?;
        let hint = "tls.certificate contains only the certificate itself: if an intermediate authority signed it, \
                    the intermediate certificate must be in the file too (fullchain.pem), or clients refuse it";
        Ok((parsed.subject() != parsed.issuer()).then_some(hint))
    }

    /// The file that clients must trust, if the certificate is self-signed.
    pub fn authority_file(&self) -> Option<PathBuf> {
        match &self.origin {
            Origin::SelfSigned(authority) => Some(authority.file()),
            // With ACME, the server's own authority is temporary, so clients should not trust it.
            Origin::Files(_) | Origin::Acme(..) => None,
        }
    }

    /// The current ACME challenges; `None` without ACME.
    pub fn challenges(&self) -> Option<Arc<Challenges>> {
        self.served.challenges.clone()
    }

    /// The state of the ACME certificate; `None` without ACME.
    pub fn acme_status(&self) -> Option<AcmeStatus> {
        match &self.origin {
            Origin::Acme(acme, _) => Some(acme.status()),
            Origin::SelfSigned(_) | Origin::Files(_) => None,
        }
    }

    /// Requests, renews and serves ACME certificates as long as this future is polled; without ACME, it waits forever.
    /// `machine` returns the system time.
    pub async fn run_acme(&self, machine: impl Fn() -> UnixMs) {
        match &self.origin {
            Origin::Acme(acme, _) => acme.run(&self.served, machine).await,
            Origin::SelfSigned(_) | Origin::Files(_) => std::future::pending().await,
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    private_file::write(path, text).doing("write a certificate")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A chain with its key; fails if they do not belong together.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey> {
    CertifiedKey::from_der(chain, key, &provider()).doing("match certificate and key")
}

/// Problems for which clients would refuse a chain of certificates.
fn problems(chain: &[CertificateDer<'_>], settings: &Config, now: UnixMs) -> Result<Vec<String>> {
    let first = chain
        .first()
        .ok_or_else(|| Error::not_found(Resource::Certificate, ""))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(first).doing("read a certificate")?;
    let at = |seconds: i64| UnixMs(seconds.saturating_mul(1000));
    let begins = at(parsed.validity().not_before.timestamp());
    let ends = at(parsed.validity().not_after.timestamp());
    let names = names_in(&parsed)?;
    let mut problems = Vec::new();
    if ends <= now {
        let ended = ends.rfc3339();
        problems.push(format!(
            "the certificate in tls.certificate has expired ({ended}), clients refuse it: renew it"
        ));
    }
    if begins > now {
        let begins = begins.rfc3339();
        problems.push(format!(
            "the certificate in tls.certificate is not valid before {begins}, clients refuse it until then: \
             check this machine's clock and the file"
        ));
    }
    let host = settings.server.public_host();
    if let Some(host) = host.filter(|host| !names.iter().any(|name| is_for(name, host))) {
        let names = names.join(", ");
        problems.push(format!(
            "the certificate in tls.certificate is for {names} and not for {host}, which public_url names: \
             get one for it, or correct [server] public_url"
        ));
    }
    Ok(problems)
}

/// The host names and IP addresses that a certificate is for.
fn names_in(certificate: &X509Certificate<'_>) -> Result<Vec<String>> {
    let alternative = certificate
        .subject_alternative_name()
        .doing("read a certificate's names")?;
    let all = alternative.map_or(&[][..], |names| &names.value.general_names);
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            ref other => {
                let v6 = <[u8; 16]>::try_from(other).ok()?;
                Some(IpAddr::from(v6).to_string())
            }
        },
        _ => None,
    };
    Ok(all.iter().filter_map(name).collect())
}

/// Whether a name of a certificate, possibly with a wildcard, matches `host` (RFC 6125, 6.4.3).
fn is_for(name: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == host,
    }
}

fn ends_at(certificate: &CertificateDer<'_>) -> Result<UnixMs> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).doing("read a certificate")?;
    Ok(UnixMs(
        parsed.validity().not_after.timestamp().saturating_mul(1000),
    ))
}

/// Every host name and IP address by which clients may reach this server, for a self-signed certificate.
pub fn own_names(settings: &Config) -> Result<Vec<String>> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    let address = settings.server.address;
    if !address.is_unspecified() {
        names.push(address.to_string());
    }
    names.extend(settings.server.public_host());
    let ascii = |name: &String| Domain::parse(name).map(|domain| domain.as_str().to_owned());
    let domains = settings.tls.domains.iter();
    names.extend(domains.map(|name| ascii(name).unwrap_or_else(|| name.clone())));
    names.extend(crate::config::hostname()?);
    names.sort();
    names.dedup();
    Ok(names)
}
