//! Rate limits: a token bucket for each group and source. A bucket is stored as the time at which it will be full again
//! (generic cell rate algorithm).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::secret;
use crate::clock::Tick;
use crate::error::{RefusalKind, Refused};

/// Maximum number of buckets in a table, about 4 MiB. Beyond it, the addresses of a network share a bucket.
const SOURCES_MAX: usize = 50_000;
/// How many times the limit of one source applies to all sources together.
const OVERALL_FACTOR: u32 = 20;
/// How long a caller that was found to hold a device slot is remembered.
const REMEMBERED: Duration = Duration::from_hours(24);

/// Concurrent lookups for sources over their limit. A lookup takes microseconds and each connection waits for at most
/// one, so the last one in the queue waits less than a second.
const CONCURRENT_LOOKUPS: usize = 2;

/// The span of an [`HourlyQuota`].
const HOUR: Duration = Duration::from_hours(1);

/// Minimum time between two evictions from a full table.
const EVICTION_INTERVAL: Duration = Duration::from_secs(10);

/// The code of a request over the limit.
pub const RATE_LIMITED: &str = "rate_limited";

/// The refusal of a request over the limit. The caller may retry after `retry_after_s` seconds.
pub fn rate_limited(retry_after_s: u32) -> Refused {
    Refused::new(RefusalKind::TooMany, RATE_LIMITED).with("retry_after", retry_after_s)
}

/// What is counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Requests with a valid API key, per address.
    Client,
    /// Failed requests that look like guessing, per address.
    ClientFailures,
    /// Requests without a valid API key, per address.
    WithoutApiKey,
    /// Malformed requests with a valid API key, per address.
    Unreadable,
    /// Requests that name no license or session, from an address over its limit.
    Unnamed,
    /// Lookups of one license key, device or session, requested by addresses over their limit.
    NamedLookups,
    /// Requests of one activated device or one session: an allowance that other clients behind the same address cannot
    /// use up.
    NamedCaller,
    /// Requests with unknown session tokens, per license.
    UnknownSessions,
    /// Session starts, per license.
    LicenseStarts,
    /// Device activations, per license.
    LicenseActivations,
    /// New trials without a key, per address.
    Trials,
    /// Handshake requests of sites, per address.
    Site,
    /// Login attempts, per address.
    Login,
    /// Login attempts in a browser in which the same administrator has logged in before.
    LoginKnownBrowser,
    /// Login attempts for one name, from all addresses.
    LoginName,
    /// One-time codes for one administrator, from all addresses.
    TotpCode,
    /// One-time codes in a known browser.
    TotpCodeKnownBrowser,
    /// Re-authentications within one login.
    Reauthentication,
    /// Log lines about failed logins, per address.
    LoginLogLines,
    /// Log lines and audit entries about login attempts that are rejected, per address.
    SourceLockouts,
    /// The same, per account.
    AccountLockouts,
}

/// What identifies a bucket of a group. Each kind has its own table with its own size limit, so that a flood of one
/// kind does not evict buckets of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyedBy {
    /// The client's address.
    Address,
    /// The license key, device or session that a program sends.
    Caller,
    /// A license.
    License,
    /// One of the trials that an address may start within an hour.
    Trial,
    /// The account or browser of a login.
    Login,
}

impl Group {
    const fn keyed_by(self) -> KeyedBy {
        match self {
            Self::Client
            | Self::ClientFailures
            | Self::WithoutApiKey
            | Self::Unreadable
            | Self::Unnamed
            | Self::Site
            | Self::Login
            | Self::LoginLogLines
            | Self::SourceLockouts => KeyedBy::Address,
            Self::NamedCaller | Self::NamedLookups => KeyedBy::Caller,
            Self::UnknownSessions | Self::LicenseStarts | Self::LicenseActivations => {
                KeyedBy::License
            }
            Self::Trials => KeyedBy::Trial,
            Self::LoginKnownBrowser
            | Self::LoginName
            | Self::TotpCode
            | Self::TotpCodeKnownBrowser
            | Self::Reauthentication
            | Self::AccountLockouts => KeyedBy::Login,
        }
    }
}

/// A rate and a burst size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Requests per minute. 0 for no limit.
    pub per_minute: u32,
    /// Requests at once after a pause; at least 1.
    pub burst: u32,
}

/// Where a request comes from: an IPv4 address, or an IPv6 /64 network, since one client usually has a whole /64.
/// Also a digest of another identifier, see [`Source::from_identifier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u64);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            // Bit 63 keeps IPv6 networks distinct from IPv4 addresses.
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64 | 1 << 63),
        }
    }
}

impl Source {
    /// A source that is not an address, such as a browser, a name or a device.
    pub fn from_identifier(text: &[u8]) -> Self {
        let digest = secret::sha256(text);
        let folded = digest.iter().take(8);
        Self(folded.fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }

    /// One of several places of a source, each with a bucket of its own.
    fn place(self, number: u32) -> Self {
        let (source, number) = (self.0.to_be_bytes(), number.to_be_bytes());
        Self::from_identifier(&[source.as_slice(), &number].concat())
    }

    /// The network of an address: /16 for IPv4, /48 for IPv6.
    const fn network(self) -> Self {
        Self(self.0 & !0xFFFF)
    }
}

/// The result of looking up what a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// The caller exists: a device that holds a slot of the license or has a trial, or a session of the license,
    /// running or ended.
    Caller,
    /// Only the license exists.
    License,
    /// Neither exists.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    One(Group, Source),
    /// A network: for its addresses that have no bucket of their own because the table is full.
    Network(Group, Source),
    Shared(Group),
}

/// The buckets of all groups and sources.
#[derive(Debug)]
pub struct Limiter {
    addresses: Mutex<Buckets>,
    callers: Mutex<Buckets>,
    licenses: Mutex<Buckets>,
    trials: Mutex<Buckets>,
    logins: Mutex<Buckets>,
    /// Callers that hold a device slot.
    remembered: Mutex<Remembered>,
    lookups: Semaphore,
}

#[derive(Debug, Default)]
struct Buckets {
    /// When each bucket will be full again. A missing bucket is full.
    full_at: HashMap<Key, Tick>,
    /// The earliest time of the next eviction.
    next_eviction: Tick,
}

#[derive(Debug, Default)]
struct Remembered {
    /// When each caller is forgotten.
    until: HashMap<Source, Tick>,
    next_eviction: Tick,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            addresses: Mutex::default(),
            callers: Mutex::default(),
            licenses: Mutex::default(),
            trials: Mutex::default(),
            logins: Mutex::default(),
            remembered: Mutex::default(),
            lookups: Semaphore::new(CONCURRENT_LOOKUPS),
        }
    }
}

impl Limiter {
    /// Waits in a queue for a permit to look up what a source over its limit names. Requests wait instead of being
    /// rejected, so that invalid requests of other clients behind the same address do not block valid ones.
    pub async fn lookup_permit(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.lookups.acquire().await.ok()
    }

    fn buckets(&self, group: Group) -> MutexGuard<'_, Buckets> {
        let buckets = match group.keyed_by() {
            KeyedBy::Address => &self.addresses,
            KeyedBy::Caller => &self.callers,
            KeyedBy::License => &self.licenses,
            KeyedBy::Trial => &self.trials,
            KeyedBy::Login => &self.logins,
        };
        buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one request out of the bucket.
    ///
    /// # Errors
    /// The seconds to wait, at least 1, if the bucket is empty.
    pub fn take(&self, group: Group, source: Source, rule: Rule, now: Tick) -> Result<(), u32> {
        self.take_many((group, source), rule, 1, now)
    }

    /// Takes `count` requests out of the bucket, or none. Always fails if `count` exceeds the burst size.
    ///
    /// # Errors
    /// The seconds to wait, at least 1, if fewer are left.
    pub fn take_many(
        &self,
        (group, source): (Group, Source),
        rule: Rule,
        count: u32,
        now: Tick,
    ) -> Result<(), u32> {
        let mut buckets = self.buckets(group);
        match buckets.key(group, source, now) {
            Some(key) => buckets.take(key, rule, count, now),
            None => Ok(()),
        }
    }

    /// Takes one of `count` places, each of which is free again after `span`: never more than `count` within any `span`,
    /// which a bucket that refills all the time would allow. `count` 0 for no limit.
    ///
    /// # Errors
    /// The seconds until a place is free, at least 1.
    fn take_place(
        &self,
        (group, source): (Group, Source),
        (count, span): (u32, Duration),
        now: Tick,
    ) -> Result<(), u32> {
        let mut buckets = self.buckets(group);
        let mut wait = span;
        for number in 0..count {
            let Some(key) = buckets.key(group, source.place(number), now) else {
                return Ok(());
            };
            let free_at = buckets.full_at.get(&key).copied().unwrap_or(now);
            if free_at <= now {
                buckets.full_at.insert(key, Tick(now.0 + span));
                return Ok(());
            }
            wait = wait.min(free_at.since(now));
        }
        if count == 0 {
            Ok(())
        } else {
            Err(seconds(wait))
        }
    }

    /// Checks whether the bucket has a request left, without taking it.
    ///
    /// # Errors
    /// The seconds to wait, at least 1, if the bucket is empty.
    pub fn check(&self, group: Group, source: Source, rule: Rule, now: Tick) -> Result<(), u32> {
        let mut buckets = self.buckets(group);
        match buckets.key(group, source, now) {
            Some(key) => buckets.check(key, rule, 1, now),
            None => Ok(()),
        }
    }

    /// Puts back a request that was taken, because it is counted in another group instead.
    pub fn put_back(&self, group: Group, source: Source, rule: Rule, now: Tick) {
        let mut buckets = self.buckets(group);
        let full_at = buckets
            .key(group, source, now)
            .and_then(|key| buckets.full_at.get_mut(&key));
        if let (Some((one, _)), Some(full_at)) = (rule.spans(), full_at) {
            *full_at = Tick(full_at.0.saturating_sub(one));
        }
    }

    /// Counts a failure, also if the bucket is already empty.
    pub fn record_failure(&self, group: Group, source: Source, rule: Rule, now: Tick) {
        // If the bucket is empty, it stays empty.
        let _empty = self.take(group, source, rule, now);
    }

    /// Remembers for a day that `caller` holds a device slot.
    pub fn remember(&self, caller: Source, now: Tick) {
        let mut remembered = self.remembered();
        if remembered.until.len() >= SOURCES_MAX && !remembered.until.contains_key(&caller) {
            if now >= remembered.next_eviction {
                remembered.until.retain(|_, until| *until > now);
                remembered.next_eviction = Tick(now.0 + EVICTION_INTERVAL);
            }
            if remembered.until.len() >= SOURCES_MAX {
                return;
            }
        }
        remembered.until.insert(caller, Tick(now.0 + REMEMBERED));
    }

    /// Whether `caller` was found to hold a device slot within the last day.
    pub fn remembers(&self, caller: Source, now: Tick) -> bool {
        let remembered = self.remembered();
        remembered
            .until
            .get(&caller)
            .is_some_and(|until| *until > now)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rule {
    /// The rule for all sources together.
    #[must_use]
    pub fn overall(self) -> Self {
        Self {
            per_minute: self.per_minute.saturating_mul(OVERALL_FACTOR),
            burst: self.burst.saturating_mul(OVERALL_FACTOR),
        }
    }

    /// The rule for requests that may use only half of the bucket.
    #[must_use]
    pub fn half(self) -> Self {
        Self {
            per_minute: self.per_minute,
            burst: (self.burst / 2).max(1),
        }
    }

    /// The refill time of one request and of the whole bucket. `None` if there is no limit.
    fn spans(self) -> Option<(Duration, Duration)> {
        let one = Duration::from_mins(1).checked_div(self.per_minute)?;
        Some((one, one.saturating_mul(self.burst.max(1))))
    }
}

impl Buckets {
    /// Removes full buckets, which need not be stored. Limited in frequency: it scans the table under the lock.
    fn evict_full_buckets(&mut self, now: Tick) {
        if now >= self.next_eviction {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.next_eviction = Tick(now.0 + EVICTION_INTERVAL);
            // Release the memory after a flood.
            if self.full_at.capacity() > 4 * (self.full_at.len() + 1024) {
                self.full_at.shrink_to_fit();
            }
        }
    }

    /// The bucket of a source. If the table is full, the bucket of its network, so that a flood from one network does
    /// not affect others. `None` for a new caller or license in a full table: it is limited by its address anyway.
    fn key(&mut self, group: Group, source: Source, now: Tick) -> Option<Key> {
        let one = Key::One(group, source);
        if self.has_capacity(one, SOURCES_MAX) {
            return Some(one);
        }
        self.evict_full_buckets(now);
        if self.has_capacity(one, SOURCES_MAX) {
            return Some(one);
        }
        match group.keyed_by() {
            KeyedBy::Caller | KeyedBy::License => None,
            KeyedBy::Login | KeyedBy::Trial => Some(Key::Shared(group)),
            KeyedBy::Address => {
                let network = Key::Network(group, source.network());
                let shared = Key::Shared(group);
                let has_capacity = self.has_capacity(network, 2 * SOURCES_MAX);
                Some(if has_capacity { network } else { shared })
            }
        }
    }

    fn has_capacity(&self, key: Key, max: usize) -> bool {
        self.full_at.len() < max || self.full_at.contains_key(&key)
    }

    fn check(&self, key: Key, rule: Rule, count: u32, now: Tick) -> Result<(), u32> {
        let Some((one, whole)) = rule.spans() else {
            return Ok(());
        };
        let full_at = self.full_at.get(&key).copied().unwrap_or(now).max(now);
        let missing = full_at.since(now) + one.saturating_mul(count);
        if missing <= whole {
            Ok(())
        } else {
            Err(seconds(missing.saturating_sub(whole)))
        }
    }

    fn take(&mut self, key: Key, rule: Rule, count: u32, now: Tick) -> Result<(), u32> {
        self.check(key, rule, count, now)?;
        if let Some((one, _)) = rule.spans() {
            let full_at = self.full_at.entry(key).or_insert(now);
            *full_at = Tick((*full_at).max(now).0 + one.saturating_mul(count));
        }
        Ok(())
    }
}

/// Limits session starts and device activations per license, because each of them writes a permanent row.
#[derive(Clone, Debug)]
pub struct Quota {
    limiter: Arc<Limiter>,
    rule: Rule,
}

impl Quota {
    /// A quota with the limit `rule`, counted in `limiter`.
    pub fn new(limiter: Arc<Limiter>, rule: Rule) -> Self {
        Self { limiter, rule }
    }

    /// A quota without a limit.
    pub fn unlimited() -> Self {
        let rule = Rule {
            per_minute: 0,
            burst: 1,
        };
        Self::new(Arc::default(), rule)
    }

    /// Counts one start or activation (`group`) of the license with the id `license`. The burst is at least `at_once`.
    ///
    /// # Errors
    /// `rate_limited`, with the seconds to wait.
    pub fn take(&self, group: Group, license: i64, at_once: u32, now: Tick) -> Result<(), Refused> {
        let rule = Rule {
            burst: self.rule.burst.max(at_once),
            ..self.rule
        };
        let license = Source::from_identifier(&license.to_be_bytes());
        let taken = self.limiter.take(group, license, rule, now);
        taken.map_err(rate_limited)
    }
}

/// Limits how many of `group` one source may have within an hour.
#[derive(Clone, Debug)]
pub struct HourlyQuota {
    limiter: Arc<Limiter>,
    source: Source,
    group: Group,
    /// 0 for no limit.
    count: u32,
}

impl HourlyQuota {
    /// At most `count` of `group` an hour from `source`, counted in `limiter`; 0 for no limit.
    pub fn new(limiter: Arc<Limiter>, (group, source): (Group, Source), count: u32) -> Self {
        Self {
            limiter,
            source,
            group,
            count,
        }
    }

    /// Counts one.
    ///
    /// # Errors
    /// `rate_limited`, with the seconds to wait.
    pub fn take(&self, now: Tick) -> Result<(), Refused> {
        let (whose, rule) = ((self.group, self.source), (self.count, HOUR));
        let taken = self.limiter.take_place(whose, rule, now);
        taken.map_err(rate_limited)
    }
}

/// `span` in whole seconds, rounded up, at least 1.
fn seconds(span: Duration) -> u32 {
    let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
