//! Crowds: many connections in every shape, from many addresses: what they take of memory, and whether others
//! still get in. Small by default; as many as the contract names with `LICENSE_TEST_ROUNDS`.

use std::any::Any;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketType};

use crate::siege::{Bystander, RSS_KIB, rss_kib};
use crate::support::{Server, claim, eventually};
use crate::wire;

/// Memory that one connection of a stranger may take, in KiB: of a debug build, which takes more.
const ONE_KIB: u64 = 40;
/// What a crowd takes once, whatever its size, in KiB.
const ONCE_KIB: u64 = 16 * 1024;

fn is_strict() -> bool {
    std::env::var_os("LICENSE_TEST_ROUNDS").is_some()
}

/// What a connection is at when its client says no more.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// It has said nothing.
    Mute,
    /// A TLS handshake has begun: a long greeting without its end.
    Greeting,
    /// The head of a request has no end.
    Head,
    /// So has the body of a login.
    Login,
    /// So has a body that was sent to a path where no page is.
    Unserved,
    /// So has the body of a program without the API key.
    Keyless,
    /// A record of TLS has no end, after a head that has none.
    Record,
    /// It was answered, and is idle.
    Idle,
    /// It asks for pages, and does not read them.
    Reader,
    /// A head of as many cookies as it can hold, of a login whose body has no end.
    Cookies,
    /// As many short header lines as are taken, and a query of as many fields as the head can hold.
    Fields,
    /// As many header lines of each kind that is read as a list.
    Lists,
}

const SHAPES: &[Shape] = &[
    Shape::Mute,
    Shape::Greeting,
    Shape::Head,
    Shape::Login,
    Shape::Unserved,
    Shape::Keyless,
    Shape::Record,
    Shape::Idle,
    Shape::Reader,
    Shape::Cookies,
    Shape::Fields,
    Shape::Lists,
];

/// A connection from `from`, another address of this machine.
fn from(from: Ipv4Addr, server: &Server) -> std::io::Result<TcpStream> {
    let to = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    net::bind(&socket, &SocketAddr::from((from, 0)))?;
    net::connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// A connection in this shape, which lasts as long as what is returned; none where it was not let in.
fn join(shape: Shape, server: &Server, address: Ipv4Addr) -> Option<Box<dyn Any + Send>> {
    let mut stream = from(address, server).ok()?;
    match shape {
        Shape::Mute => return Some(Box::new(stream)),
        Shape::Greeting => {
            let mut greeting = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03".to_vec();
            greeting.resize(15_000, 0);
            stream.write_all(&greeting).ok()?;
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
    let said = match shape {
        Shape::Head => half_head(15_000),
        Shape::Record => half_head(7_000),
        Shape::Login => post("/lizenzserver/login", form, 16_000),
        Shape::Unserved => post("/lizenzserver/nothing", form, 250_000),
        Shape::Keyless => post("/api/license/verify", json, 16_000),
        Shape::Reader => {
            let page = "GET /lizenzserver/panel.css HTTP/1.1\r\nhost: x\r\n\r\n";
            page.repeat(50).into_bytes()
        }
        Shape::Cookies => {
            let cookies: Vec<String> = (0..3_000).map(|n| format!("{n:x}=;")).collect();
            let cookies = cookies.concat();
            post(
                "/lizenzserver/login",
                &format!("{form}cookie: {}\r\n", &cookies[..14_500]),
                16_000,
            )
        }
        Shape::Fields => {
            let lines: Vec<String> = (0..55).map(|n| format!("x{n}:\r\n")).collect();
            let lines = lines.concat();
            let path = format!("/lizenzserver/login?{}", "a&".repeat(7_400));
            post(&path, &format!("{form}{lines}"), 16_000)
        }
        Shape::Lists => {
            let list = "a,".repeat(1_800);
            let lines = format!(
                "accept: {list}\r\naccept-language: {list}\r\nx-forwarded-for: {list}\r\nforwarded: {list}\r\n"
            );
            post("/lizenzserver/login", &format!("{form}{lines}"), 16_000)
        }
        _ => {
            let version = wire::get(server, "/api/license/version?version=1.0.0", "");
            assert_eq!(wire::ask(&mut tls, &version)?.status, 200);
            return Some(Box::new(tls));
        }
    };
    tls.write_all(&said).ok()?;
    tls.flush().ok()?;
    if let Shape::Record = shape {
        let mut record = b"\x17\x03\x03\x40\x10".to_vec();
        record.resize(15_000, 0);
        tls.sock.write_all(&record).ok()?;
    }
    Some(Box::new(tls))
}

/// `count` connections in this shape from 200 addresses, and the most memory that the server took meanwhile.
fn crowd(shape: Shape, server: &Server, count: usize) -> (Vec<Box<dyn Any + Send>>, u64) {
    let (over, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (over, next) = (&over, &next);
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(rss_kib(server));
                std::thread::park_timeout(Duration::from_millis(20));
            }
            most.max(rss_kib(server))
        });
        let each = move || {
            let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
            let own = numbers.take_while(|number| *number < count);
            let joined = own.filter_map(|number| {
                let last = u8::try_from(number % 200).unwrap();
                join(shape, server, Ipv4Addr::new(127, 0, 9, last))
            });
            joined.collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(each)).collect();
        let held: Result<Vec<_>, _> = threads
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        // Before a failure of theirs ends this thread, which would wait for the watcher.
        over.store(true, Ordering::Relaxed);
        let most = watcher.join().unwrap();
        (held.unwrap().into_iter().flatten().collect(), most)
    })
}

#[test]
fn connections_in_any_shape_from_many_addresses_take_little_memory() {
    license_server::front::ConnectionLimit::make().unwrap();
    let count = if is_strict() { 5000 } else { 150 };
    for shape in SHAPES {
        let server = Server::start();
        // What is made once.
        drop(crowd(Shape::Idle, &server, 20));
        let before = rss_kib(&server);
        let (held, most) = crowd(*shape, &server, count);
        let each = most.saturating_sub(before) / count as u64;
        let took = format!(
            "{} of {count} connections, {shape:?}: {before} KiB before, {most} KiB at most, {each} each",
            held.len()
        );
        eprintln!("{took}");
        assert!(most < RSS_KIB, "{took}");
        let fair = before + ONCE_KIB + count as u64 * ONE_KIB;
        assert!(most < fair, "{took}");
        drop(held);
        let client = server.client();
        assert_eq!(client.get("/api/license/version?version=1.0.0").status, 200);
    }
}

/// A control group of so many bytes that the server runs in; removed when this goes. None where this machine
/// gives none, which is said.
struct Cage(std::path::PathBuf);

impl Cage {
    #[expect(clippy::print_stderr, reason = "a test that was not run is to be seen")]
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
            let cage = Self(group.clone());
            if std::fs::write(group.join(limit), bytes.to_string()).is_ok() {
                return Some(cage);
            }
        }
        eprintln!("SKIPPED: no control group can be made here, so nothing is short of memory");
        None
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // The kernel lets go of a group a moment after its last process.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

#[test]
fn with_256_mib_of_memory_the_server_outlives_every_crowd() {
    license_server::front::ConnectionLimit::make().unwrap();
    let Some(cage) = Cage::of(256 * 1024 * 1024) else {
        return;
    };
    let mut server = Server::prepare(&[]);
    let enter = format!(
        "echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"",
        cage.0.display()
    );
    server.launch_by(&["/bin/sh", "-c", &enter]);
    server.run();
    assert!(
        server.log().contains("256 MiB of memory are there"),
        "{}",
        server.log()
    );
    let bystander = Bystander::of(&server);
    let count = if is_strict() { 5000 } else { 60 };
    for shape in SHAPES {
        let (held, most) = crowd(*shape, &server, count);
        eprintln!(
            "{} of {count} connections, {shape:?}: {most} KiB at most",
            held.len()
        );
    }
    bystander.was_well("beside every crowd with 256 MiB");
    assert_eq!(server.stop(), Some(0), "{}", server.log());
}

/// Holds `count` mute connections from `address` until it is told to stop; opens new ones for those that end.
fn mute(server: &Server, address: Ipv4Addr, count: usize, all: &AtomicUsize, over: &AtomicBool) {
    let open = || {
        let stream = from(address, server).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    };
    let mut held: Vec<TcpStream> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        held.retain_mut(|stream| {
            let told = stream.peek(&mut [0]);
            told.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        });
        for _ in held.len()..count {
            held.extend(open());
            all.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn mute_crowds_of_six_addresses_keep_nobody_out() {
    license_server::front::ConnectionLimit::make().unwrap();
    let mut server = Server::prepare(&[]);
    // By default there is room for 128 connections, 64 of an address: each of the six wants 50.
    let (each, others) = if is_strict() { (1500, 300) } else { (50, 60) };
    if !is_strict() {
        server.launch_by(&["/bin/sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""]);
    }
    server.run();
    let bystander = Bystander::of(&server);
    let (over, all) = (AtomicBool::new(false), AtomicUsize::new(0));
    let refused = std::thread::scope(|scope| {
        // Also where something fails here: the scope waits for the crowds.
        let _ends = Ends(&over);
        for last in 1..=6 {
            let (server, all, over) = (&server, &all, &over);
            scope.spawn(move || mute(server, Ipv4Addr::new(127, 0, 8, last), each, all, over));
        }
        eventually("the crowds to be there", || {
            all.load(Ordering::Relaxed) >= each * 6
        });
        let version = wire::get(&server, "/api/license/version?version=1.0.0", "");
        let begun = Instant::now();
        let refused = (0..others)
            .filter(|number| {
                let last = u8::try_from(number % 100).unwrap();
                !is_served(&server, Ipv4Addr::new(127, 0, 7, last), &version)
            })
            .count();
        eprintln!(
            "{refused} of {others} new connections refused beside six crowds of {each}, in {:?}",
            begun.elapsed()
        );
        refused
    });
    assert_eq!(refused, 0, "of {others}");
    bystander.was_well("beside six mute crowds");
}

#[test]
fn a_connection_on_which_a_license_was_named_outlives_those_with_the_api_key_alone() {
    license_server::front::ConnectionLimit::make().unwrap();
    let mut server = Server::prepare(&[]);
    // Room for 32 connections.
    server.launch_by(&["/bin/sh", "-c", "ulimit -n 128; exec \"$0\" \"$@\""]);
    server.run();
    let key = server.license(1);
    assert_eq!(server.call("activate", &claim(&key, "laptop")).status, 201);
    let body = claim(&key, "laptop").to_string();
    let verify = wire::post(&server, "/api/license/verify", body.len(), &body);
    let version = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let is_served = |last, request: &[u8]| {
        let stream = from(Ipv4Addr::new(127, 0, 9, last), &server).unwrap();
        let mut tls = wire::try_tls_on(stream, &server).unwrap();
        assert_eq!(wire::ask(&mut tls, request).unwrap().status, 200, "{last}");
        tls
    };
    // Of one address, which so has most connections.
    let mut company: Vec<_> = (0..3).map(|_| is_served(1, &verify)).collect();
    let _others: Vec<_> = (2..52).map(|last| is_served(last, &version)).collect();
    for program in &mut company {
        let heard = wire::ask(program, &verify);
        assert_eq!(heard.map(|heard| heard.status), Some(200));
    }
}

/// Says that it is over when this goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether somebody new is let in and answered.
fn is_served(server: &Server, address: Ipv4Addr, request: &[u8]) -> bool {
    let Ok(stream) = from(address, server) else {
        return false;
    };
    // Not greeted is refused.
    let Ok(mut tls) = wire::try_tls_on(stream, server) else {
        return false;
    };
    wire::ask(&mut tls, request).is_some_and(|heard| heard.status == 200)
}
