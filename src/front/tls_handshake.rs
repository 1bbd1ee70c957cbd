//! A TLS handshake with a limit in bytes. The messages of a handshake are kept in memory until they are complete, so
//! a client must not be able to send without end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::unread::ENCRYPTED_LEN_MAX;
use crate::web::connection::{BodyBudget, ReservedBytes};

/// Maximum number of bytes before the server's first answer. Current clients send about 2 KiB.
const CLIENT_HELLO_LEN_MAX: usize = 16 * 1024;
/// Maximum number of bytes between the server's answers and the end of the handshake: the client's last messages, and
/// a whole record of its first request, which may be read along with them.
const REST_LEN_MAX: usize = 40 * 1024;

/// The byte stream below TLS, which limits the length of the handshake.
pub(super) struct HandshakeStream<S> {
    stream: S,
    /// How many more bytes may be read; `None` after the handshake.
    left: Option<usize>,
    /// How many bytes have been read.
    received: u64,
    /// For the messages of the handshake, which are kept until they are complete.
    budget: BodyBudget,
    reserved: ReservedBytes,
}

/// A byte stream, perhaps decrypted from another one.
pub(super) trait Received {
    /// How many bytes have arrived from the client, including those of a record that is not complete yet and so cannot
    /// be read. 0 if nothing is ever kept back.
    fn received(&self) -> u64;
}

impl Received for TcpStream {
    fn received(&self) -> u64 {
        0
    }
}

impl<S> Received for Box<TlsStream<HandshakeStream<S>>> {
    fn received(&self) -> u64 {
        self.get_ref().0.received
    }
}

/// Performs the TLS handshake with a client. The stream is boxed, because each future that it passes through would take
/// its 1.3 kB as well, for as long as the connection is open.
///
/// # Errors
/// If the client does not speak TLS, sends too much, or disconnects.
pub(super) async fn accept_tls(
    tls: &TlsAcceptor,
    stream: TcpStream,
    budget: BodyBudget,
) -> io::Result<Box<TlsStream<HandshakeStream<TcpStream>>>> {
    // Waits for the first bytes, so that a client that sends nothing occupies no memory for TLS.
    stream.readable().await?;
    let handshake = HandshakeStream {
        stream,
        left: Some(CLIENT_HELLO_LEN_MAX),
        received: 0,
        budget,
        reserved: ReservedBytes::default(),
    };
    let mut stream = Box::pin(tls.accept_with(handshake, |tls| {
        tls.set_buffer_limit(Some(ENCRYPTED_LEN_MAX));
    }))
    .await?;
    let below = stream.get_mut().0;
    (below.left, below.reserved) = (None, ReservedBytes::default());
    Ok(Box::new(stream))
}

/// The error of a connection whose client makes the server keep too many bytes.
pub(super) fn out_of_memory() -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        "no memory left for incomplete requests",
    )
}

impl<S> HandshakeStream<S> {
    /// The server answers: the messages of the client so far are complete and no longer kept in memory.
    fn answered(&mut self) {
        if let Some(left) = &mut self.left {
            *left = REST_LEN_MAX;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HandshakeStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        this.received += count as u64;
        if let Some(left) = this.left {
            if !this.budget.resize(&mut this.reserved, this.received) {
                return Poll::Ready(Err(out_of_memory()));
            }
            let rest = left.checked_sub(count);
            if rest.is_none() {
                let error = io::Error::new(io::ErrorKind::InvalidData, "the handshake is too long");
                return Poll::Ready(Err(error));
            }
            this.left = rest;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HandshakeStream<S> {
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
