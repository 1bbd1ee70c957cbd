//! Copies of the file: out while it is in use, back in while it is not.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::epoch::Epoch;
use super::lock::{self, Lock, Users, beside};
use super::{Reader, Tx, migrate, pool};
use crate::clock::UnixMs;
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

/// The file whose place a copy is to take.
pub enum Replaced<'a> {
    /// There is none.
    Nothing,
    /// It cannot be looked into, for this reason.
    Unreadable(String),
    /// This is in it.
    File(&'a Reader<'a>),
}

/// Copies the database at `from` to `to`, all of one moment, and checks the copy before it gets its name.
pub(super) fn copy(from: &Path, to: &Path) -> Result<Copied> {
    copied_by(to, |draft| {
        let conn = pool::open_to_look(from)?;
        vacuum(&conn, draft)
    })
}

/// The same through a connection that only reads and is already open.
pub(super) fn copy_through(conn: &Connection, to: &Path) -> Result<Copied> {
    copied_by(to, |draft| {
        let copied = vacuum(conn, draft);
        conn.execute_batch("pragma query_only = on")?;
        copied
    })
}

fn copied_by(to: &Path, copy: impl FnOnce(&Path) -> Result<()>) -> Result<Copied> {
    if to.exists() {
        return Err(Error::State(format!(
            "{} exists: name a file that does not",
            to.display()
        )));
    }
    let draft = beside(to, ".part");
    migrate::remove(&draft)?;
    let made = copy(&draft).and_then(|()| checked(&draft));
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

fn vacuum(conn: &Connection, to: &Path) -> Result<()> {
    let Some(to) = to.to_str() else {
        return Err(Error::Usage(format!(
            "{} is no name in UTF-8",
            to.display()
        )));
    };
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
/// a name that ends in `stamp`. Before that `settle` makes of the copy what is to be served, with a look at
/// the file that it replaces.
///
/// Whenever this ends, by a failure or with the machine, the old file is there or the new one. Only one that
/// is too damaged to be closed in order is moved to where it is kept first: then there may be none, and a server
/// that starts says so.
///
/// # Errors
/// [`Error::State`] when a server runs on it, or when the copy is none or is damaged, or what `settle`
/// returns; nothing is changed then.
pub fn restore<T>(
    from: &Path,
    path: &Path,
    stamp: &str,
    settle: impl FnOnce(&Tx<'_>, &Replaced<'_>) -> Result<T>,
) -> Result<(Restored, T)> {
    is_file(from)?;
    let path = &lock::resolved(path)?;
    let lock = Lock::take(path)?;
    let _alone = Users::alone(path)?;
    // What is refused here is refused by the name that the operator gave.
    migrate::schema(&pool::open_to_look(from)?, from)?;
    let draft = beside(path, ".restored");
    migrate::remove_all(&draft)?;
    let made = draw_up(from, path, &draft, settle);
    let (copied, settled) = match made {
        Ok(made) => made,
        Err(error) => {
            migrate::remove_all(&draft)?;
            return Err(error);
        }
    };
    let kept = beside(path, &format!(".before-restore-{stamp}"));
    let had_one = path.exists();
    if had_one {
        keep_old(path, &kept)?;
    }
    // A WAL that is left beside a new file would be taken for its own, and spoil it.
    set_aside(path, &kept)?;
    migrate::sync_folder_of(path)?;
    fs::rename(&draft, path).doing("put the copy in its place")?;
    migrate::sync_folder_of(path)?;
    lock.remember_the_file()?;
    // How far the old one was says nothing of the new one.
    lock.note_seen(UnixMs(0))?;
    let kept = had_one.then_some(kept);
    Ok((Restored { copied, kept }, settled))
}

fn is_file(from: &Path) -> Result<()> {
    let given = from.display();
    match fs::metadata(from) {
        Ok(data) if data.is_file() && data.len() > 0 => Ok(()),
        Ok(_) => Err(Error::State(format!(
            "{given} is empty or a folder: name a backup"
        ))),
        Err(error) => Err(Error::State(format!(
            "{given} is no file that can be read ({error}): name a backup"
        ))),
    }
}

/// Makes of the copy `from` what is to be served at `path`: of this program's schema, and settled.
fn draw_up<T>(
    from: &Path,
    path: &Path,
    draft: &Path,
    settle: impl FnOnce(&Tx<'_>, &Replaced<'_>) -> Result<T>,
) -> Result<(Copied, T)> {
    // Through SQLite, not byte by byte: so a copy that still has its WAL beside it comes whole.
    let copied = copy(from, draft)?;
    let conn = pool::open_alone(draft)?;
    if copied.schema < migrate::SCHEMA {
        migrate::apply(&conn, copied.schema)?;
    }
    let settled = settled(&conn, path, settle)?;
    sound(&conn, draft)?;
    drop(conn);
    // Only the file itself is put in place: nothing may be left in a WAL.
    if !fold(draft)? {
        return Err(Error::State(format!(
            "another program has {} open: let it close the file first",
            draft.display()
        )));
    }
    migrate::sync(draft)?;
    let bytes = fs::metadata(draft).doing("measure the copy")?.len();
    let schema = migrate::SCHEMA;
    Ok((Copied { bytes, schema }, settled))
}

fn settled<T>(
    conn: &Connection,
    path: &Path,
    settle: impl FnOnce(&Tx<'_>, &Replaced<'_>) -> Result<T>,
) -> Result<T> {
    let epoch = Epoch::default();
    let deed = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)
        .doing("begin to settle the copy")?;
    let epoch = &epoch;
    let tx = Tx::new(Reader { conn, epoch });
    let settled = if path.exists() {
        match pool::open_to_look(path) {
            Ok(conn) => settle(&tx, &Replaced::File(&Reader { conn: &conn, epoch })),
            Err(error) => settle(&tx, &Replaced::Unreadable(error.to_string())),
        }
    } else {
        settle(&tx, &Replaced::Nothing)
    }?;
    deed.commit().doing("settle the copy")?;
    Ok(settled)
}

/// Gives the old file a second name, with all that is in its WAL, so that there is no moment without one.
/// One that is too damaged for that is moved away in its parts.
fn keep_old(path: &Path, kept: &Path) -> Result<()> {
    migrate::remove(kept)?;
    match fold(path) {
        Ok(true) => fs::hard_link(path, kept).doing("keep the old database"),
        Ok(false) => Err(Error::State(format!(
            "another program has {} open: let it close the file first",
            path.display()
        ))),
        Err(error) => {
            log::warn!("the old database is damaged, its parts are kept as they are: {error}");
            fs::rename(path, kept).doing("keep the old database")
        }
    }
}

/// Writes all that is in the WAL into the file. False, if somebody else is still reading.
fn fold(path: &Path) -> Result<bool> {
    Ok(pool::fold(pool::open_alone(path)?)?)
}

/// Moves what is left beside the file to the name under which it is kept.
fn set_aside(path: &Path, kept: &Path) -> Result<()> {
    for part in ["-wal", "-shm"] {
        let name = beside(path, part);
        if name.exists() {
            fs::rename(&name, beside(kept, part)).doing("keep a part of the old database")?;
        }
    }
    Ok(())
}
