//! The writer thread. Many writes share one commit, and so one wait for the disk.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use rusqlite::Connection;

use super::changes::LicenseChanges;
use super::checkpoint::{self, Checkpoints};
use super::disk::{Condition, DiskWrite};
use super::failure_log::FailureLog;
use super::generation::Generation;
use super::location::DatabaseFiles;
use super::queue::{Done, First, Job, Message, ReadJob, Writer, run, run_reads};
use super::reader::{Reader, Tx};
use super::{lock, pool};
use crate::clock::{Clock, SystemClock, turns};
use crate::error::{Doing, Error, Result};

/// Writes that may share one commit.
const BATCH_LEN: usize = 256;
/// How often the idle thread checks for changes by other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Between two attempts to open a database that could not be opened for writing.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// The database as the thread gets it.
pub(super) enum Opened {
    /// Open for writing.
    Ready(Ready),
    /// Read-only for now.
    Waiting(Waiting),
}

/// A database that is open for writing.
pub(super) struct Ready {
    pub(super) conn: Connection,
    /// `None` in a command, which checkpoints only when it ends.
    pub(super) checkpoints: Option<Checkpoints>,
}

/// A database that cannot be opened for writing yet.
pub(super) struct Waiting {
    /// A read-only connection; opened by the first read.
    pub(super) conn: Option<Connection>,
    /// Tries again. This process must have no read-only connection meanwhile: the connections would share its
    /// index of the WAL.
    pub(super) open: Box<dyn FnMut() -> Result<Ready> + Send>,
    /// Why it could not be opened.
    pub(super) reason: String,
}

/// What the thread uses besides its connection.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) location: Arc<DatabaseFiles>,
    pub(super) generation: Arc<Generation>,
    pub(super) condition: Arc<Condition>,
    pub(super) changes: Arc<LicenseChanges>,
}

impl Context {
    pub(super) fn of(location: Arc<DatabaseFiles>) -> Self {
        Self {
            location,
            generation: Arc::default(),
            condition: Arc::default(),
            changes: Arc::default(),
        }
    }
}

/// Signals that the thread has ended.
#[derive(Debug)]
pub(super) struct Thread {
    end: Receiver<()>,
}

impl Thread {
    /// Whether the thread ends within `patience`.
    pub(super) fn ended_within(&self, patience: Duration) -> bool {
        turns(patience).any(|turn| match self.end.recv_timeout(turn) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                log::error!("the writer thread panicked");
                true
            }
        })
    }
}

/// Starts the thread and returns the sending end of its queue.
pub(super) fn start(opened: Opened, context: Context) -> Result<(Writer, Thread)> {
    let (writer, messages) = Writer::new();
    let (ended, end) = sync_channel(1);
    std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || {
            // The connection is closed before the signal, so the database may be opened again after it. A
            // process that ends without waiting is no failure.
            serve(opened, &context, &messages);
            ended.send(()).unwrap_or_default();
        })
        .doing("start the writer thread")?;
    Ok((writer, Thread { end }))
}

fn serve(opened: Opened, context: &Context, messages: &Receiver<Message>) {
    let mut first = None;
    let mut failure_log = FailureLog::default();
    let ready = match opened {
        Opened::Ready(ready) => ready,
        Opened::Waiting(waiting) => {
            match waiting.serve(context, messages, &mut first, &mut failure_log) {
                Some(ready) => ready,
                None => return,
            }
        }
    };
    let writer = WriterLoop {
        conn: ready.conn,
        checkpoints: ready.checkpoints,
        location: context.location.clone(),
        generation: context.generation.clone(),
        condition: context.condition.clone(),
        changes: context.changes.clone(),
        version: Cell::new(0),
        wal_rewritten: Cell::new(false),
        first: RefCell::new(first),
        failure_log: RefCell::new(failure_log),
        clock: SystemClock::default(),
    };
    writer.serve(messages);
    writer.finish();
}

impl Waiting {
    /// Runs reads, and refuses writes, until the database can be opened for writing. `None` if the thread is to
    /// end before.
    fn serve(
        mut self,
        context: &Context,
        messages: &Receiver<Message>,
        first: &mut Option<First>,
        failure_log: &mut FailureLog,
    ) -> Option<Ready> {
        let clock = SystemClock::default();
        let mut tried = clock.tick();
        failure_log.report(Some(&self.reason), tried);
        loop {
            match messages.recv_timeout(POLL_INTERVAL) {
                Ok(Message::Write(job)) => drop(job(Err(&self.reason))),
                Ok(Message::First(work)) => *first = Some(work),
                Ok(Message::Read(read)) => self.run_read(context, read),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if clock.tick().since(tried) < REOPEN_INTERVAL {
                continue;
            }
            tried = clock.tick();
            self.conn = None;
            match (self.open)() {
                Ok(ready) => {
                    // Another process may have changed it meanwhile.
                    context.generation.next();
                    return Some(ready);
                }
                Err(error) => self.reason = format!("the database cannot be written: {error}"),
            }
        }
    }
}

impl Waiting {
    fn run_read(&mut self, context: &Context, read: ReadJob) {
        if self.conn.is_none() {
            match pool::open_read_only(context.location.path()) {
                Ok(conn) => self.conn = Some(conn),
                Err(error) => return read(Err(&error.to_string())),
            }
        }
        if let Some(conn) = &self.conn {
            run_reads(conn, &context.generation, vec![read], || {});
        }
    }
}

/// Answers every job of `batch` that it was not done.
fn refuse(batch: Vec<Job>, reason: &str) {
    for job in batch {
        job(Err(reason));
    }
}

struct WriterLoop {
    conn: Connection,
    checkpoints: Option<Checkpoints>,
    generation: Arc<Generation>,
    location: Arc<DatabaseFiles>,
    condition: Arc<Condition>,
    changes: Arc<LicenseChanges>,
    /// SQLite's `data_version`: it changes when another connection has committed.
    version: Cell<i64>,
    /// Whether the WAL of an earlier process has been written to the disk again; see [`checkpoint::rewrite_wal`].
    wal_rewritten: Cell<bool>,
    first: RefCell<Option<First>>,
    failure_log: RefCell<FailureLog>,
    clock: SystemClock,
}

impl WriterLoop {
    fn serve(&self, messages: &Receiver<Message>) {
        self.check_data_version();
        let mut open = true;
        while open {
            match messages.recv_timeout(POLL_INTERVAL) {
                Ok(first) => {
                    let (mut writes, mut reads) = (Vec::new(), Vec::new());
                    let others = messages.try_iter().take(BATCH_LEN - 1);
                    for message in std::iter::once(first).chain(others) {
                        match message {
                            Message::Write(job) => writes.push(job),
                            Message::First(work) => drop(self.first.replace(Some(work))),
                            Message::Read(read) => reads.push(read),
                            Message::Stop => open = false,
                        }
                    }
                    self.run_reads(reads);
                    self.run_batch(writes);
                    self.checkpoint();
                }
                Err(RecvTimeoutError::Disconnected) => open = false,
                Err(RecvTimeoutError::Timeout) => {
                    self.check_data_version();
                    if let Err(reason) = self.location.check() {
                        self.report(Some(&reason));
                    }
                }
            }
        }
        for message in messages.try_iter() {
            match message {
                Message::Write(job) => drop(job(Err("the server is stopping"))),
                Message::Read(read) => read(Err("the server is stopping")),
                Message::First(_) | Message::Stop => {}
            }
        }
    }

    /// Makes the last checkpoint, unless the disk has failed.
    fn finish(mut self) {
        let is_wanted = if let Some(checkpoints) = self.checkpoints.take() {
            checkpoints.end();
            Ok(true)
        } else {
            self.is_checkpoint_of_command_wanted()
        };
        if self.condition.has_failed() {
            return;
        }
        let prepared = is_wanted.and_then(|is_wanted| {
            if is_wanted && !self.wal_rewritten.get() {
                checkpoint::rewrite_wal(&self.conn, self.location.path())?;
            }
            Ok(is_wanted)
        });
        match prepared {
            Ok(true) => self.checkpoint_and_close(),
            Ok(false) => {}
            Err(error) => {
                log::warn!("the last checkpoint was not made, the next start makes it: {error}");
            }
        }
    }

    /// Whether a command makes a last checkpoint: only if no server runs, and there is something to copy.
    fn is_checkpoint_of_command_wanted(&self) -> Result<bool> {
        let path = self.location.path();
        Ok(checkpoint::wal_has_content(path)? && !lock::is_taken(path)?)
    }

    fn checkpoint_and_close(self) {
        match pool::checkpoint_and_close(self.conn) {
            Ok(true) => {}
            Ok(false) => log::info!("another process reads the database: its WAL stays beside it"),
            Err(error) => {
                let path = self.location.path();
                self.condition
                    .note_io_error(DiskWrite::Checkpoint, &error, path);
                log::warn!("the last checkpoint failed, the next start repeats it: {error}");
            }
        }
    }

    fn checkpoint(&self) {
        let Some(checkpoints) = &self.checkpoints else {
            return;
        };
        if !self.wal_rewritten.get() || self.condition.has_failed() {
            return;
        }
        checkpoints.wake();
        if let Err(error) = checkpoints.restart_wal(&self.conn) {
            let path = self.location.path();
            self.condition
                .note_io_error(DiskWrite::Checkpoint, &error, path);
        }
    }

    /// Begins a new generation if another process, such as a command, has changed the database.
    fn check_data_version(&self) {
        let seen = self.conn.prepare_cached("pragma data_version");
        match seen.and_then(|mut pragma| pragma.query_row([], |row| row.get(0))) {
            Ok(version) => {
                if self.version.replace(version) != version {
                    self.generation.next();
                }
            }
            Err(error) => {
                let reason = self.failure("the data version of the database cannot be read", error);
                log::debug!("{reason}");
            }
        }
    }

    fn run_reads(&self, batch: Vec<ReadJob>) {
        run_reads(&self.conn, &self.generation, batch, || {
            self.check_data_version();
        });
    }

    /// The reason for a failure, for callers and the log. Damage is noted here: the text does not say of which kind
    /// the error was.
    fn failure(&self, what: &str, error: impl Into<Error>) -> String {
        match error.into() {
            Error::Unavailable { reason } => format!("{what}: {reason}"),
            Error::Damaged { found } => {
                // After a failed sync the pages may be sound: the next start reads them again.
                if !self.condition.has_failed() {
                    self.condition.note_damage(&found);
                }
                format!("{what}: {found}")
            }
            error => format!("{what}: {error}"),
        }
    }

    /// Before the first transaction, the WAL of an earlier process is written again: nothing may be appended to
    /// frames that may not be on the disk.
    fn ensure_wal_rewritten(&self) -> Result<(), String> {
        if self.condition.has_failed() {
            return Err("the disk has failed, the server is stopping".to_owned());
        }
        if self.wal_rewritten.get() || self.checkpoints.is_none() {
            return Ok(());
        }
        checkpoint::rewrite_wal(&self.conn, self.location.path())
            .map_err(|error| self.failure("the database cannot be written", error))?;
        self.wal_rewritten.set(true);
        Ok(())
    }

    /// Begins a transaction and runs [`First`] in it, if that is still due. Returns whether `First` invalidated
    /// the caches.
    fn begin(&self) -> Result<bool, String> {
        self.ensure_wal_rewritten()?;
        self.location.check()?;
        let no = |error: Error| self.failure("the database cannot be written", error);
        self.run("begin immediate")
            .map_err(|error| no(error.into()))?;
        self.check_data_version();
        let first = self.first.borrow();
        let Some(work) = first.as_ref() else {
            return Ok(false);
        };
        let tx = Tx::new(Reader {
            conn: &self.conn,
            generation: &self.generation,
        });
        match work(&tx) {
            Ok(()) => Ok(tx.invalidates.get()),
            Err(error) => {
                self.roll_back();
                Err(no(error))
            }
        }
    }

    fn roll_back(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.run("rollback")
        {
            let reason = self.failure("the rollback failed too", error);
            log::error!("{reason}");
        }
    }

    fn commit(&self) -> Result<(), String> {
        self.run("commit").map_err(|error| {
            self.condition
                .note_io_error(DiskWrite::Commit, &error, self.location.path());
            self.failure("the commit failed", error)
        })
    }

    /// Runs all jobs of `batch` in one transaction, and answers after its commit.
    fn run_batch(&self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let invalidates = match self.begin() {
            Ok(invalidates) => invalidates,
            Err(reason) => {
                // A command that keeps the database locked may have changed what is kept in memory.
                self.check_data_version();
                self.report(Some(&reason));
                return refuse(batch, &reason);
            }
        };
        let (done, ran) = self.run_jobs(batch);
        let commit = ran.and_then(|()| self.commit());
        // Changes written to a file that was moved or replaced may be lost: they are not acknowledged.
        let commit = commit.and_then(|()| self.location.check());
        if let Err(reason) = &commit {
            self.report(Some(reason));
            self.roll_back();
        } else {
            self.report(None);
            self.condition.note_success(DiskWrite::Commit);
            drop(self.first.take());
        }
        // Even if the commit failed, since it may have reached the disk (`First` is repeated then); and before any hook or
        // answer, so that no response from memory is older than another response.
        if invalidates && commit.is_ok() || done.iter().any(|job| job.invalidates) {
            self.generation.next();
        }
        let changed = done.iter().flat_map(|job| &job.changed);
        changed.for_each(|license| self.changes.note(*license));
        for job in done {
            if commit.is_ok() {
                job.after.into_iter().for_each(|hook| hook());
            }
            (job.answer)(commit.as_ref().map(|&()| ()).map_err(String::as_str));
        }
    }

    /// Runs jobs one after another. Returns those whose changes are kept, and whether the transaction still exists; if
    /// not, the jobs that come after are refused.
    fn run_jobs(&self, batch: Vec<Job>) -> (Vec<Done>, Result<(), String>) {
        let mut done = Vec::with_capacity(batch.len());
        let mut ran: Result<(), String> = Ok(());
        for job in batch {
            if let Err(reason) = &ran {
                job(Err(reason));
                continue;
            }
            match self.run_one(job) {
                Ok(kept) => done.extend(kept),
                Err(reason) => ran = Err(reason),
            }
        }
        (done, ran)
    }

    /// Runs one job so that its failure or panic undoes nothing else.
    ///
    /// `Err` means that the whole transaction is gone: SQLite rolls it back by itself when the disk is full or
    /// broken. Then no job of the batch may be acknowledged.
    fn run_one(&self, job: Job) -> Result<Option<Done>, String> {
        let lost = |error: rusqlite::Error| self.failure("the transaction was lost", error);
        if let Err(error) = self.run("savepoint job") {
            let reason = lost(error);
            drop(job(Err(&reason)));
            return Err(reason);
        }
        let tx = Tx::new(Reader {
            conn: &self.conn,
            generation: &self.generation,
        });
        let done = catch_unwind(AssertUnwindSafe(|| job(Ok(&tx)))).unwrap_or(None);
        let ended = if self.conn.is_autocommit() {
            Err("the transaction was lost: the disk may be full".to_owned())
        } else if done.as_ref().is_some_and(|done| done.keep) {
            self.run("release job").map_err(lost)
        } else {
            let undone = self
                .run("rollback to job")
                .and_then(|()| self.run("release job"));
            undone.map_err(lost)
        };
        match (ended, done) {
            (Ok(()), done) => Ok(done),
            (Err(reason), done) => {
                if let Some(done) = done {
                    (done.answer)(Err(&reason));
                }
                Err(reason)
            }
        }
    }

    fn report(&self, failure: Option<&str>) {
        self.failure_log
            .borrow_mut()
            .report(failure, self.clock.tick());
    }

    fn run(&self, sql: &'static str) -> rusqlite::Result<()> {
        run(&self.conn, sql)
    }
}
