//! Connections with short limits: how long they may be idle, how they end by age, and which one is evicted.

use std::net::SocketAddr;
use std::time::Duration;

use rocket::local::asynchronous::Client;
use rocket::request::{FromRequest, Outcome};
use rocket::{Request, get, post, routes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Backend, ConnectionLimit, Front, Limits, Proxies, RocketBridge};
use crate::web::connection::RequestContext;

/// Far longer than any step of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_millis(100);
const LIMITS: Limits = Limits {
    handshake: PATIENCE,
    head: PATIENCE,
    write_stall: PATIENCE,
    rest: Duration::from_millis(20),
    idle: Duration::from_millis(300),
    program_idle: Duration::from_secs(1),
    program_grace: Duration::from_millis(200),
    max_age: Duration::from_hours(1),
    stop_grace: PATIENCE,
    // Three of the longest responses.
    unread_len: 7 * LONG as u64 / 2,
};

/// A guard of a route for identified programs.
struct Identified;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Identified {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        RequestContext::keep_open_for(request, SILENCE);
        RequestContext::mark_caller_identified(request);
        Outcome::Success(Self)
    }
}

#[get("/program")]
fn program(_identified: Identified) -> &'static str {
    "a program"
}

/// A guard of a route for callers that have the API key only.
struct ApiKeyOnly;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for ApiKeyOnly {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        RequestContext::keep_open_for(request, SILENCE);
        Outcome::Success(Self)
    }
}

#[get("/api-key-only")]
fn api_key_only(_api_key: ApiKeyOnly) -> &'static str {
    "api key only"
}

#[get("/public")]
fn public() -> &'static str {
    "public"
}

/// Longer than what the kernels keep of it, for a client that does not read.
const LONG: usize = 8 * 1024 * 1024;

#[get("/long")]
fn long() -> String {
    "x".repeat(LONG)
}

#[post("/slow")]
async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(500)).await;
    "slow"
}

struct RunningFront {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<crate::error::Result<()>>,
}

async fn start_front(
    limits: Limits,
    max_connections: ConnectionLimit,
    proxies: &[&str],
) -> RunningFront {
    let rocket = rocket::custom(rocket::Config::release_default());
    let rocket = rocket.mount("/", routes![program, api_key_only, public, long, slow]);
    let client = Client::untracked(rocket).await.unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let front = Front {
        listener,
        tls: None,
        hsts: false,
        backend: Backend::RocketBridge(RocketBridge::new(client)),
        proxies: Proxies::new(proxies.iter().map(|net| net.parse().unwrap()).collect()),
        max_connections,
        limits,
    };
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(front.serve(stopped, PATIENCE));
    RunningFront {
        address,
        stop,
        served,
    }
}

const ENOUGH_CONNECTIONS: ConnectionLimit = ConnectionLimit {
    total: 16,
    per_source: 16,
};

impl RunningFront {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Sends a request, and returns the whole response; empty if the connection is closed instead.
async fn request(stream: &mut TcpStream, line: &str) -> String {
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    if stream.write_all(head.as_bytes()).await.is_err() {
        return String::new();
    }
    read_response(stream).await
}

async fn read_response(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let end_of_head = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n");
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        let length = text.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
        let end = end_of_head(&received).map(|end| end + 4 + length.unwrap_or(0));
        if end.is_some_and(|end| received.len() >= end) {
            return text;
        }
        let more = timeout(PATIENCE, stream.read_buf(&mut received)).await;
        if more.unwrap().unwrap_or(0) == 0 {
            assert!(received.is_empty(), "incomplete response: {text}");
            return text;
        }
    }
}

/// How long after `sent_at` the server closes the connection. `sent_at` is taken before the last request is sent: the
/// server counts from its response, which the client reads a little later.
async fn open_for(stream: &mut TcpStream, sent_at: Instant) -> Duration {
    let mut byte = [0];
    let read = timeout(PATIENCE, stream.read(&mut byte)).await.unwrap();
    assert_eq!(read.unwrap_or(0), 0, "bytes without a request");
    sent_at.elapsed()
}

#[tokio::test]
async fn connections_of_programs_stay_open_for_longer() {
    let server = start_front(LIMITS, ENOUGH_CONNECTIONS, &[]).await;
    let (mut program, mut unidentified) = (server.connect().await, server.connect().await);
    let sent_at = Instant::now();
    let response = request(&mut program, "GET /program").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(
        response.contains("\r\nconnection: keep-alive\r\n"),
        "{response}"
    );
    assert!(
        response.contains("\r\nkeep-alive: timeout=0\r\n"),
        "{response}"
    );
    let last_sent_at = Instant::now();
    let response = request(&mut unidentified, "GET /public").await;
    assert!(
        response.starts_with("HTTP/1.1 200") && !response.contains("keep-alive"),
        "{response}"
    );
    let (program_open_for, unidentified_open_for) = tokio::join!(
        open_for(&mut program, sent_at),
        open_for(&mut unidentified, last_sent_at)
    );
    assert!(
        unidentified_open_for >= LIMITS.idle,
        "{unidentified_open_for:?}"
    );
    assert!(
        program_open_for >= LIMITS.program_idle,
        "{program_open_for:?}"
    );
    assert!(unidentified_open_for < program_open_for);
}

#[tokio::test]
async fn a_connection_stays_open_for_the_interval_that_the_server_sets_if_that_is_longer() {
    let limits = Limits {
        program_grace: Duration::from_millis(1500),
        ..LIMITS
    };
    let server = start_front(limits, ENOUGH_CONNECTIONS, &[]).await;
    let mut program = server.connect().await;
    request(&mut program, "GET /program").await;
    // A request to a public route on the connection of a program does not shorten this.
    let sent_at = Instant::now();
    request(&mut program, "GET /public").await;
    assert!(open_for(&mut program, sent_at).await >= limits.program_grace + SILENCE);
}

/// Rows: what is sent at once, with a rest after each, and the number of responses to it.
#[tokio::test]
async fn requests_are_answered_after_a_rest_however_they_arrive() {
    const REQUEST: &str = "GET /program HTTP/1.1\r\nhost: x\r\n\r\n";
    let (begin, end) = REQUEST.split_at(20);
    let server = start_front(LIMITS, ENOUGH_CONNECTIONS, &[]).await;
    let mut program = server.connect().await;
    let long_head = format!(
        "GET /program HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(9000)
    );
    for (sent, responses) in [
        (REQUEST.to_owned(), 1),
        (REQUEST.to_owned(), 1),
        (begin.to_owned(), 0),
        (end.to_owned(), 1),
        (REQUEST.repeat(3), 3),
        // The beginning of a head arrives with the request before it, and its end after the rest.
        ([REQUEST, begin].concat(), 1),
        ([end, begin].concat(), 1),
        (end.to_owned(), 1),
        (long_head, 1),
        (REQUEST.to_owned(), 1),
    ] {
        program.write_all(sent.as_bytes()).await.unwrap();
        let mut received = String::new();
        while received.matches("a program").count() < responses {
            let mut bytes = [0; 4096];
            let count = timeout(PATIENCE, program.read(&mut bytes)).await.unwrap();
            let count = count.unwrap();
            assert!(count > 0, "closed after {received} to {sent}");
            received.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        assert_eq!(received.matches("HTTP/1.1 200").count(), responses);
        tokio::time::sleep(5 * LIMITS.rest).await;
    }
    server.stop.send_replace(true);
    assert!(open_for(&mut program, Instant::now()).await < PATIENCE);
    server.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_head_that_began_with_the_request_before_it_has_its_time_limit() {
    let limits = Limits {
        head: Duration::from_millis(200),
        idle: PATIENCE,
        program_idle: PATIENCE,
        ..LIMITS
    };
    let server = start_front(limits, ENOUGH_CONNECTIONS, &[]).await;
    let mut program = server.connect().await;
    let sent_at = Instant::now();
    let sent = b"GET /program HTTP/1.1\r\nhost: x\r\n\r\nGET";
    program.write_all(sent).await.unwrap();
    read_response(&mut program).await;
    let open_for = open_for(&mut program, sent_at).await;
    assert!(
        open_for >= limits.head && open_for < PATIENCE / 2,
        "{open_for:?}"
    );
}

#[tokio::test]
async fn connections_of_proxies_stay_open_for_longer() {
    let server = start_front(LIMITS, ENOUGH_CONNECTIONS, &["127.0.0.0/8"]).await;
    let mut proxy = server.connect().await;
    let sent_at = Instant::now();
    request(&mut proxy, "GET /public").await;
    assert!(open_for(&mut proxy, sent_at).await >= LIMITS.program_idle);
}

#[tokio::test]
async fn an_old_connection_closes_with_a_response_and_never_while_idle() {
    let max_age = Duration::from_millis(400);
    let server = start_front(Limits { max_age, ..LIMITS }, ENOUGH_CONNECTIONS, &[]).await;
    let mut stream = server.connect().await;
    let started = Instant::now();
    let mut responses = 0;
    loop {
        let response = request(&mut stream, "GET /program").await;
        assert!(
            response.starts_with("HTTP/1.1 200"),
            "closed without notice after {responses} responses"
        );
        responses += 1;
        if response.contains("\r\nconnection: close\r\n") {
            assert!(!response.contains("keep-alive"), "{response}");
            break;
        }
    }
    assert!(
        started.elapsed() >= max_age.mul_f64(0.9),
        "{:?}",
        started.elapsed()
    );
    assert!(responses > 1, "{responses}");
    open_for(&mut stream, Instant::now()).await;
    // A connection that is idle at the end of its life is closed for being idle, not for its age.
    let mut stream = server.connect().await;
    let sent_at = Instant::now();
    request(&mut stream, "GET /program").await;
    assert!(open_for(&mut stream, sent_at).await >= LIMITS.program_idle);
}

#[tokio::test]
async fn a_stop_answers_requests_in_progress_and_closes_their_connections() {
    let server = start_front(LIMITS, ENOUGH_CONNECTIONS, &[]).await;
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    request(&mut idle, "GET /program").await;
    let slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    busy.write_all(slow).await.unwrap();
    // It is in progress once a later request on another connection has been answered.
    request(&mut idle, "GET /program").await;
    let mut partial = server.connect().await;
    partial
        .write_all(b"GET /program HTTP/1.1\r\nho")
        .await
        .unwrap();
    request(&mut idle, "GET /program").await;
    server.stop.send_replace(true);
    partial.write_all(b"st: x\r\n\r\n").await.unwrap();
    for stream in [&mut busy, &mut partial] {
        let response = read_response(stream).await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
    }
    assert!(open_for(&mut idle, Instant::now()).await < PATIENCE);
    server.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_unidentified_connection_is_evicted_and_never_a_busy_one() {
    let limits = Limits {
        idle: PATIENCE,
        program_idle: PATIENCE,
        ..LIMITS
    };
    let server = start_front(
        limits,
        ConnectionLimit {
            total: 3,
            per_source: 3,
        },
        &[],
    )
    .await;
    let (mut program, mut busy) = (server.connect().await, server.connect().await);
    request(&mut program, "GET /program").await;
    let slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    busy.write_all(slow).await.unwrap();
    request(&mut program, "GET /program").await;
    // Ten unidentified callers, one after another: each gets a response, and evicts the one before.
    let mut previous = server.connect().await;
    request(&mut previous, "GET /public").await;
    for line in ["GET /public", "GET /api-key-only"].repeat(5) {
        let mut next = server.connect().await;
        let response = request(&mut next, line).await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(open_for(&mut previous, Instant::now()).await < PATIENCE);
        previous = next;
    }
    assert!(read_response(&mut busy).await.ends_with("slow"));
    let response = request(&mut program, "GET /program").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn clients_that_read_nothing_are_cut_when_their_responses_take_too_much_memory() {
    let server = start_front(LIMITS, ENOUGH_CONNECTIONS, &[]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect().await;
        // The second one is read only when the first response has been written.
        let head = "GET /long HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2);
        client.write_all(head.as_bytes()).await.unwrap();
        client.readable().await.unwrap();
        tokio::time::sleep(SILENCE).await;
        clients.push(client);
    }
    let (cut, kept) = clients.split_at_mut(2);
    for client in cut {
        let received = read_until(client, 2 * LONG).await;
        assert!(received.len() < LONG, "{}", received.len());
    }
    for client in kept {
        let received = read_until(client, 2 * LONG).await;
        let heads = String::from_utf8_lossy(&received);
        assert_eq!(heads.matches("HTTP/1.1 200").count(), 2);
    }
}

/// The bytes that arrive: more than `count`, or all.
async fn read_until(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() <= count {
        let more = timeout(PATIENCE, stream.read_buf(&mut received)).await;
        if more.unwrap().unwrap_or(0) == 0 {
            break;
        }
    }
    received
}
