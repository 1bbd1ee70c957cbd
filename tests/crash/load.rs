//! Programs that work until their server is gone, and remember each word that it said.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::support::{Client, Server, beat, claim};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Activate,
    Start,
    Beat,
    End,
}

/// A request, and its answer if there was one.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) deed: Deed,
    pub(crate) license: usize,
    pub(crate) device: usize,
    /// Of a heartbeat or an end.
    pub(crate) token: Option<String>,
    /// Of a start.
    pub(crate) idempotency_key: String,
    pub(crate) sent: Instant,
    pub(crate) sent_ms: i64,
    pub(crate) heard: Option<Heard>,
}

#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) status: u16,
    pub(crate) code: String,
    /// Of a start that was told yes.
    pub(crate) token: Option<String>,
    pub(crate) retry_after: Option<String>,
}

impl Request {
    /// Whether the answer was yes.
    pub(crate) fn granted(&self) -> bool {
        self.heard.as_ref().is_some_and(|heard| heard.status < 300)
    }

    /// Whether nobody can say if it was done: there was no answer, or one that leaves it open.
    pub(crate) fn open(&self) -> bool {
        self.heard.as_ref().is_none_or(|heard| heard.status >= 500)
    }

    pub(crate) fn refused_for_now(&self) -> bool {
        self.heard.as_ref().is_some_and(|heard| heard.status == 503)
    }
}

/// One device, which runs the program on many licenses.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) device: usize,
    pub(crate) activated: HashSet<usize>,
    /// Licenses whose slots other devices have taken.
    full: HashSet<usize>,
    /// Sessions that it runs.
    pub(crate) held: Vec<(usize, String)>,
    /// How many sessions it would like to have.
    pub(crate) appetite: usize,
    /// Who is woken by each yes that must be in the file.
    pub(crate) listener: Option<Thread>,
    /// Whether the disk may be gone, so that the file cannot even be read: then everybody, who sends a
    /// heartbeat too, may hear of a failure.
    pub(crate) may_be_dark: bool,
}

impl Worker {
    pub(crate) fn new(device: usize) -> Self {
        Self {
            device,
            activated: HashSet::new(),
            full: HashSet::new(),
            held: Vec::new(),
            appetite: 8,
            listener: None,
            may_be_dark: false,
        }
    }

    pub(crate) fn name(&self) -> String {
        device_name(self.device)
    }

    /// Works until it is told to stop, or until nobody answers any more.
    pub(crate) fn work(
        &mut self,
        client: &Client,
        keys: &[String],
        stop: &AtomicBool,
    ) -> Vec<Request> {
        let mut done = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let request = self.next(client, keys);
            let gone = request.heard.is_none();
            let pause = request.refused_for_now();
            if let Some(listener) = &self.listener
                && request.granted()
                && request.deed != Deed::Beat
            {
                listener.unpark();
            }
            done.push(request);
            if gone {
                break;
            }
            if pause {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        done
    }

    /// Asks for the next thing, and lives with the answer.
    fn next(&mut self, client: &Client, keys: &[String]) -> Request {
        let license = rand::random_range(0..keys.len());
        let mut dice = rand::random_range(0..100);
        if self.held.is_empty() {
            dice = 99;
        } else if self.held.len() >= self.appetite {
            dice %= 60;
        }
        let key = &keys[license];
        if dice >= 60 && !self.full.contains(&license) {
            return if self.activated.contains(&license) {
                self.start(client, license, key)
            } else {
                self.activate(client, license, key)
            };
        }
        if self.held.is_empty() {
            // Every license that the dice found is full: one of the others, next time.
            let known: Vec<usize> = self.activated.iter().copied().collect();
            if known.is_empty() {
                return self.activate(client, license, key);
            }
            let license = known[rand::random_range(0..known.len())];
            return self.start(client, license, &keys[license]);
        }
        let place = rand::random_range(0..self.held.len());
        if dice % 60 < 42 {
            self.beat(client, place, keys)
        } else {
            self.end(client, place)
        }
    }

    fn activate(&mut self, client: &Client, license: usize, key: &str) -> Request {
        let request = self.ask(client, Deed::Activate, license, None, key);
        match request.heard.as_ref().map(|h| (h.status, h.code.as_str())) {
            Some((200 | 201, _)) => drop(self.activated.insert(license)),
            Some((409, "device_limit_reached")) => drop(self.full.insert(license)),
            None | Some((503, "unavailable")) => {}
            Some(failure) if self.bears(failure) => {}
            other => panic!("an activation was told {other:?}"),
        }
        request
    }

    fn start(&mut self, client: &Client, license: usize, key: &str) -> Request {
        let request = self.ask(client, Deed::Start, license, None, key);
        match request.heard.as_ref().map(|h| (h.status, h.code.as_str())) {
            Some((201, _)) => {
                let token = request.heard.as_ref().and_then(|heard| heard.token.clone());
                self.held.push((license, token.unwrap()));
            }
            None | Some((409, "session_active") | (503, "unavailable")) => {}
            Some(failure) if self.bears(failure) => {}
            other => panic!("a start was told {other:?}"),
        }
        request
    }

    fn beat(&mut self, client: &Client, place: usize, keys: &[String]) -> Request {
        let (license, token) = self.held[place].clone();
        let request = self.ask(client, Deed::Beat, license, Some(token), &keys[license]);
        match request.heard.as_ref().map(|h| (h.status, h.code.as_str())) {
            None | Some((200, _)) => {}
            Some(failure) if self.bears(failure) => {}
            other => panic!("a heartbeat of a live session was told {other:?}"),
        }
        request
    }

    fn end(&mut self, client: &Client, place: usize) -> Request {
        let (license, token) = self.held[place].clone();
        let request = self.ask(client, Deed::End, license, Some(token), "");
        match request.heard.as_ref().map(|h| (h.status, h.code.as_str())) {
            Some((200, _)) => drop(self.held.swap_remove(place)),
            None | Some((503, "unavailable")) => {}
            Some(failure) if self.bears(failure) => {}
            other => panic!("an end was told {other:?}"),
        }
        request
    }

    fn bears(&self, told: (u16, &str)) -> bool {
        self.may_be_dark && [(503, "unavailable"), (500, "internal")].contains(&told)
    }

    fn ask(
        &self,
        client: &Client,
        deed: Deed,
        license: usize,
        token: Option<String>,
        key: &str,
    ) -> Request {
        let (path, body) = match deed {
            Deed::Activate => ("activate", claim(key, &self.name())),
            Deed::Start => ("session/start", claim(key, &self.name())),
            Deed::Beat => ("session/heartbeat", beat(key, token.as_ref().unwrap())),
            Deed::End => ("session/end", json!({ "session_token": token })),
        };
        let idempotency_key = format!("{:032x}", rand::random::<u128>());
        let headers = [("Idempotency-Key", idempotency_key.as_str())];
        let headers = if deed == Deed::Start {
            &headers[..]
        } else {
            &[]
        };
        let (sent, sent_ms) = (Instant::now(), machine_ms());
        let answer = client.try_send(path, body.to_string().as_bytes(), headers);
        let heard = answer.ok().map(|answer| Heard {
            at: Instant::now(),
            status: answer.status,
            code: answer.code().to_owned(),
            token: answer.body["session_token"].as_str().map(str::to_owned),
            retry_after: answer.header("retry-after").map(str::to_owned),
        });
        Request {
            deed,
            license,
            device: self.device,
            token,
            idempotency_key,
            sent,
            sent_ms,
            heard,
        }
    }
}

fn device_name(device: usize) -> String {
    format!("device {device}")
}

/// As the file's `hardware_id` has it.
pub(crate) fn hash_of(device: usize) -> String {
    format!("hash of {}", device_name(device))
}

fn machine_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Lets every worker work at once, while `meanwhile` happens; all that was asked.
///
/// They stop when `meanwhile` is over, or each by itself when nobody answers.
pub(crate) fn under_load<T>(
    server: &mut Server,
    workers: &mut [Worker],
    keys: &[String],
    meanwhile: impl FnOnce(&mut Server) -> T,
) -> (Vec<Request>, T) {
    let stop = AtomicBool::new(false);
    let clients: Vec<Client> = workers.iter().map(|_| server.client()).collect();
    std::thread::scope(|scope| {
        let stop = &stop;
        let all: Vec<_> = workers
            .iter_mut()
            .zip(clients)
            .map(|(worker, client)| scope.spawn(move || worker.work(&client, keys, stop)))
            .collect();
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(server)));
        stop.store(true, Ordering::SeqCst);
        let done = all.into_iter().flat_map(|one| one.join().unwrap());
        let done = done.collect();
        match seen {
            Ok(seen) => (done, seen),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
