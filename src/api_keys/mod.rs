//! The API key that every copy of the program contains, its rotation, and the rotated keys that are still accepted.

pub mod cli;
pub mod panel;
mod rules;
mod store;

pub use rules::{Refusal, check, masked, overlap};

use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::{Error, Result};
use crate::revision::Revision;
use crate::security::secret::{self, Secret};
use crate::text;

/// The current API key.
#[derive(Clone, Debug)]
pub struct CurrentKey {
    /// The name of the product that the key is for.
    pub client_name: String,
    /// The key.
    pub key: Secret<String>,
}

impl CurrentKey {
    /// Identifies the key, to detect edit conflicts.
    pub fn revision(&self) -> Revision {
        Revision::of(&json!({ "api_key": self.key.reveal() }))
    }
}

/// An API key that was rotated out.
#[derive(Clone, Debug)]
pub struct RetiredKey {
    /// The key.
    pub key: Secret<String>,
    /// The key is accepted until then.
    pub valid_until: UnixMs,
}

/// The hashes of the API keys that are accepted at one moment.
#[derive(Clone, Debug)]
pub struct AcceptedKeys {
    /// SHA-256 of the current key.
    current: [u8; 32],
    /// SHA-256 of every key that was rotated out, and until when it is accepted.
    retired: Vec<([u8; 32], UnixMs)>,
}

impl AcceptedKeys {
    /// Checks an API key, in constant time.
    ///
    /// # Errors
    /// [`Refusal::InvalidApiKey`].
    pub fn check(&self, presented: &str, now: UnixMs) -> Result<(), Refusal> {
        let presented = secret::sha256(presented.as_bytes());
        let mut is_valid = secret::constant_time_eq(&self.current, &presented);
        for (hash, until) in &self.retired {
            let is_equal = secret::constant_time_eq(hash, &presented);
            is_valid |= is_equal && now < *until;
        }
        if is_valid {
            Ok(())
        } else {
            Err(Refusal::InvalidApiKey)
        }
    }

    /// Whether both have the same current key.
    pub fn has_same_current(&self, other: &Self) -> bool {
        self.current == other.current
    }
}

/// The current key.
///
/// # Errors
/// [`Error::Damaged`] if there is none: the first start generates it, and nothing removes it.
pub fn current(reader: &Reader<'_>) -> Result<CurrentKey> {
    store::current(reader)?.ok_or_else(|| Error::Damaged {
        found: "the client configuration is missing".to_owned(),
    })
}

/// The hashes of the current key and of the retired ones.
pub fn accepted(reader: &Reader<'_>) -> Result<AcceptedKeys> {
    let hash = |key: &Secret<String>| secret::sha256(key.reveal().as_bytes());
    let retired = store::retired(reader)?;
    Ok(AcceptedKeys {
        current: hash(&current(reader)?.key),
        retired: retired
            .iter()
            .map(|old| (hash(&old.key), old.valid_until))
            .collect(),
    })
}

/// The API keys that were rotated out and are still valid at `now`, the longest valid first.
pub fn retired(reader: &Reader<'_>, now: UnixMs) -> Result<Vec<RetiredKey>> {
    let mut keys = store::retired(reader)?;
    keys.retain(|key| now < key.valid_until);
    Ok(keys)
}

/// A new random key.
pub fn generate() -> Result<Secret<String>> {
    let random: [u8; 24] = secret::random()?;
    Ok(Secret::new(format!("lsk_{}", secret::hex(&random))))
}

/// A rotation that an administrator confirms by typing the name of the product.
#[derive(Clone, Debug)]
pub struct ConfirmedRotation {
    /// The name of the product, as typed.
    pub confirm: String,
    /// The [`CurrentKey::revision`] of the key to be replaced.
    pub seen: Revision,
    /// Days for which the old key stays valid; 0: it becomes invalid at once.
    pub overlap_days: u32,
}

/// As [`rotate`], if the key is still the one that the administrator saw and the typed name is right.
///
/// # Errors
/// `changed_meanwhile`; [`Error::Invalid`] for a wrong name or too many days.
pub fn rotate_confirmed(act: &Act<'_>, rotation: &ConfirmedRotation) -> Result<()> {
    let current = current(act.tx)?;
    rotation.seen.check(&current.revision())?;
    if text::clean_input(&current.client_name) != text::clean_input(&rotation.confirm) {
        return Err(Error::invalid("confirm", "is not the product's name"));
    }
    rotate(act, overlap(rotation.overlap_days)?)
}

/// Replaces the API key; the old one stays valid for `overlap`.
pub fn rotate(act: &Act<'_>, overlap: Duration) -> Result<()> {
    let old = current(act.tx)?.key;
    // Without an overlap, the keys that were rotated out before become invalid too.
    let expired_at = if overlap.is_zero() {
        UnixMs(i64::MAX)
    } else {
        act.now
    };
    store::forget_retired(act.tx, expired_at)?;
    let valid_until = act.now.plus(overlap);
    if !overlap.is_zero() {
        let retired = RetiredKey {
            key: old,
            valid_until,
        };
        store::retire(act.tx, &retired)?;
    }
    store::set_current(act.tx, &generate()?, act.now)?;
    act.changed(&Change {
        action: "client_config.rotate_api_key",
        subject: "client",
        before: Value::Null,
        after: json!({ "old_key_valid_until": valid_until.rfc3339() }),
    })
}
