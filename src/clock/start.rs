//! Whether a process that starts believes the machine's date though that is ahead of the last one known. No database,
//! no file: only the decision.

use std::fmt;
use std::time::Duration;

use super::UnixMs;

/// How far ahead is believed without a reason: less than a start would have to wait otherwise. The clock of a machine
/// that went on running may have been set right by as much since it was last believed.
pub(super) const NEAR: Duration = super::JUMP_CONFIRMED;
/// The longest stop that explains a date which nothing vouches for: a weekend with the holidays beside it. Clocks that
/// are wrong after a boot are wrong by hours (a time zone), by years, or behind.
pub const STOP: Duration = Duration::from_hours(5 * 24);
/// Longest name of a boot that is read: a UUID has 36 characters.
const BOOT_MAX: usize = 36;

/// When the machine booted, by its own clock: another clock, or one that was turned since, gives another moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    id: [u8; BOOT_MAX],
    began: UnixMs,
}

impl Boot {
    /// The boot of this name, which began at this moment.
    pub fn new(id: &str, began: UnixMs) -> Option<Self> {
        let mut own = [b' '; BOOT_MAX];
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if id.is_empty() || id.len() > BOOT_MAX || !id.bytes().all(good) {
            return None;
        }
        for (place, byte) in own.iter_mut().zip(id.bytes()) {
            *place = byte;
        }
        Some(Self { id: own, began })
    }

    /// As [`Boot`] is written: `id@milliseconds`.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, began) = text.split_once('@')?;
        Self::new(id, UnixMs(began.parse().ok()?))
    }

    /// Whether the clock of one has gone on, untouched, to the other.
    fn goes_on(&self, later: &Self) -> bool {
        self.id == later.id && later.began.0.abs_diff(self.began.0) <= ms(NEAR).unsigned_abs()
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = String::from_utf8_lossy(&self.id);
        write!(f, "{}@{}", id.trim_end(), self.began.0)
    }
}

/// What there is to judge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// What the machine says.
    pub(super) machine: UnixMs,
    /// The latest date known; 0 for none.
    pub(super) known: UnixMs,
    /// The boot of the machine.
    pub(super) boot: Option<Boot>,
    /// The boot in which its clock was last believed.
    pub(super) believed: Option<Boot>,
    /// Whether time synchronisation vouches for the machine.
    pub(super) is_synchronised: bool,
}

/// Why a start goes by the machine's date, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not far ahead of the last date known, or there is none.
    Near,
    /// The machine has not booted since its clock was last believed, and nothing has turned the clock.
    SameBoot,
    /// Time synchronisation vouches for it.
    Synchronised,
    /// It is ahead by no more than a stop of [`STOP`] explains.
    Stop,
    /// Nothing explains it: the last date known counts for now.
    Doubted,
}

impl Reason {
    /// Decides.
    pub(super) fn of(facts: &Facts) -> Self {
        let Facts { machine, known, .. } = *facts;
        let same_clock = || match (&facts.believed, &facts.boot) {
            (Some(before), Some(now)) => before.goes_on(now),
            _ => false,
        };
        if known <= UnixMs(0) || machine <= known.plus(NEAR) {
            Self::Near
        } else if same_clock() {
            Self::SameBoot
        } else if facts.is_synchronised {
            Self::Synchronised
        } else if machine <= known.plus(STOP) {
            Self::Stop
        } else {
            Self::Doubted
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
    fn a_start_believes_what_a_stop_the_same_boot_or_synchronisation_explains() {
        let day = Duration::from_hours(24);
        let began = KNOWN.minus(day);
        let boot = |id, began| Boot::new(id, began);
        let (same, near) = (boot("a", began), boot("a", began.plus(NEAR)));
        let (turned, other) = (boot("a", began.plus(day * 400)), boot("b", began));
        for (days, now, believed, is_synchronised, reason) in [
            (0, None, None, false, Reason::Near),
            (3, None, None, false, Reason::Stop),
            (5, other, same, false, Reason::Stop),
            (6, None, None, false, Reason::Doubted),
            (6, other, same, false, Reason::Doubted),
            (6, other, same, true, Reason::Synchronised),
            (6, same, None, false, Reason::Doubted),
            (6, same, same, false, Reason::SameBoot),
            (90, near, same, false, Reason::SameBoot),
            (400, turned, same, false, Reason::Doubted),
            (400, turned, same, true, Reason::Synchronised),
        ] {
            let facts = Facts {
                machine: KNOWN.plus(day * days),
                known: KNOWN,
                boot: now,
                believed,
                is_synchronised,
            };
            assert_eq!(Reason::of(&facts), reason, "{facts:?}");
        }
        let first = Facts {
            machine: KNOWN,
            known: UnixMs(0),
            boot: None,
            believed: None,
            is_synchronised: false,
        };
        assert_eq!(Reason::of(&first), Reason::Near);
    }

    #[test]
    fn a_boot_is_read_as_it_was_written() {
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
