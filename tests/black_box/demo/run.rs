//! `license-server demo`: two programs, one license, ten seconds.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::server::signals::send;
use crate::support::{Server, eventually};
use crate::timing::retry_while_too_slow;

/// The first lines of a demo in a German shell.
fn first_german_lines() -> String {
    let server = Server::prepare(&[]);
    let mut demo = server
        .command(&["demo"])
        .env_remove("LC_ALL")
        .env_remove("LC_MESSAGES")
        .env("LANG", "de_DE.UTF-8")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let lines = lines.map(|line| line.unwrap() + "\n");
    let mut first = String::new();
    for line in lines {
        first += &line;
        // The first refusal.
        if line.contains("409") {
            break;
        }
    }
    send(&demo, "INT");
    demo.wait().unwrap();
    first
}

#[test]
fn the_demo_speaks_the_language_of_the_shell() {
    let said = first_german_lines();
    for words in [
        "Ein Lizenzserver mit Beispieldaten",
        "beendete Sitzungen",
        "Es ist nur eine Sitzung",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

#[test]
fn the_demo_runs_its_script_and_leaves_nothing_behind() {
    // Its sessions time out after seconds.
    retry_while_too_slow(|| {
        play_demo();
        Some(())
    });
}

fn play_demo() {
    let server = Server::prepare(&[]);
    let mut demo = server
        .command(&["demo"])
        .env("LC_ALL", "en_GB.UTF-8")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let script: Vec<String> = lines
        .by_ref()
        .map(|line| line.unwrap())
        .take_while(|line| !line.starts_with("Now you."))
        .collect();
    let count = |text: &str| script.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("409  session_active"), 2, "{script:#?}");
    assert_eq!(count("410  session_ended (timeout)"), 1, "{script:#?}");
    assert_eq!(count("session/start      201"), 3, "{script:#?}");
    let folder = script[0].split(" is in ").nth(1).unwrap();
    let folder = folder.split(' ').next().unwrap();
    assert!(std::path::Path::new(folder).exists(), "{folder}");
    send(&demo, "INT");
    lines.for_each(|line| drop(line.unwrap()));
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    assert!(!std::path::Path::new(folder).exists(), "{folder} is left");
}

#[test]
fn a_demo_that_is_stopped_before_it_serves_leaves_nothing_behind() {
    for signal in ["TERM", "INT"] {
        let server = Server::prepare(&[]);
        let temporary = server.path("temporary");
        std::fs::create_dir(&temporary).unwrap();
        let count = || std::fs::read_dir(&temporary).unwrap().count();
        let mut demo = server
            .command(&["demo"])
            .env("TMPDIR", &temporary)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the folder of the demo", || count() > 0);
        send(&demo, signal);
        assert_eq!(demo.wait().unwrap().code(), Some(0), "{signal}");
        assert_eq!(count(), 0, "{signal}");
    }
}
