//! Feature flags: switches that programs learn when a session starts, each for all licenses or for a percentage of them.

pub mod cli;
pub mod panel;
mod rules;
mod store;

pub use rules::{Refusal, Rollout, rollout};

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::db::Reader;
use crate::error::{Error, Faults, Resource, Result};
use crate::id::ProductId;
use crate::product_state;
use crate::revision::Revision;
use crate::text;

/// A feature flag.
#[derive(Clone, Debug)]
pub struct Flag {
    /// 1 to 64 characters.
    pub name: String,
    /// A note for administrators.
    pub description: String,
    /// If false, the flag is off for every license.
    pub enabled: bool,
    /// Percentage of licenses that the flag is on for.
    pub share_percent: u8,
}

impl Flag {
    /// Whether the flag is on for a license.
    pub fn is_on_for(&self, license_id: i64) -> bool {
        self.enabled && rollout(&self.name, license_id, Rollout(self.share_percent))
    }

    /// Identifies the content, to detect edit conflicts.
    pub fn revision(&self) -> Revision {
        Revision::of(&self.facts())
    }

    /// The flag as JSON, for the audit log.
    fn facts(&self) -> Value {
        json!({
            "name": self.name,
            "description": self.description,
            "enabled": self.enabled,
            "share_percent": self.share_percent,
        })
    }

    /// The change that sets every field.
    fn change(&self) -> FlagChange {
        FlagChange {
            enabled: Some(self.enabled),
            share_percent: Some(self.share_percent),
            description: Some(self.description.clone()),
        }
    }
}

/// Every feature flag of a product, ordered by name.
pub fn list(reader: &Reader<'_>, product: ProductId) -> Result<Vec<Flag>> {
    store::list(reader, product)
}

/// The flag of this name.
///
/// # Errors
/// [`Error::NotFound`] if it does not exist.
pub fn find(reader: &Reader<'_>, product: ProductId, name: &str) -> Result<Flag> {
    known(reader, product, name)?.ok_or_else(|| Error::not_found(Resource::FeatureFlag, name))
}

/// The flag of this name. `None` if it does not exist.
fn known(reader: &Reader<'_>, product: ProductId, name: &str) -> Result<Option<Flag>> {
    let mut flags = store::list(reader, product)?.into_iter();
    Ok(flags.find(|flag| flag.name == name))
}

/// Adds a flag.
///
/// # Errors
/// [`Refusal::Exists`], and the errors of [`set`].
pub fn add(act: &Act<'_>, product: ProductId, flag: &Flag) -> Result<()> {
    let mut faults = Faults::default();
    if known(act.tx, product, &flag.name)?.is_some() {
        faults.add(Refusal::Exists);
    }
    faults.with(set(act, product, &flag.name, &flag.change()))
}

/// Changes a flag. `seen` is the [`Flag::revision`] that the edit is based on.
///
/// # Errors
/// [`Error::NotFound`] if it does not exist, `changed_meanwhile`, and the errors of [`set`].
pub fn edit(act: &Act<'_>, product: ProductId, flag: &Flag, seen: &Revision) -> Result<()> {
    seen.check(&find(act.tx, product, &flag.name)?.revision())?;
    set(act, product, &flag.name, &flag.change())
}

/// A change of a flag. A field that is `None` keeps its value; for a new flag, it starts with its default: enabled, for
/// 100 percent, without a description.
#[derive(Clone, Debug, Default)]
pub struct FlagChange {
    /// On or off.
    pub enabled: Option<bool>,
    /// Percentage of licenses that the flag is on for.
    pub share_percent: Option<u8>,
    /// A note for administrators.
    pub description: Option<String>,
}

/// Creates or changes the flag `name` of a product.
///
/// # Errors
/// [`Error::Invalid`] for a malformed name or description, or a percentage above 100; `product_archived`.
pub fn set(act: &Act<'_>, product: ProductId, name: &str, change: &FlagChange) -> Result<()> {
    product_state::check_in_use(act.tx, product)?;
    let old = known(act.tx, product, name)?;
    let mut flag = old.clone().unwrap_or_else(|| Flag {
        name: name.to_owned(),
        description: String::new(),
        enabled: true,
        share_percent: 100,
    });
    flag.enabled = change.enabled.unwrap_or(flag.enabled);
    flag.share_percent = change.share_percent.unwrap_or(flag.share_percent);
    if let Some(description) = &change.description {
        flag.description = text::clean_input(description);
    }
    rules::check(&flag)?;
    store::set(act.tx, product, &flag, act.now)?;
    act.changed(&Change {
        action: "client_config.set_flag",
        subject: &product_state::audit_subject(act.tx, product, name)?,
        before: json!(old.as_ref().map(Flag::facts)),
        after: flag.facts(),
    })
}

/// Removes the flag `name`; programs do not get it any more.
///
/// # Errors
/// [`Error::NotFound`] if it does not exist, `product_archived`.
pub fn remove(act: &Act<'_>, product: ProductId, name: &str) -> Result<()> {
    product_state::check_in_use(act.tx, product)?;
    let old = find(act.tx, product, name)?;
    store::remove(act.tx, product, name)?;
    act.changed(&Change {
        action: "client_config.remove_flag",
        subject: &product_state::audit_subject(act.tx, product, name)?,
        before: old.facts(),
        after: Value::Null,
    })
}
