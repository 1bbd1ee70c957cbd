//! Rewrites a database, so that nothing of what was deleted is left in it or in its WAL.

use std::fs;
use std::path::Path;

use super::options::Synchronous;
use super::pool;
use crate::error::{Doing, Error, Result};

/// How often the WAL is copied and emptied before another program that reads it is named as the reason.
const ATTEMPTS: u32 = 5;

/// The result of rewriting a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Vacuumed {
    /// Its size before, in bytes.
    pub bytes_before: u64,
    /// Its size now, in bytes.
    pub bytes: u64,
}

/// Rewrites the database at `path` and empties its WAL. SQLite leaves deleted text in unused parts of a file: in freed
/// pages, behind shorter rows, and in the WAL.
///
/// # Errors
/// [`Error::Unavailable`] if the disk is full or another program writes; [`Error::State`] if the WAL cannot be emptied.
pub(super) fn vacuum(path: &Path) -> Result<Vacuumed> {
    let size = || fs::metadata(path).doing("measure the database");
    let bytes_before = size()?.len();
    let conn = pool::open_writer(path, Synchronous::Full)?;
    conn.execute_batch("vacuum")?;
    for _ in 0..ATTEMPTS {
        // Waits for readers as long as for any lock.
        let busy: i64 = conn.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0))?;
        if busy == 0 {
            let bytes = size()?.len();
            return Ok(Vacuumed {
                bytes_before,
                bytes,
            });
        }
    }
    Err(Error::State(format!(
        "the database was rewritten, but another program reads {}, so that deleted text is still in its WAL: close that \
         program, then run `license-server vacuum` again",
        path.display()
    )))
}
