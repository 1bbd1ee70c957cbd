//! The key pairs that the server signs with: one in force, one that comes next and is told before, and the
//! public halves of those that were in force.
//!
//! Programs and sites know public keys by heart. So a pair is made once, and a lost one is not replaced without
//! a word: everything that is out there would stop believing us.

pub mod cli;
mod rules;
mod store;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Db, Reader, Tx};
use crate::error::{CHANGED_MEANWHILE, Error, Refused, Result};
use crate::security::secret::hex;
use crate::security::signing::{Keys, PublicKey, Signer, files};
use crate::tls::{self, Trusted};
use rules::{KeysPresent, Role, Rotation};

/// How long a public key is told after it was in force: as long as the longest lease that was signed with it.
const TOLD: Duration = Duration::from_hours(90 * 24);

/// A row of `signing_keys`.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    public: PublicKey,
    role: Role,
    retired_at: Option<UnixMs>,
}

/// A key that was in force.
#[derive(Clone, Copy, Debug)]
pub struct Retired {
    /// The key.
    pub public: PublicKey,
    /// Since when nothing is signed with it.
    pub at: UnixMs,
}

/// What others verify with.
#[derive(Clone, Debug)]
pub struct Published {
    /// The key in force.
    pub current: PublicKey,
    /// The key that comes into force at the next rotation.
    pub next: PublicKey,
    /// Keys that were in force, the youngest first.
    pub previous: Vec<Retired>,
}

impl Published {
    /// As a document: ids, keys in base64 and as PEM.
    pub fn document(&self) -> Value {
        let key = |public: &PublicKey| json!({ "key_id": public.id(), "public_key": public.base64(), "pem": public.pem() });
        let previous = self.previous.iter().map(|retired| {
            let mut document = key(&retired.public);
            if let Some(members) = document.as_object_mut() {
                members.insert("retired_at".to_owned(), retired.at.rfc3339().into());
            }
            document
        });
        json!({
            "current": key(&self.current),
            "next": key(&self.next),
            "previous": previous.collect::<Vec<_>>(),
        })
    }

    fn ids(&self) -> Value {
        json!({ "current": self.current.id(), "next": self.next.id() })
    }
}

/// What others verify with; none before the first start of a server.
///
/// # Errors
/// When SQLite fails.
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
        (now < at.plus(TOLD)).then_some(Retired { public, at })
    });
    let previous = retired.collect();
    Ok(Some(Published {
        current,
        next,
        previous,
    }))
}

fn expected(reader: &Reader<'_>, now: UnixMs) -> Result<Published> {
    published(reader, now)?.ok_or_else(|| {
        Error::State(
            "there is no signing key yet: the first start of the server makes it".to_owned(),
        )
    })
}

/// The key pair in force, for a server that starts; the first start makes it, and the next one.
///
/// # Errors
/// [`Error::State`] where a file is missing; it says what to do.
pub fn open(db: &Db, data: &Path, now: UnixMs) -> Result<Keys> {
    let Some(known) = db.read_blocking(|reader| published(reader, now))? else {
        return begin(db, data);
    };
    for retired in &known.previous {
        // A rotation deletes it, unless the power went away in between.
        files::remove(data, &retired.public)?;
    }
    found(data, &known)
}

fn begin(db: &Db, data: &Path) -> Result<Keys> {
    let current = files::adopt(data)?.map_or_else(|| files::make(data), Ok)?;
    let (now, next) = (current.public(), files::make(data)?.public());
    db.write_blocking("keys.begin", move |tx| {
        store::insert(tx, &now, Role::Current)?;
        store::insert(tx, &next, Role::Next)?;
        tx.invalidate_caches();
        Ok(())
    })?;
    Ok(current)
}

/// What to do where a private half is missing.
fn missing(data: &Path, known: &Published, current: bool, next: bool) -> Error {
    let lost = if current { known.next } else { known.current };
    let path = files::place(data, &lost);
    let file = path.display();
    Error::State(if next {
        format!(
            "{file} is missing: restore it from a copy, or let `license-server config rotate-signing-key` \
             put the next key into force, which programs that know both take without a word"
        )
    } else {
        format!(
            "{file} is missing: restore it from a copy; if it is lost, `license-server config \
             rotate-signing-key --lost` makes another one, which every program and site that verifies has \
             to be given"
        )
    })
}

/// Whether both private halves are where they must be; changes nothing.
///
/// # Errors
/// [`Error::State`] where one is missing or unusable; it says what to do.
pub fn check(reader: &Reader<'_>, data: &Path, now: UnixMs) -> Result<Option<Published>> {
    let Some(known) = published(reader, now)? else {
        return Ok(None);
    };
    found(data, &known)?;
    Ok(Some(known))
}

/// The key pair in force, where the next one is there too.
fn found(data: &Path, known: &Published) -> Result<Keys> {
    let next = files::load(data, &known.next)?.is_some();
    match files::load(data, &known.current)? {
        Some(keys) if next => Ok(keys),
        found => Err(missing(data, known, found.is_some(), next)),
    }
}

/// Takes up what a command has changed: `signer` signs with the key in force from now on.
///
/// # Errors
/// When it cannot be read; the old one stays then.
pub fn refresh(db: &Db, data: &Path, signer: &Signer, now: UnixMs) -> Result<()> {
    let known = db.read_blocking(|reader| expected(reader, now))?;
    if known.current == signer.keys().public() {
        return Ok(());
    }
    let keys = files::load(data, &known.current)?;
    signer.take(keys.ok_or_else(|| missing(data, &known, false, true))?);
    log::warn!(
        "the signing key was changed: answers are signed with {} from now on",
        known.current.id()
    );
    Ok(())
}

/// Puts the next key into force, makes another next one, and deletes the private half of the old one. With
/// `lost`, keys whose files are gone for good are replaced.
///
/// # Errors
/// [`Error::State`] where the next key is gone; it says what to do.
pub fn rotate(db: &Db, data: &Path, lost: bool, actor: Actor, now: UnixMs) -> Result<()> {
    let known = db.read_blocking(|reader| expected(reader, now))?;
    let there = KeysPresent {
        current: files::load(data, &known.current)?.is_some(),
        next: files::load(data, &known.next)?.is_some(),
    };
    let turn = rules::turn(there, lost)?;
    let fresh = files::make(data)?.public();
    let first = if turn == Rotation::Anew {
        Some(files::make(data)?.public())
    } else {
        None
    };
    let (before, made) = (known.clone(), Made { fresh, first });
    let turned = db.write_blocking("keys.rotate", move |tx| {
        turn_in_file(tx, &before, turn, &made, &actor, now)
    });
    if let Err(error) = turned {
        for unused in [Some(fresh), first].into_iter().flatten() {
            files::remove(data, &unused)?;
        }
        return Err(error);
    }
    if turn == Rotation::Over {
        files::remove(data, &known.current)?;
    }
    Ok(())
}

/// The files of the private halves of `known`, by their paths from the data folder.
pub fn file_names(known: &Published) -> Vec<String> {
    let keys = [&known.current, &known.next].into_iter();
    let places = keys.map(|public| files::place(Path::new(""), public));
    places.map(|place| place.display().to_string()).collect()
}

/// Which private halves of `known` are not in the data folder, by the ids of their keys.
///
/// # Errors
/// When one that is there cannot be read.
pub fn lost(data: &Path, known: &Published) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    for public in [known.current, known.next] {
        if files::load(data, &public)?.is_none() {
            lost.push(public.id());
        }
    }
    Ok(lost)
}

// ── The authority of our own ─────────────────────────────────────────────────────────────────────────────

/// Which authority of our own programs may trust.
///
/// # Errors
/// When SQLite fails.
pub fn trusted_authority(reader: &Reader<'_>) -> Result<Trusted> {
    store::authority(reader)
}

/// Settles that there was no authority yet: before the first start of a server, or where it has `none` and needs none.
/// From then on one that is missing is known to be lost.
///
/// # Errors
/// When SQLite fails.
pub fn begin_authority(tx: &Tx<'_>, none: bool) -> Result<()> {
    let trusted = store::authority(tx)?;
    if trusted == Trusted::None || (trusted == Trusted::Unknown && none) {
        store::set_authority(tx, &[])?;
    }
    Ok(())
}

/// Remembers the authority in the data folder as the one that programs may trust.
///
/// # Errors
/// When SQLite fails.
pub fn remember_authority(tx: &Tx<'_>, key: &[u8; 32]) -> Result<()> {
    store::set_authority(tx, key)
}

/// How an authority came to be the one that programs have to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewAuthority {
    /// It was in the data folder, and was not the known one.
    Taken,
    /// It was made.
    Made,
}

/// Has programs trust the authority in the data folder, where it is not the known one, or another one that is made
/// for it: where there is none, or with `replace`. While no server runs.
///
/// # Errors
/// [`Error::State`] when the known one is there and `replace` is not wanted.
pub fn new_authority(
    db: &Db,
    data: &Path,
    replace: bool,
    actor: Actor,
    now: UnixMs,
) -> Result<NewAuthority> {
    let trusted = db.read_blocking(trusted_authority)?;
    let (how, key) = match tls::authority_of(data)? {
        Some(key) if trusted == Trusted::Key(key) && !replace => {
            return Err(Error::State(
                "the authority that programs trust is there: nothing has to be done; --replace makes another one all \
                 the same, which every program has to be given"
                    .to_owned(),
            ));
        }
        Some(key) if !replace => (NewAuthority::Taken, key),
        _ => (NewAuthority::Made, tls::new_authority(data, now)?.1),
    };
    db.write_blocking("keys.new_authority", move |tx| {
        store::set_authority(tx, &key)?;
        let before = match trusted {
            Trusted::Key(key) => json!({ "authority": hex(&key) }),
            Trusted::None | Trusted::Unknown => Value::Null,
        };
        let deed = Change {
            what: "keys.new_authority",
            subject: "",
            before,
            after: json!({ "authority": hex(&key) }),
        };
        audit::note(tx, now, &actor, &deed)
    })?;
    Ok(how)
}

/// Key pairs that were just made.
struct Made {
    /// The next one.
    fresh: PublicKey,
    /// The one in force, where both were lost.
    first: Option<PublicKey>,
}

fn turn_in_file(
    tx: &Tx<'_>,
    before: &Published,
    turn: Rotation,
    made: &Made,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    if expected(tx, now)?.ids() != before.ids() {
        return Err(Refused::plain(CHANGED_MEANWHILE).into());
    }
    store::forget(tx, now.minus(TOLD))?;
    let gone: &[PublicKey] = match turn {
        Rotation::Over => &[before.current],
        Rotation::RenewNext => &[before.next],
        Rotation::Anew => &[before.current, before.next],
    };
    for public in gone {
        store::retire(tx, public, now)?;
    }
    if turn == Rotation::Over {
        store::promote(tx, &before.next)?;
    }
    if let Some(first) = &made.first {
        store::insert(tx, first, Role::Current)?;
    }
    store::insert(tx, &made.fresh, Role::Next)?;
    let after = expected(tx, now)?;
    let deed = Change {
        what: "keys.rotate",
        subject: &after.current.id(),
        before: before.ids(),
        after: after.ids(),
    };
    audit::note(tx, now, actor, &deed)?;
    tx.invalidate_caches();
    Ok(())
}
