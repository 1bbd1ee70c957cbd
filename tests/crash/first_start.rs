//! `kill -9` while the server creates its database, its schema and its certificates for the first time (D5).

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Server, identity, rounds};
use crate::{random_up_to, wait_for};

#[test]
fn a_first_start_that_is_killed_at_any_moment_is_followed_by_one_that_succeeds() {
    let began = Instant::now();
    let mut undisturbed = Server::start();
    let usual = began.elapsed().max(Duration::from_millis(50));
    assert_eq!(undisturbed.stop(), Some(0));
    let mut without_database = 0;
    for round in 0..rounds(12) {
        let mut server = Server::prepare(&[]);
        // Several starts are killed; the last one must not be affected by them.
        for _ in 0..=round % 3 {
            let mut command = server.command(&["serve"]);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            wait_for(random_up_to(usual));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        without_database += u32::from(!server.database().exists());
        server.run();
        if round % 5 == 0 {
            let key = server.issue_license(1);
            let answer = server.call("activate", &identity(&key, "laptop"));
            assert_eq!(answer.status, 201, "{answer:?}");
            assert!(crate::ack_log::is_sound(&server.database()));
        }
    }
    eprintln!(
        "a start takes {usual:?}; {without_database} rounds had no database before the last one"
    );
}

/// The moment between writing the two files of the authority, which the test above hits only rarely.
#[test]
fn an_authority_without_its_certificate_is_completed() {
    let mut server = Server::start();
    let client = server.client();
    assert_eq!(server.stop(), Some(0));
    std::fs::remove_file(server.path("data/tls/ca.pem")).unwrap();
    server.run();
    // Key and name are the same, so that clients that trusted it still do.
    let answer = client.get("/api/license/version?version=1.0.0");
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = server.client().get("/api/license/version?version=1.0.0");
    assert_eq!(answer.status, 200, "{answer:?}");
}
