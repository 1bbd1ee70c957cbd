//! Why a trial, or its sale, is refused.

use crate::error::{Error, RefusalKind, Refused};

/// The code of a device that finds the slots of its license taken by others, as for an activation.
pub(super) const LIMIT_REACHED: &str = "device_limit_reached";

/// Why a trial, or its sale, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The product offers no trials without a key.
    NotOffered,
    /// For administrators: the license has a customer.
    AlreadySold,
}

impl Refusal {
    /// The error code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotOffered => "trial_not_offered",
            Self::AlreadySold => "license_sold",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::NotOffered => RefusalKind::Forbidden,
            Self::AlreadySold => RefusalKind::Conflict,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind(), refusal.code())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}
