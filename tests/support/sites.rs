//! Customers' sites: real HTTPS on loopback, under names of the tests' own, each with a manner.

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

use crate::support::{Answer, Server, agent, answer, eventually};

/// Where the sites take their callbacks.
pub const CALLBACK: &str = "/.well-known/license-server";

/// How a site behaves when it is called.
#[derive(Clone, Debug)]
pub enum Manner {
    /// 200 for a challenge that it waits for, and for every delivery.
    Honest,
    /// This status, whatever it is told.
    Status(u16),
    /// These bytes, whatever it is told.
    Bytes(Vec<u8>),
    /// Takes the connection and says nothing, not even TLS.
    Mute,
    /// Speaks TLS, and then never ends: this again and again.
    Endless(&'static str, &'static str),
    /// 200 for a challenge, and this status for a delivery.
    Refuses(u16),
    /// What the program on this port of the machine says, without TLS.
    Forward(u16),
    /// As an honest one, but so late.
    Late(Duration),
}

/// One message as a site heard it.
#[derive(Clone, Debug)]
pub struct Letter {
    pub host: String,
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
    pub text: String,
    pub at: Instant,
}

impl Letter {
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
struct Book {
    manners: HashMap<String, Manner>,
    /// Request ids that the sites wait for.
    awaited: HashSet<String>,
    letters: Vec<Letter>,
    connections: usize,
    /// Bytes of HTTP that came from the server, whoever was called.
    heard_bytes: usize,
}

/// Every site of one test, behind one port.
pub struct Sites {
    pub port: u16,
    folder: TempDir,
    book: Arc<Mutex<Book>>,
}

/// Certificates for `names` by an authority of the tests' own, beginning and ending at these years.
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
    /// Sites of these names.
    pub fn open(names: &[&str]) -> Self {
        Self::certified(names, (2020, 2099))
    }

    /// Sites whose certificate is for these names and these years.
    pub fn certified(names: &[&str], years: (i32, i32)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Arc::new(certificates(&folder, names, years));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let book = Arc::<Mutex<Book>>::default();
        let shared = book.clone();
        std::thread::spawn(move || {
            // The listener lives as long as the test process: a port that nobody else gets meanwhile.
            for stream in listener.incoming().flatten() {
                let (config, book) = (config.clone(), shared.clone());
                std::thread::spawn(move || serve(stream, config, &book));
            }
        });
        Self { port, folder, book }
    }

    /// The authority that a server must trust.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// Settings with which a server calls these sites.
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

    pub fn behave(&self, host: &str, manner: Manner) {
        self.book
            .lock()
            .unwrap()
            .manners
            .insert(host.to_owned(), manner);
    }

    pub fn letters(&self) -> Vec<Letter> {
        self.book.lock().unwrap().letters.clone()
    }

    /// Connections that were opened to any of the sites.
    pub fn connections(&self) -> usize {
        self.book.lock().unwrap().connections
    }

    /// Bytes of HTTP that were heard.
    pub fn heard_bytes(&self) -> usize {
        self.book.lock().unwrap().heard_bytes
    }

    /// From now on a challenge with this id is one that a site waits for.
    pub fn await_challenge(&self, request_id: &str) {
        self.book
            .lock()
            .unwrap()
            .awaited
            .insert(request_id.to_owned());
    }

    /// The transaction id that came with the challenge.
    pub fn challenge(&self, request_id: &str) -> String {
        let mut found = None;
        eventually("the challenge", || {
            found = self
                .letters()
                .into_iter()
                .find(|letter| letter.body["request_id"] == request_id);
            found.is_some()
        });
        found.unwrap().body["transaction_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// What was delivered for a transaction.
    pub fn delivery(&self, transaction_id: &str) -> Letter {
        let mut found = None;
        eventually("the delivery", || {
            found = self.delivered(transaction_id);
            found.is_some()
        });
        found.unwrap()
    }

    /// What was delivered for a transaction, if it was already.
    pub fn delivered(&self, transaction_id: &str) -> Option<Letter> {
        let of_it = |letter: &Letter| {
            letter.step() == "delivery" && letter.body["transaction_id"] == transaction_id
        };
        self.letters().into_iter().find(of_it)
    }
}

fn serve(mut stream: TcpStream, config: Arc<ServerConfig>, book: &Mutex<Book>) {
    book.lock().unwrap().connections += 1;
    // A mute one takes the hello, to know whom it is for, and is silent from then on.
    let mut hello = [0; 4096];
    let peeked = stream.peek(&mut hello).unwrap_or(0);
    let mute = {
        let book = book.lock().unwrap();
        let mut mutes = book
            .manners
            .iter()
            .filter(|(_, manner)| matches!(manner, Manner::Mute));
        mutes.any(|(host, _)| {
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
    let Some(letter) = hear(&mut tls, book) else {
        return;
    };
    let manner = {
        let mut book = book.lock().unwrap();
        book.letters.push(letter.clone());
        book.manners
            .get(&letter.host)
            .cloned()
            .unwrap_or(Manner::Honest)
    };
    let known = || {
        let book = book.lock().unwrap();
        letter.step() == "delivery"
            || letter.body["request_id"]
                .as_str()
                .is_some_and(|id| book.awaited.contains(id))
    };
    let honest = || if known() { 200 } else { 404 };
    let plain =
        |status: u16| format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").into_bytes();
    let out = tls.get_mut();
    let answer = match manner {
        Manner::Status(status) => plain(status),
        Manner::Bytes(bytes) => bytes,
        Manner::Refuses(status) if letter.step() == "delivery" => plain(status),
        Manner::Honest | Manner::Mute | Manner::Refuses(_) => plain(honest()),
        Manner::Forward(port) => forward(port, &letter).unwrap_or_else(|_| plain(502)),
        Manner::Late(span) => {
            std::thread::park_timeout(span);
            plain(honest())
        }
        Manner::Endless(begin, more) => {
            drop(out.write_all(begin.as_bytes()));
            while out
                .write_all(more.as_bytes())
                .and_then(|()| out.flush())
                .is_ok()
            {
                if more.len() < 100 {
                    std::thread::park_timeout(Duration::from_millis(200));
                }
            }
            return;
        }
    };
    drop(out.write_all(&answer));
    out.conn.send_close_notify();
    drop(out.flush());
    // Until the other end has read it.
    drop(tls.read_to_end(&mut Vec::new()));
}

/// What a program on this machine answers to `letter`.
pub fn forward(port: u16, letter: &Letter) -> std::io::Result<Vec<u8>> {
    let mut request = letter.line.clone();
    for (name, value) in &letter.headers {
        request.extend(["\r\n", name, ": ", value]);
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(format!("{request}\r\n\r\n{}", letter.text).as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn hear(tls: &mut impl BufRead, book: &Mutex<Book>) -> Option<Letter> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        match tls.read_line(&mut line) {
            Ok(0) => return None,
            Ok(count) => book.lock().unwrap().heard_bytes += count,
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
    let mut letter = Letter {
        host: String::new(),
        line: lines.first()?.clone(),
        headers,
        body: Value::Null,
        text: String::new(),
        at: Instant::now(),
    };
    letter.host = letter.header("host").split(':').next()?.to_owned();
    let mut body = vec![0; letter.header("content-length").parse().unwrap_or(0)];
    tls.read_exact(&mut body).ok()?;
    letter.text = String::from_utf8(body).ok()?;
    letter.body = serde_json::from_str(&letter.text).unwrap_or(Value::Null);
    Some(letter)
}

/// What a site says to the server.
#[derive(Clone)]
pub struct Voice {
    agent: ureq::Agent,
    url: String,
    from: String,
}

impl Voice {
    pub fn of(server: &Server) -> Self {
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
    pub fn send(&self, path: &str, body: &[u8]) -> Answer {
        let request = self.agent.post(format!("{}{path}", self.url));
        let mut request = request.header("Content-Type", "application/json");
        if !self.from.is_empty() {
            request = request.header("X-Forwarded-For", &self.from);
        }
        request.send(body).and_then(answer).unwrap()
    }

    /// The first message; the status of its answer.
    pub fn ask(&self, body: &Value) -> u16 {
        self.send("/api/site/request", body.to_string().as_bytes())
            .status
    }

    /// The third message; the status of its answer.
    pub fn want(&self, body: &Value) -> u16 {
        self.send("/api/site/transaction", body.to_string().as_bytes())
            .status
    }
}

/// An id as sites make them.
pub fn id() -> String {
    let bytes: [u8; 32] = license_server::security::secret::random().unwrap();
    license_server::security::secret::hex(&bytes)
}

/// The first two messages for `domain`, by the site itself; the transaction id.
pub fn begin(sites: &Sites, voice: &Voice, domain: &str, key: Option<&str>) -> String {
    let request_id = id();
    sites.await_challenge(&request_id);
    let mut body = json!({ "domain": domain, "request_id": request_id });
    if let Some(key) = key {
        body["license_key"] = key.into();
    }
    assert_eq!(voice.ask(&body), 202, "{domain}");
    sites.challenge(&request_id)
}

/// All four messages; what was delivered, or none where the server did not want to.
pub fn whole(
    sites: &Sites,
    voice: &Voice,
    domain: &str,
    operation: &str,
    details: &Value,
) -> Option<Value> {
    let key = (operation == "register").then(|| details["license_key"].as_str().unwrap());
    let transaction_id = begin(sites, voice, domain, key);
    let mut body = json!({ "transaction_id": transaction_id, "operation": operation });
    for (name, value) in details.as_object().into_iter().flatten() {
        body[name.as_str()] = value.clone();
    }
    match voice.want(&body) {
        202 => {
            let letter = sites.delivery(&transaction_id);
            assert_eq!(letter.host, domain);
            assert_eq!(letter.body["operation"], operation);
            Some(letter.body["information"].clone())
        }
        503 => None,
        status => panic!("{status}"),
    }
}
