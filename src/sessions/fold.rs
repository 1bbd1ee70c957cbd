//! Keeps the history of one license small: where more sessions ended on a day than are kept one by one, the
//! first and the last ones stay, and those between are counted in one row for each way to end, once they are so old
//! that no program asks for them any more: the token goes with the row.

use std::time::Duration;

use super::{EndReason, store};
use crate::clock::UnixMs;
use crate::db::{Db, Tx};
use crate::error::Result;
use crate::id::{LicenseId, SessionId};

const DAY_MS: i64 = 86_400_000;
/// How long the token of a session that ended is known in any case. A program hears of the end at its next heartbeat,
/// within the hour; one that slept through a night does, too.
pub const TOKEN_KEPT: Duration = Duration::from_hours(24);
/// Licenses and days that are looked for at once.
const CROWDED_PAGE: u32 = 100;
/// Rows that are folded in one transaction: others wait for it.
const FOLD_PAGE: u32 = 500;

/// A license and a day on which many of its sessions ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Day {
    pub(super) license_id: LicenseId,
    /// Days since 1970-01-01, UTC.
    pub(super) number: i64,
}

impl Day {
    /// The first moment of it, and the first after it.
    pub(super) fn span(self) -> (UnixMs, UnixMs) {
        let begin = self.number.saturating_mul(DAY_MS);
        (UnixMs(begin), UnixMs(begin.saturating_add(DAY_MS)))
    }
}

/// A session that is to be counted in a row with others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Single {
    pub(super) id: SessionId,
    pub(super) reason: EndReason,
}

/// Which sessions may be folded.
#[derive(Clone, Copy, Debug)]
pub struct Foldable {
    /// So many rows of a license and day stand for one session.
    pub kept: u32,
    /// Days of which a session ended at this moment or later are looked at.
    pub since: UnixMs,
    /// Sessions that ended before this moment are folded.
    pub until: UnixMs,
}

impl Foldable {
    /// Of the rows that stay, so many are the first ones of the day.
    pub(super) fn first(self) -> u32 {
        self.kept / 2
    }
}

/// Folds the history of every license, so that at most `kept` rows of each day stand for one session that ended before
/// `until`. Returns how many rows went.
///
/// # Errors
/// When the file does not take it; what was folded before stays folded.
pub async fn fold(db: &Db, which: Foldable) -> Result<usize> {
    let mut folded = 0;
    loop {
        let days = db
            .read(move |reader| store::crowded(reader, which, CROWDED_PAGE))
            .await?;
        for day in &days {
            let day = *day;
            let page = move |tx: &Tx<'_>| fold_day(tx, day, which);
            folded += db.write("sessions.fold", page).await?;
        }
        if days.is_empty() {
            return Ok(folded);
        }
    }
}

/// Folds a page of the sessions between the first and the last ones; how many.
fn fold_day(tx: &Tx<'_>, day: Day, which: Foldable) -> Result<usize> {
    let between = store::single(tx, day)?.saturating_sub(which.kept);
    let singles = store::middle(tx, day, which, between.min(FOLD_PAGE))?;
    for single in &singles {
        match store::folded(tx, day, single.reason)? {
            Some(into) => {
                store::fold(tx, single.id, into)?;
                store::remove_ended(tx, single.id)?;
            }
            None => store::begin_fold(tx, single.id)?,
        }
    }
    Ok(singles.len())
}
