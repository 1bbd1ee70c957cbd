//! A full file system, and a file that may not grow (D3): requests that need the disk are refused, others work,
//! and nothing is acknowledged that is not stored.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::ack_log::{AckLog, is_sound};
use crate::disk::Disk;
use crate::load::{Operation, Request, Worker, under_load};
use crate::support::{Client, Server, eventually, heartbeat_body, identity};
use crate::wait_for;

/// Sessions that must stay active throughout.
const SURVIVORS: u32 = 20;
/// Licenses whose sessions start and end meanwhile.
const LICENSES: u32 = 40;
/// Refusals in a row from which on the disk counts as full.
const REFUSALS: usize = 10;
const TIMEOUT_S: u64 = 8;
/// How long the disk is full: longer than the timeout of a session.
const TIMEOUT: Duration = Duration::from_secs(TIMEOUT_S);
const FULL: Duration = Duration::from_secs(TIMEOUT_S + 1);

#[test]
fn a_full_disk_prevents_only_starts_and_recovery_needs_no_restart() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    check_full_disk(&mut server, |_, has_space| {
        if has_space {
            disk.free();
        } else {
            disk.fill();
        }
    });
}

#[test]
fn a_file_that_may_not_grow_prevents_only_starts_and_recovery_needs_no_restart() {
    let mut server = Server::prepare(&[]);
    // Without this, the signal for a file over its limit would end the process.
    server.set_launcher(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    let set_space = |server: &Server, has_space: bool| {
        let sizes = ["", "-wal"].map(|part| {
            let name = format!("data/license-server.sqlite3{part}");
            std::fs::metadata(server.path(&name)).unwrap().len()
        });
        let limit = Rlimit {
            current: (!has_space).then(|| sizes[0].max(sizes[1])),
            maximum: None,
        };
        let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
        prlimit(pid, Resource::Fsize, limit).unwrap();
    };
    check_full_disk(&mut server, set_space);
}

/// Takes the space away under load, checks the responses, gives it back, and checks again.
fn check_full_disk(server: &mut Server, set_space: impl Fn(&Server, bool)) {
    server.run();
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let timeout = format!("session_timeout={TIMEOUT_S}");
    server.json(&["config", "set", "heartbeat_interval=1", &timeout]);
    let keys = server.issue_licenses(2, LICENSES);
    let probe_key = server.issue_license(1);
    server.call("activate", &identity(&probe_key, "probe"));
    let client = server.client();
    let survivors = server.issue_licenses(1, SURVIVORS).into_iter().map(|key| {
        let token = client.session(&key, "survivor");
        (key, token)
    });
    let survivors: Vec<(String, String)> = survivors.collect();
    // After the restart no heartbeat has been received: half of the sessions send none before the disk is full.
    let begun = Instant::now();
    server.restart();
    let mut ack_log = AckLog::new(&keys);
    let mut workers: Vec<Worker> = (0..2).map(Worker::new).collect();
    for worker in &mut workers {
        // One that has as many sessions as it may would not try to start another one.
        worker.sessions_max = LICENSES as usize;
    }
    let pid = server.pid();
    let (requests, (heartbeats, sent)) = under_load(server, &mut workers, &keys, |server| {
        let observers = Observers::default();
        std::thread::scope(|scope| {
            let probe = scope.spawn(|| observers.probe(&server.client(), &probe_key));
            let others =
                scope.spawn(|| observers.send_heartbeats(&server.client(), &survivors, begun));
            let change = std::panic::AssertUnwindSafe(|| {
                observers.change(|has_space| set_space(server, has_space));
            });
            let changed = std::panic::catch_unwind(change);
            observers.done.store(true, Ordering::SeqCst);
            if changed.is_err() {
                eprintln!("{}", server.log());
            }
            let (heartbeats, ()) = (others.join().unwrap(), probe.join().unwrap());
            changed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            heartbeats
        })
    });
    assert_eq!(server.pid(), pid, "the server continued without a restart");
    let unresolved: Vec<Request> = refusals(&requests);
    eprintln!(
        "{} requests, {} refused for now; {heartbeats} heartbeats and verifications meanwhile, all answered",
        requests.len(),
        unresolved.len()
    );
    ack_log.note(&requests, Instant::now());
    let done = ack_log.compare(&server.database(), &unresolved);
    assert_eq!(done, 0, "refused starts have no session");
    let on_time = |sent: &Option<Instant>| sent.is_some_and(|sent| sent.elapsed() < TIMEOUT);
    let on_time: Vec<bool> = sent.iter().map(on_time).collect();
    server.kill();
    server.run();
    ack_log.compare(&server.database(), &[]);
    assert!(is_sound(&server.database()));
    let client = server.client();
    let survivors = survivors.iter().zip(on_time);
    for ((key, token), _) in survivors.filter(|(_, on_time)| *on_time) {
        let answer = client.call("session/heartbeat", &heartbeat_body(key, token));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The requests that were refused for now; each must have a `Retry-After`.
fn refusals(requests: &[Request]) -> Vec<Request> {
    let refused_requests: Vec<Request> = requests
        .iter()
        .filter(|request| request.refused_for_now())
        .cloned()
        .collect();
    assert!(
        refused_requests
            .iter()
            .any(|request| request.operation == Operation::Start)
    );
    for request in &refused_requests {
        let retry = request.response.as_ref().unwrap().retry_after.as_deref();
        let seconds = retry.and_then(|seconds| seconds.parse::<u32>().ok());
        assert!(seconds > Some(0), "no Retry-After: {request:?}");
    }
    refused_requests
}

/// What is observed beside the load.
#[derive(Default)]
struct Observers {
    full: AtomicBool,
    done: AtomicBool,
    /// Starts and ends that were refused in a row.
    refused: AtomicUsize,
}

impl Observers {
    fn refusals(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Fills the disk, and frees it again.
    fn change(&self, set_space: impl Fn(bool)) {
        wait_for(Duration::from_millis(300));
        set_space(false);
        eventually("starts are refused", || self.refusals() >= REFUSALS);
        self.full.store(true, Ordering::SeqCst);
        wait_for(FULL);
        assert!(self.refusals() >= REFUSALS, "the disk is still full");
        set_space(true);
        eventually("starts succeed again", || self.refusals() == 0);
        // Heartbeats reach the file within a second.
        wait_for(Duration::from_millis(1200));
    }

    /// Starts and ends a session repeatedly, and counts refusals in a row.
    fn probe(&self, client: &Client, key: &str) {
        let mut session: Option<String> = None;
        while !self.done.load(Ordering::SeqCst) {
            let answer = match &session {
                None => client.call("session/start", &identity(key, "probe")),
                Some(token) => client.call("session/end", &json!({ "session_token": token })),
            };
            match answer.status {
                201 => session = Some(answer.token()),
                200 => session = None,
                _ => {
                    assert_eq!(answer.status_and_code(), (503, "unavailable"));
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    wait_for(Duration::from_millis(20));
                    continue;
                }
            }
            self.refused.store(0, Ordering::SeqCst);
        }
    }

    /// Sends heartbeats and verifications, which do not need the disk. Returns how many, and when each survivor
    /// sent its last heartbeat; `None` for those that lost their session.
    ///
    /// A session may be lost if its heartbeat was later than its timeout, which happens if this machine is so busy
    /// that one round takes that long. Its end is a write, so that the heartbeat gets 503.
    fn send_heartbeats(
        &self,
        client: &Client,
        survivors: &[(String, String)],
        begun: Instant,
    ) -> (usize, Vec<Option<Instant>>) {
        let early = survivors.len() / 2;
        let mut sent = vec![Some(begun); survivors.len()];
        let (mut count, mut include_late) = (0, false);
        while !self.done.load(Ordering::SeqCst) {
            include_late |= self.full.load(Ordering::SeqCst);
            for (at, (key, token)) in survivors.iter().enumerate() {
                let Some(before) = sent[at].filter(|_| include_late || at < early) else {
                    continue;
                };
                let now = Instant::now();
                let answer = client.call("session/heartbeat", &heartbeat_body(key, token));
                if answer.status == 200 {
                    sent[at] = Some(now);
                } else {
                    assert!(before.elapsed() >= TIMEOUT, "{answer:?}");
                    sent[at] = None;
                }
                count += 1;
            }
            let answer = client.call("verify", &identity(&survivors[0].0, "survivor"));
            assert_eq!((answer.status, answer.code()), (200, "valid"));
            let on_time = sent[0].is_some_and(|sent| sent.elapsed() < TIMEOUT);
            assert!(answer.body["session_active"] == true || !on_time);
            count += 1;
        }
        let lost_count = sent.iter().filter(|sent| sent.is_none()).count();
        if lost_count > 0 {
            eprintln!(
                "this machine was too slow for {lost_count} of {} sessions",
                sent.len()
            );
        }
        assert!(
            lost_count < sent.len(),
            "no session stayed active: this machine is too slow"
        );
        (count, sent)
    }
}

/// Why the database cannot be written.
#[derive(Clone, Copy, Debug)]
enum WriteProblem {
    Full,
    ReadOnly,
    Locked,
}

#[test]
fn a_server_that_starts_on_a_full_disk_serves_what_needs_no_write_until_there_is_space() {
    starts_despite(WriteProblem::Full);
}

#[test]
fn a_server_that_starts_on_a_read_only_disk_serves_what_needs_no_write_until_it_is_writable() {
    starts_despite(WriteProblem::ReadOnly);
}

#[test]
fn a_server_that_starts_on_a_locked_database_serves_what_needs_no_write_until_it_is_free() {
    starts_despite(WriteProblem::Locked);
}

fn starts_despite(problem: WriteProblem) {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 32) else {
        return;
    };
    // A connection that was opened on a disk that cannot be written is still open when it can.
    server.check_integrity_now();
    server.run();
    let key = server.issue_license(1);
    let token = server.client().session(&key, "survivor");
    let second_key = server.issue_license(1);
    server.call("activate", &identity(&second_key, "waiting"));
    for killed in [false, true] {
        if killed {
            server.kill();
        } else {
            assert_eq!(server.stop(), Some(0), "{}", server.log());
        }
        let lock = make_unwritable(&server, &disk, problem);
        server.run();
        assert_reads_are_served(&server, (&key, &token), &second_key, problem);
        match (problem, lock) {
            (WriteProblem::Full, _) => disk.free(),
            (WriteProblem::ReadOnly, _) => disk.set_writable(true),
            (WriteProblem::Locked, lock) => drop(lock),
        }
        let client = server.client();
        let mut next = None;
        eventually("a start succeeds", || {
            let answer = client.call("session/start", &identity(&second_key, "waiting"));
            next = (answer.status == 201).then(|| answer.token());
            next.is_some()
        });
        let body = json!({ "session_token": next.unwrap() });
        assert_eq!(client.call("session/end", &body).status, 200);
        let answer = client.call("session/heartbeat", &heartbeat_body(&key, &token));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(client.get("/health").status, 200);
        // The data of the start was written later: commands depend on it.
        let running = server.json(&["session", "list"]);
        assert_eq!(
            running["sessions"].as_array().unwrap().len(),
            1,
            "{running}"
        );
    }
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    assert!(is_sound(&server.database()));
}

#[test]
fn an_unwritable_data_disk_is_backed_up_to_another_one() {
    for problem in [WriteProblem::Full, WriteProblem::ReadOnly] {
        let mut server = Server::prepare(&[]);
        let Some(disk) = Disk::of(&server, 32) else {
            return;
        };
        server.run();
        let key = server.issue_license(1);
        server.client().session(&key, "laptop");
        assert_eq!(server.stop(), Some(0), "{}", server.log());
        drop(make_unwritable(&server, &disk, problem));
        for (name, runs) in [("stopped", false), ("running", true)] {
            if runs {
                server.run();
            }
            let copy = server.path(name);
            let made = server.cli(&["backup", copy.to_str().unwrap()]);
            assert!(made.status.success(), "{problem:?}: {made:?}");
            let other = Server::prepare(&[]);
            other.json(&["restore", copy.to_str().unwrap()]);
            let shown = other.json(&["license", "show", &key]);
            assert_eq!(shown["devices"].as_array().unwrap().len(), 1, "{shown}");
        }
        let left = std::fs::read_dir(server.path("")).unwrap();
        let mut left = left.map(|entry| entry.unwrap().file_name());
        let has_unfinished = left.any(|name| name.to_string_lossy().contains("copy-"));
        assert!(!has_unfinished, "an unfinished copy is left");
        server.kill();
    }
}

fn make_unwritable(server: &Server, disk: &Disk, problem: WriteProblem) -> Option<Connection> {
    match problem {
        WriteProblem::Full => disk.fill(),
        WriteProblem::ReadOnly => disk.set_writable(false),
        WriteProblem::Locked => {
            let conn = Connection::open(server.database()).unwrap();
            conn.execute_batch("begin immediate").unwrap();
            return Some(conn);
        }
    }
    None
}

fn assert_reads_are_served(
    server: &Server,
    (key, token): (&str, &str),
    second_key: &str,
    problem: WriteProblem,
) {
    let client = server.client();
    for _ in 0..3 {
        let answer = client.call("session/heartbeat", &heartbeat_body(key, token));
        assert_eq!(answer.status, 200, "{answer:?}: {}", server.log());
        let answer = client.call("verify", &identity(key, "survivor"));
        assert_eq!((answer.status, answer.code()), (200, "valid"));
        assert_eq!(answer.body["session_active"], true, "{answer:?}");
    }
    let answer = client.call("session/start", &identity(second_key, "waiting"));
    assert_eq!(answer.status_and_code(), (503, "unavailable"), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(client.get("/health").status, 503);
    let listed = server.json(&["license", "list"]);
    assert_eq!(listed["licenses"].as_array().unwrap().len(), 2);
    let log = server.log();
    let count = log
        .matches("writes are refused until this is fixed")
        .count();
    assert!((1..=2).contains(&count), "{log}");
    if let WriteProblem::ReadOnly = problem {
        let checked = server.cli(&["check"]);
        assert_eq!(checked.status.code(), Some(1));
        let output = String::from_utf8(checked.stdout).unwrap();
        assert!(output.contains("is read-only"), "{output}");
        let refused = server.cli(&["customer", "add", "Eve"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }
}

#[test]
fn refused_writes_are_logged_once_a_minute_even_if_the_disk_is_full_repeatedly() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 32) else {
        return;
    };
    server.run();
    let key = server.issue_license(1);
    server.call("activate", &identity(&key, "laptop"));
    let client = server.client();
    let begun = Instant::now();
    let mut session: Option<String> = None;
    for _ in 0..10 {
        for (full, wanted) in [(true, false), (false, true)] {
            if full {
                disk.fill();
            } else {
                disk.free();
            }
            eventually("the disk is full, or is not", || {
                let answer = match &session {
                    None => client.call("session/start", &identity(&key, "laptop")),
                    Some(token) => client.call("session/end", &json!({ "session_token": token })),
                };
                match answer.status {
                    201 => session = Some(answer.token()),
                    200 => session = None,
                    _ => {}
                }
                (answer.status != 503) == wanted
            });
        }
    }
    let minutes = usize::try_from(begun.elapsed().as_secs() / 60).unwrap();
    let log = server.log();
    let count = log
        .matches("writes are refused until this is fixed")
        .count();
    assert!((1..=1 + minutes).contains(&count), "{log}");
    assert!(log.lines().count() < 30, "{log}");
}
