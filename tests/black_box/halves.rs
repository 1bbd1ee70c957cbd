//! The site's half to copy, in Python and in PHP: real files, run by their own languages' servers behind TLS.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::handshake::{house, licensed, place};
use crate::scene::value;
use crate::sites::{CALLBACK, Letter, Manner, Sites, forward};
use crate::support::{Server, eventually, is_there};

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

/// A site that runs a copied file.
struct Half {
    language: Language,
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Drop for Half {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The file as the panel hands it out.
fn filled(language: Language, server: &Server, domain: &str) -> String {
    let mut panel = server.panel("support");
    let file = panel.get(&format!("/integrate/{}?domain={domain}", language.file()));
    assert_eq!(file.status, 200, "{file:?}");
    let lines = file.text.lines().count();
    assert!(lines <= 200, "{lines} lines");
    assert!(file.text.contains(CALLBACK));
    file.text
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A running half for `domain`; none where the language is not on this machine.
fn half(language: Language, server: &Server, sites: &Sites, domain: &str) -> Option<Half> {
    if !is_there(language.program()) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    // Beside the file, as the page says.
    let authority = server.path("data/tls/ca.pem");
    std::fs::copy(authority, folder.path().join("ca.pem")).unwrap();
    let name = match language {
        Language::Python => "site_license.py",
        Language::Php => "site.php",
    };
    std::fs::write(folder.path().join(name), filled(language, server, domain)).unwrap();
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
    let half = Half {
        language,
        folder,
        port,
        child,
    };
    eventually("the site", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    sites.behave(domain, Manner::Forward(port));
    Some(half)
}

impl Half {
    fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Asks for an operation, as the site's own pages do.
    fn asking(&self, call: &str) -> Child {
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

    fn ask(&self, call: &str) -> Value {
        let output = self.asking(call).wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{call}: {error}: {output:?}"))
    }

    /// The status with which the site answers `letter`.
    fn hears(&self, letter: &Letter) -> u16 {
        let answer = forward(self.port, letter).unwrap();
        let line = String::from_utf8(answer).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

fn every_operation(language: Language) {
    let (domain, new) = ("shop.localhost", "new.localhost");
    let sites = Sites::open(&[domain, new]);
    let server = house(&sites);
    let Some(half) = half(language, &server, &sites, domain) else {
        return;
    };
    server.json(&["release", "add", "1.2.0", "--notes", "Faster"]);
    let key = licensed(&server, None);
    let told = half.ask(&format!("register('{key}')"));
    assert_eq!(told["domain"], domain, "{told}");
    let told = half.ask("versions()");
    assert_eq!(told["versions"][0]["whats_new"], "Faster", "{told}");
    // The site knows the next key already.
    server.json(&["config", "rotate-signing-key"]);
    assert_eq!(half.ask(&format!("license('{key}')"))["kind"], "full");
    let told = half.ask(&format!("transfer('{key}', '{new}')"));
    assert_eq!(told["transfer"]["target"], new, "{told}");
    assert_eq!(
        half.ask(&format!("cancel_transfer('{key}')"))["transfer"],
        Value::Null
    );
    assert_eq!(
        half.ask(&format!("deregister('{key}', '{domain}')"))["domain"],
        Value::Null
    );
    assert_eq!(place(&server, &key).0, Value::Null);
    assert_eq!(half.ask("versions()"), Value::Null, "no license any more");
    let delivered = "select count(*) from handshakes where ending = 'delivered'";
    eventually("six lines", || value::<i64>(&server, delivered) == 6);
}

fn only_what_the_server_signed_for_it_just_now(language: Language) {
    let domain = "shop.localhost";
    let sites = Sites::open(&[domain]);
    let server = house(&sites);
    let Some(half) = half(language, &server, &sites, domain) else {
        return;
    };
    licensed(&server, Some(domain));
    // The site waits for a challenge, which somebody else has taken from the line.
    sites.behave(domain, Manner::Status(200));
    let mut asking = half.asking("versions()");
    eventually("the challenge", || !sites.letters().is_empty());
    let challenge = sites.letters().remove(0);
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
        assert_eq!(half.hears(&forged), 404, "{forged:?}");
    }
    let mut elsewhere = challenge.clone();
    elsewhere.line = elsewhere.line.replace(CALLBACK, "/elsewhere");
    assert_eq!(half.hears(&elsewhere), 404);
    assert_eq!(half.hears(&challenge), 200, "the server's own");
    assert_eq!(half.hears(&challenge), 404, "once");
    sites.behave(domain, Manner::Forward(half.port));
    let told = {
        use std::io::Read;
        let mut text = String::new();
        asking
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        asking.wait().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    assert_eq!(told["versions"], json!([]), "and it went on from there");
    let delivery = sites
        .letters()
        .into_iter()
        .find(|letter| letter.step() == "delivery")
        .unwrap();
    assert_eq!(half.hears(&delivery), 404, "once");
}

#[test]
fn the_python_half_knows_every_operation() {
    every_operation(Language::Python);
}

#[test]
fn the_php_half_knows_every_operation() {
    every_operation(Language::Php);
}

#[test]
fn the_python_half_believes_nobody_but_the_server() {
    only_what_the_server_signed_for_it_just_now(Language::Python);
}

#[test]
fn the_php_half_believes_nobody_but_the_server() {
    only_what_the_server_signed_for_it_just_now(Language::Php);
}

#[test]
fn the_example_plays_a_handshake_on_one_machine() {
    if !is_there("openssl") || !is_there("python3") {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/site.sh");
    let played = Command::new("bash")
        .arg(script)
        .env("LICENSE_SERVER", env!("CARGO_BIN_EXE_license-server"))
        .env("PORT", free_port().to_string())
        .env("SITE_PORT", free_port().to_string())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&played.stdout);
    assert!(played.status.success(), "{played:?}");
    for line in [
        "register  {'kind': 'full',",
        "'domain': 'shop.localhost'",
        "versions  {'current_version': '1.0.0',",
        "license   {'kind': 'full',",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    assert!(
        told.trim_end().ends_with("\n6"),
        "each was called twice: {told}"
    );
}
