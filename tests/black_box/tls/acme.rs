//! Certificates by ACME: Pebble issues them, and the tests add the errors that an authority may have.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use crate::authority::{self, ACCOUNTS, Authority, NAME, ORDERS, RENEWALS, client_tls};
use crate::support::{Server, connect_tcp, eventually, files_below, free_port};
use crate::wire::{self, Tls};

const VERSION_PATH: &str = "/api/license/version?version=1.0.0";

/// A TLS connection to the server as `name` that trusts `root`; `None` if the handshake fails.
fn tls_as(server: &Server, root: &Path, name: &'static str) -> Option<Tls> {
    let config = client_tls(root);
    let name = ServerName::try_from(name).unwrap();
    let stream = wire::connect(server);
    let mut tls = StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).ok()?;
    }
    Some(tls)
}

/// The certificate of the server, if the authority issued it.
fn issued_certificate(server: &Server, authority: &Authority) -> Option<Vec<u8>> {
    let tls = tls_as(server, &authority.root(), NAME)?;
    Some(tls.conn.peer_certificates()?[0].to_vec())
}

fn wait_for_certificate(server: &Server, authority: &Authority) -> Vec<u8> {
    let mut found = None;
    eventually("a certificate by the authority", || {
        found = issued_certificate(server, authority);
        found.is_some()
    });
    found.unwrap()
}

/// The result of `check` for the certificate: whether it is ok, and its text.
fn check_certificate(server: &Server) -> (bool, String) {
    let output = server.cli(&["--json", "check"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut all = report["checks"].as_array().unwrap().iter();
    let one = all.find(|check| check["name"] == "certificate").unwrap();
    let detail = one["detail"].as_str().unwrap().to_owned();
    assert_eq!(detail.lines().count(), 1, "{detail}");
    (one["ok"] == true, detail)
}

#[test]
fn the_first_certificate_is_validated_by_http_and_a_restart_requests_none() {
    if !authority::pebble_is_installed() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, http_port) = authority::prepare_server(&authority);
    authority.start(http_port, server.port(), 50);
    authority.delay_requests(ORDERS);
    server.run();
    eventually("an order", || !authority.payloads_for(ORDERS).is_empty());
    // Until then the server uses a self-signed certificate.
    let own = server.path("data/tls/ca.pem");
    let mut tls = tls_as(&server, &own, "localhost").unwrap();
    let request = wire::get(&server, VERSION_PATH, "");
    assert_eq!(wire::exchange(&mut tls, &request).unwrap().status, 200);
    assert!(issued_certificate(&server, &authority).is_none());
    let (ok, text) = check_certificate(&server);
    assert!(!ok && text.contains("self-signed"), "{text}");
    authority.release_requests();
    let first = wait_for_certificate(&server, &authority);
    assert_eq!(
        wire::exchange(&mut tls, &request).unwrap().status,
        200,
        "an open connection stays open"
    );
    let mut tls = tls_as(&server, &authority.root(), NAME).unwrap();
    let page = wire::exchange(&mut tls, &wire::get(&server, "/lizenzserver/login", ""));
    let strict = page
        .unwrap()
        .header("strict-transport-security")
        .map(str::to_owned);
    assert_eq!(strict.as_deref(), Some("max-age=31536000"));
    eventually("the check to be ok", || check_certificate(&server).0);
    let (_, text) = check_certificate(&server);
    assert!(
        text.contains("0 days old") && text.contains("renewal due about"),
        "{text}"
    );
    for path in files_below(&server.path("data")) {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        let right = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, right, "{}", path.display());
    }
    let log = server.log();
    assert!(
        log.contains("is in use") && !log.contains("challenge failed"),
        "{log}"
    );
    // After a restart, the certificate and the account are the same.
    let orders = authority.payloads_for(ORDERS).len();
    server.restart();
    assert_eq!(
        issued_certificate(&server, &authority).as_ref(),
        Some(&first),
        "at once"
    );
    assert_eq!(authority.payloads_for(ORDERS).len(), orders, "no new order");
    assert_eq!(server.stop(), Some(0));
    let two = format!("[\"{NAME}\", \"second.example.test\"]");
    server.set("TLS__DOMAINS", &two);
    let accounts = authority.payloads_for(ACCOUNTS).len();
    server.run();
    eventually("a certificate for two names", || {
        tls_as(&server, &authority.root(), "second.example.test").is_some()
    });
    assert!(authority.payloads_for(ORDERS).len() > orders);
    assert_eq!(
        authority.payloads_for(ACCOUNTS).len(),
        accounts,
        "the account is the same"
    );
}

#[test]
fn if_http_is_not_reachable_the_challenge_uses_tls_alpn() {
    if !authority::pebble_is_installed() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, _) = authority::prepare_server(&authority);
    authority.start(free_port(), server.port(), 5);
    server.run();
    wait_for_certificate(&server, &authority);
    let log = server.log();
    assert!(
        log.contains("challenge failed") && log.contains("HTTP-01"),
        "{log}"
    );
    // After the challenge, a validation request gets no certificate, and a client that offers other protocols too is
    // served as usual.
    let root = authority.root();
    let request_with = |protocols: &[&[u8]]| {
        let mut config = (*client_tls(&root)).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(NAME).unwrap();
        let tls = ClientConnection::new(config.into(), name).unwrap();
        let mut tls = StreamOwned::new(tls, wire::connect(&server));
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).ok()?;
        }
        wire::exchange(&mut tls, &wire::get(&server, VERSION_PATH, ""))
            .map(|response| response.status)
    };
    assert_eq!(request_with(&[b"acme-tls/1"]), None);
    assert_eq!(request_with(&[b"acme-tls/1", b"http/1.1"]), Some(200));
    assert_eq!(
        request_with(&[b"acme-tls/1", b"h2"]),
        None,
        "no HTTP in that protocol"
    );
    // The challenge that worked is stored, to be tried first the next time.
    eventually("the state file", || {
        let state = std::fs::read_to_string(server.path("data/tls/acme/state.json"));
        state.is_ok_and(|text| text.contains("\"proved_by\": \"tls-alpn-01\""))
    });
}

/// Restarts the server as if the wait after a success had passed. The authority suggests to renew the certificate now,
/// but holds back its response until [`Authority::release_requests`].
fn restart_when_renewal_is_due(server: &mut Server, authority: &Authority) {
    eventually("the success to be stored", || check_certificate(server).0);
    assert_eq!(server.stop(), Some(0));
    let file = server.path("data/tls/acme/state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(state["next_try"].is_i64(), "{state}");
    state["next_try"] = Value::Null;
    std::fs::write(&file, state.to_string()).unwrap();
    authority.offer_renewal_info(true);
    authority.delay_requests(RENEWALS);
    server.run();
    eventually("a request for renewal information", || {
        !authority.payloads_for(RENEWALS).is_empty()
    });
}

/// Ends the load when it is dropped, also if the test fails.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    requests: AtomicUsize,
    connections: AtomicUsize,
}

/// Sends requests until the load ends, over a new connection each time or over one; every response must be 200.
fn send_requests(server: &Server, root: &Path, reconnect: bool, load: &Load) {
    let request = wire::get(server, VERSION_PATH, "");
    let mut tls = tls_as(server, root, NAME).unwrap();
    while !load.is_over.load(Ordering::Relaxed) {
        if reconnect {
            tls = tls_as(server, root, NAME).unwrap();
            load.connections.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(wire::exchange(&mut tls, &request).unwrap().status, 200);
        load.requests.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_renewal_under_load_loses_no_request() {
    if !authority::pebble_is_installed() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, http_port) = authority::prepare_server(&authority);
    authority.start(http_port, server.port(), 20);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    server.run();
    let first = wait_for_certificate(&server, &authority);
    restart_when_renewal_is_due(&mut server, &authority);
    let (load, root) = (Load::default(), authority.root());
    let (server, load, root) = (&server, &load, root.as_path());
    std::thread::scope(|scope| {
        let end = EndOnDrop(&load.is_over);
        // Half of the programs keep their connection.
        let programs: Vec<_> = [true, false, true, false]
            .map(|reconnect| scope.spawn(move || send_requests(server, root, reconnect, load)))
            .into();
        let wait_for_requests = |count: usize| {
            let until = load.requests.load(Ordering::Relaxed) + count;
            eventually("load", || {
                let broken = programs.iter().any(ScopedJoinHandle::is_finished);
                broken || load.requests.load(Ordering::Relaxed) > until
            });
        };
        wait_for_requests(50);
        authority.release_requests();
        eventually("another certificate", || {
            issued_certificate(server, &authority).is_some_and(|now| now != first)
        });
        wait_for_requests(50);
        drop(end);
    });
    let connections = load.connections.load(Ordering::Relaxed);
    assert!(
        connections > 20,
        "handshakes before and after it: {connections}"
    );
    let orders = authority.payloads_for(ORDERS);
    let renewing = orders.iter().filter(|order| order["replaces"].is_string());
    assert!(renewing.count() > 0, "{orders:?}");
    assert!(
        server.log().contains("as its authority suggests"),
        "{}",
        server.log()
    );
    // If the authority suggests an immediate renewal again, the server waits, to stay within the authority's limits.
    eventually("the next request for renewal information", || {
        authority.payloads_for(RENEWALS).len() > 1
    });
    let count = orders.len();
    std::thread::park_timeout(std::time::Duration::from_secs(2));
    assert_eq!(authority.payloads_for(ORDERS).len(), count);
}

#[test]
fn if_the_authority_is_unreachable_the_old_certificate_stays_and_the_failure_is_reported() {
    if !authority::pebble_is_installed() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, http_port) = authority::prepare_server(&authority);
    authority.start(http_port, server.port(), 0);
    server.run();
    let first = wait_for_certificate(&server, &authority);
    restart_when_renewal_is_due(&mut server, &authority);
    authority.drop_requests("/nonce-plz");
    authority.release_requests();
    eventually("the log line", || {
        server.log().contains("no new certificate")
    });
    let log = server.log();
    assert!(
        log.contains("the old one is valid until") && log.contains("next attempt"),
        "{log}"
    );
    for _ in 0..2 {
        assert_eq!(
            issued_certificate(&server, &authority).as_ref(),
            Some(&first),
            "the old certificate is in use"
        );
        let (ok, text) = check_certificate(&server);
        assert!(!ok && text.contains("failures in a row"), "{text}");
        assert!(text.contains("check that this machine reaches"), "{text}");
        // The same after a restart.
        server.restart();
    }
}

#[test]
fn a_refusal_by_the_authority_is_reported_with_what_to_do() {
    if !authority::pebble_is_installed() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, _) = authority::prepare_server(&authority);
    authority.start(free_port(), free_port(), 5);
    server.run();
    eventually("the log line", || {
        server.log().contains("no new certificate")
    });
    let (ok, text) = check_certificate(&server);
    for part in [
        "self-signed",
        NAME,
        "HTTP-01 on port 80",
        "TLS-ALPN-01 on port 443",
        "make this server reachable",
    ] {
        assert!(!ok && text.contains(part), "{part}: {text}");
    }
    let log = server.log();
    assert!(log.contains("a self-signed one is in use"), "{log}");
    // A restart does not send another order at once.
    let orders = authority.payloads_for(ORDERS).len();
    server.restart();
    let own = server.path("data/tls/ca.pem");
    assert!(tls_as(&server, &own, "localhost").is_some());
    assert_eq!(authority.payloads_for(ORDERS).len(), orders);
    assert!(
        check_certificate(&server)
            .1
            .contains("failures in a row: 1,")
    );
}

#[test]
fn a_damaged_certificate_is_replaced_also_without_plain_http() {
    if !authority::pebble_is_installed() {
        return;
    }
    let mut authority = Authority::prepare();
    let (mut server, http_port) = authority::prepare_server(&authority);
    server.set("TLS__HTTP_PORT", "0");
    authority.start(http_port, server.port(), 5);
    server.run();
    let first = wait_for_certificate(&server, &authority);
    eventually("the success to be stored", || check_certificate(&server).0);
    assert!(
        !server.log().contains("challenge failed"),
        "{}",
        server.log()
    );
    let plain = std::net::TcpStream::connect(("127.0.0.1", http_port));
    assert!(plain.is_err(), "the port is closed");
    assert_eq!(server.stop(), Some(0));
    std::fs::write(server.path("data/tls/acme/certificate.pem"), "damaged").unwrap();
    server.run();
    assert_ne!(wait_for_certificate(&server, &authority), first);
    assert!(server.log().contains("certificate.pem cannot be used"));
}

/// Prepares a server whose authority does not exist.
fn prepare_without_authority() -> (Server, u16) {
    let authority = Authority::prepare();
    let (server, http_port) = authority::prepare_server(&authority);
    // The root of the authority is read at the start.
    std::fs::copy(authority.directory_root(), server.path("root.pem")).unwrap();
    let mut server = server;
    server.set("TLS__DIRECTORY_ROOT", "root.pem");
    server.set(
        "TLS__DIRECTORY",
        &format!("https://localhost:{}/dir", free_port()),
    );
    (server, http_port)
}

#[test]
fn plain_http_redirects_browsers_to_https_and_does_not_serve_programs() {
    let (mut server, http_port) = prepare_without_authority();
    server.set("SERVER__PUBLIC_URL", &format!("https://{NAME}"));
    server.run();
    let connect_plain = || {
        let stream = connect_tcp(http_port);
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(40)))
            .unwrap();
        stream
    };
    let mut stream = connect_plain();
    let mut ask = |text: &str| {
        let response = wire::exchange(&mut stream, format!("{text}\r\n\r\n").as_bytes()).unwrap();
        assert!(response.has_security_headers(), "{text}: {response:?}");
        // RFC 6797 §7.2: never in plain HTTP.
        assert_eq!(response.header("strict-transport-security"), None);
        response
    };
    for method in ["GET", "HEAD"] {
        for path in [
            "/lizenzserver",
            "/lizenzserver/",
            "/lizenzserver/login?x=%20",
        ] {
            let response = ask(&format!("{method} {path} HTTP/1.1\r\nhost: evil.example"));
            assert_eq!(response.status, 308, "{method} {path}");
            let target = format!("https://{NAME}{path}");
            assert_eq!(response.header("location"), Some(target.as_str()));
        }
    }
    // Every other request gets the same bare 503 as over TLS.
    let own = server.path("data/tls/ca.pem");
    let mut tls = tls_as(&server, &own, "localhost").unwrap();
    let mut not_served =
        wire::exchange(&mut tls, b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // This header is sent over TLS only: browsers must ignore it in plain HTTP (RFC 6797 §7.2).
    not_served
        .headers
        .retain(|(name, _)| name != "strict-transport-security");
    assert_eq!((not_served.status, not_served.body.as_str()), (503, ""));
    let key = server.api_key();
    for request in [
        format!("GET {VERSION_PATH} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}"),
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
        // One of the requests has a body.
        let mut stream = connect_plain();
        let text = if request.contains("\r\n\r\n") {
            request
        } else {
            format!("{request}\r\n\r\n")
        };
        let response = wire::exchange(&mut stream, text.as_bytes()).unwrap();
        assert_eq!(response, not_served, "{text}");
    }
    // The limits of every connection apply.
    let response = wire::exchange(&mut connect_plain(), b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(
        response.status == 400 && response.has_security_headers(),
        "no host: {response:?}"
    );
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    let response = wire::exchange(&mut connect_plain(), long.as_bytes()).unwrap();
    assert!(
        response.status == 431 && response.has_security_headers(),
        "{response:?}"
    );
    let mut slow = connect_plain();
    std::io::Write::write_all(&mut slow, b"GET / HT").unwrap();
    assert!(wire::closes(&mut slow), "a head that does not end");
    assert_eq!(server.stop(), Some(0), "{}", server.log());
}

#[test]
fn connections_of_plain_http_do_not_use_up_those_of_https() {
    let (mut server, http_port) = prepare_without_authority();
    server.set_launcher(&["sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""]);
    server.run();
    let mut held: Vec<_> = (0..40).map(|_| connect_tcp(http_port)).collect();
    let limit = Some(std::time::Duration::from_millis(1));
    for stream in &mut held {
        stream.set_read_timeout(limit).unwrap();
    }
    eventually("most of them are refused", || {
        let closed = held.iter_mut().map(wire::closes);
        closed.filter(|closed| *closed).count() >= 30
    });
    let own = server.path("data/tls/ca.pem");
    let mut tls = tls_as(&server, &own, "localhost").unwrap();
    let request = wire::get(&server, VERSION_PATH, "");
    assert_eq!(wire::exchange(&mut tls, &request).unwrap().status, 200);
}

#[test]
fn unusable_settings_are_refused_at_the_start_with_what_to_do() {
    let (mut server, http_port) = prepare_without_authority();
    let taken = std::net::TcpListener::bind(("127.0.0.1", http_port)).unwrap();
    let assert_refused = |server: &Server, status: i32, words: &[&str]| {
        let output = server.cli(&["serve"]);
        let text = String::from_utf8(output.stderr).unwrap();
        let last = text.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(status), "{text}");
        for word in words {
            assert!(last.contains(word), "{word}: {text}");
        }
    };
    assert_refused(
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
        assert_refused(&server, 2, &[words]);
    }
}
