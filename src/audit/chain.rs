//! The chain of hashes that proves the audit log. It runs over the hash of what each entry says, so that this can be
//! erased while the chain stays.

use super::Entry;
use crate::clock::UnixMs;
use crate::digest;

/// The payload hash that no entry has: of one that was altered before it could be proved, or erased.
pub(super) const ALTERED: [u8; 32] = [0; 32];

/// An entry as it is stored, with what proves it.
#[derive(Clone, Debug)]
pub(super) struct ChainedEntry {
    pub(super) entry: Entry,
    /// Random; empty once the entry is erased.
    pub(super) salt: Vec<u8>,
    /// The hash of what the entry says.
    pub(super) payload_hash: [u8; 32],
    /// The hash of the chain up to this entry.
    pub(super) hash: [u8; 32],
}

impl ChainedEntry {
    /// An entry that follows the one with the hash `previous`.
    pub(super) fn new(entry: Entry, salt: [u8; 16], previous: &[u8; 32]) -> Self {
        let payload_hash = payload_hash(&salt, &entry);
        let hash = link(previous, &entry, &payload_hash);
        Self {
            entry,
            salt: salt.to_vec(),
            payload_hash,
            hash,
        }
    }

    /// Whether it follows the entry with this id and hash, and was not altered. Of an erased one, what it said is not
    /// known; it must be empty.
    pub(super) fn follows(&self, id: i64, previous: &[u8; 32]) -> bool {
        let entry = &self.entry;
        let is_sound = match entry.erased_at {
            Some(_) => self.salt.is_empty() && entry.is_empty(),
            None => self.payload_hash == payload_hash(&self.salt, entry),
        };
        is_sound
            && self.payload_hash != ALTERED
            && entry.id == id + 1
            && self.hash == link(previous, entry, &self.payload_hash)
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        let texts = [
            &self.actor,
            &self.source,
            &self.subject,
            &self.before,
            &self.after,
        ];
        texts.iter().all(|text| text.is_empty())
    }
}

/// As `digest_of(salt, actor, source, subject, before, after)` in SQL.
fn payload_hash(salt: &[u8], entry: &Entry) -> [u8; 32] {
    let fields = [
        &entry.actor,
        &entry.source,
        &entry.subject,
        &entry.before,
        &entry.after,
    ];
    digest::of_fields(salt, &fields.map(String::as_bytes))
}

/// As `digest_of(previous, audit_id, at_ms, action, payload_hash)` in SQL.
fn link(previous: &[u8; 32], entry: &Entry, payload_hash: &[u8; 32]) -> [u8; 32] {
    let UnixMs(at) = entry.at;
    let (id, at) = (entry.id.to_string(), at.to_string());
    let fields = [id.as_bytes(), at.as_bytes(), entry.action.as_bytes()];
    let [id, at, action] = fields;
    digest::of_fields(previous, &[id, at, action, payload_hash])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            id: 1,
            at: UnixMs(7),
            actor: "ada".to_owned(),
            source: "192.0.2.1".to_owned(),
            action: "customers.add".to_owned(),
            subject: "3".to_owned(),
            before: "null".to_owned(),
            after: "{}".to_owned(),
            erased_at: None,
        }
    }

    #[test]
    fn an_entry_follows_unless_it_was_altered_and_an_erased_one_must_be_empty() {
        let sound = ChainedEntry::new(entry(), [7; 16], &[0; 32]);
        let altered = |change: &dyn Fn(&mut ChainedEntry)| {
            let mut chained = sound.clone();
            change(&mut chained);
            chained.follows(0, &[0; 32])
        };
        let erase = |chained: &mut ChainedEntry| {
            let entry = &mut chained.entry;
            for text in [
                &mut entry.actor,
                &mut entry.source,
                &mut entry.subject,
                &mut entry.before,
                &mut entry.after,
            ] {
                text.clear();
            }
            entry.erased_at = Some(UnixMs(9));
            chained.salt.clear();
        };
        assert!(altered(&|_| {}));
        assert!(altered(&erase));
        assert!(!sound.follows(1, &[0; 32]) && !sound.follows(0, &[1; 32]));
        let changes: &[&dyn Fn(&mut ChainedEntry)] = &[
            &|it| it.entry.actor.push('x'),
            &|it| it.entry.source.clear(),
            &|it| it.entry.subject.push('3'),
            &|it| it.entry.before.clear(),
            &|it| it.entry.after.clear(),
            &|it| it.entry.action.push('s'),
            &|it| it.entry.at = UnixMs(8),
            &|it| it.entry.erased_at = Some(UnixMs(9)),
            &|it| it.salt.clear(),
            &|it| it.hash[0] ^= 1,
            &|it| it.payload_hash[0] ^= 1,
            &|it| {
                erase(it);
                it.entry.erased_at = None;
            },
            &|it| {
                erase(it);
                it.entry.after.push('x');
            },
            &|it| {
                erase(it);
                it.payload_hash = ALTERED;
                it.hash = link(&[0; 32], &it.entry, &ALTERED);
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            assert!(!altered(*change), "change {number}");
        }
    }
}
