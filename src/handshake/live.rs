//! Open handshakes and recent calls, in memory only: they do not survive the process.
//!
//! A transaction id is removed when it is used or expires, so an id that is late, repeated or unknown is refused.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::rules::{self, Caller, CausedCall, ID_LIFETIME, Id, OpenCounts};
use super::{Eligibility, Handshake};
use crate::clock::{Now, Tick};
use crate::domain::Domain;
use crate::error::Result;
use crate::security::client_address::ClientAddress;
use crate::security::secret;

/// Handshakes that are open at once.
const OPEN_HANDSHAKES_MAX: usize = 10_000;
/// Used request ids that are remembered for each period of [`ID_LIFETIME`], so that an id is accepted once.
const USED_REQUEST_IDS_MAX: usize = 100_000;
/// Budgets of domains and license keys that are kept at once.
const BUDGETS_MAX: usize = 100_000;
/// Entries in [`Tables::unanswered`].
const UNANSWERED_MAX: usize = 100_000;
/// How long such an entry is kept after the last call.
const UNANSWERED_MAX_AGE: Duration = Duration::from_hours(2);
/// The longest time from the request to the site's response to the challenge.
const CHALLENGE_MAX: Duration = Duration::from_secs(12);
/// How long an unreachable domain is not called for [`Caller::Untrusted`] and [`Caller::UnconfirmedRetry`].
const UNREACHABLE_FOR: Duration = Duration::from_mins(1);
/// The shortest time between two evictions by [`OpenHandshakes::open`].
const EVICTION_INTERVAL: Duration = Duration::from_secs(1);

/// Whether the site accepted the challenge; `None` while the call is in progress.
pub(super) type ChallengeAccepted = Option<bool>;

/// Every open handshake.
#[derive(Debug, Default)]
pub(super) struct OpenHandshakes(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// By the digest of the transaction id, so that the time of a lookup reveals nothing about the id.
    open: HashMap<[u8; 32], OpenHandshake>,
    /// Digests of the request ids that were used in the current period of [`ID_LIFETIME`] and in the one before.
    used_request_ids: [HashSet<[u8; 16]>; 2],
    /// When the current period began.
    rotated_at: Tick,
    budgets: HashMap<String, Budget>,
    /// By the digest of license and domain ([`pair_digest`]).
    unanswered: HashMap<[u8; 16], UnansweredCalls>,
    evicted_at: Tick,
    /// Expired handshakes that [`OpenHandshakes::sweep`] has not returned yet.
    abandoned: Vec<Handshake>,
}

#[derive(Debug, Default)]
struct Budget {
    recent_calls: Vec<CausedCall>,
    open: OpenCounts,
    /// When a call last failed without a response. For [`UNREACHABLE_FOR`], the less trusted callers cannot cause
    /// another one, because every such call occupies a call slot until it times out.
    unreachable_at: Option<Tick>,
}

/// Calls that a license caused and after which the domain did not send the third message.
#[derive(Clone, Copy, Debug)]
struct UnansweredCalls {
    count: u32,
    at: Tick,
}

#[derive(Debug)]
struct OpenHandshake {
    id: Id,
    handshake: Handshake,
    closes_at: Tick,
    accepted: watch::Receiver<ChallengeAccepted>,
}

/// An accepted request.
#[derive(Clone, Debug)]
pub(super) struct NewHandshake {
    pub(super) domain: Domain,
    pub(super) source: ClientAddress,
    pub(super) request_id: Id,
    pub(super) eligibility: Eligibility,
}

/// A handshake whose challenge has to be sent.
#[derive(Debug)]
pub(super) struct PendingChallenge {
    pub(super) transaction_id: Id,
    pub(super) request_id: Id,
    pub(super) handshake: Handshake,
    pub(super) accepted: watch::Sender<ChallengeAccepted>,
}

/// A handshake whose transaction id was used by the third message.
#[derive(Debug)]
pub(super) struct RedeemedHandshake {
    pub(super) transaction_id: Id,
    pub(super) handshake: Handshake,
    pub(super) accepted: watch::Receiver<ChallengeAccepted>,
}

impl OpenHandshakes {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a handshake; `None` if the request id was used before or a limit is reached.
    pub(super) fn open(&self, request: NewHandshake, now: Now) -> Result<Option<PendingChallenge>> {
        let transaction_id = Id::new()?;
        let mut tables = self.lock();
        tables.evict(now.tick);
        let handshake = Handshake {
            domain: request.domain.clone(),
            source: request.source,
            caller: tables.classify(&request, now.tick),
            unbound: request.eligibility.unbound,
            key_digest: request.eligibility.key_digest.clone(),
            at: now.wall,
        };
        let budgets = budget_keys(&handshake);
        if tables.open.len() >= OPEN_HANDSHAKES_MAX
            || !budgets
                .iter()
                .all(|(key, caller)| tables.is_within_budget(key, *caller, now.tick))
            || !tables.use_request_id(&request, now.tick)
        {
            return Ok(None);
        }
        tables.count_unanswered(&handshake, now.tick);
        for (key, caller) in budgets {
            let budget = tables.budgets.entry(key).or_default();
            budget.recent_calls.push(CausedCall {
                at: now.tick,
                caller,
            });
            budget.open.all += usize::from(caller != Caller::Unconfirmed);
            budget.open.untrusted += usize::from(caller == Caller::Untrusted);
        }
        let (sender, accepted) = watch::channel(None);
        let open = OpenHandshake {
            id: transaction_id.clone(),
            handshake: handshake.clone(),
            closes_at: Tick(now.tick.0 + CHALLENGE_MAX + ID_LIFETIME),
            accepted,
        };
        tables
            .open
            .insert(secret::sha256(transaction_id.as_bytes()), open);
        Ok(Some(PendingChallenge {
            transaction_id,
            request_id: request.request_id,
            handshake,
            accepted: sender,
        }))
    }

    /// Notes that a call to `domain` got no response.
    pub(super) fn mark_unreachable(&self, domain: &Domain, now: Tick) {
        if let Some(budget) = self.lock().budgets.get_mut(domain.as_str()) {
            budget.unreachable_at = Some(now);
        }
    }

    /// Notes that the site accepted the challenge: its time for the third message starts at `now`.
    pub(super) fn mark_challenged(&self, id: &Id, now: Tick) {
        if let Some(open) = self.lock().open.get_mut(&secret::sha256(id.as_bytes())) {
            open.closes_at = Tick(now.0 + ID_LIFETIME);
        }
    }

    /// Removes the handshake of a transaction id and returns it; `None` if the id is unknown or expired.
    pub(super) fn take(&self, id: &Id, now: Tick) -> Option<RedeemedHandshake> {
        let mut tables = self.lock();
        let open = tables.remove(&secret::sha256(id.as_bytes()))?;
        let (is_same_id, in_time) = (
            secret::constant_time_eq(open.id.as_bytes(), id.as_bytes()),
            now < open.closes_at,
        );
        if is_same_id && !in_time {
            tables.abandoned.push(open.handshake);
            return None;
        }
        is_same_id.then_some(RedeemedHandshake {
            transaction_id: open.id,
            handshake: open.handshake,
            accepted: open.accepted,
        })
    }

    /// Removes a handshake whose challenge failed, if it is still there.
    pub(super) fn close(&self, id: &Id) {
        drop(self.lock().remove(&secret::sha256(id.as_bytes())));
    }

    /// Notes that the site sent the third message: the calls that its license caused no longer count as unanswered.
    pub(super) fn mark_returned(&self, handshake: &Handshake) {
        if let Some(pair) = pair_digest(handshake) {
            self.lock().unanswered.remove(&pair);
        }
    }

    /// Removes everything that has expired, and returns the abandoned handshakes.
    pub(super) fn sweep(&self, now: Tick) -> Vec<Handshake> {
        let mut tables = self.lock();
        tables.evicted_at = Tick::START;
        tables.evict(now);
        std::mem::take(&mut tables.abandoned)
    }
}

impl Budget {
    fn is_unreachable(&self, now: Tick) -> bool {
        self.unreachable_at
            .is_some_and(|at| now.since(at) < UNREACHABLE_FOR)
    }
}

/// The budgets that a handshake counts against, and as which kind of caller: that of its domain; if it has a key
/// digest, also that of the license, and a small one of the pair of both, so that one license cannot use up the calls
/// that other licenses may cause to the same domain.
fn budget_keys(handshake: &Handshake) -> Vec<(String, Caller)> {
    let domain = handshake.domain.as_str();
    let mut all = vec![(domain.to_owned(), handshake.caller)];
    if let Some(key_digest) = &handshake.key_digest {
        all.push((key_digest.clone(), Caller::Trusted));
        all.push((pair_key(key_digest, domain), Caller::Untrusted));
    }
    all
}

/// The key of the budget for a license together with a domain.
fn pair_key(key_digest: &str, domain: &str) -> String {
    format!("{key_digest} {domain}")
}

/// The same as a short digest, to save memory; `None` without a key digest.
fn pair_digest(handshake: &Handshake) -> Option<[u8; 16]> {
    let key = pair_key(handshake.key_digest.as_ref()?, handshake.domain.as_str());
    Some(short_digest(key.as_bytes()))
}

fn short_digest(bytes: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(secret::sha256(bytes).split_at(16).0);
    digest
}

impl Tables {
    /// The kind of caller, after [`Caller::Unconfirmed`] was replaced by [`Caller::UnconfirmedRetry`] if this license
    /// caused a call to this domain lately or its retry delay has not passed.
    fn classify(&self, request: &NewHandshake, now: Tick) -> Caller {
        let Eligibility {
            caller, key_digest, ..
        } = &request.eligibility;
        let pair = key_digest
            .as_ref()
            .map(|it| pair_key(it, request.domain.as_str()));
        let called_recently = |key: &String| {
            let budget = self.budgets.get(key);
            let recent_calls = budget.map_or(&[][..], |budget| &budget.recent_calls);
            recent_calls.iter().any(|call| rules::is_recent(*call, now))
        };
        let must_wait = |key: &String| {
            let unanswered = self.unanswered.get(&short_digest(key.as_bytes()));
            unanswered.is_some_and(|it| now.since(it.at) < rules::retry_delay(it.count))
        };
        match pair {
            Some(key)
                if *caller == Caller::Unconfirmed && (called_recently(&key) || must_wait(&key)) =>
            {
                Caller::UnconfirmedRetry
            }
            _ => *caller,
        }
    }

    /// Counts a call as unanswered until the site sends the third message. A retry before the end of the delay is not
    /// counted, so it does not prolong the delay.
    fn count_unanswered(&mut self, handshake: &Handshake, now: Tick) {
        let Some(pair) = pair_digest(handshake).filter(|_| handshake.caller == Caller::Unconfirmed)
        else {
            return;
        };
        if self.unanswered.len() >= UNANSWERED_MAX && !self.unanswered.contains_key(&pair) {
            let oldest = self.unanswered.iter().min_by_key(|(_, calls)| calls.at);
            if let Some(oldest) = oldest.map(|(pair, _)| *pair) {
                self.unanswered.remove(&oldest);
            }
        }
        let calls = self.unanswered.entry(pair);
        let calls = calls.or_insert(UnansweredCalls { count: 0, at: now });
        calls.count = calls.count.saturating_add(1);
        calls.at = now;
    }

    /// Whether the budget `key` allows a call by `caller`.
    fn is_within_budget(&self, key: &str, caller: Caller, now: Tick) -> bool {
        match self.budgets.get(key) {
            None => self.budgets.len() < BUDGETS_MAX,
            Some(budget) => {
                let is_less_trusted =
                    matches!(caller, Caller::Untrusted | Caller::UnconfirmedRetry);
                if is_less_trusted && budget.is_unreachable(now) {
                    return false;
                }
                let recent_calls = budget.recent_calls.iter().copied();
                let recent_calls: Vec<CausedCall> = recent_calls
                    .filter(|call| rules::is_recent(*call, now))
                    .collect();
                rules::may_call(&recent_calls, budget.open, caller)
            }
        }
    }

    /// Marks a request id as used; false if it was used before, or if too many ids are remembered.
    fn use_request_id(&mut self, request: &NewHandshake, now: Tick) -> bool {
        if now.since(self.rotated_at) >= ID_LIFETIME {
            let last_period = std::mem::take(&mut self.used_request_ids[0]);
            // After a pause of two periods, the ids of both have expired.
            let is_previous = now.since(self.rotated_at) < ID_LIFETIME * 2;
            self.used_request_ids[1] = if is_previous {
                last_period
            } else {
                HashSet::new()
            };
            self.rotated_at = now;
        }
        let mut bytes = request.request_id.as_bytes().to_vec();
        bytes.extend_from_slice(request.domain.as_str().as_bytes());
        let digest = short_digest(&bytes);
        let [current, previous] = &mut self.used_request_ids;
        current.len() < USED_REQUEST_IDS_MAX
            && !previous.contains(&digest)
            && current.insert(digest)
    }

    fn remove(&mut self, digest: &[u8; 32]) -> Option<OpenHandshake> {
        let open = self.open.remove(digest)?;
        for (key, caller) in budget_keys(&open.handshake) {
            if let Some(budget) = self.budgets.get_mut(&key) {
                let counted = usize::from(caller != Caller::Unconfirmed);
                budget.open.all = budget.open.all.saturating_sub(counted);
                let untrusted = usize::from(caller == Caller::Untrusted);
                budget.open.untrusted = budget.open.untrusted.saturating_sub(untrusted);
            }
        }
        Some(open)
    }

    fn evict(&mut self, now: Tick) {
        if now.since(self.evicted_at) < EVICTION_INTERVAL && self.evicted_at > Tick::START {
            return;
        }
        self.evicted_at = now;
        let expired = self.open.iter().filter(|(_, open)| open.closes_at <= now);
        let expired: Vec<[u8; 32]> = expired.map(|(digest, _)| *digest).collect();
        for digest in expired {
            let abandoned = self.remove(&digest).map(|open| open.handshake);
            self.abandoned.extend(abandoned);
        }
        self.abandoned.truncate(OPEN_HANDSHAKES_MAX);
        self.budgets.retain(|_, budget| {
            budget
                .recent_calls
                .retain(|call| rules::is_recent(*call, now));
            !budget.recent_calls.is_empty() || budget.open.all > 0 || budget.is_unreachable(now)
        });
        self.unanswered
            .retain(|_, calls| now.since(calls.at) < UNANSWERED_MAX_AGE);
        if now.since(self.rotated_at) >= ID_LIFETIME * 2 {
            self.used_request_ids = <[HashSet<_>; 2]>::default();
        }
        // Frees the memory that a flood of requests has taken.
        if self.open.len() * 4 < self.open.capacity() {
            self.open.shrink_to_fit();
        }
        if self.budgets.len() * 4 < self.budgets.capacity() {
            self.budgets.shrink_to_fit();
        }
        if self.unanswered.len() * 4 < self.unanswered.capacity() {
            self.unanswered.shrink_to_fit();
        }
    }
}
