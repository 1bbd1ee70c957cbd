//! `vacuum` beside a running server and another program that reads the database.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::database::OtherProgram;
use crate::setup::{MANY_STARTS, NO_LIMIT, started};
use crate::support::{heartbeat_body, identity, stalls};

/// Longer than a request waits for a write, several times.
const READING: Duration = Duration::from_secs(7);

#[test]
fn a_vacuum_waits_for_another_program_that_reads_and_no_start_is_refused_meanwhile() {
    let server = started(&[MANY_STARTS], &[NO_LIMIT]);
    let key = server.issue_license(1);
    let client = server.client();
    let activated = client.call("activate", &identity(&key, "laptop"));
    assert_eq!(activated.status, 201, "{activated:?}");
    let reader = OtherProgram::read(&server);
    let mut vacuum = server
        .command(&["--json", "vacuum"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (began, mut starts) = (Instant::now(), 0);
    while stalls::awake_since(began) < READING {
        let started = client.call("session/start", &identity(&key, "laptop"));
        assert_eq!(started.status, 201, "{started:?}");
        let body = heartbeat_body(&key, &started.token());
        let ended = client.call("session/end", &body);
        assert_eq!(ended.status, 200, "{ended:?}");
        starts += 1;
    }
    assert!(starts > 10, "{starts}");
    assert!(
        vacuum.try_wait().unwrap().is_none(),
        "the vacuum did not wait"
    );
    reader.release();
    let output = vacuum.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!server.log().contains("are refused"), "{}", server.log());
}
