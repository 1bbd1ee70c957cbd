//! Decides whether a device may have a slot.

use crate::error::{Error, RefusalKind, Refused};

/// Why a program's request about a device is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The device holds no slot.
    NotActivated,
    /// Other devices hold all slots.
    LimitReached {
        /// How many slots the license has.
        device_limit: u32,
    },
    /// The license is a trial without a customer, and another device started it.
    BoundElsewhere {
        /// How many slots the license has.
        device_limit: u32,
    },
}

impl Refusal {
    /// The error code of the API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotActivated => "device_not_activated",
            Self::LimitReached { .. } | Self::BoundElsewhere { .. } => "device_limit_reached",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::NotActivated => RefusalKind::Forbidden,
            Self::LimitReached { .. } | Self::BoundElsewhere { .. } => RefusalKind::Conflict,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let plain = Self::new(refusal.kind(), refusal.code());
        match refusal {
            Refusal::NotActivated => plain,
            Refusal::LimitReached { device_limit } => plain.with("device_limit", device_limit),
            Refusal::BoundElsewhere { device_limit } => plain
                .with("device_limit", device_limit)
                .with_text_key("trial_of_another_device"),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// Refuses another device if no slot is free.
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
