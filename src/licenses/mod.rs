//! Licenses: what was sold, to whom, for how many devices and until when.

mod change;
pub mod cli;
pub mod client;
mod issue;
mod listing;
pub mod panel;
mod rules;
mod sale;
mod store;

pub use change::{
    EditedTerms, Extension, LicenseEdit, begin_term, change_terms, edit, extend, extend_unchanged,
    former_owner, reinstate, revoke, revoke_confirmed, suspend, undo_begin_term,
};
pub use issue::{ORDER_MAX, Order, Term, issue_trial};
pub use listing::{
    COLUMNS, LicenseCounts, LicenseQuery, LicenseRow, LicenseSearch, LicenseText, PlanRange, count,
    count_by_filter, find_row, list, of_customers, of_plan, page, search, with_text,
};
pub use rules::{EXPIRING_WITHIN, Refusal, check_usable};
pub use sale::{Buyer, assign, sell};

pub use crate::features::Features;
pub use crate::license_key::{KEY_TEXT_MAX, LicenseKey, key_part};
pub use crate::license_lists::LicenseFilter;

use serde_json::{Value, json};

use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::{Error, Resource, Result};
use crate::id::{CustomerId, LicenseId, ProductId};
use crate::product_state;
use crate::revision::Revision;

/// Whether a license is paid for or for evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Paid for.
    Full,
    /// For evaluation.
    Trial,
}

/// The state that administrators have set; a license in use may still be expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LicenseState {
    /// In use.
    Active,
    /// Stopped until it is reinstated.
    Suspended,
    /// Stopped permanently.
    Revoked,
}

/// A license that was sold.
#[derive(Clone, Debug)]
pub struct License {
    /// The id.
    pub id: LicenseId,
    /// The key that the customer received.
    pub key: LicenseKey,
    /// The product that it is for.
    pub product: ProductId,
    /// The code of the plan that it was sold by, if any.
    pub plan: Option<String>,
    /// The customer who owns it; `None` for a trial that was not bought.
    pub customer_id: Option<CustomerId>,
    /// The customer's name; empty without a customer.
    pub customer: String,
    /// Full or trial.
    pub kind: Kind,
    /// The state that administrators have set.
    pub state: LicenseState,
    /// How many devices may hold a slot; at least 1.
    pub device_limit: u32,
    /// The first moment at which it can be used.
    pub valid_from: UnixMs,
    /// The last moment at which it can be used; `None` if it does not expire, or if its term has not begun.
    pub valid_until: Option<UnixMs>,
    /// The days of its term, which its first activation begins; `None` if it has begun, or if there is none.
    pub pending_days: Option<u32>,
    /// What it allows a program to do.
    pub features: Features,
    /// Versions that were released later are not covered; `None` if all are.
    pub updates_until: Option<UnixMs>,
    /// The domain that it is bound to, in ASCII.
    pub domain: Option<String>,
    /// A note for administrators only.
    pub note: String,
    /// When it was issued.
    pub created_at: UnixMs,
}

/// A license as the audit log stores it.
fn audit_json(license: &License) -> Value {
    json!({
        "customer": license.customer_id,
        "kind": license.kind,
        "state": license.state,
        "device_limit": license.device_limit,
        "valid_from": license.valid_from.rfc3339(),
        "valid_until": license.valid_until.map(UnixMs::rfc3339),
        "pending_days": license.pending_days,
        "plan": license.plan,
        "features": license.features.stored(),
        "updates_until": license.updates_until.map(UnixMs::rfc3339),
        "domain": license.domain,
        "note": license.note,
    })
}

/// The license with this id.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn find(reader: &Reader<'_>, id: LicenseId) -> Result<License> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found(Resource::License, id))
}

/// The license of a product with this key, whatever its state; `None` if the product has none, or is archived. A key of
/// another product is not told from an unknown one, nor by the time that it takes.
pub fn by_key(
    reader: &Reader<'_>,
    product: ProductId,
    key: &LicenseKey,
) -> Result<Option<License>> {
    store::by_key(reader, product, key)
}

/// The license with this key, of any product in use, or why it cannot be used now: for sites.
pub fn usable_by_key(
    reader: &Reader<'_>,
    key: &LicenseKey,
    now: UnixMs,
) -> Result<Result<License, Refusal>> {
    match store::by_key_of_any_product(reader, key)? {
        Some(license) if product_state::is_in_use(reader, license.product)? => {
            Ok(check_usable(&license, now).map(|()| license))
        }
        _ => Ok(Err(Refusal::NotFound)),
    }
}

/// The license of a key as typed by an administrator.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn by_typed_key(reader: &Reader<'_>, typed: &str) -> Result<License> {
    let found = LicenseKey::parse(typed)
        .map(|key| store::by_key_of_any_product(reader, &key))
        .transpose()?;
    found
        .flatten()
        .ok_or_else(|| Error::not_found(Resource::LicenseWithKey, typed))
}

impl License {
    /// The revision of its end, which an extension is based on.
    pub fn end_revision(&self) -> Revision {
        Revision::of(&serde_json::json!([self.valid_until, self.pending_days]))
    }

    /// The revision of everything that can be edited.
    pub fn revision(&self) -> Revision {
        Revision::of(&audit_json(self))
    }
}

impl Kind {
    /// The word in the database and in responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Trial => "trial",
        }
    }

    /// The kind for a word.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another word.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "full" => Ok(Self::Full),
            "trial" => Ok(Self::Trial),
            _ => Err(Error::invalid("kind", "must be full or trial")),
        }
    }
}

impl LicenseState {
    /// The word in the database and in lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }
}

/// A license for tests of rules, in this state and valid between these moments.
#[cfg(test)]
fn sample(state: LicenseState, from: i64, until: Option<i64>) -> License {
    License {
        id: LicenseId(1),
        key: LicenseKey::new().unwrap(),
        product: ProductId::FIRST,
        plan: None,
        customer_id: Some(CustomerId(1)),
        customer: String::new(),
        kind: Kind::Full,
        state,
        device_limit: 1,
        valid_from: UnixMs(from),
        valid_until: until.map(UnixMs),
        pending_days: None,
        features: Features::default(),
        updates_until: None,
        domain: None,
        note: String::new(),
        created_at: UnixMs(0),
    }
}
