//! The front: paths that are not served, malformed HTTP, and slow clients.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::support::{Server, connect_tcp, eventually, identity, rounds, stalls};
use crate::wire::{self, RawResponse};

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND",
];

/// Paths that are not served, by any method.
fn unknown_paths() -> Vec<String> {
    let known = "/lizenzserverx /api /api/license /api/license/ /api/license/x /api/license/session \
        /api/license/activate/x /api/license/Activate \
        /api/license?version=1.0.0 /api/license/version/1.0.0 /./api/license/x /api%2flicense%2factivate \
        /api/admin/v1/licenses /api/site /robots.txt /favicon.ico /.env /.git/config // /.. \
        /../etc/passwd /%2e%2e/%2e%2e/etc/passwd /%00 /% /%zz /index.php?a[]=b /{} /a\\b /;x \
        /wp-login.php /admin /login /static/app.css /metrics/x";
    let long = (0..20).map(|number| format!("/{}/{number}", "x".repeat(number * 50)));
    let random = (0..rounds(40)).map(|_| random_path());
    known
        .split_whitespace()
        .map(str::to_owned)
        .chain(long)
        .chain(random)
        .collect()
}

/// A path that is not served, of random segments after a random first one.
fn random_path() -> String {
    const WORDS: &[&str] = &[
        "api",
        "license",
        "site",
        "lizenzserver",
        "session",
        "start",
        "v1",
        "admin",
        "..",
        "%2e",
        "login",
        "config",
        "x.php",
        "versions.json",
        "~",
        "a%20b",
        "%c3%a4",
        "0",
        "health",
    ];
    let mut path = format!("/{:x}", rand::random::<u32>());
    for _ in 0..rand::random_range(0..5) {
        path.push('/');
        path.push_str(WORDS[rand::random_range(0..WORDS.len())]);
    }
    path
}

/// The panel's own paths, with methods that none of them supports.
fn panel_paths_with_wrong_methods() -> Vec<(String, String)> {
    let paths: std::collections::BTreeSet<String> = crate::shop::routes()
        .into_iter()
        .map(|(_, path)| {
            let parts = path.split('/').map(|part| {
                let is_parameter = part.starts_with('<');
                if is_parameter { "1" } else { part }
            });
            parts.collect::<Vec<_>>().join("/")
        })
        .collect();
    let wrong = ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"];
    let requests = paths
        .iter()
        .flat_map(|path| wrong.map(|method| (method.to_owned(), format!("/lizenzserver{path}"))));
    requests.collect()
}

#[test]
fn every_request_that_is_not_served_gets_the_same_bare_503() {
    let server = Server::start();
    let mut tls = wire::tls(&server);
    let mut first: Option<RawResponse> = None;
    let endpoints = ["/api/license/activate", "/api/license/session/start"];
    let wrong_methods = METHODS.iter().filter(|method| **method != "POST");
    let requests = unknown_paths()
        .into_iter()
        .flat_map(|path| METHODS.map(|method| (method.to_owned(), path.clone())))
        .chain(
            wrong_methods
                .flat_map(|method| endpoints.map(|path| ((*method).to_owned(), path.to_owned()))),
        )
        .chain([("POST".to_owned(), "/api/license/version".to_owned())])
        .chain([
            ("OPTIONS".to_owned(), "*".to_owned()),
            ("CONNECT".to_owned(), "x:443".to_owned()),
        ])
        .chain([("GET".to_owned(), "http://example.org/x".to_owned())])
        .chain(
            METHODS[2..]
                .iter()
                .map(|method| ((*method).to_owned(), "/".to_owned())),
        )
        .chain(panel_paths_with_wrong_methods());
    let cookie = server
        .logged_in_browser("owner")
        .cookie("__Host-session")
        .unwrap();
    for (number, (method, path)) in requests.enumerate() {
        // With and without an API key and a login: they make no difference.
        let credentials = if number % 2 == 0 {
            format!(
                "x-api-key: {}\r\ncookie: __Host-session={cookie}\r\n",
                server.api_key()
            )
        } else {
            String::new()
        };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{credentials}\r\n");
        let response = wire::exchange(&mut tls, request.as_bytes())
            .unwrap_or_else(|| panic!("no answer to {method} {path}"));
        assert_eq!(
            (response.status, response.body.as_str()),
            (503, ""),
            "{method} {path}"
        );
        assert!(response.has_security_headers(), "{response:?}");
        let first = first.get_or_insert_with(|| response.clone());
        assert_eq!(&response, first, "{method} {path}");
    }
}

#[test]
fn every_response_has_the_common_headers() {
    let server = Server::start();
    let version = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let many = "a: b\r\n".repeat(80);
    let head_with = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
    for (description, request, status) in [
        ("no HTTP", b"hello\r\n\r\n".to_vec(), 400),
        ("no version", b"GET /\r\n\r\n".to_vec(), 400),
        ("a newer version", b"GET / HTTP/3.0\r\n\r\n".to_vec(), 400),
        ("a space in a name", head_with("x y: z\r\n"), 400),
        ("a bare control character", head_with("x: \u{1}\r\n"), 400),
        (
            "two lengths",
            head_with("content-length: 1\r\ncontent-length: 2\r\n"),
            400,
        ),
        ("no length", head_with("content-length: x\r\n"), 400),
        (
            "a strange coding",
            b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n".to_vec(),
            400,
        ),
        (
            "too large",
            head_with(&format!("x: {}\r\n", "y".repeat(20_000))),
            431,
        ),
        ("too many lines", head_with(&many), 431),
    ] {
        let mut tls = wire::tls(&server);
        let response = wire::exchange(&mut tls, &request);
        let response = response.unwrap_or_else(|| panic!("no answer to {description}"));
        assert_eq!(
            (response.status, response.body.as_str()),
            (status, ""),
            "{description}"
        );
        assert!(
            response.has_security_headers(),
            "{description}: {response:?}"
        );
        assert!(wire::closes(&mut tls), "{description}");
    }
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(15_000));
    let response = wire::exchange(&mut wire::tls(&server), target.as_bytes());
    assert!(response.unwrap().has_security_headers());
    // Well-formed requests, too.
    for (request, status) in [
        (version, 200),
        (
            wire::get(&server, "/api/license/version?version=x", ""),
            422,
        ),
        (wire::post(&server, "/api/license/activate", 2, "{}"), 422),
    ] {
        let response = wire::exchange(&mut wire::tls(&server), &request).unwrap();
        assert!(
            response.status == status && response.has_security_headers(),
            "{response:?}"
        );
    }
}

#[test]
fn only_http_1_is_supported() {
    let server = Server::start();
    let mut tls = wire::tls(&server);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    assert!(
        wire::exchange(&mut tls, preface).is_none_or(|response| response.status >= 400),
        "h2 by prior knowledge"
    );
    assert!(wire::closes(&mut tls));
    let upgrade = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    let request = wire::get(&server, "/api/license/version?version=1.0.0", upgrade);
    let response = wire::exchange(&mut wire::tls(&server), &request).unwrap();
    assert_eq!(response.status, 200, "an upgrade is ignored: {response:?}");
    assert_eq!(response.header("upgrade"), None);
    let mut plain = wire::connect(&server);
    plain.write_all(&wire::get(&server, "/", "")).unwrap();
    let mut received = Vec::new();
    drop(plain.read_to_end(&mut received));
    assert!(!received.starts_with(b"HTTP"), "plain HTTP is not answered");
    let old = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let old = String::from_utf8(old)
        .unwrap()
        .replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(
        wire::exchange(&mut wire::tls(&server), old.as_bytes())
            .unwrap()
            .status,
        200
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut tls = wire::tls(&server);
    let one = wire::get(&server, "/api/license/version?version=1.0.0", "");
    tls.write_all(&one.repeat(20)).unwrap();
    for number in 0..20 {
        assert_eq!(
            wire::read_response(&mut tls, false).unwrap().status,
            200,
            "{number}"
        );
    }
}

#[test]
fn slow_clients_are_disconnected_and_others_do_not_wait() {
    let server = Server::start();
    let client = server.client();
    let half_head = wire::get(&server, "/", "");
    let half_head = &half_head[..half_head.len() - 4];
    let half_body = wire::post(&server, "/api/license/activate", 100, "{");
    let done = AtomicBool::new(false);
    let started_at = Instant::now();
    std::thread::scope(|scope| {
        let slow: Vec<_> = vec![
            scope.spawn(|| wire::closes(&mut wire::connect(&server))),
            scope.spawn(|| {
                let mut plain = wire::connect(&server);
                plain.write_all(b"\x16\x03\x01\x02\x00").unwrap();
                wire::closes(&mut plain)
            }),
            scope.spawn(|| wire::ends(&mut wire::tls(&server))),
            scope.spawn(|| {
                let mut tls = wire::tls(&server);
                tls.write_all(half_head).unwrap();
                wire::closes(&mut tls)
            }),
            scope.spawn(|| {
                let mut tls = wire::tls(&server);
                tls.write_all(&half_body).unwrap();
                wire::closes(&mut tls)
            }),
            // A byte now and then does not extend the time limit.
            scope.spawn(|| {
                let mut tls = wire::tls(&server);
                let mut bytes = half_head.iter().cycle().take(100);
                bytes.any(|byte| {
                    std::thread::park_timeout(std::time::Duration::from_millis(500));
                    tls.write_all(&[*byte]).and_then(|()| tls.flush()).is_err()
                })
            }),
        ];
        let others = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(client.get("/api/license/version?version=1.0.0").status, 200);
                count += 1;
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
            count
        });
        let disconnected: Vec<bool> = slow
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(disconnected, [true; 6]);
        assert!(others.join().unwrap() > 20);
    });
    // The limit is 10 s; a connection that has had a response may stay idle for 30 s.
    let took = stalls::awake_since(started_at);
    assert!(took.as_secs() < 25, "{took:?}");
}

#[test]
fn with_few_descriptors_fewer_connections_are_accepted_and_a_warning_is_logged() {
    let mut server = Server::prepare(&[]);
    server.set_launcher(&["/bin/sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""]);
    server.run();
    assert!(
        server.log().contains("256 open files are allowed"),
        "{}",
        server.log()
    );
    let client = server.client();
    let version = "/api/license/version?version=1.0.0";
    assert_eq!(client.get(version).status, 200);
    // More than the limit per address: the excess is closed at once, and existing connections stay open.
    let mut crowd: Vec<_> = (0..300).map(|_| connect_tcp(server.port())).collect();
    for stream in &mut crowd {
        stream
            .set_read_timeout(Some(std::time::Duration::from_millis(1)))
            .unwrap();
    }
    eventually("the excess to be closed", || {
        crowd
            .iter_mut()
            .map(wire::closes)
            .filter(|closed| *closed)
            .count()
            >= 300 - 256
    });
    assert_eq!(
        client.get(version).status,
        200,
        "on its existing connection"
    );
    drop(crowd);
    eventually("free connections", || {
        let body = identity(crate::setup::UNKNOWN, "laptop").to_string();
        let response = server.client().try_send("verify", body.as_bytes(), &[]);
        response.is_ok_and(|response| response.status == 200)
    });
}

#[test]
fn a_path_is_served_in_one_spelling_and_by_its_own_methods_only() {
    let server = Server::start();
    let client = server.client();
    for path in [
        "/api/license//version?version=1.0.0",
        "/api/license/version/?version=1.0.0",
        "//health",
        "/health/",
        "/versions%2ejson",
        "/api/license/%76ersion?version=1.0.0",
        "/%6cizenzserver/login",
    ] {
        assert_eq!(client.get(path).status_and_code(), (503, ""), "{path}");
    }
    for path in [
        "/versions.json",
        "/versions.txt",
        "/health",
        "/metrics",
        "/lizenzserver/profile",
    ] {
        for (body, media_type) in [
            ("_method=get", "application/x-www-form-urlencoded"),
            ("&&_method=get", "application/x-www-form-urlencoded"),
            ("_method=get", "application/x-www-FORM-urlencoded"),
            ("&_method=get", "APPLICATION/X-WWW-FORM-URLENCODED"),
        ] {
            let form = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {media_type}\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            let response = wire::exchange(&mut wire::tls(&server), form.as_bytes()).unwrap();
            let actual = (response.status, response.body.as_str());
            assert_eq!(actual, (503, ""), "{path} {body} {media_type}");
        }
    }
    // Where a form is accepted, `_method` is a field like any other, and does not change the method.
    let form = "POST /lizenzserver/login HTTP/1.1\r\nhost: localhost\r\n\
         content-type: Application/X-WWW-Form-Urlencoded\r\ncontent-length: 12\r\n\r\n&_method=get";
    let response = wire::exchange(&mut wire::tls(&server), form.as_bytes()).unwrap();
    assert_eq!(response.status, 403, "not sent by a page of the panel");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for body in ["_method=get", "&_method=get"] {
        let response = client.send("version?version=1.0.0", body.as_bytes(), &form);
        assert_eq!(
            (response.status, response.text.as_str()),
            (503, ""),
            "{body}"
        );
    }
}
