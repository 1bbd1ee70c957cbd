//! How often one source may call: a bucket a group and source, kept as the one moment at which it would
//! be full again (the generic cell rate algorithm).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::secret;
use crate::clock::Tick;
use crate::error::Refused;

/// Buckets of one book that are kept at once; about 4 MiB. Beyond it, networks share a bucket.
const SOURCES_MAX: usize = 50_000;
/// How much more than one source all sources together may try at one name.
const OVERALL_FACTOR: u32 = 20;
/// How long a caller that proved to hold a slot is remembered.
const REMEMBERED: Duration = Duration::from_hours(24);

/// Lookups for sources that are over a limit that run at once. One takes microseconds, and each connection
/// waits for one at most: the last in line waits for less than a second.
const LOOKUPS_AT_ONCE: usize = 2;

/// Between two tidyings of full books.
const TIDY: Duration = Duration::from_secs(10);

/// The code of a call too many.
pub const RATE_LIMITED: &str = "rate_limited";

/// A refusal for having called too often; to come back in `retry_after_s` seconds.
pub fn rate_limited(retry_after_s: u32) -> Refused {
    Refused::plain(RATE_LIMITED).with("retry_after", retry_after_s)
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Calls of shipped programs with the API key, from one source.
    Client,
    /// Their failures that look like guessing, from one source.
    ClientFailures,
    /// Calls without a valid API key, from one source.
    WithoutApiKey,
    /// Calls with the API key that cannot be read, from one source.
    Unreadable,
    /// Calls with the API key that name nothing, from one source that has used up its calls otherwise.
    Unnamed,
    /// Lookups of one thing that is named, by a source that is over a limit.
    NamedLookups,
    /// Calls of one device that holds a slot, or of one session: a share that no neighbour uses up.
    Device,
    /// Heartbeats of sessions that nobody knows, for one license.
    LostSessions,
    /// Sessions that were started on one license.
    LicenseStarts,
    /// Device slots that were taken on one license.
    LicenseActivations,
    /// A site that asks for a callback.
    Site,
    /// Logins from one source.
    Login,
    /// Logins in a browser from which the same person logged in before.
    LoginKnown,
    /// Logins of one name, from everywhere.
    LoginName,
    /// One-time codes of one person, from everywhere.
    Code,
    /// One-time codes in a browser that is known.
    CodeKnown,
    /// Proofs within one login.
    Proof,
    /// Lines of the log about failed logins, from one source.
    LoginLines,
    /// What is told of tries that are refused from one source.
    SourceLockouts,
    /// The same of one account.
    AccountLockouts,
}

/// What the buckets of a group are kept by. Each has a book of its own with a bound of its own: a flood of
/// one kind must not push another kind out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyedBy {
    /// Where a call comes from.
    Address,
    /// What a program names.
    Caller,
    /// A license.
    License,
    /// What a login names.
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
            | Self::LoginLines
            | Self::SourceLockouts => KeyedBy::Address,
            Self::Device | Self::NamedLookups => KeyedBy::Caller,
            Self::LostSessions | Self::LicenseStarts | Self::LicenseActivations => KeyedBy::License,
            Self::LoginKnown
            | Self::LoginName
            | Self::Code
            | Self::CodeKnown
            | Self::Proof
            | Self::AccountLockouts => KeyedBy::Login,
        }
    }
}

/// A minute's worth, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Calls a minute; 0 for no limit.
    pub per_minute: u32,
    /// Calls at once after a rest; at least 1.
    pub burst: u32,
}

/// Who calls: an IPv4 address, or an IPv6 network of 64 bits, since its holder has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u64);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            // Global IPv6 networks have bits above the 32 of IPv4, so the two never meet.
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64 | 1 << 63),
        }
    }
}

impl Source {
    /// What is no address: a browser, a name.
    pub fn named(text: &[u8]) -> Self {
        let digest = secret::sha256(text);
        let folded = digest.iter().take(8);
        Self(folded.fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }

    /// The network around an address: 16 bits of IPv4, 48 of IPv6.
    const fn network(self) -> Self {
        Self(self.0 & !0xFFFF)
    }
}

/// What a lookup says of what a call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The device holds a slot of the license; the session is, or was, one of the license.
    Own,
    /// The license exists.
    License,
    /// It does not exist.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    One(Group, Source),
    /// Of a network, for those of its addresses that there was no room for.
    Network(Group, Source),
    Shared(Group),
}

/// The buckets of all groups and sources.
#[derive(Debug)]
pub struct Limiter {
    addresses: Mutex<Book>,
    callers: Mutex<Book>,
    licenses: Mutex<Book>,
    logins: Mutex<Book>,
    /// Until when a caller counts as one that holds a slot.
    remembered: Mutex<Remembered>,
    lookups: Semaphore,
}

#[derive(Debug, Default)]
struct Book {
    /// When a bucket is full again; one that is not here is full.
    full_at: HashMap<Key, Tick>,
    /// When the book may be gone through again for what can be forgotten.
    tidy_at: Tick,
}

#[derive(Debug, Default)]
struct Remembered {
    until: HashMap<Source, Tick>,
    tidy_at: Tick,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            addresses: Mutex::default(),
            callers: Mutex::default(),
            licenses: Mutex::default(),
            logins: Mutex::default(),
            remembered: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS_AT_ONCE),
        }
    }
}

impl Limiter {
    /// A turn to look up what a source names that is over a limit, in the order of asking. Callers wait for
    /// theirs instead of being refused: what exists must not suffer for what others make up.
    pub async fn turn_to_look_up(&self) -> Option<SemaphorePermit<'_>> {
        // Closed by no one.
        self.lookups.acquire().await.ok()
    }

    fn book(&self, group: Group) -> MutexGuard<'_, Book> {
        let book = match group.keyed_by() {
            KeyedBy::Address => &self.addresses,
            KeyedBy::Caller => &self.callers,
            KeyedBy::License => &self.licenses,
            KeyedBy::Login => &self.logins,
        };
        book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one call out of the bucket.
    ///
    /// # Errors
    /// The seconds to wait, at least 1, when there is none left.
    pub fn take(&self, group: Group, source: Source, rule: Rule, now: Tick) -> Result<(), u32> {
        self.take_many((group, source), rule, 1, now)
    }

    /// Takes `count` calls out of the bucket, or none. More than the whole bucket is never there.
    ///
    /// # Errors
    /// The seconds to wait, at least 1, when fewer are left.
    pub fn take_many(
        &self,
        (group, source): (Group, Source),
        rule: Rule,
        count: u32,
        now: Tick,
    ) -> Result<(), u32> {
        let mut book = self.book(group);
        match book.key(group, source, now) {
            Some(key) => book.take(key, rule, count, now),
            None => Ok(()),
        }
    }

    /// Whether there is a call left in the bucket.
    ///
    /// # Errors
    /// The seconds to wait, at least 1, when there is none.
    pub fn look(&self, group: Group, source: Source, rule: Rule, now: Tick) -> Result<(), u32> {
        let mut book = self.book(group);
        match book.key(group, source, now) {
            Some(key) => book.look(key, rule, 1, now),
            None => Ok(()),
        }
    }

    /// Puts back a call that was taken: it turned out to be somebody's guess, which is counted elsewhere.
    pub fn give_back(&self, group: Group, source: Source, rule: Rule, now: Tick) {
        let mut book = self.book(group);
        let full_at = book
            .key(group, source, now)
            .and_then(|key| book.full_at.get_mut(&key));
        if let (Some((one, _)), Some(full_at)) = (rule.spans(), full_at) {
            *full_at = Tick(full_at.0.saturating_sub(one));
        }
    }

    /// Counts a failure, whether or not there was one left.
    pub fn failed(&self, group: Group, source: Source, rule: Rule, now: Tick) {
        // An empty bucket stays empty: there is nothing to say.
        let _empty = self.take(group, source, rule, now);
    }

    /// Remembers that `caller` holds a slot of the license that it names.
    pub fn remember(&self, caller: Source, now: Tick) {
        let mut remembered = self.remembered();
        if remembered.until.len() >= SOURCES_MAX && !remembered.until.contains_key(&caller) {
            if now >= remembered.tidy_at {
                remembered.until.retain(|_, until| *until > now);
                remembered.tidy_at = Tick(now.0 + TIDY);
            }
            if remembered.until.len() >= SOURCES_MAX {
                return;
            }
        }
        remembered.until.insert(caller, Tick(now.0 + REMEMBERED));
    }

    /// Whether `caller` proved within the day that it holds a slot.
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

    /// The rule for calls that have to leave half of the bucket to others.
    #[must_use]
    pub fn half(self) -> Self {
        Self {
            per_minute: self.per_minute,
            burst: (self.burst / 2).max(1),
        }
    }

    /// The time that one call uses up, and the time that a full bucket is worth.
    fn spans(self) -> Option<(Duration, Duration)> {
        let one = Duration::from_mins(1).checked_div(self.per_minute)?;
        Some((one, one.saturating_mul(self.burst.max(1))))
    }
}

impl Book {
    /// Forgets what no longer counts; seldom, since it looks at all of it while others wait.
    fn tidy(&mut self, now: Tick) {
        if now >= self.tidy_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.tidy_at = Tick(now.0 + TIDY);
            // A flood that has passed gives its memory back.
            if self.full_at.capacity() > 4 * (self.full_at.len() + 1024) {
                self.full_at.shrink_to_fit();
            }
        }
    }

    /// The bucket of a source. When there is no room for another one: that of its network, so that a flood
    /// from one place leaves others alone. None for what is not worth a bucket then: what programs name is
    /// counted by their address too.
    fn key(&mut self, group: Group, source: Source, now: Tick) -> Option<Key> {
        let one = Key::One(group, source);
        if self.has_room(one, SOURCES_MAX) {
            return Some(one);
        }
        self.tidy(now);
        if self.has_room(one, SOURCES_MAX) {
            return Some(one);
        }
        match group.keyed_by() {
            KeyedBy::Caller | KeyedBy::License => None,
            KeyedBy::Login => Some(Key::Shared(group)),
            KeyedBy::Address => {
                let network = Key::Network(group, source.network());
                let shared = Key::Shared(group);
                let room = self.has_room(network, 2 * SOURCES_MAX);
                Some(if room { network } else { shared })
            }
        }
    }

    fn has_room(&self, key: Key, max: usize) -> bool {
        self.full_at.len() < max || self.full_at.contains_key(&key)
    }

    fn look(&self, key: Key, rule: Rule, count: u32, now: Tick) -> Result<(), u32> {
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
        self.look(key, rule, count, now)?;
        if let Some((one, _)) = rule.spans() {
            let full_at = self.full_at.entry(key).or_insert(now);
            *full_at = Tick((*full_at).max(now).0 + one.saturating_mul(count));
        }
        Ok(())
    }
}

/// How often sessions may be started on one license, and slots be taken: what each of them writes stays.
#[derive(Clone, Debug)]
pub struct Quota {
    limiter: Arc<Limiter>,
    rule: Rule,
}

impl Quota {
    /// Counts with `limiter`, by `rule`.
    pub fn new(limiter: Arc<Limiter>, rule: Rule) -> Self {
        Self { limiter, rule }
    }

    /// Without a limit.
    pub fn unlimited() -> Self {
        let rule = Rule {
            per_minute: 0,
            burst: 1,
        };
        Self::new(Arc::default(), rule)
    }

    /// Takes one of `group` for the license of this number, which may have so many at once in any case.
    ///
    /// # Errors
    /// `rate_limited`, with the seconds to wait.
    pub fn take(&self, group: Group, license: i64, at_once: u32, now: Tick) -> Result<(), Refused> {
        let rule = Rule {
            burst: self.rule.burst.max(at_once),
            ..self.rule
        };
        let license = Source::named(&license.to_be_bytes());
        let taken = self.limiter.take(group, license, rule, now);
        taken.map_err(rate_limited)
    }
}

/// Whole seconds, rounded up, at least 1.
fn seconds(span: Duration) -> u32 {
    let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        per_minute: 60,
        burst: 3,
    };

    fn source(last: u8) -> Source {
        IpAddr::from([192, 0, 2, last]).into()
    }

    fn at(seconds: u64) -> Tick {
        Tick(Duration::from_secs(seconds))
    }

    #[test]
    fn a_burst_passes_then_one_a_second() {
        let limiter = Limiter::default();
        let take = |now| limiter.take(Group::Client, source(1), RULE, now);
        assert_eq!(
            [take(at(0)), take(at(0)), take(at(0)), take(at(0))],
            [Ok(()), Ok(()), Ok(()), Err(1)]
        );
        assert_eq!([take(at(1)), take(at(1))], [Ok(()), Err(1)]);
        assert_eq!(
            [take(at(9)), take(at(9)), take(at(9)), take(at(9))],
            [Ok(()), Ok(()), Ok(()), Err(1)]
        );
    }

    #[test]
    fn sources_and_groups_do_not_share_a_bucket() {
        let limiter = Limiter::default();
        let rule = Rule {
            per_minute: 1,
            burst: 1,
        };
        for (group, source) in [
            (Group::Client, source(1)),
            (Group::Client, source(2)),
            (Group::ClientFailures, source(1)),
        ] {
            assert_eq!(limiter.take(group, source, rule, at(0)), Ok(()));
            assert_eq!(limiter.take(group, source, rule, at(0)), Err(60));
        }
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let one: IpAddr = "2001:db8:1:2:3::1".parse().unwrap();
        let same: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        let other: IpAddr = "2001:db8:1:3::1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(Source::from(one), Source::from(same));
        assert_ne!(Source::from(one), Source::from(other));
        assert_eq!(Source::from(mapped), source(7));
    }

    #[test]
    fn looking_uses_nothing_up_and_failing_does() {
        let limiter = Limiter::default();
        let look = || limiter.look(Group::ClientFailures, source(1), RULE, at(0));
        for _ in 0..3 {
            assert_eq!([look(), look()], [Ok(()), Ok(())]);
            limiter.failed(Group::ClientFailures, source(1), RULE, at(0));
        }
        assert_eq!(look(), Err(1));
        for _ in 0..100 {
            limiter.failed(Group::ClientFailures, source(1), RULE, at(0));
        }
        assert_eq!(look(), Err(1), "failures beyond the limit add nothing");
    }

    #[test]
    fn a_call_that_is_given_back_was_never_taken() {
        let limiter = Limiter::default();
        for _ in 0..100 {
            assert_eq!(limiter.take(Group::Client, source(1), RULE, at(0)), Ok(()));
            limiter.give_back(Group::Client, source(1), RULE, at(0));
        }
        assert_eq!(limiter.look(Group::Client, source(1), RULE, at(0)), Ok(()));
    }

    #[test]
    fn whoever_has_to_leave_half_to_others_leaves_half() {
        let limiter = Limiter::default();
        let rule = Rule {
            per_minute: 60,
            burst: 10,
        };
        let take = |rule, now| limiter.take(Group::Client, source(1), rule, at(now));
        let greedy = (0..20).filter(|_| take(rule.half(), 0).is_ok()).count();
        assert_eq!(greedy, 5);
        let others = (0..20).filter(|_| take(rule, 0).is_ok()).count();
        assert_eq!(others, 5);
        // What comes back goes to the others first.
        assert_eq!((take(rule.half(), 1), take(rule, 1)), (Err(5), Ok(())));
    }

    #[test]
    fn a_caller_that_proved_itself_is_remembered_for_a_day() {
        let limiter = Limiter::default();
        let caller = Source::named(b"a key and a fingerprint");
        assert!(!limiter.remembers(caller, at(0)));
        limiter.remember(caller, at(0));
        assert!(limiter.remembers(caller, at(86_399)));
        assert!(!limiter.remembers(caller, at(86_400)));
        for number in 0..100_000_u32 {
            limiter.remember(Source::named(&number.to_be_bytes()), at(86_400));
        }
        assert!(limiter.remembered().until.len() <= SOURCES_MAX);
    }

    #[test]
    fn a_license_has_its_burst_and_then_its_rate() {
        let rule = Rule {
            per_minute: 10,
            burst: 120,
        };
        let quota = Quota::new(Arc::default(), rule);
        let take = |group, at_once, now| quota.take(group, 7, at_once, at(now)).is_ok();
        let starts = |now| {
            let all = (0..1000).filter(|_| take(Group::LicenseStarts, 1, now));
            all.count()
        };
        assert_eq!([starts(0), starts(3600), starts(3660)], [120, 120, 10]);
        let slots = (0..1000).filter(|_| take(Group::LicenseActivations, 300, 0));
        assert_eq!(slots.count(), 300, "every device may come on the first day");
        let unlimited = Quota::unlimited();
        assert!((0..10_000).all(|_| unlimited.take(Group::LicenseStarts, 7, 1, at(0)).is_ok()));
    }

    #[test]
    fn several_calls_are_taken_together_or_not_at_all() {
        let (limiter, source) = (Limiter::default(), source(1));
        let rule = Rule {
            per_minute: 1,
            burst: 10,
        };
        let take =
            |count, now| limiter.take_many((Group::SourceLockouts, source), rule, count, at(now));
        assert_eq!(take(11, 0), Err(60), "more than there ever is");
        assert_eq!(take(10, 0), Ok(()));
        assert_eq!(take(10, 0), Err(600));
        assert_eq!(take(10, 599), Err(1), "what was refused took nothing");
        assert_eq!(take(10, 600), Ok(()));
    }

    #[test]
    fn a_group_that_is_switched_off_lets_everybody_in() {
        let limiter = Limiter::default();
        let off = Rule {
            per_minute: 0,
            burst: 1,
        };
        for _ in 0..10_000 {
            assert_eq!(limiter.take(Group::Client, source(1), off, at(0)), Ok(()));
        }
    }

    #[test]
    fn a_flood_of_sources_neither_grows_the_books_without_end_nor_limits_others() {
        let limiter = Limiter::default();
        let rule = Rule {
            per_minute: 1,
            burst: 2,
        };
        // One host that has an IPv6 network of 48 bits.
        for number in 0..(u128::try_from(SOURCES_MAX).unwrap() + 10_000) {
            let address = 0x2001_0db8_u128 << 96 | number << 64 | 1;
            let address = IpAddr::from(address.to_be_bytes());
            limiter.failed(Group::Client, address.into(), rule, at(0));
        }
        let held = limiter.book(Group::Client).full_at.len();
        assert!(held <= SOURCES_MAX + 1, "{held}");
        let take = |address: &str| {
            let source = address.parse::<IpAddr>().unwrap().into();
            limiter.take(Group::Client, source, rule, at(0)).is_ok()
        };
        assert!(!take("2001:db8:0:ffff::1"), "the flood limits itself");
        assert!(take("2001:db8:1::1"), "and nobody in another network");
        assert!(take("192.0.2.1"));
    }

    #[test]
    fn what_programs_name_is_bounded_and_fills_no_book_of_addresses() {
        let limiter = Limiter::default();
        for number in 0..100_000_u32 {
            let caller = Source::named(&number.to_be_bytes());
            limiter.failed(Group::NamedLookups, caller, RULE, at(0));
        }
        assert!(limiter.book(Group::Device).full_at.len() <= SOURCES_MAX);
        assert!(limiter.book(Group::Client).full_at.is_empty());
    }
}
