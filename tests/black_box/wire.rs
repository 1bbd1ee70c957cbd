//! A client for raw bytes on a socket, with or without TLS.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::support::{Server, connect_tcp};

/// The timeout of one read: far above every limit of the front.
const READ_TIMEOUT: Duration = Duration::from_secs(40);
pub const BOTH_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
pub const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// A connection with TLS.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// One HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawResponse {
    pub status: u16,
    /// In the order of arrival, names in lower case, without `date`.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl RawResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether it has the headers that every response must have, and no `server` header.
    pub fn has_security_headers(&self) -> bool {
        [
            ("cache-control", "no-store"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'",
            ),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ]
        .iter()
        .all(|(name, value)| self.header(name) == Some(value))
            && self.header("server").is_none()
    }
}

/// A TLS connection that trusts the server's own certificate authority.
pub fn tls(server: &Server) -> Tls {
    tls_with(
        server,
        &server.path("data/tls/ca.pem"),
        BOTH_VERSIONS,
        HTTP_1,
    )
    .unwrap()
}

/// The same with other parameters; the handshake is complete when this returns.
pub fn tls_with(
    server: &Server,
    root: &std::path::Path,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> Result<Tls> {
    handshake(connect(server), root, versions, protocols)
}

/// TLS on an open connection.
pub fn tls_on(stream: TcpStream, server: &Server) -> Tls {
    try_tls_on(stream, server).unwrap()
}

/// The same, if the server may not answer at all.
pub fn try_tls_on(stream: TcpStream, server: &Server) -> Result<Tls> {
    stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    handshake(
        stream,
        &server.path("data/tls/ca.pem"),
        BOTH_VERSIONS,
        HTTP_1,
    )
}

fn handshake(
    stream: TcpStream,
    root: &std::path::Path,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(root).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let mut config = config
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        stream,
    );
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// A connection on which nothing was sent yet, with a read timeout.
pub fn connect(server: &Server) -> TcpStream {
    let stream = connect_tcp(server.port());
    stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends `request` and reads one response; `None` if the server closes the connection without one.
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Option<RawResponse> {
    stream
        .write_all(request)
        .and_then(|()| stream.flush())
        .ok()?;
    read_response(stream, request.starts_with(b"HEAD "))
}

/// Reads one response; `headless`: of a `HEAD` request, without a body.
pub fn read_response(stream: &mut impl Read, headless: bool) -> Option<RawResponse> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = one_byte(stream);
        assert!(
            byte.is_some() || head.is_empty(),
            "the head is incomplete: {head:?}"
        );
        head.extend(byte?);
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    headers.retain(|(name, _)| name != "date");
    let mut response = RawResponse {
        status,
        headers,
        body: String::new(),
    };
    let length = response
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; if headless { 0 } else { length }];
    stream
        .read_exact(&mut body)
        .unwrap_or_else(|error| panic!("the body of {response:?} is incomplete: {error}"));
    response.body = String::from_utf8(body).unwrap();
    Some(response)
}

fn one_byte(stream: &mut impl Read) -> Option<[u8; 1]> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok().map(|()| byte)
}

/// Reads until the server closes the connection; false if it does not within the timeout.
pub fn closes(stream: &mut impl Read) -> bool {
    let mut bytes = [0; 512];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            }
        }
    }
}

/// Reads until the server ends the connection as TLS asks for, with an alert (RFC 8446 §6.1); false if it does not.
pub fn ends(stream: &mut Tls) -> bool {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).is_ok()
}

/// A `POST` request with a JSON body, or the beginning of one if `body` is shorter than `length`.
pub fn post(server: &Server, path: &str, length: usize, body: &str) -> Vec<u8> {
    let key = server.api_key();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A `GET` request with the API key and these header lines, each with its CRLF.
pub fn get(server: &Server, path: &str, lines: &str) -> Vec<u8> {
    let key = server.api_key();
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n{lines}\r\n")
        .into_bytes()
}
