//! A disk that takes every byte and does not keep all of them (D2). Linux reports that once, at a sync, and the
//! pages are gone: the server must notice it there and then, and go on from the WAL in a new process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::book::{Book, is_sound};
use crate::load::{Deed, Request, Worker, under_load};
use crate::support::{Server, beat, claim, eventually, rounds};
use crate::{pass, skipped, up_to};

/// A disk of which a test decides what it keeps.
pub(crate) struct BadDisk {
    folder: PathBuf,
}

impl BadDisk {
    /// Puts itself before the C library of `server`. None without a compiler.
    pub(crate) fn under(server: &mut Server) -> Option<Self> {
        let (library, folder) = (server.path("bad_disk.so"), server.path("bad"));
        std::fs::create_dir(&folder).unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash/bad_disk.c");
        let mut compiler = Command::new("cc");
        let compiler = compiler.args(["-D_GNU_SOURCE", "-shared", "-fPIC", "-o"]);
        match compiler.arg(&library).arg(source).status() {
            Ok(status) => assert!(status.success(), "cc: {status}"),
            Err(error) => {
                skipped(&format!("cc: {error}"));
                return None;
            }
        }
        let preload = format!("LD_PRELOAD={}", library.display());
        let told = format!("BAD_DISK={}", folder.display());
        server.launch_by(&["env", &preload, &told]);
        Some(Self { folder })
    }

    /// From now on it loses what is written to `what`: `database` or `wal`; it refuses
    /// to take anything for the database: `refuse`; it gives nothing of it back: `unreadable`; it knows no second names
    /// of a file: `nolinks`.
    pub(crate) fn fails(&self, what: &str) {
        std::fs::write(self.folder.join(what), "").unwrap();
    }

    pub(crate) fn is_well(&self) {
        for what in std::fs::read_dir(&self.folder).unwrap() {
            std::fs::remove_file(what.unwrap().path()).unwrap();
        }
    }
}

/// The server has ended by itself, and has said why and what to do, once.
fn ended_loudly(server: &mut Server) {
    let said = |server: &Server| server.log().matches("the disk failed to").count();
    let before = said(server);
    assert_eq!(server.wait(), Some(1), "{}", server.log());
    assert!(
        said(server) >= 1 && said(server) <= before + 1,
        "{}",
        server.log()
    );
    assert!(server.log().contains("dmesg"), "{}", server.log());
}

#[test]
fn a_commit_that_the_disk_does_not_confirm_is_no_yes_and_the_next_start_goes_on() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = BadDisk::under(&mut server) else {
        return;
    };
    server.run();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.licenses(3, 40);
    let mut book = Book::new(&keys);
    let mut workers: Vec<Worker> = (0..4).map(Worker::new).collect();
    let (mut asked, mut unclear, mut open_ones) = (0, 0, 0);
    for _ in 0..rounds(3) {
        for worker in &mut workers {
            worker.may_be_dark = true;
        }
        let (requests, (from, end)) = under_load(&mut server, &mut workers, &keys, |server| {
            pass(Duration::from_millis(200) + up_to(Duration::from_millis(300)));
            // What was heard up to now is written within the second, or may be lost with the process.
            let end = Instant::now();
            disk.fails("wal");
            let from = Instant::now();
            ended_loudly(server);
            (from, end)
        });
        disk.is_well();
        for request in requests.iter().filter(|r| r.granted() && r.sent > from) {
            assert_eq!(request.deed, Deed::Beat, "a false yes: {request:?}");
        }
        let open: Vec<Request> = requests.iter().filter(|r| r.open()).cloned().collect();
        asked += requests.len();
        open_ones += open.len();
        book.note(&requests, end);
        server.run();
        unclear += book.audit(&server.database(), &open);
        crate::kill::lost_answers_are_given_again(&server, &mut book, &keys, &open);
        for worker in &mut workers {
            book.teach(worker);
        }
        crate::kill::everybody_lives_on(&server, &book, &keys);
    }
    book.no_two_lived_at_once();
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    book.audit(&server.database(), &[]);
    assert!(is_sound(&server.database()));
    eprintln!("{asked} requests, {open_ones} left open, of which {unclear} had started a session");
}

/// Who reads while the disk fails: as long as somebody does, only a part of the WAL can be copied.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// Another program, such as a replication.
    Foreign,
    /// `license-server backup`, which is stopped in its middle.
    Backup,
}

/// Holds a moment of the database until it goes.
enum Held {
    Foreign(Connection),
    Backup(Child),
}

impl Held {
    fn by(reader: Reader, server: &Server) -> Self {
        match reader {
            Reader::Foreign => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                let conn = Connection::open_with_flags(server.database(), flags).unwrap();
                conn.execute_batch("begin; select count(*) from licenses")
                    .unwrap();
                Self::Foreign(conn)
            }
            Reader::Backup => {
                let copy = server.path("copy.sqlite3");
                drop(std::fs::remove_file(&copy));
                let mut command = server.command(&["backup", copy.to_str().unwrap()]);
                let command = command.stdout(Stdio::null()).stderr(Stdio::null());
                let child = command.spawn().unwrap();
                let part = server.path("copy.sqlite3.part");
                crate::soon("the backup has begun", || part.exists() || copy.exists());
                signal(&child, "STOP");
                Self::Backup(child)
            }
        }
    }

    fn goes(self) {
        match self {
            Self::Foreign(conn) => drop(conn),
            Self::Backup(mut child) => {
                signal(&child, "CONT");
                child.wait().unwrap();
            }
        }
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.unwrap().success());
}

/// Whether the disk is well again before the server can hear of the loss.
#[derive(Clone, Copy, Debug)]
enum End {
    ByItself,
    Stopped,
}

/// Issues licenses until a good part of the WAL waits to be copied, or until nothing is issued any more. Their keys.
fn issue(server: &Server, times: usize) -> Vec<String> {
    let mut keys = Vec::new();
    for _ in 0..times {
        let order = [
            "--json",
            "license",
            "issue",
            "--customer",
            "Ada",
            "--count",
            "1000",
        ];
        let output = server.cli(&order);
        if !output.status.success() {
            break;
        }
        let issued: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let issued = issued["licenses"].as_array().unwrap();
        keys.extend(issued.iter().map(|license| {
            let key = license["license_key"].as_str().unwrap();
            key.replace('-', "")
        }));
    }
    keys
}

/// Every license that was told to be issued is in the file.
fn none_is_lost(server: &Server, keys: &[String]) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = Connection::open_with_flags(server.database(), flags).unwrap();
    let mut known = conn
        .prepare("select count(*) from licenses where license_key = ?1")
        .unwrap();
    for key in keys {
        let count: i64 = known.query_row([key], |row| row.get(0)).unwrap();
        assert_eq!(count, 1, "a license was lost: {key}");
    }
}

#[test]
fn a_disk_error_of_a_moment_while_somebody_reads_loses_nothing() {
    for round in 0..rounds(2) as usize {
        let reader = [Reader::Foreign, Reader::Backup][round % 2];
        let end = [End::ByItself, End::Stopped][(round + round / 2) % 2];
        let mut server = Server::prepare(&[]);
        let Some(disk) = BadDisk::under(&mut server) else {
            return;
        };
        server.run();
        server.json(&["customer", "add", "Ada"]);
        let mut keys = issue(&server, 3);
        let held = Held::by(reader, &server);
        // Enough for a checkpoint, of which a part only can be copied.
        disk.fails("database");
        keys.extend(issue(&server, 6));
        match end {
            End::ByItself => {
                eventually("a checkpoint was tried", || {
                    keys.extend(issue(&server, 1));
                    server.log().contains("the disk failed to")
                });
                ended_loudly(&mut server);
            }
            End::Stopped => {
                server.signal("TERM");
                let status = server.wait();
                assert!(matches!(status, Some(0 | 1)), "{status:?}");
            }
        }
        disk.is_well();
        server.run();
        none_is_lost(&server, &keys);
        held.goes();
        keys.extend(issue(&server, 8));
        none_is_lost(&server, &keys);
        assert_eq!(server.stop(), Some(0), "{}", server.log());
        none_is_lost(&server, &keys);
        assert!(is_sound(&server.database()), "{reader:?} {end:?}");
        eprintln!("{reader:?}, {end:?}: {} licenses, none lost", keys.len());
    }
}

#[test]
fn a_disk_that_refuses_the_databases_blocks_ends_the_server_and_loses_nothing() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = BadDisk::under(&mut server) else {
        return;
    };
    server.run();
    let key = server.license(1);
    let client = server.client();
    let token = client.session(&key, "survivor");
    let mut keys = issue(&server, 4);
    disk.fails("refuse");
    eventually("a checkpoint was tried", || {
        keys.extend(issue(&server, 4));
        server.log().contains("the disk failed to")
    });
    ended_loudly(&mut server);
    disk.is_well();
    server.run();
    none_is_lost(&server, &keys);
    let answer = server
        .client()
        .call("session/heartbeat", &beat(&key, &token));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = server.client().call("verify", &claim(&key, "survivor"));
    assert_eq!(answer.code(), "valid");
    assert_eq!(server.stop(), Some(0));
    none_is_lost(&server, &keys);
    assert!(is_sound(&server.database()));
}
