//! The one thread that writes. Many writes share one commit, and so one wait for the disk.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::checkpoint::{self, Checkpoints};
use super::disk::{Condition, QUIET};
use super::epoch::Generation;
use super::place::DatabaseFiles;
use super::{Hook, Reader, Tx, lock, pool};
use crate::clock::{Clock, SystemClock, Tick};
use crate::error::{Doing, Error, Result};

/// Deeds and looks waiting for the thread; beyond it callers are told to come back.
const QUEUE_LEN: usize = 4096;
/// Writes that may share one commit.
const BATCH_LEN: usize = 256;
/// How often the thread looks for changes by other processes when it has nothing else to do.
const LOOK_OUTSIDE: Duration = Duration::from_millis(250);
/// Between two tries to open a file that could not be opened for writing.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

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
type Job = Box<dyn FnOnce(Result<&Tx<'_>, &str>) -> Option<Done> + Send>;

/// One look at what is committed, or why there is none.
type Look = Box<dyn FnOnce(Result<&Reader<'_>, &str>) + Send>;

/// What must be done in the first transaction of all, before anything else in it.
pub(super) type First = Box<dyn Fn(&Tx<'_>) -> Result<()> + Send>;

enum Message {
    Do(Job),
    First(First),
    Look(Look),
    Stop,
}

/// The file as the thread gets it.
pub(super) enum Opened {
    /// Open for writing.
    Ready(Ready),
    /// Only to be looked at, for now.
    Waiting(Waiting),
}

/// A file that is open for writing.
pub(super) struct Ready {
    pub(super) conn: Connection,
    /// None in a command, which copies the WAL when it ends.
    pub(super) checkpoints: Option<Checkpoints>,
}

/// A file that cannot be opened for writing yet.
pub(super) struct Waiting {
    /// To look at it; opened when somebody looks.
    pub(super) conn: Option<Connection>,
    /// Tries again, while this process has no connection that can only read: they would share its index of the WAL.
    pub(super) open: Box<dyn FnMut() -> Result<Ready> + Send>,
    /// Why it could not be opened.
    pub(super) reason: String,
}

/// What the thread works with beside its connection.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) place: Arc<DatabaseFiles>,
    pub(super) epoch: Arc<Generation>,
    pub(super) condition: Arc<Condition>,
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
    pub(super) fn start(opened: Opened, around: Around) -> Result<(Self, Thread)> {
        let (queue, messages) = sync_channel(QUEUE_LEN);
        let (ended, end) = sync_channel(1);
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                // The connection ends with it, so the database may be opened once the end is heard. A process that
                // ends without waiting is no failure.
                serve(opened, &around, &messages);
                ended.send(()).unwrap_or_default();
            })
            .doing("start the writer thread")?;
        Ok((Self { queue }, Thread { end }))
    }

    /// Has `work` done in the first transaction, before anything else in it; again and again, until it is kept.
    pub(super) fn queue_first(&self, work: First) -> Result<()> {
        self.send(Message::First(work))
    }

    /// Queues `work`; the receiver hears once its commit is on the disk.
    pub(super) fn queue<T, F>(&self, work: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let deed: Job = Box::new(move |begun| {
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

fn serve(opened: Opened, around: &Around, messages: &Receiver<Message>) {
    let mut first = None;
    let mut told = Told::default();
    let ready = match opened {
        Opened::Ready(ready) => ready,
        Opened::Waiting(waiting) => match waiting.serve(around, messages, &mut first, &mut told) {
            Some(ready) => ready,
            None => return,
        },
    };
    let desk = WriterLoop {
        conn: ready.conn,
        checkpoints: ready.checkpoints,
        place: around.place.clone(),
        epoch: around.epoch.clone(),
        condition: around.condition.clone(),
        version: Cell::new(0),
        trusted: Cell::new(false),
        first: RefCell::new(first),
        told: RefCell::new(told),
        clock: SystemClock::default(),
    };
    desk.serve(messages);
    desk.finish();
}

/// Tells that writes fail, and that they work again. It goes into a log that may be on the same full disk, so
/// failures are told once a minute at most, however often they come and go.
#[derive(Debug, Default)]
struct Told {
    /// Whether the last that was told is that writes fail.
    failing: bool,
    at: Option<Tick>,
    /// Times that writes began to fail, and nothing was told.
    untold: u32,
    was_failing: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// They fail; before, they failed so many times without a word.
    Refused(u32),
    Again,
}

impl Told {
    /// What is to be told once a write has failed, or has worked.
    fn note(&mut self, fails: bool, now: Tick) -> Option<Line> {
        let began = fails && !self.was_failing;
        self.was_failing = fails;
        if fails == self.failing {
            return None;
        }
        if !fails {
            self.failing = false;
            return Some(Line::Again);
        }
        if self.at.is_some_and(|at| now.since(at) < QUIET) {
            self.untold += u32::from(began);
            return None;
        }
        self.failing = true;
        self.at = Some(now);
        Some(Line::Refused(std::mem::take(&mut self.untold)))
    }

    fn tell(&mut self, failure: Option<&str>, now: Tick) {
        match (self.note(failure.is_some(), now), failure) {
            (Some(Line::Refused(untold)), Some(reason)) => {
                let before = match untold {
                    0 => String::new(),
                    1 => " (and once more in the last minute)".to_owned(),
                    times => format!(" (and {times} times more in the last minute)"),
                };
                log::warn!("writes are refused until this is mended: {reason}{before}");
            }
            (Some(Line::Again), _) => log::info!("writes are taken again"),
            _ => {}
        }
    }
}

impl Waiting {
    /// Serves looks, and refuses the rest, until the file can be opened for writing. None, if it ends before.
    fn serve(
        mut self,
        around: &Around,
        messages: &Receiver<Message>,
        first: &mut Option<First>,
        told: &mut Told,
    ) -> Option<Ready> {
        let clock = SystemClock::default();
        let mut tried = clock.tick();
        told.tell(Some(&self.reason), tried);
        loop {
            match messages.recv_timeout(LOOK_OUTSIDE) {
                Ok(Message::Do(deed)) => drop(deed(Err(&self.reason))),
                Ok(Message::First(work)) => *first = Some(work),
                Ok(Message::Look(look)) => self.look(around, look),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if clock.tick().since(tried) < OPEN_AGAIN {
                continue;
            }
            tried = clock.tick();
            self.conn = None;
            match (self.open)() {
                Ok(ready) => {
                    // It may have been changed while it could not be seen.
                    around.epoch.next();
                    return Some(ready);
                }
                Err(error) => self.reason = format!("the database takes no write: {error}"),
            }
        }
    }
}

impl Waiting {
    fn look(&mut self, around: &Around, look: Look) {
        if self.conn.is_none() {
            match pool::open_to_look(around.place.path()) {
                Ok(conn) => self.conn = Some(conn),
                Err(error) => return look(Err(&error.to_string())),
            }
        }
        if let Some(conn) = &self.conn {
            looks(conn, &around.epoch, vec![look], || {});
        }
    }
}

/// Lets every look see the file as it is between two transactions. It takes no lock and writes nothing,
/// so that it works on a full disk too.
fn looks(conn: &Connection, epoch: &Generation, looks: Vec<Look>, first: impl FnOnce()) {
    if looks.is_empty() {
        return;
    }
    let begun = run(conn, "begin");
    // The first look of all: it fixes the moment that the others see, and its epoch.
    first();
    let begun = begun.map_err(|error| format!("the database cannot be read: {error}"));
    let reader = Reader { conn, epoch };
    for look in looks {
        let seen = begun.as_ref().map(|()| &reader).map_err(String::as_str);
        if catch_unwind(AssertUnwindSafe(|| look(seen))).is_err() {
            log::error!("a look broke off");
        }
    }
    if begun.is_ok()
        && let Err(error) = run(conn, "commit")
    {
        log::debug!("the end of a look failed: {error}");
    }
}

fn run(conn: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

struct WriterLoop {
    conn: Connection,
    checkpoints: Option<Checkpoints>,
    epoch: Arc<Generation>,
    place: Arc<DatabaseFiles>,
    condition: Arc<Condition>,
    /// SQLite's `data_version`: it changes when another connection has committed.
    version: Cell<i64>,
    /// Whether what the WAL had in it is on the disk.
    trusted: Cell<bool>,
    first: RefCell<Option<First>>,
    told: RefCell<Told>,
    clock: SystemClock,
}

impl WriterLoop {
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
                            Message::First(work) => drop(self.first.replace(Some(work))),
                            Message::Look(look) => looks.push(look),
                            Message::Stop => open = false,
                        }
                    }
                    self.look(looks);
                    self.together(deeds);
                    self.checkpoint();
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
                Message::First(_) | Message::Stop => {}
            }
        }
    }

    /// Copies the WAL into the file, unless the disk has failed, or a server does that.
    fn finish(self) {
        let of_server = self.checkpoints.is_some();
        if let Some(checkpoints) = self.checkpoints {
            checkpoints.end();
        }
        if self.condition.has_failed() {
            return;
        }
        match finished(self.conn, self.place.path(), of_server, self.trusted.get()) {
            Ok(true) => {}
            Ok(false) => log::info!("somebody else reads the database: its WAL stays beside it"),
            Err(Stuck::Disk(error)) => {
                self.condition
                    .judge("copy the WAL into the database", &error, self.place.path());
                log::warn!("the last checkpoint failed, the next start does it: {error}");
            }
            Err(Stuck::Before(error)) => {
                log::warn!("there is no last checkpoint, the next start does it: {error}");
            }
        }
    }

    fn checkpoint(&self) {
        let Some(checkpoints) = &self.checkpoints else {
            return;
        };
        if !self.trusted.get() || self.condition.has_failed() {
            return;
        }
        checkpoints.wake();
        if let Err(error) = checkpoints.restart_wal(&self.conn) {
            self.condition
                .judge("copy the WAL into the database", &error, self.place.path());
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
            Err(error) => match super::disk::meaning(error) {
                Error::Damaged { found } => self.condition.note_damage(&found),
                error => log::debug!("the database does not tell its version: {error}"),
            },
        }
    }

    fn look(&self, batch: Vec<Look>) {
        looks(&self.conn, &self.epoch, batch, || self.look_outside());
    }

    /// Before the first transaction: nothing may follow in the WAL on what is not on the disk.
    fn trust(&self) -> Result<(), String> {
        if self.condition.has_failed() {
            return Err("the disk has failed, the server ends".to_owned());
        }
        if self.trusted.get() || self.checkpoints.is_none() {
            return Ok(());
        }
        checkpoint::distrust(&self.conn, self.place.path())
            .map_err(|error| format!("the database takes no write: {error}"))?;
        self.trusted.set(true);
        Ok(())
    }

    /// Begins a transaction, in which what must come first is done.
    fn begin(&self) -> Result<bool, String> {
        self.trust()?;
        self.place.check()?;
        let no = |error: &dyn std::fmt::Display| format!("the database takes no write: {error}");
        self.run("begin immediate").map_err(|error| no(&error))?;
        self.look_outside();
        let first = self.first.borrow();
        let Some(work) = first.as_ref() else {
            return Ok(false);
        };
        let tx = Tx::new(Reader {
            conn: &self.conn,
            epoch: &self.epoch,
        });
        match work(&tx) {
            Ok(()) => Ok(tx.announced.get()),
            Err(error) => {
                self.roll_back();
                Err(no(&error))
            }
        }
    }

    fn roll_back(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.run("rollback")
        {
            log::error!("the rollback failed too: {error}");
        }
    }

    fn commit(&self) -> Result<(), String> {
        self.run("commit").map_err(|error| {
            self.condition
                .judge("confirm a commit", &error, self.place.path());
            format!("the commit failed: {error}")
        })
    }

    /// Does every deed of `batch` in one transaction, and answers after its commit.
    fn together(&self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let announced = match self.begin() {
            Ok(announced) => announced,
            Err(reason) => {
                self.tell(Some(&reason));
                for deed in batch {
                    deed(Err(&reason));
                }
                return;
            }
        };
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
        let commit = broken.map_or_else(|| self.commit(), Err);
        // What went into a file that is not in its place may be lost: nobody hears yes.
        let commit = commit.and_then(|()| self.place.check());
        if let Err(reason) = &commit {
            self.tell(Some(reason));
            self.roll_back();
        } else {
            self.tell(None);
            drop(self.first.take());
            if announced || done.iter().any(|deed| deed.announced) {
                self.epoch.next();
            }
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
    fn one(&self, deed: Job) -> Result<Option<Done>, String> {
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

    fn tell(&self, failure: Option<&str>) {
        self.told.borrow_mut().tell(failure, self.clock.tick());
    }

    fn run(&self, sql: &'static str) -> rusqlite::Result<()> {
        run(&self.conn, sql)
    }
}

/// Why the last checkpoint did not come about.
enum Stuck {
    Before(Error),
    Disk(rusqlite::Error),
}

/// The last checkpoint. In a command only where no server has the file; and nothing where the WAL is empty. False,
/// if somebody else still reads.
fn finished(conn: Connection, path: &Path, of_server: bool, trusted: bool) -> Result<bool, Stuck> {
    let left = checkpoint::is_left(path).map_err(Stuck::Before)?;
    if !of_server && (!left || lock::is_taken(path).map_err(Stuck::Before)?) {
        return Ok(true);
    }
    if !trusted {
        checkpoint::distrust(&conn, path).map_err(Stuck::Before)?;
    }
    pool::fold(conn).map_err(Stuck::Disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_writes_fail_is_told_once_a_minute_at_most_however_they_come_and_go() {
        let mut told = Told::default();
        let at = |ms: u64| Tick(Duration::from_millis(ms));
        assert_eq!(told.note(false, at(0)), None);
        assert_eq!(told.note(true, at(1)), Some(Line::Refused(0)));
        assert_eq!(told.note(true, at(2)), None);
        assert_eq!(told.note(false, at(3)), Some(Line::Again));
        let lines: Vec<Line> = (4..60_000)
            .filter_map(|ms| told.note(ms % 2 == 0, at(ms)))
            .collect();
        assert_eq!(lines, [], "a flood says nothing");
        assert_eq!(told.note(true, at(60_001)), Some(Line::Refused(29_998)));
        assert_eq!(told.note(false, at(60_002)), Some(Line::Again));
        assert_eq!(told.note(false, at(400_000)), None);
        assert_eq!(told.note(true, at(400_001)), Some(Line::Refused(0)));
    }
}
