//! Signals that do not end the server, and those that come before it listens.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::scene::started;
use crate::support::{Server, eventually};

/// Those that other servers end by, or do something else at.
const HARMLESS: [&str; 4] = ["HUP", "QUIT", "USR1", "USR2"];

fn send(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(sent.unwrap().success(), "{signal}");
}

/// A pipe in the place of the settings: whoever opens it for writing waits until the process reads it, and
/// the process waits for what is written.
fn pipe(place: &Server) -> PathBuf {
    let pipe = place.path("settings.toml");
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
fn no_signal_but_those_of_a_stop_ends_the_server_and_it_says_so() {
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
    eventually("a word about SIGHUP", || {
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
fn sighup_reads_the_level_of_the_log_again_and_nothing_else() {
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
    let said = || std::fs::read_to_string(server.path("quiet.log")).unwrap();
    eventually("the server", || {
        std::net::TcpStream::connect(("127.0.0.1", server.port())).is_ok()
    });
    write("debug", 12);
    send(&child, "HUP");
    eventually("the new level", || said().contains("(DEBUG)"));
    // A connection that says nothing but nonsense is told of at `debug`.
    let mut nonsense = crate::support::raw(server.port());
    nonsense.write_all(b"nonsense\r\n\r\n").unwrap();
    eventually("what debug tells", || said().contains("no TLS"));
    // What cannot be read changes nothing, and is told.
    std::fs::write(server.path("license-server.toml"), "[log\n").unwrap();
    send(&child, "HUP");
    eventually("a word about it", || {
        said().contains("the log level is unchanged, the settings cannot be read")
    });
    write("info", 12);
    send(&child, "HUP");
    eventually("the old level", || said().contains("(INFO)"));
    let before = said().lines().count();
    let mut quiet = crate::support::raw(server.port());
    quiet.write_all(b"nonsense\r\n\r\n").unwrap();
    eventually("its end", || crate::wire::closes(&mut quiet));
    let told = said();
    let more: Vec<&str> = told.lines().skip(before).collect();
    assert!(
        more.iter().all(|line| !line.contains(" DEBUG ")),
        "{more:?}"
    );
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{told}");
    server.set("LOG__LEVEL", "info");
}

#[test]
fn a_signal_before_the_server_listens_does_not_end_it_either() {
    for command in ["serve", "demo"] {
        let place = Server::prepare(&[]);
        let pipe = pipe(&place);
        let mut child = place
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
        // What came too early is obeyed once it serves.
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        let told = told.find(|line| line.as_ref().unwrap().contains("SIGUSR1 is ignored"));
        assert!(told.is_some(), "{command}");
        send(&child, "TERM");
        lines.for_each(|line| drop(line.unwrap()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{command}");
    }
}

#[test]
fn a_command_ends_with_its_terminal() {
    let mut place = Server::prepare(&[]);
    // Where the tests themselves run under `nohup`, their children inherit that SIGHUP is ignored.
    place.launch_by(&["env", "--default-signal=HUP"]);
    let pipe = pipe(&place);
    let mut child = place
        .command(&["--config", "settings.toml", "config", "show"])
        .spawn()
        .unwrap();
    let settings = open(&pipe);
    send(&child, "HUP");
    assert_eq!(child.wait().unwrap().code(), None, "by the signal");
    drop(settings);
}
