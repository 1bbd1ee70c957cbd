//! Whether clients on other machines can reach the server with its settings, as reported at start-up and by `check`.

use std::process::Stdio;

use serde_json::Value;

use crate::support::{Server, eventually};
use crate::wire;

/// The result of `check` for `name`: whether it is fine, and the text.
fn check_result(server: &Server, name: &str) -> (bool, String) {
    let output = server.cli(&["--json", "check"]).stdout;
    let output: Value = serde_json::from_slice(&output).unwrap();
    let checks = output["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    let detail = check["detail"].as_str().unwrap().to_owned();
    (check["ok"].as_bool().unwrap(), detail)
}

/// What the server prints to standard output when it starts.
fn start_output(server: &Server) -> String {
    let log = std::fs::File::create(server.path("server.log")).unwrap();
    let child = server
        .command(&["serve"])
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    eventually("the server", || {
        std::net::TcpStream::connect(("127.0.0.1", server.port())).is_ok()
    });
    let pid = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .arg(pid)
            .status()
            .unwrap()
            .success()
    );
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn the_first_start_warns_if_clients_cannot_connect_and_explains_the_set_up_link() {
    let everywhere = ("SERVER__ADDRESS", "0.0.0.0");
    let public = ("SERVER__PUBLIC_URL", "https://licenses.example.org");
    let local = ("SERVER__PUBLIC_URL", "https://localhost:8443");
    for (settings, obstacle, note) in [
        (&[][..], "", "ssh -L "),
        (
            &[everywhere],
            "clients on other machines cannot reach it by a name",
            "replace localhost with",
        ),
        (&[everywhere, public], "", ""),
        (&[public], "listens on 127.0.0.1 only", ""),
        (
            &[everywhere, local],
            "on every machine means that machine itself",
            "replace localhost with",
        ),
        (&[local], "", "ssh -L "),
    ] {
        let server = Server::prepare(settings);
        let output = start_output(&server);
        let log = server.log();
        assert!(output.contains("/lizenzserver/setup?token="), "{output}");
        assert!(output.contains(note), "{settings:?} {output}");
        assert_eq!(
            output.contains("another computer"),
            !note.is_empty(),
            "{output}"
        );
        let warnings = log.lines().filter(|line| line.contains(" WARN ")).count();
        assert_eq!(
            warnings,
            usize::from(!obstacle.is_empty()),
            "{settings:?} {log}"
        );
        assert!(log.contains(obstacle), "{settings:?} {log}");
        let (is_fine, line) = check_result(&server, "address");
        assert_eq!(is_fine, obstacle.is_empty(), "{line}");
        assert!(line.contains(obstacle), "{line}");
    }
}

#[test]
fn check_names_a_proxy_that_is_not_configured_correctly() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    // Observations of proxies are stored at once, not with the next sweep.
    let no_sweep = ("SESSIONS__CLEANUP_INTERVAL", "3600");
    for (settings, header, is_fine, expected) in [
        (&[no_sweep][..], "", true, "no proxy is trusted"),
        (
            &[no_sweep],
            "x-forwarded-for: 203.0.113.9\r\n",
            false,
            "a proxy at 127.0.0.1 that is not trusted",
        ),
        (
            &[no_sweep, trusting],
            "x-forwarded-for: 203.0.113.9\r\n",
            true,
            "trusted: 127.0.0.0/8",
        ),
        (
            &[no_sweep, trusting],
            "",
            false,
            "the trusted proxy 127.0.0.1 that name no client",
        ),
        (
            &[no_sweep, trusting],
            "x-forwarded-for: unknown\r\n",
            false,
            "X-Forwarded-For",
        ),
        (
            &[no_sweep, trusting],
            "x-forwarded-for: 203.0.113.9\r\nforwarded: for=192.0.2.1\r\n",
            false,
            "remove Forwarded",
        ),
    ] {
        let mut server = Server::prepare(settings);
        server.run();
        assert!(check_result(&server, "proxies").0);
        let request = wire::get(&server, "/versions.json", header);
        assert!(wire::exchange(&mut wire::tls(&server), &request).is_some());
        eventually(expected, || {
            let (ok, detail) = check_result(&server, "proxies");
            ok == is_fine && detail.contains(expected)
        });
        server.restart();
        assert!(
            check_result(&server, "proxies").0,
            "a restart clears the observation"
        );
    }
}
