//! The bytes of one connection, with what hyper does not watch: a head that does not end, a reader that
//! does not read, and hyper's own error answers, which lack our headers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::forward;

/// From the first byte of a head to its last; for the first head, from the handshake on.
const HEAD: Duration = Duration::from_secs(10);
/// How long a write may wait for a reader that does not read.
const STALLED: Duration = Duration::from_secs(10);
/// How hyper begins the answers that it gives by itself, and only those: ours never have these statuses
/// without a body. A new version of hyper may say it otherwise: a black-box test notices.
const HYPERS_OWN: &[&[u8]] = &[
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n",
    b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n",
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n",
];

/// What a connection is at; shared by its bytes and by what answers its requests.
#[derive(Debug, Default)]
pub(super) struct Phase(AtomicU8);

/// A head is being read, and must end in time.
const READING: u8 = 0;
/// A request is being answered; its body is timed elsewhere.
const ANSWERING: u8 = 1;
/// Nothing has come since the last answer.
const IDLE: u8 = 2;

impl Phase {
    /// A whole head has come.
    pub(super) fn answering(&self) {
        self.0.store(ANSWERING, Ordering::Relaxed);
    }

    /// The answer is ready; what comes next is a head.
    pub(super) fn answered(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }
}

/// A connection that is watched.
pub(super) struct Line<S> {
    stream: S,
    phase: Arc<Phase>,
    /// When the head that is being read must have ended.
    head_until: Instant,
    head_ends: Pin<Box<Sleep>>,
    write_ends: Option<Pin<Box<Sleep>>>,
    /// What is left to write of an error answer of hyper's that was given our headers, and how many of
    /// hyper's own bytes it stands for.
    amended: Option<(Vec<u8>, usize)>,
}

impl<S> Line<S> {
    pub(super) fn new(stream: S, phase: Arc<Phase>) -> Self {
        let head_ends = Box::pin(sleep(HEAD));
        Self {
            stream,
            phase,
            head_until: head_ends.deadline(),
            head_ends,
            write_ends: None,
            amended: None,
        }
    }

    /// Counts the time that a write waits, and ends it when it is too long.
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_ends = None;
            return written;
        }
        let ends = self
            .write_ends
            .get_or_insert_with(|| Box::pin(sleep(STALLED)));
        ends.as_mut()
            .poll(cx)
            .map(|()| Err(late("the client does not read")))
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let phase = &this.phase.0;
        if buf.filled().len() > before {
            if phase
                .compare_exchange(IDLE, READING, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                this.head_until = Instant::now() + HEAD;
            }
        } else if read.is_pending() && phase.load(Ordering::Relaxed) == READING {
            // Only a head that does not come at once is worth the timer's time.
            if this.head_ends.deadline() != this.head_until {
                this.head_ends.as_mut().reset(this.head_until);
            }
            let ended = this.head_ends.as_mut().poll(cx);
            return ended.map(|()| Err(late("the head of a request did not end")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
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
        this.watched(cx, Poll::Ready(Ok(stands_for)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.watched(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ended = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.watched(cx, ended)
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
