//! When and where to request a certificate: decisions only, without files, network or clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::challenges::Kind;
use crate::clock::UnixMs;

/// Wait after the first failure; doubled with each further one.
const BACK_OFF: Duration = Duration::from_mins(10);
/// Longest wait after a failure.
const BACK_OFF_MAX: Duration = Duration::from_hours(12);
/// The same if the authority was not reached, which does not count against its rate limits.
const BACK_OFF_UNREACHED: Duration = Duration::from_mins(1);
const BACK_OFF_UNREACHED_MAX: Duration = Duration::from_hours(1);
/// Consecutive failures after which Let's Encrypt's staging directory is used: production allows five failed
/// validations of a name per hour, and one failure may be two of them.
const STAGED_AFTER: u32 = 2;
/// Longest wait after a success. Without it, a wrong clock or an authority that suggests an immediate renewal would use
/// up the authority's rate limits.
const REST_MAX: Duration = Duration::from_hours(24);
/// The longest wait of any kind.
const WAIT_MAX: Duration = REST_MAX;
/// Certificates with a shorter validity are renewed at half of it, as Let's Encrypt recommends.
const SHORT_LIFE: Duration = Duration::from_hours(10 * 24);

/// The state that survives a restart, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct RenewalState {
    /// The directory of the authority that issued the certificate in use.
    pub(super) from: String,
    /// The authority and the names of the last request.
    pub(super) asked: String,
    /// The kind of challenge that succeeded last.
    pub(super) proved_by: Option<Kind>,
    /// When the authority suggests to renew the certificate in use (RFC 9773).
    pub(super) renew_at: Option<UnixMs>,
    /// Failures since the last success.
    pub(super) failures: u32,
    /// Time of the first of them.
    pub(super) failing_since: Option<UnixMs>,
    /// Time of the last attempt.
    pub(super) last_try: Option<UnixMs>,
    /// No attempt before this time.
    pub(super) next_try: Option<UnixMs>,
    /// The last failure, and what to do.
    pub(super) last_error: String,
    /// Whether staging has issued a certificate since the last failure.
    pub(super) staging_works: bool,
}

/// Whether a failed attempt reached the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Reached,
    Unreached,
}

/// Whether the authority has a directory for attempts that do not count against its rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Staging {
    /// It is Let's Encrypt.
    Exists,
    None,
}

/// The ACME directory for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directory {
    /// The one in the settings.
    Configured,
    /// Let's Encrypt's staging directory.
    Staging,
}

/// The validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub begins: UnixMs,
    /// Its last moment.
    pub ends: UnixMs,
}

impl Validity {
    fn span(self) -> Duration {
        Duration::from_millis(u64::try_from(self.ends.0.saturating_sub(self.begins.0)).unwrap_or(0))
    }

    /// When to renew the certificate if the authority suggests no time.
    pub fn renew_at(self) -> UnixMs {
        let span = self.span();
        if span < SHORT_LIFE {
            self.begins.plus(span / 2)
        } else {
            self.begins.plus(span / 3 * 2)
        }
    }

    /// When to renew the certificate if the authority suggests a time: then, but early enough for repeated attempts.
    pub(super) fn renew_at_suggestion(self, suggested: UnixMs) -> UnixMs {
        suggested.min(self.ends.minus(self.span() / 6))
    }
}

impl RenewalState {
    /// The state after a start with the authority and names `asked`. Failures for others are forgotten. The wait is at
    /// most that after a first failure, because the operator may have fixed something.
    pub(super) fn at_start(mut self, asked: &str, now: UnixMs) -> Self {
        if self.asked != asked {
            self = Self {
                from: self.from,
                renew_at: self.renew_at,
                asked: asked.to_owned(),
                ..Self::default()
            };
        }
        if let (Some(next), Some(last)) = (self.next_try, self.last_try) {
            // If the last attempt is in the future, the clock was wrong then.
            let earliest = if last > now { now } else { last.plus(BACK_OFF) };
            self.next_try = Some(next.min(earliest));
        }
        self
    }

    /// When to request the next certificate. `validity` is that of the present certificate; `None` if there is none
    /// that fits the settings.
    pub(super) fn due(&self, validity: Option<Validity>, now: UnixMs) -> UnixMs {
        let renewal = validity.map_or(now, |validity| self.renew_at.unwrap_or(validity.renew_at()));
        // If it is further away than any wait, the clock was wrong then.
        let next = self.next_try.filter(|next| *next <= now.plus(WAIT_MAX));
        // The wait after a success does not apply if the certificate was lost: a new one is requested at once.
        let next = next.filter(|_| validity.is_some() || self.failures > 0);
        renewal.max(next.unwrap_or(now))
    }

    /// The directory for the next attempt.
    pub(super) fn directory(&self, staging: Staging) -> Directory {
        if staging == Staging::Exists && self.failures >= STAGED_AFTER && !self.staging_works {
            Directory::Staging
        } else {
            Directory::Configured
        }
    }

    /// Notes a failure.
    pub(super) fn note_failure(&mut self, error: String, reach: Reach, now: UnixMs) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.staging_works = false;
        self.last_error = error;
        self.last_try = Some(now);
        self.next_try = Some(now.plus(back_off(self.failures, reach)));
    }

    /// Notes that staging issued a certificate, which is not used: production is tried again at once.
    pub(super) fn note_staging_success(&mut self, now: UnixMs) {
        self.staging_works = true;
        self.last_try = Some(now);
        self.next_try = None;
    }

    /// Notes that the directory `from` issued a certificate.
    pub(super) fn note_success(
        &mut self,
        from: &str,
        proved_by: Kind,
        validity: Validity,
        now: UnixMs,
    ) {
        *self = Self {
            from: from.to_owned(),
            asked: std::mem::take(&mut self.asked),
            proved_by: Some(proved_by),
            next_try: Some(now.plus((validity.span() / 4).min(REST_MAX))),
            ..Self::default()
        };
    }
}

fn back_off(failures: u32, reach: Reach) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let (first, longest) = match reach {
        Reach::Reached => (BACK_OFF, BACK_OFF_MAX),
        Reach::Unreached => (BACK_OFF_UNREACHED, BACK_OFF_UNREACHED_MAX),
    };
    first.saturating_mul(doubled).min(longest)
}

/// What the operator can do about a problem that the authority reports (RFC 8555 §6.7).
pub(super) fn advice(kind: &str) -> &'static str {
    match kind.rsplit(':').next().unwrap_or_default() {
        "dns" => "point the name's DNS at this server",
        "connection" | "tls" => {
            "make this server reachable from the internet at that name, on port 80 or 443"
        }
        "unauthorized" | "incorrectResponse" => {
            "another server responds at that name: check its DNS, including IPv6"
        }
        "caa" => "the name's DNS has a CAA record that excludes this authority: change it",
        "rateLimited" => {
            "the authority limits attempts: wait, it will be tried again automatically"
        }
        "rejectedIdentifier" => {
            "this authority does not issue certificates for such a name: change tls.domains"
        }
        "invalidContact" | "unsupportedContact" => "change tls.contact",
        "externalAccountRequired" => {
            "this authority requires an external account, which is not supported: choose another authority"
        }
        "userActionRequired" => "the authority requires an action by you: see its message",
        "serverInternal" => {
            "the authority has an internal error: it will be tried again automatically"
        }
        _ => "it will be tried again automatically; see the authority's message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn failing(times: u32) -> RenewalState {
        let mut state = RenewalState::default();
        (0..times).for_each(|_| state.note_failure("no".to_owned(), Reach::Reached, NOW));
        state
    }

    #[test]
    fn a_certificate_is_renewed_with_a_third_of_its_validity_left_and_a_short_one_with_half() {
        for (days, after) in [(90, 60), (200, 133), (6, 3)] {
            let validity = Validity {
                begins: NOW,
                ends: NOW.plus(DAY * days),
            };
            let due = RenewalState::default().due(Some(validity), NOW);
            assert_eq!((due.0 - NOW.0) / 86_400_000, after, "{days}");
        }
        assert_eq!(
            RenewalState::default().due(None, NOW),
            NOW,
            "the first one at once"
        );
    }

    #[test]
    fn the_authoritys_suggestion_is_followed_unless_it_is_too_late() {
        let validity = Validity {
            begins: NOW,
            ends: NOW.plus(DAY * 90),
        };
        let early = NOW.plus(DAY);
        assert_eq!(validity.renew_at_suggestion(early), early);
        assert_eq!(
            validity.renew_at_suggestion(NOW.plus(DAY * 100)),
            NOW.plus(DAY * 75)
        );
        let suggested = RenewalState {
            renew_at: Some(early),
            ..RenewalState::default()
        };
        assert_eq!(suggested.due(Some(validity), NOW), early);
    }

    #[test]
    fn the_wait_after_failures_doubles_up_to_half_a_day() {
        let minutes = [10, 20, 40, 80, 160, 320, 640, 720, 720];
        for (times, minutes) in (1..).zip(minutes) {
            let due = failing(times).due(None, NOW);
            assert_eq!(due, NOW.plus(Duration::from_mins(minutes)), "{times}");
        }
        assert_eq!(failing(200).due(None, NOW), NOW.plus(BACK_OFF_MAX));
        let waits = [1, 5, 7, 99].map(|times| back_off(times, Reach::Unreached));
        assert_eq!(
            waits,
            [1, 16, 60, 60].map(Duration::from_mins),
            "not reached"
        );
        // The clock was set back by a year since then.
        let earlier = NOW.minus(DAY * 365);
        assert_eq!(failing(1).due(None, earlier), earlier);
    }

    #[test]
    fn after_a_restart_the_wait_is_at_most_that_after_a_first_failure() {
        let mut state = failing(9);
        state.asked = "names".to_owned();
        let later = NOW.plus(Duration::from_mins(1));
        let again = state.clone().at_start("names", later);
        assert_eq!(again.due(None, later), NOW.plus(BACK_OFF));
        assert_eq!(again.failures, 9, "failures are remembered");
        let other = state.clone().at_start("other names", later);
        assert_eq!((other.due(None, later), other.failures), (later, 0));
        let earlier = NOW.minus(DAY);
        assert_eq!(state.at_start("names", earlier).due(None, earlier), earlier);
    }

    #[test]
    fn repeated_failures_use_lets_encrypts_staging_directory() {
        assert_eq!(failing(1).directory(Staging::Exists), Directory::Configured);
        assert_eq!(failing(2).directory(Staging::Exists), Directory::Staging);
        assert_eq!(
            failing(50).directory(Staging::None),
            Directory::Configured,
            "other authorities have no staging"
        );
        let mut state = failing(4);
        state.note_staging_success(NOW);
        assert_eq!(state.directory(Staging::Exists), Directory::Configured);
        assert_eq!(state.due(None, NOW), NOW, "at once");
        state.note_failure("no".to_owned(), Reach::Reached, NOW);
        assert_eq!(state.directory(Staging::Exists), Directory::Staging);
        let validity = Validity {
            begins: NOW.minus(DAY * 90),
            ends: NOW.plus(DAY),
        };
        state.note_success("authority", Kind::TlsAlpn, validity, NOW);
        assert_eq!(state.directory(Staging::Exists), Directory::Configured);
        assert_eq!(state.failing_since, None);
        assert_eq!(
            state.due(Some(validity), NOW),
            NOW.plus(REST_MAX),
            "not at once again"
        );
        assert_eq!(state.due(None, NOW), NOW, "unless it was lost");
    }
}
