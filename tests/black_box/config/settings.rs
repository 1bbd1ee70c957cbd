//! Settings: their sources, invalid ones, and a database or port that another process uses.

use std::fs;

use serde_json::Value;

use crate::inspect::responds;
use crate::support::{Server, eventually};

/// The exit status of a command that must fail, and the one line that it prints.
fn refused(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = server.cli(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    (output.status.code(), message)
}

#[test]
fn wrong_settings_stop_the_start_with_file_line_and_reason() {
    let server = Server::prepare(&[]);
    for (text, position, expected) in [
        (
            "[server]\nport = 8443\nprot = 1\n",
            "license-server.toml:3: ",
            "prot",
        ),
        ("\n[serwer]\n", "license-server.toml:2: ", "serwer"),
        (
            "[server]\nworkers = \"x\"\n",
            "license-server.toml:2: ",
            "invalid type",
        ),
        (
            "[sessions]\n\ncleanup_interval = 0\n",
            "license-server.toml:3: ",
            "1..3600",
        ),
        (
            "[tls]\nmode = \"files\"\n",
            "license-server.toml:2: ",
            "tls.certificate",
        ),
        ("[tls]\nmode = \"of\"\n", "license-server.toml:2: ", "off"),
        (
            "[server]\ntrusted_proxies = [\"10.0.0.0\"]\n",
            "license-server.toml:2: ",
            "",
        ),
        ("port = 1", "license-server.toml:1: ", "port"),
        ("[", "license-server.toml:1: ", ""),
    ] {
        fs::write(server.path("license-server.toml"), text).unwrap();
        for command in [&["serve"][..], &["config", "show"], &["check"], &[]] {
            let (status, message) = refused(&server, command);
            assert_eq!(status, Some(2), "{message}");
            assert!(
                message.contains(position) && message.contains(expected),
                "{text}: {message}"
            );
        }
    }
    assert!(
        !server.path("data").exists(),
        "nothing is created before the settings are checked"
    );
    fs::rename(
        server.path("license-server.toml"),
        server.path("other.toml"),
    )
    .unwrap();
    let (status, message) = refused(&server, &["--config", "other.toml", "serve"]);
    assert!(
        status == Some(2) && message.contains("other.toml:1: "),
        "{message}"
    );
}

#[test]
fn the_environment_overrides_the_file_and_obeys_the_same_rules() {
    let mut server = Server::prepare(&[("SESSIONS__HISTORY_DAYS", "7"), ("LOG__FORMAT", "json")]);
    // The port in the file cannot be used, so the one of the environment must win.
    let text = "[server]\nport = 1\n[sessions]\nhistory_days = 0\n[log]\nformat = \"text\"\n";
    fs::write(server.path("license-server.toml"), text).unwrap();
    server.run();
    assert!(
        server
            .client()
            .get("/api/license/version?version=1.0.0")
            .status
            == 200
    );
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let log = server.log();
    assert!(log.lines().count() > 0);
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["time"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
    for (key, value, expected) in [
        ("SERVER__PROT", "1", "LICENSE_SERVER_SERVER__PROT"),
        ("NOTHING__AT_ALL", "1", "NOTHING"),
        ("SERVER__PORT", "x", "LICENSE_SERVER_SERVER__PORT"),
        ("SESSIONS__HISTORY_DAYS", "0", "1..36500"),
        ("PRIVACY__AUDIT_DAYS", "36501", "0..36500"),
        ("PRIVACY__UNSEEN_DEVICE_DAYS", "x", "UNSEEN_DEVICE_DAYS"),
        ("PRIVACY__REFUSAL_DAYS", "0", "1..365"),
        ("TLS__MODE", "magic", "LICENSE_SERVER_TLS__MODE"),
    ] {
        let other = Server::prepare(&[(key, value)]);
        let (status, message) = refused(&other, &["serve"]);
        assert!(
            status == Some(2) && message.contains(expected),
            "{key}: {message}"
        );
    }
}

#[test]
fn the_shipped_settings_file_works_unchanged() {
    let mut server = Server::prepare(&[]);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/license-server.toml");
    fs::copy(shipped, server.path("license-server.toml")).unwrap();
    server.run();
    assert!(responds(&server));
}

#[test]
fn a_second_server_on_the_same_database_is_refused_and_names_the_process() {
    let mut server = Server::start();
    let (status, message) = refused(&server, &["serve"]);
    assert_eq!(status, Some(1));
    assert!(
        message.contains(&format!("process {})", server.pid())),
        "{message}"
    );
    assert!(responds(&server));
    // After a kill it may start: the lock ends with the process.
    server.kill();
    server.run();
    assert!(responds(&server));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let server = Server::start();
    let port = server.port().to_string();
    let other = Server::prepare(&[("SERVER__PORT", &port)]);
    let output = other.cli(&["serve"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains(&port) && message.contains("[server] port"),
        "{message}"
    );
}

#[test]
fn it_runs_in_an_empty_folder_and_prints_where_it_listens() {
    let server = Server::prepare(&[]);
    // The folder is empty: everything that the server needs is in the executable.
    let mut child = server
        .command(&["--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("its port", || {
        std::net::TcpStream::connect(("127.0.0.1", server.port())).is_ok()
    });
    let status = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status();
    assert!(status.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let message: Value = serde_json::from_reader(child.stdout.take().unwrap()).unwrap();
    assert_eq!(
        message["url"],
        format!("https://127.0.0.1:{}", server.port())
    );
    assert!(server.path(message["ca"].as_str().unwrap()).exists());
}
