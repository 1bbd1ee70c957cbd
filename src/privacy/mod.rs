//! What the law gives a person: all that the database holds of a customer in one document, and its erasure. Erasures
//! are listed in the database and in a file beside it, so that a restore of an older copy erases the same customers
//! again. Also what is deleted after the times in the settings.

pub mod cli;
mod erase;
mod erased_list;
mod export;
pub mod panel;
mod retention;
mod store;

pub use erase::{Erased, ErasureRequest, erase, remove};
pub use erased_list::{
    ErasedAgain, erase_again, erasures, erasures_beside, reconcile, save, save_beside,
};
pub use export::{PersonalData, export};
pub use retention::{Deleted, Retention, delete_expired};

use crate::clock::UnixMs;
use crate::id::CustomerId;

/// What becomes of the licenses of a customer who is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LicensePolicy {
    /// They are revoked, and lose their domains.
    Revoke,
    /// They can still be used by programs and sites that have their keys. Their devices are released all the same.
    Keep,
}

/// The erasure of a customer. Nothing in it names a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The customer's id.
    pub customer_id: CustomerId,
    /// When the customer was added: after a restore, another customer may get the same id.
    pub created_at: UnixMs,
    /// When the customer was erased first.
    pub erased_at: UnixMs,
    /// When the customer was erased for the last time, if more than once.
    pub again_at: Option<UnixMs>,
    /// What became of the licenses.
    pub licenses: LicensePolicy,
}

impl LicensePolicy {
    /// The word in the database.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Keep => "keep",
        }
    }

    /// The policy for the word in the database.
    fn parse(text: &str) -> Option<Self> {
        [Self::Revoke, Self::Keep]
            .into_iter()
            .find(|policy| policy.as_str() == text)
    }
}
