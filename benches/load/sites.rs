//! Measures handshakes with websites: 64 concurrent ones, each from the request to the delivered information, with
//! both calls of the server on TLS connections of their own. The websites run in this process and share the CPU.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connection::Connection;
use crate::data::Size;
use crate::drive::quantile_ms;
use crate::process::{Installation, Process, processor_time};
use crate::report::Line;
use crate::{Bench, data, folder};

/// Concurrent websites.
const CONCURRENT: usize = 64;
/// Number of domains. Each may be called three times a minute by callers that are not known, so that with fewer domains
/// the server would refuse a part of the handshakes.
const DOMAINS: u32 = 20_000;
/// Duration; short enough that no domain reaches its limit per minute.
const SPAN: Duration = Duration::from_secs(8);
/// Goal: milliseconds from the request to the information.
const DELIVERED_MS: f64 = 100.0;

/// Receivers of expected messages, by the id in the message.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Value>>>>;

/// Measures handshakes.
pub fn measure(bench: &mut Bench) {
    let dir = folder();
    let installation = Installation::new(dir.path());
    let size = Size {
        licenses: DOMAINS,
        sessions: 1,
        history: 0,
        customers: 1,
        refusals: 0,
    };
    data::fill(&installation, size);
    installation.run(&["limit", "set", "site", "--per-minute", "0"]);
    let named =
        "update licenses set domain = 'n' || license_id || '.sites.localhost', state = 'active'";
    let named = data::open(&installation).execute(named, []).unwrap();
    assert_eq!(named, DOMAINS as usize);
    let runtime = bench.runtime.clone();
    runtime.block_on(async {
        let waiting = Waiting::default();
        let port = open(&installation, waiting.clone()).await;
        let server = serve(&installation, port);
        server.wait_until_ready("/versions.json").await;
        // First sequentially, for the time of one handshake; then concurrently.
        for concurrent in [1, CONCURRENT] {
            let handshakes = run(&server, &waiting, concurrent).await;
            bench.report.add(handshakes.line(concurrent));
        }
        server.stop();
    });
}

fn serve(installation: &Installation, port: u16) -> Process {
    let own = crate::process::free_port();
    let mut command = installation.command(&["serve"]);
    command
        .env("LICENSE_SERVER_SERVER__PORT", own.to_string())
        .env("LICENSE_SERVER_HANDSHAKE__PORT", port.to_string())
        .env(
            "LICENSE_SERVER_HANDSHAKE__ALLOW_NETWORKS",
            "[\"127.0.0.0/8\", \"::1/128\"]",
        )
        .env("LICENSE_SERVER_HANDSHAKE__EXTRA_ROOT", "root.pem")
        .stderr(std::process::Stdio::null());
    Process::start(
        command,
        own,
        Some(installation.folder.join("data/tls/ca.pem")),
    )
}

/// The result of a measurement.
pub struct Handshakes {
    pub per_second: f64,
    pub refused: u64,
    /// Microseconds from the request to the delivered information.
    pub spans: Histogram<u64>,
    /// CPU time of the server per handshake, in microseconds.
    pub processor_us: f64,
}

impl Handshakes {
    fn line(&self, concurrent: usize) -> Line {
        Line {
            connections: Some(concurrent),
            per_second: Some(self.per_second),
            p50_ms: Some(quantile_ms(&self.spans, 0.5)),
            p99_ms: Some(quantile_ms(&self.spans, 0.99)),
            p99_wanted_ms: Some(DELIVERED_MS),
            processor_us: Some(self.processor_us),
            refused: self.refused,
            note: format!("{} delivered", self.spans.len()),
            ..Line::new("handshake with a site, to its delivery")
        }
    }
}

async fn run(server: &Process, waiting: &Waiting, concurrent: usize) -> Handshakes {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let target = server.target("");
    let (begun, before) = (Instant::now(), processor_time(target.pid));
    let mut sites = JoinSet::new();
    for _ in 0..concurrent {
        let (target, waiting) = (target.clone(), waiting.clone());
        sites.spawn(async move {
            let mut connection = Connection::open(&target).await;
            let (mut spans, mut refused) = (Vec::new(), 0_u64);
            while begun.elapsed() < SPAN {
                let number = NEXT.fetch_add(1, Ordering::Relaxed) % DOMAINS + 1;
                let domain = format!("n{number}.sites.localhost");
                match handshake(&mut connection, &waiting, &domain).await {
                    Some(span) => spans.push(span),
                    None => refused += 1,
                }
            }
            (spans, refused)
        });
    }
    let (mut all, mut refused) = (Histogram::new(3).unwrap(), 0);
    while let Some(site) = sites.join_next().await {
        let (spans, refused_here) = site.unwrap();
        refused += refused_here;
        for span in spans {
            all.record(u64::try_from(span.as_micros()).unwrap())
                .unwrap();
        }
    }
    let processor = processor_time(target.pid).saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "a count of some seconds")]
    let count = all.len() as f64;
    Handshakes {
        per_second: count / begun.elapsed().as_secs_f64(),
        refused,
        processor_us: processor.as_secs_f64() * 1e6 / count,
        spans: all,
    }
}

/// Exchanges all four messages; the duration, or `None` if it was refused.
async fn handshake(
    connection: &mut Connection,
    waiting: &Waiting,
    domain: &str,
) -> Option<Duration> {
    let id = format!(
        "{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    );
    let challenged = register_message(waiting, &id);
    let begun = Instant::now();
    let request = json!({ "domain": domain, "request_id": id }).to_string();
    if connection.post("/api/site/request", request.into()).await != 202 {
        waiting.lock().unwrap().remove(&id);
        return None;
    }
    let challenge = challenged.await.ok()?;
    let transaction = challenge["transaction_id"].as_str()?.to_owned();
    let delivered = register_message(waiting, &transaction);
    let transaction_body =
        json!({ "transaction_id": transaction, "operation": "versions" }).to_string();
    if connection
        .post("/api/site/transaction", transaction_body.into())
        .await
        != 202
    {
        waiting.lock().unwrap().remove(&transaction);
        return None;
    }
    delivered.await.ok()?;
    Some(begun.elapsed())
}

fn register_message(waiting: &Waiting, id: &str) -> oneshot::Receiver<Value> {
    let (sender, receiver) = oneshot::channel();
    waiting.lock().unwrap().insert(id.to_owned(), sender);
    receiver
}

/// Starts the websites; their port. Writes the authority that the server must trust to `root.pem`.
async fn open(installation: &Installation, waiting: Waiting) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(certificate(installation)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, waiting) = (acceptor.clone(), waiting.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let serve_message = hyper::service::service_fn(move |request| {
                    serve_message(request, waiting.clone())
                });
                let served = hyper::server::conn::http1::Builder::new();
                drop(
                    served
                        .serve_connection(TokioIo::new(stream), serve_message)
                        .await,
                );
            });
        }
    });
    port
}

async fn serve_message(
    request: Request<Incoming>,
    waiting: Waiting,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap();
    let name = match message["step"].as_str() {
        Some("challenge") => "request_id",
        _ => "transaction_id",
    };
    let awaited = waiting
        .lock()
        .unwrap()
        .remove(message[name].as_str().unwrap());
    let known = awaited.is_some_and(|awaited| awaited.send(message).is_ok());
    let status = if known { 200 } else { 404 };
    Ok(Response::builder()
        .status(status)
        .body(Empty::new())
        .unwrap())
}

fn certificate(installation: &Installation) -> ServerConfig {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&key).unwrap();
    std::fs::write(installation.folder.join("root.pem"), root.pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["*.sites.localhost".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap()
}
