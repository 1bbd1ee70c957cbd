//! The connection: accept, cap, time out, decrypt, and hand each request to Rocket in this process.
//!
//! Rocket must not face the network itself (security.md says why). Its listener is never started: the
//! front takes the connections and asks Rocket for one answer at a time.

mod caps;
mod forward;
mod greeting;
mod limits;
mod line;
mod memory;
mod peer;
mod plain;
mod request_body;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::error::{Doing, Result};
use crate::logging::RateLimitedLine;
use crate::security::client_address::ClientAddress;
use crate::tls;
use caps::{ConnectionCaps, ConnectionSlot};
use forward::{FrontResponse, closing};
use greeting::greet;
use line::{ConnState, GuardedStream};
use request_body::RequestBody;

pub use caps::ConnectionLimit;
pub use forward::RocketBridge;
pub use limits::Limits;
pub use peer::Proxies;
pub use plain::Plain;

/// What the rest of a head that has begun is given when the server stops.
const REST_OF_HEAD: Duration = Duration::from_millis(300);
/// A connection on which nothing has come for so long is probed, so often, so many times: one whose client has
/// vanished ends after two minutes, and what translates addresses on the way does not forget it.
const PROBE_AFTER: Duration = Duration::from_mins(1);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;
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
    /// Whether browsers are to come back over HTTPS only: not where they were asked to make an exception.
    pub strict: bool,
    /// What answers.
    pub answers: Answers,
    /// Whose word about the client's address is believed.
    pub proxies: Proxies,
    /// How many connections it takes.
    pub room: ConnectionLimit,
    /// How long they may take.
    pub limits: Limits,
}

/// What answers requests.
#[derive(Clone)]
pub enum Answers {
    /// Rocket, with every door.
    RocketBridge(RocketBridge),
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
            strict,
            answers,
            proxies,
            room,
            limits,
        } = self;
        let caps = ConnectionCaps::new(room);
        let failed = RateLimitedLine::each(ACCEPT_TOLD);
        let shared = Arc::new(Shared {
            tls,
            strict,
            answers,
            proxies,
            limits,
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
                    tokio::spawn(async move { shared.connection(stream, peer, place, stop).await });
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
    strict: bool,
    answers: Answers,
    proxies: Proxies,
    limits: Limits,
}

impl Shared {
    /// Whether a connection from there is taken: what is behind the doors goes over plain HTTP to a proxy of
    /// ours at most, and to this machine.
    fn takes(&self, peer: SocketAddr) -> bool {
        let plain = self.tls.is_none() && matches!(self.answers, Answers::RocketBridge(_));
        !plain || peer.ip().to_canonical().is_loopback()
    }

    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: ConnectionSlot,
        stop: watch::Receiver<bool>,
    ) {
        if let Err(error) = prepare(&stream) {
            log::debug!("{peer} is gone already: {error}");
            return;
        }
        let Some(tls) = &self.tls else {
            return Box::pin(self.http(stream, peer, place, stop)).await;
        };
        // Boxed, so that a connection which never greets takes as little as can be.
        let greeted = tokio::select! {
            greeted = timeout(self.limits.handshake, greet(tls, stream)) => greeted,
            () = place.gives_way() => return log::debug!("{peer}: gave way before TLS"),
        };
        match greeted {
            // An authority has seen the proof that it wanted (RFC 8737 §3).
            Ok(Ok(stream)) if tls::is_proof(stream.get_ref().1.alpn_protocol()) => {}
            Ok(Ok(stream)) => Box::pin(self.http(stream, peer, place, stop)).await,
            Ok(Err(error)) => log::debug!("{peer}: no TLS: {error}"),
            Err(_) => log::debug!("{peer}: no TLS within {:?}", self.limits.handshake),
        }
    }

    async fn http<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        place: ConnectionSlot,
        mut stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let limits = self.limits;
        // A proxy speaks for many: it keeps connections as programs do.
        let idle = if self.proxies.trusts(peer.ip()) {
            limits.program_idle
        } else {
            limits.idle
        };
        let life_ends = Instant::now() + limits.some_life();
        let phase = Arc::new(ConnState::new(place, idle));
        let line = GuardedStream::new(stream, phase.clone(), limits);
        let stopping = stop.clone();
        let service = service_fn(|request: Request<Incoming>| {
            phase.answering(request.body().is_end_stream());
            let request = request.map(|body| RequestBody::new(body, phase.clone()));
            let from = self.proxies.client_of(peer, request.headers());
            let http_1_1 = request.version() == Version::HTTP_11;
            let (phase, stopping) = (&phase, &stopping);
            // Boxed: hyper keeps the room for it as long as the connection lasts.
            Box::pin(async move {
                let mut answer = self.answer(request, from).await;
                if let Some(silence) = answer.silence {
                    phase.may_be_idle(limits.idle_of_program(silence));
                }
                if answer.of_a_program {
                    phase.of_a_program();
                }
                if !phase.is_kept() || Instant::now() >= life_ends || *stopping.borrow() {
                    answer.response = closing(answer.response);
                } else if answer.silence.is_some() && http_1_1 {
                    keeping(&mut answer.response, phase.idle());
                }
                if self.strict {
                    let (name, value) = forward::STRICT;
                    let value = HeaderValue::from_static(value);
                    answer.response.headers_mut().insert(name, value);
                }
                phase.answered();
                Ok::<_, Infallible>(answer.response)
            })
        });
        let connection = http1::Builder::new()
            .max_header_size(HEAD_LEN)
            .max_buf_size(4 * HEAD_LEN)
            .max_headers(HEADERS)
            .half_close(true)
            .serve_connection(TokioIo::new(line), service);
        tokio::pin!(connection);
        // In this order: what has come is read before anything is ended.
        let stops = tokio::select! {
            biased;
            ended = connection.as_mut() => return told_of(peer, ended),
            _ = stop.wait_for(|stop| *stop) => true,
            () = phase.gives_way() => false,
        };
        if stops && phase.is_reading() {
            // The rest of a head that has begun may be on its way.
            let rest = timeout(REST_OF_HEAD, connection.as_mut()).await;
            if let Ok(ended) = rest {
                return told_of(peer, ended);
            }
        }
        if !stops && phase.waits_for_body() {
            return log::debug!("{peer}: gave way before a body had come");
        }
        connection.as_mut().graceful_shutdown();
        match timeout(limits.last_words, connection).await {
            Ok(ended) => told_of(peer, ended),
            Err(_) => log::debug!("{peer}: cut off at the end of its time"),
        }
    }

    async fn answer(&self, request: Request<RequestBody>, from: ClientAddress) -> FrontResponse {
        match &self.answers {
            Answers::RocketBridge(inside) => inside.answer(request, from).await,
            Answers::Plain(plain) => plain.answer(request).await.into(),
        }
    }
}

/// Says how a connection ended, to those who want to know it all.
fn told_of(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        log::debug!("{peer}: {error}");
    }
}

/// Small answers leave at once, and a client that has vanished is noticed though its connection may be idle
/// for long.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}

/// Has a program told for how long its connection is kept.
fn keeping(answer: &mut Response<Full<Bytes>>, idle: Duration) {
    let told = format!("timeout={}", Limits::told(idle));
    if let Ok(told) = HeaderValue::try_from(told) {
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.insert(HeaderName::from_static("keep-alive"), told);
    }
}

#[cfg(test)]
mod tests;
