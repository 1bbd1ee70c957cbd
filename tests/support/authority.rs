//! A certificate authority: Pebble, the ACME test server, behind a proxy with which a test can delay, drop or change
//! requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Server, agent, eventually, free_port};

/// The name in the certificates; the test's name server resolves every name to this machine.
pub const NAME: &str = "licenses.example.test";
/// Pebble's paths for orders and accounts.
pub const ORDERS: &str = "/order-plz";
pub const ACCOUNTS: &str = "/sign-me-up";
/// The proxy's path for renewal information (ARI), which this version of Pebble lacks.
pub const RENEWALS: &str = "/renewal-info";

#[derive(Default)]
struct Recorded {
    /// Paths whose requests are delayed.
    held: Vec<&'static str>,
    /// Paths whose requests are dropped.
    cut: Vec<&'static str>,
    /// Whether renewals are due; `None` without renewal information.
    renewals: Option<bool>,
    /// The requests so far: path and payload.
    asked: Vec<(String, Value)>,
}

/// Pebble and the proxy in front of it.
pub struct Authority {
    folder: TempDir,
    port: u16,
    pebble_port: u16,
    management: u16,
    recorded: Arc<(Mutex<Recorded>, Condvar)>,
    pebble: Option<Child>,
}

/// Whether Pebble is installed. If not, prints that the test is skipped; with `CI=true` it fails.
#[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
pub fn pebble_is_installed() -> bool {
    let installed = Command::new("pebble").arg("-h").output().is_ok();
    if !installed {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "pebble is not on this machine"
        );
        eprintln!("SKIPPED: pebble is not on this machine");
    }
    installed
}

impl Authority {
    /// Prepares an authority without starting Pebble.
    pub fn prepare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        create_certificates(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (pebble_port, recorded) = (free_port(), Arc::<(Mutex<Recorded>, Condvar)>::default());
        let proxy = Proxy {
            port,
            pebble_port,
            recorded: recorded.clone(),
            server: server_tls(folder.path()),
            client: client_tls(&folder.path().join("root.pem")),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let proxy = proxy.clone();
                std::thread::spawn(move || proxy.serve(stream));
            }
        });
        Self {
            folder,
            port,
            pebble_port,
            management: free_port(),
            recorded,
            pebble: None,
        }
    }

    /// Settings of a server that uses this authority, with plain HTTP on `http_port`.
    pub fn settings(&self, http_port: u16) -> Vec<(String, String)> {
        let root = self.directory_root();
        [
            ("TLS__MODE", "acme".to_owned()),
            ("TLS__DOMAINS", format!("[\"{NAME}\"]")),
            ("TLS__CONTACT", "mailto:you@example.test".to_owned()),
            (
                "TLS__DIRECTORY",
                format!("https://localhost:{}/dir", self.port),
            ),
            ("TLS__DIRECTORY_ROOT", root.to_str().unwrap().to_owned()),
            ("TLS__HTTP_PORT", http_port.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }

    /// Starts Pebble, which validates on these ports and rejects `rejected` of a hundred valid nonces.
    pub fn start(&mut self, http_port: u16, tls_port: u16, rejected: u32) {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let file = |name: &str| self.folder.path().join(name);
        let config = json!({ "pebble": {
            "listenAddress": at(self.pebble_port), "managementListenAddress": at(self.management),
            "certificate": file("proxy.pem"), "privateKey": file("proxy.key"),
            "httpPort": http_port, "tlsPort": tls_port,
        }});
        std::fs::write(file("pebble.json"), config.to_string()).unwrap();
        let log = std::fs::File::create(file("pebble.log")).unwrap();
        let pebble = Command::new("pebble")
            .args(["-config", file("pebble.json").to_str().unwrap()])
            .args(["-dnsserver", &at(start_name_server())])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", rejected.to_string())
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn();
        self.pebble = Some(pebble.unwrap());
        eventually("pebble", || {
            TcpStream::connect(at(self.pebble_port)).is_ok()
        });
        let root = std::fs::read(file("root.pem")).unwrap();
        let url = format!("https://localhost:{}/roots/0", self.management);
        eventually("pebble's root", || {
            let answer = agent(&root).get(&url).call();
            let text = answer
                .ok()
                .and_then(|mut it| it.body_mut().read_to_string().ok());
            text.is_some_and(|pem| std::fs::write(self.root(), pem).is_ok())
        });
    }

    /// The root of the certificates that it issues.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("issuer.pem")
    }

    /// The root of the certificate of its own address.
    pub fn directory_root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// Delays requests for `path` from now on.
    pub fn delay_requests(&self, path: &'static str) {
        self.recorded.0.lock().unwrap().held.push(path);
    }

    /// Lets the delayed requests continue.
    pub fn release_requests(&self) {
        self.recorded.0.lock().unwrap().held.clear();
        self.recorded.1.notify_all();
    }

    /// Drops requests for `path` from now on.
    pub fn drop_requests(&self, path: &'static str) {
        self.recorded.0.lock().unwrap().cut.push(path);
    }

    /// Offers renewal information from now on: renewals are due now, or not for decades.
    pub fn offer_renewal_info(&self, due: bool) {
        self.recorded.0.lock().unwrap().renewals = Some(due);
    }

    /// The payloads of the requests for `path` so far.
    pub fn payloads_for(&self, path: &str) -> Vec<Value> {
        let recorded = self.recorded.0.lock().unwrap();
        let all = recorded
            .asked
            .iter()
            .filter(|(asked, _)| asked.starts_with(path));
        all.map(|(_, payload)| payload.clone()).collect()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        if let Some(mut pebble) = self.pebble.take() {
            drop(pebble.kill());
            drop(pebble.wait());
        }
    }
}

/// Creates a root, and a certificate from it for the proxy and Pebble.
fn create_certificates(folder: &Path) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = root.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(root, key);
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let params = CertificateParams::new(names.to_vec()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    for (name, text) in [
        ("root.pem", pem),
        ("proxy.pem", leaf.pem()),
        ("proxy.key", key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn server_tls(folder: &Path) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let chain = CertificateDer::from_pem_file(folder.join("proxy.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("proxy.key")).unwrap();
    let config = config.with_no_client_auth();
    Arc::new(config.with_single_cert(vec![chain], key).unwrap())
}

/// A TLS client configuration that trusts one root.
pub fn client_tls(root: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(root).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// A name server that resolves every name to 127.0.0.1; its port.
fn start_name_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut asked = [0; 1024];
        while let Ok((count, from)) = socket.recv_from(&mut asked) {
            let asked = &asked[..count];
            // The question: labels up to an empty one, then type and class.
            let Some(labels) = asked
                .get(12..)
                .and_then(|rest| rest.iter().position(|b| *b == 0))
            else {
                continue;
            };
            let Some(question) = asked.get(12..12 + labels + 5) else {
                continue;
            };
            let is_a = question[labels + 1..labels + 3] == [0, 1];
            let mut response = asked[..2].to_vec();
            response.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            response.extend(question);
            if is_a {
                response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            drop(socket.send_to(&response, from));
        }
    });
    port
}

#[derive(Clone)]
struct Proxy {
    port: u16,
    pebble_port: u16,
    recorded: Arc<(Mutex<Recorded>, Condvar)>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Proxy {
    fn serve(&self, mut stream: TcpStream) {
        let mut tls = ServerConnection::new(self.server.clone()).unwrap();
        while tls.is_handshaking() {
            if tls.complete_io(&mut stream).is_err() {
                return;
            }
        }
        let mut tls = BufReader::new(StreamOwned::new(tls, stream));
        let Some((path, request)) = read_request(&mut tls) else {
            return;
        };
        let (recorded, changed) = &*self.recorded;
        let mut recorded = recorded.lock().unwrap();
        recorded.asked.push((path.clone(), payload(&request)));
        let on = |all: &[&'static str]| all.iter().any(|one| path.starts_with(one));
        while on(&recorded.held) {
            recorded = changed.wait(recorded).unwrap();
        }
        if on(&recorded.cut) {
            return;
        }
        let renewals = recorded.renewals;
        drop(recorded);
        let answer = match renewals {
            Some(due) if path.starts_with(RENEWALS) => renewal_window(due),
            Some(_) if path == "/dir" => self.with_renewals(&self.forward(&request)),
            _ => self.forward(&request),
        };
        let tls = tls.get_mut();
        drop(tls.write_all(&answer));
        tls.conn.send_close_notify();
        drop(tls.flush());
    }

    /// Pebble's response; empty if it sends none.
    fn forward(&self, request: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.pebble_port)) else {
            return answer;
        };
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(self.client.clone(), name).unwrap();
        let mut tls = StreamOwned::new(tls, stream);
        if tls.write_all(request).is_ok() {
            drop(tls.read_to_end(&mut answer));
        }
        answer
    }

    /// The ACME directory with an entry for renewal information.
    fn with_renewals(&self, answer: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(answer.to_vec()).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let mut directory: Value = serde_json::from_str(body).unwrap();
        directory["renewalInfo"] = format!("https://localhost:{}{RENEWALS}", self.port).into();
        json_answer(&directory)
    }
}

fn json_answer(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nretry-after: 21600";
    format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

fn renewal_window(due: bool) -> Vec<u8> {
    let (start, end) = if due {
        ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")
    } else {
        ("2090-01-01T00:00:00Z", "2090-01-02T00:00:00Z")
    };
    json_answer(&json!({ "suggestedWindow": { "start": start, "end": end } }))
}

/// Reads one request: its path, and all its bytes.
fn read_request(stream: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut length = 0;
    loop {
        let line_start = bytes.len();
        if stream.read_until(b'\n', &mut bytes).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&bytes[line_start..]).to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let head = String::from_utf8(bytes.clone()).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    bytes.extend(body);
    Some((path, bytes))
}

/// The payload of a signed request; null if it has none.
fn payload(request: &[u8]) -> Value {
    let text = String::from_utf8_lossy(request);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let signed: Value = serde_json::from_str(body).unwrap_or_default();
    let payload = signed["payload"].as_str().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Prepares a server that gets its certificates from `authority`; also its port for plain HTTP.
pub fn prepare_server(authority: &Authority) -> (Server, u16) {
    let http_port = free_port();
    let settings = authority.settings(http_port);
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    (Server::prepare(&settings), http_port)
}
