//! Which device may have a slot.

use crate::error::{Error, Refused};

/// Why a device may not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It holds no slot.
    NotActivated,
    /// Every slot is taken by another.
    LimitReached {
        /// Slots of the license.
        device_limit: u32,
    },
}

impl Refusal {
    /// The word programs match on.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotActivated => "device_not_activated",
            Self::LimitReached { .. } => "device_limit_reached",
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let plain = Self::plain(refusal.code());
        match refusal {
            Refusal::NotActivated => plain,
            Refusal::LimitReached { device_limit } => plain.with("device_limit", device_limit),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// Whether another device may have a slot.
pub(super) fn slot_left(taken: u32, device_limit: u32) -> Result<(), Refusal> {
    if taken < device_limit {
        Ok(())
    } else {
        Err(Refusal::LimitReached { device_limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_slot_can_be_taken_and_the_one_after_it_cannot() {
        let full = Err(Refusal::LimitReached { device_limit: 2 });
        for (taken, expected) in [(0, Ok(())), (1, Ok(())), (2, full), (3, full)] {
            assert_eq!(slot_left(taken, 2), expected);
        }
    }
}
