//! Rewrites a database, so that nothing of what was deleted is left in it or in its WAL.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::options::Synchronous;
use super::pool;
use crate::clock::{Clock, SystemClock};
use crate::error::{Doing, Error, Result};

/// How long one attempt to empty the WAL waits for other programs that read it. Writes wait meanwhile, so it is short.
const ATTEMPT: Duration = Duration::from_millis(100);
/// Pause between two attempts, in which the server writes what has waited.
const PAUSE: Duration = Duration::from_millis(400);
/// How long the WAL is tried to be emptied before the command gives up: a backup that reads the database ends.
const PATIENCE: Duration = Duration::from_mins(1);

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
/// [`Error::Unavailable`] if the disk is full or another program writes; [`Error::State`] if another program reads the
/// WAL all the time.
pub(super) fn vacuum(path: &Path) -> Result<Vacuumed> {
    let size = || fs::metadata(path).doing("measure the database");
    let bytes_before = size()?.len();
    let conn = pool::open_writer(path, Synchronous::Full)?;
    conn.execute_batch("vacuum")?;
    if empty_wal(&conn, PATIENCE)? {
        let bytes = size()?.len();
        return Ok(Vacuumed {
            bytes_before,
            bytes,
        });
    }
    Err(Error::State(format!(
        "the database was rewritten, but another program reads {}, so that deleted text is still in its WAL: stop \
         Litestream, or close the other program, then run `license-server vacuum` again",
        path.display()
    )))
}

/// Empties the WAL, for which no other program may read it. `false` if one did until `patience` was over.
fn empty_wal(conn: &Connection, patience: Duration) -> Result<bool> {
    let clock = SystemClock::default();
    let began = clock.tick();
    conn.busy_timeout(ATTEMPT)?;
    loop {
        let busy: i64 = conn.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0))?;
        if busy == 0 {
            return Ok(true);
        }
        if clock.tick().since(began) >= patience {
            return Ok(false);
        }
        std::thread::park_timeout(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wal_is_not_emptied_while_another_program_reads_it_and_emptied_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        let conn = pool::open_or_create(&path).unwrap();
        conn.execute_batch("create table t (x); insert into t values (1)")
            .unwrap();
        let reader = pool::open_read_only(&path).unwrap();
        reader
            .execute_batch("begin; select count(*) from t")
            .unwrap();
        conn.execute_batch("insert into t values (2)").unwrap();
        assert!(!empty_wal(&conn, PAUSE).unwrap());
        reader.execute_batch("rollback").unwrap();
        assert!(empty_wal(&conn, PAUSE).unwrap());
        let wal = dir.path().join("t.sqlite3-wal");
        assert_eq!(fs::metadata(wal).unwrap().len(), 0);
    }
}
