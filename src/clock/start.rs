//! Decides whether a starting process trusts the system clock although that is ahead of the latest date known.
//! Pure logic, without database or files.

use std::fmt;
use std::time::Duration;

use super::UnixMs;

/// How far ahead the clock is trusted without a reason: no farther than a start would have to wait otherwise. A
/// clock may have been corrected by as much since it was last trusted.
pub(super) const NEAR: Duration = super::JUMP_CONFIRMED;
/// Maximum length of a boot id: a UUID has 36 characters.
const BOOT_MAX: usize = 36;

/// A boot of the machine: its id, and when it began by the system clock. If the clock is changed, the same boot
/// seems to have begun at another moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    id: [u8; BOOT_MAX],
    began: UnixMs,
}

impl Boot {
    /// The boot with this id, which began at this moment; `None` if the id is not made of letters, digits and
    /// hyphens.
    pub fn new(id: &str, began: UnixMs) -> Option<Self> {
        let mut bytes = [b' '; BOOT_MAX];
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if id.is_empty() || id.len() > BOOT_MAX || !id.bytes().all(is_allowed) {
            return None;
        }
        for (slot, byte) in bytes.iter_mut().zip(id.bytes()) {
            *slot = byte;
        }
        Some(Self { id: bytes, began })
    }

    /// Parses the form of `Display`: `id@milliseconds`.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, began) = text.split_once('@')?;
        Self::new(id, UnixMs(began.parse().ok()?))
    }

    /// Whether `later` is the same boot, with a clock that was not changed since.
    fn continues_in(&self, later: &Self) -> bool {
        self.id == later.id && later.began.0.abs_diff(self.began.0) <= ms(NEAR).unsigned_abs()
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = String::from_utf8_lossy(&self.id);
        write!(f, "{}@{}", id.trim_end(), self.began.0)
    }
}

/// What the decision is based on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// The system clock's date.
    pub(super) machine: UnixMs,
    /// The latest date known; 0 for none.
    pub(super) known: UnixMs,
    /// The current boot.
    pub(super) boot: Option<Boot>,
    /// The boot in which the system clock was last trusted.
    pub(super) trusted_boot: Option<Boot>,
}

/// Why a start uses the system clock's date, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustReason {
    /// It is not far ahead of the latest date known, or there is none.
    Near,
    /// The machine has not rebooted since its clock was last trusted, and the clock was not changed.
    SameBoot,
    /// Time synchronization confirms it.
    Synchronized,
    /// Nothing explains it: the latest date known is used for now.
    Unexplained,
}

impl TrustReason {
    /// Decides from the facts, and, if nothing else explains the date, from whether time synchronization confirms
    /// it, which may take a moment to find out.
    pub(super) fn of(facts: &Facts, is_synchronized: impl FnOnce() -> bool) -> Self {
        let Facts { machine, known, .. } = *facts;
        let same_clock = || match (&facts.trusted_boot, &facts.boot) {
            (Some(before), Some(now)) => before.continues_in(now),
            _ => false,
        };
        if known <= UnixMs(0) || machine <= known.plus(NEAR) {
            Self::Near
        } else if same_clock() {
            Self::SameBoot
        } else if is_synchronized() {
            Self::Synchronized
        } else {
            Self::Unexplained
        }
    }
}

fn ms(span: Duration) -> i64 {
    super::millis(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: UnixMs = UnixMs(1_800_000_000_000);

    #[test]
    fn a_start_trusts_a_date_ahead_that_the_same_boot_or_synchronization_explains() {
        let day = Duration::from_hours(24);
        let (quarter, minutes) = (Duration::from_mins(15), Duration::from_mins(16));
        let began = KNOWN.minus(day);
        let boot = |id, began| Boot::new(id, began);
        let (same, near) = (boot("a", began), boot("a", began.plus(NEAR)));
        let (changed, other) = (boot("a", began.plus(day * 400)), boot("b", began));
        for (ahead, now, trusted_boot, is_synchronized, reason) in [
            (Duration::ZERO, None, None, false, TrustReason::Near),
            (quarter, other, same, false, TrustReason::Near),
            (minutes, None, None, false, TrustReason::Unexplained),
            (minutes, other, same, false, TrustReason::Unexplained),
            (day * 3, other, same, false, TrustReason::Unexplained),
            (day * 3, other, same, true, TrustReason::Synchronized),
            (day * 3, same, None, false, TrustReason::Unexplained),
            (day * 3, same, same, false, TrustReason::SameBoot),
            (day * 90, near, same, false, TrustReason::SameBoot),
            (day * 400, changed, same, false, TrustReason::Unexplained),
            (day * 400, changed, same, true, TrustReason::Synchronized),
        ] {
            let facts = Facts {
                machine: KNOWN.plus(ahead),
                known: KNOWN,
                boot: now,
                trusted_boot,
            };
            let found = TrustReason::of(&facts, || is_synchronized);
            assert_eq!(found, reason, "{facts:?}");
        }
        let first = Facts {
            machine: KNOWN,
            known: UnixMs(0),
            boot: None,
            trusted_boot: None,
        };
        assert_eq!(TrustReason::of(&first, || false), TrustReason::Near);
    }

    #[test]
    fn a_boot_is_parsed_as_it_was_printed() {
        let id = "0c1c7b66-5b7c-4a2e-9f6e-0123456789ab";
        let boot = Boot::new(id, KNOWN).unwrap();
        assert_eq!(boot.to_string(), format!("{id}@{}", KNOWN.0));
        assert_eq!(Boot::parse(&boot.to_string()), Some(boot));
        let long = format!("{id}x@1");
        for wrong in ["", "@1", "a", "a@", "a@x", "a b@1", long.as_str()] {
            assert_eq!(Boot::parse(wrong), None, "{wrong}");
        }
    }
}
