//! Programs that send requests until their server is gone, and record every response.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::support::{Client, Server, heartbeat_body, identity};

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Activate,
    Start,
    Heartbeat,
    End,
}

/// A request, and its response if there was one.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) license: usize,
    pub(crate) device: usize,
    /// The session of a heartbeat or an end.
    pub(crate) token: Option<String>,
    /// The `Idempotency-Key` of a start.
    pub(crate) idempotency_key: String,
    pub(crate) sent: Instant,
    pub(crate) sent_ms: i64,
    pub(crate) response: Option<Response>,
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) at: Instant,
    pub(crate) status: u16,
    pub(crate) code: String,
    /// The session token of a successful start.
    pub(crate) token: Option<String>,
    pub(crate) retry_after: Option<String>,
}

impl Request {
    /// Whether the request succeeded.
    pub(crate) fn granted(&self) -> bool {
        self.response
            .as_ref()
            .is_some_and(|response| response.status < 300)
    }

    /// Whether it is unknown if the request took effect: there was no response, or one that leaves it open.
    pub(crate) fn unresolved(&self) -> bool {
        self.response
            .as_ref()
            .is_none_or(|response| response.status >= 500)
    }

    pub(crate) fn refused_for_now(&self) -> bool {
        self.response
            .as_ref()
            .is_some_and(|response| response.status == 503)
    }
}

/// One device, which uses many licenses.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) device: usize,
    pub(crate) activated: HashSet<usize>,
    /// Licenses whose slots are taken by other devices.
    full: HashSet<usize>,
    /// Its active sessions: license and token.
    pub(crate) sessions: Vec<(usize, String)>,
    /// How many sessions it keeps active.
    pub(crate) sessions_max: usize,
    /// A thread to unpark at each response that acknowledges a write.
    pub(crate) listener: Option<Thread>,
    /// Whether the disk may fail, so that the database cannot even be read: then all requests, also heartbeats,
    /// may get an error.
    pub(crate) disk_may_fail: bool,
}

impl Worker {
    pub(crate) fn new(device: usize) -> Self {
        Self {
            device,
            activated: HashSet::new(),
            full: HashSet::new(),
            sessions: Vec::new(),
            sessions_max: 8,
            listener: None,
            disk_may_fail: false,
        }
    }

    pub(crate) fn name(&self) -> String {
        device_name(self.device)
    }

    /// Sends requests until `stop` is set, or until there is no response.
    pub(crate) fn work(
        &mut self,
        client: &Client,
        keys: &[String],
        stop: &AtomicBool,
    ) -> Vec<Request> {
        let mut done = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let request = self.next(client, keys);
            let unanswered = request.response.is_none();
            let pause = request.refused_for_now();
            if let Some(listener) = &self.listener
                && request.granted()
                && request.operation != Operation::Heartbeat
            {
                listener.unpark();
            }
            done.push(request);
            if unanswered {
                break;
            }
            if pause {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        done
    }

    /// Sends the next request, and updates its state by the response.
    fn next(&mut self, client: &Client, keys: &[String]) -> Request {
        let license = rand::random_range(0..keys.len());
        let mut choice = rand::random_range(0..100);
        if self.sessions.is_empty() {
            choice = 99;
        } else if self.sessions.len() >= self.sessions_max {
            choice %= 60;
        }
        let key = &keys[license];
        if choice >= 60 && !self.full.contains(&license) {
            return if self.activated.contains(&license) {
                self.start(client, license, key)
            } else {
                self.activate(client, license, key)
            };
        }
        if self.sessions.is_empty() {
            // The random license is full: start on another one.
            let known: Vec<usize> = self.activated.iter().copied().collect();
            if known.is_empty() {
                return self.activate(client, license, key);
            }
            let license = known[rand::random_range(0..known.len())];
            return self.start(client, license, &keys[license]);
        }
        let index = rand::random_range(0..self.sessions.len());
        if choice % 60 < 42 {
            self.heartbeat(client, index, keys)
        } else {
            self.end(client, index)
        }
    }

    fn activate(&mut self, client: &Client, license: usize, key: &str) -> Request {
        let request = self.send(client, Operation::Activate, license, None, key);
        match request
            .response
            .as_ref()
            .map(|h| (h.status, h.code.as_str()))
        {
            Some((200 | 201, _)) => drop(self.activated.insert(license)),
            Some((409, "device_limit_reached")) => drop(self.full.insert(license)),
            None | Some((503, "unavailable")) => {}
            Some(failure) if self.tolerates(failure) => {}
            other => panic!("an activation got {other:?}"),
        }
        request
    }

    fn start(&mut self, client: &Client, license: usize, key: &str) -> Request {
        let request = self.send(client, Operation::Start, license, None, key);
        match request
            .response
            .as_ref()
            .map(|h| (h.status, h.code.as_str()))
        {
            Some((201, _)) => {
                let token = request
                    .response
                    .as_ref()
                    .and_then(|response| response.token.clone());
                self.sessions.push((license, token.unwrap()));
            }
            None | Some((409, "session_active") | (503, "unavailable")) => {}
            Some(failure) if self.tolerates(failure) => {}
            other => panic!("a start got {other:?}"),
        }
        request
    }

    fn heartbeat(&mut self, client: &Client, index: usize, keys: &[String]) -> Request {
        let (license, token) = self.sessions[index].clone();
        let request = self.send(
            client,
            Operation::Heartbeat,
            license,
            Some(token),
            &keys[license],
        );
        match request
            .response
            .as_ref()
            .map(|h| (h.status, h.code.as_str()))
        {
            None | Some((200, _)) => {}
            Some(failure) if self.tolerates(failure) => {}
            other => panic!("a heartbeat of a live session got {other:?}"),
        }
        request
    }

    fn end(&mut self, client: &Client, index: usize) -> Request {
        let (license, token) = self.sessions[index].clone();
        let request = self.send(client, Operation::End, license, Some(token), "");
        match request
            .response
            .as_ref()
            .map(|h| (h.status, h.code.as_str()))
        {
            Some((200, _)) => drop(self.sessions.swap_remove(index)),
            None | Some((503, "unavailable")) => {}
            Some(failure) if self.tolerates(failure) => {}
            other => panic!("an end got {other:?}"),
        }
        request
    }

    fn tolerates(&self, failure_code: (u16, &str)) -> bool {
        self.disk_may_fail && [(503, "unavailable"), (500, "internal")].contains(&failure_code)
    }

    fn send(
        &self,
        client: &Client,
        operation: Operation,
        license: usize,
        token: Option<String>,
        key: &str,
    ) -> Request {
        let (path, body) = match operation {
            Operation::Activate => ("activate", identity(key, &self.name())),
            Operation::Start => ("session/start", identity(key, &self.name())),
            Operation::Heartbeat => (
                "session/heartbeat",
                heartbeat_body(key, token.as_ref().unwrap()),
            ),
            Operation::End => ("session/end", json!({ "session_token": token })),
        };
        let idempotency_key = format!("{:032x}", rand::random::<u128>());
        let headers = [("Idempotency-Key", idempotency_key.as_str())];
        let headers = if operation == Operation::Start {
            &headers[..]
        } else {
            &[]
        };
        let (sent, sent_ms) = (Instant::now(), system_ms());
        let answer = client.try_send(path, body.to_string().as_bytes(), headers);
        let response = answer.ok().map(|answer| Response {
            at: Instant::now(),
            status: answer.status,
            code: answer.code().to_owned(),
            token: answer.body["session_token"].as_str().map(str::to_owned),
            retry_after: answer.header("retry-after").map(str::to_owned),
        });
        Request {
            operation,
            license,
            device: self.device,
            token,
            idempotency_key,
            sent,
            sent_ms,
            response,
        }
    }
}

fn device_name(device: usize) -> String {
    format!("device {device}")
}

/// The device's stored `hardware_id`.
pub(crate) fn hash_of(device: usize) -> String {
    format!("hash of {}", device_name(device))
}

fn system_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Runs all workers concurrently while `meanwhile` runs; returns all requests.
///
/// They stop when `meanwhile` returns, or each by itself when there is no response.
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
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(server)));
        stop.store(true, Ordering::SeqCst);
        let done = all.into_iter().flat_map(|one| one.join().unwrap());
        let done = done.collect();
        match result {
            Ok(result) => (done, result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
