//! Copies the WAL into the database file, in a thread beside the writer's, and checks every result.
//!
//! SQLite's automatic checkpoints are switched off, because they ignore errors. While a reader is active, a
//! checkpoint copies a part of the WAL without a sync, and counts it as copied. If the sync of the next complete
//! checkpoint fails, the kernel has dropped the pages and reports that only once; another checkpoint would
//! succeed, the WAL would be overwritten from its start, and the only good copy would be lost. So after the first
//! failure this process does nothing more with the file, and the next one begins with [`rewrite_wal`].

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, InterruptHandle};

use super::disk::{Condition, DiskWrite, LOG_INTERVAL};
use super::files::beside;
use crate::clock::{AtMost, Clock, SystemClock, Tick};
use crate::error::{Doing, Error, Result};

/// Uncopied frames of the WAL from which on the thread copies.
const UNCOPIED_MAX: i64 = 2000;
/// With fewer uncopied frames than this, the writer may copy the rest and restart the WAL.
const REST_MAX: i64 = 500;
/// Frames from which on the WAL should restart from its beginning: 16 MiB, of the 64 MiB that it may have.
const RESTART_AT: i64 = 4096;
/// Frames from which on the writer waits for the thread's checkpoint, since a busy writer can starve the thread.
const BLOCKING_AT: i64 = 8192;
/// Checkpoints in a row, to catch up with a busy writer.
const PASSES_MAX: u32 = 4;
/// Between two wake-ups of the thread: the writer commits far more often.
const WAKE: Duration = Duration::from_millis(20);
/// How long the writer waits for readers of the WAL, and when it tries again after a timeout.
const READER_TIMEOUT: Duration = Duration::from_millis(50);
const RESTART_RETRY: Duration = Duration::from_millis(500);
/// Each further timeout doubles that wait, up to this: a backup reads for a minute, and all writes wait while the writer
/// waits for it.
const RESTART_RETRY_MAX: Duration = Duration::from_secs(8);
/// Pause after a checkpoint that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of the WAL that are rewritten at a time.
const CHUNK: usize = 1 << 20;
/// Zeros for both copies of SQLite's `WalIndexHdr`: <https://sqlite.org/walformat.html#the_wal_index_file_format>.
const INDEX_HEAD: [u8; 96] = [0; 96];

/// The state of the WAL after a checkpoint, in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wal {
    frames: i64,
    copied: i64,
}

impl Wal {
    fn uncopied(self) -> i64 {
        self.frames - self.copied
    }
}

fn checkpoint(conn: &Connection, sql: &'static str) -> rusqlite::Result<Option<Wal>> {
    let mut statement = conn.prepare_cached(sql)?;
    statement.query_row([], |row| {
        let (busy, frames, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((busy == 0).then_some(Wal { frames, copied }))
    })
}

/// The writer's handle on the checkpoint thread.
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    interrupt: InterruptHandle,
    clock: SystemClock,
    woken: Cell<Tick>,
    /// Whether the thread asks the writer to restart the WAL.
    restart: Arc<AtomicBool>,
    /// Held during a checkpoint, by either thread.
    exclusive: Arc<Mutex<()>>,
    not_before: Cell<Tick>,
    /// How long after the next timeout it tries again.
    retry: Cell<Duration>,
    /// When the writer last measured the WAL.
    measured: Cell<Tick>,
}

impl Checkpoints {
    /// Starts the thread, which owns `conn`.
    pub(super) fn start(conn: Connection, path: &Path, condition: Arc<Condition>) -> Result<Self> {
        // Never closed: closing it would release the locks that SQLite holds on this file in this process (POSIX
        // locks).
        let file = File::open(path).doing("open the database file")?;
        let worker = CheckpointThread {
            file: Box::leak(Box::new(file)),
            path: path.to_owned(),
            condition,
            restart: Arc::default(),
            exclusive: Arc::default(),
            log_limit: AtMost::once_in(LOG_INTERVAL),
            conn,
        };
        let (interrupt, restart) = (worker.conn.get_interrupt_handle(), worker.restart.clone());
        let exclusive = worker.exclusive.clone();
        let (wake, wakes) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || worker.serve(&wakes))
            .doing("start the checkpoint thread")?;
        Ok(Self {
            wake,
            thread,
            interrupt,
            clock: SystemClock::default(),
            woken: Cell::default(),
            restart,
            exclusive,
            not_before: Cell::default(),
            retry: Cell::new(RESTART_RETRY),
            measured: Cell::default(),
        })
    }

    /// Called after a commit: the thread checks whether a checkpoint is due.
    pub(super) fn wake(&self) {
        let now = self.clock.tick();
        if now.since(self.woken.get()) >= WAKE {
            self.woken.set(now);
            if let Err(TrySendError::Disconnected(())) = self.wake.try_send(()) {
                log::debug!("the checkpoint thread has ended");
            }
        }
    }

    /// Copies the remaining frames and restarts the WAL, if that is due. The writer does it on its own connection,
    /// because no commit can come between then; the thread alone might never catch up.
    pub(super) fn restart_wal(&self, writer: &Connection) -> rusqlite::Result<()> {
        let now = self.clock.tick();
        if now < self.not_before.get() {
            return Ok(());
        }
        let long = self.is_long(writer, now)?;
        if !long && !self.restart.load(Ordering::SeqCst) {
            return Ok(());
        }
        // Checkpoints do not run concurrently. If the WAL is long, the writes wait for the thread's.
        let guard = match self.exclusive.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) if long => self
                .exclusive
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        self.restart.store(false, Ordering::SeqCst);
        writer.busy_timeout(READER_TIMEOUT)?;
        let wal = checkpoint(writer, "pragma wal_checkpoint(restart)");
        writer.busy_timeout(super::pool::BUSY)?;
        if wal?.is_none() {
            let retry = self.retry.get();
            self.not_before.set(Tick(now.0 + retry));
            self.retry.set((retry * 2).min(RESTART_RETRY_MAX));
        } else {
            self.retry.set(RESTART_RETRY);
        }
        drop(guard);
        Ok(())
    }

    /// Whether the WAL has grown beyond what the thread should allow; measured at most every [`WAKE`].
    fn is_long(&self, writer: &Connection, now: Tick) -> rusqlite::Result<bool> {
        if now.since(self.measured.get()) < WAKE {
            return Ok(false);
        }
        self.measured.set(now);
        let wal = checkpoint(writer, "pragma wal_checkpoint(noop)")?;
        Ok(wal.is_some_and(|wal| wal.frames >= BLOCKING_AT))
    }

    /// Ends the thread; frames that are not copied stay in the WAL.
    pub(super) fn end(self) {
        drop(self.wake);
        self.interrupt.interrupt();
        if self.thread.join().is_err() {
            log::error!("the checkpoint thread panicked");
        }
    }
}

struct CheckpointThread {
    conn: Connection,
    /// The database file, to sync after a partial checkpoint.
    file: &'static File,
    path: PathBuf,
    condition: Arc<Condition>,
    restart: Arc<AtomicBool>,
    exclusive: Arc<Mutex<()>>,
    log_limit: AtMost,
}

impl CheckpointThread {
    fn serve(&self, wakes: &Receiver<()>) {
        while wakes.recv().is_ok() && !self.condition.has_failed() {
            let Err(error) = self.checkpoint_if_due() else {
                self.condition.note_success(DiskWrite::Checkpoint);
                continue;
            };
            self.condition
                .note_io_error(DiskWrite::Checkpoint, &error, &self.path);
            match error.sqlite_error_code() {
                _ if self.condition.has_failed() => {}
                Some(ErrorCode::OperationInterrupted) => return,
                _ if self.log_limit.is_due() => {
                    log::warn!(
                        "the WAL cannot be copied into the database now and keeps growing: {error}"
                    );
                }
                _ => {}
            }
            if wakes.recv_timeout(FAILURE_PAUSE) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Makes checkpoints, if one is due.
    fn checkpoint_if_due(&self) -> rusqlite::Result<()> {
        let _guard = self
            .exclusive
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(mut wal) = checkpoint(&self.conn, "pragma wal_checkpoint(noop)")? else {
            return Ok(());
        };
        let due = wal.uncopied() >= UNCOPIED_MAX || wal.frames >= RESTART_AT;
        for _ in 0..PASSES_MAX {
            if !due || wal.uncopied() < REST_MAX {
                break;
            }
            let before = wal;
            match checkpoint(&self.conn, "pragma wal_checkpoint(passive)")? {
                Some(after) => wal = after,
                None => return Ok(()),
            }
            // SQLite syncs only complete checkpoints. Syncing here keeps the writer from having to wait for it.
            if wal.uncopied() > 0 && wal.copied > before.copied {
                self.sync()?;
            }
            if wal.copied <= before.copied {
                break;
            }
        }
        if wal.frames >= RESTART_AT && wal.uncopied() < REST_MAX {
            self.restart.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    fn sync(&self) -> rusqlite::Result<()> {
        self.file.sync_data().map_err(|error| {
            rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC),
                Some(format!("sync of the database: {error}")),
            )
        })
    }
}

/// Whether the WAL of the database at `path` is not empty.
///
/// # Errors
/// If the file cannot be examined.
pub(super) fn wal_has_content(path: &Path) -> Result<bool> {
    match std::fs::metadata(beside(path, "-wal")) {
        Ok(wal) => Ok(wal.len() > 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing("examine the WAL"),
    }
}

/// Discards what an earlier process assumed about the disk: the frames in the WAL are written again, and the
/// frames that it had copied count as not copied. Called before the first transaction of a process that
/// checkpoints.
///
/// If a sync failed, a page may be in the kernel's cache and not on the disk: written again, it reaches the disk
/// with the next sync, or that fails. The count of copied frames is in the WAL's index, which outlives a process
/// as long as another one (a command, Litestream) has the database open.
///
/// # Errors
/// [`Error::Unavailable`] while another process writes, or the disk cannot be written.
pub(super) fn rewrite_wal(conn: &Connection, path: &Path) -> Result<()> {
    if !wal_has_content(path)? {
        return Ok(());
    }
    // Blocks commits meanwhile.
    conn.execute_batch("begin immediate")?;
    let done = rewrite(&beside(path, "-wal")).and_then(|()| drop_index(&beside(path, "-shm")));
    conn.execute_batch("commit")?;
    done.map_err(|error| Error::Unavailable {
        reason: format!("the WAL cannot be written: {error}"),
    })
}

/// Overwrites a file with its own content, and syncs it. Readers see the same bytes all the time.
fn rewrite(wal: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(wal)?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut chunk, at)?;
        let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else {
            return file.sync_all();
        };
        file.write_all_at(read, at)?;
        at += u64::try_from(count).unwrap_or(u64::MAX);
    }
}

/// Invalidates the header of the WAL's index: the next process that reads it rebuilds the index from the WAL,
/// under SQLite's own locks.
fn drop_index(shm: &Path) -> std::io::Result<()> {
    let file = match OpenOptions::new().write(true).open(shm) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // Never closed, as in [`Checkpoints::start`].
    let file: &'static File = Box::leak(Box::new(file));
    file.write_all_at(&INDEX_HEAD, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Synchronous, pool};

    fn database() -> (tempfile::TempDir, PathBuf, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite3");
        let conn = pool::open_or_create(&path).unwrap();
        conn.execute_batch("create table t (x)").unwrap();
        (dir, path, conn)
    }

    fn add(conn: &Connection, rows: u32) {
        for _ in 0..rows {
            conn.execute("insert into t values (randomblob(3000))", [])
                .unwrap();
        }
    }

    fn count(conn: &Connection) -> i64 {
        conn.query_row("select count(*) from t", [], |row| row.get(0))
            .unwrap()
    }

    fn noop(conn: &Connection) -> Wal {
        checkpoint(conn, "pragma wal_checkpoint(noop)")
            .unwrap()
            .unwrap()
    }

    #[test]
    fn frames_that_an_earlier_process_copied_are_copied_again_while_a_reader_is_active() {
        let (_dir, path, conn) = database();
        add(&conn, 20);
        let reader = pool::open_read_only(&path).unwrap();
        reader.execute_batch("begin").unwrap();
        assert_eq!(count(&reader), 20);
        add(&conn, 5);
        let wal = checkpoint(&conn, "pragma wal_checkpoint(passive)").unwrap();
        let copied = wal.unwrap().copied;
        assert!(copied > 0 && copied < noop(&conn).frames, "{wal:?}");
        let next = pool::open_writer(&path, Synchronous::Full).unwrap();
        rewrite_wal(&next, &path).unwrap();
        assert_eq!(count(&next), 25, "the index is rebuilt");
        assert_eq!(noop(&next).copied, 0);
        assert_eq!(count(&reader), 20, "the reader is not disturbed");
        add(&next, 1);
        reader.execute_batch("commit").unwrap();
        assert_eq!(count(&reader), 26);
        let wal = checkpoint(&next, "pragma wal_checkpoint(restart)").unwrap();
        let wal = wal.unwrap();
        assert_eq!(wal.copied, wal.frames);
        drop((reader, next, conn));
        let sound: String = pool::open_read_only(&path)
            .unwrap()
            .query_row("pragma integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sound, "ok");
    }

    #[test]
    fn the_wal_stays_small_while_the_writer_never_pauses() {
        let (_dir, path, writer) = database();
        let conn = pool::open_writer(&path, Synchronous::Normal).unwrap();
        let condition = Arc::new(Condition::default());
        let checkpoints = Checkpoints::start(conn, &path, condition.clone()).unwrap();
        let mut most = 0;
        writer.pragma_update(None, "synchronous", "off").unwrap();
        for _ in 0..12_000 {
            add(&writer, 1);
            checkpoints.wake();
            checkpoints.restart_wal(&writer).unwrap();
            let wal = std::fs::metadata(beside(&path, "-wal")).unwrap().len();
            most = most.max(wal);
        }
        checkpoints.end();
        assert!(most < 64 << 20, "{most} bytes");
        assert_eq!(count(&writer), 12_000);
        assert!(!condition.has_failed());
    }

    #[test]
    fn an_empty_wal_is_left_alone() {
        let (_dir, path, conn) = database();
        assert!(pool::checkpoint_and_close(conn).unwrap());
        let conn = pool::open_writer(&path, Synchronous::Full).unwrap();
        rewrite_wal(&conn, &path).unwrap();
        assert_eq!(count(&conn), 0);
    }
}
