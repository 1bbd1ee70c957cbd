//! A file system without room, and a file that may not grow (D3): no to what needs the disk, yes to what
//! does not, and never a yes that is not in the file.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::book::{Book, is_sound};
use crate::disk::Disk;
use crate::load::{Deed, Request, Worker, under_load};
use crate::pass;
use crate::support::{Client, Server, beat, claim, eventually};

/// Sessions that are to live through it all.
const SURVIVORS: u32 = 20;
/// Licenses that come and go beside them.
const LICENSES: u32 = 40;
/// Refused in a row, by each of the workers: then the disk counts as full.
const REFUSALS: usize = 10;
const TIMEOUT_S: u64 = 8;
/// How long it is full: longer than a silent session lives.
const TIMEOUT: Duration = Duration::from_secs(TIMEOUT_S);
const FULL: Duration = Duration::from_secs(TIMEOUT_S + 1);

#[test]
fn a_full_disk_costs_starts_and_nothing_else_and_recovery_needs_no_restart() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    endure(&mut server, |_, room| {
        if room {
            disk.clear();
        } else {
            disk.fill();
        }
    });
}

#[test]
fn a_file_that_may_not_grow_costs_starts_and_nothing_else_and_recovery_needs_no_restart() {
    let mut server = Server::prepare(&[]);
    // By itself the signal for a file over its limit ends a process.
    server.launch_by(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    let room = |server: &Server, room: bool| {
        let sizes = ["", "-wal"].map(|part| {
            let name = format!("data/license-server.sqlite3{part}");
            std::fs::metadata(server.path(&name)).unwrap().len()
        });
        let limit = Rlimit {
            current: (!room).then(|| sizes[0].max(sizes[1])),
            maximum: None,
        };
        let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
        prlimit(pid, Resource::Fsize, limit).unwrap();
    };
    endure(&mut server, room);
}

/// Takes the room away under load, looks, gives it back, and looks again.
fn endure(server: &mut Server, room: impl Fn(&Server, bool)) {
    server.run();
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let timeout = format!("session_timeout={TIMEOUT_S}");
    server.json(&["config", "set", "heartbeat_interval=1", &timeout]);
    let keys = server.licenses(2, LICENSES);
    let probe_key = server.license(1);
    server.call("activate", &claim(&probe_key, "probe"));
    let client = server.client();
    let survivors = server.licenses(1, SURVIVORS).into_iter().map(|key| {
        let token = client.session(&key, "survivor");
        (key, token)
    });
    let survivors: Vec<(String, String)> = survivors.collect();
    // Now nobody has been heard: half of them not before the disk is full.
    let begun = Instant::now();
    server.restart();
    let mut book = Book::new(&keys);
    let mut workers: Vec<Worker> = (0..2).map(Worker::new).collect();
    let pid = server.pid();
    let (requests, (beats, sent)) = under_load(server, &mut workers, &keys, |server| {
        let weather = Weather::default();
        std::thread::scope(|scope| {
            let probe = scope.spawn(|| weather.probe(&server.client(), &probe_key));
            let others = scope.spawn(|| weather.live(&server.client(), &survivors, begun));
            let change = std::panic::AssertUnwindSafe(|| weather.change(|yes| room(server, yes)));
            let changed = std::panic::catch_unwind(change);
            weather.over.store(true, Ordering::SeqCst);
            let (beats, ()) = (others.join().unwrap(), probe.join().unwrap());
            changed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            beats
        })
    });
    assert_eq!(server.pid(), pid, "it went on without a restart");
    let open: Vec<Request> = refusals(&requests);
    eprintln!(
        "{} requests, {} told to come back; beside them {beats} heartbeats and verdicts, all answered",
        requests.len(),
        open.len()
    );
    book.note(&requests, Instant::now());
    let done = book.audit(&server.database(), &open);
    assert_eq!(done, 0, "whoever was told no has no session");
    let on_time = |sent: &Option<Instant>| sent.is_some_and(|sent| sent.elapsed() < TIMEOUT);
    let on_time: Vec<bool> = sent.iter().map(on_time).collect();
    server.kill();
    server.run();
    book.audit(&server.database(), &[]);
    assert!(is_sound(&server.database()));
    let client = server.client();
    let survivors = survivors.iter().zip(on_time);
    for ((key, token), _) in survivors.filter(|(_, on_time)| *on_time) {
        let answer = client.call("session/heartbeat", &beat(key, token));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Those who were told to come back; each was told when.
fn refusals(requests: &[Request]) -> Vec<Request> {
    let no: Vec<Request> = requests
        .iter()
        .filter(|request| request.refused_for_now())
        .cloned()
        .collect();
    assert!(no.iter().any(|request| request.deed == Deed::Start));
    for request in &no {
        let retry = request.heard.as_ref().unwrap().retry_after.as_deref();
        let seconds = retry.and_then(|seconds| seconds.parse::<u32>().ok());
        assert!(seconds > Some(0), "when to come back: {request:?}");
    }
    no
}

/// What those see who live beside the load.
#[derive(Default)]
struct Weather {
    full: AtomicBool,
    over: AtomicBool,
    /// Starts and ends refused in a row.
    refused: AtomicUsize,
}

impl Weather {
    fn refusals(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Fills the disk, and makes room again.
    fn change(&self, room: impl Fn(bool)) {
        pass(Duration::from_millis(300));
        room(false);
        eventually("starts are refused", || self.refusals() >= REFUSALS);
        self.full.store(true, Ordering::SeqCst);
        pass(FULL);
        assert!(self.refusals() >= REFUSALS, "it is still full");
        room(true);
        eventually("starts are taken again", || self.refusals() == 0);
        pass(Duration::from_millis(300));
    }

    /// Starts and ends a session again and again, and counts what is refused.
    fn probe(&self, client: &Client, key: &str) {
        let mut session: Option<String> = None;
        while !self.over.load(Ordering::SeqCst) {
            let answer = match &session {
                None => client.call("session/start", &claim(key, "probe")),
                Some(token) => client.call("session/end", &json!({ "session_token": token })),
            };
            match answer.status {
                201 => session = Some(answer.token()),
                200 => session = None,
                _ => {
                    assert_eq!(answer.told(), (503, "unavailable"));
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    pass(Duration::from_millis(20));
                    continue;
                }
            }
            self.refused.store(0, Ordering::SeqCst);
        }
    }

    /// Heartbeats and verdicts: the disk is none of their business. How many, and when each survivor sent its last
    /// one; none for those who lost their session.
    ///
    /// Nobody has a right to a session who was silent for its timeout, which happens where this machine is so busy
    /// that a turn takes that long. The end of such a session is a write, so that its heartbeat hears 503.
    fn live(
        &self,
        client: &Client,
        survivors: &[(String, String)],
        begun: Instant,
    ) -> (usize, Vec<Option<Instant>>) {
        let early = survivors.len() / 2;
        let mut sent = vec![Some(begun); survivors.len()];
        let (mut count, mut all) = (0, false);
        while !self.over.load(Ordering::SeqCst) {
            all |= self.full.load(Ordering::SeqCst);
            for (at, (key, token)) in survivors.iter().enumerate() {
                let Some(before) = sent[at].filter(|_| all || at < early) else {
                    continue;
                };
                let now = Instant::now();
                let answer = client.call("session/heartbeat", &beat(key, token));
                if answer.status == 200 {
                    sent[at] = Some(now);
                } else {
                    assert!(before.elapsed() >= TIMEOUT, "{answer:?}");
                    sent[at] = None;
                }
                count += 1;
            }
            let answer = client.call("verify", &claim(&survivors[0].0, "survivor"));
            assert_eq!((answer.status, answer.code()), (200, "valid"));
            let on_time = sent[0].is_some_and(|sent| sent.elapsed() < TIMEOUT);
            assert!(answer.body["session_active"] == true || !on_time);
            count += 1;
        }
        let lost = sent.iter().filter(|sent| sent.is_none()).count();
        if lost > 0 {
            eprintln!(
                "this machine was too slow for {lost} of {} sessions",
                sent.len()
            );
        }
        assert!(lost < sent.len(), "nobody lived: this machine is too slow");
        (count, sent)
    }
}

/// How a disk refuses to be written.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Full,
    ReadOnly,
    Locked,
}

#[test]
fn a_server_that_starts_on_a_full_disk_serves_what_needs_no_write_until_there_is_room() {
    starts_all_the_same(Refusal::Full);
}

#[test]
fn a_server_that_starts_on_a_read_only_disk_serves_what_needs_no_write_until_it_is_writable() {
    starts_all_the_same(Refusal::ReadOnly);
}

#[test]
fn a_server_that_starts_on_a_locked_database_serves_what_needs_no_write_until_it_is_free() {
    starts_all_the_same(Refusal::Locked);
}

fn starts_all_the_same(refusal: Refusal) {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 32) else {
        return;
    };
    server.run();
    let key = server.license(1);
    let token = server.client().session(&key, "survivor");
    let waiting = server.license(1);
    server.call("activate", &claim(&waiting, "waiting"));
    for killed in [false, true] {
        if killed {
            server.kill();
        } else {
            assert_eq!(server.stop(), Some(0), "{}", server.log());
        }
        let lock = refuse(&server, &disk, refusal);
        server.run();
        what_needs_no_write_is_served(&server, (&key, &token), &waiting, refusal);
        match (refusal, lock) {
            (Refusal::Full, _) => disk.clear(),
            (Refusal::ReadOnly, _) => disk.takes_writes(true),
            (Refusal::Locked, lock) => drop(lock),
        }
        let client = server.client();
        let mut next = None;
        eventually("a start is taken", || {
            let answer = client.call("session/start", &claim(&waiting, "waiting"));
            next = (answer.status == 201).then(|| answer.token());
            next.is_some()
        });
        let said = json!({ "session_token": next.unwrap() });
        assert_eq!(client.call("session/end", &said).status, 200);
        let answer = client.call("session/heartbeat", &beat(&key, &token));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(client.get("/health").status, 200);
        // What a start writes down was made up for: commands go by it.
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
fn a_data_disk_that_takes_nothing_is_backed_up_to_another_one() {
    for refusal in [Refusal::Full, Refusal::ReadOnly] {
        let mut server = Server::prepare(&[]);
        let Some(disk) = Disk::of(&server, 32) else {
            return;
        };
        server.run();
        let key = server.license(1);
        server.client().session(&key, "laptop");
        assert_eq!(server.stop(), Some(0), "{}", server.log());
        drop(refuse(&server, &disk, refusal));
        for (name, runs) in [("stopped", false), ("running", true)] {
            if runs {
                server.run();
            }
            let copy = server.path(name);
            let made = server.cli(&["backup", copy.to_str().unwrap()]);
            assert!(made.status.success(), "{refusal:?}: {made:?}");
            let other = Server::prepare(&[]);
            other.json(&["restore", copy.to_str().unwrap()]);
            let shown = other.json(&["license", "show", &key]);
            assert_eq!(shown["devices"].as_array().unwrap().len(), 1, "{shown}");
        }
        let left = std::fs::read_dir(server.path("")).unwrap();
        let mut left = left.map(|entry| entry.unwrap().file_name());
        let drafts = left.any(|name| name.to_string_lossy().contains("copy-"));
        assert!(!drafts, "half a copy is left");
        server.kill();
    }
}

fn refuse(server: &Server, disk: &Disk, refusal: Refusal) -> Option<Connection> {
    match refusal {
        Refusal::Full => disk.fill(),
        Refusal::ReadOnly => disk.takes_writes(false),
        Refusal::Locked => {
            let conn = Connection::open(server.database()).unwrap();
            conn.execute_batch("begin immediate").unwrap();
            return Some(conn);
        }
    }
    None
}

fn what_needs_no_write_is_served(
    server: &Server,
    (key, token): (&str, &str),
    waiting: &str,
    refusal: Refusal,
) {
    let client = server.client();
    for _ in 0..3 {
        let answer = client.call("session/heartbeat", &beat(key, token));
        assert_eq!(answer.status, 200, "{answer:?}: {}", server.log());
        let answer = client.call("verify", &claim(key, "survivor"));
        assert_eq!((answer.status, answer.code()), (200, "valid"));
        assert_eq!(answer.body["session_active"], true, "{answer:?}");
    }
    let answer = client.call("session/start", &claim(waiting, "waiting"));
    assert_eq!(answer.told(), (503, "unavailable"), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(client.get("/health").status, 503);
    let listed = server.json(&["license", "list"]);
    assert_eq!(listed["licenses"].as_array().unwrap().len(), 2);
    let log = server.log();
    let told = log
        .matches("writes are refused until this is fixed")
        .count();
    assert!((1..=2).contains(&told), "{log}");
    if let Refusal::ReadOnly = refusal {
        let checked = server.cli(&["check"]);
        assert_eq!(checked.status.code(), Some(1));
        let said = String::from_utf8(checked.stdout).unwrap();
        assert!(said.contains("is read-only"), "{said}");
        let refused = server.cli(&["customer", "add", "Eve"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }
}

#[test]
fn that_writes_are_refused_is_said_once_a_minute_though_a_disk_is_full_again_and_again() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 32) else {
        return;
    };
    server.run();
    let key = server.license(1);
    server.call("activate", &claim(&key, "laptop"));
    let client = server.client();
    let begun = Instant::now();
    let mut session: Option<String> = None;
    for _ in 0..10 {
        for (full, wanted) in [(true, false), (false, true)] {
            if full {
                disk.fill();
            } else {
                disk.clear();
            }
            eventually("the disk is full, or is not", || {
                let answer = match &session {
                    None => client.call("session/start", &claim(&key, "laptop")),
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
    let told = log
        .matches("writes are refused until this is fixed")
        .count();
    assert!((1..=1 + minutes).contains(&told), "{log}");
    assert!(log.lines().count() < 30, "{log}");
}
