//! Handshakes under way, in memory: which ids are open, whom they are bound to, and what was called lately.
//!
//! Nothing here survives the process, and nothing lives longer than it may: whoever comes too late, comes
//! twice, or comes with another's id finds nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::rules::{self, Called, Caller, Id, LIFE, UnderWay};
use super::{Handshake, Standing};
use crate::clock::{Now, Tick};
use crate::domain::Domain;
use crate::error::Result;
use crate::security::client_address::ClientAddress;
use crate::security::secret;

/// Ids that are open at once.
const OPEN_MAX: usize = 10_000;
/// Request ids that are remembered so that none serves twice; a call a millisecond for their whole life.
const SPENT_MAX: usize = 100_000;
/// Domains, and keys, whose calls are counted.
const BUDGETS_MAX: usize = 100_000;
/// Licenses that are remembered for calls to a domain which came to nothing.
const TRIES_MAX: usize = 100_000;
/// How long they are.
const TRIES_KEPT: Duration = Duration::from_hours(2);
/// The longest that a challenge may take, with what comes before it.
const CHALLENGE: Duration = Duration::from_secs(12);
/// How long strangers let a domain alone that did not answer.
const UNREACHABLE: Duration = Duration::from_mins(1);
/// Between two tidyings by those who come.
const TIDY: Duration = Duration::from_secs(1);

/// Whether the site took its challenge; none while nobody knows.
pub(super) type Taken = Option<bool>;

/// Every handshake under way.
#[derive(Debug, Default)]
pub(super) struct OpenHandshakes(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// By the digest of the transaction id: how long a look takes tells nothing of the id.
    open: HashMap<[u8; 32], Open>,
    /// Digests of request ids that came in this half of their life, and in the half before.
    spent: [HashSet<[u8; 16]>; 2],
    turned_at: Tick,
    budgets: HashMap<String, Budget>,
    /// By license and domain.
    tries: HashMap<[u8; 16], Tries>,
    tidied_at: Tick,
    gone: Vec<Handshake>,
}

#[derive(Debug, Default)]
struct Budget {
    lately: Vec<Called>,
    open: UnderWay,
    /// When a call came to no answer at all. For a while strangers have nobody call there again: each such
    /// call takes a place for as long as it lasts.
    unreachable_at: Option<Tick>,
}

/// Calls that a license caused to a domain which never came back from one of them.
#[derive(Clone, Copy, Debug)]
struct Tries {
    count: u32,
    at: Tick,
}

#[derive(Debug)]
struct Open {
    id: Id,
    visit: Handshake,
    closes_at: Tick,
    taken: watch::Receiver<Taken>,
}

/// What a site wants, and who it may be.
#[derive(Clone, Debug)]
pub(super) struct NewHandshake {
    pub(super) domain: Domain,
    pub(super) source: ClientAddress,
    pub(super) request_id: Id,
    pub(super) standing: Standing,
}

/// A handshake whose challenge is to be sent.
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) transaction_id: Id,
    pub(super) request_id: Id,
    pub(super) visit: Handshake,
    pub(super) taken: watch::Sender<Taken>,
}

/// A handshake whose third message has come.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) transaction_id: Id,
    pub(super) visit: Handshake,
    pub(super) taken: watch::Receiver<Taken>,
}

impl OpenHandshakes {
    fn memory(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a handshake; none where the request id was used before, or some limit is reached.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub(super) fn open(&self, wish: NewHandshake, now: Now) -> Result<Option<Challenge>> {
        let transaction_id = Id::new()?;
        let mut memory = self.memory();
        memory.tidy(now.tick);
        let visit = Handshake {
            domain: wish.domain.clone(),
            source: wish.source,
            caller: memory.again(&wish, now.tick),
            unbound: wish.standing.unbound,
            key_digest: wish.standing.key_digest.clone(),
            at: now.wall,
        };
        let names = budgets(&visit);
        if memory.open.len() >= OPEN_MAX
            || !names
                .iter()
                .all(|(name, caller)| memory.has_room(name, *caller, now.tick))
            || !memory.spend(&wish, now.tick)
        {
            return Ok(None);
        }
        memory.tried(&visit, now.tick);
        for (name, caller) in names {
            let budget = memory.budgets.entry(name).or_default();
            budget.lately.push(Called {
                at: now.tick,
                caller,
            });
            budget.open.all += usize::from(caller != Caller::Vouched);
            budget.open.strangers += usize::from(caller == Caller::Stranger);
        }
        let (tell, taken) = watch::channel(None);
        let open = Open {
            id: transaction_id.clone(),
            visit: visit.clone(),
            closes_at: Tick(now.tick.0 + CHALLENGE + LIFE),
            taken,
        };
        memory
            .open
            .insert(secret::sha256(transaction_id.as_bytes()), open);
        Ok(Some(Challenge {
            transaction_id,
            request_id: wish.request_id,
            visit,
            taken: tell,
        }))
    }

    /// Nobody answered for `domain`.
    pub(super) fn unreachable(&self, domain: &Domain, now: Tick) {
        if let Some(budget) = self.memory().budgets.get_mut(domain.as_str()) {
            budget.unreachable_at = Some(now);
        }
    }

    /// The site has its challenge: from `now` on, it has its time.
    pub(super) fn challenged(&self, id: &Id, now: Tick) {
        if let Some(open) = self.memory().open.get_mut(&secret::sha256(id.as_bytes())) {
            open.closes_at = Tick(now.0 + LIFE);
        }
    }

    /// Takes the handshake of this id out: an id serves once. None for one that is not open.
    pub(super) fn take(&self, id: &Id, now: Tick) -> Option<Returned> {
        let mut memory = self.memory();
        let open = memory.remove(&secret::sha256(id.as_bytes()))?;
        let (same, in_time) = (
            secret::same(open.id.as_bytes(), id.as_bytes()),
            now < open.closes_at,
        );
        if same && !in_time {
            memory.gone.push(open.visit);
            return None;
        }
        same.then_some(Returned {
            transaction_id: open.id,
            visit: open.visit,
            taken: open.taken,
        })
    }

    /// Takes out a handshake whose challenge came to nothing; that it is gone already is no error.
    pub(super) fn close(&self, id: &Id) {
        drop(self.memory().remove(&secret::sha256(id.as_bytes())));
    }

    /// The domain of this visit came back with its transaction id: the license that was shown for it belongs there.
    pub(super) fn came_back(&self, visit: &Handshake) {
        if let Some(pair) = pair(visit) {
            self.memory().tries.remove(&pair);
        }
    }

    /// Forgets what is over; the visits that came to nothing.
    pub(super) fn sweep(&self, now: Tick) -> Vec<Handshake> {
        let mut memory = self.memory();
        memory.tidied_at = Tick::START;
        memory.tidy(now);
        std::mem::take(&mut memory.gone)
    }
}

impl Budget {
    fn is_unreachable(&self, now: Tick) -> bool {
        self.unreachable_at
            .is_some_and(|at| now.since(at) < UNREACHABLE)
    }
}

/// What a handshake takes from: the budget of its domain; where a license was shown that is no proof, that of the
/// license, and a small one of both, so that one license does not use up what others may ask for the same domain.
fn budgets(visit: &Handshake) -> Vec<(String, Caller)> {
    let domain = visit.domain.as_str();
    let mut all = vec![(domain.to_owned(), visit.caller)];
    if let Some(key_digest) = &visit.key_digest {
        all.push((key_digest.clone(), Caller::Known));
        all.push((both(key_digest, domain), Caller::Stranger));
    }
    all
}

/// The name of the budget of a license and a domain that has not proved it.
fn both(key_digest: &str, domain: &str) -> String {
    format!("{key_digest} {domain}")
}

/// The same, short: of these there are many.
fn pair(visit: &Handshake) -> Option<[u8; 16]> {
    let both = both(visit.key_digest.as_ref()?, visit.domain.as_str());
    Some(short(both.as_bytes()))
}

fn short(text: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(secret::sha256(text).split_at(16).0);
    short
}

impl Tables {
    /// Who asks: a license whose wait for the same domain is not over stands behind others.
    fn again(&self, wish: &NewHandshake, now: Tick) -> Caller {
        let Standing {
            caller, key_digest, ..
        } = &wish.standing;
        let both = key_digest.as_ref().map(|it| both(it, wish.domain.as_str()));
        let called = |name: &String| {
            let before = self.budgets.get(name);
            let lately = before.map_or(&[][..], |budget| &budget.lately);
            lately.iter().any(|called| rules::counts(*called, now))
        };
        let waits = |name: &String| {
            let tries = self.tries.get(&short(name.as_bytes()));
            tries.is_some_and(|tries| now.since(tries.at) < rules::wait(tries.count))
        };
        match both {
            Some(name) if *caller == Caller::Vouched && (called(&name) || waits(&name)) => {
                Caller::VouchedAgain
            }
            _ => *caller,
        }
    }

    /// A call is caused. It comes to nothing until the domain comes back. Calls during a wait do not prolong it.
    fn tried(&mut self, visit: &Handshake, now: Tick) {
        let Some(pair) = pair(visit).filter(|_| visit.caller == Caller::Vouched) else {
            return;
        };
        if self.tries.len() >= TRIES_MAX && !self.tries.contains_key(&pair) {
            let oldest = self.tries.iter().min_by_key(|(_, tries)| tries.at);
            if let Some(oldest) = oldest.map(|(pair, _)| *pair) {
                self.tries.remove(&oldest);
            }
        }
        let tries = self.tries.entry(pair);
        let tries = tries.or_insert(Tries { count: 0, at: now });
        tries.count = tries.count.saturating_add(1);
        tries.at = now;
    }

    fn has_room(&self, name: &str, caller: Caller, now: Tick) -> bool {
        match self.budgets.get(name) {
            None => self.budgets.len() < BUDGETS_MAX,
            Some(budget) => {
                let waits = matches!(caller, Caller::Stranger | Caller::VouchedAgain);
                if waits && budget.is_unreachable(now) {
                    return false;
                }
                let lately = budget.lately.iter().copied();
                let lately: Vec<Called> = lately
                    .filter(|called| rules::counts(*called, now))
                    .collect();
                rules::may_call(&lately, budget.open, caller)
            }
        }
    }

    /// Uses a request id up; false where it was, or where there is no room to remember it.
    fn spend(&mut self, wish: &NewHandshake, now: Tick) -> bool {
        if now.since(self.turned_at) >= LIFE {
            let young = std::mem::take(&mut self.spent[0]);
            // After a long silence even the young ones are old.
            let old = now.since(self.turned_at) < LIFE * 2;
            self.spent[1] = if old { young } else { HashSet::new() };
            self.turned_at = now;
        }
        let mut text = wish.request_id.as_bytes().to_vec();
        text.extend_from_slice(wish.domain.as_str().as_bytes());
        let short = short(&text);
        let [young, old] = &mut self.spent;
        young.len() < SPENT_MAX && !old.contains(&short) && young.insert(short)
    }

    fn remove(&mut self, digest: &[u8; 32]) -> Option<Open> {
        let open = self.open.remove(digest)?;
        for (name, caller) in budgets(&open.visit) {
            if let Some(budget) = self.budgets.get_mut(&name) {
                let counted = usize::from(caller != Caller::Vouched);
                budget.open.all = budget.open.all.saturating_sub(counted);
                let stranger = usize::from(caller == Caller::Stranger);
                budget.open.strangers = budget.open.strangers.saturating_sub(stranger);
            }
        }
        Some(open)
    }

    fn tidy(&mut self, now: Tick) {
        if now.since(self.tidied_at) < TIDY && self.tidied_at > Tick::START {
            return;
        }
        self.tidied_at = now;
        let late = self.open.iter().filter(|(_, open)| open.closes_at <= now);
        let late: Vec<[u8; 32]> = late.map(|(digest, _)| *digest).collect();
        for digest in late {
            let gone = self.remove(&digest).map(|open| open.visit);
            self.gone.extend(gone);
        }
        self.gone.truncate(OPEN_MAX);
        self.budgets.retain(|_, budget| {
            budget.lately.retain(|called| rules::counts(*called, now));
            !budget.lately.is_empty() || budget.open.all > 0 || budget.is_unreachable(now)
        });
        self.tries
            .retain(|_, tries| now.since(tries.at) < TRIES_KEPT);
        if now.since(self.turned_at) >= LIFE * 2 {
            self.spent = <[HashSet<_>; 2]>::default();
        }
        // A flood that has passed gives its memory back.
        if self.open.len() * 4 < self.open.capacity() {
            self.open.shrink_to_fit();
        }
        if self.budgets.len() * 4 < self.budgets.capacity() {
            self.budgets.shrink_to_fit();
        }
        if self.tries.len() * 4 < self.tries.capacity() {
            self.tries.shrink_to_fit();
        }
    }
}
