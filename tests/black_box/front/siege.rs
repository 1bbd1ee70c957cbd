//! Attacks on the front: slow clients, many connections, silent connections, expensive handshakes and logins, hostile
//! bodies and ambiguous requests. Meanwhile, a client at another address sends heartbeats, which must not suffer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::admins::accounts::{BEHIND_A_PROXY, NO_LOGIN_LIMIT};
use crate::setup::started;
use crate::support::{Server, heartbeat_body, is_installed, rounds, stalls};
use crate::wire;

/// The specified limit for the 99th percentile of heartbeats, which is checked with `LICENSE_TEST_ROUNDS`; otherwise
/// ten times as much, because the machine may be shared.
fn p99_max() -> Duration {
    let strict = std::env::var_os("LICENSE_TEST_ROUNDS").is_some();
    Duration::from_millis(if strict { 100 } else { 1000 })
}

/// Memory that the server may use under any attack, in KiB.
pub const RSS_KIB: u64 = 200 * 1024;

/// Heartbeats beside an attack of which at least one more is needed for a statement.
const HEARTBEATS_MIN: usize = 20;

/// A client at 127.0.0.2 that sends heartbeats during an attack.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    heartbeats: JoinHandle<Vec<Duration>>,
    _attack: MutexGuard<'static, ()>,
}

/// Held during an attack. Each attack uses the whole machine, so only one may run at a time.
static ATTACKS: Mutex<()> = Mutex::new(());

impl Bystander {
    pub fn of(server: &Server) -> Self {
        let attack = ATTACKS.lock().unwrap_or_else(PoisonError::into_inner);
        let key = server.issue_license(1);
        let token = server.client().session(&key, "desk");
        let body = heartbeat_body(&key, &token).to_string();
        let request = wire::post(server, "/api/license/session/heartbeat", body.len(), &body);
        let mut tls = wire::tls_on(connect_from_other_address(server), server);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answered = Arc::<AtomicUsize>::default();
        let count = answered.clone();
        let heartbeats = std::thread::spawn(move || {
            let mut durations = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let started_at = Instant::now();
                let response = wire::exchange(&mut tls, &request);
                let response = response.unwrap_or_else(|| panic!("no answer to a heartbeat"));
                let answered_at = Instant::now();
                count.fetch_add(1, Ordering::Relaxed);
                assert_eq!(response.status, 200, "{response:?}");
                std::thread::park_timeout(Duration::from_millis(20));
                durations.push(stalls::awake_between(started_at, answered_at));
            }
            durations
        });
        Self {
            stop,
            answered,
            heartbeats,
            _attack: attack,
        }
    }

    /// Waits until enough heartbeats were sent for [`Bystander::assert_unaffected`]: a short attack must go on meanwhile.
    pub fn wait_for_heartbeats(&self) {
        crate::support::eventually("heartbeats beside the attack", || {
            self.answered.load(Ordering::Relaxed) > HEARTBEATS_MIN
        });
    }

    /// Asserts that no heartbeat was lost, and that the 99th percentile was in time.
    #[expect(clippy::print_stderr, reason = "prints a measurement")]
    pub fn assert_unaffected(self, during: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let mut durations = self.heartbeats.join().unwrap();
        assert!(
            durations.len() > HEARTBEATS_MIN,
            "{} heartbeats {during}",
            durations.len()
        );
        durations.sort();
        let p99 = durations[durations.len() * 99 / 100];
        eprintln!("{} heartbeats {during}: p99 {p99:?}", durations.len());
        assert!(p99 < p99_max(), "{p99:?} {during}");
    }
}

/// A connection from another address of this machine.
fn connect_from_other_address(server: &Server) -> TcpStream {
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
fn thousands_of_silent_connections_from_one_address_do_not_affect_others() {
    license_server::front::ConnectionLimit::from_system().unwrap();
    let server = Server::start();
    let bystander = Bystander::of(&server);
    let count = 5000;
    let to = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let started_at = Instant::now();
    let mut connections = Vec::new();
    let mut max_kib = 0;
    for number in 0..count {
        connections.extend(TcpStream::connect_timeout(&to, Duration::from_secs(5)));
        if number % 500 == 0 {
            max_kib = max_kib.max(rss_kib(&server));
        }
    }
    // Longer than the time limit of a handshake.
    while started_at.elapsed() < Duration::from_secs(12) {
        max_kib = max_kib.max(rss_kib(&server));
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert!(max_kib < RSS_KIB, "{max_kib} KiB");
    assert!(
        connections.len() > count / 2,
        "{} connections",
        connections.len()
    );
    bystander.assert_unaffected("beside 5,000 silent connections");
    crate::support::eventually("their descriptors to be closed", || {
        descriptors(&server) < 100
    });
}

#[test]
fn slow_heads_bodies_and_readers_do_not_affect_others() {
    const TOOL: &str = "slowhttptest";
    if !is_installed(TOOL) {
        return;
    }
    let server = Server::start();
    let before = descriptors(&server);
    let bystander = Bystander::of(&server);
    let url = |path: &str| format!("https://localhost:{}{path}", server.port());
    let head = url("/");
    let body = url("/api/license/session/heartbeat");
    let read = url("/lizenzserver/panel.css");
    // Number of connections of each attack, and new ones per second. By default as many as a debug build can accept
    // beside everything else.
    let strict = std::env::var_os("LICENSE_TEST_ROUNDS").is_some();
    let (count, rate) = if strict {
        ("700", "200")
    } else {
        ("150", "25")
    };
    let many = ["-c", count, "-r", rate, "-l", "12", "-p", "3"];
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
    let mut max_kib = 0;
    let started_at = Instant::now();
    while attacks
        .iter_mut()
        .any(|attack| attack.try_wait().unwrap().is_none())
    {
        max_kib = max_kib.max(rss_kib(&server));
        if started_at.elapsed() > Duration::from_secs(40) {
            for attack in &mut attacks {
                drop(attack.kill());
            }
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert!(
        started_at.elapsed() > Duration::from_secs(8),
        "the attacks ran"
    );
    assert!(max_kib < RSS_KIB, "{max_kib} KiB");
    bystander.assert_unaffected("beside slow heads, bodies and readers");
    crate::support::eventually("their descriptors to be closed", || {
        descriptors(&server) < before + 50
    });
}

#[test]
fn repeated_handshakes_do_not_affect_others() {
    let server = Server::start();
    let bystander = Bystander::of(&server);
    let end = Instant::now() + Duration::from_secs(u64::from(rounds(4).min(60)));
    // Each handshake costs the server a signature.
    let handshakes: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
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
        clients.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert!(handshakes > 50, "{handshakes}");
    bystander.assert_unaffected("beside repeated handshakes");
}

#[test]
fn fifty_concurrent_logins_take_little_memory_and_do_not_affect_others() {
    let server = started(&[BEHIND_A_PROXY], &[NO_LOGIN_LIMIT]);
    server.add_admin("ada", "owner");
    let bystander = Bystander::of(&server);
    let before = rss_kib(&server);
    let is_over = AtomicBool::new(false);
    let (statuses, max_kib) = std::thread::scope(|scope| {
        let guessers: Vec<_> = (0..50)
            .map(|number| {
                let mut browser = server.browser();
                let source = format!("198.51.100.{number}");
                browser.headers.push(("X-Forwarded-For".to_owned(), source));
                scope.spawn(move || browser.log_in("ada", "a wrong guess at it").status)
            })
            .collect();
        let watcher = scope.spawn(|| {
            let mut max_kib = 0;
            while !is_over.load(Ordering::Relaxed) {
                max_kib = max_kib.max(rss_kib(&server));
                std::thread::park_timeout(Duration::from_millis(5));
            }
            max_kib
        });
        let statuses: Vec<u16> = guessers
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect();
        is_over.store(true, Ordering::Relaxed);
        (statuses, watcher.join().unwrap())
    });
    assert!(statuses.contains(&422), "some were checked: {statuses:?}");
    assert!(
        statuses
            .iter()
            .all(|status| [422, 429, 503].contains(status)),
        "{statuses:?}"
    );
    // Two hashes of 64 MiB at a time, and 32 MiB for 50 connections.
    assert!(
        max_kib < before + (2 * 64 + 32) * 1024,
        "{before} KiB before, {max_kib} KiB at most"
    );
    assert!(
        max_kib > before + 60 * 1024,
        "a hash was computed: {max_kib} KiB at most"
    );
    bystander.assert_unaffected("beside fifty logins");
}

#[test]
fn hostile_bodies_are_refused_and_do_not_accumulate_memory() {
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
    // Warm-up: memory that is allocated once is not growth.
    for body in &hostile {
        client.send("verify", body.as_bytes(), &[]);
    }
    let before = rss_kib(&server);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let client = server.client();
                for body in hostile.iter().cycle().take(rounds(10) as usize * 10) {
                    let started_at = Instant::now();
                    let response = client.send("verify", body.as_bytes(), &[]);
                    assert!((400..500).contains(&response.status), "{response:?}");
                    let took = stalls::awake_since(started_at);
                    assert!(took < p99_max() * 10, "{took:?}");
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

/// A request smuggled behind the first one. It must never be answered.
const SMUGGLED: &str =
    "GET /api/license/version?version=1.0.0 HTTP/1.1\r\nhost: localhost\r\nx-api-key: KEY\r\n\r\n";

#[test]
fn ambiguous_requests_are_refused_and_their_connection_closed() {
    let server = Server::start();
    let smuggled = SMUGGLED.replace("KEY", server.api_key());
    let length = smuggled.len();
    let post = "POST /api/license/verify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let end = "0\r\n\r\n";
    let cases = [
        // Ambiguous length.
        (
            "a length and chunks",
            format!(
                "{post}content-length: {}\r\n{chunked}\r\n{end}{smuggled}",
                length + 5
            ),
        ),
        (
            "chunks and a short length",
            format!("{post}{chunked}content-length: 4\r\n\r\n{end}{smuggled}"),
        ),
        (
            "two lengths",
            format!("{post}content-length: 0\r\ncontent-length: {length}\r\n\r\n{smuggled}"),
        ),
        (
            "a list of lengths",
            format!("{post}content-length: 0, {length}\r\n\r\n{smuggled}"),
        ),
        (
            "a signed length",
            format!("{post}content-length: +0\r\n\r\n{smuggled}"),
        ),
        (
            "a negative length",
            format!("{post}content-length: -1\r\n\r\n{smuggled}"),
        ),
        (
            "a length in another base",
            format!("{post}content-length: 0x0\r\n\r\n{smuggled}"),
        ),
        (
            "a length that is too long",
            format!("{post}content-length: 18446744073709551616\r\n\r\n{smuggled}"),
        ),
        (
            "an empty length",
            format!("{post}content-length:\r\n\r\n{smuggled}"),
        ),
        (
            "a coding that is not the last",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n{end}{smuggled}"),
        ),
        (
            "a coding with an additional letter",
            format!("{post}transfer-encoding: xchunked\r\n\r\n{end}{smuggled}"),
        ),
        (
            "two codings",
            format!("{post}{chunked}transfer-encoding: identity\r\n\r\n{end}{smuggled}"),
        ),
        (
            "a coding in quotes",
            format!("{post}transfer-encoding: \"chunked\"\r\n\r\n{end}{smuggled}"),
        ),
        (
            "a space before a colon",
            format!("{post}content-length : {length}\r\n\r\n{smuggled}"),
        ),
        (
            "a folded line",
            format!("{post}x: a\r\n content-length: {length}\r\n\r\n{smuggled}"),
        ),
        (
            "a line without a colon",
            format!("{post}x\r\n\r\n{smuggled}"),
        ),
        ("a NUL in a name", format!("{post}x\0: a\r\n\r\n{smuggled}")),
        (
            "a carriage return in a value",
            format!("{post}x: a\rcontent-length: {length}\r\n\r\n{smuggled}"),
        ),
        (
            "a chunk that is too long",
            format!("{post}{chunked}\r\n10000000000000000\r\n{smuggled}"),
        ),
        (
            "a chunk of a negative length",
            format!("{post}{chunked}\r\n-1\r\n{smuggled}"),
        ),
        (
            "a chunk without a length",
            format!("{post}{chunked}\r\n\r\n{smuggled}"),
        ),
        (
            "a chunk longer than its length",
            format!("{post}{chunked}\r\n1\r\nab\r\n{end}{smuggled}"),
        ),
        (
            "a chunk of a strange length",
            format!("{post}{chunked}\r\n0x0\r\n\r\n{smuggled}"),
        ),
        (
            "chunks of an older version",
            format!("{}{chunked}\r\n{end}{smuggled}", post.replace("1.1", "1.0")),
        ),
        // Ambiguous host.
        (
            "no host",
            "GET /api/license/version?version=1.0.0 HTTP/1.1\r\n\r\n".to_owned() + &smuggled,
        ),
        (
            "two hosts",
            format!("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n{smuggled}"),
        ),
    ];
    for (description, bytes) in cases {
        let mut tls = wire::tls(&server);
        tls.sock
            .set_read_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        tls.write_all(bytes.as_bytes())
            .and_then(|()| tls.flush())
            .unwrap();
        let mut received = Vec::new();
        let closed = tls.read_to_end(&mut received);
        let received = String::from_utf8_lossy(&received);
        let is_open = closed.err().is_some_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            )
        });
        assert!(!is_open, "{description}: still open after {received}");
        assert!(
            !received.contains("current_version"),
            "{description}: {received}"
        );
        assert!(
            received.matches("HTTP/1.1 ").count() <= 1,
            "{description}: {received}"
        );
        assert!(
            received.starts_with("HTTP/1.1 4") || received.starts_with("HTTP/1.1 503"),
            "{description}: {received}"
        );
        assert!(
            received.contains("x-content-type-options: nosniff"),
            "{description}: {received}"
        );
    }
    // An unexpected body is read to its end: here, the smuggled request is that body.
    let mut tls = wire::tls(&server);
    let get = format!(
        "GET /api/license/nothing HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{smuggled}"
    );
    assert_eq!(
        wire::exchange(&mut tls, get.as_bytes()).unwrap().status,
        503
    );
    let next = wire::get(&server, "/api/license/version?version=x", "");
    assert_eq!(
        wire::exchange(&mut tls, &next).unwrap().status,
        422,
        "the next request"
    );
}

#[test]
fn sslscan_finds_modern_protocols_and_strong_ciphers_only() {
    if !is_installed("sslscan") {
        return;
    }
    let server = Server::start();
    let scan = Command::new("sslscan")
        .args(["--no-colour", &format!("127.0.0.1:{}", server.port())])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&scan.stdout);
    let has = |line: &str| {
        output
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
        assert!(has(line), "{line} in {output}");
    }
    let ciphers: Vec<&str> = output
        .lines()
        .filter(|line| line.starts_with("Preferred ") || line.starts_with("Accepted "))
        .collect();
    assert!(ciphers.len() >= 4, "{output}");
    for cipher in ciphers {
        let forward_secret = cipher.contains(" TLS_") || cipher.contains(" ECDHE-");
        let is_aead = cipher.contains("GCM") || cipher.contains("CHACHA20");
        assert!(forward_secret && is_aead, "{cipher}");
    }
}
