//! A disk that takes every byte and confirms none (D2): what came of a commit is unknown, so the answer is no.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::book::{Book, is_sound};
use crate::load::{Deed, Request, Worker, under_load};
use crate::support::{Client, Server, beat, claim, eventually, rounds};
use crate::{pass, skipped, up_to};

const REFUSALS: usize = 10;

/// Whether the disk confirms what the server writes.
struct Confirms(PathBuf);

impl Confirms {
    /// Puts itself before the C library of `server`. None without a compiler.
    fn before(server: &mut Server) -> Option<Self> {
        let (library, flag) = (server.path("bad_sync.so"), server.path("bad_sync"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash/bad_sync.c");
        let mut compiler = Command::new("cc");
        let compiler = compiler.args(["-shared", "-fPIC", "-o"]).arg(&library);
        match compiler.arg(source).status() {
            Ok(status) => assert!(status.success(), "cc: {status}"),
            Err(error) => {
                skipped(&format!("cc: {error}"));
                return None;
            }
        }
        let preload = format!("LD_PRELOAD={}", library.display());
        let told = format!("BAD_SYNC={}", flag.display());
        server.launch_by(&["env", &preload, &told]);
        Some(Self(flag))
    }

    fn nothing(&self) {
        std::fs::write(&self.0, "").unwrap();
    }

    fn all(&self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_commit_that_the_disk_does_not_confirm_is_no_yes_and_recovery_needs_no_restart() {
    let mut server = Server::prepare(&[]);
    let Some(confirms) = Confirms::before(&mut server) else {
        return;
    };
    server.run();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.licenses(3, 40);
    let survivor = server.license(1);
    let client = server.client();
    let token = client.session(&survivor, "survivor");
    let mut book = Book::new(&keys);
    let mut workers: Vec<Worker> = (0..4).map(Worker::new).collect();
    let pid = server.pid();
    let (requests, (from, to)) = under_load(&mut server, &mut workers, &keys, |server| {
        pass(Duration::from_millis(300));
        confirms.nothing();
        let from = Instant::now();
        bad_days(server, &client, (&survivor, &token));
        let to = Instant::now();
        confirms.all();
        let free = server.license(1);
        eventually("a start is taken again", || {
            client.call("activate", &claim(&free, "next"));
            client.call("session/start", &claim(&free, "next")).status == 201
        });
        pass(Duration::from_millis(300));
        (from, to)
    });
    assert_eq!(server.pid(), pid, "it went on without a restart");
    let told_yes = |request: &&Request| {
        let heard = request.heard.as_ref();
        request.granted() && request.sent > from && heard.is_some_and(|heard| heard.at < to)
    };
    for request in requests.iter().filter(told_yes) {
        assert_eq!(request.deed, Deed::Beat, "a false yes: {request:?}");
    }
    let open: Vec<Request> = requests.iter().filter(|r| r.open()).cloned().collect();
    for request in &open {
        let heard = request.heard.as_ref().unwrap();
        let seconds = heard.retry_after.as_ref().map(|text| text.parse::<u32>());
        assert!(
            seconds.unwrap().unwrap() > 0,
            "when to come back: {request:?}"
        );
    }
    assert!(open.iter().any(|request| request.deed == Deed::Start));
    book.note(&requests, Instant::now());
    let done = book.audit(&server.database(), &open);
    assert_eq!(done, 0, "whoever was told no has no session");
    book.no_two_lived_at_once();
    for worker in &mut workers {
        book.teach(worker);
    }
    let unclear = killed_on_a_bad_day(&mut server, (&mut book, &mut workers, &keys), &confirms);
    assert!(is_sound(&server.database()));
    eprintln!(
        "{} requests, {} told to come back; of those that a crash left open {unclear} had started a session",
        requests.len(),
        open.len()
    );
}

/// What holds while nothing is confirmed: whoever writes is told to come back, and the others live on.
fn bad_days(server: &Server, client: &Client, (survivor, token): (&str, &str)) {
    let refused = AtomicUsize::new(0);
    eventually("writes are refused", || {
        let answer = client.call("activate", &claim(survivor, "survivor"));
        assert_eq!(answer.told(), (503, "unavailable"), "{answer:?}");
        refused.fetch_add(1, Ordering::SeqCst) >= REFUSALS
    });
    for _ in 0..20 {
        let answer = client.call("session/heartbeat", &beat(survivor, token));
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = client.call("verify", &claim(survivor, "survivor"));
        assert_eq!((answer.status, answer.code()), (200, "valid"));
    }
    let health = client.get("/health");
    assert_eq!(health.status, 503, "{health:?}");
    let copy = server.path("copy.sqlite3");
    for order in [
        &["customer", "add", "Eve"][..],
        &["backup", copy.to_str().unwrap()],
    ] {
        let output = server.cli(order);
        assert_eq!(output.status.code(), Some(1), "{order:?}: {output:?}");
    }
    assert!(!copy.exists(), "a copy that may not be whole has its name");
}

/// The server dies while nothing is confirmed: now the file decides what came of the commits. How many
/// starts it had, of those that were left open.
fn killed_on_a_bad_day(
    server: &mut Server,
    (book, workers, keys): (&mut Book, &mut [Worker], &[String]),
    confirms: &Confirms,
) -> usize {
    let mut unclear = 0;
    for _ in 0..rounds(2) {
        let (requests, end) = under_load(server, workers, keys, |server| {
            pass(Duration::from_millis(200));
            // What was heard up to now is written within the second, or may be lost with the process.
            let end = Instant::now();
            confirms.nothing();
            pass(up_to(Duration::from_millis(300)));
            server.kill();
            end
        });
        confirms.all();
        let open: Vec<Request> = requests.iter().filter(|r| r.open()).cloned().collect();
        book.note(&requests, end);
        server.run();
        unclear += book.audit(&server.database(), &open);
        crate::kill::lost_answers_are_given_again(server, book, keys, &open);
        for worker in workers.iter_mut() {
            book.teach(worker);
        }
        crate::kill::everybody_lives_on(server, book, keys);
    }
    unclear
}
