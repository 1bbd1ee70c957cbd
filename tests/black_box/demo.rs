//! The product explains itself: two programs, one license, ten seconds.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::Server;

#[test]
fn the_demo_tells_its_story_and_leaves_nothing_behind() {
    let place = Server::prepare(&[]);
    let mut demo = place
        .command(&["demo"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let story: Vec<String> = lines
        .by_ref()
        .map(|line| line.unwrap())
        .take_while(|line| !line.starts_with("Now you."))
        .collect();
    let told = |word: &str| story.iter().filter(|line| line.contains(word)).count();
    assert_eq!(told("409  session_active"), 2, "{story:#?}");
    assert_eq!(told("410  session_ended (timeout)"), 1, "{story:#?}");
    assert_eq!(told("session/start      201"), 3, "{story:#?}");
    let folder = story[0].split(" is in ").nth(1).unwrap();
    let folder = folder.split(' ').next().unwrap();
    assert!(std::path::Path::new(folder).exists(), "{folder}");
    let pid = demo.id().to_string();
    let stopped = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(stopped.unwrap().success());
    lines.for_each(|line| drop(line.unwrap()));
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    assert!(!std::path::Path::new(folder).exists(), "{folder} is left");
}
