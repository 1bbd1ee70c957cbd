//! How often the server calls a domain. A *call* is a request that the server sends to a domain; a *caller* is the client
//! whose own request to the server causes it.

use std::time::Duration;

use super::Handshake;
use crate::clock::Tick;
use crate::digest;
use crate::domain::Domain;
use crate::domains::{DomainBinding, Transfer};
use crate::id::LicenseId;

const MINUTE: Duration = Duration::from_mins(1);
/// Maximum calls a minute within one [`Budget`], not counting those by [`Caller::Unconfirmed`].
const CALLS_PER_MINUTE: usize = 6;
/// How many of [`CALLS_PER_MINUTE`] less trusted callers may cause; the rest is reserved for trusted ones.
const UNTRUSTED_CALLS_PER_MINUTE: usize = 3;
/// Maximum calls a minute to one domain by [`Caller::Unconfirmed`], in addition to [`CALLS_PER_MINUTE`]. Each license can
/// cause one, and the next only after its [`retry_delay`]. To keep the owner of a domain from registering, an attacker
/// would have to own this many licenses and use all of them within a minute.
const UNCONFIRMED_CALLS_PER_MINUTE: usize = 60;
/// Upper limit of [`retry_delay`].
const RETRY_DELAY_MAX: Duration = Duration::from_hours(1);
/// Maximum open handshakes within one [`Budget`], not counting those of [`Caller::Unconfirmed`].
const OPEN_MAX: usize = 3;
/// How many of [`OPEN_MAX`] less trusted callers may have.
const UNTRUSTED_OPEN_MAX: usize = 2;
/// How long a domain that did not respond is not called for [`Caller::Untrusted`] and [`Caller::UnconfirmedRetry`].
const UNREACHABLE_FOR: Duration = Duration::from_mins(1);

/// Identifies this license together with `domain`; only 16 bytes, to save memory.
pub(super) fn pair_digest(license: LicenseId, domain: &Domain) -> [u8; 16] {
    digest::short_of_fields(&[&license.0.to_be_bytes(), domain.as_str().as_bytes()])
}

/// The kinds of callers, by how far they are trusted for a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// It comes from a known source of the domain, or sent the key of a license that the domain has confirmed.
    Trusted,
    /// It sent the key of a license that the domain has not confirmed: a license that is bound to no domain, or one
    /// that another site transfers to this domain. The owner of a new domain starts like this, but any buyer of a
    /// license can do the same with the domain of a stranger.
    Unconfirmed,
    /// Like [`Unconfirmed`](Self::Unconfirmed), but the [`retry_delay`] of the license has not passed yet.
    UnconfirmedRetry,
    /// It sent no key, and does not come from a known source of the domain.
    Untrusted,
}

impl Caller {
    /// The kind of caller that sends the key of a license with this `binding`; `None` if the license is bound to a domain
    /// other than `domain`. A transfer to `domain` counts only after `domain` has confirmed it, because
    /// another site started it.
    pub(super) fn with_license(binding: &DomainBinding, domain: &Domain) -> Option<Self> {
        let is_confirmed = |to: &Transfer| to.domain == *domain && to.confirmed_at.is_some();
        if binding.domain.as_ref() == Some(domain)
            || binding.transfer.as_ref().is_some_and(is_confirmed)
        {
            return Some(Self::Trusted);
        }
        (binding.domain.is_none() || binding.moves_to(domain)).then_some(Self::Unconfirmed)
    }

    /// Whether the caller may use only a part of the calls, and causes none to a domain that did not respond: every such
    /// call occupies one of the limited concurrent calls of `net::egress` until it times out.
    const fn is_less_trusted(self) -> bool {
        matches!(self, Self::Untrusted | Self::UnconfirmedRetry)
    }
}

/// What a call counts against. Each of these has a [`Budget`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum BudgetKey {
    /// All calls to a domain. Each counts as a call by the kind of caller that causes it.
    Domain(Domain),
    /// All calls that a license causes. They count as calls by [`Caller::Trusted`].
    License(LicenseId),
    /// The calls that a license causes to one domain. They count as calls by [`Caller::Untrusted`], whose limits are
    /// lower, so that one license cannot use up the calls that other licenses may cause to the same domain.
    LicenseAndDomain(LicenseId, Domain),
}

impl BudgetKey {
    /// The kind of caller that a call by `caller` counts as in this budget.
    pub(super) const fn counts_as(&self, caller: Caller) -> Caller {
        match self {
            Self::Domain(_) => caller,
            Self::License(_) => Caller::Trusted,
            Self::LicenseAndDomain(..) => Caller::Untrusted,
        }
    }
}

impl Handshake {
    /// What its call counts against: the budget of its domain and, if `budgeted_license` is set, those of the license.
    pub(super) fn budgets(&self) -> Vec<BudgetKey> {
        let mut all = vec![BudgetKey::Domain(self.domain.clone())];
        if let Some(license) = self.budgeted_license {
            all.push(BudgetKey::License(license));
            all.push(BudgetKey::LicenseAndDomain(license, self.domain.clone()));
        }
        all
    }
}

/// The recent calls and open handshakes that count against one [`BudgetKey`].
#[derive(Debug, Default)]
pub(super) struct Budget {
    recent_calls: Vec<CountedCall>,
    open_handshakes: OpenCounts,
    /// When a call last failed without a response.
    unreachable_at: Option<Tick>,
}

impl Budget {
    /// Whether `caller` may cause a call.
    pub(super) fn allows(&self, caller: Caller, now: Tick) -> bool {
        if self.is_unreachable(now) && caller.is_less_trusted() {
            return false;
        }
        let recent_calls = self.recent_calls.iter().copied();
        let recent_calls: Vec<CountedCall> =
            recent_calls.filter(|call| is_recent(*call, now)).collect();
        may_call(&recent_calls, self.open_handshakes, caller)
    }

    /// Counts a call by `caller`, and its open handshake.
    pub(super) fn add_handshake(&mut self, caller: Caller, now: Tick) {
        self.recent_calls.push(CountedCall { at: now, caller });
        self.open_handshakes.all += usize::from(caller != Caller::Unconfirmed);
        self.open_handshakes.less_trusted += usize::from(caller.is_less_trusted());
    }

    /// Stops counting an open handshake that `caller` caused. Its call still counts.
    pub(super) fn remove_handshake(&mut self, caller: Caller) {
        let open = &mut self.open_handshakes;
        let counted = usize::from(caller != Caller::Unconfirmed);
        open.all = open.all.saturating_sub(counted);
        let less_trusted = usize::from(caller.is_less_trusted());
        open.less_trusted = open.less_trusted.saturating_sub(less_trusted);
    }

    /// Notes that a call got no response.
    pub(super) const fn mark_unreachable(&mut self, now: Tick) {
        self.unreachable_at = Some(now);
    }

    /// Whether there is a call that still counts against the limits per minute.
    pub(super) fn was_called_recently(&self, now: Tick) -> bool {
        self.recent_calls.iter().any(|call| is_recent(*call, now))
    }

    /// Forgets the calls that no longer count.
    pub(super) fn forget_old_calls(&mut self, now: Tick) {
        self.recent_calls.retain(|call| is_recent(*call, now));
    }

    /// Whether the budget still limits anything. Call it after [`forget_old_calls`](Self::forget_old_calls).
    pub(super) fn is_needed(&self, now: Tick) -> bool {
        !self.recent_calls.is_empty() || self.open_handshakes.all > 0 || self.is_unreachable(now)
    }

    fn is_unreachable(&self, now: Tick) -> bool {
        self.unreachable_at
            .is_some_and(|at| now.since(at) < UNREACHABLE_FOR)
    }
}

/// The calls to a domain that a license caused since the site there last sent the third message.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnansweredCalls {
    count: u32,
    /// When the last one was made.
    pub(super) at: Tick,
}

impl UnansweredCalls {
    /// None yet.
    pub(super) const fn none(now: Tick) -> Self {
        Self { count: 0, at: now }
    }

    /// Adds a call.
    pub(super) const fn add(&mut self, now: Tick) {
        self.count = self.count.saturating_add(1);
        self.at = now;
    }

    /// Whether the license must wait before it may cause another call.
    pub(super) fn must_wait(&self, now: Tick) -> bool {
        now.since(self.at) < retry_delay(self.count)
    }
}

/// A call that counts against a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CountedCall {
    at: Tick,
    caller: Caller,
}

/// The numbers of open handshakes in one budget, not counting those of [`Caller::Unconfirmed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OpenCounts {
    all: usize,
    less_trusted: usize,
}

/// Whether a call still counts against the limits per minute.
fn is_recent(call: CountedCall, now: Tick) -> bool {
    now.since(call.at) < MINUTE
}

/// Whether `caller` may cause a call. `recent` holds the calls that are [recent](is_recent). Calls by
/// [`Caller::Unconfirmed`] are counted apart, so that they never use up the calls of trusted callers.
fn may_call(recent: &[CountedCall], open: OpenCounts, caller: Caller) -> bool {
    let by = |is_one: &dyn Fn(Caller) -> bool| recent.iter().filter(|it| is_one(it.caller)).count();
    let less_trusted = by(&Caller::is_less_trusted);
    let unconfirmed = by(&|caller| caller == Caller::Unconfirmed);
    let others = recent.len() - unconfirmed;
    match caller {
        Caller::Unconfirmed => unconfirmed < UNCONFIRMED_CALLS_PER_MINUTE,
        Caller::Trusted => others < CALLS_PER_MINUTE && open.all < OPEN_MAX,
        // A retry may only use what no other caller needs, so calls of trusted callers count against it as well.
        Caller::UnconfirmedRetry => {
            others < UNTRUSTED_CALLS_PER_MINUTE && open.all < UNTRUSTED_OPEN_MAX
        }
        Caller::Untrusted => {
            others < CALLS_PER_MINUTE
                && open.all < OPEN_MAX
                && less_trusted < UNTRUSTED_CALLS_PER_MINUTE
                && open.less_trusted < UNTRUSTED_OPEN_MAX
        }
    }
}

/// How long a license waits before it may cause another call as [`Caller::Unconfirmed`], if the site did not send the
/// third message after the last `unanswered` calls in a row: one minute after the first, doubled with each further one.
fn retry_delay(unanswered: u32) -> Duration {
    // Six doublings exceed the maximum; more could overflow.
    let doublings = unanswered.saturating_sub(1).min(6);
    (MINUTE * 2_u32.pow(doublings)).min(RETRY_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::domains::{confirmed_binding, example_binding, example_domain};

    const NOW: UnixMs = UnixMs(1_000_000);

    #[test]
    fn untrusted_callers_never_use_up_the_calls_of_trusted_ones() {
        use Caller::{Trusted, Unconfirmed, UnconfirmedRetry, Untrusted};
        let at = |second| Tick(Duration::from_secs(second));
        let calls = |counts: [usize; 4]| {
            let kinds = [Untrusted, UnconfirmedRetry, Trusted, Unconfirmed];
            let all = kinds.into_iter().zip(counts);
            let all = all.flat_map(|(caller, count)| std::iter::repeat_n(caller, count));
            all.map(|caller| CountedCall { at: at(0), caller })
                .collect::<Vec<_>>()
        };
        let open = |all, less_trusted| OpenCounts { all, less_trusted };
        // Recent calls by untrusted, retrying, trusted and unconfirmed callers; then the open handshakes.
        for (recent, open_now, caller, expected) in [
            ([0, 0, 0, 0], open(0, 0), Untrusted, true),
            ([2, 0, 3, 0], open(1, 1), Untrusted, true),
            ([3, 0, 0, 0], open(0, 0), Untrusted, false),
            ([1, 2, 0, 0], open(0, 0), Untrusted, false),
            ([0, 0, 0, 0], open(2, 2), Untrusted, false),
            ([0, 0, 0, 59], open(0, 0), Untrusted, true),
            ([3, 0, 2, 59], open(2, 2), Trusted, true),
            ([3, 0, 3, 0], open(0, 0), Trusted, false),
            ([0, 0, 0, 0], open(3, 0), Trusted, false),
            // It takes 60 calls with other licenses to keep a license from its first call.
            ([3, 0, 3, 59], open(3, 2), Unconfirmed, true),
            ([0, 0, 0, 60], open(0, 0), Unconfirmed, false),
            ([0, 0, 2, 59], open(1, 0), UnconfirmedRetry, true),
            ([0, 0, 3, 0], open(0, 0), UnconfirmedRetry, false),
            ([0, 0, 0, 0], open(2, 0), UnconfirmedRetry, false),
        ] {
            let allowed = may_call(&calls(recent), open_now, caller);
            assert_eq!(allowed, expected, "{recent:?} {open_now:?} {caller:?}");
        }
        let earlier = CountedCall {
            at: at(5),
            caller: Untrusted,
        };
        assert!(is_recent(earlier, at(64)) && !is_recent(earlier, at(65)));
    }

    #[test]
    fn the_retry_delay_of_an_unconfirmed_license_doubles_up_to_an_hour() {
        let minutes = |unanswered| retry_delay(unanswered).as_secs() / 60;
        let delays: Vec<u64> = (0..9).map(minutes).collect();
        assert_eq!(delays, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(minutes(u32::MAX), 60);
    }

    #[test]
    fn a_license_makes_its_caller_trusted_only_for_a_domain_that_confirmed_it() {
        let later = NOW.0 + 86_400_000;
        let unbound = example_binding(None, None);
        let bound = example_binding(Some("old"), None);
        let moving = example_binding(Some("old"), Some(("new", later)));
        let confirmed = confirmed_binding(&moving, NOW);
        for (binding, domain, caller) in [
            (&bound, "old", Some(Caller::Trusted)),
            (&bound, "any", None),
            (&unbound, "any", Some(Caller::Unconfirmed)),
            (&moving, "old", Some(Caller::Trusted)),
            (&moving, "new", Some(Caller::Unconfirmed)),
            (&moving, "any", None),
            (&confirmed, "new", Some(Caller::Trusted)),
        ] {
            let found = Caller::with_license(binding, &example_domain(domain));
            assert_eq!(found, caller, "{domain} of {binding:?}");
        }
    }
}
