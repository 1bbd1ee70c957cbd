//! Client programs with common HTTP libraries. Each keeps its connection from one heartbeat to the next and never
//! retries. They are configured through the environment: where to connect (`AUTHORITY`, `CA_FILE`), what to send
//! (`API_KEY`, `BODY`) and how often (`BEATS`, every `INTERVAL` seconds). They print the status of each response, one
//! a line.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::relay::relay;
use crate::setup::{NO_LIMIT, started};
use crate::support::{Server, heartbeat_body, is_installed};

/// The network delay between the programs and the server, both ways together.
const ROUND_TRIP: Duration = Duration::from_millis(40);

/// An HTTP library, and the command that runs a program with it.
struct Library {
    name: &'static str,
    command: Vec<String>,
    settings: &'static [(&'static str, &'static str)],
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The libraries that are installed on this machine; their programs are compiled if necessary.
fn libraries() -> Vec<Library> {
    let mut found = Vec::new();
    let mut add = |name, settings, command: &[&str]| {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        found.push(Library {
            name,
            command,
            settings,
        });
    };
    let file = |name: &str| clients().join(name).display().to_string();
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if is_installed("python3") {
        add(
            "Python http.client",
            &[],
            &["python3", &file("beat_http_client.py")],
        );
    }
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/py/bin/python");
    let python = python.display().to_string();
    if is_installed(&format!("{python} && {python} -c 'import requests, httpx'")) {
        add(
            "Python requests",
            &[],
            &[&python, &file("beat_requests.py")],
        );
        add(
            "Python httpx, long pool",
            &[],
            &[&python, &file("beat_httpx.py")],
        );
        let shipped = &[("POOL", "shipped")];
        add(
            "Python httpx, as shipped",
            shipped,
            &[&python, &file("beat_httpx.py")],
        );
    }
    if is_installed("javac") {
        let classes = tmp.join("beat-java");
        run(Command::new("javac")
            .arg("-d")
            .arg(&classes)
            .arg(file("Beat.java")));
        let classes = classes.display().to_string();
        add("Java HttpClient", &[], &["java", "-cp", &classes, "Beat"]);
    }
    if is_installed("go") {
        let program = tmp.join("beat-go");
        let mut build = Command::new("go");
        build
            .args(["build", "-o"])
            .arg(&program)
            .arg(file("beat.go"));
        build
            .env("GOCACHE", tmp.join("go"))
            .env("GO111MODULE", "off");
        run(&mut build);
        add("Go net/http", &[], &[&program.display().to_string()]);
    }
    if is_installed("node") {
        add("Node https.Agent", &[], &["node", &file("beat.mjs")]);
        let fetch = &[("CLIENT", "fetch")];
        add("Node fetch", fetch, &["node", &file("beat.mjs")]);
    }
    if is_installed("php && php -m | grep -q curl") {
        add("PHP cURL", &[], &["php", &file("beat.php")]);
    }
    found
}

/// A client program that runs.
struct RunningClient {
    name: String,
    heartbeats: usize,
    child: Child,
}

impl RunningClient {
    /// Starts a program for the license `key`, whose session runs already.
    fn start(
        server: &Server,
        library: &Library,
        key: &str,
        (interval, heartbeats): (u32, usize),
        port: u16,
    ) -> Self {
        let token = server.client().session(key, library.name);
        let mut words = library.command.iter();
        let mut command = Command::new(words.next().unwrap());
        let ca = server.path("data/tls/ca.pem");
        command
            .args(words)
            .env("AUTHORITY", format!("127.0.0.1:{port}"))
            .env("CA_FILE", &ca)
            .env("NODE_EXTRA_CA_CERTS", &ca)
            .env("API_KEY", server.api_key())
            .env("BODY", heartbeat_body(key, &token).to_string())
            .env("BEATS", heartbeats.to_string())
            .env("INTERVAL", interval.to_string())
            .envs(library.settings.iter().copied());
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let route = if port == server.port() {
            "directly"
        } else {
            "through a relay"
        };
        Self {
            name: format!("{} every {interval} s {route}", library.name),
            heartbeats,
            child,
        }
    }

    /// The lines that it printed, one for each response.
    fn output(self) -> Vec<String> {
        let output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_program_that_keeps_its_connection_keeps_its_session_with_every_library() {
    // Seconds between heartbeats, and how many. With more rounds, also without the relay.
    let more_rounds = std::env::var_os("LICENSE_TEST_ROUNDS").is_some();
    let intervals: &[(u32, usize)] = if more_rounds {
        &[(1, 30), (20, 10), (30, 12), (45, 8), (60, 8), (300, 4)]
    } else {
        &[(1, 3), (31, 2)]
    };
    let libraries = libraries();
    let mut servers = Vec::new();
    let mut clients = Vec::new();
    for (interval, heartbeats) in intervals {
        // A timeout of two intervals, but longer than a program takes to start.
        let interval_setting = format!("heartbeat_interval={interval}");
        let timeout_setting = format!("session_timeout={}", (2 * interval).max(60));
        let server = started(
            &[],
            &[
                NO_LIMIT,
                &["config", "set", &interval_setting, &timeout_setting],
            ],
        );
        let relayed = relay(server.port(), ROUND_TRIP / 2);
        let ports = if more_rounds {
            vec![server.port(), relayed]
        } else {
            vec![relayed]
        };
        for port in ports {
            let count = u32::try_from(libraries.len()).unwrap();
            let keys = server.issue_licenses(1, count);
            for (library, key) in libraries.iter().zip(&keys) {
                clients.push(RunningClient::start(
                    &server,
                    library,
                    key,
                    (*interval, *heartbeats),
                    port,
                ));
            }
        }
        // Keeps the server running until the last program has ended.
        servers.push(server);
    }
    let mut lost = Vec::new();
    for client in clients {
        let (name, heartbeats) = (client.name.clone(), client.heartbeats);
        let output = client.output();
        let accepted = output.iter().filter(|line| *line == "200").count();
        eprintln!("{name}: {accepted} of {heartbeats}");
        if output != vec!["200"; heartbeats] {
            lost.push(format!("{name}: {output:?}"));
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
}
