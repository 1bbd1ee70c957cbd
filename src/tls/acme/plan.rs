//! When a certificate is asked for, and where. No files, no network, no clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::challenges::Kind;
use crate::clock::UnixMs;

/// After a first failure; doubled with each further one.
const BACK_OFF: Duration = Duration::from_mins(10);
/// Longest wait after a failure.
const BACK_OFF_MAX: Duration = Duration::from_hours(12);
/// The same where the authority was not even reached, which burns no limits.
const UNREACHED: Duration = Duration::from_mins(1);
const UNREACHED_MAX: Duration = Duration::from_hours(1);
/// Failures in a row after which Let's Encrypt's staging directory is tried: production refuses more than
/// five failed proofs of a name within an hour, and a failure may be two of them.
const STAGED_AFTER: u32 = 2;
/// Longest wait after a success: whoever wished at once for another one, or had a wrong clock, would burn limits.
const REST_MAX: Duration = Duration::from_hours(24);
/// Longest wait of all.
const WAIT_MAX: Duration = REST_MAX;
/// Certificates that live shorter are renewed at half of their life, as Let's Encrypt advises.
const SHORT_LIFE: Duration = Duration::from_hours(10 * 24);

/// What is remembered of tries over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct RenewalState {
    /// The authority that the certificate in use is from.
    pub(super) from: String,
    /// What was asked for: authority and names.
    pub(super) asked: String,
    /// What proved last that the names are ours.
    pub(super) proved_by: Option<Kind>,
    /// When the certificate in use is to be renewed, as its authority says (RFC 9773).
    pub(super) renew_at: Option<UnixMs>,
    /// Failures since the last success.
    pub(super) failures: u32,
    /// When the first of them was.
    pub(super) failing_since: Option<UnixMs>,
    /// When the last try was.
    pub(super) last_try: Option<UnixMs>,
    /// Not before this.
    pub(super) next_try: Option<UnixMs>,
    /// What the last failure was, and what to do.
    pub(super) last_error: String,
    /// Whether staging has given a certificate since production's last failure.
    pub(super) staging_works: bool,
}

/// The directory that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directory {
    /// That of the settings.
    Asked,
    /// Let's Encrypt's for trying out.
    Staging,
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its first moment.
    pub begins: UnixMs,
    /// Its last moment.
    pub ends: UnixMs,
}

impl Life {
    fn span(self) -> Duration {
        Duration::from_millis(u64::try_from(self.ends.0.saturating_sub(self.begins.0)).unwrap_or(0))
    }

    /// When it is renewed where its authority has no word on it.
    pub fn renew_at(self) -> UnixMs {
        let span = self.span();
        if span < SHORT_LIFE {
            self.begins.plus(span / 2)
        } else {
            self.begins.plus(span / 3 * 2)
        }
    }

    /// The moment that its authority wishes for, as far as it leaves time for failures.
    pub(super) fn renew_at_wish(self, wish: UnixMs) -> UnixMs {
        wish.min(self.ends.minus(self.span() / 6))
    }
}

impl RenewalState {
    /// The same at a start that asks for `asked`: what failed for other names is forgotten, and the operator,
    /// who may have mended something, waits no longer than after a first failure.
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
            // A try in the future: the clock was wrong then.
            let again = if last > now { now } else { last.plus(BACK_OFF) };
            self.next_try = Some(next.min(again));
        }
        self
    }

    /// When a certificate is asked for: one like that of `life` is there, or none that would do.
    pub(super) fn due(&self, life: Option<Life>, now: UnixMs) -> UnixMs {
        let wanted = life.map_or(now, |life| self.renew_at.unwrap_or(life.renew_at()));
        // Further away than any wait: the clock was wrong then.
        let next = self.next_try.filter(|next| *next <= now.plus(WAIT_MAX));
        // The rest after a success is for one that is still there: a lost one is got anew at once.
        let next = next.filter(|_| life.is_some() || self.failures > 0);
        wanted.max(next.unwrap_or(now))
    }

    /// Where the next certificate is asked for.
    pub(super) fn place(&self, lets_encrypt: bool) -> Directory {
        if lets_encrypt && self.failures >= STAGED_AFTER && !self.staging_works {
            Directory::Staging
        } else {
            Directory::Asked
        }
    }

    /// After a failure, in which the authority may have been reached or not.
    pub(super) fn failed(&mut self, error: String, reached: bool, now: UnixMs) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.staging_works = false;
        self.last_error = error;
        self.last_try = Some(now);
        self.next_try = Some(now.plus(back_off(self.failures, reached)));
    }

    /// After staging gave a certificate, which nobody needs: production is next, at once.
    pub(super) fn staged(&mut self, now: UnixMs) {
        self.staging_works = true;
        self.last_try = Some(now);
        self.next_try = None;
    }

    /// After `from` gave a certificate that lives so long.
    pub(super) fn succeeded(&mut self, from: &str, proved_by: Kind, life: Life, now: UnixMs) {
        *self = Self {
            from: from.to_owned(),
            asked: std::mem::take(&mut self.asked),
            proved_by: Some(proved_by),
            next_try: Some(now.plus((life.span() / 4).min(REST_MAX))),
            ..Self::default()
        };
    }
}

fn back_off(failures: u32, reached: bool) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let (first, longest) = if reached {
        (BACK_OFF, BACK_OFF_MAX)
    } else {
        (UNREACHED, UNREACHED_MAX)
    };
    first.saturating_mul(doubled).min(longest)
}

/// What an operator can do about a problem that the authority names (RFC 8555 §6.7).
pub(super) fn advice(kind: &str) -> &'static str {
    match kind.rsplit(':').next().unwrap_or_default() {
        "dns" => "let the name's DNS point at this server",
        "connection" | "tls" => {
            "let the authority reach this server at that name from outside, on port 80 or 443"
        }
        "unauthorized" | "incorrectResponse" => {
            "another server answers at that name: look where its DNS points, IPv6 too"
        }
        "caa" => "the name's DNS has a CAA record that excludes this authority: change it",
        "rateLimited" => "the authority wants fewer tries: wait, it is tried again by itself",
        "rejectedIdentifier" => "this authority certifies no such name: change tls.domains",
        "invalidContact" | "unsupportedContact" => "change tls.contact",
        "externalAccountRequired" => {
            "this authority wants an account that was made elsewhere, which is not supported: choose another"
        }
        "userActionRequired" => "the authority wants you to do something: see its words",
        "serverInternal" => "the authority has troubles of its own: it is tried again by itself",
        _ => "it is tried again by itself; see the authority's words",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn failing(times: u32) -> RenewalState {
        let mut memory = RenewalState::default();
        (0..times).for_each(|_| memory.failed("no".to_owned(), true, NOW));
        memory
    }

    #[test]
    fn a_certificate_is_renewed_with_a_third_of_its_life_left_and_a_short_one_with_half() {
        for (days, after) in [(90, 60), (200, 133), (6, 3)] {
            let life = Life {
                begins: NOW,
                ends: NOW.plus(DAY * days),
            };
            let due = RenewalState::default().due(Some(life), NOW);
            assert_eq!((due.0 - NOW.0) / 86_400_000, after, "{days}");
        }
        assert_eq!(
            RenewalState::default().due(None, NOW),
            NOW,
            "the first one at once"
        );
    }

    #[test]
    fn the_authoritys_wish_counts_unless_it_comes_too_late() {
        let life = Life {
            begins: NOW,
            ends: NOW.plus(DAY * 90),
        };
        let early = NOW.plus(DAY);
        assert_eq!(life.renew_at_wish(early), early);
        assert_eq!(life.renew_at_wish(NOW.plus(DAY * 100)), NOW.plus(DAY * 75));
        let wished = RenewalState {
            renew_at: Some(early),
            ..RenewalState::default()
        };
        assert_eq!(wished.due(Some(life), NOW), early);
    }

    #[test]
    fn failures_wait_longer_and_longer_and_never_more_than_half_a_day() {
        let minutes = [10, 20, 40, 80, 160, 320, 640, 720, 720];
        for (times, minutes) in (1..).zip(minutes) {
            let due = failing(times).due(None, NOW);
            assert_eq!(due, NOW.plus(Duration::from_mins(minutes)), "{times}");
        }
        assert_eq!(failing(200).due(None, NOW), NOW.plus(BACK_OFF_MAX));
        let waits = [1, 5, 7, 99].map(|times| back_off(times, false));
        assert_eq!(
            waits,
            [1, 16, 60, 60].map(Duration::from_mins),
            "not reached"
        );
        // The clock was turned back by a year since.
        let earlier = NOW.minus(DAY * 365);
        assert_eq!(failing(1).due(None, earlier), earlier);
    }

    #[test]
    fn a_start_waits_no_longer_than_after_a_first_failure_and_never_hammers() {
        let mut memory = failing(9);
        memory.asked = "names".to_owned();
        let later = NOW.plus(Duration::from_mins(1));
        let again = memory.clone().at_start("names", later);
        assert_eq!(again.due(None, later), NOW.plus(BACK_OFF));
        assert_eq!(again.failures, 9, "what failed is remembered");
        let other = memory.clone().at_start("other names", later);
        assert_eq!((other.due(None, later), other.failures), (later, 0));
        let earlier = NOW.minus(DAY);
        assert_eq!(
            memory.at_start("names", earlier).due(None, earlier),
            earlier
        );
    }

    #[test]
    fn lets_encrypts_limits_are_spared_by_its_staging_directory() {
        assert_eq!(failing(1).place(true), Directory::Asked);
        assert_eq!(failing(2).place(true), Directory::Staging);
        assert_eq!(
            failing(50).place(false),
            Directory::Asked,
            "others have none"
        );
        let mut memory = failing(4);
        memory.staged(NOW);
        assert_eq!(memory.place(true), Directory::Asked);
        assert_eq!(memory.due(None, NOW), NOW, "at once");
        memory.failed("no".to_owned(), true, NOW);
        assert_eq!(memory.place(true), Directory::Staging);
        let life = Life {
            begins: NOW.minus(DAY * 90),
            ends: NOW.plus(DAY),
        };
        memory.succeeded("authority", Kind::TlsAlpn, life, NOW);
        assert_eq!(memory.place(true), Directory::Asked);
        assert_eq!(memory.failing_since, None);
        assert_eq!(
            memory.due(Some(life), NOW),
            NOW.plus(REST_MAX),
            "not at once again"
        );
        assert_eq!(memory.due(None, NOW), NOW, "unless it was lost");
    }
}
