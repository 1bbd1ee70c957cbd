//! The lines of the manual for nginx, Caddy and Traefik, each in front of a real server: programs, the panel and websites
//! reach it, and it sees the address of its caller.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{CertificateParams, Issuer, KeyPair};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::browser::PASSWORD;
use crate::handshake::callbacks::start_server_with;
use crate::inspect::running;
use crate::setup::{AUTO_ACTIVATE, UNKNOWN, limit};
use crate::sites::{SiteClient, Sites, complete_handshake};
use crate::support::{Server, eventually, free_port, is_installed};
use crate::wire::{self, RawResponse};

const MANUAL: &str = include_str!("../../../assets/manual/internet.en.md");
const SITE: &str = "shop.localhost";

/// A proxy that runs with lines of the manual; killed when this is dropped.
struct Proxy {
    process: Child,
    port: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What a proxy is configured with.
struct Setup<'a> {
    folder: &'a Path,
    /// The port on which it listens.
    port: u16,
    /// The lines of the manual, with the addresses of this test.
    lines: String,
}

impl Setup<'_> {
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn name(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }
}

/// The first block of code after `text` in the manual's section about proxies.
fn block_after(text: &str) -> &'static str {
    let (_, section) = MANUAL.split_once("\n## Behind nginx").unwrap();
    let (_, rest) = section.split_once(text).unwrap();
    rest.split("```")
        .nth(1)
        .unwrap()
        .split_once('\n')
        .unwrap()
        .1
}

fn nginx(setup: &Setup<'_>) -> Command {
    let folder = setup.folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}server {{\nlisten 127.0.0.1:{} ssl;\nssl_certificate {folder}/proxy.pem;\n\
         ssl_certificate_key {folder}/proxy.key;\n{}}}\n}}\n",
        setup.port, setup.lines
    );
    let mut command = Command::new("nginx");
    command.arg("-c").arg(setup.file("nginx.conf", &text));
    command
}

fn caddy(setup: &Setup<'_>) -> Command {
    let tls = format!(
        "localhost {{\nbind 127.0.0.1\ntls {} {}\n",
        setup.name("proxy.pem"),
        setup.name("proxy.key")
    );
    let text = format!(
        "{{\nadmin off\nauto_https disable_redirects\nskip_install_trust\nhttps_port {}\n}}\n{}",
        setup.port,
        setup.lines.replace("localhost {\n", &tls)
    );
    let mut command = Command::new("caddy");
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(setup.file("Caddyfile", &text))
        .envs(["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"].map(|name| (name, setup.folder)));
    command
}

fn traefik_program() -> String {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/py/bin/traefik");
    if bundled.exists() {
        bundled.display().to_string()
    } else {
        "traefik".to_owned()
    }
}

fn traefik(setup: &Setup<'_>) -> Command {
    let certificate = format!(
        "tls: {{certificates: [{{certFile: {}, keyFile: {}}}]}}\n",
        setup.name("proxy.pem"),
        setup.name("proxy.key")
    );
    // There is no authority that this test could ask for a certificate.
    let lines = setup.lines.replace("{certResolver: letsencrypt}", "{}");
    let routes = setup.file("routes.yml", &format!("{certificate}{lines}"));
    let text = format!(
        "global: {{checkNewVersion: false, sendAnonymousUsage: false}}\n\
         entryPoints: {{websecure: {{address: \"127.0.0.1:{}\"}}}}\nproviders: {{file: {{filename: {}}}}}\n",
        setup.port,
        routes.display()
    );
    let file = setup.file("traefik.yml", &text);
    let mut command = Command::new(traefik_program());
    command.arg(format!("--configFile={}", file.display()));
    command
}

/// Starts a proxy in front of `server`, with the block of the manual that follows `text`.
fn start(server: &Server, text: &str, command: impl Fn(&Setup<'_>) -> Command) -> Proxy {
    let folder = server.path(text.split([' ', ',', ':']).next().unwrap());
    fs::create_dir(&folder).unwrap();
    make_certificate(server, &folder);
    let port = free_port();
    let setup = Setup {
        folder: &folder,
        port,
        lines: block_after(text)
            .replace("127.0.0.1:8443", &format!("127.0.0.1:{}", server.port()))
            .replace("licenses.example.org", "localhost"),
    };
    let log = fs::File::create(folder.join("output")).unwrap();
    let mut command = command(&setup);
    let command = command.stdout(Stdio::null()).stderr(log);
    let process = command.spawn().unwrap();
    // Traefik listens before it has read its routes and its certificate.
    eventually("the proxy forwards", || {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok();
        let tls = stream.and_then(|stream| wire::try_tls_on(stream, server).ok());
        let request = b"GET /lizenzserver/login HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let response = tls.and_then(|mut tls| wire::exchange(&mut tls, request));
        response.is_some_and(|response| response.status == 200)
    });
    Proxy { process, port }
}

/// A certificate for `localhost` that the clients of the tests trust.
fn make_certificate(server: &Server, folder: &Path) {
    let read = |name: &str| fs::read_to_string(server.path("data/tls").join(name)).unwrap();
    let authority = KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), authority).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(folder.join("proxy.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("proxy.key"), key.serialize_pem()).unwrap();
}

/// A program's call through the proxy, from this address, with headers that claim another one.
fn call(server: &Server, proxy: &Proxy, from: Ipv4Addr, path: &str, body: &str) -> RawResponse {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port));
    socket.connect(&to.into()).unwrap();
    let forged =
        "X-Forwarded-For: 203.0.113.7\r\nX-Real-IP: 203.0.113.8\r\nForwarded: for=203.0.113.9\r\n";
    let method = if body.is_empty() { "GET" } else { "POST" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {}\r\n{forged}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        server.api_key(),
        body.len()
    );
    wire::exchange(&mut wire::tls_on(socket.into(), server), request.as_bytes()).unwrap()
}

/// Limits and log use the address from which a program calls, also one on the proxy's own machine.
fn expect_real_addresses(server: &Server, proxy: &Proxy, network: u8) {
    let key = server.issue_license(1);
    for from in [Ipv4Addr::new(127, 0, network, 9), Ipv4Addr::LOCALHOST] {
        let body = crate::support::identity(&key, "laptop").to_string();
        let started = call(server, proxy, from, "/api/license/session/start", &body);
        assert_eq!(started.status, 201, "{started:?}");
        let sessions = running(server);
        assert_eq!(sessions[0]["address"], from.to_string());
        server.json(&["session", "end", &sessions[0]["id"].to_string()]);
    }
    let guess = crate::support::identity(UNKNOWN, "laptop").to_string();
    let last_of = |tries: usize, host: u8| {
        let from = Ipv4Addr::new(127, 0, network, host);
        let path = "/api/license/session/start";
        (0..tries).fold(0, |_, _| call(server, proxy, from, path, &guess).status)
    };
    assert_eq!(last_of(4, 7), 429);
    assert_eq!(last_of(1, 8), 404);
    let dark = call(server, proxy, Ipv4Addr::LOCALHOST, "/nothing", "");
    let health = call(server, proxy, Ipv4Addr::LOCALHOST, "/health", "");
    assert_eq!((health.status, &health.body), (dark.status, &dark.body));
}

fn expect_panel(server: &Server, proxy: &Proxy) {
    let mut browser = server.browser();
    browser.url = format!("https://localhost:{}", proxy.port);
    let response = browser.log_in("ada", PASSWORD);
    assert_eq!(response.status, 303, "{response:?}");
    let overview = browser.get("");
    assert_eq!(overview.status, 200, "{overview:?}");
    let token = browser.csrf_token();
    let name = format!("Customer of port {}", proxy.port);
    let fields = [("csrf_token", token.as_str()), ("name", name.as_str())];
    let added = browser.post("/customers/new", &fields);
    assert_eq!(added.status, 303, "{added:?}");
}

fn expect_handshake(server: &Server, sites: &Sites, proxy: &Proxy) {
    let mut client = SiteClient::new(server);
    client.url = format!("https://localhost:{}", proxy.port);
    let delivered = complete_handshake(sites, &client, SITE, "versions", &json!({}));
    assert!(delivered.is_some());
}

#[test]
fn the_lines_of_the_manual_for_proxies_work() {
    type Start = fn(&Setup<'_>) -> Command;
    let proxies: [(&str, &str, Start); 3] = [
        ("nginx", "nginx:", nginx),
        ("caddy", "Caddy sets", caddy),
        (&traefik_program(), "Traefik, as", traefik),
    ];
    let sites = Sites::start(&[SITE]);
    let settings = [
        AUTO_ACTIVATE,
        ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1/32\", \"::1/128\"]"),
    ];
    let mut server = start_server_with(&sites, &settings, &[&limit("client_failures", "1", "2")]);
    crate::handshake::messages::issue_license(&server, Some(SITE));
    server.add_admin("ada", "owner");
    // The self-signed mode has made an authority that the clients of the tests trust.
    server.set("TLS__MODE", "off");
    server.set("SERVER__PUBLIC_URL", "https://localhost");
    server.restart();
    for (network, (program, text, command)) in (1..).zip(proxies) {
        if !is_installed(program) {
            continue;
        }
        let proxy = start(&server, text, command);
        expect_real_addresses(&server, &proxy, network);
        expect_panel(&server, &proxy);
        expect_handshake(&server, &sites, &proxy);
    }
}
