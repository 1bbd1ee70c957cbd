//! The connection: accept, cap, time out, decrypt, and hand each request to Rocket in this process.
//!
//! Rocket must not face the network itself (security.md says why). Its listener is never started: the
//! front takes the connections and asks Rocket for one answer at a time.

mod caps;
mod forward;
mod line;
mod peer;
mod plain;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::error::{Doing, Result};
use crate::logging::Seldom;
use crate::tls;
use caps::Caps;
use line::{Line, Phase};

pub use caps::Room;
pub use forward::Inside;
pub use peer::Proxies;
pub use plain::Plain;

/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Between two requests of a connection.
const IDLE: Duration = Duration::from_secs(30);
/// A connection's whole life; a request under way is finished first.
const LIFE: Duration = Duration::from_mins(5);
/// What a request under way is given at the end of its connection's life.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// The head of a request, in bytes.
const HEAD_LEN: usize = 16 * 1024;
/// Header lines of a request.
const HEADERS: usize = 64;
/// Between two lines about failed accepts.
const ACCEPT_TOLD: Duration = Duration::from_mins(1);
/// After a failed accept: out of descriptors, most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Takes connections until it is told to stop.
pub struct Front {
    /// Where it listens.
    pub listener: TcpListener,
    /// How it decrypts; plain HTTP without.
    pub tls: Option<TlsAcceptor>,
    /// What answers.
    pub answers: Answers,
    /// Whose word about the client's address is believed.
    pub proxies: Proxies,
    /// How many connections it takes.
    pub room: Room,
}

/// What answers requests.
#[derive(Clone)]
pub enum Answers {
    /// Rocket, with every door.
    Inside(Inside),
    /// What is served in plain HTTP beside HTTPS.
    Plain(Plain),
}

impl Front {
    /// Serves until `stop` turns true; then takes no more, and finishes what runs within `grace`.
    ///
    /// # Errors
    /// When connections are left after `grace`.
    pub async fn serve(self, mut stop: watch::Receiver<bool>, grace: Duration) -> Result<()> {
        let Self {
            listener,
            tls,
            answers,
            proxies,
            room,
        } = self;
        let caps = Caps::new(room);
        let failed = Seldom::each(ACCEPT_TOLD);
        let shared = Arc::new(Shared {
            tls,
            answers,
            proxies,
        });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let exempt = shared.proxies.trusts(peer.ip());
                    if !exempt && !shared.takes(peer) {
                        continue;
                    }
                    let Some(place) = caps.enter(peer.ip(), exempt) else {
                        continue;
                    };
                    let (shared, stop) = (shared.clone(), stop.clone());
                    tokio::spawn(async move {
                        shared.connection(stream, peer, stop).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Whoever takes every descriptor causes it many times a second.
                    if let Some(more) = failed.due() {
                        log::warn!("a connection could not be accepted: {error}{more}");
                    }
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        drop(listener);
        timeout(grace, caps.empty())
            .await
            .doing("finish every request in time")
    }
}

struct Shared {
    tls: Option<TlsAcceptor>,
    answers: Answers,
    proxies: Proxies,
}

impl Shared {
    /// Whether a connection from there is taken: what is behind the doors goes over plain HTTP to a proxy of
    /// ours at most, and to this machine.
    fn takes(&self, peer: SocketAddr) -> bool {
        let plain = self.tls.is_none() && matches!(self.answers, Answers::Inside(_));
        !plain || peer.ip().to_canonical().is_loopback()
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, stop: watch::Receiver<bool>) {
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("{peer} is gone already: {error}");
            return;
        }
        match &self.tls {
            None => self.http(stream, peer, stop).await,
            Some(tls) => match timeout(HANDSHAKE, tls.accept(stream)).await {
                // An authority has seen the proof that it wanted (RFC 8737 §3).
                Ok(Ok(stream)) if tls::is_proof(stream.get_ref().1.alpn_protocol()) => {}
                Ok(Ok(stream)) => self.http(stream, peer, stop).await,
                Ok(Err(error)) => log::debug!("{peer}: no TLS: {error}"),
                Err(_) => log::debug!("{peer}: no TLS within {HANDSHAKE:?}"),
            },
        }
    }

    async fn http<S>(&self, stream: S, peer: SocketAddr, mut stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let phase = Arc::new(Phase::default());
        let line = Line::new(stream, phase.clone());
        let service = service_fn(|request: Request<Incoming>| {
            phase.answering();
            let from = self.proxies.client_of(peer, request.headers());
            let phase = &phase;
            async move {
                let answer = match &self.answers {
                    Answers::Inside(inside) => inside.answer(request, from).await,
                    Answers::Plain(plain) => plain.answer(request).await,
                };
                phase.answered();
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_header_size(HEAD_LEN)
            .max_headers(HEADERS)
            .half_close(true)
            .serve_connection(TokioIo::new(line), service);
        tokio::pin!(connection);
        let told = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = sleep(LIFE) => None,
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let ended = if let Some(ended) = told {
            Ok(ended)
        } else {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_WORDS, connection).await
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("{peer}: {error}"),
            Err(_) => log::debug!("{peer}: cut off at the end of its time"),
        }
    }
}
