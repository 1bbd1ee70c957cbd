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
use crate::metrics::{LOGIN_FAILED, Tally};
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

/// Counts tries.
#[derive(Debug)]
pub(super) struct Throttle {
    limiter: Arc<Limiter>,
    rule: Rule,
    tally: Arc<Tally>,
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
pub(super) struct Guess {
    source: Source,
    name: Source,
    /// A browser from which the person of this name logged in before.
    browser: Option<Source>,
    taken: u32,
}

impl Throttle {
    /// Counts with `limiter`, by `rule`; what failed is counted in `tally` too.
    pub(super) fn new(limiter: Arc<Limiter>, rule: Rule, tally: Arc<Tally>) -> Self {
        Self {
            limiter,
            rule,
            tally,
        }
    }

    /// Makes a failed login seen: on the overview, and in the log at most once a source and minute.
    pub(super) fn report(&self, fault: Fault, whose: Whose<'_>, address: ClientAddress, now: Now) {
        self.tally.count(LOGIN_FAILED, now.wall);
        match self.lines_left(address, now.tick) {
            Lines::This => log::warn!("{}", line(fault, whose, address)),
            Lines::Summary => {
                log::warn!("logins fail from so many addresses that not all are written down");
            }
            Lines::None => {}
        }
    }

    /// What may be written down about a login that failed from `address`.
    fn lines_left(&self, address: ClientAddress, now: Tick) -> Lines {
        let group = Group::LoginLines;
        let take = |source, rule| self.limiter.take(group, source, rule, now).is_ok();
        if !take(address.into(), LINES) {
            Lines::None
        } else if take(Source::named(b"all"), ALL_LINES) {
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
    ) -> Result<Guess, Refused> {
        let mut guess = Guess {
            source,
            name: Source::named(name.as_bytes()),
            browser: browser.map(|digest| Source::named(digest)),
            taken: 1,
        };
        let take = |group, source| self.limiter.take(group, source, self.rule, now);
        if let Some(browser) = guess.browser {
            take(Group::LoginKnown, browser).map_err(rate_limited)?;
            return Ok(guess);
        }
        let all = self.rule.overall();
        let attacked = self.limiter.look(Group::LoginName, guess.name, all, now);
        let cost = if attacked.is_err() {
            COST_UNDER_ATTACK.min(self.rule.burst)
        } else {
            1
        };
        guess.taken = 0;
        for _ in 0..cost {
            let taken = take(Group::Login, guess.source);
            if let Err(wait) = taken {
                self.give_back(&guess, now);
                return Err(rate_limited(wait));
            }
            guess.taken += 1;
        }
        Ok(guess)
    }

    /// The try was right: it counts for nothing.
    pub(super) fn give_back(&self, guess: &Guess, now: Tick) {
        let (group, source) = match guess.browser {
            Some(browser) => (Group::LoginKnown, browser),
            None => (Group::Login, guess.source),
        };
        for _ in 0..guess.taken {
            self.limiter.give_back(group, source, self.rule, now);
        }
    }

    /// The try was wrong.
    pub(super) fn failed(&self, guess: &Guess, now: Tick) {
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
        let address = ClientAddress::Relayed([203, 0, 113, 9].into());
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
    fn a_source_has_a_line_a_minute_and_all_together_sixty() {
        let rule = Rule {
            per_minute: 10,
            burst: 10,
        };
        let throttle = Throttle::new(Arc::default(), rule, Arc::default());
        let at = |seconds| Tick(std::time::Duration::from_secs(seconds));
        let one = |last, now| {
            let address = ClientAddress::Relayed([203, 0, 113, last].into());
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
