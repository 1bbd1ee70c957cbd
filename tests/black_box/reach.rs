//! Whether clients elsewhere can reach the server as it is set up, and what the start and `check` say of it.

use std::process::Stdio;

use serde_json::Value;

use crate::support::{Server, eventually};
use crate::wire;

/// The line of `check` about `name`.
fn checked(server: &Server, name: &str) -> (bool, String) {
    let printed = server.cli(&["--json", "check"]).stdout;
    let printed: Value = serde_json::from_slice(&printed).unwrap();
    let all = printed["checks"].as_array().unwrap();
    let found = all.iter().find(|check| check["name"] == name).unwrap();
    let told = found["detail"].as_str().unwrap().to_owned();
    (found["ok"].as_bool().unwrap(), told)
}

/// What the start prints.
fn printed(server: &Server) -> String {
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
fn a_first_start_says_what_keeps_clients_away_and_where_the_link_leads() {
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
        let said = printed(&server);
        let log = server.log();
        assert!(said.contains("/lizenzserver/setup?token="), "{said}");
        assert!(said.contains(note), "{settings:?} {said}");
        assert_eq!(
            said.contains("another computer"),
            !note.is_empty(),
            "{said}"
        );
        let told = log.lines().filter(|line| line.contains(" WARN ")).count();
        assert_eq!(
            told,
            usize::from(!obstacle.is_empty()),
            "{settings:?} {log}"
        );
        assert!(log.contains(obstacle), "{settings:?} {log}");
        let (fine, line) = checked(&server, "address");
        assert_eq!(fine, obstacle.is_empty(), "{line}");
        assert!(line.contains(obstacle), "{line}");
    }
}

#[test]
fn the_check_says_which_proxy_does_not_do_its_part() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    // What was seen is noted by itself, not by the next sweep.
    let calm = ("SESSIONS__CLEANUP_INTERVAL", "3600");
    for (settings, header, fine, word) in [
        (&[calm][..], "", true, "no proxy is trusted"),
        (
            &[calm],
            "x-forwarded-for: 203.0.113.9\r\n",
            false,
            "a proxy at 127.0.0.1 that is not trusted",
        ),
        (
            &[calm, trusting],
            "x-forwarded-for: 203.0.113.9\r\n",
            true,
            "trusted: 127.0.0.0/8",
        ),
        (
            &[calm, trusting],
            "",
            false,
            "the trusted proxy 127.0.0.1 that name no client",
        ),
        (
            &[calm, trusting],
            "x-forwarded-for: unknown\r\n",
            false,
            "X-Forwarded-For",
        ),
        (
            &[calm, trusting],
            "x-forwarded-for: 203.0.113.9\r\nforwarded: for=192.0.2.1\r\n",
            false,
            "remove Forwarded",
        ),
    ] {
        let mut server = Server::prepare(settings);
        server.run();
        assert!(checked(&server, "proxies").0);
        let request = wire::get(&server, "/versions.json", header);
        assert!(wire::ask(&mut wire::tls(&server), &request).is_some());
        eventually(word, || {
            let (ok, told) = checked(&server, "proxies");
            ok == fine && told.contains(word)
        });
        server.restart();
        assert!(
            checked(&server, "proxies").0,
            "it is mended until it is seen again"
        );
    }
}
