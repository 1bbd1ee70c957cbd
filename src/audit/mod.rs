//! The audit log: who did what, when and from where. An entry is written in the same transaction as the change, so
//! neither exists without the other. Each entry carries a hash over itself and the entry before it, so that an altered
//! or removed one is detected.

mod act;
pub mod panel;
mod rules;
mod store;

pub use act::{Act, Actor};
pub use rules::{FieldChange, changed_fields, escape_invisible};

use serde_json::Value;

use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::paging::{Cursor, Page, PageRequest};
use crate::security::secret;

/// An action to be noted. `before` and `after` contain no secret.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The action: `<module>.<verb>`.
    pub action: &'static str,
    /// The name or id of what it was applied to.
    pub subject: &'a str,
    /// The old values of what changed; null for something new.
    pub before: Value,
    /// The new values; null for something removed.
    pub after: Value,
}

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The position in the log: ids have no gaps.
    pub id: i64,
    /// When the action took place.
    pub at: UnixMs,
    /// The name of the actor.
    pub actor: String,
    /// The source of the actor.
    pub source: String,
    /// The action: `<module>.<verb>`.
    pub action: String,
    /// What it was applied to.
    pub subject: String,
    /// The old values, as JSON.
    pub before: String,
    /// The new values, as JSON.
    pub after: String,
}

/// Selects entries; `None` matches every value.
#[derive(Clone, Debug, Default)]
pub struct EntryFilter {
    /// The exact name of the actor.
    pub actor: Option<String>,
    /// The module of the action.
    pub module: Option<String>,
    /// The exact subject.
    pub subject: Option<String>,
    /// The earliest time.
    pub since: Option<UnixMs>,
}

/// How many entries are read at once when the log is verified.
const PAGE: u32 = 1000;

/// Writes an entry about `change`.
pub fn note(tx: &Tx<'_>, now: UnixMs, actor: &Actor, change: &Change<'_>) -> Result<()> {
    let (last, previous) = store::head(tx)?;
    let entry = Entry {
        id: last + 1,
        at: now,
        actor: actor.name().into_owned(),
        source: actor.source().into_owned(),
        action: change.action.to_owned(),
        subject: change.subject.to_owned(),
        before: change.before.to_string(),
        after: change.after.to_string(),
    };
    let hash = entry.hash(&previous);
    store::insert(tx, &entry, &hash)?;
    store::set_head(tx, entry.id, &hash)
}

/// A page of the entries that match `filter`, newest first. Their position is the id.
pub fn page(
    reader: &Reader<'_>,
    filter: &EntryFilter,
    request: &PageRequest<i64>,
) -> Result<Page<Entry>> {
    let limit = request.rows_to_read();
    let rows = match request.from {
        Cursor::First => store::page_before(reader, filter, i64::MAX, limit),
        Cursor::After(id) => store::page_before(reader, filter, id, limit),
        Cursor::Before(id) => store::page_after(reader, filter, id, limit),
    };
    Ok(request.page(rows?))
}

/// The newest entries about `subject` with actions of `module`, newest first.
pub fn entries_about(
    reader: &Reader<'_>,
    module: &str,
    subject: &str,
    limit: u32,
) -> Result<Vec<Entry>> {
    store::entries_about(reader, module, subject, limit)
}

/// The time of the newest entry; `None` if the log is empty.
pub fn newest_entry_at(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    store::newest_entry_at(reader)
}

/// Verifies the hashes: the id of the first entry that was altered or removed, `None` if there is none.
pub fn first_altered_entry(reader: &Reader<'_>) -> Result<Option<i64>> {
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
    /// SHA-256 over the previous hash and every field, each preceded by its length, so that different entries never
    /// give the same input.
    fn hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut text = previous.to_vec();
        let (id, at) = (self.id.to_string(), self.at.0.to_string());
        for field in [
            &id,
            &at,
            &self.actor,
            &self.source,
            &self.action,
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
