//! The queue of the writer thread, the jobs in it, and how reads are run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::generation::Generation;
use super::reader::{Hook, Reader, Tx};
use crate::error::{Error, Result};
use crate::id::LicenseId;

/// Queued writes and reads; when the queue is full, callers get [`Error::Unavailable`].
const QUEUE_LEN: usize = 4096;

/// Gets the result of the commit and answers the caller.
pub(super) type Answer = Box<dyn FnOnce(Result<(), &str>) + Send>;

/// A job that ran inside the transaction, and what follows its commit.
pub(super) struct Done {
    pub(super) keep: bool,
    pub(super) invalidates: bool,
    pub(super) changed: Vec<LicenseId>,
    pub(super) after: Vec<Hook>,
    pub(super) answer: Answer,
}

/// One write: runs in the transaction, or tells its caller why there is none.
pub(super) type Job = Box<dyn FnOnce(Result<&Tx<'_>, &str>) -> Option<Done> + Send>;

/// One read of the committed state; gets the reason if the database cannot be read.
pub(super) type ReadJob = Box<dyn FnOnce(Result<&Reader<'_>, &str>) + Send>;

/// What [`super::Db::write_first`] was given.
pub(super) type First = Box<dyn Fn(&Tx<'_>) -> Result<()> + Send>;

/// What is sent to the thread.
pub(super) enum Message {
    Write(Job),
    First(First),
    Read(ReadJob),
    Stop,
}

/// The sending end of the thread's queue; cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    queue: SyncSender<Message>,
}

impl Writer {
    /// An empty queue: its sending and its receiving end.
    pub(super) fn new() -> (Self, Receiver<Message>) {
        let (queue, messages) = sync_channel(QUEUE_LEN);
        (Self { queue }, messages)
    }

    /// Runs `work` at the beginning of the first transaction, and of the next ones until one is committed.
    pub(super) fn queue_first(&self, work: First) -> Result<()> {
        self.send(Message::First(work))
    }

    /// Queues `work`; the receiver gets its result after the commit.
    pub(super) fn queue<T, F>(&self, work: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let job: Job = Box::new(move |begun| {
            // A caller that is gone is no failure: the write is committed all the same.
            let tx = match begun {
                Ok(tx) => tx,
                Err(reason) => {
                    drop(send.send(Err(unavailable(reason))));
                    return None;
                }
            };
            let result = work(tx);
            let keep = result.is_ok();
            let answer: Answer = Box::new(move |commit| {
                // A refusal, too, may depend on uncommitted changes of earlier jobs in the batch; damage does not.
                let result = match result {
                    Err(Error::Damaged { .. }) => result,
                    _ => commit.map_err(unavailable).and(result),
                };
                drop(send.send(result));
            });
            let after = if keep { tx.after.take() } else { Vec::new() };
            Some(Done {
                keep,
                invalidates: keep && tx.invalidates.get(),
                changed: tx.changed.take(),
                after,
                answer,
            })
        });
        self.send(Message::Write(job))?;
        Ok(receive)
    }

    /// Queues a read; the receiver gets the result of `work`.
    pub(super) fn queue_read<T, F>(&self, work: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let (read, receive) = read_job(work);
        self.send(Message::Read(read))?;
        Ok(receive)
    }

    fn send(&self, message: Message) -> Result<()> {
        self.queue.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => unavailable("the write queue is full"),
            TrySendError::Disconnected(_) => unavailable("the server is stopping"),
        })
    }

    /// Makes the thread finish its queue, then end.
    pub(super) fn stop(&self) {
        // The thread may already have ended.
        drop(self.queue.send(Message::Stop));
    }
}

/// A read that tells its result to the receiver.
pub(super) fn read_job<T, F>(work: F) -> (ReadJob, oneshot::Receiver<Result<T>>)
where
    T: Send + 'static,
    F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
{
    let (send, receive) = oneshot::channel();
    let read: ReadJob = Box::new(move |begun| {
        // A caller that is gone is no failure.
        drop(send.send(begun.map_err(unavailable).and_then(work)));
    });
    (read, receive)
}

/// Runs reads in one transaction, `first` after it has begun. It takes no lock and writes nothing, so that it works on a
/// full disk too.
pub(super) fn run_reads(
    conn: &Connection,
    generation: &Generation,
    reads: Vec<ReadJob>,
    first: impl FnOnce(),
) {
    if reads.is_empty() {
        return;
    }
    let begun = run(conn, "begin");
    // The first read of the transaction: it determines the state, and the generation, that the reads see.
    first();
    let begun = begun.map_err(|error| format!("the database cannot be read: {error}"));
    let reader = Reader { conn, generation };
    for read in reads {
        let seen = begun.as_ref().map(|()| &reader).map_err(String::as_str);
        if catch_unwind(AssertUnwindSafe(|| read(seen))).is_err() {
            log::error!("a read panicked");
        }
    }
    if begun.is_ok()
        && let Err(error) = run(conn, "commit")
    {
        log::debug!("the end of a read transaction failed: {error}");
    }
}

/// Runs a statement without parameters and rows.
pub(super) fn run(conn: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

/// The error for a job that was queued and never answered: it panicked.
pub(super) fn no_answer() -> Error {
    Error::Internal {
        doing: "wait for a read or write",
        source: "the operation panicked".into(),
    }
}

/// The error for a job that is not run.
pub(super) fn unavailable(reason: &str) -> Error {
    Error::Unavailable {
        reason: reason.to_owned(),
    }
}
