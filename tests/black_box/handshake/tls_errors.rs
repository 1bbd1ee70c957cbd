//! No request is sent to a site without a valid certificate, and every TLS error is reported.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

use crate::handshake::callbacks::{outcomes, start_server_with};
use crate::handshake::messages::issue_license;
use crate::setup::started;
use crate::sites::{SiteClient, Sites, id};
use crate::support::eventually;

#[test]
fn no_byte_of_http_is_sent_to_a_site_without_a_valid_certificate() {
    for (names, years, trusted, reason, text) in [
        (
            &["other.localhost"][..],
            (2020, 2099),
            true,
            "other_name",
            "its certificate is for another name",
        ),
        (
            &["shop.localhost"],
            (2020, 2021),
            true,
            "expired",
            "its certificate has expired",
        ),
        (
            &["shop.localhost"],
            (2090, 2099),
            true,
            "not_yet_valid",
            "its certificate is not valid yet",
        ),
        (
            &["shop.localhost"],
            (2020, 2099),
            false,
            "untrusted",
            "must also send the intermediate certificate",
        ),
    ] {
        let (sites, other) = (
            Sites::start_with_certificate(names, years),
            Sites::start(&["shop.localhost"]),
        );
        let root = if trusted { sites.root() } else { other.root() };
        let root = ("HANDSHAKE__EXTRA_ROOT", root.to_str().unwrap());
        let server = start_server_with(&sites, &[root], &[]);
        issue_license(&server, Some("shop.localhost"));
        let request = json!({ "domain": "shop.localhost", "request_id": id() });
        assert_eq!(SiteClient::new(&server).send_request(&request), 202);
        eventually("the end of the handshake", || {
            !outcomes(&server, "shop.localhost").is_empty()
        });
        let expected = format!("unanswered certificate_{reason}");
        assert_eq!(outcomes(&server, "shop.localhost"), [expected]);
        assert_eq!(
            (sites.connections(), sites.received_bytes()),
            (1, 0),
            "{names:?} {years:?}"
        );
        let mut panel = server.logged_in_browser("support");
        for path in ["/sites", "/sites/handshakes"] {
            let page = panel.get(path).text;
            assert!(page.contains(text), "{reason}: {path}: {page}");
        }
    }
}

/// Starts a site on its own port, which handles every connection by `talk`.
fn site_that(talk: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(talk));
    port
}

/// Creates a root, an intermediate and a site certificate; the site sends only the last.
fn config_without_intermediate(root: &Path) -> rustls::ServerConfig {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let [first, second, third] = [(); 3].map(|()| KeyPair::generate().unwrap());
    let made = authority("root").self_signed(&first).unwrap();
    std::fs::write(root, made.pem()).unwrap();
    let intermediate = Issuer::new(authority("between"), second);
    let leaf = CertificateParams::new(vec!["shop.localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&third, &intermediate).unwrap();
    let key = PrivateKeyDer::Pkcs8(third.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth();
    config
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap()
}

#[test]
fn every_tls_error_of_a_site_is_reported_with_what_its_owner_can_do() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    let config = Arc::new(config_without_intermediate(&root));
    let incomplete = site_that(move |mut stream| {
        let mut tls = rustls::ServerConnection::new(config.clone()).unwrap();
        while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
    });
    let plain = site_that(|mut stream| {
        drop(stream.read(&mut [0; 100]));
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"));
    });
    let closing = site_that(|mut stream| drop(stream.read(&mut [0; 100])));
    // An alert: no common TLS version.
    let refusing = site_that(|mut stream| {
        drop(stream.read(&mut [0; 1000]));
        drop(stream.write_all(b"\x15\x03\x03\x00\x02\x02\x46"));
    });
    for (port, reason, english, german) in [
        (
            incomplete,
            "certificate_untrusted",
            "must also send the intermediate certificate",
            "muss auch das Zwischenzertifikat senden",
        ),
        (plain, "no_tls", "no TLS there", "dort kein TLS"),
        (
            closing,
            "tls_refused",
            "broke off the TLS handshake",
            "brach den TLS-Aufbau ab",
        ),
        (
            refusing,
            "tls_refused",
            "broke off the TLS handshake",
            "brach den TLS-Aufbau ab",
        ),
    ] {
        let settings = [
            ("HANDSHAKE__PORT", &port.to_string()),
            ("HANDSHAKE__ALLOW_NETWORKS", &"[\"127.0.0.0/8\"]".to_owned()),
            ("HANDSHAKE__EXTRA_ROOT", &root.to_str().unwrap().to_owned()),
        ];
        let settings = settings.map(|(key, value)| (key, value.as_str()));
        let server = started(&settings, &[&["customer", "add", "Ada"]]);
        issue_license(&server, Some("shop.localhost"));
        let request = json!({ "domain": "shop.localhost", "request_id": id() });
        assert_eq!(SiteClient::new(&server).send_request(&request), 202);
        eventually("the end of the handshake", || {
            !outcomes(&server, "shop.localhost").is_empty()
        });
        let expected = format!("unanswered {reason}");
        assert_eq!(outcomes(&server, "shop.localhost"), [expected]);
        let mut panel = server.logged_in_browser("support");
        for (language, text) in [("en", english), ("de", german)] {
            panel.headers.retain(|(name, _)| name != "Accept-Language");
            panel
                .headers
                .push(("Accept-Language".to_owned(), language.to_owned()));
            for page in ["/sites", "/sites/handshakes"] {
                let page = panel.get(page).text;
                assert!(page.contains(text), "{reason}: {page}");
            }
        }
    }
}
