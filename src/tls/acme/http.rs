//! HTTPS to the ACME authority: one request per connection, with a timeout for every step.
//!
//! Unlike the addresses of sites, the address of the authority is not checked, because the operator chose it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Doing, Result};
use crate::net::egress::Failure as Fault;

const CONNECT: Duration = Duration::from_secs(10);
const TLS: Duration = Duration::from_secs(10);
/// From sending a request to the end of its response.
const CALL: Duration = Duration::from_secs(45);
/// The longest response, in bytes; a chain of certificates has a few thousand.
const BODY_LEN: usize = 512 * 1024;

/// The error is one sentence for the log.
type HttpResult<T> = std::result::Result<T, String>;

/// An HTTPS client for servers whose certificate is signed by one of its root certificates.
#[derive(Clone)]
pub(super) struct AcmeHttp(TlsConnector);

impl AcmeHttp {
    pub(super) fn open(roots: RootCertStore) -> Result<Self> {
        let mut config = ClientConfig::builder_with_provider(super::super::provider())
            .with_safe_default_protocol_versions()
            .doing("set up TLS to the authority")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    async fn send<B>(self, request: Request<B>) -> HttpResult<Response<Bytes>>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let uri = request.uri().clone();
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or_else(|| format!("{uri} is not an https:// address"))?;
        let tls = self.connect(&uri, host).await?;
        let request = addressed(request, &uri)?;
        let response = timeout(CALL, exchange(tls, request)).await;
        let response = response.map_err(|_late| format!("{host} did not respond in time"))?;
        response.map_err(|error| format!("{host} did not respond: {error}"))
    }

    async fn connect(&self, uri: &Uri, host: &str) -> HttpResult<TlsStream<TcpStream>> {
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let connected = timeout(CONNECT, TcpStream::connect((bare.as_str(), port))).await;
        let connected =
            connected.map_err(|_late| format!("no connection to {host}:{port} in time"))?;
        let stream =
            connected.map_err(|error| format!("no connection to {host}:{port}: {error}"))?;
        let name = ServerName::try_from(bare).map_err(|error| format!("{host}: {error}"))?;
        let tls = timeout(TLS, self.0.connect(name, stream)).await;
        let tls = tls.map_err(|_late| format!("no TLS with {host}:{port} in time"))?;
        tls.map_err(|error| format!("no TLS with {host}:{port}: {error}{}", hint(&error)))
    }
}

impl HttpClient for AcmeHttp {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let response = self.clone().send(request);
        Box::pin(async move {
            let (parts, body) = response
                .await
                .map_err(|message| instant_acme::Error::Other(message.into()))?
                .into_parts();
            let body = Box::new(body);
            Ok(BytesResponse { parts, body })
        })
    }
}

/// What the operator can do about a failed TLS handshake.
fn hint(error: &io::Error) -> &'static str {
    match Fault::from_handshake_error(error) {
        Fault::CertificateUntrusted => {
            " (for your own authority, or a firewall that intercepts TLS, set tls.directory_root to its root \
             certificate)"
        }
        Fault::CertificateExpired | Fault::CertificateNotYetValid => {
            " (check this machine's clock)"
        }
        Fault::CertificateOtherName | Fault::NoTls => " (check tls.directory)",
        _ => "",
    }
}

/// Rewrites the request for HTTP/1.1: only the path in the request line, and the host in a header.
fn addressed<B>(mut request: Request<B>, uri: &Uri) -> HttpResult<Request<B>> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::from_str(authority).map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|error| format!("{path}: {error}"))?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn exchange<B>(tls: TlsStream<TcpStream>, request: Request<B>) -> HttpResult<Response<Bytes>>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let begun = http1::handshake(TokioIo::new(tls)).await;
    let (mut send, connection) = begun.map_err(|error| error.to_string())?;
    let response = async move {
        let response = send.send_request(request).await;
        let (parts, body) = response.map_err(|error| error.to_string())?.into_parts();
        let body = Limited::new(body, BODY_LEN).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    tokio::pin!(response, connection);
    tokio::select! {
        biased;
        result = &mut response => result,
        _ = &mut connection => response.await,
    }
}
