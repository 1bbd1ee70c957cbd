//! Certificates from an authority: Pebble gives them, with every fault that an authority may have.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use crate::authority::{self, ACCOUNTS, Authority, NAME, ORDERS, RENEWALS, client_tls};
use crate::support::{Server, eventually, files_below, raw};
use crate::wire::{self, Tls};

const TALK: &str = "/api/license/version?version=1.0.0";

/// A connection by TLS to the server as `name`, for whoever trusts `root`.
fn tls_as(server: &Server, root: &Path, name: &'static str) -> Option<Tls> {
    let config = client_tls(root);
    let name = ServerName::try_from(name).unwrap();
    let stream = wire::patient(server);
    let mut tls = StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).ok()?;
    }
    Some(tls)
}

/// The certificate that it serves with, where that is one by the authority.
fn given(server: &Server, authority: &Authority) -> Option<Vec<u8>> {
    let tls = tls_as(server, &authority.root(), NAME)?;
    Some(tls.conn.peer_certificates()?[0].to_vec())
}

fn wait_for_one(server: &Server, authority: &Authority) -> Vec<u8> {
    let mut found = None;
    eventually("a certificate by the authority", || {
        found = given(server, authority);
        found.is_some()
    });
    found.unwrap()
}

/// What `check` says of the certificate: whether all is well, and its words.
fn checked(server: &Server) -> (bool, String) {
    let output = server.cli(&["--json", "check"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut all = told["checks"].as_array().unwrap().iter();
    let one = all.find(|check| check["name"] == "certificate").unwrap();
    let detail = one["detail"].as_str().unwrap().to_owned();
    assert_eq!(detail.lines().count(), 1, "{detail}");
    (one["ok"] == true, detail)
}

#[test]
fn the_first_certificate_comes_by_http_and_a_restart_asks_for_none() {
    if !authority::is_here() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, http_port) = authority::prepared(&authority);
    authority.open(http_port, server.port(), 50);
    authority.hold(ORDERS);
    server.run();
    eventually("an order", || !authority.asked(ORDERS).is_empty());
    // Until then it serves with a certificate of its own.
    let own = server.path("data/tls/ca.pem");
    let mut tls = tls_as(&server, &own, "localhost").unwrap();
    let request = wire::get(&server, TALK, "");
    assert_eq!(wire::ask(&mut tls, &request).unwrap().status, 200);
    assert!(given(&server, &authority).is_none());
    let (well, told) = checked(&server);
    assert!(!well && told.contains("self-signed"), "{told}");
    authority.release();
    let first = wait_for_one(&server, &authority);
    assert_eq!(
        wire::ask(&mut tls, &request).unwrap().status,
        200,
        "an open one goes on"
    );
    eventually("a good word", || checked(&server).0);
    let (_, told) = checked(&server);
    assert!(
        told.contains("0 days old") && told.contains("renewal due about"),
        "{told}"
    );
    for path in files_below(&server.path("data")) {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        let right = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, right, "{}", path.display());
    }
    let log = server.log();
    assert!(
        log.contains("is in use") && !log.contains("not proved"),
        "{log}"
    );
    // A restart keeps it, and the account.
    let orders = authority.asked(ORDERS).len();
    server.restart();
    assert_eq!(given(&server, &authority).as_ref(), Some(&first), "at once");
    assert_eq!(authority.asked(ORDERS).len(), orders, "none is asked for");
    assert_eq!(server.stop(), Some(0));
    let two = format!("[\"{NAME}\", \"second.example.test\"]");
    server.set("TLS__DOMAINS", &two);
    let accounts = authority.asked(ACCOUNTS).len();
    server.run();
    eventually("a certificate for two names", || {
        tls_as(&server, &authority.root(), "second.example.test").is_some()
    });
    assert!(authority.asked(ORDERS).len() > orders);
    assert_eq!(
        authority.asked(ACCOUNTS).len(),
        accounts,
        "the account is the same"
    );
}

#[test]
fn where_http_is_not_reached_the_proof_is_a_certificate() {
    if !authority::is_here() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, _) = authority::prepared(&authority);
    authority.open(authority::free_port(), server.port(), 5);
    server.run();
    wait_for_one(&server, &authority);
    let log = server.log();
    assert!(
        log.contains("not proved") && log.contains("HTTP-01"),
        "{log}"
    );
    // Nobody is asked for a proof any more: who wants to see one gets nothing, and who offers more than
    // that is served as everybody.
    let root = authority.root();
    let talk = |protocols: &[&[u8]]| {
        let mut config = (*client_tls(&root)).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(NAME).unwrap();
        let tls = ClientConnection::new(config.into(), name).unwrap();
        let mut tls = StreamOwned::new(tls, wire::patient(&server));
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).ok()?;
        }
        wire::ask(&mut tls, &wire::get(&server, TALK, "")).map(|heard| heard.status)
    };
    assert_eq!(talk(&[b"acme-tls/1"]), None);
    assert_eq!(talk(&[b"acme-tls/1", b"http/1.1"]), Some(200));
    assert_eq!(
        talk(&[b"acme-tls/1", b"h2"]),
        None,
        "no HTTP in that protocol"
    );
    // The next time what worked is tried first.
    eventually("a note of it", || {
        let state = std::fs::read_to_string(server.path("data/tls/acme/state.json"));
        state.is_ok_and(|text| text.contains("\"proved_by\": \"tls-alpn-01\""))
    });
}

/// Stops it, lets the rest pass that follows a success, and starts it again, when the authority is asked
/// for its word on renewals: that one is due. The word is held.
fn a_day_later(server: &mut Server, authority: &Authority) {
    eventually("a note of the success", || checked(server).0);
    assert_eq!(server.stop(), Some(0));
    let file = server.path("data/tls/acme/state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(state["next_try"].is_i64(), "{state}");
    state["next_try"] = Value::Null;
    std::fs::write(&file, state.to_string()).unwrap();
    authority.renewals(true);
    authority.hold(RENEWALS);
    server.run();
    eventually("a question when to renew", || {
        !authority.asked(RENEWALS).is_empty()
    });
}

/// Ends the load, whatever becomes of the test.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Load {
    over: AtomicBool,
    asked: AtomicUsize,
    anew: AtomicUsize,
}

/// Asks again and again, perhaps over a new connection each time; every answer must be a good one.
fn program(server: &Server, root: &Path, anew: bool, load: &Load) {
    let request = wire::get(server, TALK, "");
    let mut tls = tls_as(server, root, NAME).unwrap();
    while !load.over.load(Ordering::Relaxed) {
        if anew {
            tls = tls_as(server, root, NAME).unwrap();
            load.anew.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(wire::ask(&mut tls, &request).unwrap().status, 200);
        load.asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_renewal_under_load_loses_no_request() {
    if !authority::is_here() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, http_port) = authority::prepared(&authority);
    authority.open(http_port, server.port(), 20);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    server.run();
    let first = wait_for_one(&server, &authority);
    a_day_later(&mut server, &authority);
    let (load, root) = (Load::default(), authority.root());
    let (server, load, root) = (&server, &load, root.as_path());
    std::thread::scope(|scope| {
        let end = Ends(&load.over);
        // Half of them keep their connection as long as the server does.
        let programs: Vec<_> = [true, false, true, false]
            .map(|anew| scope.spawn(move || program(server, root, anew, load)))
            .into();
        let more = |count: usize| {
            let until = load.asked.load(Ordering::Relaxed) + count;
            eventually("load", || {
                let broken = programs.iter().any(ScopedJoinHandle::is_finished);
                broken || load.asked.load(Ordering::Relaxed) > until
            });
        };
        more(50);
        authority.release();
        eventually("another certificate", || {
            given(server, &authority).is_some_and(|now| now != first)
        });
        more(50);
        drop(end);
    });
    let anew = load.anew.load(Ordering::Relaxed);
    assert!(anew > 20, "handshakes on both sides of it: {anew}");
    let orders = authority.asked(ORDERS);
    let renewing = orders.iter().filter(|order| order["replaces"].is_string());
    assert!(renewing.count() > 0, "{orders:?}");
    assert!(
        server.log().contains("as its authority wishes"),
        "{}",
        server.log()
    );
    // An authority that wishes for it again at once is not obeyed: limits would be burnt.
    eventually("the next question", || authority.asked(RENEWALS).len() > 1);
    let count = orders.len();
    std::thread::park_timeout(std::time::Duration::from_secs(2));
    assert_eq!(authority.asked(ORDERS).len(), count);
}

#[test]
fn an_authority_that_is_away_costs_nothing_but_a_word() {
    if !authority::is_here() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, http_port) = authority::prepared(&authority);
    authority.open(http_port, server.port(), 0);
    server.run();
    let first = wait_for_one(&server, &authority);
    a_day_later(&mut server, &authority);
    authority.cut("/nonce-plz");
    authority.release();
    eventually("a word about it", || {
        server.log().contains("no new certificate")
    });
    let log = server.log();
    assert!(
        log.contains("the old one serves until") && log.contains("next try"),
        "{log}"
    );
    for _ in 0..2 {
        assert_eq!(
            given(&server, &authority).as_ref(),
            Some(&first),
            "the old one serves"
        );
        let (well, told) = checked(&server);
        assert!(!well && told.contains("failures in a row"), "{told}");
        assert!(told.contains("see whether this machine reaches"), "{told}");
        // Also after a restart.
        server.restart();
    }
}

#[test]
fn what_the_authority_refuses_is_told_with_what_to_do() {
    if !authority::is_here() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, _) = authority::prepared(&authority);
    authority.open(authority::free_port(), authority::free_port(), 5);
    server.run();
    eventually("a word about it", || {
        server.log().contains("no new certificate")
    });
    let (well, told) = checked(&server);
    for part in [
        "self-signed",
        NAME,
        "HTTP-01 on port 80",
        "TLS-ALPN-01 on port 443",
        "let the authority reach this server",
    ] {
        assert!(!well && told.contains(part), "{part}: {told}");
    }
    let log = server.log();
    assert!(log.contains("a self-signed one serves meanwhile"), "{log}");
    // A restart does not hammer it.
    let orders = authority.asked(ORDERS).len();
    server.restart();
    let own = server.path("data/tls/ca.pem");
    assert!(tls_as(&server, &own, "localhost").is_some());
    assert_eq!(authority.asked(ORDERS).len(), orders);
    assert!(checked(&server).1.contains("failures in a row: 1,"));
}

#[test]
fn a_damaged_certificate_is_got_anew_also_without_plain_http() {
    if !authority::is_here() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, http_port) = authority::prepared(&authority);
    server.set("TLS__HTTP_PORT", "0");
    authority.open(http_port, server.port(), 5);
    server.run();
    let first = wait_for_one(&server, &authority);
    eventually("a note of the success", || checked(&server).0);
    assert!(!server.log().contains("not proved"), "{}", server.log());
    let plain = std::net::TcpStream::connect(("127.0.0.1", http_port));
    assert!(plain.is_err(), "nobody listens");
    assert_eq!(server.stop(), Some(0));
    std::fs::write(server.path("data/tls/acme/certificate.pem"), "damaged").unwrap();
    server.run();
    assert_ne!(wait_for_one(&server, &authority), first);
    assert!(server.log().contains("certificate.pem cannot be used"));
}

/// A server whose authority is nowhere.
fn alone() -> (Server, u16) {
    let authority = Authority::prepare();
    let (server, http_port) = authority::prepared(&authority);
    // The authority's root is read at the start.
    std::fs::copy(authority.own_root(), server.path("root.pem")).unwrap();
    let mut server = server;
    server.set("TLS__DIRECTORY_ROOT", "root.pem");
    server.set(
        "TLS__DIRECTORY",
        &format!("https://localhost:{}/dir", authority::free_port()),
    );
    (server, http_port)
}

#[test]
fn plain_http_leads_people_to_https_and_programs_nowhere() {
    let (mut server, http_port) = alone();
    server.set("SERVER__PUBLIC_URL", &format!("https://{NAME}"));
    server.run();
    let plain = || {
        let stream = raw(http_port);
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(40)))
            .unwrap();
        stream
    };
    let mut stream = plain();
    let mut ask = |text: &str| {
        let heard = wire::ask(&mut stream, format!("{text}\r\n\r\n").as_bytes()).unwrap();
        assert!(heard.is_guarded(), "{text}: {heard:?}");
        // RFC 6797 §7.2: never in plain HTTP.
        assert_eq!(heard.header("strict-transport-security"), None);
        heard
    };
    for method in ["GET", "HEAD"] {
        for path in [
            "/lizenzserver",
            "/lizenzserver/",
            "/lizenzserver/login?x=%20",
        ] {
            let heard = ask(&format!("{method} {path} HTTP/1.1\r\nhost: evil.example"));
            assert_eq!(heard.status, 308, "{method} {path}");
            let there = format!("https://{NAME}{path}");
            assert_eq!(heard.header("location"), Some(there.as_str()));
        }
    }
    // One bare answer to everything else, the same as over TLS.
    let own = server.path("data/tls/ca.pem");
    let mut tls = tls_as(&server, &own, "localhost").unwrap();
    let mut dark = wire::ask(&mut tls, b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // Said over TLS only: in plain HTTP browsers must pass it over (RFC 6797 §7.2).
    dark.headers
        .retain(|(name, _)| name != "strict-transport-security");
    assert_eq!((dark.status, dark.body.as_str()), (503, ""));
    let key = server.api_key();
    for request in [
        format!("GET {TALK} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}"),
        format!(
            "POST /api/license/activate HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: 2\r\n\r\n{{}}"
        ),
        "POST /lizenzserver/login HTTP/1.1\r\nhost: x\r\ncontent-length: 0".to_owned(),
        "GET /lizenzserverx HTTP/1.1\r\nhost: x".to_owned(),
        "GET / HTTP/1.1\r\nhost: x".to_owned(),
        "GET /health HTTP/1.1\r\nhost: x".to_owned(),
        "GET /.well-known/acme-challenge/unknown HTTP/1.1\r\nhost: x".to_owned(),
        "GET /.well-known/acme-challenge/ HTTP/1.1\r\nhost: x".to_owned(),
        "PROPFIND /lizenzserver HTTP/1.1\r\nhost: x".to_owned(),
    ] {
        // A body has its own end.
        let mut stream = plain();
        let text = if request.contains("\r\n\r\n") {
            request
        } else {
            format!("{request}\r\n\r\n")
        };
        let heard = wire::ask(&mut stream, text.as_bytes()).unwrap();
        assert_eq!(heard, dark, "{text}");
    }
    // The limits of every connection.
    let heard = wire::ask(&mut plain(), b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(
        heard.status == 400 && heard.is_guarded(),
        "no host: {heard:?}"
    );
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    let heard = wire::ask(&mut plain(), long.as_bytes()).unwrap();
    assert!(heard.status == 431 && heard.is_guarded(), "{heard:?}");
    let mut slow = plain();
    std::io::Write::write_all(&mut slow, b"GET / HT").unwrap();
    assert!(wire::closes(&mut slow), "a head that does not end");
    assert_eq!(server.stop(), Some(0), "{}", server.log());
}

#[test]
fn whoever_takes_every_place_of_plain_http_takes_none_of_https() {
    let (mut server, http_port) = alone();
    server.launch_by(&["sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""]);
    server.run();
    let mut held: Vec<_> = (0..40).map(|_| raw(http_port)).collect();
    let mut refused = 0;
    for stream in &mut held {
        let patience = std::time::Duration::from_millis(100);
        stream.set_read_timeout(Some(patience)).unwrap();
        refused += u32::from(wire::closes(stream));
    }
    assert!(refused >= 30, "a few of them are enough");
    let own = server.path("data/tls/ca.pem");
    let mut tls = tls_as(&server, &own, "localhost").unwrap();
    let request = wire::get(&server, TALK, "");
    assert_eq!(wire::ask(&mut tls, &request).unwrap().status, 200);
}

#[test]
fn what_cannot_work_is_refused_at_the_start_with_what_to_do() {
    let (mut server, http_port) = alone();
    let taken = std::net::TcpListener::bind(("127.0.0.1", http_port)).unwrap();
    let refused = |server: &Server, status: i32, words: &[&str]| {
        let output = server.cli(&["serve"]);
        let told = String::from_utf8(output.stderr).unwrap();
        let last = told.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(status), "{told}");
        for word in words {
            assert!(last.contains(word), "{word}: {told}");
        }
    };
    refused(
        &server,
        1,
        &[&format!("127.0.0.1:{http_port}"), "tls.http_port"],
    );
    drop(taken);
    for (key, value, words) in [
        ("TLS__DIRECTORY_ROOT", "nowhere.pem", "tls.directory_root"),
        ("TLS__DOMAINS", "[\"127.0.0.1\"]", "host names"),
        ("TLS__DOMAINS", "[]", "tls.domains"),
    ] {
        server.set(key, value);
        refused(&server, 2, &[words]);
    }
}
