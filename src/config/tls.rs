//! `[tls]`: where certificates come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::requirement::{self, Invalid};
use super::server::{Server, host_of};
use crate::domain::Domain;

/// Let's Encrypt, the default authority.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Most names in one certificate; also the limit of Let's Encrypt.
const DOMAINS_MAX: usize = 100;
/// Longest address of an authority, in bytes: a file name is derived from it.
const DIRECTORY_LEN_MAX: usize = 200;

/// `[tls]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Where certificates come from.
    pub mode: TlsMode,
    /// PEM file with the certificate chain, the server's own certificate first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Host names to request certificates for.
    pub domains: Vec<String>,
    /// Contact given to the authority, like `mailto:you@example.org`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Address of the authority's ACME directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// PEM file with the root certificate with which the directory's own certificate is verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory_root: Option<PathBuf>,
    /// The port for plain HTTP, for HTTP-01 validation; 0 for none.
    pub http_port: u16,
}

/// `[tls] mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Own authority and certificate, created and renewed automatically.
    SelfSigned,
    /// Certificate files that other software maintains.
    Files,
    /// Requested and renewed automatically from an authority, by ACME.
    Acme,
    /// Plain HTTP; only on loopback or behind a trusted proxy.
    Off,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            mode: TlsMode::SelfSigned,
            certificate: None,
            key: None,
            domains: Vec::new(),
            contact: None,
            directory: None,
            directory_root: None,
            http_port: 80,
        }
    }
}

impl Tls {
    /// The host names to request certificates for, in ASCII, without duplicates.
    pub fn names(&self) -> Vec<String> {
        let parsed = self.domains.iter().filter_map(|name| Domain::parse(name));
        let mut names: Vec<String> = Vec::new();
        for name in parsed.map(|domain| domain.as_str().to_owned()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The address of the authority's ACME directory.
    pub fn authority(&self) -> &str {
        self.directory.as_deref().unwrap_or(LETS_ENCRYPT)
    }

    /// Whether the authority is Let's Encrypt.
    pub fn is_lets_encrypt(&self) -> bool {
        self.authority() == LETS_ENCRYPT
    }

    /// The first invalid setting: its key and the reason.
    pub(super) fn check(&self, server: &Server) -> Result<(), Invalid> {
        let private = server.address.is_loopback() || !server.trusted_proxies.is_empty();
        match self.mode {
            TlsMode::Files if self.certificate.is_none() => {
                Err(("tls.mode", "`files` needs tls.certificate, a PEM file"))
            }
            TlsMode::Files if self.key.is_none() => {
                Err(("tls.mode", "`files` needs tls.key, a PEM file"))
            }
            TlsMode::SelfSigned | TlsMode::Files => Ok(()),
            TlsMode::Acme => self.check_acme(server),
            TlsMode::Off if private => Ok(()),
            TlsMode::Off => {
                let reason =
                    "`off` is for a loopback address or behind server.trusted_proxies only";
                Err(("tls.mode", reason))
            }
        }
    }

    fn check_acme(&self, server: &Server) -> Result<(), Invalid> {
        self.check_order()?;
        self.check_server(server)
    }

    /// Checks what the authority is asked for.
    fn check_order(&self) -> Result<(), Invalid> {
        let mut domains = self.domains.iter();
        let all_are_names = domains.all(|name| Domain::parse(name).is_some());
        let authority = self.authority();
        requirement::check_all(&[
            (
                !self.domains.is_empty(),
                "tls.mode",
                "`acme` needs tls.domains, the names that the certificate is for",
            ),
            (
                all_are_names && self.names().len() <= DOMAINS_MAX,
                "tls.domains",
                "must be 1..100 host names like licenses.example.org: no addresses, ports or wildcards",
            ),
            (
                self.contact.as_deref().is_none_or(is_mail_address),
                "tls.contact",
                "must be like mailto:you@example.org",
            ),
            (
                is_directory(authority) && authority.len() <= DIRECTORY_LEN_MAX,
                "tls.directory",
                "must be an https:// address of at most 200 characters",
            ),
        ])
    }

    /// Checks that clients and the authority can reach `server` under the names.
    fn check_server(&self, server: &Server) -> Result<(), Invalid> {
        let host = server.public_host();
        let is_reachable = !self.is_lets_encrypt()
            || !server.address.is_loopback()
            || !server.trusted_proxies.is_empty();
        requirement::check_all(&[
            (
                host.is_none_or(|host| self.names().contains(&host)),
                "server.public_url",
                "its host must be one of tls.domains: the certificate is for these only",
            ),
            (
                is_reachable,
                "server.address",
                "Let's Encrypt must reach it for `acme`: set 0.0.0.0, or :: for both kinds of addresses",
            ),
            (
                self.http_port != server.port,
                "tls.http_port",
                "must differ from server.port: plain HTTP has its own port",
            ),
        ])
    }
}

/// Whether `contact` is like `mailto:you@example.org`.
fn is_mail_address(contact: &str) -> bool {
    let address = contact
        .strip_prefix("mailto:")
        .and_then(|it| it.split_once('@'));
    address.is_some_and(|(user, host)| !user.is_empty() && Domain::parse(host).is_some())
}

/// Whether `url` can be the address of an ACME directory.
fn is_directory(url: &str) -> bool {
    url.strip_prefix("https://").is_some_and(|rest| {
        let clean = !rest.contains(['?', '#', '@', ' ', '"', '\\']) && rest.is_ascii();
        let base = rest.split('/').next().unwrap_or_default();
        clean && host_of(&format!("https://{base}")).is_some()
    })
}
