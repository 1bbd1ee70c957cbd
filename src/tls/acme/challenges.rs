//! The responses to ACME challenges, by which the authority verifies that this server controls a name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::super::provider;
use crate::error::{Doing, Result};

/// The protocol of TLS-ALPN-01 validation requests (RFC 8737).
pub(in super::super) const ALPN: &[u8] = b"acme-tls/1";
/// The length of the digest in a challenge certificate, in bytes.
const DIGEST_LEN: usize = 32;

/// The type of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Kind {
    /// A page on port 80.
    #[serde(rename = "http-01")]
    Http,
    /// A certificate on port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

impl Kind {
    /// The name for log lines.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Http => "HTTP-01 on port 80",
            Self::TlsAlpn => "TLS-ALPN-01 on port 443",
        }
    }
}

/// The responses to the current challenges.
#[derive(Debug, Default)]
pub struct Challenges {
    /// Content by token.
    pages: Mutex<HashMap<String, String>>,
    /// By domain.
    certificates: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

/// A published response; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Proof {
    challenges: Arc<Challenges>,
    kind: Kind,
    key: String,
}

impl Challenges {
    /// The content of the page for a token; `None` if there is no such challenge.
    pub fn page(&self, token: &str) -> Option<String> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get(token).cloned()
    }

    /// The certificate for a validation request; `None` if there is no challenge for that domain.
    pub(in super::super) fn certificate(
        &self,
        hello: &ClientHello<'_>,
    ) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        let all = self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.get(&name).cloned()
    }

    /// Publishes `text` as the page for `token`.
    pub(super) fn publish_page(self: &Arc<Self>, token: &str, text: &str) -> Proof {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(token.to_owned(), text.to_owned());
        self.proof(Kind::Http, token)
    }

    /// Publishes a certificate for `name` that contains `digest`.
    pub(super) fn publish_certificate(
        self: &Arc<Self>,
        name: &str,
        digest: &[u8],
    ) -> Result<Proof> {
        let digest: [u8; DIGEST_LEN] = digest.try_into().doing("take the digest of a challenge")?;
        let mut params =
            CertificateParams::new(vec![name.to_owned()]).doing("name a challenge certificate")?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
        let key = KeyPair::generate().doing("make a key")?;
        let made = params
            .self_signed(&key)
            .doing("sign a challenge certificate")?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = provider().key_provider.load_private_key(key);
        let key = key.doing("load a key")?;
        // `CertifiedKey::from_der` would refuse the certificate, because it does not know its critical extension.
        let made = Arc::new(CertifiedKey::new(vec![made.der().clone()], key));
        let mut all = self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), made);
        Ok(self.proof(Kind::TlsAlpn, name))
    }

    fn proof(self: &Arc<Self>, kind: Kind, key: &str) -> Proof {
        Proof {
            challenges: self.clone(),
            kind,
            key: key.to_owned(),
        }
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        let Challenges {
            pages,
            certificates,
        } = &*self.challenges;
        match self.kind {
            Kind::Http => {
                let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
                pages.remove(&self.key);
            }
            Kind::TlsAlpn => {
                let mut all = certificates.lock().unwrap_or_else(PoisonError::into_inner);
                all.remove(&self.key);
            }
        }
    }
}
