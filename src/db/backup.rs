//! Copies of the file: out while it is in use, back in while it is not.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::lock::{Lock, beside};
use super::{migrate, pool};
use crate::error::{Doing, Error, Result};

/// A copy that was made.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Copied {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its schema.
    pub schema: u32,
}

/// A copy that was put in place.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Restored {
    /// What was put in place.
    #[serde(flatten)]
    pub copied: Copied,
    /// Where the file that it replaced is kept, if there was one.
    pub kept: Option<PathBuf>,
}

/// Copies the database at `from` to `to`, all of one moment, and checks the copy before it gets its name.
pub(super) fn copy(from: &Path, to: &Path) -> Result<Copied> {
    if to.exists() {
        return Err(Error::State(format!(
            "{} exists: name a file that does not",
            to.display()
        )));
    }
    let draft = beside(to, ".part");
    migrate::remove(&draft)?;
    let made = vacuum(from, &draft).and_then(|()| checked(&draft));
    let copied = match made {
        Ok(copied) => copied,
        Err(error) => {
            migrate::remove(&draft)?;
            return Err(error);
        }
    };
    migrate::sync(&draft)?;
    fs::rename(&draft, to).doing("give the copy its name")?;
    migrate::sync_folder_of(to)?;
    Ok(copied)
}

fn vacuum(from: &Path, to: &Path) -> Result<()> {
    let Some(to) = to.to_str() else {
        return Err(Error::Usage(format!(
            "{} is no name in UTF-8",
            to.display()
        )));
    };
    let conn = pool::open_to_look(from)?;
    conn.execute_batch("pragma query_only = off")?;
    conn.execute("vacuum into ?1", [to])
        .map(drop)
        .doing("copy the database")
}

fn checked(path: &Path) -> Result<Copied> {
    let conn = pool::open_to_look(path)?;
    let schema = migrate::schema(&conn, path)?;
    sound(&conn, path)?;
    let bytes = fs::metadata(path).doing("measure the copy")?.len();
    Ok(Copied { bytes, schema })
}

fn sound(conn: &Connection, path: &Path) -> Result<()> {
    let found: String = conn.query_row("pragma integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    Err(Error::State(format!(
        "{} is damaged: {found}",
        path.display()
    )))
}

/// Puts the copy `from` in the place of the database at `path`, and keeps the old file beside it under
/// a name that ends in `stamp`.
///
/// # Errors
/// [`Error::State`] when a server runs on it, or when the copy is none or is damaged; nothing is
/// changed then.
pub fn restore(from: &Path, path: &Path, stamp: &str) -> Result<Restored> {
    if !from.is_file() {
        return Err(Error::State(format!("{} is no file", from.display())));
    }
    let lock = Lock::take(path)?;
    let draft = beside(path, ".restored");
    migrate::remove(&draft)?;
    // Through SQLite, not byte by byte: so a copy that still has its WAL beside it comes whole.
    let copied = copy(from, &draft)?;
    let kept = if path.exists() {
        Some(keep_old(path, stamp)?)
    } else {
        None
    };
    fs::rename(&draft, path).doing("put the copy in its place")?;
    migrate::sync_folder_of(path)?;
    lock.remember_the_file()?;
    Ok(Restored { copied, kept })
}

/// Gives the old file a second name, with all that is in its WAL, so that there is no moment without one.
fn keep_old(path: &Path, stamp: &str) -> Result<PathBuf> {
    let kept = beside(path, &format!(".before-restore-{stamp}"));
    let folded = pool::open_alone(path)
        .and_then(|conn| Ok(conn.execute_batch("pragma wal_checkpoint(truncate)")?));
    if let Err(error) = folded {
        log::warn!("the old database is damaged, its parts are kept as they are: {error}");
        for part in ["-wal", "-shm"] {
            let name = beside(path, part);
            if name.exists() {
                fs::rename(&name, beside(&kept, part)).doing("keep a part of the old database")?;
            }
        }
    }
    migrate::remove(&kept)?;
    fs::hard_link(path, &kept).doing("keep the old database")?;
    for part in ["-wal", "-shm"] {
        migrate::remove(&beside(path, part))?;
    }
    Ok(kept)
}
