//! The key pairs that the server signs with: the current one, the next one, which is published before it is used, and
//! the public keys of retired ones. Also which certificate authority programs trust.
//!
//! Programs and sites pin the public keys. So a key pair is generated once, and a lost one is never replaced silently:
//! everything that pins it would reject the server.

pub mod cli;
pub mod json;
mod rules;
mod store;

pub use rules::LostKeys;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{Act, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Db, Reader, Tx};
use crate::error::{Error, Result};
use crate::revision::Revision;
use crate::security::secret::hex;
use crate::security::signing::{PublicKey, Signer, SigningKeyPair, files};
use crate::tls::{self, TrustedAuthority};
use rules::{KeysPresent, Role, Rotation};

/// How long a retired public key is published: as long as the longest lease that it may have signed.
const PUBLISHED_FOR: Duration = Duration::from_hours(90 * 24);

/// A row of the table `signing_keys`.
#[derive(Clone, Debug)]
pub(super) struct SigningKeyRow {
    public: PublicKey,
    role: Role,
    retired_at: Option<UnixMs>,
}

/// A key that was current before.
#[derive(Clone, Copy, Debug)]
pub struct Retired {
    /// The key.
    pub public: PublicKey,
    /// When it was retired: nothing is signed with it since.
    pub at: UnixMs,
}

/// The public keys that programs and sites verify signatures with.
#[derive(Clone, Debug)]
pub struct Published {
    /// The current key.
    pub current: PublicKey,
    /// The key that becomes current at the next rotation.
    pub next: PublicKey,
    /// Retired keys, the most recent first.
    pub previous: Vec<Retired>,
}

impl Published {
    fn ids(&self) -> Value {
        json!({ "current": self.current.id(), "next": self.next.id() })
    }
}

/// Where the key pairs are kept.
#[derive(Clone, Copy)]
pub struct KeyStorage<'a> {
    /// Knows the public keys.
    pub db: &'a Db,
    /// The data folder, which has the private keys.
    pub data: &'a Path,
}

/// The public keys to verify with. `None` before the first start of a server.
pub fn published(reader: &Reader<'_>, now: UnixMs) -> Result<Option<Published>> {
    let all = store::all(reader)?;
    let role = |role| {
        all.iter()
            .find(|key| key.role == role)
            .map(|key| key.public)
    };
    let (Some(current), Some(next)) = (role(Role::Current), role(Role::Next)) else {
        return Ok(None);
    };
    let retired = all.iter().filter_map(|key| {
        let (public, at) = (key.public, key.retired_at?);
        (now < at.plus(PUBLISHED_FOR)).then_some(Retired { public, at })
    });
    let previous = retired.collect();
    Ok(Some(Published {
        current,
        next,
        previous,
    }))
}

fn expected(reader: &Reader<'_>, now: UnixMs) -> Result<Published> {
    published(reader, now)?.ok_or_else(no_key_yet)
}

fn no_key_yet() -> Error {
    Error::State(
        "there is no signing key yet: the first start of the server generates it".to_owned(),
    )
}

/// The current key pair, for a server that starts. The first start generates it and the next one.
///
/// # Errors
/// [`Error::State`] when a key file is missing; it says what to do.
pub fn open(db: &Db, data: &Path, now: UnixMs) -> Result<SigningKeyPair> {
    let Some(known) = db.read_blocking(|reader| published(reader, now))? else {
        return generate(db, data);
    };
    for retired in &known.previous {
        // A rotation deletes it, unless the process was killed in between.
        files::remove(data, &retired.public)?;
    }
    load_current(data, &known)
}

fn generate(db: &Db, data: &Path) -> Result<SigningKeyPair> {
    let current = files::adopt_legacy(data)?.map_or_else(|| files::generate(data), Ok)?;
    let (first, next) = (current.public(), files::generate(data)?.public());
    db.write_blocking("signing_keys.begin", move |tx| {
        store::insert(tx, &first, Role::Current)?;
        store::insert(tx, &next, Role::Next)?;
        tx.invalidate_caches();
        Ok(())
    })?;
    Ok(current)
}

/// The error for missing private keys: which file, and what to do.
fn missing(data: &Path, known: &Published, present: KeysPresent) -> Error {
    let lost = if present.current {
        known.next
    } else {
        known.current
    };
    let path = files::path_of(data, &lost);
    let file = path.display();
    Error::State(if present.next {
        format!(
            "{file} is missing: restore it from a copy, or let `license-server config rotate-signing-key` \
             make the next key current, which programs that pin both keys accept"
        )
    } else {
        format!(
            "{file} is missing: restore it from a copy; if it is lost, `license-server config \
             rotate-signing-key --lost` generates a new one, which every program and site that verifies \
             has to be given"
        )
    })
}

/// Checks that both private keys are present. Changes nothing. `None` before the first start of a server.
///
/// # Errors
/// [`Error::State`] when one is missing or unusable; it says what to do.
pub fn check(db: &Db, data: &Path, now: UnixMs) -> Result<Option<Published>> {
    unless_rotated(db, now, |known| {
        if let Some(known) = known {
            load_current(data, known)?;
        }
        Ok(known.cloned())
    })
}

/// What `find` finds with the published keys; with the newer ones if it fails and the keys were rotated meanwhile, which
/// deletes the file of the one that was current.
fn unless_rotated<T>(
    db: &Db,
    now: UnixMs,
    find: impl Fn(Option<&Published>) -> Result<T>,
) -> Result<T> {
    let read = || db.read_blocking(|reader| published(reader, now));
    let mut known = read()?;
    loop {
        let found = find(known.as_ref());
        if found.is_ok() {
            return found;
        }
        let newer = read()?;
        let current = |known: &Option<Published>| known.as_ref().map(|known| known.current);
        if current(&newer) == current(&known) {
            return found;
        }
        known = newer;
    }
}

/// The current key pair, if the private key of the next one is present, too.
fn load_current(data: &Path, known: &Published) -> Result<SigningKeyPair> {
    let next = files::load(data, &known.next)?.is_some();
    match files::load(data, &known.current)? {
        Some(keys) if next => Ok(keys),
        current => {
            let current = current.is_some();
            Err(missing(data, known, KeysPresent { current, next }))
        }
    }
}

/// Makes `signer` use the current key after a command has rotated it.
///
/// # Errors
/// When the key cannot be read; then `signer` keeps the old one.
pub fn refresh(db: &Db, data: &Path, signer: &Signer, now: UnixMs) -> Result<()> {
    unless_rotated(db, now, |known| {
        let known = known.ok_or_else(no_key_yet)?;
        if known.current == signer.key_pair().public() {
            return Ok(());
        }
        let present = KeysPresent {
            current: false,
            next: true,
        };
        let keys = files::load(data, &known.current)?;
        signer.replace(keys.ok_or_else(|| missing(data, known, present))?);
        let id = known.current.id();
        log::warn!("the signing key was rotated: responses are signed with {id} from now on");
        Ok(())
    })
}

/// Makes the next key current, generates a new next one, and deletes the private key of the old one. With
/// [`LostKeys::Replace`], replaces keys whose files are permanently lost.
///
/// # Errors
/// [`Error::State`] when the file of the next key is missing and is not to be replaced; it says what to do.
pub fn rotate(storage: KeyStorage<'_>, lost: LostKeys, actor: Actor, now: UnixMs) -> Result<()> {
    let KeyStorage { db, data } = storage;
    let known = db.read_blocking(|reader| expected(reader, now))?;
    let present = KeysPresent {
        current: files::load(data, &known.current)?.is_some(),
        next: files::load(data, &known.next)?.is_some(),
    };
    let planned = PlannedRotation::prepare(data, rules::plan_rotation(present, lost)?)?;
    let before = known.clone();
    let result = db.write_blocking("signing_keys.rotate", move |tx| {
        record_rotation(&Act::new(tx, &actor, now), &before, &planned)
    });
    if let Err(error) = result {
        for unused in planned.made() {
            files::remove(data, &unused)?;
        }
        return Err(error);
    }
    if planned.rotation == Rotation::Normal {
        files::remove(data, &known.current)?;
    }
    Ok(())
}

/// The files of the private keys of `known`, as paths relative to the data folder.
pub fn private_key_files(known: &Published) -> Vec<String> {
    let keys = [&known.current, &known.next].into_iter();
    let paths = keys.map(|public| files::path_of(Path::new(""), public));
    paths.map(|path| path.display().to_string()).collect()
}

/// The key ids of `known` whose private keys are missing in the data folder.
///
/// # Errors
/// When a key file cannot be read.
pub fn missing_keys(data: &Path, known: &Published) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    for public in [known.current, known.next] {
        if files::load(data, &public)?.is_none() {
            lost.push(public.id());
        }
    }
    Ok(lost)
}

// ── The certificate authority ─────────────────────────────────────────────────────────────────────────────

/// The server's own certificate authority that programs trust.
pub fn trusted_authority(reader: &Reader<'_>) -> Result<TrustedAuthority> {
    store::authority(reader)
}

/// Records before the first start of a server that there is no authority yet. From then on, the server can tell that an
/// authority whose files are missing was lost.
pub fn record_no_authority_yet(tx: &Tx<'_>) -> Result<()> {
    if store::authority(tx)? == TrustedAuthority::None {
        store::set_authority(tx, &[])?;
    }
    Ok(())
}

/// As [`record_no_authority_yet`], also for a server that was started before: it has no authority and needs none.
pub fn record_no_authority_needed(tx: &Tx<'_>) -> Result<()> {
    match store::authority(tx)? {
        TrustedAuthority::None | TrustedAuthority::Unknown => store::set_authority(tx, &[]),
        TrustedAuthority::Key(_) => Ok(()),
    }
}

/// Records the authority in the data folder as the one that programs trust. `key` is the SHA-256 of its public key.
pub fn record_authority(tx: &Tx<'_>, key: &[u8; 32]) -> Result<()> {
    store::set_authority(tx, key)
}

/// What [`new_authority`] does with an authority that is recorded and present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresentAuthority {
    /// It stays.
    Keep,
    /// A newly generated one takes its place.
    Replace,
}

/// Where the new authority comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewAuthority {
    /// It was in the data folder already, but was not the recorded one.
    Adopted,
    /// It was generated.
    Generated,
}

/// Records a new authority for programs to trust: the one in the data folder if it is not the recorded one;
/// otherwise, if there is none or with [`PresentAuthority::Replace`], a newly generated one. Call it only while no
/// server runs.
///
/// # Errors
/// [`Error::State`] when the recorded one is present and is to be kept.
pub fn new_authority(
    storage: KeyStorage<'_>,
    present: PresentAuthority,
    actor: Actor,
    now: UnixMs,
) -> Result<NewAuthority> {
    let KeyStorage { db, data } = storage;
    let keep = present == PresentAuthority::Keep;
    let trusted = db.read_blocking(trusted_authority)?;
    let (how, key) = match tls::authority_key(data)? {
        Some(key) if trusted == TrustedAuthority::Key(key) && keep => {
            return Err(Error::State(
                "the authority that programs trust is present: nothing has to be done; --replace generates a new one \
                 anyway, which every program has to be given"
                    .to_owned(),
            ));
        }
        Some(key) if keep => (NewAuthority::Adopted, key),
        _ => (NewAuthority::Generated, tls::new_authority(data, now)?.1),
    };
    db.write_blocking("signing_keys.new_authority", move |tx| {
        store::set_authority(tx, &key)?;
        let before = match trusted {
            TrustedAuthority::Key(key) => json!({ "authority": hex(&key) }),
            TrustedAuthority::None | TrustedAuthority::Unknown => Value::Null,
        };
        Act::new(tx, &actor, now).note(&Change {
            action: "keys.new_authority",
            subject: "",
            before,
            after: json!({ "authority": hex(&key) }),
        })
    })?;
    Ok(how)
}

/// A rotation whose new key pairs have been generated.
#[derive(Clone, Copy)]
struct PlannedRotation {
    rotation: Rotation,
    /// The public key of the new next pair.
    fresh: PublicKey,
    /// The public key of the new current pair, if both were lost.
    first: Option<PublicKey>,
}

impl PlannedRotation {
    /// Generates the key pairs that `rotation` needs.
    fn prepare(data: &Path, rotation: Rotation) -> Result<Self> {
        let fresh = files::generate(data)?.public();
        let first = if rotation == Rotation::FromScratch {
            Some(files::generate(data)?.public())
        } else {
            None
        };
        Ok(Self {
            rotation,
            fresh,
            first,
        })
    }

    /// The public keys of the new pairs.
    fn made(&self) -> impl Iterator<Item = PublicKey> {
        [Some(self.fresh), self.first].into_iter().flatten()
    }
}

fn record_rotation(act: &Act<'_>, before: &Published, planned: &PlannedRotation) -> Result<()> {
    let (tx, now) = (act.tx, act.now);
    let known = expected(tx, now)?;
    Revision::of(&before.ids()).check(&Revision::of(&known.ids()))?;
    store::forget(tx, now.minus(PUBLISHED_FOR))?;
    let retired: &[PublicKey] = match planned.rotation {
        Rotation::Normal => &[before.current],
        Rotation::RenewNext => &[before.next],
        Rotation::FromScratch => &[before.current, before.next],
    };
    for public in retired {
        store::retire(tx, public, now)?;
    }
    if planned.rotation == Rotation::Normal {
        store::promote(tx, &before.next)?;
    }
    if let Some(first) = &planned.first {
        store::insert(tx, first, Role::Current)?;
    }
    store::insert(tx, &planned.fresh, Role::Next)?;
    let after = expected(tx, now)?;
    act.changed(&Change {
        action: "keys.rotate",
        subject: &after.current.id(),
        before: before.ids(),
        after: after.ids(),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;
    use crate::db::Options;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    #[test]
    fn keys_that_are_rotated_while_they_are_looked_for_are_not_reported_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let db = Db::open_as_server(&Options::in_folder(data)).unwrap();
        open(&db, data, NOW).unwrap();
        for rotations in 0..3 {
            let looks = Cell::new(0);
            let found = unless_rotated(&db, NOW, |known| {
                looks.set(looks.get() + 1);
                if looks.get() <= rotations {
                    let storage = KeyStorage { db: &db, data };
                    rotate(storage, LostKeys::Refuse, Actor::server(), NOW)?;
                }
                load_current(data, known.unwrap())
            });
            let current = check(&db, data, NOW).unwrap().unwrap().current;
            assert_eq!(
                (found.unwrap().public(), looks.get()),
                (current, rotations + 1)
            );
        }
        let current = check(&db, data, NOW).unwrap().unwrap().current;
        fs::remove_file(files::path_of(data, &current)).unwrap();
        assert!(check(&db, data, NOW).is_err());
    }
}
