//! `license-server demo`: two programs, one license, ten seconds.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::Server;

#[test]
fn the_demo_runs_its_script_and_leaves_nothing_behind() {
    let server = Server::prepare(&[]);
    let mut demo = server
        .command(&["demo"])
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
    let pid = demo.id().to_string();
    let stopped = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(stopped.unwrap().success());
    lines.for_each(|line| drop(line.unwrap()));
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    assert!(!std::path::Path::new(folder).exists(), "{folder} is left");
}
