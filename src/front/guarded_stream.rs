//! The byte stream of a connection, which adds what hyper lacks: time limits for a slow request head and for a client
//! that does not read, and the common headers on hyper's own error responses.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::CloseReason;
use super::caps::ConnectionSlot;
use super::limits::Limits;
use super::responses::HEADERS;
use super::tls_handshake::{Received, out_of_memory};
use super::unread::UnreadResponse;
use crate::web::connection::{BodyBudget, ReservedBytes};

/// How many bytes a slow client must read before its time limit starts again.
const PROGRESS: usize = 4 * 1024;
/// How long the rest of a request is read and discarded after an error response of hyper's.
const LINGER: Duration = Duration::from_secs(1);
/// How many bytes are read and discarded then, at most.
const LINGER_LEN: usize = 256 * 1024;
/// The beginnings of the error responses that hyper sends itself. Responses from this program never begin like this,
/// because they have a body with these statuses. A black-box test fails if a new version of hyper changes them.
const HYPERS_OWN: &[&[u8]] = &[
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n",
    b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n",
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n",
];

/// The state of a connection, shared by its byte stream and the service that answers its requests.
pub(super) struct ConnState {
    phase: AtomicU8,
    /// Whether the request in progress has been received completely.
    is_received: AtomicBool,
    /// Whether a response has not been written completely yet.
    is_writing: AtomicBool,
    /// Whether the connection has been idle for [`Limits::rest`].
    may_rest: AtomicBool,
    is_program: AtomicBool,
    /// How long the connection may be idle, in milliseconds.
    idle_ms: AtomicU64,
    slot: ConnectionSlot,
    unread: UnreadResponse,
}

/// Phase: a request head is being read, within a time limit.
const READING: u8 = 0;
/// Phase: a request is being answered. [`crate::web::connection`] limits the time for its body.
const ANSWERING: u8 = 1;
/// Phase: nothing has been received since the last response.
const IDLE: u8 = 2;

impl ConnState {
    pub(super) fn new(slot: ConnectionSlot, unread: UnreadResponse, idle: Duration) -> Self {
        let state = Self {
            phase: AtomicU8::new(READING),
            is_received: AtomicBool::new(false),
            is_writing: AtomicBool::new(false),
            may_rest: AtomicBool::new(false),
            is_program: AtomicBool::new(false),
            idle_ms: AtomicU64::default(),
            slot,
            unread,
        };
        state.set_idle_limit(idle);
        state
    }

    /// The head of a request has been received, and `body` follows. The connection is busy, and so cannot be evicted,
    /// only when the body has arrived, or if it is that of a program. Otherwise a client could protect its connection
    /// by beginning a request.
    pub(super) fn head_received(&self, body: &impl Body) {
        let is_complete = body.is_end_stream();
        self.phase.store(ANSWERING, Ordering::Relaxed);
        self.is_received.store(is_complete, Ordering::Relaxed);
        if is_complete || self.is_program.load(Ordering::Relaxed) {
            self.slot.set_busy();
        }
    }

    /// The body of the request has been received as well.
    pub(super) fn body_received(&self) {
        if !self.is_received.swap(true, Ordering::Relaxed) {
            self.slot.set_busy();
        }
    }

    /// Whether the connection was evicted, and must close.
    pub(super) fn is_evicted(&self) -> bool {
        self.slot.is_evicted()
    }

    /// Whether a head has been received, and its body has not.
    pub(super) fn waits_for_body(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == ANSWERING && !self.is_received.load(Ordering::Relaxed)
    }

    /// The response is ready to be written. The next bytes from the client begin a new request.
    pub(super) fn response_ready(&self, body: &impl Body) {
        self.unread.ready(body.size_hint().lower());
        self.is_writing.store(true, Ordering::Relaxed);
        self.phase.store(IDLE, Ordering::Relaxed);
    }

    /// Sets how long the connection may be idle from now on.
    pub(super) fn set_idle_limit(&self, idle: Duration) {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        self.idle_ms.store(idle, Ordering::Relaxed);
    }

    pub(super) fn idle_limit(&self) -> Duration {
        Duration::from_millis(self.idle_ms.load(Ordering::Relaxed))
    }

    /// Marks the connection as that of a program: its caller has named an existing license or session.
    pub(super) fn mark_program(&self) {
        if !self.is_program.swap(true, Ordering::Relaxed) {
            self.slot.mark_program();
        }
    }

    /// Whether a request head is being received, or the first one is awaited.
    pub(super) fn is_reading(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == READING
    }

    /// Waits until the connection must close to make room for others; returns why.
    pub(super) async fn displaced(&self) -> CloseReason {
        tokio::select! {
            () = self.slot.evicted() => CloseReason::Evicted,
            () = self.unread.cut() => CloseReason::Unread,
        }
    }

    /// Whether nothing has been received for [`Limits::rest`] since the last response was written. True once for each
    /// response.
    pub(super) fn begins_to_rest(&self) -> bool {
        self.may_rest.load(Ordering::Relaxed)
            && self.may_rest.swap(false, Ordering::Relaxed)
            && self.phase.load(Ordering::Relaxed) == IDLE
            && !self.is_writing()
    }

    /// Whether a response has not been written completely.
    fn is_writing(&self) -> bool {
        self.is_writing.load(Ordering::Relaxed)
    }

    /// Everything has been written. Returns whether this completed a response.
    fn flushed(&self) -> bool {
        let was_writing = self.is_writing.swap(false, Ordering::Relaxed);
        if was_writing {
            self.unread.written();
            self.slot.set_idle();
        }
        was_writing
    }
}

/// A byte stream with time limits, and a limit for what incomplete heads and records of all connections occupy.
pub(super) struct GuardedStream<'l, S> {
    stream: S,
    state: Arc<ConnState>,
    limits: &'l Limits,
    budget: BodyBudget,
    reserved: ReservedBytes,
    /// How many bytes of the current head have been read.
    head_len: u64,
    /// [`Received::received`] when bytes were last read. What arrived since belongs to an incomplete record.
    received_at_read: u64,
    /// When the time for the current head, or for being idle, is over. `read_timer` is set to it only when a read has
    /// to wait.
    read_deadline: Instant,
    /// When an idle connection begins to rest; `None` once it rests, or while it is not idle.
    rest_at: Option<Instant>,
    read_timer: Pin<Box<Sleep>>,
    /// Bytes that the next read returns: those that ended a rest.
    first: Bytes,
    /// `None` while no write waits.
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Bytes written since `write_timer` was last reset.
    progress: usize,
    /// The unwritten rest of an error response of hyper's to which the common headers were added, and the length that
    /// it had without them.
    amended: Option<(Vec<u8>, usize)>,
    /// Whether a read waits until the response is written.
    holds_read: bool,
    /// Set after an error response of hyper's.
    linger: Option<Linger>,
}

impl<'l, S> GuardedStream<'l, S> {
    pub(super) fn new(
        stream: S,
        state: Arc<ConnState>,
        limits: &'l Limits,
        budget: BodyBudget,
    ) -> Self {
        let read_timer = Box::pin(sleep(limits.head));
        Self {
            stream,
            state,
            limits,
            budget,
            reserved: ReservedBytes::default(),
            head_len: 0,
            received_at_read: 0,
            read_deadline: read_timer.deadline(),
            rest_at: None,
            read_timer,
            first: Bytes::new(),
            write_timer: None,
            progress: 0,
            amended: None,
            holds_read: false,
            linger: None,
        }
    }

    /// Begins a rest. The next read returns these `unread` bytes, which arrived together with the last request and begin the
    /// next one.
    pub(super) fn resume(&mut self, unread: &[u8]) {
        self.first = Bytes::copy_from_slice(unread);
        if !unread.is_empty() {
            self.head_len = unread.len() as u64;
            self.begin_head();
        }
    }

    /// A request head begins.
    fn begin_head(&mut self) {
        self.state.phase.store(READING, Ordering::Relaxed);
        self.rest_at = None;
        self.read_deadline = Instant::now() + self.limits.head;
    }

    /// Ready with an error if the head takes too long, or the connection has been idle for too long.
    fn poll_read_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let is_writing = self.state.is_writing();
        let reason = match self.state.phase.load(Ordering::Relaxed) {
            READING => "the request head did not end in time",
            IDLE if !is_writing => "idle for too long",
            _ => return Poll::Pending,
        };
        if let Some(rest_at) = self.rest_at {
            if self.poll_timer(rest_at, cx).is_pending() {
                return Poll::Pending;
            }
            self.rest_at = None;
            self.state.may_rest.store(true, Ordering::Relaxed);
        }
        self.poll_timer(self.read_deadline, cx)
            .map(|()| timed_out(reason))
    }

    /// Ready from `deadline` on.
    fn poll_timer(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        // The timer is reset here, not at each new deadline, because most reads do not have to wait.
        if self.read_timer.deadline() != deadline {
            self.read_timer.as_mut().reset(deadline);
        }
        self.read_timer.as_mut().poll(cx)
    }

    /// Turns a `written` that has been pending for too long into an error.
    fn with_write_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        self.state.unread.stalled();
        let limit = self.limits.write_stall;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(sleep(limit)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(timed_out("the client does not read")))
    }

    /// Records written bytes. The write timer is reset only after [`PROGRESS`] bytes, so that a client cannot extend
    /// its time by reading single bytes.
    fn record_progress(&mut self, bytes: usize) {
        self.progress = self.progress.saturating_add(bytes);
        if self.progress >= PROGRESS {
            self.progress = 0;
            if self.write_timer.take().is_some() {
                self.state.unread.progressed();
            }
        }
    }
}

impl<S: Received> GuardedStream<'_, S> {
    /// Counts `count` bytes that were just read, and what has arrived of an incomplete record. Heads are counted until
    /// they are complete: from then on the request is.
    ///
    /// # Errors
    /// If the budget is used up.
    fn count_incomplete(&mut self, count: usize) -> io::Result<()> {
        if self.state.is_reading() {
            self.head_len += count as u64;
        } else {
            self.head_len = 0;
        }
        let received = self.stream.received();
        if count > 0 {
            self.received_at_read = received;
        }
        let incomplete = received - self.received_at_read;
        if self
            .budget
            .resize(&mut self.reserved, self.head_len + incomplete)
        {
            Ok(())
        } else {
            Err(out_of_memory())
        }
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// Most bytes of one read: hyper enlarges the buffer of a connection whenever one read fills it, and keeps it at that size
/// as long as the connection lasts. The head and the body of a program's call fit, and no more is cleared before each read.
const READ_LEN: usize = 1024;

impl<S: AsyncRead + Received + Unpin> AsyncRead for GuardedStream<'_, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.is_writing() {
            // One response at a time: a client that sends requests and reads nothing would fill hyper's buffer.
            this.holds_read = true;
            return Poll::Pending;
        }
        if !this.first.is_empty() {
            let count = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(buf.remaining().min(READ_LEN)));
        let read = Pin::new(&mut this.stream).poll_read(cx, &mut part);
        let count = part.filled().len();
        buf.advance(count);
        if count > 0 {
            if this.state.phase.load(Ordering::Relaxed) == IDLE {
                this.begin_head();
            }
            this.count_incomplete(count)?;
            return read;
        }
        if read.is_pending() {
            this.count_incomplete(0)?;
            return this.poll_read_timeout(cx).map(Err);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Received + Unpin> GuardedStream<'_, S> {
    /// Waits for bytes, or the end of the stream, without memory for them; the next read returns them.
    ///
    /// # Errors
    /// As a read; the stream is shut down then.
    pub(super) async fn first_bytes(&mut self) -> io::Result<()> {
        if !self.first.is_empty() {
            return Ok(());
        }
        let received = poll_fn(|cx| {
            let mut bytes = [0; READ_LEN];
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *self).poll_read(cx, &mut buf))?;
            self.first = Bytes::copy_from_slice(buf.filled());
            Poll::Ready(Ok(()))
        });
        let received = received.await;
        if received.is_err() {
            // Tells the client that this is the end, and no attack (RFC 8446 §6.1).
            drop(self.shutdown().await);
        }
        received
    }
}

impl<S: AsyncRead + AsyncWrite + Received + Unpin> AsyncWrite for GuardedStream<'_, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.amended.is_none() {
            this.amended = with_common_headers(bytes).map(|amended| (amended, bytes.len()));
        }
        let Some((left, original_len)) = &mut this.amended else {
            let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
            if let Poll::Ready(Ok(count)) = written {
                this.record_progress(count);
            }
            return this.with_write_timeout(cx, written);
        };
        let original_len = *original_len;
        while !left.is_empty() {
            match Pin::new(&mut this.stream).poll_write(cx, left) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => drop(left.drain(..count)),
                pending => return this.with_write_timeout(cx, pending),
            }
        }
        this.amended = None;
        this.linger = Some(Linger::new());
        Poll::Ready(Ok(original_len))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = slices.iter().find(|slice| !slice.is_empty());
        let first: &[u8] = first.map_or(&[], |slice| slice);
        if this.amended.is_some() || with_common_headers(first).is_some() {
            return Pin::new(this).poll_write(cx, first);
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(count)) = written {
            this.record_progress(count);
        }
        this.with_write_timeout(cx, written)
    }

    /// As the stream below: hyper would copy a response into one buffer otherwise, and keep that.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        if flushed.is_ready() {
            this.record_progress(PROGRESS);
        }
        if matches!(flushed, Poll::Ready(Ok(()))) && this.state.flushed() {
            if std::mem::take(&mut this.holds_read) {
                cx.waker().wake_by_ref();
            }
            // The connection is idle from here on. The timer is polled here so that it wakes the task, because hyper
            // may not poll for reads before it expires.
            if this.state.phase.load(Ordering::Relaxed) == IDLE {
                let now = Instant::now();
                this.rest_at = Some(now + this.limits.rest);
                this.read_deadline = now + this.state.idle_limit();
            }
            if let Poll::Ready(error) = this.poll_read_timeout(cx) {
                return Poll::Ready(Err(error));
            }
        }
        this.with_write_timeout(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper closes the connection: what it has read since, if anything, is no request.
        this.state.may_rest.store(false, Ordering::Relaxed);
        if this
            .linger
            .as_ref()
            .is_none_or(|linger| !linger.is_shut_down)
        {
            let ended = Pin::new(&mut this.stream).poll_shutdown(cx);
            let ended = this.with_write_timeout(cx, ended);
            if !matches!(ended, Poll::Ready(Ok(()))) {
                return ended;
            }
        }
        let Some(linger) = &mut this.linger else {
            return Poll::Ready(Ok(()));
        };
        linger.is_shut_down = true;
        linger.poll(&mut this.stream, cx)
    }
}

/// Delays the end of a connection whose client may still be sending. Closing a socket with unread bytes resets the
/// connection, and the client may lose the response.
struct Linger {
    timer: Pin<Box<Sleep>>,
    /// How many more bytes are read, at most.
    left: usize,
    /// Whether the server's half of the connection has been shut down.
    is_shut_down: bool,
}

impl Linger {
    fn new() -> Self {
        Self {
            timer: Box::pin(sleep(LINGER)),
            left: LINGER_LEN,
            is_shut_down: false,
        }
    }

    /// Reads and discards, until the client closes its half, or a limit is reached.
    fn poll<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncRead + Unpin,
    {
        let mut discarded = [0; 2048];
        while self.left > 0 && self.timer.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut discarded);
            match Pin::new(&mut *stream).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    self.left = self.left.saturating_sub(read.filled().len());
                }
                // The client has closed its half, or the connection failed.
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// An error response of hyper's with the common headers added; `None` for any other bytes.
fn with_common_headers(bytes: &[u8]) -> Option<Vec<u8>> {
    let start = HYPERS_OWN.iter().find(|start| bytes.starts_with(start))?;
    let (head, rest) = bytes.split_at_checked(start.len())?;
    let mut amended = head.to_vec();
    for (name, value) in HEADERS {
        amended.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    amended.extend_from_slice(rest);
    Some(amended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_added_to_hypers_own_responses_only() {
        let hypers = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let amended = String::from_utf8(with_common_headers(hypers).unwrap()).unwrap();
        assert!(amended.starts_with("HTTP/1.1 400 Bad Request\r\n"));
        assert!(amended.ends_with("date: x\r\n\r\n"));
        assert!(amended.contains("\r\nx-content-type-options: nosniff\r\n"));
        let other = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n";
        assert_eq!(with_common_headers(other), None);
        assert_eq!(with_common_headers(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
