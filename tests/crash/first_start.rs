//! `kill -9` while the server makes its file, its schema and its certificates for the first time (D5).

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Server, claim, rounds};
use crate::{pass, up_to};

#[test]
fn a_first_start_that_is_killed_at_any_moment_is_followed_by_one_that_succeeds() {
    let began = Instant::now();
    let mut whole = Server::start();
    let usual = began.elapsed().max(Duration::from_millis(50));
    assert_eq!(whole.stop(), Some(0));
    let mut unborn = 0;
    for round in 0..rounds(12) {
        let mut server = Server::prepare(&[]);
        // One life after another ends early; the last one must not have suffered from any.
        for _ in 0..=round % 3 {
            let mut command = server.command(&["serve"]);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            pass(up_to(usual));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        unborn += u32::from(!server.database().exists());
        server.run();
        if round % 5 == 0 {
            let key = server.license(1);
            let answer = server.call("activate", &claim(&key, "laptop"));
            assert_eq!(answer.status, 201, "{answer:?}");
            assert!(crate::book::is_sound(&server.database()));
        }
    }
    eprintln!("a start takes {usual:?}; {unborn} rounds had no database before the last one");
}

/// The moment between the two files of the authority, which the test above meets only now and then.
#[test]
fn an_authority_whose_certificate_was_not_written_any_more_is_completed() {
    let mut server = Server::start();
    let client = server.client();
    assert_eq!(server.stop(), Some(0));
    std::fs::remove_file(server.path("data/tls/ca.pem")).unwrap();
    server.run();
    // The key is the same, and so is the name: who trusted it before still does.
    let answer = client.get("/api/license/version?version=1.0.0");
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = server.client().get("/api/license/version?version=1.0.0");
    assert_eq!(answer.status, 200, "{answer:?}");
}
