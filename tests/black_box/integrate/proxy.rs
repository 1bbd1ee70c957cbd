//! A proxy between the programs and the server that responds in the server's place, with a certificate that they trust.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What it responds to each request, and the certificate from the server's authority.
pub struct Proxy {
    response: &'static str,
    tls: Arc<ServerConfig>,
}

impl Proxy {
    /// `folder` has the server's authority.
    pub fn new(folder: &Path, response: &'static str) -> Self {
        let read = |name| std::fs::read_to_string(folder.join(name)).unwrap();
        let authority = KeyPair::from_pem(&read("ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), authority).unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = config.with_no_client_auth();
        let config = config.with_single_cert(vec![leaf.der().clone()], key);
        Self {
            response,
            tls: Arc::new(config.unwrap()),
        }
    }

    /// Responds once, and closes the connection.
    pub fn respond(&self, stream: TcpStream) {
        let limit = Some(Duration::from_secs(5));
        stream.set_read_timeout(limit).unwrap();
        let tls = ServerConnection::new(self.tls.clone()).unwrap();
        let mut stream = StreamOwned::new(tls, stream);
        // The head and the body of a request may come one after the other.
        let (mut request, mut bytes) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"}") {
            match stream.read(&mut bytes) {
                Ok(count @ 1..) => request.extend(&bytes[..count]),
                _ => return,
            }
        }
        drop(stream.write_all(self.response.as_bytes()));
        stream.conn.send_close_notify();
        drop(stream.flush());
    }
}
