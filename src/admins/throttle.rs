//! The memory of guesses: who may try again, and when. Guessing is slowed and nobody is locked out:
//!
//! - a source has a bucket of tries, by the rate limit `login`;
//! - a browser from which the person logged in before has a bucket of its own, which no stranger empties;
//! - where one name is tried from everywhere, each try of a stranger counts as several: slower, never none;
//! - one-time codes are short, so all strangers share one bucket of them; a recovery code, too long to be
//!   guessed, works all the same.

use std::sync::Arc;

use crate::clock::Tick;
use crate::error::Refused;
use crate::id::{AdminId, AdminSessionId};
use crate::security::rate_limit::{Group, Limiter, Rule, Source};

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

/// Counts tries.
#[derive(Debug)]
pub(super) struct Throttle {
    limiter: Arc<Limiter>,
    rule: Rule,
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
    /// Counts with `limiter`, by `rule`.
    pub(super) fn new(limiter: Arc<Limiter>, rule: Rule) -> Self {
        Self { limiter, rule }
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
            take(Group::LoginKnown, browser).map_err(limited)?;
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
                return Err(limited(wait));
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
        taken.map_err(limited)
    }

    /// Takes a try at whatever a login that holds, or is half done, is asked for.
    ///
    /// # Errors
    /// `rate_limited` with the seconds to wait.
    pub(super) fn proof(&self, session: AdminSessionId, now: Tick) -> Result<(), Refused> {
        let login = Source::named(&session.0.to_be_bytes());
        let taken = self.limiter.take(Group::Proof, login, PROOFS, now);
        taken.map_err(limited)
    }
}

fn limited(wait_s: u32) -> Refused {
    Refused::plain("rate_limited").with("retry_after", wait_s)
}
