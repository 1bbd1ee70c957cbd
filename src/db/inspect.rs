//! The slow look over the whole database: table by table, on a connection and a thread of its own, and at a
//! priority below everything else.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::oneshot;

use super::disk::Condition;
use super::place::DatabaseFiles;
use super::pool;
use crate::error::{Doing, Error, Result};

/// Between two tables: whoever waits for the disk comes first, and the WAL can begin anew.
const PAUSE: Duration = Duration::from_millis(200);
/// The lowest priority that there is.
const NICE: i32 = 19;

/// What a look over the whole database found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// How many tables it looked at.
    pub tables: usize,
    /// What SQLite finds wrong; empty for a sound database.
    pub found: Vec<String>,
}

/// A look that is under way. It ends at once when this is dropped.
pub(super) struct Inspection {
    interrupt: InterruptHandle,
    _stop: Sender<()>,
    seen: oneshot::Receiver<Result<Inspected>>,
}

impl Drop for Inspection {
    fn drop(&mut self) {
        self.interrupt.interrupt();
    }
}

impl Inspection {
    /// Begins to look at the database at `place`. What is damaged is noted as soon as it is found, and that the database
    /// is sound once all of it was seen.
    pub(super) fn begin(place: Arc<DatabaseFiles>, condition: Arc<Condition>) -> Result<Self> {
        let in_place = |place: &DatabaseFiles| {
            let checked = place.check();
            checked.map_err(|reason| Error::Unavailable { reason })
        };
        in_place(&place)?;
        let conn = pool::open_to_inspect(place.path()).inspect_err(|error| {
            if let Error::Damaged { found } = error {
                condition.note_damage(found);
            }
        })?;
        let interrupt = conn.get_interrupt_handle();
        let (stop, stopped) = channel();
        let (send, seen) = oneshot::channel();
        let pause = move || stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout);
        std::thread::Builder::new()
            .name("inspect".to_owned())
            .spawn(move || {
                // Of this thread alone.
                if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                    log::debug!("the look over the database has the usual priority: {error}");
                }
                let inspected = inspect(&conn, |found| condition.note_damage(found), pause);
                // What was looked at must have been the database, not another file in its place.
                let inspected = inspected.and_then(|seen| in_place(&place).map(|()| seen));
                match &inspected {
                    Ok(seen) if seen.found.is_empty() => condition.note_sound(),
                    Err(Error::Damaged { found }) => condition.note_damage(found),
                    _ => {}
                }
                // Whoever asked may be gone.
                drop(send.send(inspected));
            })
            .doing("start the look over the database")?;
        Ok(Self {
            interrupt,
            _stop: stop,
            seen,
        })
    }

    /// What it found.
    pub(super) async fn end(mut self) -> Result<Inspected> {
        let seen = (&mut self.seen).await;
        seen.doing("look over the database")?
    }
}

/// Looks at one table after another, as long as `pause` says so, and hands what is damaged to `note` at once.
fn inspect(conn: &Connection, note: impl Fn(&str), pause: impl Fn() -> bool) -> Result<Inspected> {
    let stopped = || Error::Unavailable {
        reason: "the look was stopped".to_owned(),
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
