//! One HTTPS request with limits on everything: connecting, the TLS handshake and the exchange each have a time limit, the
//! head and the body of the response have a maximum size, and the connection is closed afterwards.
//!
//! Redirects are not followed, proxies in the environment are ignored, and nothing is decompressed.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Doing, Error, Result};
use crate::security::pem;

/// Maximum size of the response's head, in bytes.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// How many addresses of a host are tried.
const ADDRESSES_TRIED_MAX: usize = 4;

type Cause = Box<dyn StdError + Send + Sync>;

/// The limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For finding the host's addresses and connecting to one of them.
    pub connect: Duration,
    /// For the TLS handshake.
    pub tls: Duration,
    /// From sending the request to the end of its response.
    pub exchange: Duration,
    /// For the response's body.
    pub body: ResponseBody,
}

/// What becomes of the body of a response.
#[derive(Clone, Copy, Debug)]
pub enum ResponseBody {
    /// It is returned; a body of more than `max` bytes is a failure.
    Read {
        /// The maximum size, in bytes.
        max: usize,
    },
    /// Only the status matters: some of the body is read, as most servers expect, and discarded.
    Discard {
        /// How much is read, in bytes.
        max: usize,
        /// How long it is read.
        within: Duration,
    },
}

/// The addresses that a request may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// All addresses of the URL's host, according to the machine's resolver.
    OfHost,
    /// These and no others; the name of the host is not resolved.
    Only(Vec<IpAddr>),
}

/// Why there is no response. The cause is `None` if the step took too long.
#[derive(Debug)]
pub enum Failure {
    /// The URL is not `https://` and a host.
    NotHttps,
    /// There was no connection.
    NoConnection(Option<io::Error>),
    /// The TLS handshake failed.
    NoTls(Option<io::Error>),
    /// The server did not respond, or its response is too large.
    NoResponse(Option<Cause>),
}

impl Failure {
    /// The cause as the end of a sentence such as "no connection": " in time", or a colon and the error.
    pub fn cause(&self) -> String {
        self.source()
            .map_or_else(|| " in time".to_owned(), |cause| format!(": {cause}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::NotHttps => return f.write_str("not an https:// address"),
            Self::NoConnection(_) => "no connection",
            Self::NoTls(_) => "no TLS",
            Self::NoResponse(_) => "no response",
        };
        write!(f, "{what}{}", self.cause())
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::NoConnection(Some(cause)) | Self::NoTls(Some(cause)) => Some(cause),
            Self::NoResponse(Some(cause)) => Some(&**cause),
            _ => None,
        }
    }
}

/// A client for servers whose certificate is signed by one of its root certificates. Each request has a connection of
/// its own.
#[derive(Clone)]
pub struct HttpsClient {
    tls: TlsConnector,
    limits: Limits,
}

impl HttpsClient {
    /// A client that trusts `roots` and no other certificate authorities.
    pub fn new(roots: RootCertStore, limits: Limits) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .doing("set up TLS for requests")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { tls, limits })
    }

    /// Sends `request` to its URL, at one of `addresses`, and returns the response. Fails at `deadline` at the latest.
    pub async fn send<B>(
        &self,
        request: Request<B>,
        addresses: Addresses,
        deadline: Instant,
    ) -> Result<Response<Bytes>, Failure>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Cause>,
    {
        let host = Host::of(request.uri())?;
        let request = in_origin_form(request).map_err(|cause| Failure::NoResponse(Some(cause)))?;
        let until = deadline.min(Instant::now() + self.limits.connect);
        let stream = connect(&host, addresses, until).await?;
        let until = deadline.min(Instant::now() + self.limits.tls);
        let tls = timeout_at(until, self.tls.connect(host.server_name, stream)).await;
        let tls = tls.map_err(|_late| Failure::NoTls(None))?;
        let tls = tls.map_err(|cause| Failure::NoTls(Some(cause)))?;
        let until = deadline.min(Instant::now() + self.limits.exchange);
        let response = timeout_at(until, exchange(tls, request, self.limits.body)).await;
        let response = response.map_err(|_late| Failure::NoResponse(None))?;
        response.map_err(|cause| Failure::NoResponse(Some(cause)))
    }
}

/// The host of a URL.
struct Host {
    /// Without the brackets of an IPv6 address.
    name: String,
    port: u16,
    /// The name that its certificate must have.
    server_name: ServerName<'static>,
}

impl Host {
    fn of(uri: &Uri) -> Result<Self, Failure> {
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or(Failure::NotHttps)?;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let server_name =
            ServerName::try_from(name.to_owned()).map_err(|_invalid| Failure::NotHttps)?;
        Ok(Self {
            name: name.to_owned(),
            port: uri.port_u16().unwrap_or(443),
            server_name,
        })
    }
}

/// Rewrites the request for HTTP/1.1: only the path in the request line, and the host in a header (RFC 9112, 3.2.1).
fn in_origin_form<B>(mut request: Request<B>) -> Result<Request<B>, Cause> {
    let uri = request.uri();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::from_str(authority)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = path.parse()?;
    *request.uri_mut() = path;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

/// A connection to one of the addresses, which are tried in turn. Each gets an equal share of the time that is left.
async fn connect(
    host: &Host,
    addresses: Addresses,
    deadline: Instant,
) -> Result<TcpStream, Failure> {
    let addresses: Vec<SocketAddr> = match addresses {
        Addresses::Only(all) => {
            let all = all.into_iter();
            all.map(|ip| SocketAddr::new(ip, host.port)).collect()
        }
        Addresses::OfHost => {
            let found = timeout_at(deadline, lookup_host((host.name.as_str(), host.port))).await;
            let found = found.map_err(|_late| Failure::NoConnection(None))?;
            let found = found.map_err(|cause| Failure::NoConnection(Some(cause)))?;
            found.collect()
        }
    };
    let count = addresses.len().min(ADDRESSES_TRIED_MAX);
    let mut last_error = None;
    for (tried, address) in addresses.into_iter().take(count).enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(count - tried).unwrap_or(1);
        let Ok(connected) = timeout(share, TcpStream::connect(address)).await else {
            last_error = None;
            continue;
        };
        let ready = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match ready {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = Some(error),
        }
    }
    Err(Failure::NoConnection(last_error))
}

/// Sends one request and returns the response; then closes the connection.
async fn exchange<B>(
    tls: TlsStream<TcpStream>,
    request: Request<B>,
    body: ResponseBody,
) -> Result<Response<Bytes>, Cause>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Cause>,
{
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_LEN_MAX);
    let (mut send, connection) = http.handshake(TokioIo::new(tls)).await?;
    let response = async move {
        let (parts, incoming) = send.send_request(request).await?.into_parts();
        Ok(Response::from_parts(parts, body.receive(incoming).await?))
    };
    tokio::pin!(response, connection);
    tokio::select! {
        biased;
        result = &mut response => result,
        // The connection has ended, so the response is ready, or never will be complete and fails.
        _ = &mut connection => response.await,
    }
}

impl ResponseBody {
    async fn receive(self, incoming: Incoming) -> Result<Bytes, Cause> {
        match self {
            Self::Read { max } => Ok(Limited::new(incoming, max).collect().await?.to_bytes()),
            Self::Discard { max, within } => {
                // If the body is slow or endless, the connection is closed.
                if timeout(within, drain(incoming, max)).await.is_err() {
                    log::debug!("a response was not read to its end");
                }
                Ok(Bytes::new())
            }
        }
    }
}

/// Reads and discards `max` bytes, or all if there are fewer.
async fn drain(mut body: Incoming, max: usize) {
    let mut left = max;
    while let Some(Ok(frame)) = body.frame().await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(read) {
            Some(rest) if rest > 0 => left = rest,
            _ => break,
        }
    }
}

/// The certificate authorities of the machine and those in the PEM file `extra_root`. `setting` is the name of the setting
/// with the file's path, for error messages.
///
/// # Errors
/// [`Error::Usage`] if the file cannot be used.
pub fn root_store(extra_root: Option<&Path>, setting: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        log::warn!("a certificate authority of this machine cannot be read: {error}");
    }
    let (added_count, _) = roots.add_parsable_certificates(native.certs);
    if added_count == 0 && extra_root.is_none() {
        log::warn!(
            "this machine trusts no certificate authority, so requests to sites will fail: install ca-certificates"
        );
    }
    let Some(path) = extra_root else {
        return Ok(roots);
    };
    let unusable = |problem: &str| Error::Usage(format!("{setting}: {} {problem}", path.display()));
    for certificate in pem::certificates(path).map_err(|problem| unusable(&problem))? {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(&format!("holds no certificate authority ({error})")))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    fn limits() -> Limits {
        let second = Duration::from_secs(1);
        Limits {
            connect: second,
            tls: second,
            exchange: second,
            body: ResponseBody::Read { max: 10 },
        }
    }

    async fn get(url: &str, addresses: Addresses) -> String {
        let client = HttpsClient::new(RootCertStore::empty(), limits()).unwrap();
        let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
        let end = Instant::now() + Duration::from_secs(2);
        let failure = client.send(request, addresses, end).await.unwrap_err();
        failure.to_string()
    }

    #[tokio::test]
    async fn a_url_without_https_or_a_host_is_refused() {
        for url in ["http://127.0.0.1:1/", "/path", "https://a..example/"] {
            let failure = get(url, Addresses::OfHost).await;
            assert_eq!(failure, "not an https:// address", "{url}");
        }
    }

    #[tokio::test]
    async fn a_request_without_addresses_or_to_a_silent_server_fails_in_time() {
        let url = "https://shop.example/";
        let failure = get(url, Addresses::Only(Vec::new())).await;
        assert_eq!(failure, "no connection in time");
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}/", silent.local_addr().unwrap().port());
        let only = Addresses::Only(vec![[127, 0, 0, 1].into()]);
        assert_eq!(get(&url, only).await, "no TLS in time");
    }

    #[test]
    fn only_the_path_is_in_the_request_line_and_the_port_in_the_host_header() {
        for (url, host, path) in [
            ("https://shop.example/x?y=z", "shop.example", "/x?y=z"),
            ("https://shop.example:8443", "shop.example:8443", "/"),
            ("https://[::1]:8443/x", "[::1]:8443", "/x"),
        ] {
            let request = in_origin_form(Request::get(url).body(()).unwrap()).unwrap();
            assert_eq!(request.headers()[HOST], host);
            assert_eq!(request.uri().to_string(), path);
        }
        let uri = "https://[::1]:8443/x".parse().unwrap();
        assert_eq!(Host::of(&uri).unwrap().name, "::1");
    }
}
