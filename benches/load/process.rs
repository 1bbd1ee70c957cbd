//! Server processes: starting, waiting for readiness, measuring, and stopping.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::connection::{Connection, Target};

/// Names another executable than the one that was built with this benchmark.
const EXECUTABLE: &str = "LICENSE_BENCH_EXECUTABLE";
/// Longest wait for a server's first response.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Interval between attempts to reach a server that starts.
const RETRY: Duration = Duration::from_micros(200);
/// The unit of CPU time in `/proc`: hundredths of a second on every Linux machine.
const PER_TICK: Duration = Duration::from_millis(10);

/// A running server; killed when dropped.
pub struct Process {
    child: Child,
    started: Instant,
    port: u16,
    /// The authority to trust; `None` for plain HTTP.
    ca: Option<PathBuf>,
}

impl Process {
    /// Starts a server that reads and writes nothing.
    pub fn start(mut command: Command, port: u16, ca: Option<PathBuf>) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self::spawn(command, port, ca)
    }

    fn spawn(mut command: Command, port: u16, ca: Option<PathBuf>) -> Self {
        let started = Instant::now();
        Self {
            child: command.spawn().unwrap(),
            started,
            port,
            ca,
        }
    }

    /// Waits for the first response, of any status; the time since the process was started.
    pub async fn wait_until_ready(&self, path: &str) -> Duration {
        let address = self.address();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(self.started.elapsed() < TIMEOUT, "no server on {address}");
            tokio::time::sleep(RETRY).await;
        }
        let mut connection = Connection::open(&self.target("")).await;
        connection.get(path).await;
        self.started.elapsed()
    }

    /// The target for load of one product; the server must be listening.
    pub fn target(&self, api_key: &str) -> Target {
        self.target_with(vec![api_key.to_owned()])
    }

    /// The same for load of several products.
    pub fn target_with(&self, api_keys: Vec<String>) -> Target {
        Target {
            address: self.address(),
            tls: self.ca.as_deref().map(tls_connector),
            api_keys: Arc::new(api_keys),
            pid: self.child.id(),
        }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its standard input and output, if they are pipes.
    pub fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        let (input, output) = (self.child.stdin.take(), self.child.stdout.take());
        (input.unwrap(), output.unwrap())
    }

    /// Memory in use, in MiB.
    pub fn rss_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
        kib / 1024.0
    }

    /// Sends SIGTERM and waits for the exit.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        let sent_signal = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent_signal.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// CPU time that a process has used so far.
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in parentheses may hold spaces; after it, user and system time are the 12th and 13th.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u32>().unwrap());
    PER_TICK * ticks.sum::<u32>()
}

/// What a process has written to the disk so far, in GiB.
pub fn written_gib(pid: u32) -> f64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let bytes = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    let bytes: f64 = bytes.unwrap().parse().unwrap();
    bytes / 1024.0 / 1024.0 / 1024.0
}

/// A free port.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn tls_connector(ca: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Each new connection is that of another program.
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// The executable in a folder of its own, with the shipped settings and an empty environment.
pub struct Installation {
    pub folder: PathBuf,
    pub executable: PathBuf,
}

impl Installation {
    pub fn new(folder: &Path) -> Self {
        let other = std::env::var_os(EXECUTABLE).map(PathBuf::from);
        Self {
            folder: folder.to_owned(),
            executable: other.unwrap_or_else(|| env!("CARGO_BIN_EXE_license-server").into()),
        }
    }

    pub fn database(&self) -> PathBuf {
        self.folder.join("data/license-server.sqlite3")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(arguments).stdin(Stdio::null());
        self.settle(&mut command);
        command
    }

    /// Lets `command` run in the folder, with an empty environment.
    pub fn settle(&self, command: &mut Command) {
        command.current_dir(&self.folder).env_clear();
    }

    /// Runs a command; its output.
    pub fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{arguments:?}: {error}");
        stdout
    }

    /// Starts the server.
    pub fn serve(&self) -> Process {
        self.serve_with(self.command(&["serve"]), Stdio::null)
    }

    /// Starts the server without TLS, as behind a proxy on the same machine.
    pub fn serve_plain(&self) -> Process {
        let mut command = self.command(&["serve"]);
        command.env("LICENSE_SERVER_TLS__MODE", "off");
        let mut process = self.serve_with(command, Stdio::null);
        process.ca = None;
        process
    }

    /// Starts the server by another command.
    pub fn serve_with(&self, mut command: Command, pipe: fn() -> Stdio) -> Process {
        let port = free_port();
        command.stdin(pipe()).stdout(pipe());
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.folder.join("server.log"));
        command
            .env("LICENSE_SERVER_SERVER__PORT", port.to_string())
            .stderr(log.unwrap());
        Process::spawn(command, port, Some(self.folder.join("data/tls/ca.pem")))
    }
}

/// Size of an executable, in MiB.
pub fn executable_mib(executable: &Path) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a file is smaller than 2^53")]
    let bytes = fs::metadata(executable).unwrap().len() as f64;
    bytes / 1024.0 / 1024.0
}
