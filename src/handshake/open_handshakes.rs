//! Open handshakes and recent calls, in memory only: they do not survive a restart.
//!
//! A transaction id is removed when it is used or expires, so an id that is late, repeated or unknown is refused.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::budget::{self, Budget, BudgetKey, Caller, UnansweredCalls};
use super::rules::{ID_LIFETIME, OneTimeId};
use super::{Eligibility, Handshake};
use crate::clock::{Now, Tick};
use crate::digest;
use crate::domain::Domain;
use crate::error::Result;
use crate::security::client_address::ClientAddress;
use crate::security::secret;

/// Maximum handshakes that are open at once.
const OPEN_HANDSHAKES_MAX: usize = 10_000;
/// Maximum used request ids that are remembered for each period of [`ID_LIFETIME`]; a domain uses each id once.
const USED_REQUEST_IDS_MAX: usize = 100_000;
/// Maximum budgets that are kept at once.
const BUDGETS_MAX: usize = 100_000;
/// Maximum entries in [`Tables::unanswered`].
const UNANSWERED_MAX: usize = 100_000;
/// How long an entry of [`Tables::unanswered`] is kept after the last call.
const UNANSWERED_MAX_AGE: Duration = Duration::from_hours(2);
/// How long after the request the call with the challenge is surely over: the time limit of a call in `net::egress`, which
/// alone ends it, and a margin. A handshake whose challenge is not accepted expires [`ID_LIFETIME`] after that.
pub(super) const CHALLENGE_TIMEOUT: Duration = Duration::from_secs(12);
/// Minimum time between two evictions by [`OpenHandshakes::open`].
const EVICTION_INTERVAL: Duration = Duration::from_secs(1);

/// The state of a challenge: the call to the site is in progress, the site has accepted it, or the call has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChallengeState {
    Pending,
    Accepted,
    Failed,
}

/// Every open handshake.
#[derive(Debug, Default)]
pub(super) struct OpenHandshakes(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// By the digest of the transaction id, so that the time of a lookup reveals nothing about the id.
    open: HashMap<[u8; 32], OpenHandshake>,
    /// Digests of the request ids, each with its domain, that were used in this period of [`ID_LIFETIME`] or the last one.
    used_request_ids: [HashSet<[u8; 16]>; 2],
    /// When the current period began.
    rotated_at: Tick,
    budgets: HashMap<BudgetKey, Budget>,
    /// The calls that a license caused to a domain and that the site has not followed with the third message, whatever it
    /// responded; by [`budget::pair_digest`].
    unanswered: HashMap<[u8; 16], UnansweredCalls>,
    evicted_at: Tick,
    /// Expired handshakes that [`OpenHandshakes::sweep`] has not returned yet.
    abandoned: Vec<Handshake>,
}

#[derive(Debug)]
struct OpenHandshake {
    id: OneTimeId,
    handshake: Handshake,
    expires_at: Tick,
    challenge: watch::Receiver<ChallengeState>,
}

/// A request that `check_request` found eligible.
#[derive(Clone, Debug)]
pub(super) struct NewHandshake {
    pub(super) domain: Domain,
    pub(super) source: ClientAddress,
    pub(super) request_id: OneTimeId,
    pub(super) eligibility: Eligibility,
}

/// A handshake whose challenge has to be sent.
#[derive(Debug)]
pub(super) struct PendingChallenge {
    pub(super) transaction_id: OneTimeId,
    pub(super) request_id: OneTimeId,
    pub(super) handshake: Handshake,
    pub(super) state: watch::Sender<ChallengeState>,
}

/// A handshake whose transaction id was used by the third message.
#[derive(Debug)]
pub(super) struct RedeemedHandshake {
    pub(super) transaction_id: OneTimeId,
    pub(super) handshake: Handshake,
    pub(super) challenge: watch::Receiver<ChallengeState>,
}

impl OpenHandshakes {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a handshake; `None` if the request id was used before or a limit is reached.
    pub(super) fn open(&self, request: NewHandshake, now: Now) -> Result<Option<PendingChallenge>> {
        let transaction_id = OneTimeId::new()?;
        let mut tables = self.lock();
        if now.tick.since(tables.evicted_at) >= EVICTION_INTERVAL {
            tables.evict(now.tick);
        }
        let handshake = Handshake {
            domain: request.domain.clone(),
            source: request.source,
            caller: tables.classify(&request, now.tick),
            domain_is_unbound: request.eligibility.domain_is_unbound,
            license: request.eligibility.license,
            budgeted_license: request.eligibility.budgeted_license,
            at: now.wall,
        };
        if !tables.may_open(&handshake, now.tick) || !tables.use_request_id(&request, now.tick) {
            return Ok(None);
        }
        tables.count_call(&handshake, now.tick);
        let (state, challenge) = watch::channel(ChallengeState::Pending);
        let open = OpenHandshake {
            id: transaction_id.clone(),
            handshake: handshake.clone(),
            expires_at: Tick(now.tick.0 + CHALLENGE_TIMEOUT + ID_LIFETIME),
            challenge,
        };
        tables
            .open
            .insert(secret::sha256(transaction_id.as_bytes()), open);
        Ok(Some(PendingChallenge {
            transaction_id,
            request_id: request.request_id,
            handshake,
            state,
        }))
    }

    /// Notes that a call to `domain` got no response.
    pub(super) fn mark_unreachable(&self, domain: &Domain, now: Tick) {
        let key = BudgetKey::Domain(domain.clone());
        if let Some(budget) = self.lock().budgets.get_mut(&key) {
            budget.mark_unreachable(now);
        }
    }

    /// Restarts the time that the site has for the third message, because it has accepted the challenge.
    pub(super) fn restart_lifetime(&self, id: &OneTimeId, now: Tick) {
        if let Some(open) = self.lock().open.get_mut(&secret::sha256(id.as_bytes())) {
            open.expires_at = Tick(now.0 + ID_LIFETIME);
        }
    }

    /// Removes the handshake of a transaction id and returns it; `None` if the id is unknown or expired.
    pub(super) fn take(&self, id: &OneTimeId, now: Tick) -> Option<RedeemedHandshake> {
        let mut tables = self.lock();
        let open = tables.remove(&secret::sha256(id.as_bytes()))?;
        if !secret::constant_time_eq(open.id.as_bytes(), id.as_bytes()) {
            return None;
        }
        if now >= open.expires_at {
            tables.abandoned.push(open.handshake);
            return None;
        }
        Some(RedeemedHandshake {
            transaction_id: open.id,
            handshake: open.handshake,
            challenge: open.challenge,
        })
    }

    /// Removes a handshake whose challenge failed, if it is still there.
    pub(super) fn close(&self, id: &OneTimeId) {
        drop(self.lock().remove(&secret::sha256(id.as_bytes())));
    }

    /// The calls to the domain of `handshake` that its license caused are no longer unanswered, because the site has sent
    /// the third message.
    pub(super) fn forget_unanswered_calls(&self, handshake: &Handshake) {
        if let Some(license) = handshake.budgeted_license {
            let pair = budget::pair_digest(license, &handshake.domain);
            self.lock().unanswered.remove(&pair);
        }
    }

    /// Removes everything that has expired, and returns the abandoned handshakes.
    pub(super) fn sweep(&self, now: Tick) -> Vec<Handshake> {
        let mut tables = self.lock();
        tables.evict(now);
        std::mem::take(&mut tables.abandoned)
    }
}

impl Tables {
    /// The kind of caller: [`Caller::UnconfirmedRetry`] instead of [`Caller::Unconfirmed`] if this license caused a call
    /// to this domain within the last minute or its retry delay has not passed.
    fn classify(&self, request: &NewHandshake, now: Tick) -> Caller {
        let caller = request.eligibility.caller;
        let license = request.eligibility.budgeted_license;
        let Some(license) = license.filter(|_| caller == Caller::Unconfirmed) else {
            return caller;
        };
        let unanswered = self
            .unanswered
            .get(&budget::pair_digest(license, &request.domain));
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
            let budget = self.budgets.entry(key).or_default();
            budget.add_handshake(caller, now);
        }
    }

    /// Counts a call as unanswered until the site sends the third message. A retry before the end of the delay is not
    /// counted, so it does not prolong the delay.
    fn count_unanswered(&mut self, handshake: &Handshake, now: Tick) {
        let license = handshake.budgeted_license;
        let Some(license) = license.filter(|_| handshake.caller == Caller::Unconfirmed) else {
            return;
        };
        let pair = budget::pair_digest(license, &handshake.domain);
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
        self.rotate_request_ids(now);
        let id = request.request_id.as_bytes().as_slice();
        let digest = digest::short_of_fields(&[id, request.domain.as_str().as_bytes()]);
        let [current, previous] = &mut self.used_request_ids;
        current.len() < USED_REQUEST_IDS_MAX
            && !previous.contains(&digest)
            && current.insert(digest)
    }

    /// Begins a new period of used request ids if the current one is over.
    fn rotate_request_ids(&mut self, now: Tick) {
        let elapsed = now.since(self.rotated_at);
        if elapsed < ID_LIFETIME {
            return;
        }
        let [current, previous] = &mut self.used_request_ids;
        *previous = std::mem::take(current);
        // After two periods, the ids of the current one have expired, too.
        if elapsed >= ID_LIFETIME * 2 {
            previous.clear();
        }
        self.rotated_at = now;
    }

    /// Removes an open handshake, by the digest of its transaction id, from the table and from its budgets.
    fn remove(&mut self, digest: &[u8; 32]) -> Option<OpenHandshake> {
        let open = self.open.remove(digest)?;
        for key in open.handshake.budgets() {
            if let Some(budget) = self.budgets.get_mut(&key) {
                budget.remove_handshake(key.counts_as(open.handshake.caller));
            }
        }
        Some(open)
    }

    /// Removes everything that has expired. Expired handshakes become abandoned ones.
    fn evict(&mut self, now: Tick) {
        self.evicted_at = now;
        let expired = self.open.iter().filter(|(_, open)| open.expires_at <= now);
        let expired: Vec<[u8; 32]> = expired.map(|(digest, _)| *digest).collect();
        for digest in expired {
            let abandoned = self.remove(&digest).map(|open| open.handshake);
            self.abandoned.extend(abandoned);
        }
        self.abandoned.truncate(OPEN_HANDSHAKES_MAX);
        self.budgets.retain(|_, budget| {
            budget.forget_old_calls(now);
            budget.is_needed(now)
        });
        self.unanswered
            .retain(|_, calls| now.since(calls.at) < UNANSWERED_MAX_AGE);
        if now.since(self.rotated_at) >= ID_LIFETIME * 2 {
            self.used_request_ids = <[HashSet<_>; 2]>::default();
        }
        shrink_if_sparse(&mut self.open);
        shrink_if_sparse(&mut self.budgets);
        shrink_if_sparse(&mut self.unanswered);
    }
}

/// Frees unused memory of a map that has become much smaller, so that a flood of requests does not occupy it for good.
fn shrink_if_sparse<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.len() * 4 < map.capacity() {
        map.shrink_to_fit();
    }
}
