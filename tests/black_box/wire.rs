//! A client that can say anything: bytes on a socket, with TLS or without.

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

use crate::support::{Server, raw};

/// Longest wait for one read: far above every limit of the front.
const PATIENCE: Duration = Duration::from_secs(40);
pub const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
pub const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// A connection with TLS on it.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// One answer, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub status: u16,
    /// In the order in which they came, names in lower case; without the date.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Heard {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether it carries what every answer carries.
    pub fn is_guarded(&self) -> bool {
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

/// A connection by TLS that trusts the server's own authority.
pub fn tls(server: &Server) -> Tls {
    tls_with(server, &server.path("data/tls/ca.pem"), BOTH, HTTP_1).unwrap()
}

/// The same by other terms; the handshake is done when this returns.
pub fn tls_with(
    server: &Server,
    root: &std::path::Path,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> Result<Tls> {
    greeted(patient(server), root, versions, protocols)
}

/// TLS on a connection that is there already.
pub fn tls_on(stream: TcpStream, server: &Server) -> Tls {
    try_tls_on(stream, server).unwrap()
}

/// The same where the server may not answer at all.
pub fn try_tls_on(stream: TcpStream, server: &Server) -> Result<Tls> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    greeted(stream, &server.path("data/tls/ca.pem"), BOTH, HTTP_1)
}

fn greeted(
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

/// A connection without a word on it that does not wait for ever.
pub fn patient(server: &Server) -> TcpStream {
    let stream = raw(server.port());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends `request` and reads one answer; none where the other end closes without one.
pub fn ask(stream: &mut (impl Read + Write), request: &[u8]) -> Option<Heard> {
    stream
        .write_all(request)
        .and_then(|()| stream.flush())
        .ok()?;
    hear(stream, request.starts_with(b"HEAD "))
}

/// Reads one answer.
pub fn hear(stream: &mut impl Read, headless: bool) -> Option<Heard> {
    let mut begun = Vec::new();
    while !begun.ends_with(b"\r\n\r\n") {
        let byte = one_byte(stream);
        assert!(
            byte.is_some() || begun.is_empty(),
            "a head broke off: {begun:?}"
        );
        begun.extend(byte?);
    }
    let text = String::from_utf8(begun).unwrap();
    let mut lines = text.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    headers.retain(|(name, _)| name != "date");
    let mut heard = Heard {
        status,
        headers,
        body: String::new(),
    };
    let length = heard
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; if headless { 0 } else { length }];
    stream
        .read_exact(&mut body)
        .unwrap_or_else(|error| panic!("{heard:?} broke off: {error}"));
    heard.body = String::from_utf8(body).unwrap();
    Some(heard)
}

fn one_byte(stream: &mut impl Read) -> Option<[u8; 1]> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok().map(|()| byte)
}

/// Reads until the other end closes, and says whether it did.
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

/// The text of a `POST` of JSON, or the begin of one whose `body` is shorter than `length`.
pub fn post(server: &Server, path: &str, length: usize, body: &str) -> Vec<u8> {
    let key = server.api_key();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The text of a `GET` with the API key and these header lines, each with its end.
pub fn get(server: &Server, path: &str, lines: &str) -> Vec<u8> {
    let key = server.api_key();
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n{lines}\r\n")
        .into_bytes()
}
