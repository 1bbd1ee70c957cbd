//! What SQLite errors say about the disk, and the known condition of disk and database.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Result as IoResult};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{ErrorCode, ffi};
use tokio::sync::Notify;

use super::files::beside;
use crate::clock::AtMost;
use crate::error::Error;

/// Between two log lines about the same problem.
pub(super) const LOG_INTERVAL: Duration = Duration::from_mins(1);
/// What to do about a damaged search index.
const INDEX_REMEDY: &str = "run `license-server reindex`, then restart the server";
/// What to do about any other damage.
const REMEDY: &str = "stop the server and restore a backup with `license-server restore FILE`";
/// Bytes written to test whether the disk can be written.
const PROBE_LEN: usize = 4096;

/// What writes to the database or its WAL.
#[derive(Clone, Copy, Debug)]
pub(super) enum DiskWrite {
    Commit,
    Checkpoint,
}

impl DiskWrite {
    /// What the disk failed to do, for the log.
    fn text(self) -> &'static str {
        match self {
            Self::Commit => "confirm a commit",
            Self::Checkpoint => "copy the WAL into the database",
        }
    }
}

/// The condition of disk and database, shared by all their users.
#[derive(Debug)]
pub(super) struct Condition {
    /// Whether the disk lost data that it had accepted: nothing may be written any more.
    failed: AtomicBool,
    /// Whether the last commit was refused though another file could be written, and the last checkpoint.
    commit_refused: AtomicBool,
    checkpoint_refused: AtomicBool,
    failure_noted: Notify,
    /// The latest damage found.
    damage: Mutex<Option<String>>,
    log_limit: AtMost,
}

impl Default for Condition {
    fn default() -> Self {
        Self {
            failed: AtomicBool::new(false),
            commit_refused: AtomicBool::new(false),
            checkpoint_refused: AtomicBool::new(false),
            failure_noted: Notify::new(),
            damage: Mutex::default(),
            log_limit: AtMost::once_in(LOG_INTERVAL),
        }
    }
}

impl Condition {
    /// Whether the disk has failed: then nothing may be written, and nothing may be copied out of the WAL.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Waits until the disk has failed. For one listener.
    pub(super) async fn failure(&self) {
        while !self.has_failed() {
            self.failure_noted.notified().await;
        }
    }

    /// Decides whether an error of `write` on the database at `path` means that the disk has failed.
    ///
    /// Once the disk has failed, pages that the kernel had accepted may be lost silently: the kernel reports such
    /// a loss only once. The WAL still has them, and only a new process reads all of it again.
    ///
    /// A refused write loses nothing. It means a failure if the same is refused again: space may have become available
    /// between the first refusal and the test for space.
    pub(super) fn note_io_error(&self, write: DiskWrite, error: &rusqlite::Error, path: &Path) {
        if !loses_pages(error) {
            if !is_refused_write(error) || is_unwritable(path) {
                return;
            }
            if !self.refused(write).swap(true, Ordering::SeqCst) {
                return;
            }
        }
        if self.failed.swap(true, Ordering::SeqCst) {
            return;
        }
        let name = path.display();
        log::error!(
            "the disk failed to {} ({error}): the server stops, and its next start reads {name}-wal again. \
             Leave that file where it is, check the disk (dmesg, smartctl), and keep a backup elsewhere",
            write.text()
        );
        self.failure_noted.notify_one();
    }

    fn refused(&self, write: DiskWrite) -> &AtomicBool {
        match write {
            DiskWrite::Commit => &self.commit_refused,
            DiskWrite::Checkpoint => &self.checkpoint_refused,
        }
    }

    /// `write` succeeded: an earlier refusal has passed.
    pub(super) fn note_success(&self, write: DiskWrite) {
        let refused = self.refused(write);
        if refused.load(Ordering::Relaxed) {
            refused.store(false, Ordering::SeqCst);
        }
    }

    /// The latest damage found, if any.
    pub(super) fn damage(&self) -> Option<String> {
        let damage = self.damage.lock();
        damage.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores damage, and logs it at most once a minute. That of the search index, which has a remedy of its own, does not
    /// hide any other.
    pub(super) fn note_damage(&self, found: &str) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let is_worse = |known: &String| is_damaged_index(known) || !is_damaged_index(found);
        if damage.as_ref().is_none_or(is_worse) {
            *damage = Some(found.to_owned());
        }
        drop(damage);
        if !self.log_limit.is_due() {
            return;
        }
        if is_damaged_index(found) {
            log::error!("the search index is damaged ({found}): {INDEX_REMEDY}");
        } else {
            log::error!(
                "the database is damaged ({found}): check the disk (dmesg, smartctl), {REMEDY}; until then the server goes \
                 on with what it can read"
            );
        }
    }

    /// The whole file was read and found sound: earlier damage is cleared.
    pub(super) fn note_sound(&self) {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Whether the damage is that of the search index alone, which can be made anew. SQLite writes `FTS5` or `fts5` in each of
/// its many messages about such an index, and in no other; [`classify`] adds it where only a code says so.
pub fn is_damaged_index(found: &str) -> bool {
    found.contains("FTS5") || found.contains("fts5")
}

/// What to do about this damage.
pub fn remedy(found: &str) -> &'static str {
    if is_damaged_index(found) {
        INDEX_REMEDY
    } else {
        REMEDY
    }
}

/// Whether the error means that written pages may be lost.
fn loses_pages(error: &rusqlite::Error) -> bool {
    let Some(code) = extended(error) else {
        return false;
    };
    // A checkpoint reads only the WAL.
    matches!(
        code,
        ffi::SQLITE_IOERR_FSYNC
            | ffi::SQLITE_IOERR_DIR_FSYNC
            | ffi::SQLITE_IOERR_TRUNCATE
            | ffi::SQLITE_IOERR_FSTAT
            | ffi::SQLITE_IOERR_READ
            | ffi::SQLITE_IOERR_SHORT_READ
            | ffi::SQLITE_IOERR_CORRUPTFS
            | ffi::SQLITE_IOERR_DATA
    )
}

/// Whether the kernel refused the write. SQLite reports only `ENOSPC` as a full disk: a quota, a file size limit
/// and a disk that became read-only look like a broken disk.
fn is_refused_write(error: &rusqlite::Error) -> bool {
    extended(error) == Some(ffi::SQLITE_IOERR_WRITE)
}

/// Whether written data could not be read.
fn is_failed_read(error: &rusqlite::Error) -> bool {
    matches!(
        extended(error),
        Some(
            ffi::SQLITE_IOERR_READ
                | ffi::SQLITE_IOERR_SHORT_READ
                | ffi::SQLITE_IOERR_CORRUPTFS
                | ffi::SQLITE_IOERR_DATA
        )
    )
}

/// Whether a column has a value of another type or form than the one that is read from it.
fn is_unexpected_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as Sqlite;
    matches!(
        error,
        Sqlite::FromSqlConversionFailure(..)
            | Sqlite::IntegralValueOutOfRange(..)
            | Sqlite::InvalidColumnType(..)
            | Sqlite::Utf8Error(..)
    )
}

fn extended(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => Some(error.extended_code),
        _ => None,
    }
}

/// The error that the caller of a failed query gets.
pub(super) fn classify(error: rusqlite::Error) -> Error {
    let found = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt)
            if extended(&error) == Some(ffi::SQLITE_CORRUPT_VTAB) && !is_damaged_index(&found) =>
        {
            let found = format!("FTS5: {found}");
            Error::Damaged { found }
        }
        // Written data cannot be read back.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Damaged { found },
        Some(ErrorCode::SystemIoFailure) if is_failed_read(&error) => Error::Damaged { found },
        // The file is sound but cannot be used now: the same request may work later.
        Some(
            ErrorCode::DiskFull
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::OperationInterrupted
            | ErrorCode::OutOfMemory,
        ) => Error::Unavailable { reason: found },
        // The schema refuses values of another type or form, so such a value is damage.
        None if is_unexpected_value(&error) => Error::Damaged { found },
        _ => Error::Internal {
            doing: "use the database",
            source: error.into(),
        },
    }
}

/// Whether a file as large as the largest part of the database cannot be written beside it: the disk is full or
/// read-only, or a quota or file size limit is reached.
pub(super) fn is_unwritable(path: &Path) -> bool {
    probe(path).is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::FileTooLarge
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::PermissionDenied
        )
    })
}

/// Tries to write a file beside the database, as large as its largest part, and removes it again.
pub(super) fn probe(path: &Path) -> IoResult<()> {
    let name = beside(path, ".probe");
    let len = |part| fs::metadata(beside(path, part)).map_or(0, |file| file.len());
    let end = len("").max(len("-wal"));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&name)
        .and_then(|file| write_once(&file, end));
    match (fs::remove_file(&name), written) {
        (Err(error), Ok(())) => Err(error),
        (_, written) => written,
    }
}

fn write_once(file: &File, at: u64) -> IoResult<()> {
    file.write_all_at(&[0; PROBE_LEN], at)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn a_disk_that_loses_pages_has_failed_and_a_full_locked_or_read_only_one_has_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        for (code, fails) in [
            (ffi::SQLITE_IOERR_FSYNC, true),
            (ffi::SQLITE_IOERR_DIR_FSYNC, true),
            (ffi::SQLITE_IOERR_TRUNCATE, true),
            (ffi::SQLITE_IOERR_READ, true),
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_BUSY_RECOVERY, false),
            (ffi::SQLITE_READONLY, false),
            (ffi::SQLITE_READONLY_DBMOVED, false),
            (ffi::SQLITE_IOERR_LOCK, false),
            (ffi::SQLITE_IOERR_SHMSIZE, false),
            (ffi::SQLITE_IOERR_NOMEM, false),
            (ffi::SQLITE_NOMEM, false),
        ] {
            let condition = Condition::default();
            condition.note_io_error(DiskWrite::Commit, &failure(code), &path);
            assert_eq!(condition.has_failed(), fails, "{code}");
        }
        assert_eq!(
            dir.path().read_dir().unwrap().count(),
            0,
            "the probe file is removed"
        );
    }

    #[test]
    fn a_write_that_is_refused_twice_in_a_row_is_a_failure_and_one_before_space_became_available_is_not()
     {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        let condition = Condition::default();
        let refuse = |write| {
            condition.note_io_error(write, &failure(ffi::SQLITE_IOERR_WRITE), &path);
            condition.has_failed()
        };
        assert!(!refuse(DiskWrite::Commit));
        condition.note_success(DiskWrite::Commit);
        assert!(!refuse(DiskWrite::Commit));
        assert!(!refuse(DiskWrite::Checkpoint));
        // Other files can be written: the disk is not full.
        condition.note_success(DiskWrite::Commit);
        assert!(refuse(DiskWrite::Checkpoint));
    }

    #[test]
    fn unreadable_data_is_damage_and_errors_that_may_pass_are_not() {
        for (code, damaged) in [
            (ffi::SQLITE_CORRUPT, true),
            (ffi::SQLITE_CORRUPT_INDEX, true),
            (ffi::SQLITE_NOTADB, true),
            (ffi::SQLITE_IOERR_READ, true),
            (ffi::SQLITE_IOERR_SHORT_READ, true),
            (ffi::SQLITE_IOERR_WRITE, false),
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_CANTOPEN, false),
            (ffi::SQLITE_NOMEM, false),
        ] {
            let error = classify(failure(code));
            assert_eq!(matches!(error, Error::Damaged { .. }), damaged, "{error}");
            let unavailable = matches!(error, Error::Unavailable { .. });
            assert_eq!(unavailable, !damaged, "{error}");
        }
        let wrong_type = rusqlite::Error::InvalidColumnType(
            0,
            "license_key".to_owned(),
            rusqlite::types::Type::Null,
        );
        assert!(matches!(classify(wrong_type), Error::Damaged { .. }));
        for (code, found) in [
            (ffi::SQLITE_CORRUPT, REMEDY),
            (ffi::SQLITE_CORRUPT_VTAB, INDEX_REMEDY),
        ] {
            let error = classify(failure(code));
            assert_eq!(remedy(&error.to_string()), found, "{error}");
        }
    }

    #[test]
    fn damage_is_reported_until_the_whole_file_is_found_sound() {
        let condition = Condition::default();
        assert_eq!(condition.damage(), None);
        condition.note_damage("malformed inverted index for FTS5 table main.device_texts");
        condition.note_damage("a page");
        condition.note_damage("fts5: corruption in table \"device_texts\"");
        assert_eq!(condition.damage().as_deref(), Some("a page"));
        condition.note_sound();
        assert_eq!(condition.damage(), None);
    }
}
