//! Many connections from many addresses, in every state that a client can leave them in: how much memory they use, and
//! whether others can still connect. Few by default; the specified number with `LICENSE_TEST_ROUNDS`.

use std::any::Any;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use crate::admins::accounts::BEHIND_A_PROXY;
use crate::front::siege::{Bystander, RSS_KIB, rss_kib};
use crate::setup::started;
use crate::support::{Server, eventually, identity};
use crate::wire;

/// Memory that one connection of an unidentified client may use, in KiB, in a debug build.
const CONNECTION_KIB: u64 = 32;
/// The same for a connection that has been idle for seconds.
const AT_REST_KIB: u64 = 15;
/// Memory that is allocated once, for any number of connections, in KiB.
const ONCE_KIB: u64 = 16 * 1024;

/// A little more than the interval at which the server gives memory back.
const GIVEN_BACK_EVERY: Duration = Duration::from_secs(16);

fn is_strict() -> bool {
    std::env::var_os("LICENSE_TEST_ROUNDS").is_some()
}

/// The state in which a client leaves its connection.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing was sent.
    Silent,
    /// A TLS handshake with a long, incomplete client hello.
    ClientHello,
    /// An incomplete request head.
    Head,
    /// A login with an incomplete body.
    Login,
    /// An incomplete body, sent to a path that is not served.
    Unserved,
    /// An incomplete body, sent to the client API without an API key.
    Keyless,
    /// An incomplete TLS record, after an incomplete head.
    Record,
    /// Idle after a response.
    Idle,
    /// Many requests, whose responses are not read.
    Reader,
    /// A login with as many cookies as the head can hold, and an incomplete body.
    Cookies,
    /// As many short header lines as allowed, and as many query parameters as the head can hold.
    Fields,
    /// Long values for all headers that are parsed as lists.
    Lists,
}

const STATES: &[State] = &[
    State::Silent,
    State::ClientHello,
    State::Head,
    State::Login,
    State::Unserved,
    State::Keyless,
    State::Record,
    State::Idle,
    State::Reader,
    State::Cookies,
    State::Fields,
    State::Lists,
];

/// A connection from `address`, another address of this machine.
fn connect_from(address: Ipv4Addr, server: &Server) -> std::io::Result<TcpStream> {
    let to = SocketAddr::from(([127, 0, 0, 1], server.port()));
    // Without the flag, a server that another test starts meanwhile would inherit every one of these sockets.
    let (family, kind, flags) = (
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
    );
    let socket = net::socket_with(family, kind, flags, None)?;
    net::bind(&socket, &SocketAddr::from((address, 0)))?;
    net::connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Opens a connection and leaves it in `state`. It stays open until the returned value is dropped; `None` if the
/// server refused it.
fn open_in(state: State, server: &Server, address: Ipv4Addr) -> Option<Box<dyn Any + Send>> {
    let mut stream = connect_from(address, server).ok()?;
    match state {
        State::Silent => return Some(Box::new(stream)),
        State::ClientHello => {
            let mut client_hello = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03".to_vec();
            client_hello.resize(15_000, 0);
            stream.write_all(&client_hello).ok()?;
            return Some(Box::new(stream));
        }
        _ => {}
    }
    let mut tls = wire::tls_on(stream, server);
    let form = "content-type: application/x-www-form-urlencoded\r\nsec-fetch-site: same-origin\r\n";
    let json = "content-type: application/json\r\n";
    let post = |path: &str, lines: &str, length: usize| {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\n{lines}content-length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'a'; length - 1]].concat()
    };
    let half_head =
        |length| format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}", "y".repeat(length)).into_bytes();
    let request = match state {
        State::Head => half_head(15_000),
        State::Record => half_head(7_000),
        State::Login => post("/lizenzserver/login", form, 16_000),
        State::Unserved => post("/lizenzserver/nothing", form, 250_000),
        State::Keyless => post("/api/license/verify", json, 16_000),
        State::Reader => {
            let page = "GET /lizenzserver/panel.css HTTP/1.1\r\nhost: x\r\n\r\n";
            page.repeat(50).into_bytes()
        }
        State::Cookies => {
            let cookies: Vec<String> = (0..3_000).map(|n| format!("{n:x}=;")).collect();
            let cookies = cookies.concat();
            post(
                "/lizenzserver/login",
                &format!("{form}cookie: {}\r\n", &cookies[..14_500]),
                16_000,
            )
        }
        State::Fields => {
            let lines: Vec<String> = (0..55).map(|n| format!("x{n}:\r\n")).collect();
            let lines = lines.concat();
            let path = format!("/lizenzserver/login?{}", "a&".repeat(7_400));
            post(&path, &format!("{form}{lines}"), 16_000)
        }
        State::Lists => {
            let list = "a,".repeat(1_800);
            let lines = format!(
                "accept: {list}\r\naccept-language: {list}\r\nx-forwarded-for: {list}\r\nforwarded: {list}\r\n"
            );
            post("/lizenzserver/login", &format!("{form}{lines}"), 16_000)
        }
        _ => {
            let version = wire::get(server, "/api/license/version?version=1.0.0", "");
            assert_eq!(wire::exchange(&mut tls, &version)?.status, 200);
            return Some(Box::new(tls));
        }
    };
    tls.write_all(&request).ok()?;
    tls.flush().ok()?;
    if let State::Record = state {
        let mut record = b"\x17\x03\x03\x40\x10".to_vec();
        record.resize(15_000, 0);
        tls.sock.write_all(&record).ok()?;
    }
    Some(Box::new(tls))
}

/// Opens `count` connections in `state` from 200 addresses; returns them and the peak memory of the server, in KiB.
fn open_many(state: State, server: &Server, count: usize) -> (Vec<Box<dyn Any + Send>>, u64) {
    let (is_over, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (is_over, next) = (&is_over, &next);
        let watcher = scope.spawn(|| {
            let mut max_kib = 0;
            while !is_over.load(Ordering::Relaxed) {
                max_kib = max_kib.max(rss_kib(server));
                std::thread::park_timeout(Duration::from_millis(20));
            }
            max_kib.max(rss_kib(server))
        });
        let each = move || {
            let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
            let own = numbers.take_while(|number| *number < count);
            let joined = own.filter_map(|number| {
                let last = u8::try_from(number % 200).unwrap();
                open_in(state, server, Ipv4Addr::new(127, 0, 9, last))
            });
            joined.collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(each)).collect();
        let connections: Result<Vec<_>, _> = threads
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        // Before `unwrap` panics on a failed thread: the scope would wait for the watcher forever.
        is_over.store(true, Ordering::Relaxed);
        let max_kib = watcher.join().unwrap();
        (
            connections.unwrap().into_iter().flatten().collect(),
            max_kib,
        )
    })
}

#[test]
fn connections_in_any_state_from_many_addresses_use_little_memory() {
    license_server::front::ConnectionLimit::from_system().unwrap();
    let count = if is_strict() { 5000 } else { 150 };
    for state in STATES {
        let server = Server::start();
        // Warm-up: memory that is allocated once.
        drop(open_many(State::Idle, &server, 20));
        let before = rss_kib(&server);
        let (connections, max_kib) = open_many(*state, &server, count);
        let each = max_kib.saturating_sub(before) / count as u64;
        let report = format!(
            "{} of {count} connections, {state:?}: {before} KiB before, {max_kib} KiB at most, {each} each",
            connections.len()
        );
        eprintln!("{report}");
        assert!(max_kib < RSS_KIB, "{report}");
        let expected_kib = before + ONCE_KIB + count as u64 * CONNECTION_KIB;
        assert!(max_kib < expected_kib, "{report}");
        drop(connections);
        let client = server.client();
        assert_eq!(client.get("/api/license/version?version=1.0.0").status, 200);
    }
}

#[test]
fn connections_at_rest_take_little_memory_and_serve_on() {
    license_server::front::ConnectionLimit::from_system().unwrap();
    // Connections of proxies may stay idle for longer than this test waits for the memory.
    let server = started(&[BEHIND_A_PROXY], &[]);
    // Warm-up: memory that is allocated once.
    drop(open_many(State::Idle, &server, 20));
    let before = rss_kib(&server);
    let count = if is_strict() { 5000 } else { 1000 };
    let (connections, max_kib) = open_many(State::Idle, &server, count);
    let each = |kib: u64| kib.saturating_sub(before) / count as u64;
    eventually("most of the memory to be given back", || {
        each(rss_kib(&server)) < AT_REST_KIB
    });
    let at_rest = each(rss_kib(&server));
    eprintln!(
        "{count} connections: {} KiB each in use, {at_rest} at rest",
        each(max_kib)
    );
    let version = wire::get(&server, "/api/license/version?version=1.0.0", "");
    for connection in connections {
        let mut tls = connection.downcast::<wire::Tls>().unwrap();
        assert_eq!(wire::exchange(&mut *tls, &version).unwrap().status, 200);
    }
}

#[test]
fn the_memory_of_a_crowd_is_given_back() {
    license_server::front::ConnectionLimit::from_system().unwrap();
    let server = Server::start();
    let count = if is_strict() { 5000 } else { 500 };
    // Warm-up: memory that is allocated once, for any number of connections.
    drop(open_many(State::Login, &server, count / 10));
    std::thread::park_timeout(GIVEN_BACK_EVERY);
    let before = rss_kib(&server);
    let (connections, max_kib) = open_many(State::Login, &server, count);
    drop(connections);
    let taken = max_kib.saturating_sub(before);
    eprintln!("{count} connections: {before} KiB before, {max_kib} KiB at most");
    // Above what the measurement may differ by.
    assert!(taken > 8 * 1024, "{taken} KiB for {count} connections");
    eventually("nine tenths of the memory to be given back", || {
        rss_kib(&server).saturating_sub(before) < taken / 10
    });
}

/// A control group with a memory limit, in which the server runs. Removed when dropped.
struct MemoryLimit(std::path::PathBuf);

impl MemoryLimit {
    /// Creates a control group with a limit of `bytes`; `None`, with a message, if this machine does not allow it.
    #[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
    fn of(bytes: u64) -> Option<Self> {
        let name = format!("license-server-{:x}", rand::random::<u64>());
        for (folder, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let group = std::path::Path::new(folder).join(&name);
            if std::fs::create_dir(&group).is_err() {
                continue;
            }
            let memory_limit = Self(group.clone());
            if std::fs::write(group.join(limit), bytes.to_string()).is_ok() {
                return Some(memory_limit);
            }
        }
        eprintln!("SKIPPED: no control group can be created here, so memory cannot be limited");
        None
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // The kernel releases a group a moment after its last process has ended.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

#[test]
fn with_256_mib_of_memory_the_server_survives_many_connections_in_any_state() {
    license_server::front::ConnectionLimit::from_system().unwrap();
    let Some(memory_limit) = MemoryLimit::of(256 * 1024 * 1024) else {
        return;
    };
    let mut server = Server::prepare(&[]);
    let enter = format!(
        "echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"",
        memory_limit.0.display()
    );
    server.set_launcher(&["/bin/sh", "-c", &enter]);
    server.run();
    assert!(
        server.log().contains("256 MiB of memory are available"),
        "{}",
        server.log()
    );
    let bystander = Bystander::of(&server);
    let count = if is_strict() { 5000 } else { 60 };
    for state in STATES {
        let (connections, max_kib) = open_many(*state, &server, count);
        eprintln!(
            "{} of {count} connections, {state:?}: {max_kib} KiB at most",
            connections.len()
        );
    }
    bystander.assert_unaffected("beside many connections in any state with 256 MiB");
    assert_eq!(server.stop(), Some(0), "{}", server.log());
}

/// Holds `count` silent connections from `address` until `is_over`, and replaces those that are closed. Counts all in
/// `opened`.
fn hold_silent(
    server: &Server,
    address: Ipv4Addr,
    count: usize,
    opened: &AtomicUsize,
    is_over: &AtomicBool,
) {
    let open = || {
        let stream = connect_from(address, server).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    };
    let mut connections: Vec<TcpStream> = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        connections.retain_mut(|stream| {
            let peeked = stream.peek(&mut [0]);
            peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        });
        for _ in connections.len()..count {
            connections.extend(open());
            opened.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn silent_connections_from_six_addresses_keep_no_client_out() {
    license_server::front::ConnectionLimit::from_system().unwrap();
    let mut server = Server::prepare(&[]);
    // By default, the server accepts 128 connections, 64 per address. Each of the six addresses holds 50.
    let (each, others) = if is_strict() { (1500, 300) } else { (50, 60) };
    if !is_strict() {
        server.set_launcher(&["/bin/sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""]);
    }
    server.run();
    let bystander = Bystander::of(&server);
    let (is_over, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let refused = std::thread::scope(|scope| {
        // Also if an assertion fails here, because the scope waits for the threads.
        let _guard = SetOnDrop(&is_over);
        for last in 1..=6 {
            let (server, opened, is_over) = (&server, &opened, &is_over);
            scope.spawn(move || {
                hold_silent(
                    server,
                    Ipv4Addr::new(127, 0, 8, last),
                    each,
                    opened,
                    is_over,
                );
            });
        }
        eventually("the connections to be open", || {
            opened.load(Ordering::Relaxed) >= each * 6
        });
        let version = wire::get(&server, "/api/license/version?version=1.0.0", "");
        let started_at = Instant::now();
        let refused = (0..others)
            .filter(|number| {
                let last = u8::try_from(number % 100).unwrap();
                !is_served(&server, Ipv4Addr::new(127, 0, 7, last), &version)
            })
            .count();
        bystander.wait_for_heartbeats();
        eprintln!(
            "{refused} of {others} new connections refused beside six times {each} silent ones, in {:?}",
            started_at.elapsed()
        );
        refused
    });
    assert_eq!(refused, 0, "of {others}");
    bystander.assert_unaffected("beside silent connections from six addresses");
}

#[test]
fn a_connection_that_named_a_license_outlives_those_with_the_api_key_only() {
    license_server::front::ConnectionLimit::from_system().unwrap();
    let mut server = Server::prepare(&[]);
    // At most 32 connections.
    server.set_launcher(&["/bin/sh", "-c", "ulimit -n 128; exec \"$0\" \"$@\""]);
    server.run();
    let key = server.issue_license(1);
    assert_eq!(
        server.call("activate", &identity(&key, "laptop")).status,
        201
    );
    let body = identity(&key, "laptop").to_string();
    let verify = wire::post(&server, "/api/license/verify", body.len(), &body);
    let version = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let is_served = |last, request: &[u8]| {
        let stream = connect_from(Ipv4Addr::new(127, 0, 9, last), &server).unwrap();
        let mut tls = wire::try_tls_on(stream, &server).unwrap();
        assert_eq!(
            wire::exchange(&mut tls, request).unwrap().status,
            200,
            "{last}"
        );
        tls
    };
    // From one address, which therefore has the most connections.
    let mut company: Vec<_> = (0..3).map(|_| is_served(1, &verify)).collect();
    let _others: Vec<_> = (2..52).map(|last| is_served(last, &version)).collect();
    for program in &mut company {
        let response = wire::exchange(program, &verify);
        assert_eq!(response.map(|response| response.status), Some(200));
    }
}

/// Sets the flag when dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether a new connection from `address` is accepted and answered.
fn is_served(server: &Server, address: Ipv4Addr, request: &[u8]) -> bool {
    let Ok(stream) = connect_from(address, server) else {
        return false;
    };
    // A failed handshake counts as refused.
    let Ok(mut tls) = wire::try_tls_on(stream, server) else {
        return false;
    };
    wire::exchange(&mut tls, request).is_some_and(|response| response.status == 200)
}
