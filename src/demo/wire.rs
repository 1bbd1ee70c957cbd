//! The HTTPS client of the simulated programs, which call over the network like any other.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{Doing, Result};

/// Limit for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls the server, trusting its own authority only.
pub(super) struct HttpsClient {
    connector: TlsConnector,
    address: SocketAddr,
    api_key: String,
}

impl HttpsClient {
    pub(super) fn new(ca: &Path, address: SocketAddr, api_key: String) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(ca).doing("read the authority")?;
        roots.add(root).doing("trust the authority")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .doing("set up TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            address,
            api_key,
        })
    }

    /// `POST /api/license/<endpoint>`; the status and the body.
    pub(super) async fn call(&self, endpoint: &str, body: &Value) -> Result<(u16, Value)> {
        timeout(CALL_TIMEOUT, self.exchange(endpoint, body))
            .await
            .doing("wait for the response")?
    }

    async fn exchange(&self, endpoint: &str, body: &Value) -> Result<(u16, Value)> {
        let stream = TcpStream::connect(self.address).await.doing("connect")?;
        let name = ServerName::try_from("localhost").doing("name the server")?;
        let stream = self
            .connector
            .connect(name, stream)
            .await
            .doing("open TLS")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .doing("open HTTP")?;
        let driver = tokio::spawn(connection);
        let request = Request::post(format!("/api/license/{endpoint}"))
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .header("X-API-Key", &self.api_key)
            .header("Accept-Language", "en")
            .body(Full::new(Bytes::from(body.to_string())))
            .doing("make a request")?;
        let response = sender
            .send_request(request)
            .await
            .doing("call the server")?;
        let status = response.status().as_u16();
        let bytes = response
            .into_body()
            .collect()
            .await
            .doing("read the response")?
            .to_bytes();
        driver.abort();
        Ok((
            status,
            serde_json::from_slice(&bytes).doing("read the response")?,
        ))
    }
}
