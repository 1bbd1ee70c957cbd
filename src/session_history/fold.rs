//! Folding keeps the history of a busy license small. If more sessions of a license ended on one day than may have a
//! row of their own, the first and the last ones keep theirs; those in between are merged into one row per end reason.
//! The tokens are deleted with the rows, so only sessions are folded whose programs have had time to learn of the end.

use std::time::Duration;

use super::rules::{BusyDay, Foldable};
use super::store;
use crate::db::{Db, Tx};
use crate::error::Result;

/// Minimum time for which the token of an ended session is kept. A program learns of the end with its next heartbeat:
/// within the hour, but on a machine that was asleep overnight only the next morning.
pub const TOKEN_RETENTION: Duration = Duration::from_hours(24);
/// Busy days read at once.
const BUSY_DAYS_BATCH: u32 = 100;
/// Rows folded in one transaction; other writes wait meanwhile.
const FOLD_BATCH: u32 = 500;

/// Folds the history until at most [`Foldable::kept`] sessions of each license and day have a row of their own, apart
/// from those that may not be folded. Returns how many sessions were folded.
///
/// # Errors
/// If a write fails; rows already folded stay folded.
pub async fn fold(db: &Db, which: Foldable) -> Result<usize> {
    let mut folded = 0;
    loop {
        let days = db
            .read(move |reader| store::busy_days(reader, which, BUSY_DAYS_BATCH))
            .await?;
        for day in &days {
            let day = *day;
            let fold_batch = move |tx: &Tx<'_>| fold_day(tx, day, which);
            folded += db.write("session_history.fold", fold_batch).await?;
        }
        if days.is_empty() {
            return Ok(folded);
        }
    }
}

/// Folds a batch of the sessions between the first and the last ones of a day. Returns how many.
fn fold_day(tx: &Tx<'_>, day: BusyDay, which: Foldable) -> Result<usize> {
    let excess = store::count_unfolded(tx, day)?.saturating_sub(which.kept);
    let unfolded = store::foldable(tx, day, which, excess.min(FOLD_BATCH))?;
    for session in &unfolded {
        match store::folded_row(tx, day, session.reason)? {
            Some(into) => {
                store::add_to_fold(tx, session.id, into)?;
                store::remove(tx, session.id)?;
            }
            None => store::begin_fold(tx, session.id)?,
        }
    }
    Ok(unfolded.len())
}
