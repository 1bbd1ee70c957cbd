//! The API key that every copy of the program contains, its rotation, and the rotated keys that are still accepted.

pub mod cli;
pub mod panel;
mod rules;
mod store;

pub use rules::{Refusal, masked, overlap};

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::{Error, Faults, Result};
use crate::id::ProductId;
use crate::product_state;
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

/// The API keys of all products that are accepted at one moment.
#[derive(Clone, Debug, Default)]
pub struct AcceptedKeys {
    /// By the SHA-256 of a key: its product, and the time until which it is accepted; `None` for a current key.
    by_digest: HashMap<[u8; 32], (ProductId, Option<UnixMs>)>,
    /// The SHA-256 of the current key of each product.
    current: BTreeMap<ProductId, [u8; 32]>,
}

impl AcceptedKeys {
    /// The product of an API key. Takes the same time for every key, however many there are: digests are compared,
    /// which a caller cannot choose.
    ///
    /// # Errors
    /// [`Refusal::InvalidApiKey`].
    pub fn product_of(&self, presented: &str, now: UnixMs) -> Result<ProductId, Refusal> {
        match self.by_digest.get(&secret::sha256(presented.as_bytes())) {
            Some((product, until)) if until.is_none_or(|until| now < until) => Ok(*product),
            _ => Err(Refusal::InvalidApiKey),
        }
    }

    /// Adds a key; `until` as in `by_digest`. A key that was rotated out and is current again does not expire.
    fn add(&mut self, digest: [u8; 32], product: ProductId, until: Option<UnixMs>) {
        if until.is_none() {
            self.current.insert(product, digest);
            self.by_digest.insert(digest, (product, None));
        } else {
            self.by_digest.entry(digest).or_insert((product, until));
        }
    }

    /// The products whose current key differs from that in `before`; products that are new there do not count.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = ProductId> + 'a {
        let changed = |(product, digest): (&ProductId, &[u8; 32])| {
            let known = before.current.get(product)?;
            (known != digest).then_some(*product)
        };
        self.current.iter().filter_map(changed)
    }
}

/// The current key of a product.
///
/// # Errors
/// [`Error::Damaged`] if there is none: every product is added with one, and nothing removes it.
pub fn current(reader: &Reader<'_>, product: ProductId) -> Result<CurrentKey> {
    store::current(reader, product)?.ok_or_else(|| Error::Damaged {
        found: "the client configuration is missing".to_owned(),
    })
}

/// The keys of all products that programs may present.
pub fn accepted(reader: &Reader<'_>) -> Result<AcceptedKeys> {
    let mut accepted = AcceptedKeys::default();
    for (product, key, until) in store::accepted(reader)? {
        let digest = secret::sha256(key.reveal().as_bytes());
        accepted.add(digest, product, until);
    }
    Ok(accepted)
}

/// Checks that a key that a shop brings along for `product` has a valid form and belongs to no other product.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check_usable_for(
    reader: &Reader<'_>,
    product: ProductId,
    key: &Secret<String>,
) -> Result<()> {
    rules::check(key)?;
    match store::owner(reader, key)? {
        Some(owner) if owner != product => {
            Err(Error::invalid("api_key", "belongs to another product"))
        }
        _ => Ok(()),
    }
}

/// The API keys of a product that were rotated out and are still valid at `now`, the longest valid first.
pub fn retired(reader: &Reader<'_>, product: ProductId, now: UnixMs) -> Result<Vec<RetiredKey>> {
    let mut keys = store::retired(reader, product)?;
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
/// `changed_meanwhile`, `product_archived`; [`Error::Invalid`] for a wrong name or too many days.
pub fn rotate_confirmed(
    act: &Act<'_>,
    product: ProductId,
    rotation: &ConfirmedRotation,
) -> Result<()> {
    let current = current(act.tx, product)?;
    rotation.seen.check(&current.revision())?;
    let mut faults = Faults::default();
    if text::clean_input(&current.client_name) != text::clean_input(&rotation.confirm) {
        faults.add(Error::invalid("confirm", "is not the product's name"));
    }
    let overlap = faults.keep(overlap(rotation.overlap_days));
    faults.finish()?;
    rotate(act, product, overlap.unwrap_or_default())
}

/// Replaces the API key of a product; the old one stays valid for `overlap`.
///
/// # Errors
/// `product_archived`.
pub fn rotate(act: &Act<'_>, product: ProductId, overlap: Duration) -> Result<()> {
    product_state::check_in_use(act.tx, product)?;
    let old = current(act.tx, product)?.key;
    // Without an overlap, the keys that were rotated out before become invalid too.
    let expired_at = if overlap.is_zero() {
        UnixMs(i64::MAX)
    } else {
        act.now
    };
    store::forget_retired(act.tx, product, expired_at)?;
    let valid_until = act.now.plus(overlap);
    if !overlap.is_zero() {
        let retired = RetiredKey {
            key: old,
            valid_until,
        };
        store::retire(act.tx, product, &retired)?;
    }
    store::set_current(act.tx, product, &generate()?, act.now)?;
    act.changed(&Change {
        action: "client_config.rotate_api_key",
        subject: &product_state::audit_subject(act.tx, product, "client")?,
        before: Value::Null,
        after: json!({ "old_key_valid_until": valid_until.rfc3339() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_current_again_does_not_expire() {
        let (now, product) = (UnixMs(1_700_000_000_000), ProductId::FIRST);
        let digest = secret::sha256(b"lsk_0123456789ABCDEFGHJK");
        let soon = Some(now.plus(Duration::from_secs(1)));
        for order in [[None, soon], [soon, None]] {
            let mut accepted = AcceptedKeys::default();
            for until in order {
                accepted.add(digest, product, until);
            }
            let later = now.plus(Duration::from_hours(24));
            let found = accepted.product_of("lsk_0123456789ABCDEFGHJK", later);
            assert_eq!(found, Ok(product), "{order:?}");
        }
    }

    #[test]
    fn a_key_that_was_rotated_out_is_accepted_until_its_end() {
        let (now, product) = (UnixMs(1_700_000_000_000), ProductId(2));
        let mut accepted = AcceptedKeys::default();
        accepted.add(secret::sha256(b"old"), product, Some(now));
        accepted.add(secret::sha256(b"new"), product, None);
        let of = |key: &str, now| accepted.product_of(key, now);
        assert_eq!(of("old", UnixMs(now.0 - 1)), Ok(product));
        assert_eq!(of("old", now), Err(Refusal::InvalidApiKey));
        assert_eq!(of("new", now), Ok(product));
        assert_eq!(of("", now), Err(Refusal::InvalidApiKey));
    }
}
