//! The connection: what is not served, what is no HTTP, who is slow, who is in front.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::scene::{AUTO_ACTIVATE, running, started};
use crate::support::{Server, claim, eventually, raw, rounds};
use crate::wire::{self, Heard};

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND",
];

/// Paths that are not served, by any method.
fn unknown_paths() -> Vec<String> {
    let known = "/ /lizenzserverx /lizenzserver/nothing /api /api/license /api/license/ /api/license/x /api/license/session \
        /api/license/activate/x /api/license/Activate \
        /api/license?version=1.0.0 /api/license/version/1.0.0 /./api/license/x /api%2flicense%2factivate \
        /api/admin/v1/licenses /api/site /robots.txt /favicon.ico /.env /.git/config // /.. \
        /../etc/passwd /%2e%2e/%2e%2e/etc/passwd /%00 /% /%zz /?x=1 /index.php?a[]=b /{} /a\\b /;x \
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

/// A path that nobody serves: some words of ours, some of nobody's, in any order.
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

/// The panel's own paths, with methods that none of them knows.
fn panel_by_wrong_methods() -> Vec<(String, String)> {
    let paths: std::collections::BTreeSet<String> = crate::shop::routes()
        .into_iter()
        .map(|(_, path)| {
            let parts = path.split('/').map(|part| {
                let named = part.starts_with('<');
                if named { "1" } else { part }
            });
            parts.collect::<Vec<_>>().join("/")
        })
        .collect();
    let wrong = ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"];
    let asked = paths
        .iter()
        .flat_map(|path| wrong.map(|method| (method.to_owned(), format!("/lizenzserver{path}"))));
    asked.collect()
}

#[test]
fn whatever_is_not_served_gets_one_bare_503() {
    let server = Server::start();
    let mut tls = wire::tls(&server);
    let mut first: Option<Heard> = None;
    let doors = ["/api/license/activate", "/api/license/session/start"];
    let wrong_methods = METHODS.iter().filter(|method| **method != "POST");
    let asked = unknown_paths()
        .into_iter()
        .flat_map(|path| METHODS.map(|method| (method.to_owned(), path.clone())))
        .chain(
            wrong_methods
                .flat_map(|method| doors.map(|path| ((*method).to_owned(), path.to_owned()))),
        )
        .chain([("POST".to_owned(), "/api/license/version".to_owned())])
        .chain([
            ("OPTIONS".to_owned(), "*".to_owned()),
            ("CONNECT".to_owned(), "x:443".to_owned()),
        ])
        .chain([("GET".to_owned(), "http://example.org/".to_owned())])
        .chain(panel_by_wrong_methods());
    let cookie = server.panel("owner").cookie("__Host-session").unwrap();
    for (number, (method, path)) in asked.enumerate() {
        // With and without a key and a login: who has one learns no more.
        let proof = if number % 2 == 0 {
            format!(
                "x-api-key: {}\r\ncookie: __Host-session={cookie}\r\n",
                server.api_key()
            )
        } else {
            String::new()
        };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{proof}\r\n");
        let heard = wire::ask(&mut tls, request.as_bytes())
            .unwrap_or_else(|| panic!("no answer to {method} {path}"));
        assert_eq!(
            (heard.status, heard.body.as_str()),
            (503, ""),
            "{method} {path}"
        );
        assert!(heard.is_guarded(), "{heard:?}");
        let first = first.get_or_insert_with(|| heard.clone());
        assert_eq!(&heard, first, "{method} {path}");
    }
}

#[test]
fn every_answer_carries_the_same_guards() {
    let server = Server::start();
    let version = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let many = "a: b\r\n".repeat(80);
    let opening = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
    for (what, request, status) in [
        ("no HTTP", b"hello\r\n\r\n".to_vec(), 400),
        ("no version", b"GET /\r\n\r\n".to_vec(), 400),
        ("a newer version", b"GET / HTTP/3.0\r\n\r\n".to_vec(), 400),
        ("a space in a name", opening("x y: z\r\n"), 400),
        ("a bare control character", opening("x: \u{1}\r\n"), 400),
        (
            "two lengths",
            opening("content-length: 1\r\ncontent-length: 2\r\n"),
            400,
        ),
        ("no length", opening("content-length: x\r\n"), 400),
        (
            "a strange coding",
            b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n".to_vec(),
            400,
        ),
        (
            "too large",
            opening(&format!("x: {}\r\n", "y".repeat(20_000))),
            431,
        ),
        ("too many lines", opening(&many), 431),
    ] {
        let mut tls = wire::tls(&server);
        let heard = wire::ask(&mut tls, &request);
        let heard = heard.unwrap_or_else(|| panic!("no answer to {what}"));
        assert_eq!((heard.status, heard.body.as_str()), (status, ""), "{what}");
        assert!(heard.is_guarded(), "{what}: {heard:?}");
        assert!(wire::closes(&mut tls), "{what}");
    }
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(15_000));
    let heard = wire::ask(&mut wire::tls(&server), target.as_bytes());
    assert!(heard.unwrap().is_guarded());
    // And the good ones.
    for (request, status) in [
        (version, 200),
        (
            wire::get(&server, "/api/license/version?version=x", ""),
            422,
        ),
        (wire::post(&server, "/api/license/activate", 2, "{}"), 422),
    ] {
        let heard = wire::ask(&mut wire::tls(&server), &request).unwrap();
        assert!(heard.status == status && heard.is_guarded(), "{heard:?}");
    }
}

#[test]
fn only_http_1_is_spoken() {
    let server = Server::start();
    let mut tls = wire::tls(&server);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    assert!(
        wire::ask(&mut tls, preface).is_none_or(|heard| heard.status >= 400),
        "h2 by prior knowledge"
    );
    assert!(wire::closes(&mut tls));
    let upgrade = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    let request = wire::get(&server, "/api/license/version?version=1.0.0", upgrade);
    let heard = wire::ask(&mut wire::tls(&server), &request).unwrap();
    assert_eq!(heard.status, 200, "an upgrade is not taken: {heard:?}");
    assert_eq!(heard.header("upgrade"), None);
    let mut plain = wire::patient(&server);
    plain.write_all(&wire::get(&server, "/", "")).unwrap();
    let mut told = Vec::new();
    drop(plain.read_to_end(&mut told));
    assert!(!told.starts_with(b"HTTP"), "plain HTTP is not answered");
    let old = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let old = String::from_utf8(old)
        .unwrap()
        .replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(
        wire::ask(&mut wire::tls(&server), old.as_bytes())
            .unwrap()
            .status,
        200
    );
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let server = Server::start();
    let mut tls = wire::tls(&server);
    let one = wire::get(&server, "/api/license/version?version=1.0.0", "");
    tls.write_all(&one.repeat(20)).unwrap();
    for number in 0..20 {
        assert_eq!(wire::hear(&mut tls, false).unwrap().status, 200, "{number}");
    }
}

#[test]
fn whoever_is_slow_is_cut_off_and_nobody_else_waits() {
    let server = Server::start();
    let client = server.client();
    let half_head = wire::get(&server, "/", "");
    let half_head = &half_head[..half_head.len() - 4];
    let half_body = wire::post(&server, "/api/license/activate", 100, "{");
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let slow: Vec<_> = vec![
            scope.spawn(|| wire::closes(&mut wire::patient(&server))),
            scope.spawn(|| {
                let mut plain = wire::patient(&server);
                plain.write_all(b"\x16\x03\x01\x02\x00").unwrap();
                wire::closes(&mut plain)
            }),
            scope.spawn(|| wire::closes(&mut wire::tls(&server))),
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
            // A byte now and then does not buy more time.
            scope.spawn(|| {
                let mut tls = wire::tls(&server);
                let mut drops = half_head.iter().cycle().take(100);
                drops.any(|byte| {
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
        let cut: Vec<bool> = slow
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(cut, [true; 6]);
        assert!(others.join().unwrap() > 20);
    });
    // The limit is 10 s; a connection that was answered once may stay for 30 s.
    assert!(begun.elapsed().as_secs() < 25, "{:?}", begun.elapsed());
}

#[test]
fn a_forged_address_is_believed_from_trusted_proxies_only() {
    let trusting = (
        "SERVER__TRUSTED_PROXIES",
        "[\"127.0.0.0/8\", \"10.0.0.0/8\"]",
    );
    for (settings, header, expected) in [
        (vec![AUTO_ACTIVATE], "203.0.113.9", "127.0.0.1"),
        (vec![AUTO_ACTIVATE, trusting], "203.0.113.9", "203.0.113.9"),
        (
            vec![AUTO_ACTIVATE, trusting],
            "198.51.100.1, 203.0.113.9, 10.1.2.3",
            "203.0.113.9",
        ),
        (vec![AUTO_ACTIVATE, trusting], "2001:db8::1", "2001:db8::1"),
        (
            vec![AUTO_ACTIVATE, trusting],
            "203.0.113.9:50123",
            "203.0.113.9",
        ),
        (
            vec![AUTO_ACTIVATE, trusting],
            "[2001:db8::1]:443",
            "2001:db8::1",
        ),
        (
            vec![AUTO_ACTIVATE, trusting],
            "nonsense",
            "unknown, behind 127.0.0.1",
        ),
    ] {
        let server = started(&settings, &[]);
        let key = server.license(1);
        let headers = [("X-Forwarded-For", header), ("X-Real-IP", "192.0.2.1")];
        let started = server
            .client()
            .call_with("session/start", &claim(&key, "laptop"), &headers);
        assert_eq!(started.status, 201);
        assert_eq!(running(&server)[0]["address"], expected, "{header}");
    }
}

#[test]
fn health_and_metrics_answer_to_loopback_and_are_dark_to_others() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    let monitor = (
        "SERVER__MONITOR_NETWORKS",
        "[\"192.0.2.0/24\", \"127.0.0.1/32\"]",
    );
    let server = started(&[trusting, monitor, AUTO_ACTIVATE], &[]);
    server
        .client()
        .call("session/start", &claim(&server.license(1), "laptop"));
    let ask = |path: &str, from: &str| {
        let from = format!("x-forwarded-for: {from}\r\n");
        wire::ask(&mut wire::tls(&server), &wire::get(&server, path, &from)).unwrap()
    };
    let dark = ask("/nothing", "127.0.0.1");
    for path in ["/health", "/metrics"] {
        // What a client writes goes through a proxy that writes nothing: no header makes it this machine.
        for stranger in ["203.0.113.9", "127.0.0.1", "[::1]:80", "unknown", ""] {
            assert_eq!(ask(path, stranger), dark, "{path} {stranger}");
        }
        let heard = ask(path, "192.0.2.7");
        assert!(heard.status == 200 && heard.is_guarded(), "{heard:?}");
    }
    assert_eq!(ask("/health", "192.0.2.7:9").body, r#"{"status":"ok"}"#);
    let metrics = ask("/metrics", "192.0.2.7").body;
    assert!(
        metrics.contains("\nlicense_server_sessions 1\n"),
        "{metrics}"
    );
    let other = rusqlite::Connection::open(server.database()).unwrap();
    other
        .busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    other.execute_batch("begin immediate").unwrap();
    let sick = ask("/health", "192.0.2.7");
    assert_eq!(sick.status, 503);
    assert!(sick.body.contains("reason"), "{}", sick.body);
    other.execute_batch("rollback").unwrap();
    assert_eq!(ask("/health", "192.0.2.7").status, 200);
}

#[test]
fn a_forged_address_opens_no_monitor_page_and_is_no_way_around_a_limit() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1/32\"]");
    let monitor = ("SERVER__MONITOR_NETWORKS", "[\"10.0.0.0/8\"]");
    let server = started(&[trusting, monitor], &[crate::scene::ONE_A_MINUTE]);
    // Behind a proxy that writes nothing, this is what its client wrote.
    for path in ["/health", "/metrics"] {
        for lines in [
            "x-forwarded-for: 10.1.2.3\r\n",
            "forwarded: for=10.1.2.3\r\n",
            "x-forwarded-for: 10.1.2.3\r\nforwarded: for=10.1.2.3\r\n",
        ] {
            let request = wire::get(&server, path, lines);
            let heard = wire::ask(&mut wire::tls(&server), &request).unwrap();
            assert_eq!(heard.status, 503, "{path} {lines:?} {}", heard.body);
        }
    }
    let log = server.log();
    assert!(log.contains("add \"127.0.0.1\" as a network"), "{log}");
    // A proxy writes one header, and its client another one each time into the other.
    let client = server.client();
    let body = claim(&server.license(1), "laptop");
    let told: Vec<u16> = (0..4)
        .map(|number| {
            let made_up = format!("203.0.113.{number}");
            let headers = [
                ("Forwarded", "for=198.51.100.7"),
                ("X-Forwarded-For", made_up.as_str()),
            ];
            client.call_with("session/start", &body, &headers).status
        })
        .collect();
    assert_eq!(told, [403, 429, 429, 429]);
}

#[test]
fn a_proxy_that_does_not_say_whom_it_speaks_for_is_not_this_machine() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    for (settings, lines, open) in [
        (&[AUTO_ACTIVATE][..], "", true),
        // An untrusted one on this machine: what shows that it is one.
        (&[AUTO_ACTIVATE], "x-forwarded-for: 203.0.113.9\r\n", false),
        (&[AUTO_ACTIVATE], "forwarded: for=127.0.0.1\r\n", false),
        (&[AUTO_ACTIVATE], "via: 1.1 proxy\r\n", false),
        (&[AUTO_ACTIVATE, trusting], "", false),
        (&[AUTO_ACTIVATE, trusting], "x-forwarded-for: \r\n", false),
        (
            &[AUTO_ACTIVATE, trusting],
            "x-forwarded-for: unknown\r\n",
            false,
        ),
        (
            &[AUTO_ACTIVATE, trusting],
            "forwarded: for=_hidden\r\n",
            false,
        ),
        (
            &[AUTO_ACTIVATE, trusting],
            "forwarded: for=127.0.0.1\r\n",
            false,
        ),
    ] {
        let server = started(settings, &[]);
        for path in ["/health", "/metrics"] {
            let request = wire::get(&server, path, lines);
            let heard = wire::ask(&mut wire::tls(&server), &request).unwrap();
            let status = if open { 200 } else { 503 };
            assert_eq!(heard.status, status, "{path} {lines:?} {}", heard.body);
        }
    }
}

#[test]
fn a_proxy_may_name_its_client_by_the_standards_header_too() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    for (header, expected) in [
        ("for=203.0.113.9;proto=https;by=127.0.0.1", "203.0.113.9"),
        ("for=1.2.3.4, For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
        ("for=_hidden", "unknown, behind 127.0.0.1"),
    ] {
        let server = started(&[AUTO_ACTIVATE, trusting], &[]);
        let body = claim(&server.license(1), "laptop");
        let headers = [("Forwarded", header)];
        let begun = server.client().call_with("session/start", &body, &headers);
        assert_eq!(begun.status, 201);
        assert_eq!(running(&server)[0]["address"], expected, "{header}");
    }
}

/// Each may call once a minute.
#[test]
fn strangers_behind_a_proxy_share_a_limit_of_their_own() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    let server = started(&[trusting], &[crate::scene::ONE_A_MINUTE]);
    let (client, key) = (server.client(), server.license(1));
    let start = |headers: &[(&str, &str)]| {
        let body = claim(&key, "laptop");
        client.call_with("session/start", &body, headers).status
    };
    assert_eq!(start(&[("X-Forwarded-For", "127.0.0.1")]), 403);
    assert_eq!(start(&[("X-Forwarded-For", "127.0.0.1")]), 429);
    assert_eq!(start(&[]), 403, "not the machine of the proxy");
    assert_eq!(
        start(&[("X-Forwarded-For", "unknown")]),
        429,
        "all strangers"
    );
    assert_eq!(start(&[("X-Forwarded-For", "203.0.113.9:1")]), 403);
    assert_eq!(
        start(&[("X-Forwarded-For", "203.0.113.9:2")]),
        429,
        "a port changes nothing"
    );
}

#[test]
fn with_few_descriptors_it_takes_fewer_connections_and_says_so() {
    let mut server = Server::prepare(&[]);
    server.launch_by(&["/bin/sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""]);
    server.run();
    assert!(
        server.log().contains("256 open files are allowed"),
        "{}",
        server.log()
    );
    let client = server.client();
    let version = "/api/license/version?version=1.0.0";
    assert_eq!(client.get(version).status, 200);
    // More than one address may have: the rest is closed at once, who is in stays in.
    let mut crowd: Vec<_> = (0..300).map(|_| raw(server.port())).collect();
    for stream in &mut crowd {
        stream
            .set_read_timeout(Some(std::time::Duration::from_millis(1)))
            .unwrap();
    }
    eventually("the rest to be closed", || {
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
        "on the connection that it has"
    );
    drop(crowd);
    eventually("room again", || {
        let body = claim(crate::scene::UNKNOWN, "laptop").to_string();
        let told = server.client().try_send("verify", body.as_bytes(), &[]);
        told.is_ok_and(|told| told.status == 200)
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
        assert_eq!(client.get(path).told(), (503, ""), "{path}");
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
            let heard = wire::ask(&mut wire::tls(&server), form.as_bytes()).unwrap();
            let told = (heard.status, heard.body.as_str());
            assert_eq!(told, (503, ""), "{path} {body} {media_type}");
        }
    }
    // Where a form is served, a field of that name is one like any other, and leads nowhere else.
    let form = "POST /lizenzserver/login HTTP/1.1\r\nhost: localhost\r\n\
         content-type: Application/X-WWW-Form-Urlencoded\r\ncontent-length: 12\r\n\r\n&_method=get";
    let heard = wire::ask(&mut wire::tls(&server), form.as_bytes()).unwrap();
    assert_eq!(heard.status, 403, "no page of ours sent it");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for body in ["_method=get", "&_method=get"] {
        let told = client.send("version?version=1.0.0", body.as_bytes(), &form);
        assert_eq!((told.status, told.text.as_str()), (503, ""), "{body}");
    }
}
