//! Copies a database while it is in use.

use std::fs::{self, File};
use std::path::Path;

use rusqlite::Connection;
use tempfile::NamedTempFile;

use super::copy_folder::CopyFolder;
use super::files::{beside, remove, sync, sync_folder_of};
use super::generation::Generation;
use super::path_check::UNFINISHED;
use super::reader::Reader;
use super::{disk, pool, schema};
use crate::error::{Doing, Error, Result};

/// Prefix of the name of a copy that is being made; a random part follows.
const COPY_PREFIX: &str = ".license-server-copy-";
/// Size and schema of a copy.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct CopyInfo {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its schema version.
    pub schema: u32,
}

/// A consistent copy in a temporary file, which is deleted when this is dropped.
#[derive(Debug)]
pub struct DatabaseCopy {
    file: NamedTempFile,
    /// Its size and schema.
    pub copied: CopyInfo,
}

impl DatabaseCopy {
    /// The open file.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }
}

/// Copies the database that `open` reads, as of one moment, into a file in one of `folders`, and checks the copy,
/// which `read` can read.
pub(super) fn make_copy<T>(
    open: &Connection,
    folders: &[CopyFolder],
    read: impl FnOnce(&Reader<'_>) -> Result<T>,
) -> Result<(DatabaseCopy, T)> {
    let measured = |pragma| open.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let bytes = measured("pragma page_count")?.saturating_mul(measured("pragma page_size")?);
    let bytes = u64::try_from(bytes).unwrap_or(0);
    let (file, conn, schema) = CopyFolder::first(folders, bytes, |folder| copy_into(open, folder))?;
    let generation = &Generation::default();
    let seen = read(&Reader {
        conn: &conn,
        generation,
    })?;
    let bytes = file.as_file().metadata().doing("measure the copy")?.len();
    let copied = CopyInfo { bytes, schema };
    Ok((DatabaseCopy { file, copied }, seen))
}

fn copy_into(open: &Connection, folder: &Path) -> Result<(NamedTempFile, Connection, u32)> {
    remove_unfinished(folder)?;
    let file = tempfile::Builder::new()
        .prefix(COPY_PREFIX)
        .tempfile_in(folder);
    let file = file.doing("make the file for a copy")?;
    // The lock marks a copy that is still being made.
    file.as_file().lock().doing("lock a copy")?;
    vacuum(open, file.path())?;
    let conn = pool::open_read_only(file.path())?;
    let schema = schema::schema(&conn, file.path())?;
    match damage(&conn)? {
        None => Ok((file, conn, schema)),
        // The copy is deleted; what it is a copy of has the same damage.
        Some(found) => Err(Error::State(format!(
            "the database is damaged, so no copy of it was made ({found}): {}",
            disk::remedy(&found)
        ))),
    }
}

/// Deletes unfinished copies of processes that died.
pub(super) fn remove_unfinished(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).doing("list the folder of a copy")? {
        let entry = entry.doing("list the folder of a copy")?;
        let name = entry.file_name();
        let ours = name.as_encoded_bytes().starts_with(COPY_PREFIX.as_bytes());
        let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        if ours
            && regular
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
            && let Err(error) = remove(&entry.path())
        {
            // In a shared folder the file may belong to another user.
            log::debug!("an unfinished copy could not be deleted: {error}");
        }
    }
    Ok(())
}

/// Copies the database at `from` to `to`, as of one moment, and checks the copy before it gets its name.
pub(super) fn copy(from: &Path, to: &Path) -> Result<CopyInfo> {
    if to.exists() {
        return Err(Error::State(format!(
            "{} exists: name a file that does not",
            to.display()
        )));
    }
    let part = beside(to, UNFINISHED);
    remove(&part)?;
    let made = pool::open_read_only(from)
        .and_then(|conn| vacuum(&conn, &part))
        .and_then(|()| inspect_copy(&part));
    let copied = match made {
        Ok(copied) => copied,
        Err(error) => {
            remove(&part)?;
            return Err(error);
        }
    };
    sync(&part)?;
    fs::rename(&part, to).doing("give the copy its name")?;
    sync_folder_of(to)?;
    Ok(copied)
}

fn vacuum(conn: &Connection, to: &Path) -> Result<()> {
    let Some(to) = to.to_str() else {
        return Err(Error::Usage(format!(
            "the path {} is not UTF-8",
            to.display()
        )));
    };
    conn.execute_batch("pragma query_only = off")?;
    conn.execute("vacuum into ?1", [to])?;
    Ok(())
}

fn inspect_copy(path: &Path) -> Result<CopyInfo> {
    check_integrity(&pool::open_read_only(path)?, path)?;
    inspect_unchecked(path)
}

/// Size and schema of a copy that has been checked.
pub(super) fn inspect_unchecked(path: &Path) -> Result<CopyInfo> {
    let schema = schema::schema(&pool::open_read_only(path)?, path)?;
    let bytes = fs::metadata(path).doing("measure the copy")?.len();
    Ok(CopyInfo { bytes, schema })
}

/// The first damage that SQLite finds; `None` if the database is sound.
fn damage(conn: &Connection) -> Result<Option<String>> {
    let found: String = conn.query_row("pragma integrity_check(1)", [], |row| row.get(0))?;
    Ok(Some(found).filter(|found| found != "ok"))
}

pub(super) fn check_integrity(conn: &Connection, path: &Path) -> Result<()> {
    match damage(conn)? {
        None => Ok(()),
        Some(found) => Err(Error::State(format!(
            "{} is damaged: {found}",
            path.display()
        ))),
    }
}
