//! Runs the files for programs, as downloaded from the page *Integrate*, against a server behind a relay.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::inspect::{end_reasons, running};
use crate::integrate::proxy::Proxy;
use crate::setup::{NO_LIMIT, started};
use crate::support::{Server, eventually, files_below};
use crate::trials;

/// A programming language, and how its file is compiled and run in the folder where it is.
pub struct Language {
    /// Its name in the addresses of the page.
    pub word: &'static str,
    /// The name of the downloaded file.
    pub file: &'static str,
    /// The program without which it is skipped, as `command -v` knows it.
    pub needs: &'static str,
    /// What is replaced in the file, since this machine's compiler or runtime cannot do it.
    pub patches: &'static [(&'static str, &'static str)],
    /// The command that compiles it; empty if it needs none.
    pub build: &'static [&'static str],
    /// The command that runs it.
    pub run: &'static [&'static str],
    /// The command that runs it with German as the user's language, if `LANG` is not what tells it.
    pub run_in_german: &'static [&'static str],
}

/// A network between the programs and the server.
pub struct Relay {
    pub port: u16,
    cut: Arc<AtomicBool>,
    /// Whether every second connection is closed at once.
    unreliable: Arc<AtomicBool>,
    /// Whether connections stay open without an answer.
    silent: Arc<AtomicBool>,
    /// Responds instead of the server.
    proxy: Arc<Mutex<Option<Proxy>>>,
    /// Every call has a connection of its own.
    accepted: Arc<AtomicUsize>,
}

impl Relay {
    fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            port: listener.local_addr().unwrap().port(),
            cut: Arc::default(),
            unreliable: Arc::default(),
            silent: Arc::default(),
            proxy: Arc::default(),
            accepted: Arc::default(),
        };
        let (cut, unreliable) = (relay.cut.clone(), relay.unreliable.clone());
        let (accepted, silent) = (relay.accepted.clone(), relay.silent.clone());
        let proxy = relay.proxy.clone();
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if silent.load(Ordering::Relaxed) {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    unanswered.push(stream);
                    continue;
                }
                if let Some(proxy) = &*proxy.lock().unwrap() {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    proxy.respond(stream);
                    continue;
                }
                let odd = accepted.fetch_add(1, Ordering::Relaxed) % 2 == 1;
                let closed = unreliable.load(Ordering::Relaxed) && odd;
                if !closed && !cut.load(Ordering::Relaxed) {
                    forward(server_port, stream, &cut);
                }
            }
        });
        relay
    }

    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// From now on, no byte gets through.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// From now on, connections are accepted, and nothing else happens.
    pub fn swallow(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    pub fn restore(&self) {
        self.cut.store(false, Ordering::Relaxed);
        self.silent.store(false, Ordering::Relaxed);
        *self.proxy.lock().unwrap() = None;
    }

    pub fn close_every_second_connection(&self, on: &str) {
        self.unreliable.store(on == "on", Ordering::Relaxed);
    }
}

/// The .NET runtime in the Python environment of the tests, if it is there.
pub fn dotnet() -> Option<PathBuf> {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/py/lib");
    let mut versions = std::fs::read_dir(environment).ok()?.flatten();
    versions.find_map(|python| {
        let runtime = python
            .path()
            .join("site-packages/dnv/net/runtime/.net/dotnet");
        runtime.exists().then_some(runtime)
    })
}

/// Forwards the bytes of both directions until the network is cut.
fn forward(port: u16, stream: TcpStream, cut: &Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    let ends = [
        (stream.try_clone().unwrap(), server.try_clone().unwrap()),
        (server, stream),
    ];
    for (mut from, mut to) in ends {
        let cut = cut.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 16_384];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if cut.load(Ordering::Relaxed) || to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            drop((to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both)));
        });
    }
}

/// A server with short intervals, a license, and the program of one language.
pub struct Bench {
    pub language: &'static Language,
    pub server: Server,
    pub relay: Relay,
    pub key: String,
}

/// How a program is run.
#[derive(Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// Its folder below that of the server; `program` if empty.
    pub folder: &'a str,
    /// The user's home below the folder of the server; `home` if empty.
    pub home: &'a str,
    /// A program, with arguments, that runs the command.
    pub launcher: &'a [&'a str],
    /// The user's language, such as `en_US.UTF-8`; German if empty.
    pub language: &'a str,
}

impl Bench {
    pub fn start(language: &'static Language) -> Self {
        let settings = &[
            "config",
            "set",
            "heartbeat_interval=1",
            "session_timeout=8",
            "offline_days=7",
            "client_name=Prüf \"Stand\" \\ 1",
        ];
        let sweep = ("SESSIONS__CLEANUP_INTERVAL", "1");
        let server = started(&[sweep], &[settings, NO_LIMIT, trials::PLAN, trials::OFFER]);
        let relay = Relay::start(server.port());
        let key = server.issue_license(2);
        let bench = Self {
            language,
            server,
            relay,
            key,
        };
        bench.install("program", &bench.downloaded());
        bench
    }

    /// The file as downloaded, except that the relay is where the server was.
    pub fn downloaded(&self) -> String {
        let mut panel = self.server.logged_in_browser("admin");
        let path = format!("/integrate/program/file?language={}", self.language.word);
        let file = panel.get(&path);
        let name = format!("attachment; filename=\"{}\"", self.language.file);
        assert_eq!(file.header("content-disposition"), Some(name.as_str()));
        let direct = format!(":{}\"", self.server.port());
        assert!(file.text.contains(&direct), "{}", file.text);
        file.text
            .replace(&direct, &format!(":{}\"", self.relay.port))
    }

    /// Saves and compiles the file in a folder, beside the certificate.
    pub fn install(&self, folder: &str, text: &str) {
        let folder = self.server.path(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut text = text.to_owned();
        for (from, to) in self.language.patches {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        std::fs::write(folder.join(self.language.file), text).unwrap();
        let authority = self.server.path("data/tls/ca.pem");
        std::fs::copy(authority, folder.join("ca.pem")).unwrap();
        if let [program, arguments @ ..] = self.language.build {
            let mut build = Command::new(program);
            let tests = std::env::current_exe().unwrap();
            build.env("DEPENDENCIES", tests.parent().unwrap());
            build.envs(dotnet().map(|runtime| ("DOTNET", runtime)));
            let output = build.args(arguments).current_dir(&folder).output().unwrap();
            assert!(output.status.success(), "{build:?}: {output:?}");
        }
    }

    /// Copies the program into another folder, with texts replaced by others of the same length: in the file, and in what was
    /// compiled from it, which is faster than to compile it again.
    pub fn install_changed(&self, folder: &str, changes: &[(&str, &str)]) {
        let folder = self.server.path(folder);
        let copied = Command::new("cp")
            .arg("-r")
            .args([&self.server.path("program"), &folder])
            .status();
        assert!(copied.unwrap().success());
        for (from, to) in changes {
            assert_eq!(from.len(), to.len(), "{from}");
            let files = files_below(&folder).into_iter();
            let edited = files.filter(|file| file.is_file() && replaced_in(file, from, to));
            let expected = if self.language.build.is_empty() { 1 } else { 2 };
            assert!(edited.count() >= expected, "{from} in {}", folder.display());
        }
    }

    /// Seconds after which a session without heartbeats is over; programs start slowly on a busy machine.
    pub fn set_timeout(&self, seconds: u32) {
        let setting = format!("session_timeout={seconds}");
        self.server.json(&["config", "set", &setting]);
    }

    /// From now on, a proxy responds to each request in this way.
    pub fn respond_instead(&self, response: &'static str) {
        let proxy = Proxy::new(&self.server.path("data/tls"), response);
        *self.relay.proxy.lock().unwrap() = Some(proxy);
    }

    pub fn run(&self, circumstances: &Circumstances<'_>) -> Run {
        let or = |given: &'static str, name: &str| {
            let name = if name.is_empty() { given } else { name };
            self.server.path(name)
        };
        let language = if circumstances.language.is_empty() {
            "de_AT.UTF-8"
        } else {
            circumstances.language
        };
        let german = language.starts_with("de");
        let command = match self.language.run_in_german {
            [] => self.language.run,
            command if german => command,
            _ => self.language.run,
        };
        let folder = or("program", circumstances.folder);
        // Started from elsewhere: the certificate is found beside the program all the same.
        let command = command.iter().map(|word| {
            let file = folder.join(word);
            if file.exists() {
                file.display().to_string()
            } else {
                word.replace("FOLDER", &folder.display().to_string())
            }
        });
        let launcher = circumstances.launcher.iter().map(|word| (*word).to_owned());
        let words: Vec<String> = launcher.chain(command).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir("/");
        for name in ["LC_ALL", "LC_MESSAGES", "LANG", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command.env("HOME", or("home", circumstances.home));
        command.env("LANG", language);
        Run::start(command)
    }

    /// Runs the program with its stored key until its session runs.
    pub fn running_program(&self) -> Run {
        let run = self.run(&Circumstances::default());
        run.says("Running. Press Enter to end.");
        run
    }

    /// The id of the only running session.
    pub fn session(&self) -> String {
        let sessions = running(&self.server);
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        sessions[0]["id"].to_string()
    }

    /// Whether the latest session ended for this reason.
    pub fn assert_ended(&self, reason: &str) {
        assert_eq!(end_reasons(&self.server)[0], reason);
        assert!(running(&self.server).is_empty());
    }

    /// A file that the program has stored in the home `home`.
    pub fn stored(&self, home: &str, name: &str) -> PathBuf {
        let share = self.server.path(home).join(".local/share");
        let folders: Vec<PathBuf> = std::fs::read_dir(share)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let found: Vec<&PathBuf> = folders
            .iter()
            .filter(|folder| folder.join(name).exists())
            .collect();
        assert_eq!(found.len(), 1, "{name} in {folders:?}");
        found[0].join(name)
    }

    /// Copies the program's files of the home `home` into another one.
    pub fn copy_home(&self, name: &str) {
        let from = self.server.path("home");
        let copied = Command::new("cp")
            .arg("-r")
            .args([&from, &self.server.path(name)])
            .status();
        assert!(copied.unwrap().success());
    }
}

/// Replaces a text in a file, also in UTF-16, as .NET stores it; whether it is there.
fn replaced_in(file: &Path, from: &str, to: &str) -> bool {
    let utf_16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let (mut bytes, mut found) = (std::fs::read(file).unwrap(), false);
    for (from, to) in [
        (from.as_bytes().to_vec(), to.as_bytes().to_vec()),
        (utf_16(from), utf_16(to)),
    ] {
        let mut at = 0;
        while let Some(next) = bytes[at..]
            .windows(from.len())
            .position(|part| part == from)
        {
            at += next;
            bytes[at..at + to.len()].copy_from_slice(&to);
            found = true;
        }
    }
    if found {
        std::fs::write(file, bytes).unwrap();
    }
    found
}

/// A program that runs.
pub struct Run {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Output,
    error: Output,
}

/// What a program has written, and whether that is all.
#[derive(Clone, Default)]
struct Output {
    text: Arc<Mutex<String>>,
    closed: Arc<AtomicBool>,
}

impl Drop for Run {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What is read from a stream until its end.
fn collected(mut stream: impl Read + Send + 'static) -> Output {
    let output = Output::default();
    let shared = output.clone();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let read = String::from_utf8_lossy(&bytes[..count]).into_owned();
            shared.text.lock().unwrap().push_str(&read);
        }
        shared.closed.store(true, Ordering::Relaxed);
    });
    output
}

impl Run {
    fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            out: collected(child.stdout.take().unwrap()),
            error: collected(child.stderr.take().unwrap()),
            child,
        }
    }

    pub fn out(&self) -> String {
        self.out.text.lock().unwrap().clone()
    }

    pub fn error(&self) -> String {
        self.error.text.lock().unwrap().clone()
    }

    /// Waits until it has printed this.
    pub fn says(&self, words: &str) {
        let ended = format!("/proc/{}/exe", self.child.id());
        eventually(words, || {
            let said = self.out().contains(words);
            let alive = std::fs::read_link(Path::new(&ended)).is_ok();
            assert!(
                said || alive || self.out().contains(words),
                "it ended without {words:?}: {}{}",
                self.out(),
                self.error()
            );
            said
        });
    }

    pub fn enter(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Ends the input, as a user who cancels the question.
    pub fn cancel(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
    }

    /// Waits for its end; the exit status, standard output and standard error.
    pub fn end(mut self) -> (Option<i32>, String, String) {
        let mut status = None;
        eventually("the end of the program", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        // What it wrote last may still be on its way through the pipe.
        eventually("the end of its output", || {
            [&self.out, &self.error]
                .iter()
                .all(|output| output.closed.load(Ordering::Relaxed))
        });
        (status.unwrap().code(), self.out(), self.error())
    }

    /// Presses Enter, and expects a clean end.
    pub fn finish(mut self) {
        self.enter("");
        let (status, out, error) = self.end();
        assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    }

    /// Expects that it ends by itself with a message for the user; returns the message.
    pub fn refusal(self) -> String {
        let (status, out, error) = self.end();
        assert_eq!(status, Some(1), "{out}{error}");
        assert_eq!(error.trim().lines().count(), 1, "no traceback: {error}");
        error
    }
}

/// Writes a line directly, since the test harness hides what a passing test prints.
pub fn report(line: &str) {
    let line = format!("{line}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
