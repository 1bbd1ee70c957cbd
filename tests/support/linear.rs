//! Whether a recorded history of one license can have been one deed after another (C4, D8): each deed at one
//! moment between its call and its answer, each answer true at that moment, one live session at most.
//!
//! After Wing and Gong: what may come next is tried, with a memory of what was tried already. An answer that
//! changes nothing takes its place as soon as it is true, since it is in nobody's way.

use std::collections::HashSet;

/// What was asked on a license, and what came back.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// When it was asked, on any clock that all events share.
    pub(crate) call: u128,
    /// When the answer was there; of a request that was cut off, when the server was dead.
    pub(crate) back: u128,
    pub(crate) what: What,
}

/// Sessions are numbered by who started them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A start was told yes; once more with the same `Idempotency-Key`, too.
    Started(usize),
    /// A start was told that a session is active.
    Refused,
    /// A start without an answer.
    MayHaveStarted(usize),
    /// A heartbeat was told yes.
    Alive(usize),
    /// A heartbeat was told that the session is over.
    Over(usize),
    /// An end was told yes.
    Ended(usize),
    /// An end without an answer.
    MayHaveEnded(usize),
}

/// A license after some of its deeds: which session lives.
type State = Option<usize>;

struct Search<'a> {
    events: &'a [Event],
    tried: HashSet<(Vec<bool>, State)>,
    /// How far the longest try came.
    longest: usize,
}

/// Why `events` cannot have happened one after another on a license without a session.
pub(crate) fn check(mut events: Vec<Event>) -> Result<(), String> {
    events.sort_by_key(|event| event.call);
    let mut search = Search {
        events: &events,
        tried: HashSet::new(),
        longest: 0,
    };
    let done = vec![false; events.len()];
    if search.goes_on(done, None) {
        return Ok(());
    }
    let (longest, all) = (search.longest, events.len());
    let near = &events[longest.saturating_sub(5)..(longest + 5).min(all)];
    Err(format!(
        "no order of {all} deeds explains more than {longest} of them; near there: {near:#?}"
    ))
}

impl Search<'_> {
    fn goes_on(&mut self, mut done: Vec<bool>, state: State) -> bool {
        self.settle(&mut done, state);
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
                if self.goes_on(done, after) {
                    return true;
                }
            }
        }
        // What nobody was answered for may have come to nothing; that is decided when nothing else can wait.
        let first = next.iter().min_by_key(|at| self.events[**at].back);
        match first.map(|at| (*at, self.events[*at].what)) {
            Some((at, What::MayHaveStarted(_) | What::MayHaveEnded(_))) => {
                done[at] = true;
                self.goes_on(done, state)
            }
            _ => false,
        }
    }

    /// Those that may come next: none that is left was answered before they were asked.
    fn next(&self, done: &[bool]) -> Vec<usize> {
        let left = || (0..done.len()).filter(|at| !done[*at]);
        let deadline = left().map(|at| self.events[at].back).min().unwrap_or(0);
        left()
            .take_while(|at| self.events[*at].call <= deadline)
            .collect()
    }

    /// Places every answer that is true now and changes nothing.
    fn settle(&self, done: &mut [bool], state: State) {
        loop {
            let next = self.next(done);
            let quiet = next.into_iter().filter(|at| match self.events[*at].what {
                What::Started(id) | What::Alive(id) => state == Some(id),
                What::Refused => state.is_some(),
                What::Over(id) | What::Ended(id) => state != Some(id) && self.was(id, done),
                What::MayHaveStarted(_) | What::MayHaveEnded(_) => false,
            });
            let quiet: Vec<usize> = quiet.collect();
            if quiet.is_empty() {
                return;
            }
            for at in quiet {
                done[at] = true;
            }
        }
    }

    /// Whether the session was started by what is done.
    fn was(&self, id: usize, done: &[bool]) -> bool {
        let starts = self.events.iter().zip(done).filter(|(_, done)| **done);
        starts.into_iter().any(|(event, _)| {
            matches!(event.what, What::Started(of) | What::MayHaveStarted(of) if of == id)
        })
    }

    /// The state after a deed that changes it; none if it cannot be its turn.
    fn change(&self, at: usize, done: &[bool], state: State) -> Option<State> {
        match self.events[at].what {
            What::Started(id) | What::MayHaveStarted(id) => {
                (state.is_none() && !self.was(id, done)).then_some(Some(id))
            }
            What::Ended(id) | What::MayHaveEnded(id) => (state == Some(id)).then_some(None),
            What::Refused | What::Alive(_) | What::Over(_) => None,
        }
    }
}
