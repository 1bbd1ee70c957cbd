//! The slow check of the whole database: table by table, on a connection and a thread of its own, with the lowest
//! priority.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::oneshot;

use super::disk::Condition;
use super::location::DatabaseFiles;
use super::pool;
use crate::error::{Doing, Error, Result};

/// Pause between two tables, so that other work gets the disk and the WAL can restart.
const PAUSE: Duration = Duration::from_millis(200);
/// Time between two interrupts of a check that has to stop.
const INTERRUPT_EACH: Duration = Duration::from_millis(5);
/// The lowest priority.
const NICE: i32 = 19;

/// The result of a check of the whole database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The number of checked tables.
    pub tables: usize,
    /// The problems that SQLite found; empty for a sound database.
    pub found: Vec<String>,
}

/// A check in progress. It stops when this is dropped.
pub(super) struct Inspection {
    interrupt: InterruptHandle,
    stop: Option<Sender<()>>,
    thread: JoinHandle<()>,
    receiver: oneshot::Receiver<Result<Inspected>>,
}

impl Drop for Inspection {
    /// Waits until the connection is closed: the last one of a process deletes the WAL.
    fn drop(&mut self) {
        self.stop = None;
        while !self.thread.is_finished() {
            // Again and again, since it has no effect between two statements.
            self.interrupt.interrupt();
            std::thread::park_timeout(INTERRUPT_EACH);
        }
    }
}

impl Inspection {
    /// Starts to check the database at `location`. Damage is noted as soon as it is found, and soundness once
    /// everything was read.
    pub(super) fn begin(location: Arc<DatabaseFiles>, condition: Arc<Condition>) -> Result<Self> {
        check_location(&location)?;
        let conn = pool::open_to_inspect(location.path()).inspect_err(|error| {
            if let Error::Damaged { found } = error {
                condition.note_damage(found);
            }
        })?;
        let interrupt = conn.get_interrupt_handle();
        let (stop, stopped) = channel();
        let (send, receiver) = oneshot::channel();
        let pause = move || stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout);
        let thread = std::thread::Builder::new()
            .name("inspect".to_owned())
            .spawn(move || {
                // Applies to this thread only.
                if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                    log::debug!("the check of the database runs at normal priority: {error}");
                }
                let inspected = inspect(&conn, |found| condition.note_damage(found), pause);
                // The file that was read must have been the database, not another one that replaced it.
                let inspected = inspected.and_then(|done| check_location(&location).map(|()| done));
                match &inspected {
                    Ok(done) if done.found.is_empty() => condition.note_sound(),
                    Err(Error::Damaged { found }) => condition.note_damage(found),
                    _ => {}
                }
                // The receiver may be gone.
                drop(send.send(inspected));
            })
            .doing("start the check of the database")?;
        Ok(Self {
            interrupt,
            stop: Some(stop),
            thread,
            receiver,
        })
    }

    /// Waits for the result.
    pub(super) async fn end(mut self) -> Result<Inspected> {
        let received = (&mut self.receiver).await;
        received.doing("check the database")?
    }
}

fn check_location(location: &DatabaseFiles) -> Result<()> {
    let checked = location.check();
    checked.map_err(|reason| Error::Unavailable { reason })
}

/// Checks one table after another until `pause` returns false, and passes damage to `note` at once.
fn inspect(conn: &Connection, note: impl Fn(&str), pause: impl Fn() -> bool) -> Result<Inspected> {
    let stopped = || Error::Unavailable {
        reason: "the check was stopped".to_owned(),
    };
    let mut inspected = Inspected {
        tables: 0,
        found: Vec::new(),
    };
    for table in texts(
        conn,
        "select name from sqlite_schema where type = 'table' order by name",
    )? {
        let name = table.replace('\'', "''");
        let lines = texts(conn, &format!("pragma integrity_check('{name}')"));
        let lines = match lines {
            Err(Error::Damaged { found }) => vec![format!("{table}: {found}")],
            lines => lines?,
        };
        for line in lines.into_iter().filter(|line| line != "ok") {
            note(&line);
            inspected.found.push(line);
        }
        inspected.tables += 1;
        if !pause() {
            return Err(stopped());
        }
    }
    Ok(inspected)
}

fn texts(conn: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
