//! The audit log: who did what, when and from where. An entry is written in the same transaction as the change, so
//! neither exists without the other. Each entry carries a hash over itself and the entry before it, so that an altered
//! or removed one is detected. What an entry says can be erased, and the log stays provable.

mod act;
mod chain;
mod erasures;
pub mod panel;
mod rules;
mod store;

pub use act::{Act, Actor};
pub use erasures::Unaccounted;
pub use rules::{FieldChange, changed_fields, escape_invisible};

use serde_json::{Value, json};

use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::paging::{Direction, Page, PageRequest, SORTED_MAX, SortPosition, Total};
use crate::security::secret;
use chain::ChainedEntry;
use erasures::Erasures;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// When actor, source, subject and values were erased; they are empty then.
    pub erased_at: Option<UnixMs>,
}

/// What the hashes of the log prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The id of the first entry that was altered or removed; `None` if there is none.
    pub first_altered: Option<i64>,
    /// How many entries before it were erased with a customer.
    pub erased: usize,
    /// How many entries before it were erased because of their age.
    pub expired: usize,
    /// Erased entries that the log does not account for, if there are any: the first ones.
    pub unaccounted: Option<Unaccounted>,
}

/// Selects entries; `None` matches every value.
#[derive(Clone, Debug)]
pub struct EntryFilter {
    /// The exact name of the actor.
    pub actor: Option<String>,
    /// The module of the action.
    pub module: Option<String>,
    /// The exact subject.
    pub subject: Option<String>,
    /// The earliest time.
    pub since: Option<UnixMs>,
    /// The column by which they are sorted, and in which direction.
    pub order: (EntryColumn, Direction),
}

/// A column by which the log can be sorted. The log is in the order of time: by another column, at most [`SORTED_MAX`]
/// entries are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryColumn {
    /// The time.
    Time,
    /// The name of the actor.
    Actor,
    /// The address of the actor.
    Source,
}

impl EntryColumn {
    /// Every column.
    pub const ALL: [Self; 3] = [Self::Time, Self::Actor, Self::Source];
    /// The order if none is chosen: the newest entry first.
    pub const DEFAULT: (Self, Direction) = (Self::Time, Direction::Descending);

    /// The word in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Actor => "actor",
            Self::Source => "source",
        }
    }

    /// The column for a word; `None` if unknown.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }
}

/// The part of a filter that few entries match: the index on it finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Narrowest {
    Subject,
    Actor,
    Module,
}

impl EntryFilter {
    fn narrowest(&self) -> Option<Narrowest> {
        let parts = [
            (self.subject.is_some(), Narrowest::Subject),
            (self.actor.is_some(), Narrowest::Actor),
            (self.module.is_some(), Narrowest::Module),
        ];
        let mut given = parts.into_iter().filter(|(is_given, _)| *is_given);
        given.next().map(|(_, part)| part)
    }
}

/// How many entries are read at once when the log is verified.
const PAGE: u32 = 1000;

/// Writes an entry about `change`, unless it replaced values by equal ones: a form that was saved unchanged did nothing.
pub fn note(tx: &Tx<'_>, now: UnixMs, actor: &Actor, change: &Change<'_>) -> Result<()> {
    if change.before == change.after && !change.before.is_null() {
        return Ok(());
    }
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
        erased_at: None,
    };
    let chained = ChainedEntry::new(entry, secret::random()?, &previous);
    store::insert(tx, &chained)?;
    store::set_head(tx, chained.entry.id, &chained.hash)
}

/// Erases what these entries say, for ever. One that was altered before stays reported as altered, and one about an
/// erasure stays. Returns how many were erased. The caller notes this number, as `audit_entries`, in an entry
/// `customers.erase` of the same time: [`verify`] reports erased entries that no such entry accounts for.
pub fn erase(tx: &Tx<'_>, ids: &[i64], now: UnixMs) -> Result<usize> {
    let erased = ids.iter().map(|id| store::erase(tx, *id, now));
    erased.sum()
}

/// Erases what at most `limit` entries from before `before` say, those about erasures apart, and notes how many. Returns
/// how many.
pub fn expire(act: &Act<'_>, before: UnixMs, limit: u32) -> Result<usize> {
    let erased = store::erase_before(act.tx, before, act.now, limit)?;
    if erased > 0 {
        act.note(&Change {
            action: erasures::BY_AGE,
            subject: "",
            before: Value::Null,
            after: json!({ "audit_entries": erased, "from_before": before.rfc3339() }),
        })?;
    }
    Ok(erased)
}

impl Entry {
    /// Its position in a list that is sorted by `column`.
    pub fn position(&self, column: EntryColumn) -> SortPosition {
        match column {
            EntryColumn::Time => SortPosition::number(self.id, self.id),
            EntryColumn::Actor => SortPosition::text(&self.actor, self.id),
            EntryColumn::Source => SortPosition::address(&self.source, self.id),
        }
    }
}

/// A page of the entries that match `filter`, in its order; see [`Total::order`] for the orders in which a list can be
/// shown.
pub fn page(
    reader: &Reader<'_>,
    filter: &EntryFilter,
    request: &PageRequest<SortPosition>,
) -> Result<Page<Entry>> {
    let (column, direction) = filter.order;
    if column == EntryColumn::Time {
        return page_by_time(reader, filter, (direction, request));
    }
    let all = PageRequest::first(SORTED_MAX);
    let all = page_by_time(reader, filter, (direction, &all))?;
    Ok(request.cut(all.rows, direction, |entry| entry.position(column)))
}

fn page_by_time(
    reader: &Reader<'_>,
    filter: &EntryFilter,
    (direction, request): (Direction, &PageRequest<SortPosition>),
) -> Result<Page<Entry>> {
    let limit = request.rows_to_read();
    let (position, direction) = request.start(direction);
    let start = match direction {
        Direction::Descending => i64::MAX,
        Direction::Ascending => 0,
    };
    let from = (position.map_or(start, |position| position.id), direction);
    Ok(request.page(store::page(reader, filter, from, limit)?))
}

/// How many entries match a filter.
pub fn count_matching(reader: &Reader<'_>, filter: &EntryFilter) -> Result<Total> {
    let count = store::count_matching(reader, filter, Total::ROWS_TO_COUNT)?;
    Ok(Total::counted(count))
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

/// Verifies the hashes, and that the log accounts for every erased entry.
pub fn verify(reader: &Reader<'_>) -> Result<Verified> {
    let (mut id, mut hash) = (0, [0; 32]);
    let mut erasures = Erasures::default();
    loop {
        let page = store::after(reader, id, PAGE)?;
        if page.is_empty() {
            let is_complete = store::head(reader)? == (id, hash);
            return Ok(erasures.verified((!is_complete).then_some(id + 1)));
        }
        for chained in page {
            if !chained.follows(id, &hash) {
                return Ok(erasures.verified(Some(chained.entry.id)));
            }
            erasures.add(&chained.entry);
            (id, hash) = (chained.entry.id, chained.hash);
        }
    }
}
