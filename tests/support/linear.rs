//! Linearizability checker for the recorded history of one license (C4, D8): each operation must take effect at one
//! moment between its call and its response, each response must be true at that moment, and at most one session may
//! run.
//!
//! After Wing and Gong: the search tries every operation that may come next, and remembers the states it has tried. A
//! response that changes nothing is placed as soon as it is true, since that cannot prevent any other order.

use std::collections::HashSet;

/// One operation on a license and its response.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The time of the call, on any clock that all events share.
    pub(crate) call: u128,
    /// The time of the response; for a request without one, the time when the server was dead.
    pub(crate) back: u128,
    pub(crate) what: What,
}

/// Sessions are numbered by the start that created them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A start that succeeded, also when repeated with the same `Idempotency-Key`.
    Started(usize),
    /// A start that was refused because a session is active.
    Refused,
    /// A start without a response.
    MayHaveStarted(usize),
    /// A heartbeat that succeeded.
    Alive(usize),
    /// A heartbeat that was refused because the session has ended.
    Over(usize),
    /// An end that succeeded.
    Ended(usize),
    /// An end without a response.
    MayHaveEnded(usize),
}

/// The running session of a license, if any.
type State = Option<usize>;

struct Search<'a> {
    events: &'a [Event],
    tried: HashSet<(Vec<bool>, State)>,
    /// The largest number of events that any order has explained.
    longest: usize,
}

/// Fails with the reason if `events` cannot have happened one after another on a license without a session.
pub(crate) fn check(mut events: Vec<Event>) -> Result<(), String> {
    events.sort_by_key(|event| event.call);
    let mut state_search = Search {
        events: &events,
        tried: HashSet::new(),
        longest: 0,
    };
    let done = vec![false; events.len()];
    if state_search.search(done, None) {
        return Ok(());
    }
    let (longest, all) = (state_search.longest, events.len());
    let near = &events[longest.saturating_sub(5)..(longest + 5).min(all)];
    Err(format!(
        "no order of {all} operations explains more than {longest} of them; near there: {near:#?}"
    ))
}

impl Search<'_> {
    fn search(&mut self, mut done: Vec<bool>, state: State) -> bool {
        self.place_unchanging(&mut done, state);
        let placed = done.iter().filter(|done| **done).count();
        self.longest = self.longest.max(placed);
        if placed == done.len() {
            return true;
        }
        if !self.tried.insert((done.clone(), state)) {
            return false;
        }
        let next = self.next(&done);
        for &at in &next {
            if let Some(after) = self.change(at, &done, state) {
                let mut done = done.clone();
                done[at] = true;
                if self.search(done, after) {
                    return true;
                }
            }
        }
        // An operation without a response may have had no effect; that is assumed when nothing else can come first.
        let first = next.iter().min_by_key(|at| self.events[**at].back);
        match first.map(|at| (*at, self.events[*at].what)) {
            Some((at, What::MayHaveStarted(_) | What::MayHaveEnded(_))) => {
                done[at] = true;
                self.search(done, state)
            }
            _ => false,
        }
    }

    /// The events that may come next: no remaining event got its response before they were called.
    fn next(&self, done: &[bool]) -> Vec<usize> {
        let remaining = || (0..done.len()).filter(|at| !done[*at]);
        let deadline = remaining()
            .map(|at| self.events[at].back)
            .min()
            .unwrap_or(0);
        remaining()
            .take_while(|at| self.events[*at].call <= deadline)
            .collect()
    }

    /// Places every event that is true now and changes nothing.
    fn place_unchanging(&self, done: &mut [bool], state: State) {
        loop {
            let next = self.next(done);
            let unchanging = next.into_iter().filter(|at| match self.events[*at].what {
                What::Started(id) | What::Alive(id) => state == Some(id),
                What::Refused => state.is_some(),
                What::Over(id) | What::Ended(id) => state != Some(id) && self.was_started(id, done),
                What::MayHaveStarted(_) | What::MayHaveEnded(_) => false,
            });
            let unchanging: Vec<usize> = unchanging.collect();
            if unchanging.is_empty() {
                return;
            }
            for at in unchanging {
                done[at] = true;
            }
        }
    }

    /// Whether an event that is placed has started the session.
    fn was_started(&self, id: usize, done: &[bool]) -> bool {
        let starts = self.events.iter().zip(done).filter(|(_, done)| **done);
        starts.into_iter().any(|(event, _)| {
            matches!(event.what, What::Started(of) | What::MayHaveStarted(of) if of == id)
        })
    }

    /// The state after an event that changes it; `None` if the event cannot come next.
    fn change(&self, at: usize, done: &[bool], state: State) -> Option<State> {
        match self.events[at].what {
            What::Started(id) | What::MayHaveStarted(id) => {
                (state.is_none() && !self.was_started(id, done)).then_some(Some(id))
            }
            What::Ended(id) | What::MayHaveEnded(id) => (state == Some(id)).then_some(None),
            What::Refused | What::Alive(_) | What::Over(_) => None,
        }
    }
}
