//! The bytes of one connection, with what hyper does not watch: a head that does not end, a reader that
//! does not read, and hyper's own error answers, which lack our headers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::caps::ConnectionSlot;
use super::forward;
use super::limits::Limits;

/// How much a slow reader must have taken before its time begins anew, in bytes.
const PROGRESS: usize = 4 * 1024;
/// For a client that is still sending when it was told that its request cannot be read; and so many bytes of it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_LEN: usize = 256 * 1024;
/// How hyper begins the answers that it gives by itself, and only those: ours never have these statuses
/// without a body. A new version of hyper may say it otherwise: a black-box test notices.
const HYPERS_OWN: &[&[u8]] = &[
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n",
    b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n",
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n",
];

/// What a connection is at; shared by its bytes and by what answers its requests.
pub(super) struct ConnState {
    at: AtomicU8,
    /// Whether the request that is being answered has come to its end.
    whole: AtomicBool,
    /// Whether an answer is not written to its end.
    writing: AtomicBool,
    is_program: AtomicBool,
    /// How long it may be idle, in milliseconds.
    idle_ms: AtomicU64,
    place: ConnectionSlot,
}

/// A head is being read, and must end in time.
const READING: u8 = 0;
/// A request is being answered; its body is timed elsewhere.
const ANSWERING: u8 = 1;
/// Nothing has come since the last answer.
const IDLE: u8 = 2;

impl ConnState {
    pub(super) fn new(place: ConnectionSlot, idle: Duration) -> Self {
        let phase = Self {
            at: AtomicU8::new(READING),
            whole: AtomicBool::new(false),
            writing: AtomicBool::new(false),
            is_program: AtomicBool::new(false),
            idle_ms: AtomicU64::default(),
            place,
        };
        phase.may_be_idle(idle);
        phase
    }

    /// A whole head has come. The request is under way when its body has, too, unless a program sends it: who
    /// only begins a request keeps no place by that.
    pub(super) fn answering(&self, whole: bool) {
        self.at.store(ANSWERING, Ordering::Relaxed);
        self.whole.store(whole, Ordering::Relaxed);
        if whole || self.is_program.load(Ordering::Relaxed) {
            self.place.busy();
        }
    }

    /// The whole body has come, too.
    pub(super) fn whole(&self) {
        if !self.whole.swap(true, Ordering::Relaxed) {
            self.place.busy();
        }
    }

    /// Whether it was not told to give way.
    pub(super) fn is_kept(&self) -> bool {
        self.place.is_kept()
    }

    /// Whether a head has come, and its body has not.
    pub(super) fn waits_for_body(&self) -> bool {
        self.at.load(Ordering::Relaxed) == ANSWERING && !self.whole.load(Ordering::Relaxed)
    }

    /// The answer is ready; what comes next is a head.
    pub(super) fn answered(&self) {
        self.writing.store(true, Ordering::Relaxed);
        self.at.store(IDLE, Ordering::Relaxed);
    }

    /// What it may be idle for from now on.
    pub(super) fn may_be_idle(&self, idle: Duration) {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        self.idle_ms.store(idle, Ordering::Relaxed);
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms.load(Ordering::Relaxed))
    }

    /// A program that named a license or session that exists speaks here.
    pub(super) fn of_a_program(&self) {
        if !self.is_program.swap(true, Ordering::Relaxed) {
            self.place.of_a_program();
        }
    }

    /// Whether a head has begun, and not ended.
    pub(super) fn is_reading(&self) -> bool {
        self.at.load(Ordering::Relaxed) == READING
    }

    /// Waits until the connection must give way to another.
    pub(super) async fn gives_way(&self) {
        self.place.gives_way().await;
    }

    /// What was answered is written. Whether there was an answer.
    fn flushed(&self) -> bool {
        let was_writing = self.writing.swap(false, Ordering::Relaxed);
        if was_writing {
            self.place.rests();
        }
        was_writing
    }
}

/// A connection that is watched.
pub(super) struct GuardedStream<S> {
    stream: S,
    phase: Arc<ConnState>,
    limits: Limits,
    /// When the head that is being read must have ended, or the connection was idle for too long.
    read_until: Instant,
    read_ends: Pin<Box<Sleep>>,
    write_ends: Option<Pin<Box<Sleep>>>,
    /// What was written since the reader's time began.
    progress: usize,
    /// What is left to write of an error answer of hyper's that was given our headers, and how many of
    /// hyper's own bytes it stands for.
    amended: Option<(Vec<u8>, usize)>,
    /// What may still be read and forgotten after an error answer of hyper's; none where there was none.
    lingers: Option<Linger>,
}

impl<S> GuardedStream<S> {
    pub(super) fn new(stream: S, phase: Arc<ConnState>, limits: Limits) -> Self {
        let read_ends = Box::pin(sleep(limits.head));
        Self {
            stream,
            phase,
            limits,
            read_until: read_ends.deadline(),
            read_ends,
            write_ends: None,
            progress: 0,
            amended: None,
            lingers: None,
        }
    }

    /// Ends a head that does not end, and a connection that is idle for too long.
    fn timed(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let writing = self.phase.writing.load(Ordering::Relaxed);
        let told = match self.phase.at.load(Ordering::Relaxed) {
            READING => "the head of a request did not end",
            IDLE if !writing => "idle for too long",
            _ => return Poll::Pending,
        };
        // Only what does not come at once is worth the timer's time.
        if self.read_ends.deadline() != self.read_until {
            self.read_ends.as_mut().reset(self.read_until);
        }
        self.read_ends.as_mut().poll(cx).map(|()| late(told))
    }

    /// Counts the time that a write waits, and ends it when it is too long.
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        let stalled = self.limits.stalled;
        let ends = self
            .write_ends
            .get_or_insert_with(|| Box::pin(sleep(stalled)));
        ends.as_mut()
            .poll(cx)
            .map(|()| Err(late("the client does not read")))
    }

    /// Begins the reader's time anew, after so much that it took: a byte now and then does not buy more.
    fn took(&mut self, bytes: usize) {
        self.progress = self.progress.saturating_add(bytes);
        if self.progress >= PROGRESS {
            self.progress = 0;
            self.write_ends = None;
        }
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            let at = &this.phase.at;
            if at
                .compare_exchange(IDLE, READING, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                this.read_until = Instant::now() + this.limits.head;
            }
            return read;
        }
        if read.is_pending() {
            return this.timed(cx).map(Err);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.amended.is_none() {
            this.amended = amend(bytes).map(|whole| (whole, bytes.len()));
        }
        let Some((left, stands_for)) = &mut this.amended else {
            let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
            if let Poll::Ready(Ok(count)) = written {
                this.took(count);
            }
            return this.watched(cx, written);
        };
        let stands_for = *stands_for;
        while !left.is_empty() {
            match Pin::new(&mut this.stream).poll_write(cx, left) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => drop(left.drain(..count)),
                waits => return this.watched(cx, waits),
            }
        }
        this.amended = None;
        this.lingers = Some(Linger::new());
        Poll::Ready(Ok(stands_for))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        if flushed.is_ready() {
            this.took(PROGRESS);
        }
        if matches!(flushed, Poll::Ready(Ok(()))) && this.phase.flushed() {
            // It is idle from here on. Nobody may read before the timer wakes somebody.
            if this.phase.at.load(Ordering::Relaxed) == IDLE {
                this.read_until = Instant::now() + this.phase.idle();
            }
            if let Poll::Ready(error) = this.timed(cx) {
                return Poll::Ready(Err(error));
            }
        }
        this.watched(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingers.as_ref().is_none_or(|linger| !linger.shut) {
            let ended = Pin::new(&mut this.stream).poll_shutdown(cx);
            let ended = this.watched(cx, ended);
            if !matches!(ended, Poll::Ready(Ok(()))) {
                return ended;
            }
        }
        let Some(linger) = &mut this.lingers else {
            return Poll::Ready(Ok(()));
        };
        linger.shut = true;
        linger.poll(&mut this.stream, cx)
    }
}

/// The end of a connection whose client may still be sending. A close over bytes that nobody has read resets the
/// connection, and the client may never see the answer that it was given.
struct Linger {
    ends: Pin<Box<Sleep>>,
    /// Bytes that are still read.
    left: usize,
    /// Whether our own half is closed.
    shut: bool,
}

impl Linger {
    fn new() -> Self {
        Self {
            ends: Box::pin(sleep(LINGER)),
            left: LINGER_LEN,
            shut: false,
        }
    }

    /// Reads and forgets, until the client closes its half, or has had enough.
    fn poll<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncRead + Unpin,
    {
        let mut forgotten = [0; 2048];
        while self.left > 0 && self.ends.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut forgotten);
            match Pin::new(&mut *stream).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    self.left = self.left.saturating_sub(read.filled().len());
                }
                // It has closed its half, or is gone: both are ends.
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// An answer of hyper's own with the headers that every answer of ours has; none for any other bytes.
fn amend(bytes: &[u8]) -> Option<Vec<u8>> {
    let start = HYPERS_OWN.iter().find(|start| bytes.starts_with(start))?;
    let (head, rest) = bytes.split_at_checked(start.len())?;
    let mut whole = head.to_vec();
    for (name, value) in forward::HEADERS {
        whole.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    whole.extend_from_slice(rest);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_answers_are_amended() {
        let own = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let amended = String::from_utf8(amend(own).unwrap()).unwrap();
        assert!(amended.starts_with("HTTP/1.1 400 Bad Request\r\n"));
        assert!(amended.ends_with("date: x\r\n\r\n"));
        assert!(amended.contains("\r\nx-content-type-options: nosniff\r\n"));
        let ours = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n";
        assert_eq!(amend(ours), None);
        assert_eq!(amend(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
