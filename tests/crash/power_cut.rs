//! Repeated power cuts under load (D1): the disk keeps only what was synced.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::ack_log::{AckLog, is_sound};
use crate::disk::Disk;
use crate::kill::{assert_sessions_continue, repeat_unanswered_starts};
use crate::load::{Request, Worker, under_load};
use crate::support::{Server, files_below, rounds};
use crate::{random_up_to, wait_for};

const LICENSES: u32 = 40;
const WORKERS: usize = 4;
const DEVICE_LIMIT: u32 = 3;
const LONGEST: Duration = Duration::from_millis(2500);

#[test]
fn acknowledged_changes_survive_a_power_cut_and_nothing_else_appears() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    server.run();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.issue_licenses(DEVICE_LIMIT, LICENSES);
    let mut ack_log = AckLog::new(&keys);
    let mut workers: Vec<Worker> = (0..WORKERS).map(Worker::new).collect();
    for worker in &mut workers {
        worker.disk_may_fail = true;
    }
    let (mut asked, mut unresolved_count, mut done_unanswered) = (0, 0, 0);
    for _ in 0..rounds(3) {
        let (mut requests, (cut_from, cut_until)) =
            under_load(&mut server, &mut workers, &keys, |server| {
                let power = disk.power_switch();
                wait_for(random_up_to(LONGEST));
                let cut_from = Instant::now();
                power.cut();
                let cut_until = Instant::now();
                // The process does not notice: whatever it acknowledges now must be on the disk as well.
                wait_for(random_up_to(Duration::from_millis(100)));
                server.kill();
                (cut_from, cut_until)
            });
        // If the journal is aborted during a sync, the kernel may report that sync as successful. A machine
        // without power would not have sent these responses.
        for request in &mut requests {
            let response = request.response.as_ref();
            if request.sent < cut_until && response.is_some_and(|response| response.at >= cut_from)
            {
                request.response = None;
            }
        }
        let unresolved: Vec<Request> = requests
            .iter()
            .filter(|r| r.unresolved())
            .cloned()
            .collect();
        asked += requests.len();
        unresolved_count += unresolved.len();
        ack_log.note(&requests, cut_from);
        disk.restore_power();
        server.run();
        done_unanswered += ack_log.compare(&server.database(), &unresolved);
        repeat_unanswered_starts(&server, &mut ack_log, &keys, &unresolved);
        for worker in &mut workers {
            ack_log.update_worker(worker);
        }
        assert_sessions_continue(&server, &ack_log, &keys);
        assert!(is_sound(&server.database()));
    }
    ack_log.assert_no_overlap();
    assert_eq!(server.stop(), Some(0));
    ack_log.compare(&server.database(), &[]);
    eprintln!(
        "{asked} requests, {} sessions; {unresolved_count} requests were unresolved, of which {done_unanswered} had \
         started a session",
        ack_log.count()
    );
}

/// Clients trust the authority, and sites the signing key, from the first start on: new ones would lock them out.
#[test]
fn the_keys_of_a_first_start_survive_a_power_cut() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    let power = disk.power_switch();
    server.run();
    let original = keys(&server);
    assert!(original.len() > 2, "{original:?}");
    power.cut();
    server.kill();
    disk.restore_power();
    server.run();
    assert!(keys(&server) == original, "the keys have changed");
    let key = server.issue_license(1);
    server.client().session(&key, "laptop");
}

/// All files of keys and certificates.
fn keys(server: &Server) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = ["data/tls", "data/signing"].map(|folder| files_below(&server.path(folder)));
    let files = folders.into_iter().flatten().filter(|path| path.is_file());
    files
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}
