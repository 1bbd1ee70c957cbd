//! The requests on each license and their results, for the linearizability check.

use std::collections::HashMap;
use std::time::Instant;

use crate::judge::{Event, What, check};
use crate::load::{Operation, Request};

pub(crate) struct History {
    began: Instant,
    /// The events by license.
    events: HashMap<usize, Vec<Event>>,
    /// Session numbers by the idempotency key of their start, and by their token.
    by_key: HashMap<String, usize>,
    by_token: HashMap<String, usize>,
    /// Heartbeats and ends, until every token is known: that of a start without a response is known only after the
    /// start is repeated.
    with_token: Vec<(Request, Instant)>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            events: HashMap::new(),
            by_key: HashMap::new(),
            by_token: HashMap::new(),
            with_token: Vec::new(),
        }
    }

    /// Adds requests. A request without a response took effect before `down_at`, or never.
    pub(crate) fn note(&mut self, requests: &[Request], down_at: Instant) {
        for request in requests {
            match request.operation {
                Operation::Start => self.start(request, down_at),
                Operation::Heartbeat | Operation::End => {
                    self.with_token.push((request.clone(), down_at));
                }
                Operation::Activate => {}
            }
        }
    }

    fn start(&mut self, request: &Request, down_at: Instant) {
        let number = self.by_key.len();
        let key = request.idempotency_key.clone();
        let id = *self.by_key.entry(key).or_insert(number);
        let response = request.response.as_ref();
        if let Some(token) = response.and_then(|response| response.token.clone()) {
            self.by_token.insert(token, id);
        }
        let what = match response.map(|response| response.status) {
            Some(201) => What::Started(id),
            Some(409) => What::Refused,
            _ => What::MayHaveStarted(id),
        };
        self.push(request, down_at, what);
    }

    fn push(&mut self, request: &Request, down_at: Instant, what: What) {
        let at = |moment: Instant| moment.duration_since(self.began).as_nanos();
        let back = request
            .response
            .as_ref()
            .map_or(down_at, |response| response.at);
        let event = Event {
            call: at(request.sent),
            back: at(back),
            what,
        };
        self.events.entry(request.license).or_default().push(event);
    }

    /// Checks the history of every license.
    pub(crate) fn check(mut self) {
        for (request, down_at) in std::mem::take(&mut self.with_token) {
            let id = self.by_token[request.token.as_ref().unwrap()];
            let what = match (request.operation, request.granted()) {
                (Operation::Heartbeat, true) => What::Alive(id),
                // A heartbeat without a response proves nothing.
                (Operation::Heartbeat, false) => continue,
                (_, true) => What::Ended(id),
                (_, false) => What::MayHaveEnded(id),
            };
            self.push(&request, down_at, what);
        }
        let mut checked = 0;
        for (license, events) in self.events {
            checked += events.len();
            if let Err(problem) = check(events) {
                panic!("license {license}: {problem}");
            }
        }
        eprintln!("{checked} starts, heartbeats and ends are linearizable");
    }
}
