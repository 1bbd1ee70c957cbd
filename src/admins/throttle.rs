//! The memory of guesses: who may try again, and when. Guessing is slowed and nobody is locked out:
//!
//! - a source has a bucket of tries, by the rate limit `login`;
//! - a browser from which the person logged in before has a bucket of its own, which no stranger empties;
//! - where one name is tried from everywhere, each try of a stranger counts as several: slower, never none;
//! - one-time codes are short, so all strangers share one bucket of them; a recovery code, too long to be
//!   guessed, works all the same.

use std::sync::Arc;

use crate::clock::{Now, Tick};
use crate::error::Refused;
use crate::id::{AdminId, AdminSessionId};
use crate::metrics::{LOGIN_FAILED, RefusalCounter};
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::{Group, Limiter, Rule, Source, rate_limited};

/// What a try costs a stranger while the name is tried from everywhere.
const COST_UNDER_ATTACK: u32 = 3;
/// One-time codes of one person, from all strangers together: some thousand a day of a million.
const CODES: Rule = Rule {
    per_minute: 3,
    burst: 10,
};
/// Proofs of one login, and codes in a browser that is known.
const PROOFS: Rule = Rule {
    per_minute: 10,
    burst: 10,
};

/// Lines of the log about failed logins from one source.
const LINES: Rule = Rule {
    per_minute: 1,
    burst: 1,
};
/// The same from all sources together: strangers must not fill the disk.
const ALL_LINES: Rule = Rule {
    per_minute: 60,
    burst: 60,
};

/// What is told of tries that are refused, of one source or one account: once in as many minutes.
const LOCKOUT_MINUTES: u32 = 10;
const LOCKOUTS: Rule = Rule {
    per_minute: 1,
    burst: LOCKOUT_MINUTES,
};
/// The same in the audit log, which is kept for good, of all sources together: ten at once, then one in ten minutes.
/// An account needs no such bound: there are few.
const ALL_LOCKOUTS: Rule = Rule {
    per_minute: 1,
    burst: 10 * LOCKOUT_MINUTES,
};

/// Counts tries.
#[derive(Debug)]
pub(super) struct Throttle {
    limiter: Arc<Limiter>,
    rule: Rule,
    tally: Arc<RefusalCounter>,
}

/// Why a login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Password,
    Code,
    TooManyTries,
}

impl Fault {
    const fn words(self) -> &'static str {
        match self {
            Self::Password => "wrong password",
            Self::Code => "wrong code",
            Self::TooManyTries => "too many tries",
        }
    }
}

/// On whose side the tries are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked<'a> {
    /// Where a try comes from.
    Source(ClientAddress),
    /// The account of this name: in a browser that is known from it, within a login, or for one-time codes.
    Account(&'a str),
}

/// Where a lockout is to be told, beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lockout {
    /// It began lately, and was told then.
    Told,
    /// It begins.
    Begins {
        /// Whether the audit log has room for it.
        audited: bool,
    },
}

/// What may be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    This,
    /// That there is more than is written down.
    Summary,
    None,
}

/// Whose login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose<'a> {
    /// An administrator of this name.
    Known(&'a str),
    /// Nobody has the name. It is not written down: it may be a password in the wrong field.
    Nobody,
    /// Nobody looked whether somebody has the name.
    Unsaid,
}

/// The line of the log about a failed login. Its form is fixed up to the address: others look for it to lock
/// addresses out. A stranger behind a proxy has none there, so that nobody locks the proxy out.
fn line(fault: Fault, whose: Whose<'_>, address: ClientAddress) -> String {
    let fault = fault.words();
    match whose {
        Whose::Known(name) => format!("failed login from {address}: {fault} for {name:?}"),
        Whose::Nobody => format!("failed login from {address}: {fault} for an unknown name"),
        Whose::Unsaid => format!("failed login from {address}: {fault}"),
    }
}

/// Who tries to log in.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    source: Source,
    name: Source,
    /// A browser from which the person of this name logged in before.
    browser: Option<Source>,
    taken: u32,
}

impl Throttle {
    /// Counts with `limiter`, by `rule`; what failed is counted in `tally` too.
    pub(super) fn new(limiter: Arc<Limiter>, rule: Rule, tally: Arc<RefusalCounter>) -> Self {
        Self {
            limiter,
            rule,
            tally,
        }
    }

    /// Counts a try that failed or was refused, for the overview.
    pub(super) fn count(&self, now: Now) {
        self.tally.count(LOGIN_FAILED, now.wall);
    }

    /// Makes a failed login seen: on the overview, and in the log at most once a source and minute.
    pub(super) fn report(&self, fault: Fault, whose: Whose<'_>, address: ClientAddress, now: Now) {
        self.count(now);
        let lines = self.lines_left(address, now.tick);
        Self::tell(lines, fault, whose, address);
    }

    /// Whether a try that was refused begins a lockout that is to be told.
    pub(super) fn lockout(&self, locked: Locked<'_>, now: Tick) -> Lockout {
        let take = |group, source, rule| {
            let place = (group, source);
            let taken = self.limiter.take_many(place, rule, LOCKOUT_MINUTES, now);
            taken.is_ok()
        };
        let (begins, is_source) = match locked {
            Locked::Source(address) => {
                (take(Group::SourceLockouts, address.into(), LOCKOUTS), true)
            }
            Locked::Account(name) => {
                let account = Source::named(name.as_bytes());
                (take(Group::AccountLockouts, account, LOCKOUTS), false)
            }
        };
        if !begins {
            return Lockout::Told;
        }
        let all = Source::named(b"all");
        let audited = !is_source || take(Group::SourceLockouts, all, ALL_LOCKOUTS);
        Lockout::Begins { audited }
    }

    /// Makes seen that a lockout begins, though the source had its line for this minute.
    pub(super) fn report_lockout(&self, whose: Whose<'_>, address: ClientAddress, now: Now) {
        self.count(now);
        let lines = self.all_lines_left(now.tick);
        Self::tell(lines, Fault::TooManyTries, whose, address);
    }

    /// Makes seen that logins wait for a turn at hashing and are refused; once a minute, without an address: those who
    /// lock addresses out by the log must not lock out an administrator who waits among the others.
    pub(super) fn report_crowd(&self, now: Tick) {
        let crowd = Source::named(b"crowd");
        let line = self.limiter.take(Group::LoginLines, crowd, LINES, now);
        if line.is_ok() {
            log::warn!(
                "so many logins wait that others are refused: someone may be guessing from many addresses"
            );
        }
    }

    fn tell(lines: Lines, fault: Fault, whose: Whose<'_>, address: ClientAddress) {
        match lines {
            Lines::This => log::warn!("{}", line(fault, whose, address)),
            Lines::Summary => {
                log::warn!("logins fail from so many addresses that not all are written down");
            }
            Lines::None => {}
        }
    }

    /// What may be written down about a login that failed from `address`.
    fn lines_left(&self, address: ClientAddress, now: Tick) -> Lines {
        let mine = self
            .limiter
            .take(Group::LoginLines, address.into(), LINES, now);
        if mine.is_ok() {
            self.all_lines_left(now)
        } else {
            Lines::None
        }
    }

    /// The same of what all sources together may have written down.
    fn all_lines_left(&self, now: Tick) -> Lines {
        let group = Group::LoginLines;
        let take = |source, rule| self.limiter.take(group, source, rule, now).is_ok();
        if take(Source::named(b"all"), ALL_LINES) {
            Lines::This
        } else if take(Source::named(b"not all"), LINES) {
            Lines::Summary
        } else {
            Lines::None
        }
    }

    /// Takes a try at the password of `name`; `browser` is the digest of one that is known for this name.
    ///
    /// # Errors
    /// `rate_limited` with the seconds to wait.
    pub(super) fn take(
        &self,
        name: &str,
        source: Source,
        browser: Option<&[u8; 32]>,
        now: Tick,
    ) -> Result<Attempt, Refused> {
        let mut guess = Attempt {
            source,
            name: Source::named(name.as_bytes()),
            browser: browser.map(|digest| Source::named(digest)),
            taken: 1,
        };
        if let Some(browser) = guess.browser {
            let taken = self
                .limiter
                .take(Group::LoginKnown, browser, self.rule, now);
            return taken.map(|()| guess).map_err(rate_limited);
        }
        let all = self.rule.overall();
        let attacked = self.limiter.look(Group::LoginName, guess.name, all, now);
        let cost = if attacked.is_err() {
            COST_UNDER_ATTACK.min(self.rule.burst)
        } else {
            1
        };
        let place = (Group::Login, guess.source);
        let taken = self.limiter.take_many(place, self.rule, cost, now);
        taken.map_err(rate_limited)?;
        guess.taken = cost;
        Ok(guess)
    }

    /// The try was right: it counts for nothing.
    pub(super) fn give_back(&self, guess: &Attempt, now: Tick) {
        let (group, source) = match guess.browser {
            Some(browser) => (Group::LoginKnown, browser),
            None => (Group::Login, guess.source),
        };
        for _ in 0..guess.taken {
            self.limiter.give_back(group, source, self.rule, now);
        }
    }

    /// The try was wrong.
    pub(super) fn failed(&self, guess: &Attempt, now: Tick) {
        if guess.browser.is_none() {
            let all = self.rule.overall();
            // An empty bucket stays empty: there is nothing to say.
            let _empty = self.limiter.take(Group::LoginName, guess.name, all, now);
        }
    }

    /// Takes a try at a one-time code of `admin`.
    ///
    /// # Errors
    /// `rate_limited` with the seconds to wait.
    pub(super) fn code(
        &self,
        admin: AdminId,
        browser: Option<&[u8; 32]>,
        now: Tick,
    ) -> Result<(), Refused> {
        let taken = if let Some(digest) = browser {
            let browser = Source::named(digest);
            self.limiter.take(Group::CodeKnown, browser, PROOFS, now)
        } else {
            let person = Source::named(&admin.0.to_be_bytes());
            self.limiter.take(Group::Code, person, CODES, now)
        };
        taken.map_err(rate_limited)
    }

    /// Takes a try at whatever a login that holds, or is half done, is asked for.
    ///
    /// # Errors
    /// `rate_limited` with the seconds to wait.
    pub(super) fn proof(&self, session: AdminSessionId, now: Tick) -> Result<(), Refused> {
        let login = Source::named(&session.0.to_be_bytes());
        let taken = self.limiter.take(Group::Proof, login, PROOFS, now);
        taken.map_err(rate_limited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_about_a_failed_login_is_one_line_whatever_is_in_a_name() {
        let address = ClientAddress::Direct([203, 0, 113, 9].into());
        let told = |whose| line(Fault::Password, whose, address);
        assert_eq!(
            told(Whose::Known("ada")),
            "failed login from 203.0.113.9: wrong password for \"ada\""
        );
        assert_eq!(
            told(Whose::Nobody),
            "failed login from 203.0.113.9: wrong password for an unknown name"
        );
        let forged = told(Whose::Known("a\nfailed login from 192.0.2.1: \u{202e}\""));
        assert_eq!(
            forged,
            "failed login from 203.0.113.9: wrong password for \
             \"a\\nfailed login from 192.0.2.1: \\u{202e}\\\"\""
        );
        let stranger = ClientAddress::Stranger([10, 0, 0, 1].into());
        assert_eq!(
            line(Fault::TooManyTries, Whose::Unsaid, stranger),
            "failed login from unknown, behind 10.0.0.1: too many tries"
        );
    }

    #[test]
    fn a_lockout_is_told_once_in_ten_minutes_and_many_sources_do_not_fill_the_audit_log() {
        let rule = Rule {
            per_minute: 10,
            burst: 10,
        };
        let throttle = Throttle::new(Arc::default(), rule, Arc::default());
        let at = |seconds| Tick(std::time::Duration::from_secs(seconds));
        let source = |last: u16| {
            let [high, low] = last.to_be_bytes();
            Locked::Source(ClientAddress::Relayed([203, 0, high, low].into()))
        };
        let begins = |audited| Lockout::Begins { audited };
        for locked in [source(1), Locked::Account("ada"), Locked::Account("eve")] {
            assert_eq!(throttle.lockout(locked, at(0)), begins(true), "{locked:?}");
            assert!((1..600).all(|now| throttle.lockout(locked, at(now)) == Lockout::Told));
            assert_eq!(throttle.lockout(locked, at(600)), begins(true));
        }
        let flood = |from: u16, now| {
            let all = (from..from + 500).map(|last| throttle.lockout(source(last), at(now)));
            all.filter(|told| *told == begins(true)).count()
        };
        assert_eq!(flood(1000, 10_000), 10);
        assert_eq!(flood(2000, 10_599), 0);
        assert_eq!(flood(3000, 10_600), 1);
        let ada = throttle.lockout(Locked::Account("ada"), at(10_601));
        assert_eq!(ada, begins(true), "an account is told all the same");
    }

    #[test]
    fn a_source_has_a_line_a_minute_and_all_together_sixty() {
        let rule = Rule {
            per_minute: 10,
            burst: 10,
        };
        let throttle = Throttle::new(Arc::default(), rule, Arc::default());
        let at = |seconds| Tick(std::time::Duration::from_secs(seconds));
        let one = |last, now| {
            let address = ClientAddress::Direct([203, 0, 113, last].into());
            throttle.lines_left(address, at(now))
        };
        assert_eq!(one(1, 0), Lines::This);
        assert!((1..60).all(|now| one(1, now) == Lines::None));
        assert_eq!(one(1, 60), Lines::This);
        let flood: Vec<Lines> = (2..=200).map(|last| one(last, 120)).collect();
        let count = |lines| flood.iter().filter(|one| **one == lines).count();
        assert_eq!((count(Lines::This), count(Lines::Summary)), (60, 1));
    }
}
