//! The client of the simulated programs, which call over the network like any other.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::time::Instant;

use crate::config::Language;
use crate::error::{Doing, Result};
use crate::net::https::{Addresses, HttpsClient, Limits, ResponseBody};

/// Limit for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest response, in bytes.
const BODY_LEN: usize = 64 * 1024;

/// Calls the server, trusting its own authority only.
pub(super) struct ApiClient {
    https: HttpsClient,
    address: SocketAddr,
    api_key: String,
    language: Language,
}

impl ApiClient {
    pub(super) fn new(ca: &Path, address: SocketAddr, api_key: String) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(ca).doing("read the authority")?;
        roots.add(root).doing("trust the authority")?;
        let limits = Limits {
            connect: CALL_TIMEOUT,
            tls: CALL_TIMEOUT,
            exchange: CALL_TIMEOUT,
            body: ResponseBody::Read { max: BODY_LEN },
        };
        let https = HttpsClient::new(roots, limits)?;
        Ok(Self {
            https,
            address,
            api_key,
            language: Language::En,
        })
    }

    /// The same client, whose user speaks `language`.
    pub(super) fn with_language(self, language: Language) -> Self {
        Self { language, ..self }
    }

    /// The language of its user.
    pub(super) const fn language(&self) -> Language {
        self.language
    }

    /// `POST /api/license/<endpoint>`; the status and the body.
    pub(super) async fn call(&self, endpoint: &str, body: &Value) -> Result<(u16, Value)> {
        let port = self.address.port();
        let request = Request::post(format!("https://localhost:{port}/api/license/{endpoint}"))
            .header("Content-Type", "application/json")
            .header("X-API-Key", &self.api_key)
            .header("Accept-Language", self.language.tag())
            .body(Full::new(Bytes::from(body.to_string())))
            .doing("make a request")?;
        let addresses = Addresses::Only(vec![self.address.ip()]);
        let end = Instant::now() + CALL_TIMEOUT;
        let response = self.https.send(request, addresses, end).await;
        let response = response.doing("call the server")?;
        let body = serde_json::from_slice(response.body()).doing("read the response")?;
        Ok((response.status().as_u16(), body))
    }
}
