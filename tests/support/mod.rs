//! The executable as its users meet it: a process, a port, HTTPS, a folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_license-server");
/// Of every administrator whom a test makes.
pub const PASSWORD: &str = "seven green bicycles";
/// Whether servers write down everything: not where speed is what is tried.
const LOUD: bool = matches!(
    env!("CARGO_CRATE_NAME").as_bytes(),
    b"black_box" | b"browser"
);
/// Whether tests start sessions in loops on a few licenses, and look for each of them.
const BUSY: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"crash");
/// Longest wait for a start or a stop; machines are shared.
const PATIENCE: Duration = Duration::from_mins(1);

/// A folder with a database in it, and perhaps a server on it; all of it goes when this goes.
pub struct Server {
    folder: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    child: Option<Child>,
    api_key: String,
    /// What runs the executable, with its arguments; nothing for the executable itself.
    launcher: Vec<String>,
}

/// What the server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
    /// Null where the body is no JSON.
    pub body: Value,
}

impl Answer {
    /// The member `code` of a problem or a verdict.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Status and code in one, for comparisons.
    pub fn told(&self) -> (u16, &str) {
        (self.status, self.code())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The session token of a start.
    pub fn token(&self) -> String {
        self.body["session_token"]
            .as_str()
            .unwrap_or_else(|| panic!("no token in {self:?}"))
            .to_owned()
    }
}

impl Server {
    /// A running server with the shipped settings.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A running server with settings such as `("SESSIONS__AUTO_ACTIVATE", "true")`.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        server.run();
        server
    }

    /// A folder without a database yet, and a port that is free at every address of this machine.
    pub fn prepare(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("0.0.0.0:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
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

    /// From now on the executable is run by another program, which becomes it.
    pub fn launch_by(&mut self, launcher: &[&str]) {
        self.launcher = launcher.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Changes a setting for the next start, such as `TLS__DOMAINS`.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// The executable in this folder, with these settings; nothing of the tests' own environment.
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
        // As loud as it can be: whatever a test does, its log is searched for secrets in the end.
        if LOUD && arguments == ["serve"] {
            command.env("LICENSE_SERVER_LOG__LEVEL", "trace");
        }
        // Where a few licenses start sessions all the time and each of them is looked for, an operator would
        // raise the same bounds.
        if BUSY {
            command.env("LICENSE_SERVER_SESSIONS__STARTS_PER_MINUTE", "0");
            command.env("LICENSE_SERVER_SESSIONS__HISTORY_PER_DAY", "0");
        }
        for (key, value) in &self.settings {
            command.env(format!("LICENSE_SERVER_{key}"), value);
        }
        command
    }

    /// Starts the server, and waits until it says where it listens.
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "it runs already");
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
            let shown = self.json(&["config", "show"]);
            shown["api_key"]
                .as_str()
                .unwrap()
                .clone_into(&mut self.api_key);
        }
    }

    /// What the server has written to its log so far.
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

    /// Waits for the end of the process; its exit status.
    pub fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
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

    /// SIGTERM, and the exit status.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// Stops in order, and starts again.
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

    /// What a command prints with `--json`; it must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.cli(&all);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {output:?}"))
    }

    /// A customer and a license of his with so many device slots; its key.
    pub fn license(&self, devices: u32) -> String {
        self.licenses(devices, 1).remove(0)
    }

    /// The keys of `count` licenses.
    pub fn licenses(&self, devices: u32, count: u32) -> Vec<String> {
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

    /// Someone who calls the server over HTTPS, with connections of his own.
    pub fn client(&self) -> Client {
        let ca = std::fs::read(self.path("data/tls/ca.pem")).unwrap();
        Client::new(&ca, self.port, &self.api_key)
    }

    /// One call by a client of its own.
    pub fn call(&self, deed: &str, body: &Value) -> Answer {
        self.client().call(deed, body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if !std::thread::panicking() {
            self.keeps_its_secrets();
        }
    }
}

impl Server {
    /// No secret of the file is in the log, in any form in which it could be written down.
    fn keeps_its_secrets(&self) {
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

    /// Every key, token and seed that the file holds; none where a test has broken it.
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

/// Reads until a line holds `word`, then reads on in the background so that the writer never waits.
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
    receive.recv_timeout(PATIENCE).ok()
}

/// What speaks HTTPS, and follows nobody anywhere.
pub fn agent(ca: &[u8]) -> Agent {
    let root = Certificate::from_pem(ca).unwrap();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[root]))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

/// A licensed program, as far as the server can see.
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

    /// The same program with another API key.
    pub fn with_key(&self, api_key: &str) -> Self {
        Self {
            api_key: api_key.to_owned(),
            ..self.clone()
        }
    }

    /// `POST /api/license/<deed>`.
    pub fn call(&self, deed: &str, body: &Value) -> Answer {
        self.call_with(deed, body, &[])
    }

    /// The same with more headers.
    pub fn call_with(&self, deed: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        self.send(deed, body.to_string().as_bytes(), headers)
    }

    /// The same with any bytes as the body; a content type among the headers replaces JSON.
    pub fn send(&self, deed: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        self.try_send(deed, body, headers)
            .unwrap_or_else(|error| panic!("{deed}: {error}"))
    }

    /// The same where the server may not answer at all.
    pub fn try_send(
        &self,
        deed: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}/api/license/{deed}", self.url));
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
        // A server that dies may leave half an answer: that is none.
        request.send(body).and_then(answer)
    }

    /// `GET` of any path.
    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    /// The same with more headers.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        request = request.header("X-API-Key", &self.api_key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.call().and_then(answer).unwrap()
    }

    /// Activates `device` for the license and starts a session; its token.
    pub fn session(&self, key: &str, device: &str) -> String {
        let body = claim(key, device);
        let activated = self.call("activate", &body);
        assert!([200, 201].contains(&activated.status), "{activated:?}");
        let started = self.call("session/start", &body);
        assert_eq!(started.status, 201, "{started:?}");
        started.token()
    }
}

/// The whole answer.
pub fn answer(mut response: Response<ureq::Body>) -> Result<Answer, ureq::Error> {
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
    Ok(Answer {
        status: response.status().as_u16(),
        headers,
        text,
        body,
    })
}

/// What a program of version 1.0.0 on `device` says of itself.
pub fn claim(key: &str, device: &str) -> Value {
    json!({ "license_key": key, "machine_id": device, "hardware_hash": format!("hash of {device}"), "version": "1.0.0" })
}

/// What a heartbeat says.
pub fn beat(key: &str, token: &str) -> Value {
    json!({ "license_key": key, "session_token": token })
}

/// Asks again and again, until the answer is yes.
pub fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ask() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Rounds of a long test: `default`, or as many as `LICENSE_TEST_ROUNDS` says.
pub fn rounds(default: u32) -> u32 {
    std::env::var("LICENSE_TEST_ROUNDS").map_or(default, |text| text.parse().unwrap())
}

/// Whether `program` is on this machine. Where it is not, a word on standard error says what was not tried;
/// with `CI=true` it fails.
#[expect(clippy::print_stderr, reason = "a test that was not run is to be seen")]
pub fn is_there(program: &str) -> bool {
    let there = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        let ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!ci, "{program} is not on this machine");
        eprintln!("SKIPPED: {program} is not on this machine");
    }
    there
}

/// A connection without a word on it yet.
pub fn raw(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).unwrap()
}

/// Every file below `folder`.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        found.push(path);
    }
    found
}
