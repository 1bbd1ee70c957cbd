//! How often one source may call: a bucket a group and source, kept as the one moment at which it would
//! be full again (the generic cell rate algorithm).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::secret;
use crate::clock::Tick;

/// Sources remembered at once; about 4 MiB. Beyond it the forgotten ones share a bucket.
const SOURCES_MAX: usize = 50_000;
/// How much more than one source all sources together may fail.
const OVERALL_FACTOR: u32 = 20;
/// How long a source that was served counts as known.
const KNOWN: Duration = Duration::from_hours(1);

/// Between two tidyings of full books.
const TIDY: Duration = Duration::from_secs(10);

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Every call of a shipped program.
    Client,
    /// Its failures that look like guessing.
    ClientFailures,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    One(Group, Source),
    All(Group),
    Forgotten(Group),
}

/// The buckets of all groups and sources.
#[derive(Debug, Default)]
pub struct Limiter(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    /// When a bucket is full again; one that is not here is full.
    full_at: HashMap<Key, Tick>,
    /// Until when a source counts as known.
    known_until: HashMap<Source, Tick>,
    /// When the books may be gone through again for what can be forgotten.
    tidy_at: Tick,
}

impl Limiter {
    /// Takes one call out of the bucket.
    ///
    /// # Errors
    /// The seconds to wait, at least 1, when there is none left.
    pub fn take(&self, group: Group, source: Source, rule: Rule, now: Tick) -> Result<(), u32> {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = books.key(group, source, now);
        books.take(key, rule, now)
    }

    /// Whether there is a call left in the bucket.
    ///
    /// # Errors
    /// The seconds to wait, at least 1, when there is none.
    pub fn look(&self, group: Group, source: Source, rule: Rule, now: Tick) -> Result<(), u32> {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = books.key(group, source, now);
        books.look(key, rule, now)
    }

    /// Puts back a call that was taken: it turned out to be somebody's guess, which is counted elsewhere.
    pub fn give_back(&self, group: Group, source: Source, rule: Rule, now: Tick) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = books.key(group, source, now);
        if let (Some((one, _)), Some(full_at)) = (rule.spans(), books.full_at.get_mut(&key)) {
            *full_at = Tick(full_at.0.saturating_sub(one));
        }
    }

    /// Whether the source may still fail. A source that was served within the hour is not held
    /// responsible for what all others do.
    ///
    /// # Errors
    /// The seconds to wait, at least 1, when it may not.
    pub fn may_fail(&self, group: Group, source: Source, rule: Rule, now: Tick) -> Result<(), u32> {
        let books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = if books.full_at.len() < SOURCES_MAX
            || books.full_at.contains_key(&Key::One(group, source))
        {
            Key::One(group, source)
        } else {
            Key::Forgotten(group)
        };
        books.look(own, rule, now)?;
        if books
            .known_until
            .get(&source)
            .is_some_and(|until| *until > now)
        {
            return Ok(());
        }
        books.look(Key::All(group), rule.overall(), now)
    }

    /// Counts a failure, whether or not there was one left.
    pub fn failed(&self, group: Group, source: Source, rule: Rule, now: Tick) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = books.key(group, source, now);
        for (key, rule) in [(key, rule), (Key::All(group), rule.overall())] {
            // An empty bucket stays empty: there is nothing to say.
            if books.look(key, rule, now).is_ok() {
                books.spend(key, rule, now);
            }
        }
    }

    /// Remembers that the source was served.
    pub fn served(&self, source: Source, now: Tick) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if books.known_until.len() >= SOURCES_MAX && !books.known_until.contains_key(&source) {
            books.tidy(now);
            if books.known_until.len() >= SOURCES_MAX {
                return;
            }
        }
        books.known_until.insert(source, Tick(now.0 + KNOWN));
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

    /// The time that one call uses up, and the time that a full bucket is worth.
    fn spans(self) -> Option<(Duration, Duration)> {
        let one = Duration::from_mins(1).checked_div(self.per_minute)?;
        Some((one, one.saturating_mul(self.burst.max(1))))
    }
}

impl Books {
    /// Forgets what no longer counts; seldom, since it looks at all of it while others wait.
    fn tidy(&mut self, now: Tick) {
        if now >= self.tidy_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.known_until.retain(|_, until| *until > now);
            self.tidy_at = Tick(now.0 + TIDY);
        }
    }

    /// The bucket of a source; a shared one when there is no room for another.
    fn key(&mut self, group: Group, source: Source, now: Tick) -> Key {
        let key = Key::One(group, source);
        if self.full_at.len() >= SOURCES_MAX && !self.full_at.contains_key(&key) {
            self.tidy(now);
            if self.full_at.len() >= SOURCES_MAX {
                return Key::Forgotten(group);
            }
        }
        key
    }

    fn look(&self, key: Key, rule: Rule, now: Tick) -> Result<(), u32> {
        let Some((one, whole)) = rule.spans() else {
            return Ok(());
        };
        let full_at = self.full_at.get(&key).copied().unwrap_or(now).max(now);
        let missing = full_at.since(now) + one;
        if missing <= whole {
            Ok(())
        } else {
            Err(seconds(missing.saturating_sub(whole)))
        }
    }

    fn take(&mut self, key: Key, rule: Rule, now: Tick) -> Result<(), u32> {
        self.look(key, rule, now)?;
        self.spend(key, rule, now);
        Ok(())
    }

    fn spend(&mut self, key: Key, rule: Rule, now: Tick) {
        if let Some((one, _)) = rule.spans() {
            let full_at = self.full_at.entry(key).or_insert(now);
            *full_at = Tick((*full_at).max(now).0 + one);
        }
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
        for _ in 0..3 {
            assert_eq!(
                limiter.may_fail(Group::ClientFailures, source(1), RULE, at(0)),
                Ok(())
            );
            assert_eq!(
                limiter.may_fail(Group::ClientFailures, source(1), RULE, at(0)),
                Ok(())
            );
            limiter.failed(Group::ClientFailures, source(1), RULE, at(0));
        }
        assert_eq!(
            limiter.may_fail(Group::ClientFailures, source(1), RULE, at(0)),
            Err(1)
        );
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
    fn failures_from_everywhere_do_not_shut_out_a_source_that_was_served() {
        let limiter = Limiter::default();
        limiter.served(source(200), at(0));
        for last in 0..100 {
            limiter.failed(Group::ClientFailures, source(last), RULE, at(0));
        }
        let may = |last| limiter.may_fail(Group::ClientFailures, source(last), RULE, at(0));
        assert_eq!(may(200), Ok(()));
        assert!(may(201).is_err(), "a stranger waits");
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
    fn a_flood_of_sources_does_not_grow_the_books_without_end() {
        let limiter = Limiter::default();
        let rule = Rule {
            per_minute: 1,
            burst: 2,
        };
        for number in 0..(u32::try_from(SOURCES_MAX).unwrap() + 1000) {
            let address = IpAddr::from(number.to_be_bytes());
            limiter.failed(Group::Client, address.into(), rule, at(0));
        }
        let held = limiter.0.lock().unwrap().full_at.len();
        assert!(held <= SOURCES_MAX + 1, "{held}");
    }
}
