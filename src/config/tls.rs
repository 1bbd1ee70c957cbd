//! `[tls]`: where certificates come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::settings::{Server, host_of};
use crate::domain::Domain;

/// Let's Encrypt, where no other authority is named.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Most names of one certificate, at Let's Encrypt too.
const DOMAINS_MAX: usize = 100;
/// Longest address of an authority: it also names a file.
const DIRECTORY_LEN_MAX: usize = 200;

/// `[tls]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Where certificates come from.
    pub mode: TlsMode,
    /// PEM file with the chain, own certificate first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Names to get certificates for.
    pub domains: Vec<String>,
    /// Mail address given to the authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Address of the authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// PEM file with a root certificate that the authority's own address is trusted by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory_root: Option<PathBuf>,
    /// The port for plain HTTP, where the authority looks for its proof; 0 for none.
    pub http_port: u16,
}

/// `[tls] mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Own authority and certificate, made and renewed by itself.
    SelfSigned,
    /// Files that somebody else keeps up to date.
    Files,
    /// From an authority, by itself.
    Acme,
    /// None: on loopback or behind a trusted proxy only.
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
    /// The names to get certificates for, as certificates have them; each once.
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

    /// The authority's address.
    pub fn authority(&self) -> &str {
        self.directory.as_deref().unwrap_or(LETS_ENCRYPT)
    }

    /// Whether the authority is Let's Encrypt, whose limits are best not met.
    pub fn is_lets_encrypt(&self) -> bool {
        self.authority() == LETS_ENCRYPT
    }

    /// What cannot be: the key and a sentence.
    pub(super) fn check(&self, server: &Server) -> Result<(), (&'static str, &'static str)> {
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

    fn check_acme(&self, server: &Server) -> Result<(), (&'static str, &'static str)> {
        let names = self.names();
        let all_are_names = self
            .domains
            .iter()
            .all(|name| Domain::parse(name).is_some());
        let host = server.public_host();
        let mail = |contact: &str| {
            let address = contact
                .strip_prefix("mailto:")
                .and_then(|it| it.split_once('@'));
            address.is_some_and(|(who, at)| !who.is_empty() && Domain::parse(at).is_some())
        };
        let authority = self.authority();
        let directory = authority.strip_prefix("https://").is_some_and(|rest| {
            let clean = !rest.contains(['?', '#', '@', ' ', '"', '\\']) && rest.is_ascii();
            let base = rest.split('/').next().unwrap_or_default();
            clean && host_of(&format!("https://{base}")).is_some()
        });
        let outside = !self.is_lets_encrypt()
            || !server.address.is_loopback()
            || !server.trusted_proxies.is_empty();
        let demands = [
            (
                !self.domains.is_empty(),
                "tls.mode",
                "`acme` needs tls.domains, the names that the certificate is for",
            ),
            (
                all_are_names && names.len() <= DOMAINS_MAX,
                "tls.domains",
                "must be 1..100 host names like licenses.example.org: no addresses, ports or wildcards",
            ),
            (
                self.contact.as_deref().is_none_or(mail),
                "tls.contact",
                "must be like mailto:you@example.org",
            ),
            (
                directory && authority.len() <= DIRECTORY_LEN_MAX,
                "tls.directory",
                "must be an https:// address of at most 200 characters",
            ),
            (
                host.is_none_or(|host| names.contains(&host)),
                "server.public_url",
                "its host must be one of tls.domains: the certificate is for these only",
            ),
            (
                outside,
                "server.address",
                "Let's Encrypt must reach it for `acme`: set 0.0.0.0, or :: for both kinds of addresses",
            ),
            (
                self.http_port != server.port,
                "tls.http_port",
                "must be another one than server.port: plain HTTP has its own",
            ),
        ];
        let broken = demands.into_iter().find(|(met, ..)| !met);
        broken.map_or(Ok(()), |(_, key, reason)| Err((key, reason)))
    }
}
