//! Simulated customers' sites: HTTPS on loopback, under test names, each with a behavior.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Response, Server, agent, eventually, read_response};

/// The callback path of the sites.
pub const CALLBACK: &str = "/.well-known/license-server";

/// How a site behaves when it is called.
#[derive(Clone, Debug)]
pub enum Behavior {
    /// 200 for an expected challenge, and for every delivery.
    Honest,
    /// Always this status.
    Status(u16),
    /// Always these bytes.
    Bytes(Vec<u8>),
    /// Accepts the connection and sends nothing, not even TLS.
    Mute,
    /// After the TLS handshake, sends the first text, then the second one endlessly.
    Endless(&'static str, &'static str),
    /// 200 for a challenge, and this status for a delivery.
    Refuses(u16),
    /// Forwards to the program on this port, without TLS.
    Forward(u16),
    /// Like `Honest`, as soon as the site has another behavior.
    Held,
}

/// A request that a site received.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    pub host: String,
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
    pub text: String,
    pub at: Instant,
}

impl ReceivedMessage {
    pub fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub fn step(&self) -> &str {
        self.body["step"].as_str().unwrap_or_default()
    }
}

#[derive(Default)]
struct Recorded {
    behaviors: HashMap<String, Behavior>,
    /// Request ids that the sites expect.
    awaited: HashSet<String>,
    received_messages: Vec<ReceivedMessage>,
    connections: usize,
    /// Bytes of HTTP received from the server, by all sites.
    received_bytes: usize,
}

/// All sites of a test, on one port.
pub struct Sites {
    pub port: u16,
    folder: TempDir,
    recorded: Arc<Mutex<Recorded>>,
}

/// A certificate for `names`, valid between these years, from a test authority.
fn certificates(folder: &TempDir, names: &[&str], years: (i32, i32)) -> ServerConfig {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&key).unwrap();
    std::fs::write(folder.path().join("root.pem"), root.pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    config
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap()
}

impl Sites {
    /// Starts sites with these names.
    pub fn start(names: &[&str]) -> Self {
        Self::start_with_certificate(names, (2020, 2099))
    }

    /// Starts sites with these names, and a certificate that is valid between these years.
    pub fn start_with_certificate(names: &[&str], years: (i32, i32)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Arc::new(certificates(&folder, names, years));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let recorded = Arc::<Mutex<Recorded>>::default();
        let shared = recorded.clone();
        std::thread::spawn(move || {
            // The listener lives as long as the test process, so that no other test gets its port.
            for stream in listener.incoming().flatten() {
                let (config, recorded) = (config.clone(), shared.clone());
                std::thread::spawn(move || serve(stream, config, &recorded));
            }
        });
        Self {
            port,
            folder,
            recorded,
        }
    }

    /// The authority's certificate, which a server must trust.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// Settings of a server that calls these sites.
    pub fn settings(&self) -> Vec<(String, String)> {
        let root = self.root().to_str().unwrap().to_owned();
        [
            ("HANDSHAKE__PORT", self.port.to_string()),
            ("HANDSHAKE__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]".to_owned()),
            ("HANDSHAKE__EXTRA_ROOT", root),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }

    pub fn behave(&self, host: &str, behavior: Behavior) {
        self.recorded
            .lock()
            .unwrap()
            .behaviors
            .insert(host.to_owned(), behavior);
    }

    pub fn received_messages(&self) -> Vec<ReceivedMessage> {
        self.recorded.lock().unwrap().received_messages.clone()
    }

    /// Connections that were opened to any of the sites.
    pub fn connections(&self) -> usize {
        self.recorded.lock().unwrap().connections
    }

    /// Bytes of HTTP that the sites have received.
    pub fn received_bytes(&self) -> usize {
        self.recorded.lock().unwrap().received_bytes
    }

    /// Makes the sites expect a challenge with this request id.
    pub fn expect_challenge(&self, request_id: &str) {
        self.recorded
            .lock()
            .unwrap()
            .awaited
            .insert(request_id.to_owned());
    }

    /// Waits for the challenge; its transaction id.
    pub fn wait_for_challenge(&self, request_id: &str) -> String {
        let mut found = None;
        eventually("the challenge", || {
            found = self
                .received_messages()
                .into_iter()
                .find(|message| message.body["request_id"] == request_id);
            found.is_some()
        });
        found.unwrap().body["transaction_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits for the delivery for a transaction.
    pub fn wait_for_delivery(&self, transaction_id: &str) -> ReceivedMessage {
        let mut found = None;
        eventually("the delivery", || {
            found = self.delivered(transaction_id);
            found.is_some()
        });
        found.unwrap()
    }

    /// The delivery for a transaction, if it has arrived.
    pub fn delivered(&self, transaction_id: &str) -> Option<ReceivedMessage> {
        let matches = |message: &ReceivedMessage| {
            message.step() == "delivery" && message.body["transaction_id"] == transaction_id
        };
        self.received_messages().into_iter().find(matches)
    }
}

fn serve(mut stream: TcpStream, config: Arc<ServerConfig>, recorded: &Mutex<Recorded>) {
    recorded.lock().unwrap().connections += 1;
    // A mute site only peeks at the client hello, for the host name.
    let mut hello = [0; 4096];
    let peeked = stream.peek(&mut hello).unwrap_or(0);
    let mute = {
        let recorded = recorded.lock().unwrap();
        let mut mute_sites = recorded
            .behaviors
            .iter()
            .filter(|(_, behavior)| matches!(behavior, Behavior::Mute));
        mute_sites.any(|(host, _)| {
            hello[..peeked]
                .windows(host.len())
                .any(|part| part == host.as_bytes())
        })
    };
    if mute {
        drop(stream.read_to_end(&mut Vec::new()));
        return;
    }
    let mut tls = ServerConnection::new(config).unwrap();
    while tls.is_handshaking() {
        if tls.complete_io(&mut stream).is_err() {
            return;
        }
    }
    let mut tls = BufReader::new(StreamOwned::new(tls, stream));
    let Some(message) = receive(&mut tls, recorded) else {
        return;
    };
    let behavior = {
        let mut recorded = recorded.lock().unwrap();
        recorded.received_messages.push(message.clone());
        recorded
            .behaviors
            .get(&message.host)
            .cloned()
            .unwrap_or(Behavior::Honest)
    };
    let expected = || {
        let recorded = recorded.lock().unwrap();
        message.step() == "delivery"
            || message.body["request_id"]
                .as_str()
                .is_some_and(|id| recorded.awaited.contains(id))
    };
    let honest_status = || if expected() { 200 } else { 404 };
    let plain =
        |status: u16| format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").into_bytes();
    let stream_out = tls.get_mut();
    let answer = match behavior {
        Behavior::Status(status) => plain(status),
        Behavior::Bytes(bytes) => bytes,
        Behavior::Refuses(status) if message.step() == "delivery" => plain(status),
        Behavior::Honest | Behavior::Mute | Behavior::Refuses(_) => plain(honest_status()),
        Behavior::Forward(port) => forward(port, &message).unwrap_or_else(|_| plain(502)),
        Behavior::Held => {
            let held = || {
                let recorded = recorded.lock().unwrap();
                matches!(recorded.behaviors.get(&message.host), Some(Behavior::Held))
            };
            while held() {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            plain(honest_status())
        }
        Behavior::Endless(begin, more) => {
            drop(stream_out.write_all(begin.as_bytes()));
            while stream_out
                .write_all(more.as_bytes())
                .and_then(|()| stream_out.flush())
                .is_ok()
            {
                if more.len() < 100 {
                    std::thread::park_timeout(Duration::from_millis(200));
                }
            }
            return;
        }
    };
    drop(stream_out.write_all(&answer));
    stream_out.conn.send_close_notify();
    drop(stream_out.flush());
    // Wait until the other side has read the response.
    drop(tls.read_to_end(&mut Vec::new()));
}

/// Forwards a request to a program on this machine; its response.
pub fn forward(port: u16, message: &ReceivedMessage) -> std::io::Result<Vec<u8>> {
    let mut request = message.line.clone();
    for (name, value) in &message.headers {
        request.extend(["\r\n", name, ": ", value]);
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(format!("{request}\r\n\r\n{}", message.text).as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn receive(tls: &mut impl BufRead, recorded: &Mutex<Recorded>) -> Option<ReceivedMessage> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        match tls.read_line(&mut line) {
            Ok(0) => return None,
            Ok(count) => recorded.lock().unwrap().received_bytes += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return None,
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let headers: Vec<(String, String)> = lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut message = ReceivedMessage {
        host: String::new(),
        line: lines.first()?.clone(),
        headers,
        body: Value::Null,
        text: String::new(),
        at: Instant::now(),
    };
    message.host = message.header("host").split(':').next()?.to_owned();
    let mut body = vec![0; message.header("content-length").parse().unwrap_or(0)];
    tls.read_exact(&mut body).ok()?;
    message.text = String::from_utf8(body).ok()?;
    message.body = serde_json::from_str(&message.text).unwrap_or(Value::Null);
    Some(message)
}

/// The client with which a site calls the server.
#[derive(Clone)]
pub struct SiteClient {
    agent: ureq::Agent,
    /// The address of the server, without a path.
    pub url: String,
    from: String,
}

impl SiteClient {
    pub fn new(server: &Server) -> Self {
        let ca = std::fs::read(server.path("data/tls/ca.pem")).unwrap();
        Self {
            agent: agent(&ca),
            url: format!("https://localhost:{}", server.port()),
            from: String::new(),
        }
    }

    /// The same from another address, for a server that trusts a proxy on this machine.
    pub fn from(&self, address: &str) -> Self {
        Self {
            from: address.to_owned(),
            ..self.clone()
        }
    }

    /// `POST` of any bytes to any path.
    pub fn send(&self, path: &str, body: &[u8]) -> Response {
        let request = self.agent.post(format!("{}{path}", self.url));
        let mut request = request.header("Content-Type", "application/json");
        if !self.from.is_empty() {
            request = request.header("X-Forwarded-For", &self.from);
        }
        request.send(body).and_then(read_response).unwrap()
    }

    /// Sends the first message of a handshake; the status of the response.
    pub fn send_request(&self, body: &Value) -> u16 {
        self.send("/api/site/request", body.to_string().as_bytes())
            .status
    }

    /// Sends the third message; the status of the response.
    pub fn send_transaction(&self, body: &Value) -> u16 {
        self.send("/api/site/transaction", body.to_string().as_bytes())
            .status
    }
}

/// A new random id, as sites create them.
pub fn id() -> String {
    let bytes: [u8; 32] = license_server::security::secret::random().unwrap();
    license_server::security::secret::hex(&bytes)
}

/// Exchanges the first two messages for `domain`; the transaction id.
pub fn start_handshake(
    sites: &Sites,
    site_client: &SiteClient,
    domain: &str,
    key: Option<&str>,
) -> String {
    let request_id = id();
    sites.expect_challenge(&request_id);
    let mut body = json!({ "domain": domain, "request_id": request_id });
    if let Some(key) = key {
        body["license_key"] = key.into();
    }
    assert_eq!(site_client.send_request(&body), 202, "{domain}");
    sites.wait_for_challenge(&request_id)
}

/// Exchanges all four messages; the delivered information, or `None` if the server refused.
pub fn complete_handshake(
    sites: &Sites,
    site_client: &SiteClient,
    domain: &str,
    operation: &str,
    details: &Value,
) -> Option<Value> {
    let key = (operation == "register").then(|| details["license_key"].as_str().unwrap());
    let transaction_id = start_handshake(sites, site_client, domain, key);
    let mut body = json!({ "transaction_id": transaction_id, "operation": operation });
    for (name, value) in details.as_object().into_iter().flatten() {
        body[name.as_str()] = value.clone();
    }
    match site_client.send_transaction(&body) {
        202 => {
            let message = sites.wait_for_delivery(&transaction_id);
            assert_eq!(message.host, domain);
            assert_eq!(message.body["operation"], operation);
            Some(message.body["information"].clone())
        }
        503 => None,
        status => panic!("{status}"),
    }
}
