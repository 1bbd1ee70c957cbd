//! Continuous replication beside the server, as the README has it: both die, and the replica brings back what was
//! acknowledged up to its last sync.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::book::{Book, is_sound};
use crate::load::{Request, Worker, under_load};
use crate::support::{Server, eventually};
use crate::{pass, skipped};

/// Ends with the test.
struct Replication(Child);

impl Drop for Replication {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Where the program is, if it is on this machine.
fn litestream() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/py/bin/litestream");
    let there = |program: &PathBuf| Command::new(program).arg("version").output().is_ok();
    let found = [own, "litestream".into()].into_iter().find(there);
    if found.is_none() {
        skipped("litestream");
    }
    found
}

/// How much is in a file that anybody acknowledged; none, where it cannot be read yet.
fn deeds(path: &Path) -> Option<(u32, u32, u32)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = Connection::open_with_flags(path, flags).ok()?;
    let sql = "select (select count(*) from licenses), (select count(*) from active_sessions), \
               (select count(*) from session_history)";
    conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .ok()
}

#[test]
fn a_replica_by_litestream_brings_back_what_was_acknowledged_until_its_last_sync() {
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
    let back = server.path("back.sqlite3");
    let restore = || {
        let mut restore = Command::new(&litestream);
        let restore = restore.args(["restore", "-force", "-o"]).arg(&back);
        let output = restore.arg(&replica).output().unwrap();
        output.status.success()
    };
    let keys = server.licenses(3, 40);
    let mut book = Book::new(&keys);
    let mut workers: Vec<Worker> = (0..2).map(Worker::new).collect();
    for _ in 0..2 {
        let (requests, ()) = under_load(&mut server, &mut workers, &keys, |server| {
            pass(Duration::from_millis(700));
            // Much at once: our own checkpoints come by.
            server.licenses(1, 3000);
        });
        assert!(requests.iter().all(|request| !request.open()));
        book.note(&requests, Instant::now());
        // Whoever has the file open keeps a stop from tidying up, and from nothing else.
        let began = Instant::now();
        server.restart();
        eprintln!("a restart takes {:?}", began.elapsed());
    }
    let all = deeds(&server.database());
    eventually("the replica has it all", || {
        restore() && deeds(&back) == all
    });
    server.kill();
    drop(running);
    let open: [Request; 0] = [];
    assert!(restore() && is_sound(&back));
    // A new machine: nothing but the file that the replica gave back, and new keys for the lost ones.
    let mut next = Server::prepare(&[]);
    std::fs::create_dir(next.path("data")).unwrap();
    std::fs::copy(&back, next.database()).unwrap();
    next.json(&["config", "rotate-signing-key", "--lost"]);
    let checked = next.cli(&["check"]);
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(
        told.contains("ok    schema"),
        "its own tables are no foreign ones: {told}"
    );
    next.json(&["config", "new-authority"]);
    next.run();
    book.audit(&next.database(), &open);
    for worker in &mut workers {
        book.teach(worker);
    }
    crate::kill::everybody_lives_on(&next, &book, &keys);
    eprintln!("{all:?} licenses, sessions and ends came back");
}
