//! Connections with short limits: who may be idle for how long, how a life ends, who gives way.

use std::net::SocketAddr;
use std::time::Duration;

use rocket::local::asynchronous::Client;
use rocket::request::{FromRequest, Outcome};
use rocket::{Request, get, post, routes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Answers, ConnectionLimit, Front, Limits, Proxies, RocketBridge};
use crate::web::connection::Connection;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_millis(100);
const LIMITS: Limits = Limits {
    handshake: PATIENCE,
    head: PATIENCE,
    stalled: PATIENCE,
    idle: Duration::from_millis(300),
    program_idle: Duration::from_secs(1),
    late: Duration::from_millis(200),
    life: Duration::from_hours(1),
    last_words: PATIENCE,
};

/// A guard that knows its caller.
struct Known;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Known {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        Connection::stays_open(request, SILENCE);
        Connection::named_what_exists(request);
        Outcome::Success(Self)
    }
}

#[get("/program")]
fn program(_known: Known) -> &'static str {
    "a program"
}

/// A guard that knows the API key alone.
struct Copy;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Copy {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        Connection::stays_open(request, SILENCE);
        Outcome::Success(Self)
    }
}

#[get("/copy")]
fn copy(_copy: Copy) -> &'static str {
    "a copy"
}

#[get("/anybody")]
fn anybody() -> &'static str {
    "anybody"
}

#[post("/slow")]
async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(500)).await;
    "slow"
}

struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<crate::error::Result<()>>,
}

async fn front(limits: Limits, room: ConnectionLimit, proxies: &[&str]) -> Running {
    let rocket = rocket::custom(rocket::Config::release_default());
    let rocket = rocket.mount("/", routes![program, copy, anybody, slow]);
    let client = Client::untracked(rocket).await.unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let front = Front {
        listener,
        tls: None,
        strict: false,
        answers: Answers::RocketBridge(RocketBridge::new(client)),
        proxies: Proxies::new(proxies.iter().map(|net| net.parse().unwrap()).collect()),
        room,
        limits,
    };
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(front.serve(stopped, PATIENCE));
    Running {
        address,
        stop,
        served,
    }
}

const ROOM: ConnectionLimit = ConnectionLimit { all: 16, one: 16 };

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// One request, and the whole answer; empty where the connection is closed instead.
async fn ask(stream: &mut TcpStream, line: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return String::new();
    }
    hear(stream).await
}

async fn hear(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let end_of_lines = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n");
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        let length = text.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
        let end = end_of_lines(&heard).map(|end| end + 4 + length.unwrap_or(0));
        if end.is_some_and(|end| heard.len() >= end) {
            return text;
        }
        let more = timeout(PATIENCE, stream.read_buf(&mut heard)).await;
        if more.unwrap().unwrap_or(0) == 0 {
            assert!(heard.is_empty(), "an answer broke off: {text}");
            return text;
        }
    }
}

/// How long after `asked` the connection is still open, without another word. Counted from before the last question,
/// since the server counts from its answer, which is read later than it is given.
async fn open_for(stream: &mut TcpStream, asked: Instant) -> Duration {
    let mut byte = [0];
    let read = timeout(PATIENCE, stream.read(&mut byte)).await.unwrap();
    assert_eq!(read.unwrap_or(0), 0, "nobody asked");
    asked.elapsed()
}

#[tokio::test]
async fn a_program_and_a_proxy_keep_their_connections_for_longer_than_a_stranger() {
    let server = front(LIMITS, ROOM, &[]).await;
    let (mut program, mut stranger) = (server.connect().await, server.connect().await);
    let asked = Instant::now();
    let told = ask(&mut program, "GET /program").await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    assert!(told.contains("\r\nconnection: keep-alive\r\n"), "{told}");
    assert!(told.contains("\r\nkeep-alive: timeout=0\r\n"), "{told}");
    let asked_last = Instant::now();
    let told = ask(&mut stranger, "GET /anybody").await;
    assert!(
        told.starts_with("HTTP/1.1 200") && !told.contains("keep-alive"),
        "{told}"
    );
    let (known, unknown) = tokio::join!(
        open_for(&mut program, asked),
        open_for(&mut stranger, asked_last)
    );
    assert!(unknown >= LIMITS.idle, "{unknown:?}");
    assert!(known >= LIMITS.program_idle, "{known:?}");
    assert!(unknown < known);
    // The silence that the program is asked for counts where it is longer.
    let limits = Limits {
        late: Duration::from_millis(1500),
        ..LIMITS
    };
    let server = front(limits, ROOM, &[]).await;
    let mut program = server.connect().await;
    ask(&mut program, "GET /program").await;
    // A stranger's word on the connection of a program does not shorten it.
    let asked = Instant::now();
    ask(&mut program, "GET /anybody").await;
    assert!(open_for(&mut program, asked).await >= limits.late + SILENCE);
    let server = front(LIMITS, ROOM, &["127.0.0.0/8"]).await;
    let mut proxy = server.connect().await;
    let asked = Instant::now();
    ask(&mut proxy, "GET /anybody").await;
    assert!(open_for(&mut proxy, asked).await >= LIMITS.program_idle);
}

#[tokio::test]
async fn the_last_answer_of_a_life_says_so_and_between_answers_no_life_ends() {
    let life = Duration::from_millis(400);
    let server = front(Limits { life, ..LIMITS }, ROOM, &[]).await;
    let mut stream = server.connect().await;
    let begun = Instant::now();
    let mut answers = 0;
    loop {
        let told = ask(&mut stream, "GET /program").await;
        assert!(
            told.starts_with("HTTP/1.1 200"),
            "cut in silence after {answers}"
        );
        answers += 1;
        if told.contains("\r\nconnection: close\r\n") {
            assert!(!told.contains("keep-alive"), "{told}");
            break;
        }
    }
    assert!(
        begun.elapsed() >= life.mul_f64(0.9),
        "{:?}",
        begun.elapsed()
    );
    assert!(answers > 1, "{answers}");
    open_for(&mut stream, Instant::now()).await;
    // One that says nothing at the end of its life is closed for being idle, not for being old.
    let mut stream = server.connect().await;
    let asked = Instant::now();
    ask(&mut stream, "GET /program").await;
    assert!(open_for(&mut stream, asked).await >= LIMITS.program_idle);
}

#[tokio::test]
async fn the_stop_answers_what_is_there_and_says_that_it_is_the_last_answer() {
    let server = front(LIMITS, ROOM, &[]).await;
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    ask(&mut idle, "GET /program").await;
    let slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    busy.write_all(slow).await.unwrap();
    // It is under way when a later one on another connection was answered.
    ask(&mut idle, "GET /program").await;
    let mut half = server.connect().await;
    half.write_all(b"GET /program HTTP/1.1\r\nho")
        .await
        .unwrap();
    ask(&mut idle, "GET /program").await;
    server.stop.send_replace(true);
    half.write_all(b"st: x\r\n\r\n").await.unwrap();
    for stream in [&mut busy, &mut half] {
        let told = hear(stream).await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        assert!(told.contains("\r\nconnection: close\r\n"), "{told}");
    }
    assert!(open_for(&mut idle, Instant::now()).await < PATIENCE);
    server.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn where_no_place_is_left_an_idle_stranger_gives_way_and_nobody_at_work() {
    let limits = Limits {
        idle: PATIENCE,
        program_idle: PATIENCE,
        ..LIMITS
    };
    let server = front(limits, ConnectionLimit { all: 3, one: 3 }, &[]).await;
    let (mut program, mut busy) = (server.connect().await, server.connect().await);
    ask(&mut program, "GET /program").await;
    let slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    busy.write_all(slow).await.unwrap();
    ask(&mut program, "GET /program").await;
    // Ten strangers, one after another, each of whom is heard, and takes the place of the one before.
    let mut before = server.connect().await;
    ask(&mut before, "GET /anybody").await;
    for request in ["GET /anybody", "GET /copy"].repeat(5) {
        let mut next = server.connect().await;
        let told = ask(&mut next, request).await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        assert!(open_for(&mut before, Instant::now()).await < PATIENCE);
        before = next;
    }
    assert!(hear(&mut busy).await.ends_with("slow"));
    let told = ask(&mut program, "GET /program").await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
}
