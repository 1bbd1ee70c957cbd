//! Copies the WAL into the database file, off the writer's path, and looks at every answer.
//!
//! SQLite's own checkpoints are switched off: they throw their errors away. While somebody reads, a checkpoint
//! copies a part of the WAL, does not sync it, and counts it as done. When the sync of the next whole checkpoint
//! fails, the kernel has dropped the pages and says so once; another checkpoint would succeed, the WAL would
//! begin anew, and the only good copy would be gone. So the first failure is the last thing that this process
//! does with the file, and the next one begins with [`distrust`].

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

use super::disk::{Condition, QUIET};
use super::lock::beside;
use crate::clock::{AtMost, Clock, SystemClock, Tick};
use crate::error::{Doing, Error, Result};

/// Frames of the WAL that may wait to be copied.
const WAITING_MAX: i64 = 2000;
/// With fewer than these waiting, the writer may copy the rest and have the WAL begin anew.
const REST_MAX: i64 = 500;
/// Frames of the WAL from which on it should begin anew: 16 MiB, of 64 that it may have.
const RESTART_AT: i64 = 4096;
/// Frames from which on the writer does not wait for the thread, which may be starved by the writes themselves.
const LONG: i64 = 8192;
/// Checkpoints one after another that run after a busy writer.
const TURNS: u32 = 4;
/// Between two wake-ups: the writer commits far more often.
const WAKE: Duration = Duration::from_millis(20);
/// How long the writer waits for readers of the WAL, and when it tries again if that was too short.
const READERS: Duration = Duration::from_millis(50);
const RESTART_AGAIN: Duration = Duration::from_millis(500);
/// After a checkpoint that found no room.
const ROOM_AGAIN: Duration = Duration::from_secs(1);
/// How much of the WAL is written again at once.
const CHUNK: usize = 1 << 20;
/// SQLite's `WalIndexHdr`, twice: <https://sqlite.org/walformat.html#the_wal_index_file_format>.
const INDEX_HEAD: [u8; 96] = [0; 96];

/// What a checkpoint found, in frames of the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wal {
    frames: i64,
    copied: i64,
}

impl Wal {
    fn waiting(self) -> i64 {
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

/// The thread that copies, as the writer knows it.
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    interrupt: InterruptHandle,
    clock: SystemClock,
    woken: Cell<Tick>,
    /// Whether the writer is asked to have the WAL begin anew.
    restart: Arc<AtomicBool>,
    /// Held during a checkpoint, by whichever thread.
    turns: Arc<Mutex<()>>,
    not_before: Cell<Tick>,
    /// When the writer looked last how long the WAL is.
    measured: Cell<Tick>,
}

impl Checkpoints {
    /// Starts the thread. `conn` is its own.
    pub(super) fn start(conn: Connection, path: &Path, condition: Arc<Condition>) -> Result<Self> {
        // Kept for life: closing it would take away the locks that SQLite holds on this file, in this process.
        let file = File::open(path).doing("open the database file")?;
        let copier = Copier {
            file: Box::leak(Box::new(file)),
            path: path.to_owned(),
            condition,
            restart: Arc::default(),
            turns: Arc::default(),
            full: AtMost::once_in(QUIET),
            conn,
        };
        let (interrupt, restart) = (copier.conn.get_interrupt_handle(), copier.restart.clone());
        let turns = copier.turns.clone();
        let (wake, wakes) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || copier.serve(&wakes))
            .doing("start the checkpoint thread")?;
        Ok(Self {
            wake,
            thread,
            interrupt,
            clock: SystemClock::default(),
            woken: Cell::default(),
            restart,
            turns,
            not_before: Cell::default(),
            measured: Cell::default(),
        })
    }

    /// Something was committed: it looks whether enough is waiting.
    pub(super) fn wake(&self) {
        let now = self.clock.tick();
        if now.since(self.woken.get()) >= WAKE {
            self.woken.set(now);
            if let Err(TrySendError::Disconnected(())) = self.wake.try_send(()) {
                log::debug!("the checkpoint thread has ended");
            }
        }
    }

    /// Copies what little is left and has the WAL begin anew, where that is due: no commit comes between, so
    /// that the thread cannot run after the writer for ever. By the writer, on its own connection.
    pub(super) fn restart_wal(&self, writer: &Connection) -> rusqlite::Result<()> {
        let now = self.clock.tick();
        if now < self.not_before.get() {
            return Ok(());
        }
        let long = self.is_long(writer, now)?;
        if !long && !self.restart.load(Ordering::SeqCst) {
            return Ok(());
        }
        // Two checkpoints at once are one too many. Where the WAL is long, the writes wait for the thread's.
        let alone = match self.turns.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) if long => {
                self.turns.lock().unwrap_or_else(PoisonError::into_inner)
            }
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        self.restart.store(false, Ordering::SeqCst);
        writer.busy_timeout(READERS)?;
        let whole = checkpoint(writer, "pragma wal_checkpoint(restart)");
        writer.busy_timeout(super::pool::BUSY)?;
        if whole?.is_none() {
            self.not_before.set(Tick(now.0 + RESTART_AGAIN));
        }
        drop(alone);
        Ok(())
    }

    /// Whether the WAL is longer than the thread lets it become; looked at now and then.
    fn is_long(&self, writer: &Connection, now: Tick) -> rusqlite::Result<bool> {
        if now.since(self.measured.get()) < WAKE {
            return Ok(false);
        }
        self.measured.set(now);
        let wal = checkpoint(writer, "pragma wal_checkpoint(noop)")?;
        Ok(wal.is_some_and(|wal| wal.frames >= LONG))
    }

    /// Ends the thread; what it has not copied stays in the WAL.
    pub(super) fn end(self) {
        drop(self.wake);
        self.interrupt.interrupt();
        if self.thread.join().is_err() {
            log::error!("the checkpoint thread broke off");
        }
    }
}

struct Copier {
    conn: Connection,
    /// The database file, to sync what a checkpoint has copied and not synced.
    file: &'static File,
    path: PathBuf,
    condition: Arc<Condition>,
    restart: Arc<AtomicBool>,
    turns: Arc<Mutex<()>>,
    full: AtMost,
}

impl Copier {
    fn serve(&self, wakes: &Receiver<()>) {
        while wakes.recv().is_ok() && !self.condition.has_failed() {
            let Err(error) = self.turn() else { continue };
            self.condition
                .judge("copy the WAL into the database", &error, &self.path);
            match error.sqlite_error_code() {
                _ if self.condition.has_failed() => {}
                Some(ErrorCode::OperationInterrupted) => return,
                _ if self.full.is_due() => {
                    log::warn!("the WAL cannot be copied into the database now, it grows: {error}");
                }
                _ => {}
            }
            if wakes.recv_timeout(ROOM_AGAIN) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Copies what is waiting, if that is enough.
    fn turn(&self) -> rusqlite::Result<()> {
        let _alone = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut wal) = checkpoint(&self.conn, "pragma wal_checkpoint(noop)")? else {
            return Ok(());
        };
        let due = wal.waiting() >= WAITING_MAX || wal.frames >= RESTART_AT;
        for _ in 0..TURNS {
            if !due || wal.waiting() < REST_MAX {
                break;
            }
            let before = wal;
            match checkpoint(&self.conn, "pragma wal_checkpoint(passive)")? {
                Some(after) => wal = after,
                None => return Ok(()),
            }
            // SQLite syncs a whole checkpoint only. What it copied now must not wait for the writer to do that.
            if wal.waiting() > 0 && wal.copied > before.copied {
                self.sync()?;
            }
            if wal.copied <= before.copied {
                break;
            }
        }
        if wal.frames >= RESTART_AT && wal.waiting() < REST_MAX {
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

/// Whether the WAL of the database at `path` has anything in it.
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn is_left(path: &Path) -> Result<bool> {
    match std::fs::metadata(beside(path, "-wal")) {
        Ok(wal) => Ok(wal.len() > 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing("look at the WAL"),
    }
}

/// Forgets what an earlier process believed of the disk: what it had written to the WAL is written once more, and
/// what it had copied out of it counts as not copied. Before the first transaction of a process that checkpoints.
///
/// A page may be in the kernel's memory and not on the disk, if its sync failed: written once more, it reaches the
/// disk with the next sync, or that fails. What counts as copied stands in the WAL's index, which outlives a
/// process as long as any other one has the database open (a command, Litestream).
///
/// # Errors
/// [`Error::Unavailable`] while another process writes, or while nothing can be written.
pub(super) fn distrust(conn: &Connection, path: &Path) -> Result<()> {
    if !is_left(path)? {
        return Ok(());
    }
    // Nobody commits meanwhile.
    conn.execute_batch("begin immediate")?;
    let done = rewrite(&beside(path, "-wal")).and_then(|()| drop_index(&beside(path, "-shm")));
    conn.execute_batch("commit")?;
    done.map_err(|error| Error::Unavailable {
        reason: format!("the WAL cannot be written: {error}"),
    })
}

/// Writes a file over itself, and waits for the disk. Readers see the same bytes all the time.
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

/// Makes the head of the WAL's index invalid: whoever looks at it next makes the index anew, from the WAL, under
/// SQLite's own locks.
fn drop_index(shm: &Path) -> std::io::Result<()> {
    let file = match OpenOptions::new().write(true).open(shm) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // Kept for life, as in `Checkpoints::start`.
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
        let conn = pool::open_alone(&path).unwrap();
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
    fn what_an_earlier_process_counted_as_copied_is_copied_again_though_somebody_reads() {
        let (_dir, path, conn) = database();
        add(&conn, 20);
        let reader = pool::open_to_look(&path).unwrap();
        reader.execute_batch("begin").unwrap();
        assert_eq!(count(&reader), 20);
        add(&conn, 5);
        let wal = checkpoint(&conn, "pragma wal_checkpoint(passive)").unwrap();
        let copied = wal.unwrap().copied;
        assert!(copied > 0 && copied < noop(&conn).frames, "{wal:?}");
        let next = pool::open_writer(&path, Synchronous::Full).unwrap();
        distrust(&next, &path).unwrap();
        assert_eq!(count(&next), 25, "the index is made anew");
        assert_eq!(noop(&next).copied, 0);
        assert_eq!(count(&reader), 20, "whoever reads goes on");
        add(&next, 1);
        reader.execute_batch("commit").unwrap();
        assert_eq!(count(&reader), 26);
        let wal = checkpoint(&next, "pragma wal_checkpoint(restart)").unwrap();
        let wal = wal.unwrap();
        assert_eq!(wal.copied, wal.frames);
        drop((reader, next, conn));
        let sound: String = pool::open_to_look(&path)
            .unwrap()
            .query_row("pragma integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sound, "ok");
    }

    #[test]
    fn the_wal_stays_small_while_the_writer_never_rests() {
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
    fn nothing_of_an_empty_wal_is_touched() {
        let (_dir, path, conn) = database();
        assert!(pool::fold(conn).unwrap());
        let conn = pool::open_writer(&path, Synchronous::Full).unwrap();
        distrust(&conn, &path).unwrap();
        assert_eq!(count(&conn), 0);
    }
}
