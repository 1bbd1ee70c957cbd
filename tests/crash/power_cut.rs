//! The power goes under load, again and again (D1): a disk that keeps only what it was told to keep.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::book::{Book, is_sound};
use crate::disk::Disk;
use crate::kill::{everybody_lives_on, lost_answers_are_given_again};
use crate::load::{Request, Worker, under_load};
use crate::support::{Server, files_below, rounds};
use crate::{pass, up_to};

const LICENSES: u32 = 40;
const WORKERS: usize = 4;
const DEVICE_LIMIT: u32 = 3;
const LONGEST: Duration = Duration::from_millis(2500);

#[test]
fn what_was_acknowledged_outlives_a_power_cut_and_nothing_else_comes_to_be() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    server.run();
    server.json(&["config", "set", "session_timeout=3600"]);
    server.json(&["limit", "set", "client", "--per-minute", "0"]);
    let keys = server.licenses(DEVICE_LIMIT, LICENSES);
    let mut book = Book::new(&keys);
    let mut workers: Vec<Worker> = (0..WORKERS).map(Worker::new).collect();
    for worker in &mut workers {
        worker.may_be_dark = true;
    }
    let (mut asked, mut open_ones, mut done_unanswered) = (0, 0, 0);
    for _ in 0..rounds(3) {
        let (mut requests, (cut, dark)) = under_load(&mut server, &mut workers, &keys, |server| {
            let fuse = disk.fuse();
            pass(up_to(LONGEST));
            let cut = Instant::now();
            fuse.blow();
            let dark = Instant::now();
            // The process does not know: whatever it says yes to now must be on the disk as well.
            pass(up_to(Duration::from_millis(100)));
            server.kill();
            (cut, dark)
        });
        // Where the journal is aborted while a sync waits for it, the kernel may call that sync done. A machine
        // without power would not have sent these answers.
        for request in &mut requests {
            let heard = request.heard.as_ref();
            if request.sent < dark && heard.is_some_and(|heard| heard.at >= cut) {
                request.heard = None;
            }
        }
        let open: Vec<Request> = requests.iter().filter(|r| r.open()).cloned().collect();
        asked += requests.len();
        open_ones += open.len();
        book.note(&requests, cut);
        disk.back();
        server.run();
        done_unanswered += book.audit(&server.database(), &open);
        lost_answers_are_given_again(&server, &mut book, &keys, &open);
        for worker in &mut workers {
            book.teach(worker);
        }
        everybody_lives_on(&server, &book, &keys);
        assert!(is_sound(&server.database()));
    }
    book.no_two_lived_at_once();
    assert_eq!(server.stop(), Some(0));
    book.audit(&server.database(), &[]);
    eprintln!(
        "{asked} requests, {} sessions; {open_ones} requests were left open, of which {done_unanswered} had \
         started a session",
        book.count()
    );
}

/// Clients trust the authority, and sites the signing key, from the first start on: others would lock them out.
#[test]
fn what_a_first_start_gives_out_outlives_a_power_cut() {
    let mut server = Server::prepare(&[]);
    let Some(disk) = Disk::of(&server, 64) else {
        return;
    };
    let fuse = disk.fuse();
    server.run();
    let given_out = keys(&server);
    assert!(given_out.len() > 2, "{given_out:?}");
    fuse.blow();
    server.kill();
    disk.back();
    server.run();
    assert!(keys(&server) == given_out, "other keys");
    let key = server.license(1);
    server.client().session(&key, "laptop");
}

/// Every file of keys and certificates.
fn keys(server: &Server) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = ["data/tls", "data/signing"].map(|folder| files_below(&server.path(folder)));
    let files = folders.into_iter().flatten().filter(|path| path.is_file());
    files
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}
