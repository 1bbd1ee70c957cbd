//! The one thread that writes. Many writes share one commit, and so one wait for the disk.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::epoch::Epoch;
use super::place::Place;
use super::{Hook, Reader, Tx};
use crate::error::{Doing, Error, Result};

/// Deeds and looks waiting for the thread; beyond it callers are told to come back.
const QUEUE_LEN: usize = 4096;
/// Writes that may share one commit.
const BATCH_LEN: usize = 256;
/// How often the thread looks for changes by other processes when it has nothing else to do.
const LOOK_OUTSIDE: Duration = Duration::from_millis(250);

/// Told whether the commit went through; answers the caller.
type Answer = Box<dyn FnOnce(Result<(), &str>) + Send>;

/// A deed that was done inside the transaction, and what follows when it is kept.
struct Done {
    keep: bool,
    announced: bool,
    after: Vec<Hook>,
    answer: Answer,
}

/// One write: does the work in a transaction, or tells its caller why there is none.
type Deed = Box<dyn FnOnce(Result<&Tx<'_>, &str>) -> Option<Done> + Send>;

/// One look at what is committed, or why there is none.
type Look = Box<dyn FnOnce(Result<&Reader<'_>, &str>) + Send>;

enum Message {
    Do(Deed),
    Look(Look),
    Stop,
}

/// The queue before the thread; cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    queue: SyncSender<Message>,
}

/// The end of the thread, to wait for.
#[derive(Debug)]
pub(super) struct Thread {
    end: Receiver<()>,
}

impl Thread {
    /// Whether the thread ends within `patience`.
    pub(super) fn ended_within(&self, patience: Duration) -> bool {
        match self.end.recv_timeout(patience) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                log::error!("the writer thread broke off");
                true
            }
        }
    }
}

impl Writer {
    pub(super) fn start(
        conn: Connection,
        epoch: Arc<Epoch>,
        place: Arc<Place>,
    ) -> Result<(Self, Thread)> {
        let (queue, messages) = sync_channel(QUEUE_LEN);
        let desk = Desk {
            conn,
            epoch,
            place,
            version: Cell::new(0),
            failing: Cell::new(false),
        };
        let (ended, end) = sync_channel(1);
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                desk.serve(&messages);
                // The connection first: whoever hears of the end may open the file.
                drop(desk);
                if ended.send(()).is_err() {
                    log::debug!("nobody waits for the end of the writer thread");
                }
            })
            .doing("start the writer thread")?;
        Ok((Self { queue }, Thread { end }))
    }

    /// Queues `work`; the receiver hears once its commit is on the disk.
    pub(super) fn queue<T, F>(&self, work: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let deed: Deed = Box::new(move |begun| {
            // A caller who went away is no failure: the write stands either way.
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
                // A refusal too rests on what its neighbours in the transaction had done.
                drop(send.send(commit.map_err(unavailable).and(result)));
            });
            let after = if keep { tx.after.take() } else { Vec::new() };
            Some(Done {
                keep,
                announced: keep && tx.announced.get(),
                after,
                answer,
            })
        });
        self.send(Message::Do(deed))?;
        Ok(receive)
    }

    /// Queues a look; the receiver hears what `work` makes of it.
    pub(super) fn queue_look<T, F>(&self, work: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let look: Look = Box::new(move |begun| {
            // A caller who went away is no failure.
            drop(send.send(begun.map_err(unavailable).and_then(work)));
        });
        self.send(Message::Look(look))?;
        Ok(receive)
    }

    fn send(&self, message: Message) -> Result<()> {
        self.queue.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => unavailable("the write queue is full"),
            TrySendError::Disconnected(_) => unavailable("the server is stopping"),
        })
    }

    /// Lets the thread finish what is queued, then end.
    pub(super) fn stop(&self) {
        // A thread that has already ended needs no telling.
        drop(self.queue.send(Message::Stop));
    }
}

/// What a caller hears whose deed was queued and never answered.
pub(super) fn unheard() -> Error {
    Error::Internal {
        doing: "write",
        source: "the deed broke off".into(),
    }
}

fn unavailable(reason: &str) -> Error {
    Error::Unavailable {
        reason: reason.to_owned(),
    }
}

struct Desk {
    conn: Connection,
    epoch: Arc<Epoch>,
    place: Arc<Place>,
    /// SQLite's `data_version`: it changes when another connection has committed.
    version: Cell<i64>,
    /// Whether the last transaction failed.
    failing: Cell<bool>,
}

impl Desk {
    fn serve(&self, messages: &Receiver<Message>) {
        self.look_outside();
        let mut open = true;
        while open {
            match messages.recv_timeout(LOOK_OUTSIDE) {
                Ok(first) => {
                    let (mut deeds, mut looks) = (Vec::new(), Vec::new());
                    let others = messages.try_iter().take(BATCH_LEN - 1);
                    for message in std::iter::once(first).chain(others) {
                        match message {
                            Message::Do(deed) => deeds.push(deed),
                            Message::Look(look) => looks.push(look),
                            Message::Stop => open = false,
                        }
                    }
                    self.look(looks);
                    self.together(deeds);
                }
                Err(RecvTimeoutError::Disconnected) => open = false,
                Err(RecvTimeoutError::Timeout) => {
                    self.look_outside();
                    if let Err(reason) = self.place.check() {
                        self.tell(Some(&reason));
                    }
                }
            }
        }
        for message in messages.try_iter() {
            match message {
                Message::Do(deed) => drop(deed(Err("the server is stopping"))),
                Message::Look(look) => look(Err("the server is stopping")),
                Message::Stop => {}
            }
        }
        let checkpoint = self
            .conn
            .query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0));
        match checkpoint {
            Ok(0) => {}
            Ok(1_i64..) => log::info!("somebody else reads the database: its WAL stays beside it"),
            Ok(other) => log::warn!("the last checkpoint answered {other}"),
            Err(error) => log::warn!("the last checkpoint failed, the next start does it: {error}"),
        }
    }

    /// Notices that another process, a command, has changed the file.
    fn look_outside(&self) {
        let seen = self.conn.prepare_cached("pragma data_version");
        match seen.and_then(|mut pragma| pragma.query_row([], |row| row.get(0))) {
            Ok(version) => {
                if self.version.replace(version) != version {
                    self.epoch.next();
                }
            }
            Err(error) => log::warn!("the database does not tell its version: {error}"),
        }
    }

    /// Lets every look see the file as it is between two transactions. It takes no lock and writes nothing,
    /// so that it works on a full disk too.
    fn look(&self, looks: Vec<Look>) {
        if looks.is_empty() {
            return;
        }
        let begun = self.run("begin");
        // The first look of all: it fixes the moment that the others see, and its epoch.
        self.look_outside();
        let begun = begun.map_err(|error| format!("the database cannot be read: {error}"));
        let reader = Reader {
            conn: &self.conn,
            epoch: &self.epoch,
        };
        for look in looks {
            let seen = begun.as_ref().map(|()| &reader).map_err(String::as_str);
            if catch_unwind(AssertUnwindSafe(|| look(seen))).is_err() {
                log::error!("a look broke off");
            }
        }
        if begun.is_ok()
            && let Err(error) = self.run("commit")
        {
            log::warn!("the end of a look failed: {error}");
        }
    }

    /// Does every deed of `batch` in one transaction, and answers after its commit.
    fn together(&self, batch: Vec<Deed>) {
        if batch.is_empty() {
            return;
        }
        let begun = self.place.check().and_then(|()| {
            let begun = self.run("begin immediate");
            begun.map_err(|error| format!("the database takes no write: {error}"))
        });
        if let Err(reason) = begun {
            self.tell(Some(&reason));
            for deed in batch {
                deed(Err(&reason));
            }
            return;
        }
        self.look_outside();
        let mut done = Vec::with_capacity(batch.len());
        let mut broken: Option<String> = None;
        for deed in batch {
            if let Some(reason) = &broken {
                deed(Err(reason));
                continue;
            }
            match self.one(deed) {
                Ok(kept) => done.extend(kept),
                Err(reason) => broken = Some(reason),
            }
        }
        let commit = match broken {
            Some(reason) => Err(reason),
            None => self
                .run("commit")
                .map_err(|error| format!("the commit failed: {error}")),
        };
        // What went into a file that is not in its place may be lost: nobody hears yes.
        let commit = commit.and_then(|()| self.place.check());
        if let Err(reason) = &commit {
            self.tell(Some(reason));
            if !self.conn.is_autocommit()
                && let Err(error) = self.run("rollback")
            {
                log::error!("the rollback failed too: {error}");
            }
        }
        if commit.is_ok() {
            self.tell(None);
        }
        if commit.is_ok() && done.iter().any(|deed| deed.announced) {
            self.epoch.next();
        }
        for deed in done {
            if commit.is_ok() {
                deed.after.into_iter().for_each(|hook| hook());
            }
            (deed.answer)(commit.as_ref().map(|&()| ()).map_err(String::as_str));
        }
    }

    /// Runs one deed so that its failure, or its panic, undoes nothing but itself.
    ///
    /// The error says that the whole transaction is gone: SQLite rolls it back by itself when the disk
    /// is full or broken, and then nobody in the batch may hear yes.
    fn one(&self, deed: Deed) -> Result<Option<Done>, String> {
        let lost = |error: rusqlite::Error| format!("the transaction was lost: {error}");
        if let Err(error) = self.run("savepoint deed") {
            let reason = lost(error);
            drop(deed(Err(&reason)));
            return Err(reason);
        }
        let tx = Tx::new(Reader {
            conn: &self.conn,
            epoch: &self.epoch,
        });
        let done = catch_unwind(AssertUnwindSafe(|| deed(Ok(&tx)))).unwrap_or(None);
        let ended = if self.conn.is_autocommit() {
            Err("the transaction was lost: the disk may be full".to_owned())
        } else if done.as_ref().is_some_and(|done| done.keep) {
            self.run("release deed").map_err(lost)
        } else {
            let undone = self
                .run("rollback to deed")
                .and_then(|()| self.run("release deed"));
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

    /// Says once that writes fail, and once that they work again: a line for each would fill a full disk.
    fn tell(&self, failing: Option<&str>) {
        let before = self.failing.replace(failing.is_some());
        match failing {
            Some(reason) if !before => {
                log::warn!("writes are refused until this is mended: {reason}");
            }
            None if before => log::info!("writes are taken again"),
            _ => {}
        }
    }

    fn run(&self, sql: &'static str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }
}
