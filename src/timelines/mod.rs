//! Which servers wrote a database, one after the other. Each time that a standby takes over (`promote`), a new timeline
//! begins. Thereby a copy that the replaced server has written since is told from an older copy of the same server.

mod rules;
mod store;

use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::security::secret::random;

pub use rules::{Relation, relation};

/// The time since one promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Random; the same in every copy.
    identity: [u8; 16],
    /// When the standby was promoted.
    pub began_at: UnixMs,
    /// The latest date in the copy with which it began: what the replaced server wrote after that is not in it.
    pub continues: UnixMs,
}

/// The timelines of a database, the first one first. Empty if no standby was ever promoted.
pub fn list(reader: &Reader<'_>) -> Result<Vec<Timeline>> {
    if store::exists(reader)? {
        store::list(reader)
    } else {
        Ok(Vec::new())
    }
}

/// Begins a timeline, with a copy whose latest date is `continues`.
pub fn begin(tx: &Tx<'_>, continues: UnixMs, now: UnixMs) -> Result<()> {
    let timeline = Timeline {
        identity: random()?,
        began_at: now,
        continues,
    };
    store::insert(tx, &timeline)
}

/// Gives a copy that is put in place of another database the timelines of that one, unless its own continue them.
pub fn take_over(tx: &Tx<'_>, present: &[Timeline]) -> Result<()> {
    match relation(&store::list(tx)?, present) {
        Relation::Same | Relation::Continues => Ok(()),
        Relation::Precedes(_) | Relation::Diverged(_) => {
            store::clear(tx)?;
            present
                .iter()
                .try_for_each(|timeline| store::insert(tx, timeline))
        }
    }
}
