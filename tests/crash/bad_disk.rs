//! A disk that accepts writes and then loses some of them (D2). Linux reports that once, at a sync, and the pages
//! are lost: the server must notice it at once, and continue from the WAL in a new process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::ack_log::{AckLog, is_sound};
use crate::disk::ThinDisk;
use crate::load::{Operation, Request, Worker, under_load};
use crate::support::{Server, eventually, heartbeat_body, identity, rounds};
use crate::{random_up_to, skipped, wait_for};

/// A disk whose failures the test controls.
pub(crate) struct BadDisk {
    folder: PathBuf,
}

impl BadDisk {
    /// Preloads a library that wraps the C library of `server`. `None` without a compiler.
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
        let folder_variable = format!("BAD_DISK={}", folder.display());
        server.set_launcher(&["env", &preload, &folder_variable]);
        Some(Self { folder })
    }

    /// Switches on a failure: `database` or `wal` loses what is written to that file; `refuse` rejects all writes
    /// to the database; `unreadable` fails all reads of it; `nolinks` refuses hard links.
    pub(crate) fn set_failing(&self, what: &str) {
        std::fs::write(self.folder.join(what), "").unwrap();
    }

    pub(crate) fn recover(&self) {
        for what in std::fs::read_dir(&self.folder).unwrap() {
            std::fs::remove_file(what.unwrap().path()).unwrap();
        }
    }
}

/// Checks that the server has ended by itself, and has logged the reason and what to do, once.
fn assert_ended_with_disk_error(server: &mut Server) {
    let count_messages = |server: &Server| server.log().matches("the disk failed to").count();
    let before = count_messages(server);
    assert_eq!(server.wait(), Some(1), "{}", server.log());
    assert!(
        count_messages(server) >= 1 && count_messages(server) <= before + 1,
        "{}",
        server.log()
    );
    assert!(server.log().contains("dmesg"), "{}", server.log());
}

#[test]
fn a_commit_that_the_disk_does_not_confirm_is_not_acknowledged_and_the_next_start_works() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = BadDisk::under(&mut server) else {
        return;
    };
    server.run();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.issue_licenses(3, 40);
    let mut ack_log = AckLog::new(&keys);
    let mut workers: Vec<Worker> = (0..4).map(Worker::new).collect();
    let (mut asked, mut started, mut unresolved_count) = (0, 0, 0);
    for _ in 0..rounds(3) {
        for worker in &mut workers {
            worker.disk_may_fail = true;
        }
        let (requests, (from, end)) = under_load(&mut server, &mut workers, &keys, |server| {
            wait_for(Duration::from_millis(200) + random_up_to(Duration::from_millis(300)));
            // Heartbeats from before are stored within a second, or may be lost with the process.
            let end = Instant::now();
            disk.set_failing("wal");
            let from = Instant::now();
            assert_ended_with_disk_error(server);
            (from, end)
        });
        disk.recover();
        for request in requests.iter().filter(|r| r.granted() && r.sent > from) {
            assert_eq!(
                request.operation,
                Operation::Heartbeat,
                "a lost write was acknowledged: {request:?}"
            );
        }
        let unresolved: Vec<Request> = requests
            .iter()
            .filter(|r| r.unresolved())
            .cloned()
            .collect();
        asked += requests.len();
        unresolved_count += unresolved.len();
        ack_log.note(&requests, end);
        server.run();
        started += ack_log.compare(&server.database(), &unresolved);
        crate::kill::repeat_unanswered_starts(&server, &mut ack_log, &keys, &unresolved);
        for worker in &mut workers {
            ack_log.update_worker(worker);
        }
        crate::kill::assert_sessions_continue(&server, &ack_log, &keys);
    }
    ack_log.assert_no_overlap();
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    ack_log.compare(&server.database(), &[]);
    assert!(is_sound(&server.database()));
    eprintln!(
        "{asked} requests, {unresolved_count} unresolved, of which {started} had started a session"
    );
}

/// A reader that is active while the disk fails, so that only a part of the WAL can be copied.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// Another program, such as a replication tool.
    OtherProgram,
    /// `license-server backup`, which is stopped halfway.
    Backup,
}

/// A reader that keeps an old state of the database in use until it ends.
enum ActiveReader {
    OtherProgram(Connection),
    Backup(Child),
}

impl ActiveReader {
    fn start(reader: Reader, server: &Server) -> Self {
        match reader {
            Reader::OtherProgram => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                let conn = Connection::open_with_flags(server.database(), flags).unwrap();
                conn.execute_batch("begin; select count(*) from licenses")
                    .unwrap();
                Self::OtherProgram(conn)
            }
            Reader::Backup => {
                let copy = server.path("copy.sqlite3");
                drop(std::fs::remove_file(&copy));
                let mut command = server.command(&["backup", copy.to_str().unwrap()]);
                let command = command.stdout(Stdio::null()).stderr(Stdio::null());
                let child = command.spawn().unwrap();
                let part = server.path("copy.sqlite3.part");
                crate::spin_until("the backup has begun", || part.exists() || copy.exists());
                signal(&child, "STOP");
                Self::Backup(child)
            }
        }
    }

    fn end(self) {
        match self {
            Self::OtherProgram(conn) => drop(conn),
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

/// How the server ends: by itself after the error, or by SIGTERM, before it may have noticed the error.
#[derive(Clone, Copy, Debug)]
enum End {
    ByItself,
    Stopped,
}

/// Issues licenses until a large part of the WAL waits to be copied, or until issuing fails. Returns their keys.
fn issue(server: &Server, times: usize) -> Vec<String> {
    let mut keys = Vec::new();
    for _ in 0..times {
        let args = [
            "--json",
            "license",
            "issue",
            "--customer",
            "Ada",
            "--count",
            "1000",
        ];
        let output = server.cli(&args);
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

/// Checks that every acknowledged license is in the database.
fn assert_none_lost(server: &Server, keys: &[String]) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = Connection::open_with_flags(server.database(), flags).unwrap();
    let mut query = conn
        .prepare("select count(*) from licenses where license_key = ?1")
        .unwrap();
    for key in keys {
        let count: i64 = query.query_row([key], |row| row.get(0)).unwrap();
        assert_eq!(count, 1, "a license was lost: {key}");
    }
}

#[test]
fn a_momentary_disk_error_with_an_active_reader_loses_nothing() {
    for round in 0..rounds(2) as usize {
        let reader = [Reader::OtherProgram, Reader::Backup][round % 2];
        let end = [End::ByItself, End::Stopped][(round + round / 2) % 2];
        let mut server = Server::prepare(&[]);
        let Some(disk) = BadDisk::under(&mut server) else {
            return;
        };
        server.run();
        server.json(&["customer", "add", "Ada"]);
        let mut keys = issue(&server, 3);
        let active_reader = ActiveReader::start(reader, &server);
        // Enough for a checkpoint that can copy only a part.
        disk.set_failing("database");
        keys.extend(issue(&server, 6));
        match end {
            End::ByItself => {
                eventually("a checkpoint fails", || {
                    keys.extend(issue(&server, 1));
                    server.log().contains("the disk failed to")
                });
                assert_ended_with_disk_error(&mut server);
            }
            End::Stopped => {
                server.signal("TERM");
                let status = server.wait();
                assert!(matches!(status, Some(0 | 1)), "{status:?}");
            }
        }
        disk.recover();
        server.run();
        assert_none_lost(&server, &keys);
        active_reader.end();
        keys.extend(issue(&server, 8));
        assert_none_lost(&server, &keys);
        assert_eq!(server.stop(), Some(0), "{}", server.log());
        assert_none_lost(&server, &keys);
        assert!(is_sound(&server.database()), "{reader:?} {end:?}");
        eprintln!("{reader:?}, {end:?}: {} licenses, none lost", keys.len());
    }
}

#[test]
fn a_disk_that_refuses_blocks_of_the_database_ends_the_server_and_loses_nothing() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = BadDisk::under(&mut server) else {
        return;
    };
    server.run();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "survivor");
    let mut keys = issue(&server, 4);
    disk.set_failing("refuse");
    eventually("a checkpoint fails", || {
        keys.extend(issue(&server, 4));
        server.log().contains("the disk failed to")
    });
    assert_ended_with_disk_error(&mut server);
    disk.recover();
    server.run();
    assert_none_lost(&server, &keys);
    let answer = server
        .client()
        .call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = server.client().call("verify", &identity(&key, "survivor"));
    assert_eq!(answer.code(), "valid");
    assert_eq!(server.stop(), Some(0));
    assert_none_lost(&server, &keys);
    assert!(is_sound(&server.database()));
}

#[test]
fn a_device_that_refuses_blocks_loses_nothing_and_ends_the_server_or_its_writes() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = ThinDisk::of(&server, 48) else {
        return;
    };
    server.run();
    server.json(&["customer", "add", "Ada"]);
    let mut keys = issue(&server, 4);
    let client = server.client();
    let token = client.session(&keys[0], "survivor");
    disk.refuse_new_blocks();
    // If the block is one of the journal, Linux makes the file system read-only, and nothing that was written is at risk.
    eventually("a sync fails or no write is accepted", || {
        keys.extend(issue(&server, 4));
        disk.write_back();
        ["the disk failed to", "writes are refused"]
            .iter()
            .any(|line| server.log().contains(line))
    });
    if server.log().contains("the disk failed to") {
        assert_ended_with_disk_error(&mut server);
    } else {
        let heartbeat = heartbeat_body(&keys[0], &token);
        assert_eq!(client.call("session/heartbeat", &heartbeat).status, 200);
        server.kill();
    }
    disk.recover();
    server.run();
    assert_none_lost(&server, &keys);
    keys.extend(issue(&server, 1));
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    assert_none_lost(&server, &keys);
    assert!(is_sound(&server.database()));
}
