//! The front under attack: who is slow, who is many, who never speaks, who says two things at once. All the
//! while somebody at another address sends heartbeats.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::accounts::{BEHIND_A_PROXY, NO_LOGIN_LIMIT};
use crate::scene::started;
use crate::support::{Server, beat, is_there, rounds};
use crate::wire;

/// What the contract allows the slowest of a hundred heartbeats, where the machine is asked for figures; on
/// one that is shared, ten times as much.
fn patience() -> Duration {
    let strict = std::env::var_os("LICENSE_TEST_ROUNDS").is_some();
    Duration::from_millis(if strict { 100 } else { 1000 })
}

/// Memory that the server may take under any attack, in KiB.
pub const RSS_KIB: u64 = 200 * 1024;

/// Somebody at 127.0.0.2 whose session lives on.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    beats: JoinHandle<Vec<Duration>>,
    _alone: MutexGuard<'static, ()>,
}

/// Attacks come one after another: each takes all that the machine has, and two would only slow each other down.
static ATTACKS: Mutex<()> = Mutex::new(());

impl Bystander {
    pub fn of(server: &Server) -> Self {
        let alone = ATTACKS.lock().unwrap_or_else(PoisonError::into_inner);
        let key = server.license(1);
        let token = server.client().session(&key, "desk");
        let body = beat(&key, &token).to_string();
        let request = wire::post(server, "/api/license/session/heartbeat", body.len(), &body);
        let mut tls = wire::tls_on(from_elsewhere(server), server);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let beats = std::thread::spawn(move || {
            let mut spans = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let heard = wire::ask(&mut tls, &request);
                let heard = heard.unwrap_or_else(|| panic!("no answer to a heartbeat"));
                spans.push(begun.elapsed());
                assert_eq!(heard.status, 200, "{heard:?}");
                std::thread::park_timeout(Duration::from_millis(20));
            }
            spans
        });
        Self {
            stop,
            beats,
            _alone: alone,
        }
    }

    /// No heartbeat was lost, and hardly one was late.
    #[expect(clippy::print_stderr, reason = "a figure for people")]
    pub fn was_well(self, during: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let mut spans = self.beats.join().unwrap();
        assert!(spans.len() > 20, "{} heartbeats {during}", spans.len());
        spans.sort();
        let p99 = spans[spans.len() * 99 / 100];
        eprintln!("{} heartbeats {during}: p99 {p99:?}", spans.len());
        assert!(p99 < patience(), "{p99:?} {during}");
    }
}

/// A connection from another address of this machine.
fn from_elsewhere(server: &Server) -> TcpStream {
    let to = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

fn descriptors(server: &Server) -> usize {
    let folder = format!("/proc/{}/fd", server.pid());
    std::fs::read_dir(folder).unwrap().count()
}

pub fn rss_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

#[test]
fn thousands_of_mute_connections_from_one_address_leave_others_their_heartbeats() {
    license_server::front::ConnectionLimit::make().unwrap();
    let server = Server::start();
    let bystander = Bystander::of(&server);
    let count = 5000;
    let to = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let begun = Instant::now();
    let mut crowd = Vec::new();
    let mut most = 0;
    for number in 0..count {
        crowd.extend(TcpStream::connect_timeout(&to, Duration::from_secs(5)));
        if number % 500 == 0 {
            most = most.max(rss_kib(&server));
        }
    }
    // Longer than a handshake may take.
    while begun.elapsed() < Duration::from_secs(12) {
        most = most.max(rss_kib(&server));
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert!(most < RSS_KIB, "{most} KiB");
    assert!(crowd.len() > count / 2, "{} connections", crowd.len());
    bystander.was_well("beside 5,000 mute connections");
    crate::support::eventually("their descriptors to come back", || {
        descriptors(&server) < 100
    });
}

#[test]
fn slow_heads_slow_bodies_and_slow_readers_leave_others_their_heartbeats() {
    const TOOL: &str = "slowhttptest";
    if !is_there(TOOL) {
        return;
    }
    let server = Server::start();
    let before = descriptors(&server);
    let bystander = Bystander::of(&server);
    let url = |path: &str| format!("https://localhost:{}{path}", server.port());
    let head = url("/");
    let body = url("/api/license/session/heartbeat");
    let read = url("/lizenzserver/panel.css");
    // So many connections each, so many more a second, for so long: as many as a debug build can greet
    // beside everything else, unless the machine is asked for more.
    let strict = std::env::var_os("LICENSE_TEST_ROUNDS").is_some();
    let (crowd, rate) = if strict {
        ("700", "200")
    } else {
        ("150", "25")
    };
    let many = ["-c", crowd, "-r", rate, "-l", "12", "-p", "3"];
    let mut attacks: Vec<_> = [
        vec!["-H", "-i", "2", "-u", &head],
        vec!["-B", "-i", "2", "-s", "8192", "-u", &body],
        vec![
            "-X", "-k", "10", "-n", "3", "-w", "1", "-y", "8", "-z", "8", "-u", &read,
        ],
    ]
    .into_iter()
    .map(|how| {
        let mut attack = Command::new(TOOL);
        attack.args(how).args(many);
        attack.stdin(Stdio::null()).stdout(Stdio::null());
        attack.stderr(Stdio::null()).spawn().unwrap()
    })
    .collect();
    let mut most = 0;
    let begun = Instant::now();
    while attacks
        .iter_mut()
        .any(|attack| attack.try_wait().unwrap().is_none())
    {
        most = most.max(rss_kib(&server));
        if begun.elapsed() > Duration::from_secs(40) {
            for attack in &mut attacks {
                drop(attack.kill());
            }
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert!(begun.elapsed() > Duration::from_secs(8), "they attacked");
    assert!(most < RSS_KIB, "{most} KiB");
    bystander.was_well("beside slow heads, bodies and readers");
    crate::support::eventually("their descriptors to come back", || {
        descriptors(&server) < before + 50
    });
}

#[test]
fn whoever_greets_over_and_over_leaves_others_their_heartbeats() {
    let server = Server::start();
    let bystander = Bystander::of(&server);
    let end = Instant::now() + Duration::from_secs(u64::from(rounds(4).min(60)));
    // Each greeting costs the server a signature.
    let greeted: usize = std::thread::scope(|scope| {
        let greeters: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while Instant::now() < end {
                        drop(wire::tls(&server));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        greeters.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert!(greeted > 50, "{greeted}");
    bystander.was_well("beside greeters");
}

#[test]
fn fifty_logins_at_once_cost_neither_memory_nor_heartbeats() {
    let server = started(&[BEHIND_A_PROXY], &[NO_LOGIN_LIMIT]);
    server.admin("ada", "owner");
    let bystander = Bystander::of(&server);
    let before = rss_kib(&server);
    let over = AtomicBool::new(false);
    let (told, most) = std::thread::scope(|scope| {
        let guessers: Vec<_> = (0..50)
            .map(|number| {
                let mut browser = server.browser();
                let source = format!("198.51.100.{number}");
                browser.headers.push(("X-Forwarded-For".to_owned(), source));
                scope.spawn(move || browser.log_in("ada", "a wrong guess at it").status)
            })
            .collect();
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(rss_kib(&server));
                std::thread::park_timeout(Duration::from_millis(5));
            }
            most
        });
        let told: Vec<u16> = guessers
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect();
        over.store(true, Ordering::Relaxed);
        (told, watcher.join().unwrap())
    });
    assert!(told.contains(&422), "some were looked at: {told:?}");
    assert!(
        told.iter().all(|status| [422, 429, 503].contains(status)),
        "{told:?}"
    );
    // Two hashes of 64 MiB at once, and what 50 connections take.
    assert!(
        most < before + (2 * 64 + 32) * 1024,
        "{before} KiB before, {most} KiB at most"
    );
    assert!(
        most > before + 60 * 1024,
        "a hash takes its memory: {most} KiB at most"
    );
    bystander.was_well("beside fifty logins");
}

#[test]
fn hostile_bodies_are_refused_and_take_no_memory() {
    let server = Server::start();
    server.json(&["limit", "set", "client_failures", "--per-minute", "0"]);
    let fields = |number: usize| {
        let fields = (0..number).map(|field| format!("\"{field}\":{field}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    };
    let hostile = [
        format!("{}{}", "[".repeat(8000), "]".repeat(8000)),
        "{\"a\":".repeat(2500),
        fields(1500),
        format!("{{\"license_key\":\"{}\"}}", "\\u0041".repeat(2500)),
        format!("{{\"license_key\":{}}}", "9".repeat(16_000)),
        format!("{{\"license_key\":1e{}}}", "9".repeat(16_000)),
        format!("{{\"license_key\":\"{}\"}}", "\\ud800".repeat(2500)),
        format!("{{\"a\":[{}]}}", vec!["{}"; 5000].join(",")),
        format!("{{{}}}", vec!["\"a\":1"; 2000].join(",")),
        "\u{0}".repeat(16_000),
    ];
    let client = server.client();
    // What a thread and a connection take once is no growth.
    for body in &hostile {
        client.send("verify", body.as_bytes(), &[]);
    }
    let before = rss_kib(&server);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let client = server.client();
                for body in hostile.iter().cycle().take(rounds(10) as usize * 10) {
                    let begun = Instant::now();
                    let told = client.send("verify", body.as_bytes(), &[]);
                    assert!((400..500).contains(&told.status), "{told:?}");
                    assert!(begun.elapsed() < patience() * 10, "{:?}", begun.elapsed());
                }
            });
        }
    });
    let after = rss_kib(&server);
    assert!(
        after < before + 10 * 1024,
        "{before} KiB before, {after} KiB after"
    );
}

/// A request behind the first one that must never be answered.
const HIDDEN: &str =
    "GET /api/license/version?version=1.0.0 HTTP/1.1\r\nhost: localhost\r\nx-api-key: KEY\r\n\r\n";

#[test]
fn what_two_readers_would_read_differently_is_refused_and_the_connection_closed() {
    let server = Server::start();
    let hidden = HIDDEN.replace("KEY", server.api_key());
    let length = hidden.len();
    let post = "POST /api/license/verify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let end = "0\r\n\r\n";
    let cases = [
        // Where does the first request end?
        (
            "a length and chunks",
            format!(
                "{post}content-length: {}\r\n{chunked}\r\n{end}{hidden}",
                length + 5
            ),
        ),
        (
            "chunks and a short length",
            format!("{post}{chunked}content-length: 4\r\n\r\n{end}{hidden}"),
        ),
        (
            "two lengths",
            format!("{post}content-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        ),
        (
            "a list of lengths",
            format!("{post}content-length: 0, {length}\r\n\r\n{hidden}"),
        ),
        (
            "a signed length",
            format!("{post}content-length: +0\r\n\r\n{hidden}"),
        ),
        (
            "a negative length",
            format!("{post}content-length: -1\r\n\r\n{hidden}"),
        ),
        (
            "a length in another base",
            format!("{post}content-length: 0x0\r\n\r\n{hidden}"),
        ),
        (
            "a length that is too long",
            format!("{post}content-length: 18446744073709551616\r\n\r\n{hidden}"),
        ),
        (
            "an empty length",
            format!("{post}content-length:\r\n\r\n{hidden}"),
        ),
        (
            "a coding that is not the last",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n{end}{hidden}"),
        ),
        (
            "a coding with a letter more",
            format!("{post}transfer-encoding: xchunked\r\n\r\n{end}{hidden}"),
        ),
        (
            "two codings",
            format!("{post}{chunked}transfer-encoding: identity\r\n\r\n{end}{hidden}"),
        ),
        (
            "a coding in quotes",
            format!("{post}transfer-encoding: \"chunked\"\r\n\r\n{end}{hidden}"),
        ),
        (
            "a space before a colon",
            format!("{post}content-length : {length}\r\n\r\n{hidden}"),
        ),
        (
            "a folded line",
            format!("{post}x: a\r\n content-length: {length}\r\n\r\n{hidden}"),
        ),
        ("a line without a colon", format!("{post}x\r\n\r\n{hidden}")),
        ("a NUL in a name", format!("{post}x\0: a\r\n\r\n{hidden}")),
        (
            "a return in a value",
            format!("{post}x: a\rcontent-length: {length}\r\n\r\n{hidden}"),
        ),
        (
            "a chunk that is too long",
            format!("{post}{chunked}\r\n10000000000000000\r\n{hidden}"),
        ),
        (
            "a chunk of a negative length",
            format!("{post}{chunked}\r\n-1\r\n{hidden}"),
        ),
        (
            "a chunk of no length",
            format!("{post}{chunked}\r\n\r\n{hidden}"),
        ),
        (
            "a chunk that goes on",
            format!("{post}{chunked}\r\n1\r\nab\r\n{end}{hidden}"),
        ),
        (
            "a chunk of a strange length",
            format!("{post}{chunked}\r\n0x0\r\n\r\n{hidden}"),
        ),
        (
            "chunks of an older version",
            format!("{}{chunked}\r\n{end}{hidden}", post.replace("1.1", "1.0")),
        ),
        // For whom is it?
        (
            "no host",
            "GET /api/license/version?version=1.0.0 HTTP/1.1\r\n\r\n".to_owned() + &hidden,
        ),
        (
            "two hosts",
            format!("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n{hidden}"),
        ),
    ];
    for (what, bytes) in cases {
        let mut tls = wire::tls(&server);
        tls.sock
            .set_read_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        tls.write_all(bytes.as_bytes())
            .and_then(|()| tls.flush())
            .unwrap();
        let mut told = Vec::new();
        let closed = tls.read_to_end(&mut told);
        let told = String::from_utf8_lossy(&told);
        let patient = closed.err().is_some_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            )
        });
        assert!(!patient, "{what}: still open after {told}");
        assert!(!told.contains("current_version"), "{what}: {told}");
        assert!(told.matches("HTTP/1.1 ").count() <= 1, "{what}: {told}");
        assert!(
            told.starts_with("HTTP/1.1 4") || told.starts_with("HTTP/1.1 503"),
            "{what}: {told}"
        );
        assert!(
            told.contains("x-content-type-options: nosniff"),
            "{what}: {told}"
        );
    }
    // What has a body nobody asked for is read to its end: the hidden one is that body.
    let mut tls = wire::tls(&server);
    let get = format!(
        "GET /api/license/nothing HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{hidden}"
    );
    assert_eq!(wire::ask(&mut tls, get.as_bytes()).unwrap().status, 503);
    let next = wire::get(&server, "/api/license/version?version=x", "");
    assert_eq!(
        wire::ask(&mut tls, &next).unwrap().status,
        422,
        "the next in line"
    );
}

#[test]
fn a_scanner_finds_modern_protocols_and_strong_ciphers_only() {
    if !is_there("sslscan") {
        return;
    }
    let server = Server::start();
    let scan = Command::new("sslscan")
        .args(["--no-colour", &format!("127.0.0.1:{}", server.port())])
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&scan.stdout);
    let has = |line: &str| {
        found
            .lines()
            .any(|known| known.split_whitespace().eq(line.split(' ')))
    };
    for line in [
        "SSLv2 disabled",
        "SSLv3 disabled",
        "TLSv1.0 disabled",
        "TLSv1.1 disabled",
        "TLSv1.2 enabled",
        "TLSv1.3 enabled",
        "Session renegotiation not supported",
        "TLSv1.3 not vulnerable to heartbleed",
        "TLSv1.2 not vulnerable to heartbleed",
    ] {
        assert!(has(line), "{line} in {found}");
    }
    let ciphers: Vec<&str> = found
        .lines()
        .filter(|line| line.starts_with("Preferred ") || line.starts_with("Accepted "))
        .collect();
    assert!(ciphers.len() >= 4, "{found}");
    for cipher in ciphers {
        let forward_secret = cipher.contains(" TLS_") || cipher.contains(" ECDHE-");
        let sealed = cipher.contains("GCM") || cipher.contains("CHACHA20");
        assert!(forward_secret && sealed, "{cipher}");
    }
}
