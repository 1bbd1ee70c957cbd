//! Settings: where they come from, what is refused, and who else is on the file or the port.

use std::fs;

use serde_json::Value;

use crate::scene::answers;
use crate::support::{Server, eventually};

/// The exit status of `serve` where it should not start, and the one line that it says.
fn refused(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = server.cli(arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    (output.status.code(), told)
}

#[test]
fn wrong_settings_stop_the_start_with_file_line_and_reason() {
    let server = Server::prepare(&[]);
    for (text, place, reason) in [
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
            let (status, told) = refused(&server, command);
            assert_eq!(status, Some(2), "{told}");
            assert!(
                told.contains(place) && told.contains(reason),
                "{text}: {told}"
            );
        }
    }
    assert!(
        !server.path("data").exists(),
        "refused before anything is made"
    );
    fs::rename(
        server.path("license-server.toml"),
        server.path("other.toml"),
    )
    .unwrap();
    let (status, told) = refused(&server, &["--config", "other.toml", "serve"]);
    assert!(
        status == Some(2) && told.contains("other.toml:1: "),
        "{told}"
    );
}

#[test]
fn the_environment_overrides_the_file_and_is_held_to_the_same_rules() {
    let mut server = Server::prepare(&[("SESSIONS__HISTORY_DAYS", "7"), ("LOG__FORMAT", "json")]);
    // The port of the file is taken: the environment's must win.
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
    for (key, value, reason) in [
        ("SERVER__PROT", "1", "LICENSE_SERVER_SERVER__PROT"),
        ("NOTHING__AT_ALL", "1", "NOTHING"),
        ("SERVER__PORT", "x", "LICENSE_SERVER_SERVER__PORT"),
        ("SESSIONS__HISTORY_DAYS", "0", "1..36500"),
        ("TLS__MODE", "magic", "LICENSE_SERVER_TLS__MODE"),
    ] {
        let other = Server::prepare(&[(key, value)]);
        let (status, told) = refused(&other, &["serve"]);
        assert!(status == Some(2) && told.contains(reason), "{key}: {told}");
    }
}

#[test]
fn the_shipped_file_is_taken_as_it_is() {
    let mut server = Server::prepare(&[]);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/license-server.toml");
    fs::copy(shipped, server.path("license-server.toml")).unwrap();
    server.run();
    assert!(answers(&server));
}

#[test]
fn a_second_server_on_the_file_is_refused_and_told_who_has_it() {
    let mut server = Server::start();
    let (status, told) = refused(&server, &["serve"]);
    assert_eq!(status, Some(1));
    assert!(
        told.contains(&format!("process {})", server.pid())),
        "{told}"
    );
    assert!(answers(&server));
    // Not one that was killed: its lock went with it.
    server.kill();
    server.run();
    assert!(answers(&server));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let server = Server::start();
    let port = server.port().to_string();
    let other = Server::prepare(&[("SERVER__PORT", &port)]);
    let output = other.cli(&["serve"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains(&port) && told.contains("[server] port"),
        "{told}"
    );
}

#[test]
fn it_runs_from_any_folder_and_says_where_it_listens() {
    let server = Server::prepare(&[]);
    // Nothing but the executable is there: what ships is in it.
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
    let told: Value = serde_json::from_reader(child.stdout.take().unwrap()).unwrap();
    assert_eq!(told["url"], format!("https://127.0.0.1:{}", server.port()));
    assert!(server.path(told["ca"].as_str().unwrap()).exists());
}
