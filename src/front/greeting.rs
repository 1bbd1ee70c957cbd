//! A TLS handshake with an end in bytes: what a client sends of one is kept in memory until it is whole.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Most bytes that a client may send before it is answered: clients of today send some 2 KiB.
const GREETING_LEN: usize = 16 * 1024;
/// Most bytes from then until the handshake is done: its end, and a whole record of the first request, which may come
/// right behind it and is read with it.
const ANSWERED_LEN: usize = 40 * 1024;

/// The bytes below TLS.
pub(super) struct Greeting<S> {
    stream: S,
    /// How many more may be read; none where the handshake is done.
    left: Option<usize>,
}

/// The handshake of a client.
///
/// # Errors
/// When it is none, too long, or the client is gone.
pub(super) async fn greet(
    tls: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<TlsStream<Greeting<TcpStream>>> {
    // Nothing is made ready for one that says nothing.
    stream.readable().await?;
    let greeting = Greeting {
        stream,
        left: Some(GREETING_LEN),
    };
    let mut stream = Box::pin(tls.accept(greeting)).await?;
    stream.get_mut().0.left = None;
    Ok(stream)
}

impl<S> Greeting<S> {
    /// The client's part so far was read, and is kept no longer.
    fn answered(&mut self) {
        if let Some(left) = &mut self.left {
            *left = ANSWERED_LEN;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeting<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Some(left) = this.left {
            let rest = left.checked_sub(buf.filled().len() - before);
            if rest.is_none() {
                let told = io::Error::new(io::ErrorKind::InvalidData, "the handshake is too long");
                return Poll::Ready(Err(told));
            }
            this.left = rest;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeting<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.answered();
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.answered();
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
