//! What the law gives a person: all that the database holds of a customer in one document, and its erasure. Erasures
//! are listed in the database and in files, so that a restore of an older copy erases the same customers again. Also what
//! is deleted after the times in the settings.

pub mod cli;
mod erase;
mod erased_list;
mod export;
pub mod panel;
mod retention;
mod store;

pub use erase::{Erased, ErasureRequest, erase, remove};
pub use erased_list::{
    ErasedAgain, ListFiles, Reconciled, erase_again, erasures, erasures_in_use, list_name,
    parse_list,
};
pub use export::{PersonalData, export};
pub use retention::{Deleted, Retention, delete_expired};

use std::ops::RangeInclusive;

use crate::clock::UnixMs;
use crate::customers;
use crate::db::Reader;
use crate::error::{Error, Result};
use crate::id::CustomerId;

/// Whether a customer was erased at or after this moment: what is only now written about something earlier may be about
/// them.
pub fn was_erased_since(reader: &Reader<'_>, at: UnixMs) -> Result<bool> {
    store::was_erased_since(reader, at)
}

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

/// The moments between which copies of the database were made that may hold data of an erased customer: from when the
/// customer, or a trial that the customer bought, was added, to the last erasure; to `now` if there was none.
pub fn span_of_copies(
    reader: &Reader<'_>,
    id: CustomerId,
    now: UnixMs,
) -> Result<RangeInclusive<UnixMs>> {
    let customer = customers::get(reader, id)?;
    let oldest = store::oldest_license(reader, id)?;
    let since = oldest.map_or(customer.created_at, |at| at.min(customer.created_at));
    let mut erasures = store::erasures(reader)?.into_iter();
    let erasure = erasures.find(|it| it.customer_id == id && it.created_at == customer.created_at);
    Ok(since..=erasure.map_or(now, |it| it.again_at.unwrap_or(it.erased_at)))
}

/// That a list of erased customers was not written after an erasure, and what happens next.
fn unlisted(error: &Error) -> String {
    let next = match error {
        // A file that cannot be read is not replaced, since it may list what nothing else does.
        Error::State(_) => "; `license-server check` says when all is well",
        _ => ": the next start of the server writes it",
    };
    format!("the list of erased customers was not written: {error}{next}")
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
