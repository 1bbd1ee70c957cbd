//! Opens the connections of a process, again and again while the disk cannot be written.

use std::sync::{Arc, PoisonError};

use super::location::DatabaseFiles;
use super::options::Options;
use super::{SharedPools, checkpoint, disk, lock, pool, writer};
use crate::error::{Error, Result};

/// Opens the database for the writer thread: at once, or as soon as the disk can be written.
pub(super) struct Opening {
    pub(super) location: Arc<DatabaseFiles>,
    pub(super) options: Options,
    pub(super) condition: Arc<disk::Condition>,
    pub(super) lock: Option<Arc<lock::Lock>>,
    /// Replaced once the disk can be written: the first ones may have been opened as immutable.
    pub(super) readers: SharedPools,
    pub(super) is_retry: bool,
    /// Whether the disk could not be written at the start: then that is checked before anything is opened.
    pub(super) check_disk: bool,
}

impl Opening {
    pub(super) fn first(mut self) -> Result<writer::Opened> {
        match self.open() {
            Ok(ready) => {
                self.open_reader()?;
                Ok(writer::Opened::Ready(ready))
            }
            Err(Error::Unavailable { reason }) => Ok(writer::Opened::Waiting(writer::Waiting {
                conn: None,
                reason: format!("the database cannot be written: {reason}"),
                open: Box::new(move || self.open()),
            })),
            Err(error) => Err(error),
        }
    }

    fn open(&mut self) -> Result<writer::Ready> {
        let open = || pool::open_writer(self.location.path(), self.options.synchronous);
        let is_retry = std::mem::replace(&mut self.is_retry, true);
        if (is_retry || self.check_disk) && disk::is_unwritable(self.location.path()) {
            return Err(Error::Unavailable {
                reason: "the disk is full or read-only".to_owned(),
            });
        }
        if is_retry || self.check_disk {
            self.renew_readers()?;
        }
        let conn = open()?;
        // A first read, so that SQLite creates the WAL and its index.
        conn.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))?;
        if is_retry || self.check_disk {
            // The connections of a process share the index of the WAL as the first of them opened it. While one is left
            // from when the disk was read-only, this one cannot write either, and never could.
            conn.execute_batch("begin immediate; rollback")?;
        }
        let parts = self
            .location
            .record_files(self.lock.as_ref().map(|lock| lock.own()))?;
        let checkpoints = match &self.lock {
            None => None,
            Some(lock) => {
                lock.refresh()?;
                lock.note_parts(parts)?;
                let condition = self.condition.clone();
                Some(checkpoint::Checkpoints::start(
                    open()?,
                    self.location.path(),
                    condition,
                )?)
            }
        };
        Ok(writer::Ready { conn, checkpoints })
    }

    /// Opens one read connection: if the file is moved away later, a backup needs a connection that is already open.
    fn open_reader(&self) -> Result<()> {
        let pools = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pools) = pools.as_ref() {
            pool::connection(&pools.shared)?;
        }
        Ok(())
    }

    fn renew_readers(&self) -> Result<()> {
        let size = self.options.read_connections;
        let pools = pool::ReadPools::open(&self.location, size, pool::ReadMode::Shared)?;
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        if readers.is_some() {
            *readers = Some(pools);
        }
        Ok(())
    }
}
