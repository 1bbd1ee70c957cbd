//! The thread that reads for programs. A batch of reads shares one transaction on one connection: a pooled connection and
//! a blocking thread for each would cost several times what the query does. Pages of the panel, which read much longer,
//! have connections of their own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use super::SharedPools;
use super::generation::Generation;
use super::pool;
use super::queue::{self, ReadJob};
use super::reader::Reader;
use crate::error::{Doing, Result};

/// Queued reads; when the queue is full, callers get [`Error::Unavailable`].
const QUEUE_LEN: usize = 4096;
/// Reads that may share one transaction.
const BATCH_LEN: usize = 64;

/// The sending end of the thread's queue; cheap to clone. The thread ends with the last one.
#[derive(Clone)]
pub(super) struct BatchReader {
    queue: SyncSender<ReadJob>,
}

impl BatchReader {
    /// Starts the thread, which takes its connection from `pools` for each batch.
    pub(super) fn start(pools: SharedPools, generation: Arc<Generation>) -> Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE_LEN);
        std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || serve(&pools, &generation, &jobs))
            .doing("start the thread that reads")?;
        Ok(Self { queue })
    }

    /// Queues a read; the receiver gets the result of `work`.
    pub(super) fn queue<T, F>(&self, work: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let (job, receive) = queue::read_job(work);
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => queue::unavailable("too many reads wait"),
            TrySendError::Disconnected(_) => queue::unavailable("the thread that reads has ended"),
        })?;
        Ok(receive)
    }
}

fn serve(pools: &SharedPools, generation: &Generation, jobs: &Receiver<ReadJob>) {
    while let Ok(first) = jobs.recv() {
        // Collected before the transaction begins: each read sees what was committed before it was queued.
        let others = jobs.try_iter().take(BATCH_LEN - 1);
        let batch: Vec<ReadJob> = std::iter::once(first).chain(others).collect();
        match pool::connection_of(pools, |pools| &pools.for_programs) {
            Ok(conn) => queue::run_reads(&conn, generation, batch, || {}),
            Err(error) => {
                let reason = error.to_string();
                for read in batch {
                    read(Err(&reason));
                }
            }
        }
    }
}
