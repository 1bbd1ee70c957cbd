//! TLS: which versions, whose certificate, and how it is replaced.

use std::path::Path;

use license_server::clock::UnixMs;
use rcgen::{CertificateParams, KeyPair};
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::scene::started;
use crate::support::{Server, eventually};
use crate::wire::{self, BOTH, HTTP_1};

fn works(server: &Server, root: &Path) -> bool {
    let request = wire::get(server, "/api/license/version?version=1.0.0", "");
    wire::tls_with(server, root, BOTH, HTTP_1)
        .is_ok_and(|mut tls| wire::ask(&mut tls, &request).is_some_and(|heard| heard.status == 200))
}

#[test]
fn both_living_versions_of_tls_are_spoken_and_http_1_is_the_only_protocol() {
    let server = Server::start();
    let ca = server.path("data/tls/ca.pem");
    let request = wire::get(&server, "/api/license/version?version=1.0.0", "");
    for (versions, spoken) in [
        (&[&TLS12][..], ProtocolVersion::TLSv1_2),
        (&[&TLS13][..], ProtocolVersion::TLSv1_3),
        (BOTH, ProtocolVersion::TLSv1_3),
    ] {
        let mut tls = wire::tls_with(&server, &ca, versions, HTTP_1).unwrap();
        assert_eq!(tls.conn.protocol_version(), Some(spoken));
        assert_eq!(wire::ask(&mut tls, &request).unwrap().status, 200);
    }
    let http_1 = Some(b"http/1.1".as_slice());
    for (offered, chosen) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], Some(http_1)),
        (&[], Some(None)),
        (&[b"h2"], None),
        (&[b"http/1.0", b"spdy/3"], None),
    ] {
        let tls = wire::tls_with(&server, &ca, BOTH, offered);
        let told = tls.as_ref().ok().map(|tls| tls.conn.alpn_protocol());
        assert_eq!(told, chosen, "{offered:?}");
    }
}

#[test]
fn an_own_authority_is_made_once_and_names_every_name_of_the_server() {
    let mut server = started(
        &[("SERVER__PUBLIC_URL", "https://licenses.example.org:8443")],
        &[],
    );
    let ca = server.path("data/tls/ca.pem");
    let first = std::fs::read(&ca).unwrap();
    let tls = wire::tls(&server);
    let leaf = tls.conn.peer_certificates().unwrap()[0].clone();
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let names = format!(
        "{:?}",
        leaf.subject_alternative_name().unwrap().unwrap().value
    );
    for name in ["localhost", "licenses.example.org"] {
        assert!(names.contains(name), "{names}");
    }
    server.restart();
    assert_eq!(
        std::fs::read(&ca).unwrap(),
        first,
        "clients need not trust anew"
    );
    assert!(works(&server, &ca));
}

/// A certificate for this machine that vouches for itself, and its key.
fn write_pair(server: &Server, root: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    for (name, text) in [
        ("key.pem", key.serialize_pem()),
        ("chain.pem", pem.clone()),
        (root, pem),
    ] {
        std::fs::write(server.path(name), text).unwrap();
    }
    // Otherwise `check` says that everybody may read it.
    private(&server.path("key.pem"));
}

fn private(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode).unwrap();
}

#[test]
fn certificate_files_are_read_again_when_they_change_while_serving() {
    let files = [
        ("TLS__MODE", "files"),
        ("TLS__CERTIFICATE", "chain.pem"),
        ("TLS__KEY", "key.pem"),
    ];
    let mut server = Server::prepare(&files);
    let missing = server.cli(&["serve"]);
    let told = String::from_utf8(missing.stderr).unwrap();
    assert_ne!(missing.status.code(), Some(0));
    assert!(
        told.contains("chain.pem") && told.trim().lines().count() == 1,
        "{told}"
    );
    write_pair(&server, "first.pem");
    server.run();
    let (first, second) = (server.path("first.pem"), server.path("second.pem"));
    let request = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let mut old = wire::tls_with(&server, &first, BOTH, HTTP_1).unwrap();
    assert_eq!(wire::ask(&mut old, &request).unwrap().status, 200);
    // What cannot be used is not used.
    std::fs::write(server.path("chain.pem"), "no certificate").unwrap();
    eventually("a word about it", || {
        server.log().contains("the old one stays")
    });
    assert!(works(&server, &first));
    write_pair(&server, "second.pem");
    eventually("the new certificate", || works(&server, &second));
    assert!(!works(&server, &first));
    assert_eq!(
        wire::ask(&mut old, &request).unwrap().status,
        200,
        "an open connection goes on"
    );
    assert!(
        !server.path("data/tls").exists(),
        "nothing is made that nobody asked for"
    );
}

#[test]
fn browsers_are_kept_to_https_where_the_certificate_is_one_that_they_know() {
    const STRICT: &str = "strict-transport-security";
    let files = [
        ("TLS__MODE", "files"),
        ("TLS__CERTIFICATE", "chain.pem"),
        ("TLS__KEY", "key.pem"),
    ];
    let mut server = Server::prepare(&files);
    write_pair(&server, "root.pem");
    server.run();
    let root = server.path("root.pem");
    for path in ["/lizenzserver/login", "/versions.json", "/nothing"] {
        let mut tls = wire::tls_with(&server, &root, BOTH, HTTP_1).unwrap();
        let heard = wire::ask(&mut tls, &wire::get(&server, path, "")).unwrap();
        assert_eq!(heard.header(STRICT), Some("max-age=31536000"), "{path}");
    }
    // A browser that was told to make an exception for our own authority must not be held to it.
    let server = Server::start();
    let heard = wire::ask(
        &mut wire::tls(&server),
        &wire::get(&server, "/lizenzserver/login", ""),
    );
    assert_eq!(heard.unwrap().header(STRICT), None);
}

#[test]
fn without_tls_it_serves_on_loopback_only() {
    let server = Server::prepare(&[("TLS__MODE", "off"), ("SERVER__ADDRESS", "0.0.0.0")]);
    let refused = server.cli(&["serve"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        !server.path("data").exists(),
        "refused before anything is made"
    );
    let server = started(&[("TLS__MODE", "off")], &[]);
    let mut plain = wire::patient(&server);
    let request = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let heard = wire::ask(&mut plain, &request).unwrap();
    assert!(heard.status == 200 && heard.is_guarded(), "{heard:?}");
    assert_eq!(
        wire::ask(&mut plain, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap()
            .status,
        503
    );
    assert_eq!(
        wire::ask(&mut plain, b"nonsense\r\n\r\n").map(|heard| heard.is_guarded()),
        Some(true)
    );
}

#[test]
fn the_check_knows_when_the_certificate_ends() {
    let files = [
        ("TLS__MODE", "files"),
        ("TLS__CERTIFICATE", "chain.pem"),
        ("TLS__KEY", "key.pem"),
    ];
    let server = Server::prepare(&files);
    let key = KeyPair::generate().unwrap();
    for (days, fine) in [(3, false), (90, true)] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let ends_s = crate::scene::now_ms() / 1000 + days * 86_400;
        params.not_after = time::OffsetDateTime::from_unix_timestamp(ends_s).unwrap();
        std::fs::write(
            server.path("chain.pem"),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        std::fs::write(server.path("key.pem"), key.serialize_pem()).unwrap();
        private(&server.path("key.pem"));
        let checked = server.cli(&["--json", "check"]);
        let checked: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
        let checks = checked["checks"].as_array().unwrap();
        let told = checks
            .iter()
            .find(|check| check["name"] == "certificate")
            .unwrap();
        assert_eq!(told["ok"], fine, "{told}");
        let ends = UnixMs(ends_s * 1000).rfc3339();
        assert!(told["detail"].as_str().unwrap().contains(&ends), "{told}");
    }
}
