//! Open handshakes and recent calls, in memory only: they do not survive the process.
//!
//! A transaction id is removed when it is used or expires, so an id that is late, repeated or unknown is refused.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::budget::{self, Budget, BudgetKey, Caller, UnansweredCalls};
use super::rules::{ID_LIFETIME, Id};
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
/// The longest time from the request to the site's response to the challenge; also how long a delivery waits for that
/// response.
pub(super) const CHALLENGE_MAX: Duration = Duration::from_secs(12);
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
    budgets: HashMap<BudgetKey, Budget>,
    /// By the digest of license and domain.
    unanswered: HashMap<[u8; 16], UnansweredCalls>,
    evicted_at: Tick,
    /// Expired handshakes that [`OpenHandshakes::sweep`] has not returned yet.
    abandoned: Vec<Handshake>,
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
            license: request.eligibility.license,
            at: now.wall,
        };
        if !tables.may_open(&handshake, now.tick) || !tables.use_request_id(&request, now.tick) {
            return Ok(None);
        }
        tables.count_call(&handshake, now.tick);
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
        let key = BudgetKey::Domain(domain.clone());
        if let Some(budget) = self.lock().budgets.get_mut(&key) {
            budget.mark_unreachable(now);
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
        if let Some(license) = handshake.license {
            let pair = license.with_domain(&handshake.domain);
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

impl Tables {
    /// The kind of caller, after [`Caller::Unconfirmed`] was replaced by [`Caller::UnconfirmedRetry`] if this license
    /// caused a call to this domain lately or its retry delay has not passed.
    fn classify(&self, request: &NewHandshake, now: Tick) -> Caller {
        let Eligibility {
            caller, license, ..
        } = request.eligibility;
        let Some(license) = license.filter(|_| caller == Caller::Unconfirmed) else {
            return caller;
        };
        let unanswered = self.unanswered.get(&license.with_domain(&request.domain));
        let must_wait = unanswered.is_some_and(|calls| calls.must_wait(now));
        let key = BudgetKey::LicenseAndDomain(license, request.domain.clone());
        let budget = self.budgets.get(&key);
        if must_wait || budget.is_some_and(|budget| budget.was_called_recently(now)) {
            Caller::UnconfirmedRetry
        } else {
            caller
        }
    }

    /// Whether the limits allow another handshake.
    fn may_open(&self, handshake: &Handshake, now: Tick) -> bool {
        let within_budget = |key| self.is_within_budget(key, handshake.caller, now);
        self.open.len() < OPEN_HANDSHAKES_MAX && handshake.budgets().iter().all(within_budget)
    }

    /// Counts the call of a handshake against its budgets.
    fn count_call(&mut self, handshake: &Handshake, now: Tick) {
        self.count_unanswered(handshake, now);
        for key in handshake.budgets() {
            let caller = key.counts_as(handshake.caller);
            self.budgets.entry(key).or_default().open(caller, now);
        }
    }

    /// Counts a call as unanswered until the site sends the third message. A retry before the end of the delay is not
    /// counted, so it does not prolong the delay.
    fn count_unanswered(&mut self, handshake: &Handshake, now: Tick) {
        let license = handshake.license;
        let Some(license) = license.filter(|_| handshake.caller == Caller::Unconfirmed) else {
            return;
        };
        let pair = license.with_domain(&handshake.domain);
        if self.unanswered.len() >= UNANSWERED_MAX && !self.unanswered.contains_key(&pair) {
            let oldest = self.unanswered.iter().min_by_key(|(_, calls)| calls.at);
            if let Some(oldest) = oldest.map(|(pair, _)| *pair) {
                self.unanswered.remove(&oldest);
            }
        }
        let calls = self.unanswered.entry(pair);
        calls.or_insert(UnansweredCalls::none(now)).add(now);
    }

    /// Whether the budget `key` allows a call by `caller`.
    fn is_within_budget(&self, key: &BudgetKey, caller: Caller, now: Tick) -> bool {
        match self.budgets.get(key) {
            None => self.budgets.len() < BUDGETS_MAX,
            Some(budget) => budget.allows(key.counts_as(caller), now),
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
        let digest = budget::short_digest(&bytes);
        let [current, previous] = &mut self.used_request_ids;
        current.len() < USED_REQUEST_IDS_MAX
            && !previous.contains(&digest)
            && current.insert(digest)
    }

    fn remove(&mut self, digest: &[u8; 32]) -> Option<OpenHandshake> {
        let open = self.open.remove(digest)?;
        for key in open.handshake.budgets() {
            if let Some(budget) = self.budgets.get_mut(&key) {
                budget.close(key.counts_as(open.handshake.caller));
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
        self.budgets.retain(|_, budget| budget.evict(now));
        self.unanswered
            .retain(|_, calls| now.since(calls.at) < UNANSWERED_MAX_AGE);
        if now.since(self.rotated_at) >= ID_LIFETIME * 2 {
            self.used_request_ids = <[HashSet<_>; 2]>::default();
        }
        free_memory(&mut self.open);
        free_memory(&mut self.budgets);
        free_memory(&mut self.unanswered);
    }
}

/// Frees the memory that a flood of requests has taken.
fn free_memory<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.len() * 4 < map.capacity() {
        map.shrink_to_fit();
    }
}
