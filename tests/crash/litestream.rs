//! Continuous replication beside the server, as described in the README: both are killed, and the replica restores
//! what was acknowledged up to its last sync.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::ack_log::{AckLog, is_sound};
use crate::load::{Request, Worker, under_load};
use crate::support::{Server, eventually};
use crate::{skipped, wait_for};

/// The replication process; killed at the end of the test.
struct Replication(Child);

impl Drop for Replication {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The path of the program, if it is installed.
fn litestream() -> Option<PathBuf> {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/py/bin/litestream");
    let works = |program: &PathBuf| Command::new(program).arg("version").output().is_ok();
    let found = [bundled, "litestream".into()].into_iter().find(works);
    if found.is_none() {
        skipped("litestream");
    }
    found
}

/// The numbers of licenses, active sessions and ended sessions; `None` if the file cannot be read yet.
fn counts(path: &Path) -> Option<(u32, u32, u32)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = Connection::open_with_flags(path, flags).ok()?;
    let sql = "select (select count(*) from licenses), (select count(*) from active_sessions), \
               (select count(*) from session_history)";
    conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .ok()
}

#[test]
fn a_litestream_replica_restores_what_was_acknowledged_until_its_last_sync() {
    let Some(litestream) = litestream() else {
        return;
    };
    let mut server = Server::start();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let replica = format!("file://{}", server.path("replica").display());
    let mut replicate = Command::new(&litestream);
    let replicate = replicate.arg("replicate").arg(server.database());
    let replicate = replicate.arg(&replica).stdout(Stdio::null());
    let running = Replication(replicate.stderr(Stdio::null()).spawn().unwrap());
    let restored = server.path("back.sqlite3");
    let restore = || {
        let mut restore = Command::new(&litestream);
        let restore = restore.args(["restore", "-force", "-o"]).arg(&restored);
        let output = restore.arg(&replica).output().unwrap();
        output.status.success()
    };
    let keys = server.issue_licenses(3, 40);
    let mut ack_log = AckLog::new(&keys);
    let mut workers: Vec<Worker> = (0..2).map(Worker::new).collect();
    for _ in 0..2 {
        let (requests, ()) = under_load(&mut server, &mut workers, &keys, |server| {
            wait_for(Duration::from_millis(700));
            // A large write, so that the server makes checkpoints.
            server.issue_licenses(1, 3000);
        });
        assert!(requests.iter().all(|request| !request.unresolved()));
        ack_log.note(&requests, Instant::now());
        // Another process with the database open keeps a stop from deleting the WAL, and has no other effect.
        let began = Instant::now();
        server.restart();
        eprintln!("a restart takes {:?}", began.elapsed());
    }
    let all = counts(&server.database());
    eventually("the replica is complete", || {
        restore() && counts(&restored) == all
    });
    server.kill();
    drop(running);
    let unresolved: [Request; 0] = [];
    assert!(restore() && is_sound(&restored));
    // A new machine: only the restored database, and new keys for the lost ones.
    let mut next = Server::prepare(&[]);
    std::fs::create_dir(next.path("data")).unwrap();
    std::fs::copy(&restored, next.database()).unwrap();
    next.json(&["config", "rotate-signing-key", "--lost"]);
    let checked = next.cli(&["check"]);
    let report = String::from_utf8(checked.stdout).unwrap();
    assert!(
        report.contains("ok    schema"),
        "its own tables are accepted: {report}"
    );
    next.json(&["config", "new-authority"]);
    next.run();
    ack_log.compare(&next.database(), &unresolved);
    for worker in &mut workers {
        ack_log.update_worker(worker);
    }
    crate::kill::assert_sessions_continue(&next, &ack_log, &keys);
    eprintln!("{all:?} licenses, sessions and ended sessions were restored");
}
