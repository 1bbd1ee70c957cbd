//! Login throttling. It slows guessing down without ever locking an administrator out:
//!
//! - each source address has a bucket of attempts, by the rate limit `login`;
//! - a known browser, from which the administrator has logged in before, has a bucket of its own, which other clients
//!   cannot empty;
//! - while one name is tried from many addresses, an attempt from an unknown browser costs several tokens: slower, but
//!   never blocked;
//! - one-time codes are short, so all unknown browsers share one bucket for the codes of an account; recovery codes are
//!   too long to be guessed and need none.

use std::sync::Arc;

use crate::clock::{Now, Tick};
use crate::error::Refused;
use crate::id::{AdminId, AdminSessionId};
use crate::metrics::{LOGIN_FAILED, RefusalCounter};
use crate::security::client_address::ClientAddress;
use crate::security::password::LENGTH_MIN;
use crate::security::rate_limit::{Group, Limiter, Rule, Source, rate_limited};

/// What an attempt from an unknown browser costs while the name is tried from many addresses.
const COST_UNDER_ATTACK: u32 = 3;
/// One-time codes of one account, from all unknown browsers together: some thousand a day out of a million codes.
const CODES: Rule = Rule {
    per_minute: 3,
    burst: 10,
};
/// Passwords and codes within one login, and codes in a known browser.
const IN_LOGIN: Rule = Rule {
    per_minute: 10,
    burst: 10,
};

/// Log lines about failed logins from one source.
const LOG_LINES: Rule = Rule {
    per_minute: 1,
    burst: 1,
};
/// The same from all sources together, so that attackers cannot fill the disk.
const ALL_LOG_LINES: Rule = Rule {
    per_minute: 60,
    burst: 60,
};

/// A lockout of one source or one account is reported at most once in this many minutes.
const LOCKOUT_MINUTES: u32 = 10;
const LOCKOUTS: Rule = Rule {
    per_minute: 1,
    burst: LOCKOUT_MINUTES,
};
/// The bound for all sources together in the audit log, which is never purged: a burst of ten, then one in ten minutes.
/// Accounts need no such bound, since there are few.
const ALL_LOCKOUTS: Rule = Rule {
    per_minute: 1,
    burst: 10 * LOCKOUT_MINUTES,
};

/// Limits login attempts, and reports those that fail.
#[derive(Debug)]
pub(super) struct Throttle {
    limiter: Arc<Limiter>,
    rule: Rule,
    refusals: Arc<RefusalCounter>,
}

/// Why a login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginFault {
    Password,
    Code,
    TooManyAttempts,
}

impl LoginFault {
    const fn text(self) -> &'static str {
        match self {
            Self::Password => "wrong password",
            Self::Code => "wrong code",
            Self::TooManyAttempts => "too many tries",
        }
    }
}

/// Whose attempts are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockedOut<'a> {
    /// The address that the attempt comes from.
    Source(ClientAddress),
    /// The account of this name: in a known browser, within a login, or for one-time codes.
    Account(&'a str),
}

/// Whether an attempt that was rejected is reported as the beginning of a lockout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lockout {
    /// It was reported less than [`LOCKOUT_MINUTES`] ago.
    Reported,
    /// It begins.
    Begins {
        /// Whether it is written to the audit log, which has a bound for all sources together.
        audited: bool,
    },
}

/// What may be written to the log about a failed login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogOutput {
    /// A line of its own.
    Line,
    /// One line that says that not every failed login is logged.
    Summary,
    None,
}

/// The account whose login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccountName<'a> {
    /// The administrator of this name.
    Known(&'a str),
    /// No administrator has this name.
    Unknown(&'a str),
    /// This name was not looked up.
    NotLookedUp(&'a str),
}

/// A name that may be logged although no administrator has it. `None` for one that may be a password or a code typed into
/// the wrong field.
fn loggable(name: &str) -> Option<&str> {
    let is_short = name.chars().nth(LENGTH_MIN - 1).is_none();
    let is_code = name.chars().all(|c| c.is_ascii_digit() || c == ' ');
    Some(name).filter(|_| is_short && !is_code)
}

/// The log line about a failed login. Its format is fixed up to the address, because filters such as that of fail2ban
/// parse it to block addresses. An unknown client behind a proxy is logged without a plain address, so that they do not
/// block the proxy.
fn line(fault: LoginFault, account: AccountName<'_>, address: ClientAddress) -> String {
    let fault = fault.text();
    match account {
        AccountName::Known(name) => format!("failed login from {address}: {fault} for {name:?}"),
        AccountName::Unknown(name) => match loggable(name) {
            Some(name) => {
                format!("failed login from {address}: {fault} for the unknown name {name:?}")
            }
            None => format!("failed login from {address}: {fault} for an unknown name"),
        },
        AccountName::NotLookedUp(name) => match loggable(name) {
            Some(name) => format!("failed login from {address}: {fault} for {name:?}"),
            None => format!("failed login from {address}: {fault}"),
        },
    }
}

/// An attempt to log in that was admitted, and what it took from the buckets.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    source: Source,
    name: Source,
    /// A browser from which the administrator of this name has logged in before.
    browser: Option<Source>,
    tokens: u32,
}

impl Throttle {
    /// Limits by `rule` with the buckets of `limiter`, and counts failures in `refusals`.
    pub(super) fn new(limiter: Arc<Limiter>, rule: Rule, refusals: Arc<RefusalCounter>) -> Self {
        Self {
            limiter,
            rule,
            refusals,
        }
    }

    /// Counts an attempt that failed or was rejected, for the overview and the metrics.
    pub(super) fn count(&self, now: Now) {
        self.refusals.count(LOGIN_FAILED, now.wall);
    }

    /// Reports a failed login: counts it, and logs it at most once a minute for one source.
    pub(super) fn report(
        &self,
        fault: LoginFault,
        account: AccountName<'_>,
        address: ClientAddress,
        now: Now,
    ) {
        self.count(now);
        let log_output = self.log_output(address, now.tick);
        Self::log(log_output, fault, account, address);
    }

    /// Whether a rejected attempt begins a lockout that is to be reported.
    pub(super) fn lockout(&self, locked_out: LockedOut<'_>, now: Tick) -> Lockout {
        let take = |group, source, rule| {
            let bucket = (group, source);
            let taken = self.limiter.take_many(bucket, rule, LOCKOUT_MINUTES, now);
            taken.is_ok()
        };
        let (begins, is_source) = match locked_out {
            LockedOut::Source(address) => {
                (take(Group::SourceLockouts, address.into(), LOCKOUTS), true)
            }
            LockedOut::Account(name) => {
                let account = Source::from_identifier(name.as_bytes());
                (take(Group::AccountLockouts, account, LOCKOUTS), false)
            }
        };
        if !begins {
            return Lockout::Reported;
        }
        let all = Source::from_identifier(b"all");
        let audited = !is_source || take(Group::SourceLockouts, all, ALL_LOCKOUTS);
        Lockout::Begins { audited }
    }

    /// Reports that a lockout begins, even if a line about the source was logged less than a minute ago.
    pub(super) fn report_lockout(
        &self,
        account: AccountName<'_>,
        address: ClientAddress,
        now: Now,
    ) {
        self.count(now);
        let log_output = self.overall_log_output(now.tick);
        Self::log(log_output, LoginFault::TooManyAttempts, account, address);
    }

    /// Logs, at most once a minute, that logins are rejected because too many wait for the password hash. The line has
    /// no address, so that filters that block addresses do not block an administrator who waits as well.
    pub(super) fn report_overload(&self, now: Tick) {
        let overload = Source::from_identifier(b"crowd");
        let line = self
            .limiter
            .take(Group::LoginLogLines, overload, LOG_LINES, now);
        if line.is_ok() {
            log::warn!(
                "logins are refused because too many are waiting: someone may be guessing from many addresses"
            );
        }
    }

    fn log(
        log_output: LogOutput,
        fault: LoginFault,
        account: AccountName<'_>,
        address: ClientAddress,
    ) {
        match log_output {
            LogOutput::Line => log::warn!("{}", line(fault, account, address)),
            LogOutput::Summary => {
                log::warn!("logins fail from so many addresses that not all of them are logged");
            }
            LogOutput::None => {}
        }
    }

    /// What may be logged about a failed login from `address`.
    fn log_output(&self, address: ClientAddress, now: Tick) -> LogOutput {
        let own = self
            .limiter
            .take(Group::LoginLogLines, address.into(), LOG_LINES, now);
        if own.is_ok() {
            self.overall_log_output(now)
        } else {
            LogOutput::None
        }
    }

    /// What may be logged by the bound for all sources together.
    fn overall_log_output(&self, now: Tick) -> LogOutput {
        let group = Group::LoginLogLines;
        let take = |source, rule| self.limiter.take(group, source, rule, now).is_ok();
        if take(Source::from_identifier(b"all"), ALL_LOG_LINES) {
            LogOutput::Line
        } else if take(Source::from_identifier(b"not all"), LOG_LINES) {
            LogOutput::Summary
        } else {
            LogOutput::None
        }
    }

    /// Admits an attempt at the password of `name`; `browser` is the digest of a browser known for this name.
    ///
    /// # Errors
    /// `rate_limited` with the seconds to wait.
    pub(super) fn acquire(
        &self,
        name: &str,
        source: Source,
        browser: Option<&[u8; 32]>,
        now: Tick,
    ) -> Result<Attempt, Refused> {
        let mut attempt = Attempt {
            source,
            name: Source::from_identifier(name.as_bytes()),
            browser: browser.map(|digest| Source::from_identifier(digest)),
            tokens: 1,
        };
        if let Some(browser) = attempt.browser {
            let taken = self
                .limiter
                .take(Group::LoginKnownBrowser, browser, self.rule, now);
            return taken.map(|()| attempt).map_err(rate_limited);
        }
        let all = self.rule.overall();
        let attacked = self.limiter.check(Group::LoginName, attempt.name, all, now);
        let cost = if attacked.is_err() {
            COST_UNDER_ATTACK.min(self.rule.burst)
        } else {
            1
        };
        let bucket = (Group::Login, attempt.source);
        let taken = self.limiter.take_many(bucket, self.rule, cost, now);
        taken.map_err(rate_limited)?;
        attempt.tokens = cost;
        Ok(attempt)
    }

    /// Gives the attempt back, because it was right or was never checked.
    pub(super) fn release(&self, attempt: &Attempt, now: Tick) {
        let (group, source) = match attempt.browser {
            Some(browser) => (Group::LoginKnownBrowser, browser),
            None => (Group::Login, attempt.source),
        };
        for _ in 0..attempt.tokens {
            self.limiter.put_back(group, source, self.rule, now);
        }
    }

    /// Counts a wrong attempt against the name, too, unless it came from a known browser.
    pub(super) fn failed(&self, attempt: &Attempt, now: Tick) {
        if attempt.browser.is_none() {
            let all = self.rule.overall();
            // If the bucket is empty already, it stays empty.
            let _empty = self.limiter.take(Group::LoginName, attempt.name, all, now);
        }
    }

    /// Admits an attempt at a one-time code of `admin`.
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
            let browser = Source::from_identifier(digest);
            self.limiter
                .take(Group::TotpCodeKnownBrowser, browser, IN_LOGIN, now)
        } else {
            let account = Source::from_identifier(&admin.0.to_be_bytes());
            self.limiter.take(Group::TotpCode, account, CODES, now)
        };
        taken.map_err(rate_limited)
    }

    /// Admits an attempt at a password or code within a login, complete or not.
    ///
    /// # Errors
    /// `rate_limited` with the seconds to wait.
    pub(super) fn in_login(&self, session: AdminSessionId, now: Tick) -> Result<(), Refused> {
        let login = Source::from_identifier(&session.0.to_be_bytes());
        let taken = self
            .limiter
            .take(Group::Reauthentication, login, IN_LOGIN, now);
        taken.map_err(rate_limited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_line_about_a_failed_login_is_one_line_whatever_the_name_contains() {
        let address = ClientAddress::Direct([203, 0, 113, 9].into());
        let logged = |account| line(LoginFault::Password, account, address);
        assert_eq!(
            logged(AccountName::Known("ada")),
            "failed login from 203.0.113.9: wrong password for \"ada\""
        );
        assert_eq!(
            logged(AccountName::Unknown("root")),
            "failed login from 203.0.113.9: wrong password for the unknown name \"root\""
        );
        // A password has at least twelve characters.
        for secret in ["twelve chars", "123456", "123 456", "a password, and more"] {
            assert_eq!(
                logged(AccountName::Unknown(secret)),
                "failed login from 203.0.113.9: wrong password for an unknown name"
            );
            assert_eq!(
                logged(AccountName::NotLookedUp(secret)),
                "failed login from 203.0.113.9: wrong password"
            );
        }
        let forged = logged(AccountName::Known(
            "a\nfailed login from 192.0.2.1: \u{202e}\"",
        ));
        assert_eq!(
            forged,
            "failed login from 203.0.113.9: wrong password for \
             \"a\\nfailed login from 192.0.2.1: \\u{202e}\\\"\""
        );
        let stranger = ClientAddress::Unidentified([10, 0, 0, 1].into());
        assert_eq!(
            line(
                LoginFault::TooManyAttempts,
                AccountName::NotLookedUp("eleven char"),
                stranger
            ),
            "failed login from unknown, behind 10.0.0.1: too many tries for \"eleven char\""
        );
    }

    #[test]
    fn a_lockout_is_reported_once_in_ten_minutes_and_many_sources_do_not_fill_the_audit_log() {
        let rule = Rule {
            per_minute: 10,
            burst: 10,
        };
        let throttle = Throttle::new(Arc::default(), rule, Arc::default());
        let at = |seconds| Tick(std::time::Duration::from_secs(seconds));
        let source = |last: u16| {
            let [high, low] = last.to_be_bytes();
            LockedOut::Source(ClientAddress::UntrustedProxy([203, 0, high, low].into()))
        };
        let begins = |audited| Lockout::Begins { audited };
        for locked_out in [
            source(1),
            LockedOut::Account("ada"),
            LockedOut::Account("eve"),
        ] {
            assert_eq!(
                throttle.lockout(locked_out, at(0)),
                begins(true),
                "{locked_out:?}"
            );
            assert!((1..600).all(|now| throttle.lockout(locked_out, at(now)) == Lockout::Reported));
            assert_eq!(throttle.lockout(locked_out, at(600)), begins(true));
        }
        let flood = |from: u16, now| {
            let all = (from..from + 500).map(|last| throttle.lockout(source(last), at(now)));
            all.filter(|lockout| *lockout == begins(true)).count()
        };
        assert_eq!(flood(1000, 10_000), 10);
        assert_eq!(flood(2000, 10_599), 0);
        assert_eq!(flood(3000, 10_600), 1);
        let ada = throttle.lockout(LockedOut::Account("ada"), at(10_601));
        assert_eq!(ada, begins(true), "an account is reported even so");
    }

    #[test]
    fn one_source_logs_one_line_a_minute_and_all_together_sixty() {
        let rule = Rule {
            per_minute: 10,
            burst: 10,
        };
        let throttle = Throttle::new(Arc::default(), rule, Arc::default());
        let at = |seconds| Tick(std::time::Duration::from_secs(seconds));
        let one = |last, now| {
            let address = ClientAddress::Direct([203, 0, 113, last].into());
            throttle.log_output(address, at(now))
        };
        assert_eq!(one(1, 0), LogOutput::Line);
        assert!((1..60).all(|now| one(1, now) == LogOutput::None));
        assert_eq!(one(1, 60), LogOutput::Line);
        let flood: Vec<LogOutput> = (2..=200).map(|last| one(last, 120)).collect();
        let count = |log_output| flood.iter().filter(|one| **one == log_output).count();
        assert_eq!((count(LogOutput::Line), count(LogOutput::Summary)), (60, 1));
    }
}
