//! Who did what, when, from where. Written in the same transaction as the deed, so neither is without the
//! other; each row carries the hash of the row before it, so that an altered one is found.

pub mod panel;
mod rules;
mod store;

pub use rules::{FieldChange, changes, visible};

use serde_json::Value;

use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::domain::Domain;
use crate::error::Result;
use crate::security::client_address::ClientAddress;
use crate::security::secret;

/// Who does something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// An administrator's name, `command line` or `server`.
    pub name: String,
    /// His address, or the operating system's user.
    pub source: String,
}

/// What was done. `before` and `after` hold no secret.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// `<room>.<verb>`.
    pub what: &'static str,
    /// What it was done to, as people name it.
    pub subject: &'a str,
    /// What it was before, as far as it changed; null for something new.
    pub before: Value,
    /// What it is now; null for something gone.
    pub after: Value,
}

/// A row as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number: the rows are numbered without a gap.
    pub id: i64,
    /// When it was done.
    pub at: UnixMs,
    /// By whom.
    pub actor: Actor,
    /// `<room>.<verb>`.
    pub what: String,
    /// What it was done to.
    pub subject: String,
    /// JSON.
    pub before: String,
    /// JSON.
    pub after: String,
}

/// Which rows to show.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Done by exactly this one.
    pub actor: Option<String>,
    /// Verbs of this room only.
    pub room: Option<String>,
    /// Done to exactly this.
    pub subject: Option<String>,
    /// Done at this moment or later.
    pub since: Option<UnixMs>,
}

/// Which way a page of rows goes on from a row.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// The latest rows.
    Newest,
    /// Those before this row.
    Before(i64),
    /// Those after this row.
    After(i64),
}

/// Rows that are checked in one go.
const PAGE: u32 = 1000;

impl Actor {
    /// The name of the operator on the machine.
    pub const COMMAND_LINE: &str = "command line";
    /// The name of the server itself.
    pub const SERVER: &str = "server";
    /// What the name of a customer's site begins with; its domain follows after a space.
    pub const SITE: &str = "site";

    /// The operator on the machine, as `user` of the operating system.
    pub fn command_line(user: &str) -> Self {
        Self {
            name: Self::COMMAND_LINE.to_owned(),
            source: user.to_owned(),
        }
    }

    /// A customer's site: no administrator's name has a space in it.
    pub fn site(domain: &Domain, source: ClientAddress) -> Self {
        Self {
            name: format!("{} {domain}", Self::SITE),
            source: source.to_string(),
        }
    }

    /// The server itself.
    pub fn server() -> Self {
        Self {
            name: Self::SERVER.to_owned(),
            source: String::new(),
        }
    }
}

/// Notes a deed.
///
/// # Errors
/// When SQLite fails; the deed is then undone too.
pub fn note(tx: &Tx<'_>, now: UnixMs, actor: &Actor, deed: &Change<'_>) -> Result<()> {
    let (last, previous) = store::head(tx)?;
    let entry = Entry {
        id: last + 1,
        at: now,
        actor: actor.clone(),
        what: deed.what.to_owned(),
        subject: deed.subject.to_owned(),
        before: deed.before.to_string(),
        after: deed.after.to_string(),
    };
    let hash = entry.hash(&previous);
    store::insert(tx, &entry, &hash)?;
    store::set_head(tx, entry.id, &hash)
}

/// A page of the rows that `filter` lets through, the latest first.
///
/// # Errors
/// When SQLite fails.
pub fn page(reader: &Reader<'_>, filter: &Filter, from: From, limit: u32) -> Result<Vec<Entry>> {
    match from {
        From::Newest => store::page_before(reader, filter, i64::MAX, limit),
        From::Before(id) => store::page_before(reader, filter, id, limit),
        From::After(id) => {
            let mut rows = store::page_after(reader, filter, id, limit)?;
            rows.reverse();
            Ok(rows)
        }
    }
}

/// The latest rows about one thing of a room, the latest first.
///
/// # Errors
/// When SQLite fails.
pub fn of_subject(
    reader: &Reader<'_>,
    room: &str,
    subject: &str,
    limit: u32,
) -> Result<Vec<Entry>> {
    store::of_subject(reader, room, subject, limit)
}

/// When the last deed was done; none before the first.
///
/// # Errors
/// When SQLite fails.
pub fn latest(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    store::latest(reader)
}

/// The number of the first row that is not as it was written, or is missing.
///
/// # Errors
/// When SQLite fails.
pub fn first_altered(reader: &Reader<'_>) -> Result<Option<i64>> {
    let (mut id, mut hash) = (0, [0; 32]);
    loop {
        let page = store::after(reader, id, PAGE)?;
        if page.is_empty() {
            let complete = store::head(reader)? == (id, hash);
            return Ok((!complete).then_some(id + 1));
        }
        for (entry, stored) in page {
            let expected = entry.hash(&hash);
            if entry.id != id + 1 || stored != expected {
                return Ok(Some(entry.id));
            }
            (id, hash) = (entry.id, stored);
        }
    }
}

impl Entry {
    /// SHA-256 over the previous hash and every field, each behind its length: no two rows look alike.
    fn hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut text = previous.to_vec();
        let (id, at) = (self.id.to_string(), self.at.0.to_string());
        for field in [
            &id,
            &at,
            &self.actor.name,
            &self.actor.source,
            &self.what,
            &self.subject,
            &self.before,
            &self.after,
        ] {
            text.extend_from_slice(&(field.len() as u64).to_be_bytes());
            text.extend_from_slice(field.as_bytes());
        }
        secret::sha256(&text)
    }
}
