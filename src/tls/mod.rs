//! The certificate that is shown to clients: where it comes from, and how it is replaced while serving.

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
use crate::error::{Doing, Error, Result};
use crate::security::private_file;
use acme::Acme;

pub use acme::{Challenges, Life, Standing};
pub use self_signed::CA_FILE;

/// The folder for certificates in the data folder.
const FOLDER: &str = "tls";

/// Which authority of our own programs may trust already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// None: there was none yet.
    None,
    /// The database is of a version that did not remember it, and has been served.
    Unknown,
    /// The one with this public key, by its SHA-256.
    Key([u8; 32]),
}

impl Trusted {
    /// Whether `key` is the key of another one.
    fn is_another(self, key: [u8; 32]) -> bool {
        matches!(self, Self::Key(known) if known != key)
    }
}

/// The SHA-256 of the public key of the authority in the data folder `data`; none where there is no such authority.
///
/// # Errors
/// When its key cannot be read.
pub fn authority_of(data: &Path) -> Result<Option<[u8; 32]>> {
    self_signed::key_of(&data.join(FOLDER))
}

/// Makes another authority in the data folder `data`, and keeps the files of the old one beside it; the file that
/// programs have to trust from now on, and its key as [`authority_of`].
///
/// # Errors
/// When the disk does not take it.
pub fn new_authority(data: &Path, now: UnixMs) -> Result<(PathBuf, [u8; 32])> {
    let folder = data.join(FOLDER);
    let key = self_signed::replace(&folder, now)?;
    Ok((folder.join(CA_FILE), key))
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificates {
    origin: Origin,
    shown: Arc<Shown>,
}

#[derive(Debug)]
enum Origin {
    SelfSigned(Box<self_signed::Authority>),
    Files(Box<files::CertificateFiles>),
    /// An authority of our own signs until the other one has.
    Acme(Box<Acme>, Option<Box<self_signed::Authority>>),
}

/// What a handshake is answered with.
#[derive(Debug)]
struct Shown {
    /// Replaced as a whole.
    current: RwLock<Arc<CertifiedKey>>,
    /// Where an authority may ask for proofs.
    challenges: Option<Arc<Challenges>>,
}

impl Shown {
    fn current(&self) -> Arc<CertifiedKey> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, next: CertifiedKey) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(next);
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // RFC 8737 §3: who asks for a proof offers this protocol and no other.
        let proof = hello.alpn().is_some_and(|offered| offered.eq([acme::ALPN]));
        match &self.challenges {
            Some(challenges) if proof => challenges.certificate(&hello),
            _ => Some(self.current()),
        }
    }
}

/// Whether this is the protocol of whoever wanted to see a proof, which says nothing after the handshake.
pub fn is_proof(protocol: Option<&[u8]>) -> bool {
    protocol == Some(acme::ALPN)
}

impl Certificates {
    /// The certificate that the settings ask for; none where TLS is off. Makes the authority of a
    /// self-signed one, if programs cannot trust one yet.
    ///
    /// # Errors
    /// [`Error::Usage`] or [`Error::State`] when there is no usable certificate; it says what to do.
    pub fn open(settings: &Config, trusted: Trusted, now: UnixMs) -> Result<Option<Self>> {
        let own = |trusted| {
            let folder = settings.data_folder().join(FOLDER);
            self_signed::Authority::open(&folder, own_names(settings)?, trusted, now).map(Box::new)
        };
        let (origin, first) = match settings.tls.mode {
            TlsMode::Off => return Ok(None),
            TlsMode::SelfSigned => {
                let authority = own(trusted)?;
                let first = authority.issue(now)?;
                (Origin::SelfSigned(authority), first)
            }
            TlsMode::Files => {
                let (Some(chain), Some(key)) = (&settings.tls.certificate, &settings.tls.key)
                else {
                    return Err(Error::Usage(
                        "tls.certificate and tls.key must be set".to_owned(),
                    ));
                };
                let pair = files::CertificateFiles::new(chain.clone(), key.clone());
                let first = pair.read()?;
                (Origin::Files(Box::new(pair)), first)
            }
            TlsMode::Acme => {
                let acme = Box::new(Acme::open(settings, now)?);
                if let Some(first) = acme.certified() {
                    (Origin::Acme(acme, None), first)
                } else {
                    // Programs trust the authority of the others; this one only fills the gap.
                    let authority = own(Trusted::None)?;
                    let first = authority.issue(now)?;
                    (Origin::Acme(acme, Some(authority)), first)
                }
            }
        };
        let challenges = match &origin {
            Origin::Acme(acme, _) => Some(acme.challenges()),
            Origin::SelfSigned(_) | Origin::Files(_) => None,
        };
        let current = RwLock::new(Arc::new(first));
        let shown = Arc::new(Shown {
            current,
            challenges,
        });
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
        if self.shown.challenges.is_some() {
            config.alpn_protocols.push(acme::ALPN.to_vec());
        }
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
            // That of our own ages, too, while an authority gives none.
            Origin::Acme(acme, Some(authority)) if acme.certified().is_none() => {
                authority.renew(now)
            }
            Origin::Acme(..) => Ok(None),
        };
        self.take(next);
    }

    /// Reads files again that somebody else keeps up to date, changed or not; what is made and renewed here
    /// needs no reading.
    pub fn reload(&self) {
        if let Origin::Files(pair) = &self.origin {
            self.take(pair.read().map(Some));
        }
    }

    fn take(&self, next: Result<Option<CertifiedKey>>) {
        match next {
            Ok(Some(next)) if next.cert == self.shown.current().cert => {}
            Ok(Some(next)) => {
                self.shown.show(next);
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
        let shown = self.shown.current();
        let first = shown
            .cert
            .first()
            .ok_or_else(|| Error::not_found("certificate", ""))?;
        ends_at(first)
    }

    /// What is wrong with a certificate that somebody else keeps up to date, though it is shown; each with
    /// what to do.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn flaws(&self, settings: &Config, now: UnixMs) -> Result<Vec<String>> {
        match &self.origin {
            Origin::Files(_) => flaws(&self.shown.current().cert, settings, now),
            Origin::SelfSigned(_) | Origin::Acme(..) => Ok(Vec::new()),
        }
    }

    /// What may be missing beside such a certificate: where its own authority signed it directly, nothing is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn hint(&self) -> Result<Option<&'static str>> {
        let shown = self.shown.current();
        let (Origin::Files(_), [alone]) = (&self.origin, &*shown.cert) else {
            return Ok(None);
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(alone).doing("read a certificate")?;
        let hint = "tls.certificate holds the certificate alone: if its authority signs by an intermediate \
                    one, that must stand in the file too (fullchain.pem), or clients refuse it";
        Ok((parsed.subject() != parsed.issuer()).then_some(hint))
    }

    /// The file that clients must trust, for a self-signed certificate.
    pub fn authority_file(&self) -> Option<PathBuf> {
        match &self.origin {
            Origin::SelfSigned(authority) => Some(authority.file()),
            // Nobody should trust what is only there until the first one comes.
            Origin::Files(_) | Origin::Acme(..) => None,
        }
    }

    /// The proofs that an authority may ask for; none where there is no authority.
    pub fn challenges(&self) -> Option<Arc<Challenges>> {
        self.shown.challenges.clone()
    }

    /// How things stand with the authority; none where there is none.
    pub fn standing(&self) -> Option<Standing> {
        match &self.origin {
            Origin::Acme(acme, _) => Some(acme.standing()),
            Origin::SelfSigned(_) | Origin::Files(_) => None,
        }
    }

    /// Gets certificates from the authority and shows them, as long as this is polled; where there is no
    /// authority it only waits. `machine` is the machine's date.
    pub async fn keep(&self, machine: impl Fn() -> UnixMs) {
        match &self.origin {
            Origin::Acme(acme, _) => acme.keep(&self.shown, machine).await,
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

/// A chain with its key, checked to belong together.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey> {
    CertifiedKey::from_der(chain, key, &provider()).doing("match certificate and key")
}

/// What clients would refuse in a chain of certificates.
fn flaws(chain: &[CertificateDer<'_>], settings: &Config, now: UnixMs) -> Result<Vec<String>> {
    let first = chain
        .first()
        .ok_or_else(|| Error::not_found("certificate", ""))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(first).doing("read a certificate")?;
    let at = |seconds: i64| UnixMs(seconds.saturating_mul(1000));
    let begins = at(parsed.validity().not_before.timestamp());
    let ends = at(parsed.validity().not_after.timestamp());
    let names = names_in(&parsed)?;
    let mut flaws = Vec::new();
    if ends <= now {
        let ended = ends.rfc3339();
        flaws.push(format!(
            "the certificate in tls.certificate has expired ({ended}), clients refuse it: renew it"
        ));
    }
    if begins > now {
        let begins = begins.rfc3339();
        flaws.push(format!(
            "the certificate in tls.certificate is not valid before {begins}, clients refuse it until then: \
             look at this machine's clock, or at the file"
        ));
    }
    let host = settings.server.public_host();
    if let Some(host) = host.filter(|host| !names.iter().any(|name| is_for(name, host))) {
        let names = names.join(", ");
        flaws.push(format!(
            "the certificate in tls.certificate is for {names} and not for {host}, which public_url names: \
             get one for it, or correct [server] public_url"
        ));
    }
    Ok(flaws)
}

/// The names and addresses that a certificate is for.
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

/// Whether a name of a certificate, perhaps with a wildcard, is that of `host` (RFC 6125, 6.4.3).
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

/// Every name and address under which clients may know this server, for a certificate of its own.
///
/// # Errors
/// When the machine does not tell its name.
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
