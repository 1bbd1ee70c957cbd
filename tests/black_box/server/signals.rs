//! Signals that do not end the server, and signals that arrive before it listens.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::setup::started;
use crate::support::{Server, eventually};

/// Signals that must not end the server.
const HARMLESS: [&str; 4] = ["HUP", "QUIT", "USR1", "USR2"];

/// Sends a signal, such as `TERM`.
pub fn send(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(sent.unwrap().success(), "{signal}");
}

/// A named pipe instead of the settings file. Opening it for writing waits until the process opens it, and the process
/// waits for the settings.
fn settings_pipe(server: &Server) -> PathBuf {
    let pipe = server.path("settings.toml");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    pipe
}

fn open(pipe: &Path) -> File {
    File::options().write(true).open(pipe).unwrap()
}

#[test]
fn other_signals_do_not_end_the_server_and_are_logged() {
    let mut server = started(&[], &[]);
    for _ in 0..3 {
        for signal in HARMLESS {
            server.signal(signal);
        }
    }
    for name in ["SIGQUIT", "SIGUSR1", "SIGUSR2"] {
        let line = format!("{name} is ignored");
        eventually(&line, || server.log().contains(&line));
    }
    eventually("the log line about SIGHUP", || {
        server
            .log()
            .contains("SIGHUP: reloaded certificate files and the log level")
    });
    assert_eq!(server.client().get("/health").text, r#"{"status":"ok"}"#);
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    let log = server.log();
    assert_eq!(log.matches("SIGUSR1 is ignored").count(), 1, "{log}");
}

#[test]
fn sighup_reloads_the_log_level_only() {
    let mut server = Server::prepare(&[]);
    let write = |level: &str, hours: u32| {
        let text = format!("[log]\nlevel = \"{level}\"\n[panel]\nsession_hours = {hours}\n");
        std::fs::write(server.path("license-server.toml"), text).unwrap();
    };
    write("info", 12);
    let log = std::fs::File::create(server.path("quiet.log")).unwrap();
    let mut child = server
        .command(&["--json"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let log_text = || std::fs::read_to_string(server.path("quiet.log")).unwrap();
    eventually("the server", || {
        std::net::TcpStream::connect(("127.0.0.1", server.port())).is_ok()
    });
    write("debug", 12);
    send(&child, "HUP");
    eventually("the new level", || log_text().contains("(DEBUG)"));
    // A connection that does not speak TLS is logged at `debug`.
    let mut nonsense = crate::support::connect_tcp(server.port());
    nonsense.write_all(b"nonsense\r\n\r\n").unwrap();
    eventually("the debug line", || log_text().contains("no TLS"));
    // Settings that do not parse change nothing, and are logged.
    std::fs::write(server.path("license-server.toml"), "[log\n").unwrap();
    send(&child, "HUP");
    eventually("the log line", || {
        log_text().contains("the log level is unchanged, the settings cannot be read")
    });
    write("info", 12);
    send(&child, "HUP");
    eventually("the old level", || log_text().contains("(INFO)"));
    let before = log_text().lines().count();
    let mut quiet = crate::support::connect_tcp(server.port());
    quiet.write_all(b"nonsense\r\n\r\n").unwrap();
    eventually("its end", || crate::wire::closes(&mut quiet));
    let text = log_text();
    let new_lines: Vec<&str> = text.lines().skip(before).collect();
    assert!(
        new_lines.iter().all(|line| !line.contains(" DEBUG ")),
        "{new_lines:?}"
    );
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    server.set("LOG__LEVEL", "info");
}

#[test]
fn a_signal_before_the_server_listens_does_not_end_it_either() {
    for command in ["serve", "demo"] {
        let server = Server::prepare(&[]);
        let pipe = settings_pipe(&server);
        let mut child = server
            .command(&["--config", "settings.toml", command])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut settings = open(&pipe);
        for signal in HARMLESS {
            send(&child, signal);
        }
        settings.write_all(b"[log]\nlevel = \"info\"\n").unwrap();
        drop(settings);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().map(Result::unwrap);
        let first = first.unwrap_or_else(|| panic!("{command} was ended"));
        assert!(first.contains("icense"), "{first}");
        // A signal that arrived too early is handled once the server runs.
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let ignored = log.find(|line| line.as_ref().unwrap().contains("SIGUSR1 is ignored"));
        assert!(ignored.is_some(), "{command}");
        send(&child, "TERM");
        lines.for_each(|line| drop(line.unwrap()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{command}");
    }
}

#[test]
fn a_command_ends_with_its_terminal() {
    let mut server = Server::prepare(&[]);
    // If the tests themselves run under `nohup`, their children inherit that SIGHUP is ignored.
    server.set_launcher(&["env", "--default-signal=HUP"]);
    let pipe = settings_pipe(&server);
    let mut child = server
        .command(&["--config", "settings.toml", "config", "show"])
        .spawn()
        .unwrap();
    let settings = open(&pipe);
    send(&child, "HUP");
    assert_eq!(child.wait().unwrap().code(), None, "by the signal");
    drop(settings);
}
