//! The front accepts connections, limits their number and time, decrypts them, and passes each request to Rocket in
//! this process.
//!
//! Rocket must not face the network itself (security.md explains why), so its own listener is never started.

mod caps;
mod forward;
mod guarded_stream;
mod limits;
mod memory;
mod peer;
mod plain;
mod request_body;
mod responses;
mod tls_handshake;
mod unread;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::error::{Doing, Result};
use crate::logging::RateLimitedLine;
use crate::security::client_address::ClientAddress;
use crate::tls;
use crate::web::connection::BodyBudget;
use caps::{ConnectionCaps, ConnectionSlot};
use forward::FrontResponse;
use guarded_stream::{ConnState, GuardedStream};
use request_body::RequestBody;
use responses::{HSTS, with_connection_close};
use tls_handshake::{Received, accept_tls};
use unread::{UnreadResponse, UnreadResponses};

pub use caps::ConnectionLimit;
pub use forward::RocketBridge;
pub use limits::Limits;
pub use peer::Proxies;
pub use plain::PlainHttp;

/// How long the rest of a partly received request head is awaited when the server stops.
const REST_OF_HEAD: Duration = Duration::from_millis(300);
/// TCP keep-alive probes: after this idle time, at this interval, this many. A connection whose client has vanished
/// ends after two minutes, and address translators (NAT) on the way keep their state for the others.
const PROBE_AFTER: Duration = Duration::from_mins(1);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;
/// Unsent bytes that the kernel keeps for a connection. It would keep megabytes for a client that does not read.
const UNSENT_LEN_MAX: u32 = 32 * 1024;
/// Maximum length of a request head, in bytes.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Maximum length of all incomplete heads together on the plain HTTP port, in bytes, not counting the first 2 KiB of each.
const PLAIN_HEADS_LEN_MAX: usize = 1024 * 1024;
/// Maximum number of header lines of a request.
const HEADERS_MAX: usize = 64;
/// Minimum time between two log lines about failed accepts.
const ACCEPT_LOG_EVERY: Duration = Duration::from_mins(1);
/// Pause after a failed accept. The usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until it is stopped.
pub struct Front {
    /// The listening socket.
    pub listener: TcpListener,
    /// For HTTPS; `None` for plain HTTP.
    pub tls: Option<TlsAcceptor>,
    /// Whether to send `Strict-Transport-Security`. Not with a certificate for which browsers need an exception.
    pub hsts: bool,
    /// What answers the requests.
    pub backend: Backend,
    /// The proxies whose headers about the client's address are trusted.
    pub proxies: Proxies,
    /// The maximum number of connections.
    pub max_connections: ConnectionLimit,
    /// The time limits of a connection.
    pub limits: Limits,
}

/// What answers requests.
#[derive(Clone)]
pub enum Backend {
    /// Rocket, with all routes.
    RocketBridge(RocketBridge),
    /// The few responses of the plain HTTP port beside HTTPS.
    PlainHttp(PlainHttp),
}

impl Backend {
    /// The budget for heads and bodies that are not complete yet.
    fn budget(&self) -> BodyBudget {
        match self {
            Self::RocketBridge(rocket) => rocket.budget(),
            Self::PlainHttp(_) => BodyBudget::new(PLAIN_HEADS_LEN_MAX),
        }
    }
}

impl Front {
    /// Serves until `stop` becomes true; then accepts no more connections, and waits up to `grace` for the open ones to
    /// end.
    ///
    /// # Errors
    /// If connections are still open after `grace`.
    pub async fn serve(self, mut stop: watch::Receiver<bool>, grace: Duration) -> Result<()> {
        let listener = self.listener;
        let caps = ConnectionCaps::new(self.max_connections);
        let accept_failed = RateLimitedLine::each(ACCEPT_LOG_EVERY);
        let shared = Arc::new(Shared {
            tls: self.tls,
            hsts: self.hsts,
            budget: self.backend.budget(),
            backend: self.backend,
            proxies: self.proxies,
            limits: self.limits,
            unread: UnreadResponses::new(self.limits.unread_len()),
        });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(slot) = shared.admit(peer, &caps) else {
                        continue;
                    };
                    let (shared, stop) = (shared.clone(), stop.clone());
                    tokio::spawn(async move { shared.connection(stream, peer, slot, stop).await });
                }
                Err(error) => {
                    // Without descriptors, this happens many times a second.
                    if let Some(more) = accept_failed.due() {
                        log::warn!("a connection could not be accepted: {error}{more}");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        timeout(grace, caps.all_ended())
            .await
            .doing("finish every request in time")
    }
}

/// Until when a connection takes requests.
struct Lifetime<'c> {
    state: &'c Arc<ConnState>,
    expires_at: Instant,
    stopping: watch::Receiver<bool>,
}

impl Lifetime<'_> {
    fn is_over(&self) -> bool {
        self.state.is_evicted() || Instant::now() >= self.expires_at || *self.stopping.borrow()
    }
}

/// Why the server closes a connection.
#[derive(Clone, Copy)]
enum CloseReason {
    ServerStops,
    Evicted,
    Unread,
}

struct Shared {
    tls: Option<TlsAcceptor>,
    hsts: bool,
    backend: Backend,
    proxies: Proxies,
    limits: Limits,
    budget: BodyBudget,
    unread: Arc<UnreadResponses>,
}

impl Shared {
    /// A slot for a connection from `peer`; `None` if the connection is not accepted.
    fn admit(&self, peer: SocketAddr, caps: &Arc<ConnectionCaps>) -> Option<ConnectionSlot> {
        if self.proxies.trusts(peer.ip()) {
            caps.enter_proxy()
        } else if self.accepts(peer) {
            caps.enter(peer.ip())
        } else {
            None
        }
    }

    /// Whether a connection from `peer`, which is not a trusted proxy, is accepted. Over plain HTTP, Rocket serves
    /// trusted proxies and this machine only.
    fn accepts(&self, peer: SocketAddr) -> bool {
        let is_plain = self.tls.is_none() && matches!(self.backend, Backend::RocketBridge(_));
        !is_plain || peer.ip().to_canonical().is_loopback()
    }

    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        slot: ConnectionSlot,
        stop: watch::Receiver<bool>,
    ) {
        if let Err(error) = set_socket_options(&stream) {
            log::debug!("{peer} has disconnected already: {error}");
            return;
        }
        let Some(tls) = &self.tls else {
            return Box::pin(self.http(stream, peer, slot, stop)).await;
        };
        // `http` is boxed, so that a connection without a handshake occupies little memory.
        let handshake = tokio::select! {
            handshake = timeout(self.limits.handshake, accept_tls(tls, stream, self.budget.clone())) => handshake,
            () = slot.evicted() => return log::debug!("{peer}: evicted before TLS"),
        };
        match handshake {
            // The handshake itself was an ACME challenge (RFC 8737 §3), and the connection has served its purpose.
            Ok(Ok(stream)) if tls::is_acme_challenge(stream.get_ref().1.alpn_protocol()) => {}
            Ok(Ok(stream)) => Box::pin(self.http(stream, peer, slot, stop)).await,
            Ok(Err(error)) => log::debug!("{peer}: no TLS: {error}"),
            Err(_) => log::debug!("{peer}: no TLS within {:?}", self.limits.handshake),
        }
    }

    async fn http<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        slot: ConnectionSlot,
        mut stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Received + Unpin,
    {
        let state = self.state_of(peer, slot);
        let mut stream =
            GuardedStream::new(stream, state.clone(), &self.limits, self.budget.clone());
        let lifetime = Lifetime {
            state: &state,
            expires_at: Instant::now() + self.limits.jittered_max_age(),
            stopping: stop.clone(),
        };
        loop {
            // Without hyper while nothing arrives: most connections are idle, and its buffers are large.
            let stopped = tokio::select! {
                biased;
                received = stream.first_bytes() => match received {
                    Ok(()) => None,
                    Err(error) => return log::debug!("{peer}: {error}"),
                },
                reason = must_close(&mut stop, &state) => Some(reason),
            };
            let mut connection = Box::pin(self.hyper(stream, peer, &lifetime));
            if let Some(reason) = stopped {
                return self.close(peer, connection.as_mut(), reason, &state).await;
            }
            let rested = self
                .serve_until_rest(connection, peer, &state, &mut stop)
                .await;
            let Some(parts) = rested else { return };
            stream = parts.io.into_inner();
            stream.resume(&parts.read_buf);
        }
    }

    /// Serves requests until the connection begins to rest; returns what it is made of. `None` once it has ended.
    async fn serve_until_rest<I, S>(
        &self,
        mut connection: Pin<Box<http1::Connection<I, S>>>,
        peer: SocketAddr,
        state: &ConnState,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<http1::Parts<I, S>>
    where
        I: Read + Write + Unpin,
        S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
    {
        let ended_or_rests = poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if state.begins_to_rest() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        // In this order, so that received bytes are read before the connection is stopped or evicted.
        let reason = tokio::select! {
            biased;
            ended = ended_or_rests => match ended {
                Some(ended) => {
                    log_end(peer, ended);
                    return None;
                }
                // Nothing is lost: it has flushed its response, and waits for the next head.
                None => return Some(Pin::into_inner(connection).into_parts()),
            },
            reason = must_close(stop, state) => reason,
        };
        self.close(peer, connection.as_mut(), reason, state).await;
        None
    }

    /// Serves the requests that arrive over `stream`.
    fn hyper<'c, S>(
        &'c self,
        stream: GuardedStream<'c, S>,
        peer: SocketAddr,
        lifetime: &'c Lifetime<'_>,
    ) -> http1::Connection<
        TokioIo<GuardedStream<'c, S>>,
        impl HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible, Future: Send>,
    >
    where
        S: AsyncRead + AsyncWrite + Received + Unpin,
    {
        let service = service_fn(move |request: Request<Incoming>| {
            let state = lifetime.state;
            state.head_received(request.body());
            let request = request.map(|body| RequestBody::new(body, state.clone()));
            let from = self.proxies.client_of(peer, request.headers());
            let version = request.version();
            // Boxed, because hyper reserves memory for this future for as long as the connection is open.
            Box::pin(async move {
                let answer = self.answer(request, from).await;
                let response = self.complete(answer, version, lifetime);
                lifetime.state.response_ready(response.body());
                Ok::<_, Infallible>(response)
            })
        });
        http1_settings().serve_connection(TokioIo::new(stream), service)
    }

    /// Closes a connection, after the request in progress if it ends in time.
    async fn close<I, S>(
        &self,
        peer: SocketAddr,
        mut connection: Pin<&mut http1::Connection<I, S>>,
        reason: CloseReason,
        state: &ConnState,
    ) where
        I: Read + Write + Unpin,
        S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
    {
        match reason {
            CloseReason::ServerStops if state.is_reading() => {
                // The rest of a partly received head may still arrive.
                let rest = timeout(REST_OF_HEAD, connection.as_mut()).await;
                if let Ok(ended) = rest {
                    return log_end(peer, ended);
                }
            }
            CloseReason::Evicted if state.waits_for_body() => {
                return log::debug!("{peer}: evicted before the body of its request arrived");
            }
            CloseReason::Unread => {
                return log::debug!(
                    "{peer}: cut, because it does not read, and others need the memory"
                );
            }
            CloseReason::ServerStops | CloseReason::Evicted => {}
        }
        connection.as_mut().graceful_shutdown();
        match timeout(self.limits.stop_grace, connection).await {
            Ok(ended) => log_end(peer, ended),
            Err(_) => log::debug!("{peer}: closed with a request still in progress"),
        }
    }

    /// The state of a new connection from `peer`.
    fn state_of(&self, peer: SocketAddr, slot: ConnectionSlot) -> Arc<ConnState> {
        let unread = UnreadResponse::new(self.unread.clone());
        let idle = self.first_idle_limit(peer);
        Arc::new(ConnState::new(slot, unread, idle))
    }

    /// How long a connection from `peer` may be idle at first.
    fn first_idle_limit(&self, peer: SocketAddr) -> Duration {
        // A proxy forwards for many clients, so its connections stay open as long as those of programs.
        if self.proxies.trusts(peer.ip()) {
            self.limits.program_idle
        } else {
            self.limits.idle
        }
    }

    /// The response to a request of this `version`, with the headers about its connection. Stores what the request
    /// revealed about its caller.
    fn complete(
        &self,
        mut answer: FrontResponse,
        version: Version,
        lifetime: &Lifetime<'_>,
    ) -> Response<Full<Bytes>> {
        let state = lifetime.state;
        if let Some(max_idle) = answer.max_idle {
            state.set_idle_limit(self.limits.idle_of_program(max_idle));
        }
        if answer.is_program {
            state.mark_program();
        }
        if lifetime.is_over() {
            answer.response = with_connection_close(answer.response);
        } else if answer.max_idle.is_some() && version == Version::HTTP_11 {
            set_keep_alive(&mut answer.response, state.idle_limit());
        }
        if self.hsts {
            let (name, value) = HSTS;
            let value = HeaderValue::from_static(value);
            answer.response.headers_mut().insert(name, value);
        }
        answer.response
    }

    async fn answer(&self, request: Request<RequestBody>, from: ClientAddress) -> FrontResponse {
        match &self.backend {
            Backend::RocketBridge(rocket) => rocket.answer(request, from).await,
            Backend::PlainHttp(plain) => plain.answer(request).await.into(),
        }
    }
}

/// Waits until a connection must close; returns why.
async fn must_close(stop: &mut watch::Receiver<bool>, state: &ConnState) -> CloseReason {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => CloseReason::ServerStops,
        reason = state.displaced() => reason,
    }
}

/// The settings of a connection.
fn http1_settings() -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        .max_header_size(HEAD_LEN_MAX)
        .max_buf_size(2 * HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(true);
    settings
}

/// Logs the error with which a connection ended, at debug level.
fn log_end(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        log::debug!("{peer}: {error}");
    }
}

/// Sets the socket options: no delay for small responses, probes for vanished clients, and little memory in the kernel.
fn set_socket_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_LEN_MAX)?;
    Ok(())
}

/// Announces to a program how long its connection stays open.
fn set_keep_alive(response: &mut Response<Full<Bytes>>, idle: Duration) {
    let timeout = format!("timeout={}", Limits::announced_idle_s(idle));
    if let Ok(timeout) = HeaderValue::try_from(timeout) {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.insert(HeaderName::from_static("keep-alive"), timeout);
    }
}

#[cfg(test)]
mod tests;
