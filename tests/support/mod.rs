//! Test support: runs the real executable as a process on a free port, with HTTPS and a folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

mod folder;
mod nightly;
pub mod stalls;
mod wait;

pub use wait::eventually;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_license-server");
/// The password of every administrator that a test creates.
pub const PASSWORD: &str = "seven green bicycles";
/// Whether servers log at trace level; not in tests that measure speed.
const VERBOSE: bool = matches!(
    env!("CARGO_CRATE_NAME").as_bytes(),
    b"black_box" | b"browser"
);
/// Whether tests start sessions in loops on a few licenses and check each one, so limits on starts and on the history
/// are switched off.
const UNLIMITED: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"crash");
/// Longest wait for a start, a stop or a response; machines are shared.
const TIMEOUT: Duration = Duration::from_mins(2);

/// A folder with a database, and optionally a running server; both are removed on drop.
pub struct Server {
    folder: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    child: Option<Child>,
    api_key: String,
    /// A program, with arguments, that runs the executable; empty to run it directly.
    launcher: Vec<String>,
}

/// A response of the server.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
    /// The body as JSON; null if it is not JSON.
    pub body: Value,
}

impl Response {
    /// The member `code` of a problem or of a verification; empty if there is none.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Status and code, for comparisons.
    pub fn status_and_code(&self) -> (u16, &str) {
        (self.status, self.code())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The session token in the response to a start.
    pub fn token(&self) -> String {
        self.body["session_token"]
            .as_str()
            .unwrap_or_else(|| panic!("no token in {self:?}"))
            .to_owned()
    }
}

/// A port that is free on every address of this machine, and that this process hands out once. It is below those that
/// the system gives to connections (32768 to 60999 on Linux), so it stays free while a server is stopped.
pub fn free_port() -> u16 {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at the same time begin at different ports.
    let first = std::process::id().wrapping_mul(1009);
    loop {
        let next = first.wrapping_add(HANDED_OUT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(next % 22_000).unwrap();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// Starts a server with the shipped settings.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with settings such as `("SESSIONS__AUTO_ACTIVATE", "true")`.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        server.run();
        server
    }

    /// Creates a folder without a database, and picks a free port.
    pub fn prepare(settings: &[(&str, &str)]) -> Self {
        stalls::watch();
        let folder = folder::folder();
        let port = free_port();
        let settings = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            folder,
            port,
            settings,
            child: None,
            api_key: String::new(),
            launcher: Vec::new(),
        }
    }

    /// Runs the executable through another program, which has to exec it.
    pub fn set_launcher(&mut self, launcher: &[&str]) {
        self.launcher = launcher.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Changes a setting for the next start, such as `TLS__DOMAINS`.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// The executable in this folder, with these settings and without the tests' own environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let launcher = self.launcher.iter().map(String::as_str);
        let mut words = launcher.chain([EXECUTABLE]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear();
        command.env("LICENSE_SERVER_SERVER__PORT", self.port.to_string());
        // At the most verbose level, since `drop` searches the log for secrets.
        if VERBOSE && arguments == ["serve"] {
            command.env("LICENSE_SERVER_LOG__LEVEL", "trace");
        }
        // An operator with such a load would raise the same limits.
        if UNLIMITED {
            command.env("LICENSE_SERVER_SESSIONS__STARTS_PER_MINUTE", "0");
            command.env("LICENSE_SERVER_SESSIONS__HISTORY_PER_DAY", "0");
        }
        for (key, value) in &self.settings {
            command.env(format!("LICENSE_SERVER_{key}"), value);
        }
        command
    }

    /// Starts the server, and waits until it prints its address.
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.path("server.log"))
            .unwrap();
        let mut child = self
            .command(&["serve"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        wait_for_line(child.stdout.take().unwrap(), "listens on")
            .unwrap_or_else(|| panic!("the server did not start: {}", self.log()));
        self.child = Some(child);
        if self.api_key.is_empty() {
            let config = self.json(&["config", "show"]);
            config["api_key"]
                .as_str()
                .unwrap()
                .clone_into(&mut self.api_key);
        }
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the process to end; its exit status.
    pub fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("the server did not stop: {}", self.log());
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Sends SIGTERM and waits; the exit status.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// Stops the server with SIGTERM, and starts it again.
    pub fn restart(&mut self) {
        assert_eq!(self.stop(), Some(0), "{}", self.log());
        self.run();
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Sets the API key that clients present, where there is none yet and `config show` would need a product.
    pub fn set_api_key(&mut self, api_key: &str) {
        api_key.clone_into(&mut self.api_key);
    }

    /// `name` in the server's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("data/license-server.sqlite3")
    }

    /// Runs a command to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a command with `--json`, which must succeed; the printed document.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut with_json = vec!["--json"];
        with_json.extend(arguments);
        let output = self.cli(&with_json);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {output:?}"))
    }

    /// Issues a license with this many device slots, for a customer that is created if missing; its key.
    pub fn issue_license(&self, devices: u32) -> String {
        self.issue_licenses(devices, 1).remove(0)
    }

    /// Issues `count` licenses; their keys.
    pub fn issue_licenses(&self, devices: u32, count: u32) -> Vec<String> {
        if self.json(&["customer", "list"])["customers"]
            .as_array()
            .unwrap()
            .is_empty()
        {
            self.json(&["customer", "add", "Ada"]);
        }
        let (devices, count) = (devices.to_string(), count.to_string());
        let order = [
            "license",
            "issue",
            "--customer",
            "Ada",
            "--devices",
            &devices,
            "--count",
            &count,
        ];
        let issued = self.json(&order);
        let issued = issued["licenses"].as_array().unwrap();
        issued
            .iter()
            .map(|license| license["license_key"].as_str().unwrap().to_owned())
            .collect()
    }

    /// An HTTPS client with connections of its own.
    pub fn client(&self) -> Client {
        let ca = std::fs::read(self.path("data/tls/ca.pem")).unwrap();
        Client::new(&ca, self.port, &self.api_key)
    }

    /// One call by a new client.
    pub fn call(&self, endpoint: &str, body: &Value) -> Response {
        self.client().call(endpoint, body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if !std::thread::panicking() {
            self.expect_no_secret_in_log();
        }
    }
}

impl Server {
    /// Fails if a secret of the database is in the log, in any common notation.
    fn expect_no_secret_in_log(&self) {
        let log = self.log();
        assert!(!log.contains(PASSWORD), "a password is in the log");
        for secret in self.secrets() {
            let bytes = format!("{:?}", secret.as_bytes());
            let bare = secret.replace('-', "");
            for form in [
                &secret,
                &bare,
                &secret.to_lowercase(),
                &bare.to_lowercase(),
                bytes.trim_matches(['[', ']']),
            ] {
                assert!(!log.contains(form), "{form} is in the log: {log}");
            }
        }
    }

    /// Every key, token and seed in the database; none if a test has damaged it.
    fn secrets(&self) -> Vec<String> {
        const SECRETS: &[&str] = &[
            "select substr(license_key, 1, 5) || '-' || substr(license_key, 6, 5) || '-' || substr(license_key, 11, 5) || '-' || substr(license_key, 16, 5) || '-' || substr(license_key, 21, 5) from licenses limit 1000",
            "select api_key from client_configs union select api_key from retired_api_keys",
            "select substr(hex(session_token), 1, 8) || '-' || substr(hex(session_token), 9, 4) || '-' || substr(hex(session_token), 13, 4) || '-' || substr(hex(session_token), 17, 4) || '-' || substr(hex(session_token), 21, 12) from (select session_token from active_sessions union select session_token from session_history limit 1000)",
            "select hex(totp_secret) from admins where totp_secret is not null",
            "select password_hash from admins",
        ];
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let Ok(file) = rusqlite::Connection::open_with_flags(self.database(), flags) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for query in SECRETS {
            let Ok(mut rows) = file.prepare(query) else {
                continue;
            };
            let rows = rows.query_map([], |row| row.get::<_, String>(0));
            found.extend(rows.into_iter().flatten().flatten());
        }
        found
    }
}

/// Reads until a line contains `word`, then reads on in the background so that the writer never blocks.
fn wait_for_line(stdout: ChildStdout, word: &'static str) -> Option<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            if line.contains(word) {
                drop(send.send(std::mem::take(&mut line)));
                break;
            }
            line.clear();
        }
        drop(reader.read_to_end(&mut Vec::new()));
    });
    receive.recv_timeout(TIMEOUT).ok()
}

/// An HTTPS agent that follows no redirects.
pub fn agent(ca: &[u8]) -> Agent {
    let root = Certificate::from_pem(ca).unwrap();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[root]))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(TIMEOUT))
        .build()
        .into()
}

/// A client of the license API, like a licensed program.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    url: String,
    api_key: String,
}

impl Client {
    pub fn new(ca: &[u8], port: u16, api_key: &str) -> Self {
        Self {
            agent: agent(ca),
            url: format!("https://localhost:{port}"),
            api_key: api_key.to_owned(),
        }
    }

    /// The same client with another API key.
    pub fn with_key(&self, api_key: &str) -> Self {
        Self {
            api_key: api_key.to_owned(),
            ..self.clone()
        }
    }

    /// `POST /api/license/<endpoint>`.
    pub fn call(&self, endpoint: &str, body: &Value) -> Response {
        self.call_with(endpoint, body, &[])
    }

    /// The same with more headers.
    pub fn call_with(&self, endpoint: &str, body: &Value, headers: &[(&str, &str)]) -> Response {
        self.send(endpoint, body.to_string().as_bytes(), headers)
    }

    /// The same with any bytes as the body; a content type among the headers replaces JSON.
    pub fn send(&self, endpoint: &str, body: &[u8], headers: &[(&str, &str)]) -> Response {
        self.try_send(endpoint, body, headers)
            .unwrap_or_else(|error| panic!("{endpoint}: {error}"))
    }

    /// The same if the server may not answer at all.
    pub fn try_send(
        &self,
        endpoint: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> Result<Response, ureq::Error> {
        let mut request = self
            .agent
            .post(format!("{}/api/license/{endpoint}", self.url));
        request = request.header("X-API-Key", &self.api_key);
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        {
            request = request.header("Content-Type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // A server that dies may leave an incomplete response, which counts as none.
        request.send(body).and_then(read_response)
    }

    /// `GET` of any path.
    pub fn get(&self, path: &str) -> Response {
        self.get_with(path, &[])
    }

    /// The same with more headers.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        request = request.header("X-API-Key", &self.api_key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.call().and_then(read_response).unwrap()
    }

    /// Activates `device` for the license and starts a session; its token.
    pub fn session(&self, key: &str, device: &str) -> String {
        let body = identity(key, device);
        let activated = self.call("activate", &body);
        assert!([200, 201].contains(&activated.status), "{activated:?}");
        let started = self.call("session/start", &body);
        assert_eq!(started.status, 201, "{started:?}");
        started.token()
    }
}

/// Reads the whole response.
pub fn read_response(
    mut response: ureq::http::Response<ureq::Body>,
) -> Result<Response, ureq::Error> {
    let headers = response.headers().iter();
    let headers = headers
        .map(|(name, value)| {
            (
                name.to_string(),
                value.to_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let bytes = response.body_mut().read_to_vec()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Response {
        status: response.status().as_u16(),
        headers,
        text,
        body,
    })
}

/// The body with which a program of version 1.0.0 on `device` identifies itself.
pub fn identity(key: &str, device: &str) -> Value {
    json!({ "license_key": key, "machine_id": device, "hardware_hash": format!("hash of {device}"), "version": "1.0.0" })
}

/// The body of a heartbeat.
pub fn heartbeat_body(key: &str, token: &str) -> Value {
    json!({ "license_key": key, "session_token": token })
}

/// Rounds of a long test: `LICENSE_TEST_ROUNDS` if set, otherwise `default`.
pub fn rounds(default: u32) -> u32 {
    std::env::var("LICENSE_TEST_ROUNDS").map_or(default, |text| text.parse().unwrap())
}

/// Whether `program` is installed. If not, prints to standard error that the test is skipped; with `CI=true` it
/// fails.
#[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
pub fn is_installed(program: &str) -> bool {
    let installed = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        let ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!ci, "{program} is not on this machine");
        eprintln!("SKIPPED: {program} is not on this machine");
    }
    installed
}

/// A new TCP connection to the server.
pub fn connect_tcp(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).unwrap()
}

/// Every file below `folder`.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        found.push(path);
    }
    found
}
