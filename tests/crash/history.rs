//! All that was asked of each license and what came of it, for the judge of histories.

use std::collections::HashMap;
use std::time::Instant;

use crate::judge::{Event, What, check};
use crate::load::{Deed, Request};

pub(crate) struct History {
    began: Instant,
    /// By license.
    events: HashMap<usize, Vec<Event>>,
    /// Sessions by the key that their start was sent with, and by their token.
    by_key: HashMap<String, usize>,
    by_token: HashMap<String, usize>,
    /// Heartbeats and ends, until every token is known: a lost start tells its own only when it is asked again.
    named: Vec<(Request, Instant)>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            events: HashMap::new(),
            by_key: HashMap::new(),
            by_token: HashMap::new(),
            named: Vec::new(),
        }
    }

    /// Takes what was asked; what has no answer was done by the time the server was `dead`, or never.
    pub(crate) fn note(&mut self, requests: &[Request], dead: Instant) {
        for request in requests {
            match request.deed {
                Deed::Start => self.start(request, dead),
                Deed::Beat | Deed::End => self.named.push((request.clone(), dead)),
                Deed::Activate => {}
            }
        }
    }

    fn start(&mut self, request: &Request, dead: Instant) {
        let number = self.by_key.len();
        let key = request.idempotency_key.clone();
        let id = *self.by_key.entry(key).or_insert(number);
        let heard = request.heard.as_ref();
        if let Some(token) = heard.and_then(|heard| heard.token.clone()) {
            self.by_token.insert(token, id);
        }
        let what = match heard.map(|heard| heard.status) {
            Some(201) => What::Started(id),
            Some(409) => What::Refused,
            _ => What::MayHaveStarted(id),
        };
        self.push(request, dead, what);
    }

    fn push(&mut self, request: &Request, dead: Instant, what: What) {
        let at = |moment: Instant| moment.duration_since(self.began).as_nanos();
        let back = request.heard.as_ref().map_or(dead, |heard| heard.at);
        let event = Event {
            call: at(request.sent),
            back: at(back),
            what,
        };
        self.events.entry(request.license).or_default().push(event);
    }

    /// Judges the history of every license.
    pub(crate) fn judge(mut self) {
        for (request, dead) in std::mem::take(&mut self.named) {
            let id = self.by_token[request.token.as_ref().unwrap()];
            let what = match (request.deed, request.granted()) {
                (Deed::Beat, true) => What::Alive(id),
                // A heartbeat without an answer says nothing.
                (Deed::Beat, false) => continue,
                (_, true) => What::Ended(id),
                (_, false) => What::MayHaveEnded(id),
            };
            self.push(&request, dead, what);
        }
        let mut judged = 0;
        for (license, events) in self.events {
            judged += events.len();
            if let Err(problem) = check(events) {
                panic!("license {license}: {problem}");
            }
        }
        eprintln!("{judged} starts, heartbeats and ends can have been done one after another");
    }
}
