//! HTTPS to the ACME authority.
//!
//! Unlike the addresses of sites, the address of the authority is not checked, because the operator chose it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, Uri};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::RootCertStore;
use tokio::time::Instant;

use crate::error::Result;
use crate::net::egress;
use crate::net::https::{Addresses, Failure, HttpsClient, Limits, ResponseBody};

const CONNECT: Duration = Duration::from_secs(10);
const TLS: Duration = Duration::from_secs(10);
/// From sending a request to the end of its response.
const EXCHANGE: Duration = Duration::from_secs(45);
/// The longest response, in bytes; a chain of certificates has a few thousand.
const BODY_LEN: usize = 512 * 1024;

/// The HTTPS client for the authority.
#[derive(Clone)]
pub(super) struct AcmeHttp(HttpsClient);

impl AcmeHttp {
    pub(super) fn open(roots: RootCertStore) -> Result<Self> {
        let limits = Limits {
            connect: CONNECT,
            tls: TLS,
            exchange: EXCHANGE,
            body: ResponseBody::Read { max: BODY_LEN },
        };
        HttpsClient::new(roots, limits).map(Self)
    }
}

impl HttpClient for AcmeHttp {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let (client, uri) = (self.0.clone(), request.uri().clone());
        Box::pin(async move {
            let end = Instant::now() + CONNECT + TLS + EXCHANGE;
            let response = client.send(request, Addresses::OfHost, end).await;
            let response = response.map_err(|failure| describe(&uri, &failure));
            let (parts, body) = response
                .map_err(|message| instant_acme::Error::Other(message.into()))?
                .into_parts();
            let body = Box::new(body);
            Ok(BytesResponse { parts, body })
        })
    }
}

/// A failure as one sentence for the log.
fn describe(uri: &Uri, failure: &Failure) -> String {
    let (host, cause) = (uri.host().unwrap_or_default(), failure.cause());
    let port = uri.port_u16().unwrap_or(443);
    match failure {
        Failure::NotHttps => format!("{uri} is not an https:// address"),
        Failure::NoConnection(_) => format!("no connection to {host}:{port}{cause}"),
        Failure::NoTls(error) => {
            let hint = error.as_ref().map_or("", hint);
            format!("no TLS with {host}:{port}{cause}{hint}")
        }
        Failure::NoResponse(_) => format!("{host} did not respond{cause}"),
    }
}

/// What the operator can do about a failed TLS handshake.
fn hint(error: &io::Error) -> &'static str {
    match egress::Failure::from_handshake_error(error) {
        egress::Failure::CertificateUntrusted => {
            " (for your own authority, or a firewall that intercepts TLS, set tls.directory_root to its root \
             certificate)"
        }
        egress::Failure::CertificateExpired | egress::Failure::CertificateNotYetValid => {
            " (check this machine's clock)"
        }
        egress::Failure::CertificateOtherName | egress::Failure::NoTls => " (check tls.directory)",
        _ => "",
    }
}
