//! Continuous replication beside the server, as described in the manual: both are killed, and the replica restores
//! what was acknowledged up to its last sync.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::ack_log::{AckLog, is_sound};
use crate::load::{Request, Worker, under_load};
use crate::support::{Server, eventually, files_below};
use crate::{skipped, wait_for};

/// The replication process; killed at the end of the test.
pub(crate) struct Replication(Child);

impl Drop for Replication {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The path of the program, if it is installed.
pub(crate) fn litestream() -> Option<PathBuf> {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/py/bin/litestream");
    let works = |program: &PathBuf| Command::new(program).arg("version").output().is_ok();
    let found = [bundled, "litestream".into()].into_iter().find(works);
    if found.is_none() {
        skipped("litestream");
    }
    found
}

/// Starts the replication of the server's database to `replica`.
pub(crate) fn replicate(litestream: &Path, server: &Server, replica: &str) -> Replication {
    let mut replicate = Command::new(litestream);
    let replicate = replicate.arg("replicate").arg(server.database());
    let replicate = replicate.arg(replica).stdout(Stdio::null());
    Replication(replicate.stderr(Stdio::null()).spawn().unwrap())
}

/// Starts to follow the replica into the file `to`.
pub(crate) fn follow(litestream: &Path, replica: &str, to: &Path) -> Replication {
    let mut follow = Command::new(litestream);
    let follow = follow.args(["restore", "-f", "-o"]).arg(to).arg(replica);
    let follow = follow.stdout(Stdio::null()).stderr(Stdio::null());
    Replication(follow.spawn().unwrap())
}

impl Replication {
    /// Ends it with SIGTERM, and waits.
    pub(crate) fn stop(mut self) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.unwrap().success());
        self.0.wait().unwrap();
    }
}

/// Restores the replica as the file `to`; whether that was possible.
fn restore(litestream: &Path, replica: &str, to: &Path) -> bool {
    let mut restore = Command::new(litestream);
    let restore = restore.args(["restore", "-force", "-o"]).arg(to);
    restore.arg(replica).output().unwrap().status.success()
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
    let running = replicate(&litestream, &server, &replica);
    let restored = server.path("back.sqlite3");
    let restore = || restore(&litestream, &replica, &restored);
    let keys = server.issue_licenses(3, 40);
    let mut ack_log = AckLog::new(&keys);
    let mut workers: Vec<Worker> = (0..2).map(Worker::new).collect();
    for _ in 0..2 {
        let (requests, ()) = under_load(&mut server, &mut workers, &keys, |server| {
            wait_for(Duration::from_millis(700));
            // A large write, so that the server makes checkpoints.
            server.issue_licenses(1, 3000);
        });
        // On a slow machine a start may wait too long for that write; then it has no session, which is compared below.
        let answered = |request: &Request| !request.unresolved() || request.refused_for_now();
        assert!(requests.iter().all(answered));
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

#[test]
fn what_was_erased_is_neither_in_the_data_folder_nor_in_what_litestream_copies_from_then_on() {
    const NAME: &str = "Quendoline Zzyzx";
    let Some(litestream) = litestream() else {
        return;
    };
    let server = Server::start();
    server.json(&["customer", "add", NAME]);
    let replica = format!("file://{}", server.path("replica").display());
    let own_copy = server.path("data/.license-server.sqlite3-litestream");
    let running = replicate(&litestream, &server, &replica);
    eventually("the replica is begun", || {
        !files_with(&own_copy, NAME).is_empty()
            && restore(&litestream, &replica, &server.path("begun.sqlite3"))
    });
    let erased = server.json(&["customer", "erase", "1", "--yes"]);
    let copies = erased["copies"].as_array().unwrap();
    let own = "data/.license-server.sqlite3-litestream";
    assert!(
        copies
            .iter()
            .any(|copy| copy.as_str().unwrap().ends_with(own)),
        "{erased}"
    );
    // As in the manual.
    drop(running);
    server.json(&["vacuum"]);
    std::fs::remove_dir_all(&own_copy).unwrap();
    // From the old replica it would fetch again what it has no file of.
    let replica = format!("file://{}", server.path("new-replica").display());
    let _running = replicate(&litestream, &server, &replica);
    server.json(&["customer", "add", "Bob"]);
    let restored = server.path("back.sqlite3");
    eventually("the replica has what followed", || {
        let now = |path: &Path| {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
            let conn = Connection::open_with_flags(path, flags).ok()?;
            let sql = "select group_concat(name) from customers";
            conn.query_row(sql, [], |row| row.get::<_, String>(0)).ok()
        };
        restore(&litestream, &replica, &restored)
            && now(&restored).as_deref() == Some("erased customer 1,Bob")
    });
    let held = files_with(&server.path("data"), NAME);
    assert_eq!(held, Vec::<PathBuf>::new());
    assert_eq!(files_with(&restored, NAME), Vec::<PathBuf>::new());
}

/// The files below `folder`, or this file, that contain `name`.
fn files_with(folder: &Path, name: &str) -> Vec<PathBuf> {
    let files = if folder.is_dir() {
        files_below(folder)
    } else {
        vec![folder.to_owned()]
    };
    let files = files.into_iter().filter(|file| {
        let bytes = std::fs::read(file).unwrap_or_default();
        bytes
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    });
    files.collect()
}
