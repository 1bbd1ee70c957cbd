//! A file system without room, and a file that may not grow (D3): no to what needs the disk, yes to what
//! does not, and never a yes that is not in the file.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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
    server.restart();
    let mut book = Book::new(&keys);
    let mut workers: Vec<Worker> = (0..2).map(Worker::new).collect();
    let pid = server.pid();
    let (requests, beats) = under_load(server, &mut workers, &keys, |server| {
        let weather = Weather::default();
        std::thread::scope(|scope| {
            let probe = scope.spawn(|| weather.probe(&server.client(), &probe_key));
            let others = scope.spawn(|| weather.live(&server.client(), &survivors));
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
    server.kill();
    server.run();
    book.audit(&server.database(), &[]);
    assert!(is_sound(&server.database()));
    let client = server.client();
    for (key, token) in &survivors {
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

    /// Heartbeats and verdicts: the disk is none of their business. How many.
    fn live(&self, client: &Client, survivors: &[(String, String)]) -> usize {
        let (early, late) = survivors.split_at(survivors.len() / 2);
        let (mut count, mut all) = (0, false);
        while !self.over.load(Ordering::SeqCst) {
            all |= self.full.load(Ordering::SeqCst);
            let heard = if all { late } else { &[] };
            for (key, token) in early.iter().chain(heard) {
                let answer = client.call("session/heartbeat", &beat(key, token));
                assert_eq!(answer.status, 200, "{answer:?}");
                count += 1;
            }
            let answer = client.call("verify", &claim(&early[0].0, "survivor"));
            assert_eq!((answer.status, answer.code()), (200, "valid"));
            assert_eq!(answer.body["session_active"], true);
            count += 1;
        }
        count
    }
}
