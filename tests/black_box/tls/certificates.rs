//! TLS: protocol versions, the certificate, and how it is replaced.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use license_server::clock::UnixMs;
use rcgen::{CertificateParams, KeyPair};
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::setup::started;
use crate::support::{Server, eventually, is_installed};
use crate::wire::{self, BOTH_VERSIONS, HTTP_1};

fn works(server: &Server, root: &Path) -> bool {
    let request = wire::get(server, "/api/license/version?version=1.0.0", "");
    wire::tls_with(server, root, BOTH_VERSIONS, HTTP_1).is_ok_and(|mut tls| {
        wire::exchange(&mut tls, &request).is_some_and(|response| response.status == 200)
    })
}

#[test]
fn tls_1_2_and_1_3_are_supported_and_http_1_is_the_only_protocol() {
    let server = Server::start();
    let ca = server.path("data/tls/ca.pem");
    let request = wire::get(&server, "/api/license/version?version=1.0.0", "");
    for (versions, negotiated) in [
        (&[&TLS12][..], ProtocolVersion::TLSv1_2),
        (&[&TLS13][..], ProtocolVersion::TLSv1_3),
        (BOTH_VERSIONS, ProtocolVersion::TLSv1_3),
    ] {
        let mut tls = wire::tls_with(&server, &ca, versions, HTTP_1).unwrap();
        assert_eq!(tls.conn.protocol_version(), Some(negotiated));
        assert_eq!(wire::exchange(&mut tls, &request).unwrap().status, 200);
    }
    let http_1 = Some(b"http/1.1".as_slice());
    for (offered, chosen) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], Some(http_1)),
        (&[], Some(None)),
        (&[b"h2"], None),
        (&[b"http/1.0", b"spdy/3"], None),
    ] {
        let tls = wire::tls_with(&server, &ca, BOTH_VERSIONS, offered);
        let protocol = tls.as_ref().ok().map(|tls| tls.conn.alpn_protocol());
        assert_eq!(protocol, chosen, "{offered:?}");
    }
}

#[test]
fn the_own_authority_is_created_once_and_its_certificates_have_every_name_of_the_server() {
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
        "the authority that clients trust stays the same"
    );
    assert!(works(&server, &ca));
}

/// Writes a self-signed certificate for localhost and its key.
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
    // Otherwise `check` reports that every user may read it.
    make_private(&server.path("key.pem"));
}

fn make_private(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode).unwrap();
}

#[test]
fn certificate_files_are_read_again_when_they_change_while_the_server_runs() {
    let files = [
        ("TLS__MODE", "files"),
        ("TLS__CERTIFICATE", "chain.pem"),
        ("TLS__KEY", "key.pem"),
    ];
    let mut server = Server::prepare(&files);
    let missing = server.cli(&["serve"]);
    let text = String::from_utf8(missing.stderr).unwrap();
    assert_ne!(missing.status.code(), Some(0));
    assert!(
        text.contains("chain.pem") && text.trim().lines().count() == 1,
        "{text}"
    );
    write_pair(&server, "first.pem");
    server.run();
    let (first, second) = (server.path("first.pem"), server.path("second.pem"));
    let request = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let mut old = wire::tls_with(&server, &first, BOTH_VERSIONS, HTTP_1).unwrap();
    assert_eq!(wire::exchange(&mut old, &request).unwrap().status, 200);
    // An unusable certificate is not used.
    std::fs::write(server.path("chain.pem"), "no certificate").unwrap();
    eventually("the log line", || {
        server.log().contains("the old one stays")
    });
    assert!(works(&server, &first));
    write_pair(&server, "second.pem");
    eventually("the new certificate", || works(&server, &second));
    assert!(!works(&server, &first));
    assert_eq!(
        wire::exchange(&mut old, &request).unwrap().status,
        200,
        "an open connection stays open"
    );
    assert!(
        !server.path("data/tls").exists(),
        "no authority is created in this mode"
    );
}

#[test]
fn hsts_is_sent_unless_the_certificate_is_self_signed() {
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
        let mut tls = wire::tls_with(&server, &root, BOTH_VERSIONS, HTTP_1).unwrap();
        let response = wire::exchange(&mut tls, &wire::get(&server, path, "")).unwrap();
        assert_eq!(response.header(STRICT), Some("max-age=31536000"), "{path}");
    }
    // With HSTS, a browser would not allow an exception for the server's own authority.
    let server = Server::start();
    let response = wire::exchange(
        &mut wire::tls(&server),
        &wire::get(&server, "/lizenzserver/login", ""),
    );
    assert_eq!(response.unwrap().header(STRICT), None);
}

#[test]
fn without_tls_it_serves_on_loopback_only() {
    let server = Server::prepare(&[("TLS__MODE", "off"), ("SERVER__ADDRESS", "0.0.0.0")]);
    let refused = server.cli(&["serve"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        !server.path("data").exists(),
        "refused before any file is created"
    );
    let server = started(&[("TLS__MODE", "off")], &[]);
    let mut plain = wire::connect(&server);
    let request = wire::get(&server, "/api/license/version?version=1.0.0", "");
    let response = wire::exchange(&mut plain, &request).unwrap();
    assert!(
        response.status == 200 && response.has_security_headers(),
        "{response:?}"
    );
    assert_eq!(
        wire::exchange(&mut plain, b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap()
            .status,
        503
    );
    assert_eq!(
        wire::exchange(&mut plain, b"nonsense\r\n\r\n")
            .map(|response| response.has_security_headers()),
        Some(true)
    );
}

#[test]
fn the_check_reports_when_the_certificate_expires() {
    let files = [
        ("TLS__MODE", "files"),
        ("TLS__CERTIFICATE", "chain.pem"),
        ("TLS__KEY", "key.pem"),
    ];
    let server = Server::prepare(&files);
    let key = KeyPair::generate().unwrap();
    for (days, fine) in [(3, false), (90, true)] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let ends_s = crate::timing::now_ms() / 1000 + days * 86_400;
        params.not_after = time::OffsetDateTime::from_unix_timestamp(ends_s).unwrap();
        std::fs::write(
            server.path("chain.pem"),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        std::fs::write(server.path("key.pem"), key.serialize_pem()).unwrap();
        make_private(&server.path("key.pem"));
        let checked = server.cli(&["--json", "check"]);
        let checked: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
        let checks = checked["checks"].as_array().unwrap();
        let check = checks
            .iter()
            .find(|check| check["name"] == "certificate")
            .unwrap();
        assert_eq!(check["ok"], fine, "{check}");
        let ends = UnixMs(ends_s * 1000).rfc3339();
        assert!(check["detail"].as_str().unwrap().contains(&ends), "{check}");
    }
}

#[test]
fn certificate_files_that_others_may_use_are_reported_by_check_and_repaired_by_the_start() {
    let files = [
        ("TLS__MODE", "files"),
        ("TLS__CERTIFICATE", "chain.pem"),
        ("TLS__KEY", "key.pem"),
    ];
    let mut server = Server::prepare(&files);
    write_pair(&server, "root.pem");
    for (name, mode, right) in [
        ("key.pem", 0o644, 0o640),
        ("key.pem", 0o660, 0o640),
        ("chain.pem", 0o664, 0o644),
    ] {
        std::fs::set_permissions(server.path(name), Permissions::from_mode(mode)).unwrap();
        let checked = String::from_utf8(server.cli(&["check"]).stdout).unwrap();
        let line = checked
            .lines()
            .find(|line| line.contains("  certificate "))
            .unwrap();
        let advice = format!("chmod {right:o} ");
        assert!(
            line.starts_with("TODO") && line.contains(&advice) && line.ends_with(name),
            "{checked}"
        );
        server.run();
        let repaired = std::fs::metadata(server.path(name)).unwrap().permissions();
        assert_eq!(repaired.mode() & 0o777, right, "{name}");
        assert!(server.log().contains("others had access to"));
        assert_eq!(server.stop(), Some(0));
    }
}

/// Creates typical certificate files with OpenSSL in the server's folder.
const FILES: &str = r#"set -e
umask 077
export OPENSSL_CONF=/dev/null
n() { printf '[req]\ndistinguished_name=d\n[d]\n' > req.cnf; }; n
E="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -config req.cnf"
openssl req -x509 $E -nodes -keyout ca.key -out ca.pem -days 9 -subj /CN=root -addext basicConstraints=critical,CA:TRUE
openssl req $E -nodes -keyout mid.key -out mid.csr -subj /CN=mid
printf 'basicConstraints=critical,CA:TRUE\n' > mid.ext
openssl x509 -req -in mid.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out mid.pem -days 9 -extfile mid.ext
openssl req $E -nodes -keyout key.pem -out leaf.csr -subj /CN=localhost
printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > leaf.ext
openssl x509 -req -in leaf.csr -CA mid.pem -CAkey mid.key -CAcreateserial -out leaf.pem -days 9 -extfile leaf.ext
cat leaf.pem mid.pem > chain.pem
cat ca.pem mid.pem leaf.pem > backwards.pem
openssl pkcs8 -topk8 -in key.pem -out locked.pem -passout pass:geheim
openssl ec -in key.pem -aes128 -out legacy.pem -passout pass:geheim
openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der
openssl pkcs8 -topk8 -in key.pem -outform DER -out locked.der -passout pass:geheim
openssl x509 -in leaf.pem -outform DER -out leaf.der
openssl pkcs12 -export -in chain.pem -inkey key.pem -out both.p12 -passout pass:geheim
openssl crl2pkcs7 -nocrl -certfile chain.pem -out chain.p7b
openssl crl2pkcs7 -nocrl -certfile chain.pem -outform DER -out chain.p7d
openssl pkey -in key.pem -pubout -out public.pem
openssl ecparam -name prime256v1 -out parameters.pem
openssl ecparam -name secp256k1 -genkey -noout -out odd.key
openssl req -x509 -new -key odd.key -out odd.pem -days 9 -subj /CN=localhost -addext subjectAltName=DNS:localhost -config req.cnf
(cat parameters.pem; openssl ec -in key.pem) > with-parameters.pem
(printf '\357\273\277'; sed 's/$/\r/' chain.pem) > windows.pem
cat key.pem chain.pem > all.pem
cat ca.key key.pem > keys.pem
head -c 300 leaf.pem > half.pem
: > empty.pem
mkdir folder.pem
"#;

/// A certificate file, a key file, and a part of the error message; empty if the server accepts them.
const PAIRS: &[(&str, &str, &str)] = &[
    ("chain.pem", "key.pem", ""),
    ("backwards.pem", "key.pem", ""),
    ("windows.pem", "with-parameters.pem", ""),
    ("all.pem", "all.pem", ""),
    ("chain.pem", "keys.pem", ""),
    ("chain.pem", "key.der", ""),
    ("chain.pem", "locked.pem", "holds a key with a passphrase"),
    (
        "chain.pem",
        "legacy.pem",
        "openssl pkey -in legacy.pem -out plain.pem",
    ),
    ("chain.pem", "locked.der", "holds a key with a passphrase"),
    ("both.p12", "key.pem", "is PKCS#12"),
    ("chain.pem", "both.p12", "is PKCS#12"),
    ("chain.p7b", "key.pem", "is PKCS#7"),
    ("chain.p7d", "key.pem", "is PKCS#7"),
    ("key.pem", "chain.pem", "swapped"),
    ("chain.pem", "leaf.pem", "swapped"),
    ("leaf.csr", "key.pem", "is a certificate request"),
    ("chain.pem", "public.pem", "holds a public key"),
    ("chain.pem", "parameters.pem", "holds no private key"),
    ("chain.pem", "mid.key", ""),
    ("chain.pem", "ca.key", "is the key of another certificate"),
    ("odd.pem", "odd.key", "is of an unsupported kind"),
    ("half.pem", "key.pem", "is damaged"),
    ("empty.pem", "key.pem", "is empty"),
    ("folder.pem", "key.pem", "is not a file"),
    ("chain.pem", "missing.pem", "does not exist"),
];

#[test]
fn every_usual_kind_of_certificate_file_is_read_or_refused_with_what_to_do() {
    if !is_installed("openssl") {
        return;
    }
    let mut server = Server::prepare(&[("TLS__MODE", "files")]);
    let made = Command::new("sh")
        .args(["-c", FILES])
        .current_dir(server.path(""))
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let root = server.path("ca.pem");
    for (chain, key, problem) in PAIRS {
        server.set("TLS__CERTIFICATE", chain);
        server.set("TLS__KEY", key);
        if !problem.is_empty() {
            let refused = server.cli(&["serve"]);
            let text = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(1), "{chain} {key}: {text}");
            assert!(text.contains(problem), "{chain} {key}: {text}");
            assert!(text.trim().lines().count() == 1, "{text}");
            let checked = String::from_utf8(server.cli(&["check"]).stdout).unwrap();
            assert!(checked.contains(problem), "{chain} {key}: {checked}");
            continue;
        }
        server.run();
        // With the key of the intermediate certificate, the server uses that one.
        assert_eq!(works(&server, &root), *key != "mid.key", "{chain} {key}");
        server.stop();
    }
    // A certificate without a chain is served, with a warning.
    server.set("TLS__CERTIFICATE", "leaf.der");
    server.set("TLS__KEY", "key.pem");
    server.run();
    assert!(
        server
            .log()
            .contains("contains only the certificate itself"),
        "{}",
        server.log()
    );
}

#[test]
fn a_certificate_that_clients_refuse_is_reported_at_the_start_and_by_the_check() {
    let public = ("SERVER__PUBLIC_URL", "https://licenses.example.org");
    let proxies = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1/32\"]");
    let files = [
        ("TLS__MODE", "files"),
        ("TLS__CERTIFICATE", "chain.pem"),
        ("TLS__KEY", "key.pem"),
        public,
        proxies,
    ];
    for (name, years, problem) in [
        ("licenses.example.org", (2020, 2021), "has expired"),
        ("licenses.example.org", (2090, 2099), "is not valid before"),
        ("localhost", (2020, 2099), "not for licenses.example.org"),
        ("*.example.org", (2020, 2099), ""),
        ("licenses.example.org", (2020, 2099), ""),
    ] {
        let mut server = Server::prepare(&files);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(server.path("chain.pem"), pem).unwrap();
        std::fs::write(server.path("key.pem"), key.serialize_pem()).unwrap();
        std::fs::set_permissions(server.path("key.pem"), Permissions::from_mode(0o600)).unwrap();
        server.run();
        let warned = server
            .log()
            .contains(" WARN  the certificate in tls.certificate");
        assert_eq!(warned, !problem.is_empty(), "{}", server.log());
        assert!(server.log().contains(problem), "{}", server.log());
        let checked = String::from_utf8(server.cli(&["check"]).stdout).unwrap();
        let line = checked
            .lines()
            .find(|line| line.contains("  certificate "))
            .unwrap();
        assert!(
            line.contains(problem) && line.starts_with("ok") == problem.is_empty(),
            "{checked}"
        );
    }
}

#[test]
fn sighup_reloads_the_certificate_at_once() {
    let files = [
        ("TLS__MODE", "files"),
        ("TLS__CERTIFICATE", "chain.pem"),
        ("TLS__KEY", "key.pem"),
    ];
    let mut server = Server::prepare(&files);
    write_pair(&server, "first.pem");
    server.run();
    let mut open =
        wire::tls_with(&server, &server.path("first.pem"), BOTH_VERSIONS, HTTP_1).unwrap();
    write_pair(&server, "second.pem");
    server.signal("HUP");
    eventually("the new certificate", || {
        works(&server, &server.path("second.pem"))
    });
    let request = wire::get(&server, "/api/license/version?version=1.0.0", "");
    assert_eq!(wire::exchange(&mut open, &request).unwrap().status, 200);
}
