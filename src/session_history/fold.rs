//! Folding keeps the history of a busy license small. If more sessions of a license ended on one day than may have a
//! row of their own, the first and the last ones keep theirs; those in between are counted in one row per end reason.
//! Only sessions old enough that no program asks for them are folded, because the token is deleted with the row.

use std::time::Duration;

use super::rules::{Day, Foldable};
use super::store;
use crate::db::{Db, Tx};
use crate::error::Result;

/// How long the token of an ended session is kept at least. A program learns of the end at its next heartbeat, within
/// the hour; a machine that was asleep overnight must learn of it too.
pub const TOKEN_RETENTION: Duration = Duration::from_hours(24);
/// Busy days that are read at once.
const BUSY_DAYS_PAGE: u32 = 100;
/// Rows folded in one transaction; other writes wait meanwhile.
const FOLD_PAGE: u32 = 500;

/// Folds the history of every license until at most `kept` sessions of each day that ended before `until` have a row
/// of their own. Returns how many sessions were folded.
///
/// # Errors
/// If a write fails; rows already folded stay folded.
pub async fn fold(db: &Db, which: Foldable) -> Result<usize> {
    let mut folded = 0;
    loop {
        let days = db
            .read(move |reader| store::busy_days(reader, which, BUSY_DAYS_PAGE))
            .await?;
        for day in &days {
            let day = *day;
            let fold_page = move |tx: &Tx<'_>| fold_day(tx, day, which);
            folded += db.write("session_history.fold", fold_page).await?;
        }
        if days.is_empty() {
            return Ok(folded);
        }
    }
}

/// Folds a page of the sessions between the first and the last of a day; returns how many.
fn fold_day(tx: &Tx<'_>, day: Day, which: Foldable) -> Result<usize> {
    let excess = store::count_unfolded(tx, day)?.saturating_sub(which.kept);
    let singles = store::foldable(tx, day, which, excess.min(FOLD_PAGE))?;
    for single in &singles {
        match store::folded_row(tx, day, single.reason)? {
            Some(into) => {
                store::add_to_fold(tx, single.id, into)?;
                store::remove(tx, single.id)?;
            }
            None => store::begin_fold(tx, single.id)?,
        }
    }
    Ok(singles.len())
}
