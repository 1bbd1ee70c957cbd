//! The load generator: a number of keep-alive connections, each with one request in progress at any time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;

use crate::process::processor_time;

/// Time before anything is counted, to warm both sides up.
const WARM_UP: Duration = Duration::from_millis(250);

/// The server to put load on.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<TlsConnector>,
    /// One for each product: the body at each place of a list belongs to the product at this place, over and over.
    pub api_keys: Arc<Vec<String>>,
    pub pid: u32,
}

/// What each connection does repeatedly; the bodies are divided among the connections.
#[derive(Clone)]
pub enum Work {
    /// `POST` requests to this path, with each body in turn.
    Post(&'static str, Arc<Vec<Bytes>>),
    /// `GET` requests for this path.
    Get(&'static str),
    /// Starts and ends a session with each body, one per license.
    StartAndEnd(Arc<Vec<Bytes>>),
}

/// When a measurement ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After this time, not counting the warm-up.
    Passed(Duration),
    /// Once every body has been sent.
    AllSent,
}

/// The result of a measurement.
pub struct Measured {
    /// Microseconds from request to response.
    latencies: Histogram<u64>,
    /// Responses other than 2xx, including the warm-up.
    pub refused: u64,
    /// Of those, 5xx.
    pub failed: u64,
    /// The counted time.
    elapsed: Duration,
    /// CPU time of the server during the counted time.
    processor: Duration,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of some seconds are far below 2^53"
)]
impl Measured {
    pub fn nothing() -> Self {
        Self {
            latencies: Histogram::new(3).unwrap(),
            refused: 0,
            failed: 0,
            elapsed: Duration::ZERO,
            processor: Duration::ZERO,
        }
    }

    /// Adds another round.
    pub fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).unwrap();
        self.refused += other.refused;
        self.failed += other.failed;
        self.elapsed += other.elapsed;
        self.processor += other.processor;
    }

    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU time of the server per request, in microseconds.
    pub fn processor_us(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.latencies.len() as f64
    }

    /// The latency at this quantile, in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Puts load on `target`.
pub async fn drive(target: &Target, work: &Work, connections: usize, until: Until) -> Measured {
    let ready = Arc::new(Barrier::new(connections + 1));
    let mut all = JoinSet::new();
    for number in 0..connections {
        let (target, work, ready) = (target.clone(), work.clone(), ready.clone());
        all.spawn(async move {
            let connection = Connection::open(&target).await;
            ready.wait().await;
            let share = (number, connections);
            Client::new(connection, until).run(&work, share).await
        });
    }
    ready.wait().await;
    let begun = Instant::now();
    let (counted_from, before) = if let Until::Passed(_) = until {
        tokio::time::sleep(WARM_UP).await;
        (begun + WARM_UP, processor_time(target.pid))
    } else {
        (begun, processor_time(target.pid))
    };
    let mut measured = Measured::nothing();
    let mut clients = Vec::with_capacity(connections);
    while let Some(client) = all.join_next().await {
        clients.push(client.unwrap());
    }
    measured.elapsed = match until {
        Until::Passed(span) => span,
        Until::AllSent => counted_from.elapsed(),
    };
    measured.processor = processor_time(target.pid).saturating_sub(before);
    for client in clients {
        for latency in client.latencies {
            measured.latencies.record(latency.into()).unwrap();
        }
        measured.refused += client.refused;
        measured.failed += client.failed;
    }
    measured
}

/// One connection and its results.
struct Client {
    connection: Connection,
    counted: (Instant, Option<Instant>),
    latencies: Vec<u32>,
    refused: u64,
    failed: u64,
}

impl Client {
    fn new(connection: Connection, until: Until) -> Self {
        let now = Instant::now();
        let counted = match until {
            Until::Passed(span) => (now + WARM_UP, Some(now + WARM_UP + span)),
            Until::AllSent => (now, None),
        };
        Self {
            connection,
            counted,
            latencies: Vec::with_capacity(1024),
            refused: 0,
            failed: 0,
        }
    }

    /// Works through every `of`-th body from `first` on.
    async fn run(mut self, work: &Work, (first, of): (usize, usize)) -> Self {
        let own: Vec<Bytes> = match work {
            Work::Get(_) => vec![Bytes::new()],
            Work::Post(_, bodies) | Work::StartAndEnd(bodies) => {
                bodies.iter().skip(first).step_by(of).cloned().collect()
            }
        };
        loop {
            for (place, body) in own.iter().enumerate() {
                self.connection.choose_api_key(first + place * of);
                match work {
                    Work::Get(path) => drop(self.send(Method::GET, path, Bytes::new()).await),
                    Work::Post(path, _) => drop(self.post(path, body.clone()).await),
                    Work::StartAndEnd(_) => self.start_and_end(body).await,
                }
                if self.counted.1.is_some_and(|end| Instant::now() >= end) {
                    return self;
                }
            }
            if self.counted.1.is_none() {
                return self;
            }
        }
    }

    async fn start_and_end(&mut self, identity: &Bytes) {
        let Some(answer) = self
            .post("/api/license/session/start", identity.clone())
            .await
        else {
            return;
        };
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let token = answer["session_token"].as_str().unwrap();
        let end_body = format!(r#"{{"session_token":"{token}"}}"#);
        self.post("/api/license/session/end", end_body.into()).await;
    }

    /// The response's body, if the status is 2xx.
    async fn post(&mut self, path: &'static str, body: Bytes) -> Option<Bytes> {
        self.send(Method::POST, path, body).await
    }

    async fn send(&mut self, method: Method, path: &'static str, body: Bytes) -> Option<Bytes> {
        let sent = Instant::now();
        let (status, answer) = self.connection.send(method, path, body).await;
        let answered = Instant::now();
        if answered >= self.counted.0 && self.counted.1.is_none_or(|end| answered < end) {
            let micros = answered.duration_since(sent).as_micros();
            self.latencies.push(u32::try_from(micros).unwrap());
        }
        if (200..300).contains(&status) {
            return Some(answer);
        }
        self.refused += 1;
        self.failed += u64::from(status >= 500);
        None
    }
}

/// One connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    api_keys: Arc<Vec<String>>,
    /// The number of the API key that is sent.
    chosen: usize,
    background: JoinHandle<()>,
}

impl Connection {
    pub async fn open(target: &Target) -> Self {
        let stream = TcpStream::connect(target.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, background) = match &target.tls {
            None => http_handshake(stream).await,
            Some(tls) => {
                let name = ServerName::try_from("localhost").unwrap();
                http_handshake(tls.connect(name, stream).await.unwrap()).await
            }
        };
        Self {
            sender,
            api_keys: target.api_keys.clone(),
            chosen: 0,
            background,
        }
    }

    /// Sends the API key of the product of the body at this place from now on.
    fn choose_api_key(&mut self, place: usize) {
        self.chosen = place % self.api_keys.len();
    }

    pub async fn get(&mut self, path: &str) -> u16 {
        self.send(Method::GET, path, Bytes::new()).await.0
    }

    pub async fn post(&mut self, path: &str, body: Bytes) -> u16 {
        self.send(Method::POST, path, body).await.0
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> (u16, Bytes) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-api-key", &self.api_keys[self.chosen])
            .body(Full::new(body))
            .unwrap();
        let answer = self.sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        (
            status,
            answer.into_body().collect().await.unwrap().to_bytes(),
        )
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.background.abort();
    }
}

async fn http_handshake<S>(stream: S) -> (SendRequest<Full<Bytes>>, JoinHandle<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}
