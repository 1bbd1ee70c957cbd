//! What the authority is shown while it makes sure that a name is ours.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::super::provider;
use crate::error::{Doing, Result};

/// The protocol in which the authority asks for a certificate that proves (RFC 8737).
pub(in super::super) const ALPN: &[u8] = b"acme-tls/1";
/// The length of a digest in such a certificate.
const DIGEST_LEN: usize = 32;

/// A way to prove that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Kind {
    /// By a page on port 80.
    #[serde(rename = "http-01")]
    Http,
    /// By a certificate on port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

impl Kind {
    /// As operators read it.
    pub(super) const fn shown(self) -> &'static str {
        match self {
            Self::Http => "HTTP-01 on port 80",
            Self::TlsAlpn => "TLS-ALPN-01 on port 443",
        }
    }
}

/// Proofs that are asked for just now.
#[derive(Debug, Default)]
pub struct Challenges {
    /// By token.
    pages: Mutex<HashMap<String, String>>,
    /// By name.
    certificates: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

/// A proof on show; withdrawn when this is dropped.
#[derive(Debug)]
pub(super) struct Proof {
    place: Arc<Challenges>,
    kind: Kind,
    key: String,
}

impl Challenges {
    /// The page for a token.
    pub fn page(&self, token: &str) -> Option<String> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get(token).cloned()
    }

    /// The certificate for whoever asks for a proof; none where nobody was asked to prove that name.
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

    /// Shows the page `text` for `token`.
    pub(super) fn show_page(self: &Arc<Self>, token: &str, text: &str) -> Proof {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(token.to_owned(), text.to_owned());
        self.proof(Kind::Http, token)
    }

    /// Shows a certificate for `name` with `digest` in it.
    pub(super) fn show_certificate(self: &Arc<Self>, name: &str, digest: &[u8]) -> Result<Proof> {
        let digest: [u8; DIGEST_LEN] = digest.try_into().doing("take the digest of a proof")?;
        let mut params =
            CertificateParams::new(vec![name.to_owned()]).doing("name a proving certificate")?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
        let key = KeyPair::generate().doing("make a key")?;
        let made = params
            .self_signed(&key)
            .doing("sign a proving certificate")?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = provider().key_provider.load_private_key(key);
        let key = key.doing("load a key")?;
        // Not checked to belong together: no checker knows the one extension that matters here.
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
            place: self.clone(),
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
        } = &*self.place;
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
