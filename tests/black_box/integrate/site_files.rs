//! The files with a website's part of the handshake, in Python and in PHP: downloaded from the panel and run by a web
//! server of their language behind TLS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::database;
use crate::handshake::messages::{domains_of, issue_license, start_server};
use crate::sites::{Behavior, CALLBACK, ReceivedMessage, Sites, forward};
use crate::support::{Server, eventually, free_port, is_installed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Python,
    Php,
}

impl Language {
    const fn program(self) -> &'static str {
        match self {
            Self::Python => "python3",
            Self::Php => "php",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Python => "site.py",
            Self::Php => "site.php",
        }
    }
}

/// A website that runs a downloaded file.
struct Website {
    language: Language,
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Drop for Website {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The file as downloaded from the panel.
fn downloaded(language: Language, server: &Server, domain: &str) -> String {
    let mut panel = server.logged_in_browser("support");
    let file = panel.get(&format!("/integrate/{}?domain={domain}", language.file()));
    assert_eq!(file.status, 200, "{file:?}");
    let lines = file.text.lines().count();
    assert!(lines <= 200, "{lines} lines");
    assert!(file.text.contains(CALLBACK));
    file.text
}

/// A running website for `domain`; `None` if the language is not installed.
fn website(language: Language, server: &Server, sites: &Sites, domain: &str) -> Option<Website> {
    if !is_installed(language.program()) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    // In the same folder as the file, as the page says.
    let authority = server.path("data/tls/ca.pem");
    std::fs::copy(authority, folder.path().join("ca.pem")).unwrap();
    let name = match language {
        Language::Python => "site_license.py",
        Language::Php => "site.php",
    };
    std::fs::write(
        folder.path().join(name),
        downloaded(language, server, domain),
    )
    .unwrap();
    let port = free_port();
    let mut command = Command::new(language.program());
    match language {
        Language::Python => command.args([
            "-c",
            &format!(
                "import site_license; from wsgiref.simple_server import make_server; \
             make_server('127.0.0.1', {port}, site_license.application).serve_forever()"
            ),
        ]),
        Language::Php => command.args(["-S", &format!("127.0.0.1:{port}"), "site.php"]),
    };
    command
        .current_dir(folder.path())
        .env("TMPDIR", folder.path());
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let website = Website {
        language,
        folder,
        port,
        child,
    };
    eventually("the site", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    sites.behave(domain, Behavior::Forward(port));
    Some(website)
}

impl Website {
    fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Starts a call of an operation, as the website's own pages do.
    fn start_call(&self, call: &str) -> Child {
        let mut command = Command::new(self.language.program());
        match self.language {
            Language::Python => command.args([
                "-c",
                &format!("import json, site_license; print(json.dumps(site_license.{call}))"),
            ]),
            Language::Php => command.args([
                "-r",
                &format!("require 'site.php'; echo json_encode(LicenseServer\\{call});"),
            ]),
        };
        command
            .current_dir(self.folder())
            .env("TMPDIR", self.folder());
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Calls an operation; returns its result.
    fn call(&self, call: &str) -> Value {
        let output = self.start_call(call).wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{call}: {error}: {output:?}"))
    }

    /// The status of the website's response to `letter`.
    fn status_of(&self, letter: &ReceivedMessage) -> u16 {
        let answer = forward(self.port, letter).unwrap();
        let line = String::from_utf8(answer).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

fn every_operation(language: Language) {
    let (domain, new) = ("shop.localhost", "new.localhost");
    let sites = Sites::start(&[domain, new]);
    let server = start_server(&sites);
    let Some(website) = website(language, &server, &sites, domain) else {
        return;
    };
    server.json(&["release", "add", "1.2.0", "--notes", "Faster"]);
    let key = issue_license(&server, None);
    let result = website.call(&format!("register('{key}')"));
    assert_eq!(result["domain"], domain, "{result}");
    let result = website.call("versions()");
    assert_eq!(result["versions"][0]["whats_new"], "Faster", "{result}");
    // The website knows the next key already.
    server.json(&["config", "rotate-signing-key"]);
    assert_eq!(website.call(&format!("license('{key}')"))["kind"], "full");
    let result = website.call(&format!("transfer('{key}', '{new}')"));
    assert_eq!(result["transfer"]["target"], new, "{result}");
    assert_eq!(
        website.call(&format!("cancel_transfer('{key}')"))["transfer"],
        Value::Null
    );
    assert_eq!(
        website.call(&format!("deregister('{key}', '{domain}')"))["domain"],
        Value::Null
    );
    assert_eq!(domains_of(&server, &key).0, Value::Null);
    assert_eq!(
        website.call("versions()"),
        Value::Null,
        "no license any more"
    );
    eventually("six delivered handshakes", || {
        database::handshakes_with_outcome(&server, "delivered") == 6
    });
}

fn may_name_a_product(language: Language) {
    let domain = "shop.localhost";
    let sites = Sites::start(&[domain]);
    let server = start_server(&sites);
    let Some(website) = website(language, &server, &sites, domain) else {
        return;
    };
    issue_license(&server, Some(domain));
    let result = website.call("versions('my-program')");
    assert_eq!(result["current_version"], "1.0.0", "{result}");
    assert_eq!(website.call("versions('other')"), Value::Null);
}

#[test]
fn both_files_may_name_the_product_whose_versions_they_read() {
    may_name_a_product(Language::Python);
    may_name_a_product(Language::Php);
}

fn accepts_only_recent_requests_signed_for_it(language: Language) {
    let domain = "shop.localhost";
    let sites = Sites::start(&[domain]);
    let server = start_server(&sites);
    let Some(website) = website(language, &server, &sites, domain) else {
        return;
    };
    issue_license(&server, Some(domain));
    // The website waits for a challenge that the test has intercepted.
    sites.behave(domain, Behavior::Status(200));
    let mut running_call = website.start_call("versions()");
    eventually("the challenge", || !sites.received_messages().is_empty());
    let challenge = sites.received_messages().remove(0);
    let with = |name: &str, value: &str| {
        let mut letter = challenge.clone();
        letter.headers.retain(|(known, _)| known != name);
        if !value.is_empty() {
            letter.headers.push((name.to_owned(), value.to_owned()));
        }
        letter
    };
    let mut other_body = challenge.clone();
    other_body.text = other_body.text.replace("challenge", "challengE");
    let input = challenge.header("signature-input").to_owned();
    let created = input
        .split("created=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let signature = challenge.header("signature").to_owned();
    let flipped = if signature.contains("=:A") {
        signature.replace("=:A", "=:B")
    } else {
        signature.replacen(signature.chars().nth(6).unwrap(), "A", 1)
    };
    for forged in [
        with("signature", ""),
        with("signature", "sig1=::"),
        with("signature", &flipped),
        with("signature-input", ""),
        with(
            "signature-input",
            &input.replace(&created, &"1".repeat(4400)),
        ),
        with("content-digest", "sha-256=:\u{e9}:"),
        with("signature-input", &input.replace(&created, "1")),
        with("signature-input", &input.replace("\"@method\" ", "")),
        with("content-digest", ""),
        with(
            "content-digest",
            "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
        ),
        other_body,
    ] {
        assert_eq!(website.status_of(&forged), 404, "{forged:?}");
    }
    let mut elsewhere = challenge.clone();
    elsewhere.line = elsewhere.line.replace(CALLBACK, "/elsewhere");
    assert_eq!(website.status_of(&elsewhere), 404);
    assert_eq!(
        website.status_of(&challenge),
        200,
        "the intercepted challenge itself"
    );
    assert_eq!(website.status_of(&challenge), 404, "once");
    sites.behave(domain, Behavior::Forward(website.port));
    let result = {
        use std::io::Read;
        let mut text = String::new();
        running_call
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        running_call.wait().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    assert_eq!(result["versions"], json!([]), "the handshake continues");
    let delivery = sites
        .received_messages()
        .into_iter()
        .find(|letter| letter.step() == "delivery")
        .unwrap();
    assert_eq!(website.status_of(&delivery), 404, "once");
}

#[test]
fn the_python_file_supports_every_operation() {
    every_operation(Language::Python);
}

#[test]
fn the_php_file_supports_every_operation() {
    every_operation(Language::Php);
}

#[test]
fn the_python_file_accepts_only_requests_of_the_server() {
    accepts_only_recent_requests_signed_for_it(Language::Python);
}

#[test]
fn the_php_file_accepts_only_requests_of_the_server() {
    accepts_only_recent_requests_signed_for_it(Language::Php);
}

#[test]
fn the_example_script_completes_handshakes_on_one_machine() {
    if !is_installed("openssl") || !is_installed("python3") {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/site.sh");
    let output = Command::new("bash")
        .arg(script)
        .env("LICENSE_SERVER", env!("CARGO_BIN_EXE_license-server"))
        .env("PORT", free_port().to_string())
        .env("SITE_PORT", free_port().to_string())
        .output()
        .unwrap();
    let result = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for line in [
        "register  {'kind': 'full',",
        "'domain': 'shop.localhost'",
        "versions  {'current_version': '1.0.0',",
        "license   {'kind': 'full',",
    ] {
        assert!(result.contains(line), "{line} in {result}");
    }
    assert!(
        result.trim_end().ends_with("\n6"),
        "each was called twice: {result}"
    );
}
