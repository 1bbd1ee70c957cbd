//! `license-server health`: what a running server answers to `GET /health`, for containers, which have no other client.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::CONNECT_TIMEOUT;
use crate::config::{Config, TlsMode};
use crate::console::{self, OutputFormat};
use crate::error::{Doing, Error, Result};

/// Longer than the server itself waits for its database.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;
const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Asks the server of these settings on this machine, and prints its answer.
///
/// # Errors
/// [`Error::State`] if nothing answers, or if the server is not healthy.
pub fn health(settings: &Config, output: OutputFormat) -> Result<()> {
    let address = own_address(settings);
    let answer = ask(settings).map_err(|error| {
        Error::State(format!(
            "{address} does not answer ({error}): start `license-server serve`"
        ))
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.1 200 ") {
        let said = if body.is_empty() { head } else { body };
        return Err(Error::State(format!("not healthy: {said}")));
    }
    match output {
        OutputFormat::Json => console::text(&format!("{body}\n")),
        OutputFormat::Text => console::text("ok\n"),
    }
}

/// Where this machine reaches its own server.
pub(super) fn own_address(settings: &Config) -> SocketAddr {
    let server = &settings.server;
    let mut address = SocketAddr::new(server.address, server.port);
    if server.address.is_unspecified() {
        address.set_ip(if server.address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

/// The whole answer to the request.
fn ask(settings: &Config) -> Result<String> {
    let doing = "ask the server";
    let mut tcp =
        TcpStream::connect_timeout(&own_address(settings), CONNECT_TIMEOUT).doing(doing)?;
    tcp.set_read_timeout(Some(ANSWER_TIMEOUT)).doing(doing)?;
    tcp.set_write_timeout(Some(ANSWER_TIMEOUT)).doing(doing)?;
    if settings.tls.mode == TlsMode::Off {
        return exchange(&mut tcp).doing(doing);
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .doing(doing)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").doing(doing)?;
    let tls = ClientConnection::new(Arc::new(config), name).doing(doing)?;
    exchange(&mut StreamOwned::new(tls, tcp)).doing(doing)
}

fn exchange(stream: &mut (impl Read + Write)) -> std::io::Result<String> {
    stream.write_all(REQUEST)?;
    let mut answer = String::new();
    match stream.take(ANSWER_MAX).read_to_string(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        // A connection that is closed without a word of TLS has still carried the whole answer.
        _ => Ok(answer),
    }
}

/// Accepts every certificate: the server is this machine's own, its certificate may have any name, and nothing secret is
/// sent to it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
